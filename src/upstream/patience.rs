//! How long to wait for an upstream: one look at all waits every quarter of a second instead of a timer for each.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use slab::Slab;

use crate::clock::Now;
use crate::stores::streams::{Kill, Killable};

/// The waits of one worker.
#[derive(Debug, Default)]
pub struct Patience {
    waits: RefCell<Slab<Entry>>,
}

#[derive(Debug)]
struct Entry {
    deadline: u64,
    limit: u64,
    /// As long as this moves, the upstream is not what we wait for.
    progress: Rc<Cell<u64>>,
    seen: u64,
    end: Rc<Kill>,
}

/// One wait; over when dropped.
#[derive(Debug)]
pub struct Wait {
    patience: Rc<Patience>,
    place: usize,
    end: Rc<Kill>,
}

impl Patience {
    /// Begins a wait.
    pub fn wait(self: &Rc<Self>, now: Now, limit: Duration, progress: Rc<Cell<u64>>) -> Wait {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let end = Rc::<Kill>::default();
        let entry = Entry {
            deadline: now.mono_ms().saturating_add(limit),
            limit,
            seen: progress.get(),
            progress,
            end: Rc::clone(&end),
        };
        Wait { patience: Rc::clone(self), place: self.waits.borrow_mut().insert(entry), end }
    }

    /// Ends the waits that are over their time.
    pub fn tick(&self, now: Now) {
        for (_, wait) in self.waits.borrow_mut().iter_mut() {
            if wait.progress.get() != wait.seen {
                wait.seen = wait.progress.get();
                wait.deadline = now.mono_ms().saturating_add(wait.limit);
            } else if now.mono_ms() >= wait.deadline {
                wait.end.kill();
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

impl Drop for Wait {
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
}
