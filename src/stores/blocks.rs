//! The emergency blocks: what they are, and the index that the way reads (DESIGN 6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::request::credential::Credential;
use crate::request::facts::Facts;

/// An immutable snapshot of all blocks, made for look-ups.
#[derive(Debug, Default)]
pub struct Index {}

/// Which block matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The block's number.
    pub id: u64,
    /// What it blocks.
    pub kind: Kind,
    /// Which of the request's credentials it was, for the kinds that block credentials.
    pub credential: Option<usize>,
}

/// The kinds of blocks; also the label of `portcullis_blocks{kind}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One token, by fingerprint.
    Fingerprint,
    /// One token, by its `jti`.
    Jti,
    /// All sessions of a subject begun at or before a time.
    Subject,
    /// All sessions begun at or before a time.
    Everyone,
    /// A share link.
    Share,
    /// A client network.
    Address,
}

impl Index {
    /// The first block that a request falls under. Does not allocate, lock or wait.
    pub fn matching(&self, facts: &Facts) -> Option<Hit> {
        self.matching_where(facts, |_| true)
    }

    /// The same, with only those credentials examined that are meant.
    pub fn matching_where(&self, facts: &Facts, meant: impl Fn(&Credential) -> bool) -> Option<Hit> {
        let _ = (facts, meant);
        None
    }
}

/// Where the index is published: one writer, readers that cache per thread by generation.
#[derive(Debug, Default)]
pub struct Blocks {
    index: ArcSwap<Index>,
    generation: AtomicU64,
}

impl Blocks {
    /// Replaces the index; readers see it with their next request.
    pub fn publish(&self, index: Index) {
        self.index.store(Arc::new(index));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The current index.
    pub fn load(&self) -> Arc<Index> {
        self.index.load_full()
    }

    /// Changes with every publication.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
