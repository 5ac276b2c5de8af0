//! What outlives a policy and is shared by all workers: one value, so that a policy is compiled over it, a worker begins
//! with it, and the control thread tends it.

use std::sync::Arc;

use super::accounts::Accounts;
use super::attempts::Attempts;
use super::challenges::Challenges;
use super::keys::KeyRings;
use super::limits::Limits;
use super::logins::Logins;
use super::logouts::Logouts;
use super::marks::Marks;
use super::probes::Probes;
use super::reports::Reports;
use super::seal::Seal;
use super::sessions::Sessions;
use super::shares::Shares;
use super::taught::Lessons;

/// The stores that guards and the request's way share.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Rate budgets.
    pub limits: Arc<Limits>,
    /// Keys that tokens are verified with.
    pub rings: Arc<KeyRings>,
    /// Failed logins and missed links.
    pub attempts: Arc<Attempts>,
    /// Who is locked out, and what logins hold while they last.
    pub logins: Arc<Logins>,
    /// Addresses from which somebody has logged in.
    pub logged_in: Arc<Marks>,
    /// Addresses from which Basic credentials were let in.
    pub let_in: Arc<Marks>,
    /// What logins have taught.
    pub accounts: Arc<Accounts>,
    /// Whose refresh cookies are whose.
    pub sessions: Arc<Sessions>,
    /// What answers have taught, on its way to the control thread.
    pub lessons: Arc<Lessons>,
    /// Seals what browsers keep for us.
    pub seal: Arc<Seal>,
    /// Share links: alive, tried, being downloaded.
    pub shares: Arc<Shares>,
    /// Orders of identity providers.
    pub logouts: Arc<Logouts>,
    /// Probes of blocks that are under way.
    pub probes: Arc<Probes>,
    /// Reported violations of policies.
    pub reports: Arc<Reports>,
    /// What an authority that tries whether hosts are ours is answered.
    pub challenges: Arc<Challenges>,
}

impl Kept {
    /// Empty ones; `keys`: most clients that are told apart (`limits.limiter_keys`). Nothing is sealed until keys are
    /// published.
    pub fn new(keys: usize) -> Self {
        let attempts = Arc::new(Attempts::new(keys));
        Self {
            limits: Limits::new(keys),
            rings: Arc::default(),
            logins: Arc::new(Logins::new(Arc::clone(&attempts))),
            attempts,
            logged_in: Arc::new(Marks::new(keys)),
            let_in: Arc::new(Marks::new(keys)),
            accounts: Arc::default(),
            sessions: Arc::default(),
            lessons: Arc::default(),
            seal: Arc::new(Seal::new(&[])),
            shares: Arc::default(),
            logouts: Arc::default(),
            probes: Arc::default(),
            reports: Arc::default(),
            challenges: Arc::default(),
        }
    }
}
