//! Which upstreams the last try to connect has reached: seen in passing, never asked for.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::config::upstream::Upstream;

/// What all workers know of the upstreams; touched by new connections only, never by a request.
#[derive(Debug, Default)]
pub struct Health {
    known: Mutex<HashMap<Upstream, bool>>,
}

impl Health {
    /// The last connection came about, or not.
    pub fn set(&self, upstream: &Upstream, up: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(upstream) {
            Some(known) => *known = up,
            None => drop(known.insert(upstream.clone(), up)),
        }
    }

    /// Whether it can be reached; `None`: nobody has tried yet.
    pub fn get(&self, upstream: &Upstream) -> Option<bool> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(upstream).copied()
    }
}
