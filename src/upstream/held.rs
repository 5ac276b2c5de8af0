//! What an answer's body holds of its upstream for as long as it lives.

use std::rc::Rc;

use bytes::Bytes;

use super::patience::{Flow, Watch};
use super::pool::Lease;
use super::shared::StreamLease;
use crate::request::body::{BodyError, Tail};

/// A connection, or a stream of one.
pub enum Held {
    /// Of HTTP/1.1: free again when the body has ended, closed when it is dropped before.
    Connection(Lease),
    /// Of HTTP/2: reset when it is dropped before its end.
    Stream(#[expect(dead_code, reason = "held")] StreamLease),
}

/// Holds it, with what watches the flow of the answer.
pub struct AnswerLease {
    held: Held,
    flow: Rc<Flow>,
    _watch: Option<Watch>,
}

impl AnswerLease {
    /// Of an answer that has begun.
    pub fn new(held: Held, flow: Rc<Flow>, watch: Option<Watch>) -> Self {
        Self { held, flow, _watch: watch }
    }
}

impl Tail for AnswerLease {
    fn data(&mut self, _: &Bytes) -> Result<(), BodyError> {
        self.flow.moved.set(self.flow.moved.get().wrapping_add(1));
        Ok(())
    }

    fn waiting(&mut self, waiting: bool) {
        self.flow.waiting.set(waiting);
    }

    fn cause(&self) -> Option<&'static str> {
        self.flow.over.get().then_some("the upstream stopped in the middle of its answer")
    }

    fn complete(&mut self) {
        if let Held::Connection(lease) = &mut self.held {
            lease.give_back();
        }
    }
}
