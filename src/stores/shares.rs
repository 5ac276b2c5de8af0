//! What is known of share links, by all workers. Nothing here is a link: keys are keyed hashes.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::lines::Lines;
use super::marks::Marks;
use crate::request::client::Client;

/// Links, and pairs of link and client, that are remembered: 1 MiB each.
const LINKS: usize = 65_536;

/// Links that answered lately, links that did not, and whose turn it is.
#[derive(Debug)]
pub struct Shares {
    /// Links that have answered 2xx within the hour. Only true links get in here, so that no guessing fills it; when it is
    /// full the one that ends first is forgotten, which is felt in locked networks only.
    pub alive: Marks,
    /// Which client and which network has tried which link, so that the same one costs once. When it is full the one that
    /// ends first is forgotten: that link costs its client once more.
    pub tried: Marks,
    /// One download of a link at a time.
    pub lines: Arc<Lines>,
}

/// Who misses links: a client, or its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// As a part of keys: no two groups have one.
    pub key: u128,
    /// The wider one's, as the operator reads it.
    pub network: Option<IpNet>,
}

impl Default for Shares {
    fn default() -> Self {
        Self { alive: Marks::new(LINKS), tried: Marks::new(LINKS), lines: Arc::default() }
    }
}

/// An address (of IPv6 its /64), and its /24 or /48; all whose address cannot be told are one.
pub fn groups(client: Client) -> [Group; 2] {
    let Client::Address(address) = client else {
        return [u128::MAX, u128::MAX - 1].map(|key| Group { key, network: None });
    };
    // The lowest bits of an IPv6 network are free, and so are the highest of an IPv4 address.
    let ([narrow, wide], width) = match address {
        IpAddr::V4(address) => {
            let bits = u128::from(address.to_bits());
            ([bits | 1 << 32, bits >> 8 << 8 | 1 << 33], 24)
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            ([bits >> 64 << 64 | 1, bits >> 80 << 80 | 2], 48)
        }
    };
    let network = IpNet::new(address, width).map_or_else(|_| address.into(), |network| network.trunc());
    [Group { key: narrow, network: None }, Group { key: wide, network: Some(network) }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_and_its_network_are_two_groups() {
        let of = |address: &str| groups(Client::Address(address.parse().unwrap()));
        let [v4, v6] = [of("192.0.2.7"), of("2001:db8:1:2::3")];
        let network = |groups: &[Group; 2]| groups.map(|group| group.network.map(|one| one.to_string()));
        assert_eq!(network(&v4), [None, Some("192.0.2.0/24".to_owned())]);
        assert_eq!(network(&v6), [None, Some("2001:db8:1::/48".to_owned())]);
        assert_eq!(v6, of("2001:db8:1:2:ffff::"), "a /64 is one client");
        assert_eq!((v4[1], v6[1]), (of("192.0.2.8")[1], of("2001:db8:1:3::")[1]));
        let all = [v4[0], v4[1], v6[0], v6[1], groups(Client::Unknown)[0], groups(Client::Unknown)[1]];
        let keys: std::collections::HashSet<u128> = all.iter().map(|group| group.key).collect();
        assert_eq!(keys.len(), all.len());
    }
}
