//! How much one client has open at once: connections, or requests of the clients of a trusted proxy; and what else is
//! counted while it lasts. Exact over all workers.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::request::client::Client;

const SHARDS: usize = 16;

/// Counts by client. An entry exists only while its client has a place, so whoever bounds all places bounds the map.
#[derive(Debug)]
pub struct Places {
    clients: [Mutex<HashMap<u64, usize>>; SHARDS],
    hash: RandomState,
}

/// A client's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    client: u64,
}

impl Default for Places {
    fn default() -> Self {
        Self { clients: std::array::from_fn(|_| Mutex::default()), hash: RandomState::new() }
    }
}

impl Places {
    /// Takes a place, unless this client has as many as `most` already. All unknown clients are one.
    pub fn take(self: &Arc<Self>, client: Client, most: usize) -> Option<Place> {
        self.take_of(network_of(client), most)
    }

    /// The same of anything that is hashed; what differs in kind is best not mixed in one table.
    pub fn take_of(self: &Arc<Self>, what: impl Hash, most: usize) -> Option<Place> {
        let client = self.hash.hash_one(what);
        let mut counts = self.shard(client)?.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&client).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        counts.insert(client, count + 1);
        drop(counts);
        Some(Place { places: Arc::clone(self), client })
    }

    /// Clients that have a place.
    pub fn clients(&self) -> usize {
        self.clients.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    fn shard(&self, client: u64) -> Option<&Mutex<HashMap<u64, usize>>> {
        let place = usize::try_from(client % SHARDS as u64).ok()?;
        self.clients.get(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shard) = self.places.shard(self.client) else { return };
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.client)),
        }
    }
}

/// One IPv4 address, or one IPv6 /64: what one household has.
fn network_of(client: Client) -> Option<u128> {
    let Client::Address(address) = client else { return None };
    Some(match address.to_canonical() {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        // The top bit apart keeps the two families from meeting.
        IpAddr::V6(address) => u128::from(address) >> 64 | 1 << 127,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        text.parse().map_or(Client::Unknown, Client::Address)
    }

    #[test]
    fn each_network_has_its_own_count_and_all_unknown_clients_have_one() {
        let places = Arc::<Places>::default();
        let same = [
            ("192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::"),
            ("unknown", "nobody"),
        ];
        let held = same.map(|(first, _)| places.take(client(first), 1).unwrap());
        for (_, second) in same {
            assert!(places.take(client(second), 1).is_none(), "{second}");
            assert!(places.take(client(second), 2).is_some(), "{second}: a place of a refusal is not taken");
        }
        assert!(places.take(client("192.0.2.2"), 1).is_some());
        assert!(places.take(client("2001:db8:0:2::1"), 1).is_some());
        assert_eq!(places.clients(), 3);
        drop(held);
        assert_eq!(places.clients(), 0, "nothing is left behind");
    }

    #[test]
    fn many_threads_never_have_more_places_than_there_are() {
        let (places, open) = (Arc::<Places>::default(), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    use std::sync::atomic::Ordering::SeqCst;
                    for _ in 0..20_000 {
                        let Some(place) = places.take(client("192.0.2.1"), 2) else { continue };
                        assert!(open.fetch_add(1, SeqCst) < 2);
                        open.fetch_sub(1, SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(places.clients(), 0);
    }
}
