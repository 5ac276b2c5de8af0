//! Lines on their way: each worker fills a lane of its own, one thread carries all of them to the target.
//!
//! A worker never waits: a lane that is full drops lines and counts them, and the log itself says at that place how many.
//! A target that fails is tried again; lines wait in their lanes meanwhile, and none is left in halves.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::audit::Say;
use super::line::{Form, Gap};
use super::target::Target;

/// Bytes that a lane holds at most: seconds of a busy worker, and then something is wrong with the target.
pub(super) const LANE: usize = 1 << 20;

/// How long the writer gathers before it writes, so that a busy gateway makes few system calls.
const GATHER: Duration = Duration::from_millis(5);

/// How long it waits before it tries a target again that has failed.
const RETRY: Duration = Duration::from_millis(250);

/// What workers, writer and those who give orders share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    dropped: AtomicU64,
    /// The target takes nothing.
    failing: AtomicBool,
    /// The form of lines, as [`word_of`] writes it: what a lane reads without a lock.
    form: AtomicU8,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Arc<Mutex<Buffer>>>,
    orders: Vec<Order>,
    pending: bool,
    closed: bool,
}

/// One lane's lines.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Lines are in this form; `None`: the log is off.
    pub(super) form: Option<Form>,
    /// Lines that found no room, all of them after those that did.
    gap: Gap,
    /// When the last line was written, in milliseconds since 1970.
    wall: u64,
}

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Open the target's file anew.
    Reopen,
    /// From now on lines go there, in this form.
    Switch(Outlet),
}

/// A target and the form of its lines; no target, no lines.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    pub(super) target: Option<Box<dyn Target>>,
    pub(super) form: Option<Form>,
}

// === impl Shared ===

impl Shared {
    /// The form in which lines are wanted; the lane's own buffer has the last word.
    pub(super) fn form(&self) -> Option<Form> {
        form_of(self.form.load(Ordering::Relaxed))
    }

    /// Whether the last try to write has failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Lines that were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// One more lane.
    pub(super) fn lane(&self) -> Arc<Mutex<Buffer>> {
        let buffer = Arc::new(Mutex::new(Buffer { form: self.form(), ..Buffer::default() }));
        locked(&self.state).lanes.push(Arc::clone(&buffer));
        buffer
    }

    /// Takes a line of a request of this time into its lane.
    pub(super) fn push(&self, mut buffer: MutexGuard<'_, Buffer>, line: &str, wall: u64) {
        buffer.wall = wall;
        // Once one was lost all are until there is room, so that the gap is in one place.
        if buffer.gap.lines > 0 || buffer.bytes.len() + line.len() > LANE {
            buffer.gap.grow(wall);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = buffer.bytes.is_empty();
        buffer.bytes.extend_from_slice(line.as_bytes());
        drop(buffer);
        if first {
            locked(&self.state).pending = true;
            self.wake.notify_one();
        }
    }

    /// Tells the writer; it obeys when it has written what came before.
    pub(super) fn order(&self, order: Order) {
        locked(&self.state).orders.push(order);
        self.wake.notify_one();
    }

    /// The writer ends when it has written what is there.
    pub(super) fn close(&self) {
        locked(&self.state).closed = true;
        self.wake.notify_all();
    }

    /// Waits until something is there, then a moment longer.
    fn wait(&self, failing: bool) -> Turn {
        let state = locked(&self.state);
        let idle = |state: &mut State| !state.pending && !state.closed && state.orders.is_empty();
        let state = match failing {
            true => {
                self.wake.wait_timeout_while(state, RETRY, |state| !state.closed && state.orders.is_empty())
            }
            false => {
                let state = self.wake.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
                self.wake.wait_timeout_while(state, GATHER, |state| !state.closed && state.orders.is_empty())
            }
        };
        let (mut state, _) = state.unwrap_or_else(PoisonError::into_inner);
        // While the target fails nothing is taken from the lanes: what is pending stays so.
        state.pending &= failing;
        // A lane whose worker has ended stays only until it is empty.
        state.lanes.retain(|lane| Arc::strong_count(lane) > 1 || !locked(lane).bytes.is_empty());
        Turn { lanes: state.lanes.clone(), orders: std::mem::take(&mut state.orders), closed: state.closed }
    }
}

struct Turn {
    lanes: Vec<Arc<Mutex<Buffer>>>,
    orders: Vec<Order>,
    closed: bool,
}

// === the writer ===

/// Carries lines to the target; ends when closed.
pub(super) struct Writer {
    shared: Arc<Shared>,
    outlet: Outlet,
    /// Taken from the lanes, and not yet written.
    batch: Vec<u8>,
    /// How much of it is written: up to here nothing is written twice.
    written: usize,
    /// Lost by the writer itself.
    gap: Gap,
    failing: bool,
    wall: u64,
    say: Say,
}

impl Writer {
    /// A writer to this target.
    pub(super) fn new(shared: Arc<Shared>, outlet: Outlet, say: Say) -> Self {
        shared.form.store(word_of(outlet.form), Ordering::Relaxed);
        Self {
            shared,
            outlet,
            batch: Vec::new(),
            written: 0,
            gap: Gap::default(),
            failing: false,
            wall: 0,
            say,
        }
    }

    /// Works until closed.
    pub(super) fn work(mut self) {
        loop {
            let turn = self.shared.wait(self.failing);
            if let Some(target) = &mut self.outlet.target {
                target.tend(self.wall, &self.say);
            }
            self.write();
            if !self.failing {
                self.gather(&turn.lanes);
                self.write();
            }
            for order in turn.orders {
                self.obey(order, &turn.lanes);
            }
            self.shared.failing.store(self.failing, Ordering::Relaxed);
            if turn.closed {
                return self.give_up();
            }
        }
    }

    /// Takes what the lanes hold, and says what they have lost. What is taken while a target fails would have no bound.
    fn gather(&mut self, lanes: &[Arc<Mutex<Buffer>>]) {
        let own = std::mem::take(&mut self.gap);
        self.tell(own);
        for lane in lanes {
            let mut buffer = locked(lane);
            self.batch.append(&mut buffer.bytes);
            let gap = std::mem::take(&mut buffer.gap);
            self.wall = self.wall.max(buffer.wall);
            drop(buffer);
            self.tell(gap);
        }
    }

    fn tell(&mut self, gap: Gap) {
        if let Some(form) = self.outlet.form.filter(|_| gap.lines > 0) {
            let mut line = String::new();
            gap.write(form, &mut line);
            self.batch.extend_from_slice(line.as_bytes());
        }
    }

    /// Writes the batch as far as the target takes it.
    fn write(&mut self) {
        let Some(target) = &mut self.outlet.target else {
            self.batch.clear();
            return;
        };
        let mut outcome = Ok(());
        while let Some(rest) = self.batch.get(self.written..).filter(|rest| !rest.is_empty()) {
            match target.write(rest) {
                Ok(0) => outcome = Err(std::io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.written += taken,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => outcome = Err(error),
            }
            if outcome.is_err() {
                break;
            }
        }
        match outcome {
            Ok(()) => {
                self.batch.clear();
                self.written = 0;
                if std::mem::take(&mut self.failing) {
                    (self.say)("the access log can be written again; it says itself how many lines it lacks");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let name = target.name();
                    (self.say)(&format!(
                        "the access log cannot be written to {name}: {error}; it is tried again, requests go on, lines \
                         that find no room are dropped and counted (portcullis_log_dropped_total)"
                    ));
                }
            }
        }
    }

    fn obey(&mut self, order: Order, lanes: &[Arc<Mutex<Buffer>>]) {
        match order {
            Order::Reopen => self.reopen(),
            Order::Switch(outlet) => self.switch(outlet, lanes),
        }
    }

    fn reopen(&mut self) {
        let Some(target) = &mut self.outlet.target else { return };
        match target.reopen() {
            Ok(()) => {
                let name = target.name();
                // The old file keeps what it has of a line, the new one begins with a whole one.
                self.drop_begun_line();
                (self.say)(&format!("the access log is open anew: {name}"));
                self.write();
            }
            Err(error) => {
                let name = target.name();
                (self.say)(&format!(
                    "the access log cannot be opened anew: {name}: {error}; lines go on into the old file"
                ));
            }
        }
    }

    /// What was written in the old form goes to the old target, what comes after in the new one to the new.
    fn switch(&mut self, outlet: Outlet, lanes: &[Arc<Mutex<Buffer>>]) {
        for lane in lanes {
            let mut buffer = locked(lane);
            self.batch.append(&mut buffer.bytes);
            buffer.form = outlet.form;
        }
        self.write();
        if self.failing {
            self.lose_batch();
        }
        self.failing = false;
        self.shared.form.store(word_of(outlet.form), Ordering::Relaxed);
        self.outlet = outlet;
        if let Some(target) = &self.outlet.target {
            (self.say)(&format!("the access log goes to {}", target.name()));
        }
    }

    fn drop_begun_line(&mut self) {
        if self.written == 0 {
            return;
        }
        let begun = self.batch.get(self.written - 1).is_some_and(|byte| *byte != b'\n');
        let rest = self.batch.get(self.written..).unwrap_or_default();
        let skip = if begun {
            rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1)
        } else {
            0
        };
        self.batch.drain(..self.written + skip);
        self.written = 0;
        if begun {
            self.lose(1);
        }
    }

    fn lose_batch(&mut self) {
        let rest = self.batch.get(self.written..).unwrap_or_default();
        let lines = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.batch.clear();
        self.written = 0;
        self.lose(lines);
    }

    fn lose(&mut self, lines: u64) {
        (0..lines).for_each(|_| self.gap.grow(self.wall));
        self.shared.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn give_up(&mut self) {
        if self.failing {
            self.lose_batch();
        }
    }
}

fn form_of(word: u8) -> Option<Form> {
    match word {
        1 => Some(Form::Json),
        2 => Some(Form::Combined),
        3 => Some(Form::Readable),
        _ => None,
    }
}

fn word_of(form: Option<Form>) -> u8 {
    match form {
        None => 0,
        Some(Form::Json) => 1,
        Some(Form::Combined) => 2,
        Some(Form::Readable) => 3,
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
