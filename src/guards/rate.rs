//! Limits requests per client and class: governor's GCRA, `burst` at once, one more for every refill.
//!
//! 1. A client is an IPv4 address or an IPv6 /64; a wider bucket of eight times the size holds for each IPv6 /48.
//! 2. Clients that cannot be told share one budget.
//! 3. A refusal is 429 with `Retry-After`, rounded up; refusals do not lengthen the wait.
//!
//! Caveat: an attacker with many networks has many budgets; the login guard's counters per account are for that.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{Denial, Guard, Reason, Verdict};
use crate::config::values::Rate as RateValue;
use crate::request::client::Client;
use crate::request::facts::Facts;
use crate::stores::limits::{Limiter, Limits};

/// How much wider the bucket of an IPv6 /48 is than that of a /64: a household or an office has a few networks.
const WIDE_FACTOR: u32 = 8;

/// The rate of one class of one site.
#[derive(Debug)]
pub struct Rate {
    narrow: Limiter,
    wide: Limiter,
    observe: bool,
}

impl Rate {
    /// A guard over the shared table. `name` is the same before and after a reload, so that budgets live on.
    pub fn new(limits: &Arc<Limits>, name: &str, rate: RateValue, observe: bool) -> Self {
        let wide = RateValue {
            refill: (rate.refill / WIDE_FACTOR).max(Duration::from_nanos(1)),
            burst: rate.burst.saturating_mul(NonZeroU32::MIN.saturating_add(WIDE_FACTOR - 1)),
        };
        Self {
            narrow: Limiter::new(limits, &format!("{name}/64"), rate),
            wide: Limiter::new(limits, &format!("{name}/48"), wide),
            observe,
        }
    }

    /// What [`Guard::check`] would say, without a charge.
    pub fn ask(&self, cx: &Facts) -> Verdict {
        self.said(self.charge(cx, true))
    }

    fn said(&self, charged: Result<(), Duration>) -> Verdict {
        let Err(wait) = charged else { return Verdict::Pass };
        let denial = Denial { guard: Self::NAME, reason: Reason::RateLimited, retry_after: Some(wait) };
        if self.observe { Verdict::WouldDeny(denial) } else { Verdict::Deny(denial) }
    }

    fn charge(&self, cx: &Facts, rehearsal: bool) -> Result<(), Duration> {
        match cx.client {
            Client::Unknown => self.narrow.check(u128::MAX, cx.now, rehearsal),
            Client::Address(IpAddr::V4(address)) => {
                self.narrow.check(u128::from(address.to_bits()), cx.now, rehearsal)
            }
            Client::Address(IpAddr::V6(address)) => {
                let bits = address.to_bits();
                self.narrow.check(bits >> 64 << 64 | 1, cx.now, rehearsal)?;
                self.wide.check(bits >> 80 << 80, cx.now, rehearsal)
            }
        }
    }
}

impl Guard for Rate {
    const NAME: &'static str = "rate";

    fn check(&self, cx: &Facts) -> Verdict {
        self.said(self.charge(cx, cx.rehearsal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(observe: bool) -> Rate {
        let rate = RateValue { refill: Duration::from_secs(60), burst: NonZeroU32::new(2).unwrap() };
        Rate::new(&Limits::new(10_000), "site/login", rate, observe)
    }

    fn passes(guard: &Rate, client: &str) -> bool {
        let client = client.parse().map_or(Client::Unknown, Client::Address);
        guard.check(&Facts { client, ..Facts::example() }) == Verdict::Pass
    }

    #[test]
    fn each_client_has_a_budget_of_its_own() {
        let guard = guard(false);
        assert!(passes(&guard, "192.0.2.1") && passes(&guard, "192.0.2.1") && !passes(&guard, "192.0.2.1"));
        assert!(passes(&guard, "192.0.2.2"));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_site_of_them_has_a_wider_budget() {
        let guard = guard(false);
        assert!(passes(&guard, "2001:db8:1:1::1") && passes(&guard, "2001:db8:1:1::2"));
        assert!(!passes(&guard, "2001:db8:1:1:ffff::3"));
        let others = (2..40).filter(|net| passes(&guard, &format!("2001:db8:1:{net}::1"))).count();
        assert_eq!(others, 14, "16 for the /48, of which 2 are used up");
        assert!(passes(&guard, "2001:db8:2::1"));
    }

    #[test]
    fn clients_that_cannot_be_told_share_one_budget() {
        let guard = guard(false);
        assert!(passes(&guard, "?") && passes(&guard, "?") && !passes(&guard, "?"));
    }

    #[test]
    fn observing_lets_pass_and_says_so() {
        let guard = guard(true);
        assert!(passes(&guard, "192.0.2.1") && passes(&guard, "192.0.2.1"));
        assert!(matches!(
            guard.check(&Facts { client: Client::Address("192.0.2.1".parse().unwrap()), ..Facts::example() }),
            Verdict::WouldDeny(_)
        ));
    }
}
