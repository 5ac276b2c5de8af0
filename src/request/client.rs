//! Who sent a request: the peer of the socket, or whom trusted proxies name, or nobody that can be known.

use std::fmt;
use std::net::IpAddr;

/// The client of a request, after trusted proxies. Never the socket's address by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// IPv4-mapped addresses are IPv4 here.
    Address(IpAddr),
    /// Cannot be told (DESIGN 4.2): fails every allowlist and shares one budget.
    Unknown,
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}
