//! Who may go on holding a connection, without a timer per connection: one look at all of them every quarter second.
//!
//! 1. Until the first whole head, handshake included, and for each later head once begun: `head_timeout`.
//! 2. Between requests: `idle_timeout`, then a polite close.
//! 3. While the client owes a request body that we wait for: `min_rate`.
//! 4. A client that takes nothing of its answer: five minutes; a paused download may be resumed within them.
//!
//! The last two hold over HTTP/2 for each stream by itself, which is reset; else the connection is cut. The total time of a request is never limited.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Connection;
use crate::clock::Now;
use crate::config::settings::Limits;

/// How often [`Deadlines::tick`] should be called.
pub const PERIOD: Duration = Duration::from_millis(250);
/// A paused download gets minutes.
const STALLED: u64 = 5 * 60_000;
/// For the client to close after our last answer.
const LINGER: u64 = 2_000;
/// For an HTTP/2 client to take our goodbye.
const GOODBYE: u64 = 10_000;

/// Why a client was cut, for the log.
const NO_HEAD: &str = "the client sent no whole head in time (limits.head_timeout)";
const NO_GOODBYE: &str = "the client did not close in time";
const TOO_SLOW: &str = "the client sent its body too slowly (limits.min_rate)";
const TAKES_NOTHING: &str = "the client took nothing of the answer for five minutes";

/// What to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// No further request; then close.
    Close,
    /// Cut, for this reason.
    Kill(&'static str),
}

/// What one look sees of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What the connection is at.
    pub phase: Phase,
    /// Requests begun so far.
    pub begun: u64,
    /// We wait for bytes of a request body that a minimum rate holds for.
    pub owing: bool,
    /// Bytes received so far.
    pub received: u64,
    /// An answer waits for the client to take something.
    pub stalled: bool,
    /// Grows whenever the client takes something.
    pub taken: u64,
}

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the first whole head.
    First,
    /// In a later head.
    Head,
    /// A request is being served.
    Active,
    /// Between requests.
    Idle,
    /// Asked to close, nothing runs any more.
    Closing,
    /// The last answer is out.
    Lingering,
    /// A tunnel.
    Tunnel,
}

/// What is remembered from look to look; times in monotonic milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    phase: Phase,
    begun: u64,
    since: u64,
    pace: Pace,
}

/// How a client keeps up with what it owes and what it was given; times in monotonic milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Since when bytes are owed, and how many there were then; starts anew with each stretch.
    owing: Option<(u64, u64)>,
    /// Since when nothing was taken, and the count then.
    stalled: Option<(u64, u64)>,
}

/// The open connections of one worker.
#[derive(Debug, Default)]
pub struct Deadlines {
    open: RefCell<Vec<(Weak<Connection>, Memory)>>,
}

impl Memory {
    /// Of a connection accepted at `now`, in monotonic milliseconds.
    pub fn new(now: u64) -> Self {
        Self { phase: Phase::First, begun: 0, since: now, pace: Pace::default() }
    }

    /// Judges one look.
    pub fn judge(&mut self, look: &Look, limits: &Limits, now: u64) -> Verdict {
        if (look.phase, look.begun) != (self.phase, self.begun) {
            (self.phase, self.begun, self.since) = (look.phase, look.begun, now);
        }
        let lasted = now.saturating_sub(self.since);
        let verdict = match look.phase {
            Phase::First | Phase::Head if lasted >= millis(limits.head_timeout) => Verdict::Kill(NO_HEAD),
            Phase::Idle if lasted >= millis(limits.idle_timeout) => Verdict::Close,
            Phase::Closing if lasted >= GOODBYE => Verdict::Kill(NO_GOODBYE),
            Phase::Lingering if lasted >= LINGER => Verdict::Kill(NO_GOODBYE),
            _ => Verdict::Keep,
        };
        let owed = look.owing.then_some(look.received);
        let waiting = look.stalled.then_some(look.taken);
        self.pace.judge(owed, waiting, limits, now).map_or(verdict, Verdict::Kill)
    }
}

impl Pace {
    /// Judges one look: `owed` is how many bytes have come of a body that is waited for, `waiting` how much was taken of
    /// an answer that waits for the client. Says why it is over, if it is.
    pub fn judge(
        &mut self,
        owed: Option<u64>,
        waiting: Option<u64>,
        limits: &Limits,
        now: u64,
    ) -> Option<&'static str> {
        let slow = self.is_slow(owed, limits, now);
        let stalled = self.is_stalled(waiting, now);
        if slow { Some(TOO_SLOW) } else { stalled.then_some(TAKES_NOTHING) }
    }

    fn is_slow(&mut self, owed: Option<u64>, limits: &Limits, now: u64) -> bool {
        let (Some((since, had)), Some(received)) = (self.owing, owed) else {
            self.owing = owed.map(|received| (now, received));
            return false;
        };
        if now.saturating_sub(since) < millis(limits.min_rate.per) {
            return false;
        }
        self.owing = Some((now, received));
        received.saturating_sub(had) < limits.min_rate.bytes.0
    }

    fn is_stalled(&mut self, waiting: Option<u64>, now: u64) -> bool {
        match (self.stalled, waiting) {
            (Some((since, had)), Some(taken)) if had == taken => now.saturating_sub(since) >= STALLED,
            _ => {
                self.stalled = waiting.map(|taken| (now, taken));
                false
            }
        }
    }
}

impl Look {
    /// Looks at a connection.
    pub fn at(connection: &Connection) -> Self {
        let watch = &connection.watch;
        let waits_for_client = watch.in_flight.get() > watch.feeding.get();
        let phase = if connection.tunnel.get() {
            Phase::Tunnel
        } else if watch.lingering.get() {
            Phase::Lingering
        } else if watch.in_flight.get() > 0 || watch.blocked.get() {
            Phase::Active
        } else if watch.closing.get() {
            Phase::Closing
        } else if watch.begun.get() == 0 {
            Phase::First
        } else if watch.mid_head.get() {
            Phase::Head
        } else {
            Phase::Idle
        };
        Self {
            phase,
            begun: watch.begun.get(),
            owing: watch.owing.get() && !watch.unpaced.get() && phase == Phase::Active,
            received: connection.received.get(),
            stalled: watch.blocked.get() || (phase == Phase::Active && waits_for_client && !connection.h2),
            taken: watch.taken.get().wrapping_add(connection.sent.get()),
        }
    }
}

impl Deadlines {
    /// Watches a connection that was accepted at `accepted` until it is gone.
    pub fn watch(&self, connection: &Rc<Connection>, accepted: Now) {
        self.open.borrow_mut().push((Rc::downgrade(connection), Memory::new(accepted.mono_ms())));
    }

    /// Looks at every connection and stream, closes and kills those over; answers how many were killed.
    pub fn tick(&self, limits: &Limits, now: Now) -> usize {
        let mut killed = 0;
        self.open.borrow_mut().retain_mut(|(connection, memory)| {
            let Some(connection) = connection.upgrade() else { return false };
            killed += connection.streams.tick(limits, now.mono_ms());
            match memory.judge(&Look::at(&connection), limits, now.mono_ms()) {
                Verdict::Keep => {}
                Verdict::Close => connection.watch.close(),
                Verdict::Kill(cause) => {
                    connection.cut(cause);
                    killed += 1;
                    return false;
                }
            }
            true
        });
        killed
    }

    /// Asks every connection to close once what runs is answered.
    pub fn close_all(&self) {
        self.each(|connection| connection.watch.close());
    }

    /// Cuts every connection; the cause is for the log.
    pub fn kill_all(&self, cause: &'static str) {
        self.each(|connection| connection.cut(cause));
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.open.borrow().iter().filter(|(connection, _)| connection.strong_count() > 0).count()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn each(&self, act: impl Fn(&Connection)) {
        for connection in self.open.borrow().iter().filter_map(|(connection, _)| connection.upgrade()) {
            act(&connection);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "deadlines_tests.rs"]
mod tests;
