//! What is known of share links, by all workers. Nothing here is a link: keys are keyed hashes.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::lines::Lines;
use super::marks::Marks;

/// Links, and pairs of link and client, that are remembered: 1 MiB each.
const LINKS: usize = 65_536;
/// Most lockouts that wait for the audit log.
const MOST: usize = 256;

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
    lockouts: Mutex<(Vec<Lockout>, u64)>,
}

/// One lockout that has begun, as the audit log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lockout {
    /// The site's name.
    pub site: String,
    /// Who is locked out: a client or its network; `None`: the clients that cannot be told, which are one.
    pub who: Option<IpNet>,
    /// For how long.
    pub seconds: u64,
}

impl Default for Shares {
    fn default() -> Self {
        let lockouts = Mutex::default();
        Self { alive: Marks::new(LINKS), tried: Marks::new(LINKS), lines: Arc::default(), lockouts }
    }
}

impl Shares {
    /// A lockout has begun: on its way to the audit log. Whoever can begin many of them has many addresses: of more than 256
    /// that wait only the number is told.
    pub fn locked(&self, site: &str, who: Option<IpNet>, length: Duration) {
        let mut waiting = self.lockouts.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.0.len() < MOST {
            waiting.0.push(Lockout { site: site.to_owned(), who, seconds: length.as_secs() });
        } else {
            waiting.1 += 1;
        }
    }

    /// Takes the lockouts that wait, and the number of those for which there was no room.
    pub fn take_lockouts(&self) -> (Vec<Lockout>, u64) {
        std::mem::take(&mut *self.lockouts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A client as one network, and the wider one around it: an IPv4 address and its /24, an IPv6 /64 and its /48.
pub fn networks(address: IpAddr) -> [IpNet; 2] {
    let widths = if address.is_ipv4() { [32, 24] } else { [64, 48] };
    widths.map(|width| IpNet::new(address, width).map_or_else(|_| address.into(), |network| network.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lockouts_is_counted_and_not_kept() {
        let shares = Shares::default();
        let [client, network] = networks("2001:db8:1:2::3".parse().unwrap());
        for _ in 0..MOST + 3 {
            shares.locked("a", Some(network), Duration::from_secs(30));
        }
        let (kept, more) = shares.take_lockouts();
        assert_eq!((kept.len(), more), (MOST, 3));
        let line = serde_json::to_string(&kept[0]).unwrap();
        assert_eq!(line, r#"{"site":"a","who":"2001:db8:1::/48","seconds":30}"#);
        assert_eq!(shares.take_lockouts(), (vec![], 0));
        assert_eq!(client.to_string(), "2001:db8:1:2::/64");
        assert_eq!(
            networks("192.0.2.7".parse().unwrap()).map(|one| one.to_string()),
            ["192.0.2.7/32", "192.0.2.0/24"]
        );
    }
}
