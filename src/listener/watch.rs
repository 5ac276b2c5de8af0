//! The small state of one connection that deadlines look at: marks without a clock; the look brings the time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::Kind;
use super::accept::Events;

/// Marks of one connection, set where things happen and read every quarter of a second.
#[derive(Debug, Default)]
pub struct Watch {
    /// Requests that have begun.
    pub begun: Cell<u64>,
    /// Requests whose answer is not out of our hands yet, body included.
    pub in_flight: Cell<u32>,
    /// HTTP/1.1: the number of the last request whose answer's head is decided.
    pub answered: Cell<u64>,
    /// HTTP/1.1: part of a head is here.
    pub mid_head: Cell<bool>,
    /// HTTP/1.1: the body of the request is waited for.
    pub owing: Cell<bool>,
    /// HTTP/1.1: set by the service for classes that no minimum rate holds for (`live`, `rpc`).
    pub unpaced: Cell<bool>,
    /// HTTP/2: requests that the client began and did not want to the end, less those that it did.
    pub cancelled: Cell<u32>,
    /// HTTP/1.1: pieces of answers that were taken off our hands.
    pub taken: Cell<u64>,
    /// Answers that have a next piece asked for from upstream; the others wait for the client.
    pub feeding: Cell<u32>,
    /// A write waits for the client to take something.
    pub blocked: Cell<bool>,
    /// The last answer is out; we wait a moment for the client to close.
    pub lingering: Cell<bool>,
    /// Wanted: no further request, then close.
    pub closing: Cell<bool>,
    /// Tells the metrics when the connection is gone.
    pub(crate) ended: Ended,
    closer: RefCell<Option<Waker>>,
    reader: RefCell<Option<Waker>>,
}

/// Says that a connection is open, and on drop that it is gone.
#[derive(Default)]
pub(crate) struct Ended(RefCell<Option<(Rc<dyn Events>, Kind)>>);

impl Ended {
    pub(crate) fn set_events(&self, events: Rc<dyn Events>, kind: Kind) {
        events.connection_opened(kind);
        *self.0.borrow_mut() = Some((events, kind));
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some((events, kind)) = self.0.get_mut() {
            events.connection_closed(*kind);
        }
    }
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ended")
    }
}

impl Watch {
    /// Asks the connection to close once what runs is answered.
    pub fn close(&self) {
        self.closing.set(true);
        let waker = self.closer.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// HTTP/2: a stream is a tunnel now. It counts as a request in flight that waits for upstream: it may be silent.
    pub fn carry(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.feeding.set(self.feeding.get() + 1);
    }

    /// A tunnel has ended.
    pub fn put_down(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.feeding.set(self.feeding.get().saturating_sub(1));
    }

    /// To be woken by [`Self::close`].
    pub(crate) fn wait_close(&self, waker: &Waker) {
        let mut place = self.closer.borrow_mut();
        if !place.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *place = Some(waker.clone());
        }
    }

    /// To be woken when the answer to an upgrade request is decided: what was held back may go on then.
    pub(crate) fn wait_answer(&self, waker: &Waker) {
        *self.reader.borrow_mut() = Some(waker.clone());
    }

    /// The answer to request number `request` is decided.
    pub(crate) fn answer(&self, request: u64) {
        self.answered.set(request);
        let waker = self.reader.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
