//! The keys of one site, as all workers see them: fixed, or fetched by the control thread and swapped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwapOption, Guard};

use crate::config::keys::VerifyKey;
use crate::config::verification::Address;

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

    /// Publishes, unless these are the keys that count already: what was verified with them stays verified.
    pub fn publish_if_other(&self, list: Arc<[VerifyKey]>) {
        let same = self.current().as_ref().is_some_and(|keys| keys.list == list);
        if !same {
            self.publish(list);
        }
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

/// The rings of all key sets that are fetched: one for each address, so that a reload finds its keys again.
#[derive(Debug, Default)]
pub struct KeyRings(Mutex<BTreeMap<Address, Arc<KeyRing>>>);

impl KeyRings {
    /// The ring of an address; an empty one at first.
    pub fn of(&self, address: &Address) -> Arc<KeyRing> {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = rings.get(address) {
            return Arc::clone(known);
        }
        let ring = Arc::<KeyRing>::default();
        // With another CA it is another address; its keys count until they are fetched by that.
        let before = rings.iter().find(|(known, _)| known.url == address.url);
        if let Some(keys) =
            before.and_then(|(_, before)| before.current().as_ref().map(|keys| Arc::clone(&keys.list)))
        {
            ring.publish(keys);
        }
        rings.insert(address.clone(), Arc::clone(&ring));
        ring
    }

    /// The rings that some policy uses; the others are forgotten. `tended`: the caller holds this one himself.
    pub fn in_use(&self, tended: impl Fn(&Address) -> bool) -> Vec<(Address, Arc<KeyRing>)> {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rings.retain(|address, ring| Arc::strong_count(ring) > 1 + usize::from(tended(address)));
        rings.iter().map(|(address, ring)| (address.clone(), Arc::clone(ring))).collect()
    }
}
