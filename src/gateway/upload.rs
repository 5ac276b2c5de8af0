//! The client's body on its way up: counted against the class's limit while it passes.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use hyper::body::Incoming;

use super::read::Reading;
use crate::request::body::{Body, BodyError, Tail};

/// What became of a client's body; shared with the body itself.
#[derive(Debug)]
pub struct Upload {
    limit: u64,
    count: Rc<Cell<u64>>,
    state: Rc<Cell<State>>,
}

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Running,
    TooLarge,
    Broken,
}

impl Upload {
    /// An upload of a request; `count` hears the bytes.
    pub fn new(reading: &Reading<'_>, count: Rc<Cell<u64>>) -> Self {
        let limit = if reading.site.observe { u64::MAX } else { reading.found.route.guards.size.limit() };
        Self { limit, count, state: Rc::default() }
    }

    /// The body to forward.
    pub fn body(&self, incoming: Incoming) -> Body {
        let meter = Meter { left: self.limit, count: Rc::clone(&self.count), state: Rc::clone(&self.state) };
        Body::stream(incoming, Box::new(meter))
    }

    /// The bytes that have passed so far.
    pub fn count(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.count)
    }

    /// It passed its limit.
    pub fn too_large(&self) -> bool {
        self.state.get() == State::TooLarge
    }

    /// The client broke it off, or it broke the rules.
    pub fn broken(&self) -> bool {
        self.state.get() == State::Broken
    }
}

struct Meter {
    left: u64,
    count: Rc<Cell<u64>>,
    state: Rc<Cell<State>>,
}

impl Tail for Meter {
    fn data(&mut self, piece: &Bytes) -> Result<(), BodyError> {
        let length = piece.len() as u64;
        self.count.set(self.count.get() + length);
        let Some(left) = self.left.checked_sub(length) else {
            self.state.set(State::TooLarge);
            return Err(BodyError::TooLarge);
        };
        self.left = left;
        Ok(())
    }

    fn complete(&mut self) {}

    fn broken(&mut self, _: &hyper::Error) {
        self.state.set(State::Broken);
    }
}
