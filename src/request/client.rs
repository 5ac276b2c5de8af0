//! Who sent a request: the peer of the socket, or whom trusted proxies name, or nobody that can be known (DESIGN 4.2).

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use crate::config::values::Networks;

/// The client of a request, after trusted proxies. Never the socket's address by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// IPv4-mapped addresses are IPv4 here.
    Address(IpAddr),
    /// Cannot be told: fails every allowlist and shares one budget.
    Unknown,
}

/// A client, and how it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The client.
    pub client: Client,
    /// How.
    pub how: How,
}

/// How a client was found; places in `X-Forwarded-For` count from the right, over all of its lines, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is the peer, who is no trusted proxy: whatever it claims is not looked at.
    Peer,
    /// It is a trusted proxy, whose own connection this is.
    Own,
    /// The peer is on this machine or in its network, is not trusted, and claims to stand for somebody.
    Tunnel,
    /// The peer is a trusted proxy that names nobody.
    Silent,
    /// The element at this place is the first that is no trusted proxy.
    Hop(usize),
    /// All elements are trusted proxies; the one at this place is the last.
    LastHop(usize),
    /// The element at this place is no address: what stands before it is anybody's word.
    Garbage(usize),
}

/// Fields by which a proxy in front would name its client.
const FORWARDING: [HeaderName; 6] = [
    X_FORWARDED_FOR,
    http::header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("x-client-ip"),
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Finds the client.
///
/// * A trusted peer's `X-Forwarded-For` is walked from the right: trusted hops are passed over, the first other
///   address is the client, and anything that is no address ends the walk with *unknown*. No field: *unknown*.
/// * A loopback or private peer that is not trusted and yet sends a forwarding field is *unknown*: a tunnel on the
///   same host must not turn every stranger into 127.0.0.1.
/// * Any other peer is the client itself, whatever it claims.
pub fn find(peer: IpAddr, trusted: &Networks, headers: &HeaderMap) -> Found {
    let peer = peer.to_canonical();
    let found = |client, how| Found { client, how };
    if trusted.contains(peer) {
        return walk(trusted, headers);
    }
    if is_local(peer) && FORWARDING.iter().any(|name| headers.contains_key(name)) {
        return found(Client::Unknown, How::Tunnel);
    }
    found(Client::Address(peer), How::Peer)
}

fn walk(trusted: &Networks, headers: &HeaderMap) -> Found {
    let mut found = Found { client: Client::Unknown, how: How::Silent };
    let mut place = 0;
    for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for hop in line.as_bytes().rsplit(|byte| *byte == b',') {
            place += 1;
            let address = std::str::from_utf8(hop).ok().and_then(|hop| parse_hop(hop.trim()));
            let Some(address) = address else {
                return Found { client: Client::Unknown, how: How::Garbage(place) };
            };
            found.client = Client::Address(address);
            if !trusted.contains(address) {
                return Found { how: How::Hop(place), ..found };
            }
            found.how = How::LastHop(place);
        }
    }
    found
}

/// An address as proxies write it: bare, `[v6]`, with or without a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let bare = match hop.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(address, _)| address)?,
        None => match hop.split_once(':') {
            Some((address, port)) if !port.contains(':') => address,
            _ => hop,
        },
    };
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

/// Loopback, private (RFC 1918, RFC 4193), link-local, or shared (RFC 6598): where a tunnel or proxy may sit.
pub fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::parse_network;

    fn found(peer: &str, trusted: &[&str], fields: &[(&'static str, &str)]) -> String {
        let trusted = Networks::new(trusted.iter().map(|net| parse_network(net).unwrap()));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        find(peer.parse().unwrap(), &trusted, &headers).client.to_string()
    }

    #[test]
    fn a_strangers_claims_change_nothing() {
        for name in ["x-forwarded-for", "x-real-ip", "true-client-ip", "forwarded"] {
            assert_eq!(found("203.0.113.7", &[], &[(name, "127.0.0.1")]), "203.0.113.7");
        }
        assert_eq!(found("::ffff:203.0.113.7", &[], &[]), "203.0.113.7");
    }

    #[test]
    fn a_tunnel_on_the_same_host_is_nobody() {
        for peer in ["127.0.0.1", "::1", "10.1.2.3", "fd00::1", "::ffff:127.0.0.1", "100.64.0.1"] {
            assert_eq!(found(peer, &[], &[("x-forwarded-for", "127.0.0.1")]), "unknown", "{peer}");
            assert_eq!(found(peer, &[], &[("cf-connecting-ip", "10.0.0.1")]), "unknown", "{peer}");
        }
        assert_eq!(found("127.0.0.1", &[], &[]), "127.0.0.1");
    }

    #[test]
    fn trusted_hops_are_walked_from_the_right() {
        let trusted = ["10.0.0.0/8"];
        for (line, client) in [
            ("203.0.113.7", "203.0.113.7"),
            ("127.0.0.1, 203.0.113.7, 10.0.0.2", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
            ("203.0.113.7, nonsense", "unknown"),
            ("203.0.113.7,", "unknown"),
            ("unknown", "unknown"),
        ] {
            assert_eq!(found("10.0.0.1", &trusted, &[("x-forwarded-for", line)]), client, "{line}");
        }
        assert_eq!(found("10.0.0.1", &trusted, &[]), "unknown");
        let two = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.7")];
        assert_eq!(found("10.0.0.1", &trusted, &two), "203.0.113.7");
    }
}
