//! Key sets that are fetched: taken from the last good copy at once, fetched anew now and then, and kept while the
//! provider is down.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::fetch;
use crate::clock::Now;
use crate::config::keys::{self, MAX_SET, Origin};
use crate::config::verification::Address;
use crate::request::credential::Fingerprint;
use crate::stores::durable::directory::{StateDir, replace_private};
use crate::stores::keys::{KeyRing, KeyRings};
use crate::telemetry::audit::Say;

/// For one fetch.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two fetches that went well.
const EVERY: Duration = Duration::from_secs(600);
/// Between two fetches at least, whoever asks: a stranger's `kid` must not make us hammer the provider.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// A provider that is down for so long is worth a warning.
const STALE: Duration = Duration::from_secs(3600);

/// All key sets of the config.
pub(super) struct KeySets {
    rings: Arc<KeyRings>,
    state: StateDir,
    say: Say,
    deadline: Duration,
    sets: BTreeMap<Address, Set>,
    fetches: JoinSet<(Address, Result<Bytes, String>)>,
}

struct Set {
    ring: Arc<KeyRing>,
    fetching: bool,
    /// Monotonic milliseconds.
    tried: Option<u64>,
    good: Option<u64>,
    /// Tries that went wrong since the last good one.
    failed: u32,
    why: String,
}

impl KeySets {
    pub(super) fn new(rings: Arc<KeyRings>, state: StateDir, say: Say) -> Self {
        Self { rings, state, say, deadline: DEADLINE, sets: BTreeMap::new(), fetches: JoinSet::new() }
    }

    /// Follows the config: of a new key set the last good copy counts at once.
    pub(super) fn follow(&mut self) {
        let in_use = self.rings.in_use(|address| self.sets.contains_key(address));
        self.sets.retain(|address, _| in_use.iter().any(|(known, _)| known == address));
        for (address, ring) in in_use {
            if !self.sets.contains_key(&address) {
                self.take_last_good(&address, &ring);
                self.sets.insert(address, Set::new(ring));
            }
        }
    }

    /// Begins what is due.
    pub(super) fn tend(&mut self, now: Now) {
        self.follow();
        for (address, set) in self.sets.iter_mut().filter(|(_, set)| set.is_due(now)) {
            set.fetching = true;
            set.tried = Some(now.mono_ms());
            let (address, deadline) = (address.clone(), self.deadline);
            self.fetches.spawn(async move {
                let fetched = fetch::get(&address.url, address.tls.as_deref(), MAX_SET, deadline).await;
                (address, fetched)
            });
        }
    }

    /// Waits for a fetch to end; for ever, when there is none.
    pub(super) async fn fetched(&mut self) -> (Address, Result<Bytes, String>) {
        loop {
            match self.fetches.join_next().await {
                Some(Ok(fetched)) => return fetched,
                Some(Err(error)) => (self.say)(&format!("a fetch of a key set has died: {error}")),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes over what was fetched, or says why not and keeps what there is.
    pub(super) fn take(&mut self, address: &Address, fetched: Result<Bytes, String>, now: Now) {
        let Some(set) = self.sets.get_mut(address) else { return };
        set.fetching = false;
        let read = fetched.and_then(|json| match keys::read_set(&json, Origin::Address) {
            Ok(keys) => Ok((json, keys)),
            Err(error) => Err(format!("{} ({})", error.message, error.help)),
        });
        match read {
            Ok((json, keys)) => {
                if set.failed > 0 || set.good.is_none() {
                    (self.say)(&format!("{} key(s) from {}", keys.len(), address.url));
                }
                (set.good, set.failed) = (Some(now.mono_ms()), 0);
                set.ring.publish_if_other(keys.into());
                let path = last_good(&self.state, address);
                if let Err(error) = replace_private(self.state.path(), &path, &json) {
                    (self.say)(&format!("the keys of {} are not kept for a restart: {error}", address.url));
                }
            }
            Err(why) => {
                set.failed = set.failed.saturating_add(1);
                (self.say)(&format!("no keys from {}: {why}; {}", address.url, set.meanwhile()));
                set.why = why;
            }
        }
    }

    /// What is worth a word in `status`.
    pub(super) fn warnings(&self, now: Now) -> Vec<String> {
        let wrong = |set: &Set| {
            let since = now.mono_ms().saturating_sub(set.good.unwrap_or(0));
            set.failed > 0 && (set.ring.current().is_none() || u128::from(since) > STALE.as_millis())
        };
        let sets = self.sets.iter().filter(|(_, set)| wrong(set));
        sets.map(|(address, set)| format!("no keys from {}: {}; {}", address.url, set.why, set.meanwhile()))
            .collect()
    }

    fn take_last_good(&self, address: &Address, ring: &KeyRing) {
        let Ok(json) = fs::read(last_good(&self.state, address)) else { return };
        match keys::read_set(&json, Origin::Address) {
            Ok(keys) => ring.publish_if_other(keys.into()),
            Err(error) => {
                (self.say)(&format!("the kept keys of {} are damaged: {}", address.url, error.message))
            }
        }
    }
}

impl Set {
    fn new(ring: Arc<KeyRing>) -> Self {
        Self { ring, fetching: false, tried: None, good: None, failed: 0, why: String::new() }
    }

    fn is_due(&self, now: Now) -> bool {
        let Some(tried) = self.tried else { return true };
        let since = Duration::from_millis(now.mono_ms().saturating_sub(tried));
        if self.fetching || since < COOL_DOWN {
            return false;
        }
        // 30 s, 1, 2, 4, 8 minutes, and then as ever.
        let wait = if self.failed > 0 { COOL_DOWN * (1 << (self.failed - 1).min(5)) } else { EVERY };
        since >= wait.min(EVERY) || self.ring.was_asked()
    }

    fn meanwhile(&self) -> &'static str {
        if self.ring.current().is_some() {
            "the last good ones count on"
        } else {
            "no token is believed until then (503)"
        }
    }
}

/// Where the last good copy of a key set is kept.
fn last_good(state: &StateDir, address: &Address) -> PathBuf {
    let name = Fingerprint::of(address.url.as_bytes()).to_string();
    state.path().join(format!("keys-{}.json", name.get(..16).unwrap_or_default()))
}

#[cfg(test)]
#[path = "key_sets_tests.rs"]
mod tests;
