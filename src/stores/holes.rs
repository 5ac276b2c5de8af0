//! Timed holes in an allowlist: for the first run of an application, an operator lets one network reach class `setup` for
//! a while (DESIGN 7, `allow`). They are in memory only: a restart closes them.

use ipnet::IpNet;

use crate::clock::Now;
use crate::config::class::Class;
use crate::request::client::Client;
use crate::request::facts::Facts;

/// Most holes at once; more are refused.
pub const MOST: usize = 64;

/// One hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// The site's name.
    pub site: String,
    /// Its scope: see [`crate::request::facts::scope_of`].
    pub scope: u64,
    /// The class that is opened.
    pub class: Class,
    /// For whom.
    pub network: IpNet,
    /// When it ends: as soon as either clock says so.
    pub until: Now,
    /// Who opened it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Hole {
    /// Whether it is closed. Unlike a block it ends when one clock says so: what opens a door must not last by a jump.
    pub fn is_over(&self, now: Now) -> bool {
        now.mono >= self.until.mono || now.wall >= self.until.wall
    }

    /// Whether it lets this request through its class's allowlist. A client that is not known is in no network.
    pub fn lets(&self, facts: &Facts) -> bool {
        let Client::Address(address) = facts.client else { return false };
        facts.class == self.class
            && self.network.contains(&address)
            && facts.scopes.contains(&self.scope)
            && !self.is_over(facts.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::facts::scope_of;

    #[test]
    fn a_hole_is_for_one_network_class_and_site_and_ends_by_either_clock() {
        let facts = Facts { class: Class::Setup, ..Facts::example() };
        let now = facts.now;
        let hole = Hole {
            site: "files.example.com".into(),
            scope: scope_of("files.example.com"),
            class: Class::Setup,
            network: "203.0.113.0/24".parse().unwrap(),
            until: Now { mono: now.mono + 10, wall: now.wall + 10 },
            by: String::new(),
            reason: String::new(),
        };
        assert!(hole.lets(&facts));
        let at = |mono, wall| Now { mono: now.mono + mono, wall: now.wall + wall };
        for other in [
            Facts { class: Class::Metrics, ..facts.clone() },
            Facts { client: Client::Address([198, 51, 100, 7].into()), ..facts.clone() },
            Facts { client: Client::Unknown, ..facts.clone() },
            Facts { scopes: std::rc::Rc::new([scope_of("other.example.com")]), ..facts.clone() },
            Facts { now: at(10, 0), ..facts.clone() },
            Facts { now: at(0, 10), ..facts.clone() },
        ] {
            assert!(!hole.lets(&other), "{other:?}");
        }
        assert!(hole.lets(&Facts { now: at(9, 9), ..facts }));
    }
}
