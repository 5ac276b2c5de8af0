//! Which of several upstreams gets a request, and which is tried next when the first takes no connection.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::config::cluster::{Balance, Cluster, MOST};
use crate::config::upstream::Upstream;
use crate::request::client::Client;

/// Upstreams that one request is offered to: each may cost a connect timeout.
const TRIES: u32 = 3;

/// The choice for one request.
#[derive(Debug)]
pub struct Choice<'a> {
    cluster: &'a Cluster,
    client: Client,
    start: usize,
    /// One bit for each that was tried.
    tried: u32,
}

/// How one upstream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// 0: it serves, for all that is known; else how long not, in milliseconds.
    pub out_for: u64,
    /// Requests under way.
    pub requests: usize,
}

impl<'a> Choice<'a> {
    /// For a request of this client.
    pub fn new(cluster: &'a Cluster, client: Client) -> Self {
        Self { cluster, client, start: cluster.turn(), tried: 0 }
    }

    /// The best that was not tried yet. Where none serves, for all that is known, one is asked all the same: what is known
    /// may be old, and to refuse everything for it would be worse.
    pub fn next(&mut self, standing: impl Fn(&Upstream) -> Standing) -> Option<&'a Upstream> {
        let members = self.cluster.members();
        if self.tried.count_ones() >= TRIES {
            return None;
        }
        let (place, chosen) = match members {
            [only] if self.tried == 0 => (0, only),
            several => several
                .iter()
                .enumerate()
                .take(MOST)
                .filter(|(place, _)| self.tried & (1 << place) == 0)
                .min_by_key(|(place, upstream)| self.cost(*place, upstream, standing(upstream)))?,
        };
        self.tried |= 1 << place;
        Some(chosen)
    }

    fn cost(&self, place: usize, upstream: &Upstream, standing: Standing) -> (u64, u64, usize) {
        let several = self.cluster.members().len();
        let turn = (place + several - self.start) % several;
        let preference = match self.cluster.manner().balance {
            Balance::RoundRobin => 0,
            Balance::LeastRequests => standing.requests as u64,
            Balance::Sticky => rank(self.client, upstream),
        };
        (standing.out_for, preference, turn)
    }
}

/// Rendezvous hashing: each client has an order of its own over the upstreams, and when one leaves only its clients move. The
/// hasher's keys are fixed, so that all workers, and the next start, have the same order.
fn rank(client: Client, upstream: &Upstream) -> u64 {
    let mut hasher = DefaultHasher::new();
    (client, &upstream.address).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::cluster::Manner;
    use crate::config::upstream::{Address, Speaks};

    fn cluster(balance: Balance, count: u16) -> Cluster {
        let one =
            |port| Upstream { address: Address::Tcp { host: "10.0.0.1".into(), port }, speaks: Speaks::Http };
        Cluster::new((1..=count).map(one).collect(), Manner { balance, ..Manner::default() })
    }

    fn port(upstream: &Upstream) -> u16 {
        let Address::Tcp { port, .. } = upstream.address else { unreachable!() };
        port
    }

    fn client(n: u32) -> Client {
        Client::Address(std::net::Ipv4Addr::from_bits(n).into())
    }

    const IN: Standing = Standing { out_for: 0, requests: 0 };

    fn order(cluster: &Cluster, n: u32, standing: impl Fn(u16) -> Standing) -> Vec<u16> {
        let mut choice = Choice::new(cluster, client(n));
        std::iter::from_fn(|| choice.next(|upstream| standing(port(upstream)))).map(port).collect()
    }

    #[test]
    fn round_robin_takes_turns_and_passes_over_who_is_out() {
        let three = cluster(Balance::RoundRobin, 3);
        let firsts: Vec<_> = (0..6).map(|n| order(&three, n, |_| IN)[0]).collect();
        assert_eq!(firsts, [1, 2, 3, 1, 2, 3]);
        let out = |port| Standing { out_for: if port == 2 { 500 } else { 0 }, ..IN };
        for n in 0..6 {
            let order = order(&three, n, out);
            assert_eq!((order.len(), order[2]), (3, 2), "tried last, not never: {order:?}");
        }
    }

    #[test]
    fn where_all_are_out_the_one_that_is_back_first_is_asked() {
        let three = cluster(Balance::RoundRobin, 3);
        let out = |port: u16| Standing { out_for: 1000 - u64::from(port), ..IN };
        assert_eq!(order(&three, 1, out), [3, 2, 1]);
    }

    #[test]
    fn least_requests_takes_the_idlest_and_turns_among_equals() {
        let three = cluster(Balance::LeastRequests, 3);
        let busy = |port| Standing { requests: if port == 2 { 1 } else { 7 }, ..IN };
        assert!((0..5).all(|n| order(&three, n, busy)[0] == 2));
        let firsts: std::collections::BTreeSet<_> = (0..3).map(|n| order(&three, n, |_| IN)[0]).collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn sticky_keeps_a_client_and_moves_only_those_whose_upstream_is_out() {
        let four = cluster(Balance::Sticky, 4);
        let mut counts = HashMap::new();
        for n in 0..4000 {
            let order = order(&four, n, |_| IN);
            assert_eq!(order[0], self::order(&four, n, |_| IN)[0]);
            *counts.entry(order[0]).or_insert(0) += 1;
            let without = |port| Standing { out_for: u64::from(port == 3), ..IN };
            let moved = self::order(&four, n, without)[0];
            assert_eq!(moved, if order[0] == 3 { order[1] } else { order[0] });
        }
        assert!(counts.values().all(|count| (800..1200).contains(count)), "{counts:?}");
    }

    #[test]
    fn one_request_is_offered_to_three_at_most_and_to_one_once() {
        assert_eq!(order(&cluster(Balance::RoundRobin, 9), 0, |_| IN).len(), 3);
        assert_eq!(order(&cluster(Balance::RoundRobin, 1), 0, |_| IN), [1]);
    }
}
