//! Ends the guessing of share links without locking out those who have one (DESIGN 5.4).
//!
//! 1. A miss costs, a hit is taken back. A client has a budget, and its network (/24, /48) a wider one.
//! 2. The same dead link costs a client once: a dead link in an office's chat locks nobody out; guesses are always others.
//! 3. A link that has answered lately stays open, also to a network that is locked.
//! 4. What a page of another site asks for as an image or a frame is refused and not counted: a forum full of
//!    `<img src="https://files.example.com/s/guess">` spends nobody's budget.
//!
//! Caveat: it slows guessing down; what ends it is the length of the links, which is the application's to choose.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::{Denial, Reason};
use crate::clock::Now;
use crate::request::client::Client;
use crate::request::credential::Key;
use crate::stores::attempts::{Attempts, CounterKey, Lockout, Refused, Rule};
use crate::stores::marks::Marks;

/// Metric label and log field.
pub const NAME: &str = "share";

/// So long a link that has answered stays open to everybody.
const ALIVE: Duration = Duration::from_secs(3600);
/// So long a dead link costs the same client nothing more.
const DEAD: Duration = Duration::from_secs(3600);

/// Counts misses of one site.
#[derive(Debug)]
pub struct Share {
    attempts: Arc<Attempts>,
    marks: Arc<Marks>,
    site: u64,
    rules: Rules,
}

/// What is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Misses of one client.
    pub client: Rule,
    /// Misses of one network.
    pub network: Rule,
    /// How long it then waits.
    pub lockout: Lockout,
}

/// One request for a link.
#[derive(Debug, Clone, Copy)]
pub struct Visit {
    /// Who.
    pub client: Client,
    /// Keyed hash of the link.
    pub link: Key,
    /// When.
    pub now: Now,
}

/// The charges of a visit; [`Share::settle`] it, or it stays a miss.
#[derive(Debug)]
#[must_use = "a visit that is never settled counts as a miss"]
pub struct Charged {
    visit: Visit,
    counters: [Option<(CounterKey, Rule)>; 2],
}

impl Share {
    /// For one site over the tables of all.
    pub fn new(attempts: Arc<Attempts>, marks: Arc<Marks>, site: u64, rules: Rules) -> Self {
        Self { attempts, marks, site, rules }
    }

    /// Charges a visit before the application hears of it.
    ///
    /// # Errors
    /// A denial with the time to come again; nothing is charged then.
    pub fn begin(&self, visit: Visit) -> Result<Charged, Denial> {
        let mut charged = Charged { visit, counters: [None; 2] };
        if self.marks.has(self.alive(visit), visit.now) {
            return Ok(charged);
        }
        let again = self.marks.has(self.dead(visit), visit.now);
        for (place, (key, rule)) in charged.counters.iter_mut().zip(self.counters(visit)) {
            let judged = match again {
                true => self.attempts.ask(key, visit.now),
                false => self.attempts.charge(key, rule, self.rules.lockout, visit.now),
            };
            match judged {
                Ok(()) => *place = (!again).then_some((key, rule)),
                Err(Refused::Begun(wait) | Refused::Locked(wait)) => {
                    self.refund(&charged, visit.now);
                    return Err(Denial { guard: NAME, reason: Reason::LinksLocked, retry_after: Some(wait) });
                }
            }
        }
        Ok(charged)
    }

    /// Takes the charge back unless it was a miss, and remembers which it was.
    pub fn settle(&self, charged: Charged, status: StatusCode, now: Now) {
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                self.marks.forget(self.alive(charged.visit));
                self.marks.mark(self.dead(charged.visit), DEAD, now);
            }
            _ => {
                self.refund(&charged, now);
                if status.is_success() || status == StatusCode::NOT_MODIFIED {
                    self.marks.mark(self.alive(charged.visit), ALIVE, now);
                }
            }
        }
    }

    fn refund(&self, charged: &Charged, now: Now) {
        for (key, rule) in charged.counters.into_iter().flatten() {
            self.attempts.refund(key, rule, now);
        }
    }

    fn counters(&self, visit: Visit) -> [(CounterKey, Rule); 2] {
        let (client, network) = groups(visit.client);
        [
            (self.attempts.key_of((self.site, "share client", client)), self.rules.client),
            (self.attempts.key_of((self.site, "share network", network)), self.rules.network),
        ]
    }

    fn alive(&self, visit: Visit) -> (u64, &'static str, Key) {
        (self.site, "alive", visit.link)
    }

    fn dead(&self, visit: Visit) -> (u64, &'static str, Key, u128) {
        (self.site, "dead", visit.link, groups(visit.client).0)
    }
}

/// An address and its /24, an IPv6 /64 and its /48; all whose address cannot be told are one.
fn groups(client: Client) -> (u128, u128) {
    match client {
        Client::Unknown => (u128::MAX, u128::MAX),
        Client::Address(IpAddr::V4(address)) => {
            let bits = u128::from(address.to_bits());
            (bits, bits >> 8 << 8)
        }
        Client::Address(IpAddr::V6(address)) => {
            let bits = address.to_bits();
            (bits >> 64 << 64 | 1, bits >> 80 << 80)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn guard() -> Share {
        let rule =
            |failures| Rule { failures: NonZeroU32::new(failures).unwrap(), per: Duration::from_secs(60) };
        let lockout = Lockout { first: Duration::from_secs(30), most: Duration::from_secs(600) };
        let rules = Rules { client: rule(20), network: rule(100), lockout };
        Share::new(Arc::new(Attempts::new(100_000)), Arc::new(Marks::new(100_000)), 7, rules)
    }

    fn visit(client: &str, link: u32) -> Visit {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&link.to_be_bytes());
        let client = Client::Address(client.parse().unwrap());
        Visit { client, link: Key(key), now: Now { mono: 1_000_000_000_000, wall: 0 } }
    }

    /// Whether the application was asked; it answers so.
    fn asked(guard: &Share, visit: Visit, status: StatusCode) -> bool {
        guard.begin(visit).map(|charged| guard.settle(charged, status, visit.now)).is_ok()
    }

    fn misses(guard: &Share, client: &str, links: std::ops::Range<u32>) -> usize {
        links.filter(|link| asked(guard, visit(client, *link), StatusCode::NOT_FOUND)).count()
    }

    #[test]
    fn guessing_ends_after_a_few_misses_and_a_network_has_a_few_more() {
        let guard = guard();
        assert_eq!(misses(&guard, "192.0.2.1", 0..1000), 20);
        let others = (2..200).map(|n| misses(&guard, &format!("192.0.2.{n}"), n * 1000..n * 1000 + 50));
        assert_eq!(others.sum::<usize>(), 80);
        assert_eq!(misses(&guard, "198.51.100.1", 0..10), 10, "another network is another");
    }

    #[test]
    fn hits_cost_nothing() {
        let guard = guard();
        assert!((0..1000).all(|link| asked(&guard, visit("192.0.2.1", link), StatusCode::OK)));
        for status in [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED, StatusCode::BAD_GATEWAY] {
            assert!((5000..5100).all(|link| asked(&guard, visit("192.0.2.1", link), status)), "{status}");
        }
    }

    #[test]
    fn one_dead_link_opened_by_a_whole_office_locks_nobody_out() {
        let guard = guard();
        assert!((0..1000).all(|_| asked(&guard, visit("192.0.2.1", 1), StatusCode::NOT_FOUND)));
        assert_eq!(misses(&guard, "192.0.2.1", 2..100), 19, "it has cost one");
    }

    #[test]
    fn a_link_that_answered_lately_stays_open_to_a_locked_network_until_it_dies() {
        let guard = guard();
        assert!(asked(&guard, visit("198.51.100.1", 7), StatusCode::OK));
        misses(&guard, "192.0.2.1", 100..200);
        assert!(!asked(&guard, visit("192.0.2.1", 8), StatusCode::OK));
        assert!(asked(&guard, visit("192.0.2.1", 7), StatusCode::OK));
        assert!(asked(&guard, visit("192.0.2.1", 7), StatusCode::GONE));
        assert!(!asked(&guard, visit("192.0.2.1", 7), StatusCode::GONE), "it is dead now");
    }

    #[test]
    fn guesses_at_once_do_not_slip_by() {
        let guard = guard();
        let pending: Vec<_> =
            (0..1000).map_while(|link| guard.begin(visit("192.0.2.1", link)).ok()).collect();
        assert_eq!(pending.len(), 20);
    }
}
