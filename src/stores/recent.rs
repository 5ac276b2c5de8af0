//! What happened lately, in a ring with shares: a fixed number of entries, of which no client can push out those of
//! others.

pub mod record;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::request::client::Client;

pub use record::{Query, Record, Token};

/// Shares of a ring. A client's share is found by a hash that strangers cannot foresee; an IPv6 client is its /64.
const SHARES: usize = 1024;
/// So many entries of others are passed over, when a share gives one up, to find one of the client that wrote last.
const PASSED_OVER: usize = 64;
/// No entry.
const NONE: usize = usize::MAX;

/// A ring of at most so many entries. When it is full, the share that holds most gives its oldest entry up: a client
/// alone may fill it, and a flood from one pushes out that one's own.
#[derive(Debug)]
pub struct Ring<T> {
    capacity: usize,
    slots: Vec<Slot<T>>,
    /// Oldest and newest slot of each share.
    ends: Vec<(usize, usize)>,
    /// How many slots each share holds.
    counts: Vec<u16>,
    /// How many shares hold so many slots, so that the most need not be looked for.
    holding: Vec<usize>,
    /// The most slots that a share holds.
    most: u16,
    /// The share that gave last; of shares that hold as many the next one gives, so that all give in turn.
    hand: usize,
    hasher: RandomState,
}

#[derive(Debug)]
struct Slot<T> {
    value: T,
    /// The hash of its client.
    key: u64,
    /// The next newer slot of the same share.
    newer: usize,
}

impl<T> Ring<T> {
    /// An empty ring; it takes memory as it fills.
    pub fn new(capacity: u16) -> Self {
        Self {
            capacity: usize::from(capacity),
            slots: Vec::new(),
            ends: vec![(NONE, NONE); SHARES],
            counts: vec![0; SHARES],
            holding: [SHARES].into_iter().chain(std::iter::repeat_n(0, usize::from(capacity))).collect(),
            most: 0,
            hand: 0,
            hasher: RandomState::new(),
        }
    }

    /// Puts an entry of this client in.
    pub fn push(&mut self, client: Client, value: T) {
        let key = self.key_of(client);
        let share = share_of(key);
        let slot = Slot { value, key, newer: NONE };
        let place = if self.slots.len() < self.capacity {
            self.slots.push(slot);
            self.slots.len() - 1
        } else {
            let place = self.give_up();
            let Some(old) = self.slots.get_mut(place) else { return };
            *old = slot;
            place
        };
        self.append(share, place);
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().map(|slot| &slot.value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn key_of(&self, client: Client) -> u64 {
        let name: [u64; 2] = match client {
            Client::Unknown => [0, 0],
            Client::Address(IpAddr::V4(v4)) => [4, u64::from(v4.to_bits())],
            Client::Address(IpAddr::V6(v6)) => [6, u64::try_from(v6.to_bits() >> 64).unwrap_or_default()],
        };
        self.hasher.hash_one(name)
    }

    /// Takes a slot from the share that holds most: the oldest of the client that wrote there last. Who shares a share
    /// with a flood by chance is passed over, and stands as new.
    fn give_up(&mut self) -> usize {
        let mut turn = (self.hand..SHARES).chain(0..self.hand);
        let share = turn.find(|share| self.counts.get(*share) == Some(&self.most)).unwrap_or_default();
        self.hand = share;
        let key = |place: usize| self.slots.get(place).map(|slot| slot.key);
        let writer = self.ends.get(share).and_then(|ends| key(ends.1));
        for _ in 0..PASSED_OVER {
            let oldest = self.ends.get(share).map_or(NONE, |ends| ends.0);
            if self.slots.get(oldest).map(|slot| slot.key) == writer {
                break;
            }
            self.take_oldest(share);
            self.append(share, oldest);
        }
        self.take_oldest(share)
    }

    fn take_oldest(&mut self, share: usize) -> usize {
        let Some(ends) = self.ends.get_mut(share) else { return NONE };
        let place = ends.0;
        ends.0 = match self.slots.get_mut(place) {
            Some(slot) => std::mem::replace(&mut slot.newer, NONE),
            None => NONE,
        };
        if ends.0 == NONE {
            ends.1 = NONE;
        }
        self.count(share, |count| count.saturating_sub(1));
        place
    }

    fn append(&mut self, share: usize, place: usize) {
        let Some(ends) = self.ends.get_mut(share) else { return };
        match self.slots.get_mut(ends.1) {
            Some(newest) => newest.newer = place,
            None => ends.0 = place,
        }
        ends.1 = place;
        self.count(share, |count| count.saturating_add(1));
    }

    fn count(&mut self, share: usize, change: impl Fn(u16) -> u16) {
        let Some(count) = self.counts.get_mut(share) else { return };
        let old = std::mem::replace(count, change(*count));
        let new = *count;
        for (size, shares) in [(old, -1), (new, 1)] {
            if let Some(holding) = self.holding.get_mut(usize::from(size)) {
                *holding = holding.saturating_add_signed(shares);
            }
        }
        self.most = self.most.max(new);
        if self.holding.get(usize::from(self.most)) == Some(&0) {
            // One slot at a time: the next smaller number is held by the share that has just given.
            self.most = self.most.saturating_sub(1);
        }
    }
}

fn share_of(key: u64) -> usize {
    usize::try_from(key).unwrap_or_default() % SHARES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(number: u32) -> Client {
        Client::Address(IpAddr::from(number.to_be_bytes()))
    }

    fn of(ring: &Ring<(Client, u32)>, client: Client) -> Vec<u32> {
        let mut own: Vec<u32> =
            ring.iter().filter(|(who, _)| *who == client).map(|(_, what)| *what).collect();
        own.sort_unstable();
        own
    }

    #[test]
    fn a_client_alone_fills_the_ring_and_its_oldest_entries_go_first() {
        let mut ring = Ring::new(100);
        (0..250).for_each(|number| ring.push(v4(7), (v4(7), number)));
        assert_eq!(of(&ring, v4(7)), (150..250).collect::<Vec<_>>());
    }

    #[test]
    fn a_flood_from_one_client_pushes_out_its_own_entries_only() {
        let mut ring = Ring::new(1000);
        let quiet: Vec<Client> = (1..100).map(v4).collect();
        for client in &quiet {
            (0..3).for_each(|number| ring.push(*client, (*client, number)));
        }
        let flood = v4(1_000_000);
        (0..100_000).for_each(|number| ring.push(flood, (flood, number)));
        let lost = quiet.iter().filter(|client| of(&ring, **client) != [0, 1, 2]).count();
        assert_eq!(lost, 0, "of 99 clients so many have lost something");
        assert_eq!(ring.len(), 1000);
        assert!(of(&ring, flood).contains(&99_999));
    }

    #[test]
    fn who_shares_a_share_with_a_flood_keeps_his_entries_too() {
        let mut ring = Ring::new(500);
        let flood = v4(7);
        let together = (8..1_000_000).map(v4);
        let same = |client: &Client| share_of(ring.key_of(*client)) == share_of(ring.key_of(flood));
        let quiet: Vec<Client> = together.filter(same).take(5).collect();
        for client in &quiet {
            (0..5).for_each(|number| ring.push(*client, (*client, number)));
        }
        (0..5000).for_each(|number| ring.push(flood, (flood, number)));
        assert!(quiet.len() == 5 && quiet.iter().all(|client| of(&ring, *client) == [0, 1, 2, 3, 4]));
        assert_eq!(of(&ring, flood), (4525..5000).collect::<Vec<_>>());
    }

    #[test]
    fn many_clients_have_equal_parts_and_all_is_counted_right() {
        let mut ring = Ring::new(512);
        for round in 0..50 {
            (0..256).for_each(|client| ring.push(v4(client), (v4(client), round)));
        }
        let counted: usize = ring.counts.iter().map(|count| usize::from(*count)).sum();
        assert_eq!((ring.len(), counted), (512, 512));
        assert_eq!(ring.counts.iter().max(), Some(&ring.most));
        assert_eq!(ring.holding.iter().sum::<usize>(), SHARES);
        let newest = (0..256).filter(|client| of(&ring, v4(*client)).contains(&49)).count();
        assert!(newest > 200, "only {newest} of 256 clients are there with their last");
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_so_is_everybody_unknown() {
        let ring = Ring::<u8>::new(4);
        let key = |text: &str| ring.key_of(Client::Address(text.parse().unwrap()));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(ring.key_of(Client::Unknown), ring.key_of(Client::Unknown));
    }
}
