//! Settings become an immutable snapshot that requests are judged by.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

/// The snapshot.
#[derive(Debug)]
pub struct Policy {}

/// Where the policy is published: one writer (reload), readers that cache per thread by generation.
#[derive(Debug)]
pub struct PolicyCell {
    policy: ArcSwap<Policy>,
    generation: AtomicU64,
}

impl PolicyCell {
    /// A cell that begins with this policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy: ArcSwap::from_pointee(policy), generation: AtomicU64::new(0) }
    }

    /// Replaces the policy; requests that have begun keep theirs.
    pub fn publish(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The current policy.
    pub fn load(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Changes with every publication.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
