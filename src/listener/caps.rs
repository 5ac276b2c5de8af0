//! How many connections may be open, all together and for one client; shared by all workers.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const SHARDS: usize = 16;

/// Counts of open connections. Entries exist only while a client has one open, so the first bound bounds the map.
#[derive(Debug)]
pub struct Caps {
    all: AtomicUsize,
    clients: [Mutex<HashMap<u64, usize>>; SHARDS],
    hash: RandomState,
}

/// A place among the open connections; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    caps: Arc<Caps>,
    client: Option<u64>,
}

/// Which bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `limits.connections`.
    All,
    /// `limits.connections_per_client`.
    Client,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            all: AtomicUsize::new(0),
            clients: std::array::from_fn(|_| Mutex::default()),
            hash: RandomState::new(),
        }
    }
}

impl Caps {
    /// Takes a place. `per_client` is `None` for peers that stand for many clients.
    ///
    /// # Errors
    /// When there is none left.
    pub fn enter(
        self: &Arc<Self>,
        peer: IpAddr,
        all: usize,
        per_client: Option<usize>,
    ) -> Result<Permit, Full> {
        // The permit exists first, so that every way out gives the place back.
        let before = self.all.fetch_add(1, Ordering::Relaxed);
        let mut permit = Permit { caps: Arc::clone(self), client: None };
        if before >= all {
            return Err(Full::All);
        }
        let Some(most) = per_client else { return Ok(permit) };
        let client = self.hash.hash_one(network_of(peer));
        let Some(shard) = self.shard(client) else { return Ok(permit) };
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&client).copied().unwrap_or(0);
        if count >= most {
            drop(counts);
            return Err(Full::Client);
        }
        counts.insert(client, count + 1);
        drop(counts);
        permit.client = Some(client);
        Ok(permit)
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    fn shard(&self, client: u64) -> Option<&Mutex<HashMap<u64, usize>>> {
        let place = usize::try_from(client % SHARDS as u64).ok()?;
        self.clients.get(place)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.caps.all.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let Some(shard) = self.caps.shard(client) else { return };
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&client)),
        }
    }
}

/// One IPv4 address, or one IPv6 /64: what one household has.
fn network_of(peer: IpAddr) -> u128 {
    match peer.to_canonical() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        // The top bit apart keeps the two families from meeting.
        IpAddr::V6(address) => u128::from(address) >> 64 | 1 << 127,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_cannot_take_all_places() {
        let caps = Arc::new(Caps::default());
        let first = caps.enter(at("192.0.2.1"), 10, Some(2)).unwrap();
        let _second = caps.enter(at("::ffff:192.0.2.1"), 10, Some(2)).unwrap();
        assert_eq!(caps.enter(at("192.0.2.1"), 10, Some(2)).unwrap_err(), Full::Client);
        let _other = caps.enter(at("192.0.2.2"), 10, Some(2)).unwrap();
        drop(first);
        assert!(caps.enter(at("192.0.2.1"), 10, Some(2)).is_ok());
    }

    #[test]
    fn a_whole_64_is_one_client() {
        let caps = Arc::new(Caps::default());
        let _one = caps.enter(at("2001:db8:0:1::1"), 10, Some(1)).unwrap();
        assert_eq!(caps.enter(at("2001:db8:0:1:ffff::"), 10, Some(1)).unwrap_err(), Full::Client);
        assert!(caps.enter(at("2001:db8:0:2::1"), 10, Some(1)).is_ok());
    }

    #[test]
    fn the_bound_over_all_holds_for_proxies_too_and_nothing_is_left_behind() {
        let caps = Arc::new(Caps::default());
        let held: Vec<_> = (0..3).map(|_| caps.enter(at("192.0.2.1"), 3, None).unwrap()).collect();
        assert_eq!(caps.enter(at("192.0.2.9"), 3, Some(3)).unwrap_err(), Full::All);
        drop(held);
        drop(caps.enter(at("192.0.2.9"), 3, Some(3)).unwrap());
        assert_eq!(caps.open(), 0);
        assert!(caps.clients.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
