//! One layer of the index: look-up tables over the blocks' keys.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;

use super::Kind;
use super::record::{Held, What};
use crate::clock::Now;
use crate::request::credential::{Credential, Key, issuer_key, jti_key, session_key, subject_key};
use crate::request::facts::{Facts, scope_of};

/// One layer of the index.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    fingerprints: Map<Key>,
    jtis: Map<Key>,
    subjects: Map<Key>,
    sessions: Map<Key>,
    everyone: Vec<Entry>,
    shares: Map<Key>,
    v4: Vec<(u8, Map<u32>)>,
    v6: Vec<(u8, Map<u128>)>,
}

/// A block as the way needs it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) id: u64,
    scope: Option<u64>,
    until: Now,
    /// Only sessions begun at or before this Unix second; `None`: all.
    before: Option<u64>,
    issuer: Option<Key>,
    /// A token that is not meant.
    spares: Option<Key>,
    pub(super) learned: bool,
    /// Only credentials that name no session.
    sessionless: bool,
}

type Map<K> = HashMap<K, Entries, BuildHasherDefault<Mixer>>;

/// The blocks of one key: nearly always one.
#[derive(Debug, Clone)]
enum Entries {
    One(Entry),
    Many(Vec<Entry>),
}

impl Table {
    pub(super) fn insert(&mut self, held: &Held) {
        let entry = Entry::new(held);
        match &held.block.what {
            What::Fingerprint { fingerprint } => put(&mut self.fingerprints, fingerprint.key(), entry),
            What::Jti { jti } => put(&mut self.jtis, jti_key(jti), entry),
            What::Subject { subject, .. } => put(&mut self.subjects, subject_key(subject), entry),
            What::Session { session, subject, before, .. } => {
                if let Some(subject) = subject {
                    let entry = Entry { before: Some(*before), sessionless: true, ..entry.clone() };
                    put(&mut self.subjects, subject_key(subject), entry);
                }
                put(&mut self.sessions, session_key(session), entry);
            }
            What::Everyone { .. } => self.everyone.push(entry),
            What::Share { share } => put(&mut self.shares, *share, entry),
            What::Address { network } => self.insert_network(*network, entry),
        }
    }

    fn insert_network(&mut self, network: IpNet, entry: Entry) {
        match canonical(network) {
            IpNet::V4(net) => put(layer(&mut self.v4, net.prefix_len()), net.network().to_bits(), entry),
            IpNet::V6(net) => put(layer(&mut self.v6, net.prefix_len()), net.network().to_bits(), entry),
        }
    }

    pub(super) fn by_address(&self, address: IpAddr) -> impl Iterator<Item = &Entry> {
        let (v4, v6) = match address.to_canonical() {
            IpAddr::V4(address) => (Some(address.to_bits()), None),
            IpAddr::V6(address) => (None, Some(address.to_bits())),
        };
        let v4 = v4.into_iter().flat_map(|bits| {
            self.v4.iter().filter_map(move |(length, map)| map.get(&(bits & mask_v4(*length))))
        });
        let v6 = v6.into_iter().flat_map(|bits| {
            self.v6.iter().filter_map(move |(length, map)| map.get(&(bits & mask_v6(*length))))
        });
        v4.chain(v6).flat_map(Entries::iter)
    }

    pub(super) fn by_fingerprint(&self, key: &Key) -> impl Iterator<Item = &Entry> {
        self.fingerprints.get(key).into_iter().flat_map(Entries::iter)
    }

    pub(super) fn by_jti(&self, key: &Key) -> impl Iterator<Item = &Entry> {
        self.jtis.get(key).into_iter().flat_map(Entries::iter)
    }

    pub(super) fn by_subject(&self, key: &Key) -> impl Iterator<Item = &Entry> {
        self.subjects.get(key).into_iter().flat_map(Entries::iter)
    }

    /// Those of persons, and of everyone.
    pub(super) fn of_people(&self) -> impl Iterator<Item = &Entry> {
        self.everyone.iter().chain(self.subjects.values().flat_map(Entries::iter))
    }

    pub(super) fn by_session(&self, key: &Key) -> impl Iterator<Item = &Entry> {
        self.sessions.get(key).into_iter().flat_map(Entries::iter)
    }

    pub(super) fn everyone(&self) -> impl Iterator<Item = &Entry> {
        self.everyone.iter()
    }

    pub(super) fn by_share(&self, key: &Key) -> impl Iterator<Item = &Entry> {
        self.shares.get(key).into_iter().flat_map(Entries::iter)
    }
}

impl Entry {
    fn new(held: &Held) -> Self {
        let block = &held.block;
        let (before, issuer) = match &block.what {
            What::Subject { before, and_logins, issuer, .. } => {
                ((!and_logins).then_some(*before), issuer.as_deref().map(issuer_key))
            }
            What::Session { issuer, .. } => (None, issuer.as_deref().map(issuer_key)),
            What::Everyone { before, and_logins } => ((!and_logins).then_some(*before), None),
            _ => (None, None),
        };
        Self {
            id: block.id,
            scope: block.site.as_deref().map(scope_of),
            until: Now { mono: held.until_mono, wall: block.until },
            before,
            issuer,
            spares: block.spares.map(|fingerprint| fingerprint.key()),
            learned: block.learned,
            sessionless: false,
        }
    }

    /// Whether it holds at this time on the request's site.
    pub(super) fn stands(&self, facts: &Facts) -> bool {
        let over = facts.now.wall >= self.until.wall && facts.now.mono >= self.until.mono;
        !over && self.scope.is_none_or(|scope| facts.scopes.contains(&scope))
    }

    /// What it blocks, when it was found by a subject.
    pub(super) fn kind_by_subject(&self) -> Kind {
        if self.sessionless { Kind::Session } else { Kind::Subject }
    }

    /// Whether it means the session of this credential. What cannot be known counts as meant.
    pub(super) fn means(&self, credential: &Credential, now: Now) -> bool {
        if credential.guessed && credential.claims.is_none() {
            return false;
        }
        if self.spares.is_some_and(|spared| spared == credential.fingerprint.key()) {
            return false;
        }
        let claims = credential.claims.as_ref();
        let issuer = claims.and_then(|claims| claims.issuer);
        if let (Some(meant), Some(issuer)) = (self.issuer, issuer)
            && meant != issuer
        {
            return false;
        }
        if self.sessionless && claims.is_some_and(|claims| claims.session.is_some()) {
            return false;
        }
        let Some(before) = self.before else { return true };
        let issued = claims.and_then(|claims| claims.issued);
        issued.is_none_or(|issued| issued <= before || issued > now.unix())
    }
}

impl Entries {
    fn iter(&self) -> std::slice::Iter<'_, Entry> {
        match self {
            Self::One(entry) => std::slice::from_ref(entry).iter(),
            Self::Many(entries) => entries.iter(),
        }
    }
}

fn put<K: Hash + Eq>(map: &mut Map<K>, key: K, entry: Entry) {
    use std::collections::hash_map::Entry::{Occupied, Vacant};
    match map.entry(key) {
        Vacant(place) => {
            place.insert(Entries::One(entry));
        }
        Occupied(mut place) => match place.get_mut() {
            Entries::Many(entries) => entries.push(entry),
            Entries::One(first) => {
                let both = vec![first.clone(), entry];
                place.insert(Entries::Many(both));
            }
        },
    }
}

fn layer<K>(layers: &mut Vec<(u8, Map<K>)>, length: u8) -> &mut Map<K> {
    let at = layers.iter().position(|(there, _)| *there == length).unwrap_or_else(|| {
        layers.push((length, Map::default()));
        layers.len() - 1
    });
    #[expect(clippy::indexing_slicing, reason = "`at` was found or made in the lines above")]
    &mut layers[at].1
}

/// An IPv4-mapped IPv6 network as the IPv4 network it means.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(net) = network else { return network };
    match (net.network().to_ipv4_mapped(), net.prefix_len().checked_sub(96)) {
        (Some(address), Some(length)) => ipnet::Ipv4Net::new(address, length).map_or(network, IpNet::V4),
        _ => network,
    }
}

fn mask_v4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)
}

fn mask_v6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0)
}

/// A hasher for keys that nobody can choose: halves of SHA-256, and networks that an operator has written.
#[derive(Debug, Default)]
pub(super) struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        let [a, b, c, d, e, f, g, h, high @ ..] = product.to_le_bytes();
        self.0 = u64::from_le_bytes([a, b, c, d, e, f, g, h]) ^ u64::from_le_bytes(high);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    /// The length prefix of an array says nothing: all keys of a table are equally long.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
