//! The index of blocks: an immutable base, and over it a small delta, so that a new block copies little.

use std::sync::Arc;

use super::record::Held;
use super::table::{Entry, Table};
use super::{Hit, Kind};
use crate::request::client::Client;
use crate::request::credential::Credential;
use crate::request::facts::Facts;
use crate::stores::holes::Hole;

/// So many changes a delta holds before it is merged into a new base: a copy of it takes well under a millisecond.
const DELTA: usize = 1024;

/// An immutable snapshot of all blocks, made for look-ups.
#[derive(Debug, Clone, Default)]
pub struct Index {
    base: Arc<Table>,
    delta: Table,
    changes: usize,
    /// Lifted since the base was built; asked only on a hit. Sorted.
    lifted: Vec<u64>,
    counts: [usize; Kind::ALL.len()],
    /// Holes in allowlists: they reach every worker by the same way.
    holes: Arc<[Hole]>,
}

impl Index {
    /// An index of these blocks, all in its base.
    pub fn new<'a>(blocks: impl IntoIterator<Item = &'a Held>) -> Self {
        let mut base = Table::default();
        let mut index = Self::default();
        for held in blocks {
            base.insert(held);
            index.count(held, |count| count.saturating_add(1));
        }
        Self { base: Arc::new(base), ..index }
    }

    /// This index and these blocks; copies only the delta.
    #[must_use]
    pub fn with<'a>(&self, blocks: impl IntoIterator<Item = &'a Held>) -> Self {
        let mut next = self.clone();
        for held in blocks {
            next.delta.insert(held);
            next.changes += 1;
            next.count(held, |count| count.saturating_add(1));
        }
        next
    }

    /// This index without a block that is in it.
    #[must_use]
    pub fn without(&self, held: &Held) -> Self {
        let mut next = self.clone();
        if let Err(place) = next.lifted.binary_search(&held.block.id) {
            next.lifted.insert(place, held.block.id);
            next.changes += 1;
            next.count(held, |count| count.saturating_sub(1));
        }
        next
    }

    /// This index with these holes in allowlists.
    #[must_use]
    pub fn with_holes(self, holes: Arc<[Hole]>) -> Self {
        Self { holes, ..self }
    }

    /// Whether a hole lets this request through its allowlist.
    pub fn lets(&self, facts: &Facts) -> bool {
        self.holes.iter().any(|hole| hole.lets(facts))
    }

    /// The delta is full: build a new one with [`Index::new`].
    pub fn is_full(&self) -> bool {
        self.changes >= DELTA
    }

    /// How many blocks of each kind, for `portcullis_blocks{kind}`.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, usize)> {
        Kind::ALL.into_iter().zip(self.counts)
    }

    /// The first block that a request falls under: by address, then by credential, then by share link.
    /// Does not allocate, lock or wait.
    ///
    /// A credential that is no cookie comes before cookies, because a blocked cookie may only be stripped.
    /// Who strips one asks [`Index::matching_credential`] for each of the others.
    pub fn matching(&self, facts: &Facts) -> Option<Hit> {
        self.by_address(facts).or_else(|| self.by_credentials(facts)).or_else(|| self.by_share(facts))
    }

    /// The block that one credential of the request falls under.
    pub fn matching_credential(&self, facts: &Facts, place: usize) -> Option<Hit> {
        let credential = facts.credentials.get(place)?;
        let (entry, kind) = self.by_credential(facts, credential)?;
        Some(hit(entry, kind, Some(place)))
    }

    /// Whether any block of a person or of everyone stands on the request's site: what cannot be read could be theirs.
    /// Looks at all of them if none does.
    pub fn stands_for_people(&self, facts: &Facts) -> bool {
        self.first(facts, Table::of_people).is_some()
    }

    fn by_address(&self, facts: &Facts) -> Option<Hit> {
        let Client::Address(address) = facts.client else { return None };
        let entry = self.first(facts, |table| table.by_address(address))?;
        Some(hit(entry, Kind::Address, None))
    }

    fn by_credentials(&self, facts: &Facts) -> Option<Hit> {
        let mut cookie = None;
        for (place, credential) in facts.credentials.iter().enumerate() {
            if credential.in_cookie && cookie.is_some() {
                continue;
            }
            let hit = self.matching_credential(facts, place);
            match hit {
                Some(hit) if !credential.in_cookie => return Some(hit),
                Some(hit) => cookie = Some(hit),
                None => {}
            }
        }
        cookie
    }

    fn by_credential(&self, facts: &Facts, credential: &Credential) -> Option<(&Entry, Kind)> {
        let key = credential.fingerprint.key();
        if let Some(entry) = self.first(facts, |table| table.by_fingerprint(&key)) {
            return Some((entry, Kind::Fingerprint));
        }
        let claims = credential.claims.as_ref();
        if let Some(jti) = claims.and_then(|claims| claims.jti.as_ref())
            && let Some(entry) = self.first(facts, |table| table.by_jti(jti))
        {
            return Some((entry, Kind::Jti));
        }
        let means = |entry: &&Entry| entry.means(credential, facts.now);
        if let Some(subject) = claims.and_then(|claims| claims.subject.as_ref())
            && let Some(entry) = self.first(facts, |table| table.by_subject(subject).filter(means))
        {
            return Some((entry, entry.kind_by_subject()));
        }
        if let Some(session) = claims.and_then(|claims| claims.session.as_ref())
            && let Some(entry) = self.first(facts, |table| table.by_session(session).filter(means))
        {
            return Some((entry, Kind::Session));
        }
        let entry = self.first(facts, |table| table.everyone().filter(means))?;
        Some((entry, Kind::Everyone))
    }

    fn by_share(&self, facts: &Facts) -> Option<Hit> {
        let share = facts.share.as_ref()?;
        let entry = self.first(facts, |table| table.by_share(share))?;
        Some(hit(entry, Kind::Share, None))
    }

    /// The first block among the candidates of both layers that stands.
    fn first<'a, I>(&'a self, facts: &Facts, candidates: impl Fn(&'a Table) -> I) -> Option<&'a Entry>
    where
        I: Iterator<Item = &'a Entry>,
    {
        candidates(&self.delta)
            .chain(candidates(&self.base))
            .find(|entry| entry.stands(facts) && self.lifted.binary_search(&entry.id).is_err())
    }

    fn count(&mut self, held: &Held, change: impl Fn(usize) -> usize) {
        let kinds = Kind::ALL.into_iter().zip(&mut self.counts);
        kinds
            .filter(|(kind, _)| *kind == held.block.what.kind())
            .for_each(|(_, count)| *count = change(*count));
    }
}

fn hit(entry: &Entry, kind: Kind, credential: Option<usize>) -> Hit {
    Hit { id: entry.id, kind, credential, learned: entry.learned }
}
