//! Sets of networks: allowlists and trusted proxies.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::values::ValueError;

/// A set of networks; an empty one holds nobody. Looked up in time that does not grow with lists of thousands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks {
    named: Vec<IpNet>,
    /// First and last addresses, sorted, apart from each other; IPv6 behind IPv4.
    ranges: Vec<(IpAddr, IpAddr)>,
}

impl Networks {
    /// A set of these networks; IPv4-mapped IPv6 networks are taken as IPv4.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        let named: Vec<IpNet> = networks.into_iter().map(|net| unmapped(net).trunc()).collect();
        let mut all: Vec<_> = named.iter().map(|net| (net.network(), net.broadcast())).collect();
        all.sort_unstable();
        let mut ranges: Vec<(IpAddr, IpAddr)> = Vec::new();
        for (first, last) in all {
            match ranges.last_mut() {
                // Networks lie in each other or apart; of two that begin alike the wider one comes last.
                Some((_, end)) if first <= *end => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Self { named, ranges }
    }

    /// Loopback, IPv4 and IPv6: who may reach what is closed by default.
    pub fn loopback() -> Self {
        Self::new(["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()))
    }

    /// Whether the address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let before = self.ranges.partition_point(|(first, _)| *first <= address);
        let nearest = before.checked_sub(1).and_then(|place| self.ranges.get(place));
        nearest.is_some_and(|(_, last)| address <= *last)
    }

    /// No network at all: nobody.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The networks as given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &IpNet> {
        self.named.iter()
    }
}

/// Parses one entry of an allowlist: a CIDR, or one address (`/32`, `/128`).
///
/// # Errors
/// When it is neither, or when bits of the host are set (`10.0.0.1/8` is most likely a slip).
pub fn parse_network(text: &str) -> Result<IpNet, ValueError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let net: IpNet = text.parse().map(unmapped).map_err(|_| ValueError {
        message: format!("`{text}` is no network"),
        help: "write an address or a CIDR, e.g. \"10.0.0.0/8\"".into(),
    })?;
    if net.trunc() != net {
        return Err(ValueError {
            message: format!("`{text}` has bits set behind its prefix"),
            help: format!(
                "write \"{}\" for the network or \"{}\" for the one address",
                net.trunc(),
                net.addr()
            ),
        });
    }
    Ok(net)
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`: clients are never seen in the mapped form.
fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(mapped) = net else { return net };
    let four: Option<Ipv4Addr> = mapped.addr().to_ipv4_mapped();
    let inner = four.zip(mapped.prefix_len().checked_sub(96));
    inner.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(net, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_networks_holds(
            nets in proptest::collection::vec((any::<u32>(), 0u8..=32, any::<bool>()), 0..24),
            probes in proptest::collection::vec(any::<u32>(), 24),
        ) {
            // Near each other, so that some lie within others.
            let near = |bits: u32, six: bool| -> IpAddr {
                let four = Ipv4Addr::from(bits & 0x0f0f_00ff);
                if six { IpAddr::V6(four.to_ipv6_compatible()) } else { IpAddr::V4(four) }
            };
            let nets: Vec<IpNet> = nets
                .into_iter()
                .map(|(bits, prefix, six)| {
                    IpNet::new(near(bits, six), prefix + if six { 96 } else { 0 }).unwrap().trunc()
                })
                .collect();
            let set = Networks::new(nets.clone());
            for probe in probes {
                for address in [near(probe, false), near(probe, true)] {
                    let naive = nets.iter().any(|net| net.contains(&address));
                    prop_assert_eq!(set.contains(address), naive, "{} in {:?}", address, nets);
                }
            }
        }
    }
}
