//! How long to wait for an upstream: one look at all waits every quarter of a second instead of a timer for each.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;
use tokio::task::AbortHandle;

use crate::clock::Now;
use crate::stores::streams::{Kill, Killable};

/// The waits of one worker.
#[derive(Debug, Default)]
pub struct Patience {
    waits: RefCell<Slab<Entry>>,
}

/// What shows whether the upstream is the one that is waited for.
#[derive(Debug)]
pub struct Flow {
    /// As long as this moves, things go on.
    pub moved: Rc<Cell<u64>>,
    /// The upstream owes something; else its client does.
    pub waiting: Cell<bool>,
    /// It took too long.
    pub over: Cell<bool>,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    limit: u64,
    flow: Rc<Flow>,
    seen: u64,
    end: End,
}

/// What happens when it took too long.
#[derive(Debug)]
pub enum End {
    /// The waiting work is dropped, or a body breaks off.
    Kill(Rc<Kill>),
    /// The connection is closed: whoever reads from it hears that it broke off.
    Close(AbortHandle),
}

/// Ends a wait when dropped.
#[derive(Debug)]
pub struct Watch {
    patience: Rc<Patience>,
    place: usize,
}

/// One wait; over when dropped.
#[derive(Debug)]
pub struct Wait {
    _watch: Watch,
    end: Rc<Kill>,
}

impl Flow {
    /// The upstream owes something from now on.
    pub fn owed(moved: Rc<Cell<u64>>) -> Rc<Self> {
        Rc::new(Self { moved, waiting: Cell::new(true), over: Cell::new(false) })
    }
}

impl Patience {
    /// Begins to wait for an answer; as long as `progress` moves, the upstream is not what we wait for.
    pub fn wait(self: &Rc<Self>, now: Now, limit: Duration, progress: Rc<Cell<u64>>) -> Wait {
        let end = Rc::<Kill>::default();
        let watch = self.insert(now, limit, Flow::owed(progress), End::Kill(Rc::clone(&end)));
        Wait { _watch: watch, end }
    }

    /// Ends this when it stays silent for `limit` while it owes something.
    pub fn watch(self: &Rc<Self>, now: Now, limit: Duration, flow: &Rc<Flow>, end: End) -> Watch {
        self.insert(now, limit, Rc::clone(flow), end)
    }

    fn insert(self: &Rc<Self>, now: Now, limit: Duration, flow: Rc<Flow>, end: End) -> Watch {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let deadline = now.mono_ms().saturating_add(limit);
        let entry = Entry { deadline, limit, seen: flow.moved.get(), flow, end };
        Watch { patience: Rc::clone(self), place: self.waits.borrow_mut().insert(entry) }
    }

    /// Ends the waits that are over their time.
    pub fn tick(&self, now: Now) {
        for (_, wait) in self.waits.borrow_mut().iter_mut() {
            if wait.flow.moved.get() != wait.seen || !wait.flow.waiting.get() {
                wait.seen = wait.flow.moved.get();
                wait.deadline = now.mono_ms().saturating_add(wait.limit);
            } else if now.mono_ms() >= wait.deadline {
                wait.flow.over.set(true);
                match &wait.end {
                    End::Kill(kill) => kill.kill(),
                    End::Close(connection) => connection.abort(),
                }
            }
        }
    }
}

impl Wait {
    /// Waits for this; `None`: it took too long.
    pub async fn on<F: Future>(&self, work: F) -> Option<F::Output> {
        Killable::new(work, Rc::clone(&self.end)).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.patience.waits.borrow_mut().try_remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { mono: seconds * 1_000_000_000, wall: 0 }
    }

    #[test]
    fn a_wait_ends_in_time_but_not_while_the_body_moves() {
        let patience = Rc::<Patience>::default();
        let moving = Rc::new(Cell::new(0));
        let one = patience.wait(at(0), Duration::from_secs(60), Rc::default());
        let other = patience.wait(at(0), Duration::from_secs(60), Rc::clone(&moving));
        moving.set(5);
        patience.tick(at(59));
        assert!(!one.end.is_killed());
        patience.tick(at(60));
        assert!(one.end.is_killed() && !other.end.is_killed());
        patience.tick(at(119));
        assert!(other.end.is_killed(), "sixty seconds after the last move");
        drop(one);
        assert_eq!(patience.waits.borrow().len(), 1);
    }

    #[tokio::test]
    async fn an_answer_that_stops_is_ended_in_time_but_not_one_whose_client_pauses() {
        let patience = Rc::<Patience>::default();
        let connection = || tokio::spawn(std::future::pending::<()>());
        let (stopped, paused) = (connection(), connection());
        let [first, second] = [Flow::owed(Rc::default()), Flow::owed(Rc::default())];
        let minutes = Duration::from_secs(300);
        let _one = patience.watch(at(0), minutes, &first, End::Close(stopped.abort_handle()));
        let _other = patience.watch(at(0), minutes, &second, End::Close(paused.abort_handle()));
        second.waiting.set(false);
        first.moved.set(1);
        patience.tick(at(299));
        patience.tick(at(598));
        assert!(!first.over.get());
        patience.tick(at(599));
        assert!(first.over.get() && !second.over.get());
        assert!(stopped.await.unwrap_err().is_cancelled());
        second.waiting.set(true);
        patience.tick(at(898));
        assert!(!second.over.get());
        patience.tick(at(899));
        assert!(second.over.get() && paused.await.unwrap_err().is_cancelled());
    }
}
