//! Whether the gateway takes requests: set once it does, unset when it drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The side that says so. When it is dropped, the gateway is not ready any more.
#[derive(Debug)]
pub struct Latch(Arc<AtomicBool>);

/// The side that asks.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<AtomicBool>);

/// A latch that is not ready yet, and who may ask it.
pub fn latch() -> (Latch, Readiness) {
    let ready = Arc::new(AtomicBool::new(false));
    (Latch(Arc::clone(&ready)), Readiness(ready))
}

impl Latch {
    /// Requests are taken from now on.
    pub fn ready(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// No new requests: a balancer may go elsewhere.
    pub fn drain(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.drain();
    }
}

impl Readiness {
    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
