//! Lets only listed networks reach a route.
//!
//! 1. A client in none of the networks is refused with 404: a stranger need not learn that the endpoint exists.
//! 2. A client that is not known is in no network.
//! 3. A timed hole that an operator has opened (`portcullis allow`) lets its network through.
//!
//! Caveat: as good as `trusted_proxies`; a wrong entry there lets clients choose their own address.

use super::{Denial, Guard, Reason, Verdict};
use crate::config::values::Networks;
use crate::request::client::Client;
use crate::request::facts::Facts;
use crate::stores::blocks::Index;

/// Asks a route's allowlist, and behind a refusal the holes in it.
pub fn check(allowlist: Option<&Allowlist>, index: &Index, cx: &Facts) -> Verdict {
    match allowlist.map_or(Verdict::Pass, |allowlist| allowlist.check(cx)) {
        Verdict::Deny(_) if index.lets(cx) => Verdict::Pass,
        verdict => verdict,
    }
}

/// The networks that may reach a route.
#[derive(Debug, Clone)]
pub struct Allowlist {
    networks: Networks,
}

impl Allowlist {
    /// A guard that lets these networks pass; none at all lets nobody pass.
    pub fn new(networks: Networks) -> Self {
        Self { networks }
    }
}

impl Guard for Allowlist {
    const NAME: &'static str = "allowlist";

    fn check(&self, cx: &Facts) -> Verdict {
        match cx.client {
            Client::Address(address) if self.networks.contains(address) => Verdict::Pass,
            Client::Address(_) | Client::Unknown => {
                Verdict::Deny(Denial::new(Self::NAME, Reason::NotAllowlisted))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::parse_network;

    #[test]
    fn only_listed_networks_pass_and_nobody_unknown() {
        let guard = Allowlist::new(Networks::new(
            ["10.0.0.0/8", "2001:db8::/32"].map(|net| parse_network(net).unwrap()),
        ));
        for (client, passes) in [
            (Client::Address("10.1.2.3".parse().unwrap()), true),
            (Client::Address("2001:db8::1".parse().unwrap()), true),
            (Client::Address("11.0.0.1".parse().unwrap()), false),
            (Client::Address("127.0.0.1".parse().unwrap()), false),
            (Client::Unknown, false),
        ] {
            assert_eq!(
                guard.check(&Facts { client, ..Facts::example() }) == Verdict::Pass,
                passes,
                "{client}"
            );
        }
        let nobody = Allowlist::new(Networks::default());
        assert_ne!(nobody.check(&Facts::example()), Verdict::Pass);
    }
}
