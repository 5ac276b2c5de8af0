//! One stream of an HTTP/2 connection, as deadlines see it: who stalls one stream loses that one, not its neighbours.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use slab::Slab;

use super::Connection;
use super::deadlines::Pace;
use crate::config::settings::Limits;
use crate::stores::streams::Kill;

/// Marks of one stream, set where things happen and read every quarter of a second.
#[derive(Debug)]
pub struct Stream {
    /// What it belongs to.
    pub connection: Rc<Connection>,
    /// Ends it by a reset.
    pub kill: Rc<Kill>,
    /// The request's body is waited for, and a minimum rate holds for it.
    pub owing: Cell<bool>,
    /// Bytes of the request's body so far.
    pub received: Cell<u64>,
    /// The next piece of the answer is asked for from upstream; else the client is waited for.
    pub(super) feeding: Cell<bool>,
    /// Pieces of the answer that were taken off our hands.
    pub(super) taken: Cell<u64>,
    pace: Cell<Pace>,
}

/// The streams of one connection whose answers are not out of our hands yet.
#[derive(Debug, Default)]
pub struct Running(RefCell<Slab<Weak<Stream>>>);

impl Stream {
    /// A stream that waits for upstream, as every request does at first.
    pub fn new(connection: Rc<Connection>) -> Rc<Self> {
        Rc::new(Self {
            connection,
            kill: Rc::default(),
            owing: Cell::new(false),
            received: Cell::new(0),
            feeding: Cell::new(true),
            taken: Cell::new(0),
            pace: Cell::default(),
        })
    }

    fn judge(&self, limits: &Limits, now: u64) -> bool {
        let mut pace = self.pace.get();
        let owed = self.owing.get().then(|| self.received.get());
        let waiting = (!self.feeding.get()).then(|| self.taken.get());
        let over = pace.judge(owed, waiting, limits, now);
        self.pace.set(pace);
        over.is_some_and(|cause| {
            self.kill.kill_for(cause);
            true
        })
    }
}

impl Running {
    pub(super) fn enter(&self, stream: &Rc<Stream>) -> usize {
        self.0.borrow_mut().insert(Rc::downgrade(stream))
    }

    pub(super) fn leave(&self, place: usize) {
        self.0.borrow_mut().try_remove(place);
    }

    pub(super) fn cut(&self, cause: &'static str) {
        self.0
            .borrow()
            .iter()
            .filter_map(|(_, stream)| stream.upgrade())
            .for_each(|stream| stream.kill.kill_for(cause));
    }

    /// Ends the streams whose clients are too slow; answers how many.
    pub(super) fn tick(&self, limits: &Limits, now: u64) -> usize {
        // Killing only wakes: what leaves the list runs later, so the borrow is safe.
        let streams = self.0.borrow();
        let running = streams.iter().filter_map(|(_, stream)| stream.upgrade());
        running.filter(|stream| !stream.kill.is_killed() && stream.judge(limits, now)).count()
    }
}
