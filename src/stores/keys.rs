//! The keys of one site, as all workers see them: fixed, or fetched by the control thread and swapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwapOption, Guard};

use crate::config::keys::VerifyKey;

/// A set of keys and its number.
#[derive(Debug)]
pub struct Keys {
    /// The keys.
    pub list: Arc<[VerifyKey]>,
    /// Another for every other set: what was verified with one is not verified with the next.
    pub generation: u64,
}

/// Where a site's keys are published; empty until they were first fetched, and then nobody's token is believed.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: ArcSwapOption<Keys>,
    generation: AtomicU64,
    /// A token named a key that is not known: the set may have changed.
    asked: AtomicBool,
}

impl KeyRing {
    /// Publishes a set of keys.
    pub fn publish(&self, list: Arc<[VerifyKey]>) {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        self.keys.store(Some(Arc::new(Keys { list, generation })));
    }

    /// The keys as they are now; `None`: they were never had.
    pub fn current(&self) -> Guard<Option<Arc<Keys>>> {
        self.keys.load()
    }

    /// A token names a key that is not here.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has asked since the last call.
    pub fn was_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }
}
