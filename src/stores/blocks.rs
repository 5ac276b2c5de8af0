//! The emergency blocks: what they are, and the index that the way reads (DESIGN 6).

pub mod index;
pub mod order;
pub mod record;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

pub use index::Index;
pub use order::Order;
pub use record::{Block, Held, What};

/// Which block matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The block's number.
    pub id: u64,
    /// What it blocks.
    pub kind: Kind,
    /// Which of the request's credentials it was, for the kinds that block credentials.
    pub credential: Option<usize>,
    /// An answer has taught it, nobody ordered it.
    pub learned: bool,
}

/// The kinds of blocks; also the label of `portcullis_blocks{kind}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// One token, by fingerprint.
    Fingerprint,
    /// One token, by its `jti`.
    Jti,
    /// All sessions of a subject begun at or before a time.
    Subject,
    /// One session of an identity provider.
    Session,
    /// All sessions begun at or before a time.
    Everyone,
    /// A share link.
    Share,
    /// A client network.
    Address,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Fingerprint,
        Self::Jti,
        Self::Subject,
        Self::Session,
        Self::Everyone,
        Self::Share,
        Self::Address,
    ];

    /// The word in metrics, logs and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fingerprint => "fingerprint",
            Self::Jti => "jti",
            Self::Subject => "subject",
            Self::Session => "session",
            Self::Everyone => "everyone",
            Self::Share => "share",
            Self::Address => "address",
        }
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
