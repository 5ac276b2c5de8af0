//! Whether the gateway takes requests: not before every listener stands, not once it drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The side that says so. When it is dropped, the gateway is not ready any more.
#[derive(Debug)]
pub struct Latch(Arc<AtomicU8>);

/// The side that asks.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<AtomicU8>);

/// What a gateway is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not every listener stands yet.
    Starting,
    /// It takes requests.
    Ready,
    /// It takes no new connections, and finishes what runs.
    Draining,
}

/// A latch that is not ready yet, and who may ask it.
pub fn latch() -> (Latch, Readiness) {
    let state = Arc::new(AtomicU8::new(State::Starting as u8));
    (Latch(Arc::clone(&state)), Readiness(state))
}

impl State {
    /// The word in answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl Latch {
    /// Requests are taken from now on.
    pub fn ready(&self) {
        self.0.store(State::Ready as u8, Ordering::Release);
    }

    /// No new requests: a balancer may go elsewhere.
    pub fn drain(&self) {
        self.0.store(State::Draining as u8, Ordering::Release);
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.drain();
    }
}

impl Readiness {
    /// What it is at.
    pub fn state(&self) -> State {
        match self.0.load(Ordering::Acquire) {
            0 => State::Starting,
            1 => State::Ready,
            _ => State::Draining,
        }
    }

    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        self.state() == State::Ready
    }
}
