//! What stays with an answer's body until it has ended.

use std::error::Error;

use bytes::Bytes;
use http::HeaderMap;

use super::Exchange;
use crate::gateway::{hops, rpc};
use crate::request::body::{BodyError, Tail};
use crate::stores::streams::Registration;

/// Watches the answer's body; owns the exchange, the registration, and what the upstream left to be owned.
pub(super) struct AnswerTail {
    pub(super) exchange: Box<Exchange>,
    pub(super) inner: Box<dyn Tail>,
    /// A gRPC status has been said.
    pub(super) ended_well: bool,
    pub(super) _live: Option<Registration>,
}

impl Tail for AnswerTail {
    fn data(&mut self, piece: &Bytes) -> Result<(), BodyError> {
        self.exchange.sent += piece.len() as u64;
        self.inner.data(piece)
    }

    fn complete(&mut self) {
        self.exchange.ended = true;
        self.inner.complete();
    }

    fn broken(&mut self, error: &(dyn Error + 'static)) {
        match self.inner.cause() {
            Some(cause) => self.exchange.because(cause),
            None => self.exchange.because(format!("the upstream broke its answer off: {error}")),
        }
        self.inner.broken(error);
    }

    fn waiting(&mut self, waiting: bool) {
        self.inner.waiting(waiting);
    }

    fn cause(&self) -> Option<&'static str> {
        self.inner.cause()
    }

    fn trailers(&mut self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        if !self.exchange.trailers {
            return None;
        }
        hops::trailers(&mut trailers);
        if self.exchange.rpc && !rpc::has_status(&trailers) {
            self.exchange.because(rpc::WITHOUT_STATUS);
            trailers.extend(rpc::ending(false));
        }
        self.ended_well = true;
        Some(trailers)
    }

    fn epilogue(&mut self, broken: bool) -> Option<HeaderMap> {
        if !self.exchange.rpc || self.ended_well {
            return None;
        }
        if !broken {
            self.exchange.because(rpc::WITHOUT_STATUS);
        }
        Some(rpc::ending(broken))
    }
}
