//! How near the process is to its limit of file descriptors, told by the number of each new one: the kernel gives the
//! lowest that is free. The last ones stay free for the admin socket, the store and the log.

use rustix::process::{Resource, getrlimit};

/// Descriptors that clients never get, of many; of few an eighth is kept.
const KEPT: u64 = 32;

/// The limit, as two thresholds: new clients stop first, so that those who are in still find their upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    clients: u64,
    upstreams: u64,
}

impl Descriptors {
    /// With this limit of the process.
    pub fn new(limit: u64) -> Self {
        let kept = KEPT.min(limit / 8);
        Self { clients: limit.saturating_sub(kept), upstreams: limit.saturating_sub(kept / 2) }
    }

    /// With the limit that this process has now.
    pub fn of_process() -> Self {
        Self::new(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Whether a client may keep this descriptor.
    pub fn allow_client(self, descriptor: i32) -> bool {
        u64::try_from(descriptor).is_ok_and(|descriptor| descriptor < self.clients)
    }

    /// Whether a connection to an upstream may keep it.
    pub fn allow_upstream(self, descriptor: i32) -> bool {
        u64::try_from(descriptor).is_ok_and(|descriptor| descriptor < self.upstreams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_kept_from_clients_and_the_very_last_from_upstreams() {
        let few = Descriptors::new(64);
        assert!(few.allow_client(55) && !few.allow_client(56));
        assert!(few.allow_upstream(59) && !few.allow_upstream(60));
        let many = Descriptors::new(20_000);
        assert!(many.allow_client(19_967) && !many.allow_client(19_968));
        assert!(Descriptors::new(u64::MAX).allow_client(i32::MAX) && !many.allow_client(-1));
    }
}
