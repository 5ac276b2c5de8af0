//! Limits requests per client and class: governor's GCRA, `burst` at once, one more for every refill.
//!
//! 1. A client is an IPv4 address or an IPv6 /64; a wider bucket of eight times the size holds for each IPv6 /48.
//! 2. Clients that cannot be told share one budget.
//! 3. A refusal is 429 with `Retry-After`, rounded up; refusals do not lengthen the wait, and cost the /48 nothing.
//! 4. What pages of other sites send (`Sec-Fetch-Site`, `Origin`) spends budgets of their own, beside the client's: they can use
//!    up nothing of his. Whoever says so of himself has two; where secrets are tried see [`super::browser`] and [`super::share`].
//! 5. When the table of budgets is full, newcomers of one IPv4 /24 or IPv6 /48 share one: see [`crate::stores::limits`].
//!
//! Caveat: an attacker with many networks has many budgets; the login guard's counters per account are for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{Denial, Guard, Reason, Verdict};
use crate::config::values::Rate as RateValue;
use crate::request::client::Client;
use crate::request::facts::{Facts, Origin};
use crate::stores::limits::{Limiter, Limits, Who};

/// How much wider the bucket of an IPv6 /48 is than that of a /64: a household or an office has a few networks.
const WIDE_FACTOR: u32 = 8;
/// All whose address cannot be told.
const UNKNOWN: Who = Who { client: u128::MAX, network: u128::MAX };
/// A bit in which no two clients and no two networks differ: with it turned it is the budget of foreign pages.
const FOREIGN: u128 = 1 << 40;

/// The rate of one class of one site.
#[derive(Debug)]
pub struct Rate {
    narrow: Limiter,
    wide: Limiter,
}

impl Rate {
    /// A guard over the shared table. `name` is the same before and after a reload, so that budgets live on.
    pub fn new(limits: &Arc<Limits>, name: &str, rate: RateValue) -> Self {
        let wide = RateValue {
            refill: (rate.refill / WIDE_FACTOR).max(Duration::from_nanos(1)),
            burst: rate.burst.saturating_mul(NonZeroU32::MIN.saturating_add(WIDE_FACTOR - 1)),
        };
        Self {
            narrow: Limiter::new(limits, &format!("{name}/64"), rate),
            wide: Limiter::new(limits, &format!("{name}/48"), wide),
        }
    }

    /// What [`Guard::check`] would say, without a charge.
    pub fn ask(&self, cx: &Facts) -> Verdict {
        said(self.charge(cx, true))
    }

    fn charge(&self, cx: &Facts, rehearsal: bool) -> Result<(), Duration> {
        let of = |who: Who| match cx.origin {
            Origin::Foreign => Who { client: who.client ^ FOREIGN, network: who.network ^ FOREIGN },
            Origin::Own | Origin::Absent => who,
        };
        match cx.client {
            Client::Unknown => self.narrow.check(of(UNKNOWN), cx.now, rehearsal),
            Client::Address(IpAddr::V4(address)) => self.narrow.check(of(v4(address)), cx.now, rehearsal),
            Client::Address(IpAddr::V6(address)) => {
                let [site, net] = v6(address).map(of);
                // Asked first: the networks of a /48 that is refused take no places. Charged last: who is refused by his
                // own budget costs his neighbours nothing.
                self.wide.check(site, cx.now, true)?;
                self.narrow.check(net, cx.now, rehearsal)?;
                self.wide.check(site, cx.now, rehearsal)
            }
        }
    }
}

fn v4(address: Ipv4Addr) -> Who {
    // The top bit keeps the two families apart.
    let family = 1 << 127;
    let bits = u128::from(address.to_bits());
    Who { client: family | bits, network: family | bits >> 8 << 8 }
}

/// The /48 and the /64.
fn v6(address: Ipv6Addr) -> [Who; 2] {
    let bits = address.to_bits();
    let network = bits >> 80 << 80;
    [Who { client: network, network }, Who { client: bits >> 64 << 64, network }]
}

fn said(charged: Result<(), Duration>) -> Verdict {
    let Err(wait) = charged else { return Verdict::Pass };
    Verdict::Deny(Denial { guard: Rate::NAME, reason: Reason::RateLimited, retry_after: Some(wait) })
}

impl Guard for Rate {
    const NAME: &'static str = "rate";

    fn check(&self, cx: &Facts) -> Verdict {
        said(self.charge(cx, cx.rehearsal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Rate {
        let rate = RateValue { refill: Duration::from_secs(60), burst: NonZeroU32::new(2).unwrap() };
        Rate::new(&Limits::new(10_000), "site/login", rate)
    }

    fn passes(guard: &Rate, client: &str) -> bool {
        let client = client.parse().map_or(Client::Unknown, Client::Address);
        guard.check(&Facts { client, ..Facts::example() }) == Verdict::Pass
    }

    #[test]
    fn each_client_has_a_budget_of_its_own() {
        let guard = guard();
        assert!(passes(&guard, "192.0.2.1") && passes(&guard, "192.0.2.1") && !passes(&guard, "192.0.2.1"));
        assert!(passes(&guard, "192.0.2.2"));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_site_of_them_has_a_wider_budget() {
        let guard = guard();
        assert!(passes(&guard, "2001:db8:1:1::1") && passes(&guard, "2001:db8:1:1::2"));
        assert!(!passes(&guard, "2001:db8:1:1:ffff::3"));
        let others = (2..40).filter(|net| passes(&guard, &format!("2001:db8:1:{net}::1"))).count();
        assert_eq!(others, 14, "16 for the /48, of which 2 are used up");
        assert!(passes(&guard, "2001:db8:2::1"));
    }

    #[test]
    fn pages_of_other_sites_spend_nothing_of_their_visitors() {
        for client in ["192.0.2.1", "2001:db8:1:1::1", "?"] {
            let guard = guard();
            let address = client.parse().map_or(Client::Unknown, Client::Address);
            let foreign = Facts { client: address, origin: Origin::Foreign, ..Facts::example() };
            let passed = (0..10).filter(|_| guard.check(&foreign) == Verdict::Pass).count();
            assert_eq!(passed, 2, "they have a budget themselves");
            assert!(passes(&guard, client) && passes(&guard, client) && !passes(&guard, client), "{client}");
        }
    }

    #[test]
    fn who_is_refused_by_his_own_budget_costs_his_neighbours_nothing() {
        let guard = guard();
        for _ in 0..100 {
            passes(&guard, "2001:db8:1:1::1");
        }
        let others = (2..40).filter(|net| passes(&guard, &format!("2001:db8:1:{net}::1"))).count();
        assert_eq!(others, 14, "16 for the /48, of which 2 are used up, not 100");
    }

    #[test]
    fn a_million_networks_of_one_48_pass_eight_budgets_and_take_as_many_places() {
        let limits = Limits::new(10_000);
        let rate = RateValue { refill: Duration::from_secs(60), burst: NonZeroU32::new(10).unwrap() };
        let guard = Rate::new(&limits, "site/login", rate);
        let passed = (0..1_000_000_u32).filter(|net| {
            let address = Ipv6Addr::from_bits(0x2001_0db8_0001 << 80 | u128::from(*net % 65_536) << 64 | 1);
            let client = Client::Address(IpAddr::V6(address));
            guard.check(&Facts { client, ..Facts::example() }) == Verdict::Pass
        });
        assert_eq!(passed.count(), 80);
        assert_eq!((limits.keys(), limits.evictions(), limits.newcomers()), (81, 0, 0));
    }

    #[test]
    fn clients_that_cannot_be_told_share_one_budget() {
        let guard = guard();
        assert!(passes(&guard, "?") && passes(&guard, "?") && !passes(&guard, "?"));
    }
}
