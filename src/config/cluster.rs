//! Several upstreams of one application: which of them gets a request, how long each may take, how it is known who serves.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;

use super::upstream::Upstream;

/// Most upstreams of one route.
pub const MOST: usize = 32;

/// Where a route leads: one upstream, or several that serve the same. Cheap to clone: a permit that names it allocates
/// nothing.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    members: Box<[Upstream]>,
    manner: Manner,
    /// Whose turn it is; shared by the workers, and touched only where there are several.
    turn: AtomicUsize,
}

/// How upstreams are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// Which of several gets a request.
    pub balance: Balance,
    /// Name resolution, TCP and TLS handshake together.
    pub connect_timeout: Duration,
    /// From the whole request to the head of the answer.
    pub first_byte_timeout: Duration,
    /// Silence in the middle of an answer.
    pub progress_timeout: Duration,
    /// Asked now and then whether they serve; `None`: it shows only when a connection fails.
    pub health: Option<HealthCheck>,
    /// How often they are asked.
    pub health_every: Duration,
}

/// Which of several upstreams gets a request; always one that is up, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests under way, as this worker sees it.
    LeastRequests,
    /// A client's requests go to the same one for as long as it is up (rendezvous hashing of the client's address).
    Sticky,
}

/// A question that says whether an upstream serves: 2xx and 3xx do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// Asked with GET.
    pub path: PathAndQuery,
    /// The Host of the question.
    pub host: Box<str>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            balance: Balance::RoundRobin,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            progress_timeout: Duration::from_secs(300),
            health: None,
            health_every: Duration::from_secs(5),
        }
    }
}

impl Cluster {
    /// Of these upstreams.
    pub fn new(members: Vec<Upstream>, manner: Manner) -> Self {
        Self(Arc::new(Inner { members: members.into(), manner, turn: AtomicUsize::new(0) }))
    }

    /// The upstreams, in the order of the config.
    pub fn members(&self) -> &[Upstream] {
        &self.0.members
    }

    /// How they are asked.
    pub fn manner(&self) -> &Manner {
        &self.0.manner
    }

    /// Whose turn it is, as a place among the members; the next call says the next one.
    pub fn turn(&self) -> usize {
        match self.members().len() {
            0 | 1 => 0,
            several => self.0.turn.fetch_add(1, Ordering::Relaxed) % several,
        }
    }

    /// The same on another port of each host. Nobody knows a path of it that says whether it serves.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        let members = self.members().iter().map(|one| one.at_port(port)).collect();
        Self::new(members, Manner { health: None, ..self.0.manner.clone() })
    }
}

impl Balance {
    /// Every one, with its word in config.
    pub const ALL: [(&'static str, Self); 3] = [
        ("round-robin", Self::RoundRobin),
        ("least-requests", Self::LeastRequests),
        ("sticky", Self::Sticky),
    ];

    /// The word in config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastRequests => "least-requests",
            Self::Sticky => "sticky",
        }
    }
}

/// As the config writes them, with a comma between several.
impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, member) in self.members().iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{member}")?;
        }
        Ok(())
    }
}
