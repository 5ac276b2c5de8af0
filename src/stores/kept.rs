//! What outlives a policy and is shared by all workers: one value, so that a policy is compiled over it, a worker begins
//! with it, and the control thread tends it.

use std::sync::Arc;

use super::accounts::Accounts;
use super::attempts::Attempts;
use super::challenges::Challenges;
use super::keys::KeyRings;
use super::limits::Limits;
use super::marks::Marks;
use super::seal::Seal;

/// The stores that guards and the request's way share.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Rate budgets.
    pub limits: Arc<Limits>,
    /// Keys that tokens are verified with.
    pub rings: Arc<KeyRings>,
    /// Failed logins and missed links.
    pub attempts: Arc<Attempts>,
    /// What is remembered for a while.
    pub marks: Arc<Marks>,
    /// What logins have taught.
    pub accounts: Arc<Accounts>,
    /// Seals what browsers keep for us.
    pub seal: Arc<Seal>,
    /// What an authority that tries whether hosts are ours is answered.
    pub challenges: Arc<Challenges>,
}

impl Kept {
    /// Empty ones; `keys`: most clients that are told apart (`limits.limiter_keys`). Nothing is sealed until keys are
    /// published.
    pub fn new(keys: usize) -> Self {
        Self {
            limits: Limits::new(keys),
            rings: Arc::default(),
            attempts: Arc::new(Attempts::new(keys)),
            marks: Arc::new(Marks::new(keys)),
            accounts: Arc::default(),
            seal: Arc::new(Seal::new(&[])),
            challenges: Arc::default(),
        }
    }
}
