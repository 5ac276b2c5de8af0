//! The PROXY protocol of HAProxy, versions 1 and 2: who a connection was before a balancer took it. Read from trusted
//! proxies only; a pure function of bytes that says the same wherever they are cut.
//!
//! Source: HAProxy's `doc/proxy-protocol.txt`. What a sender must not write is refused, not repaired.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is taken: 107 bytes of version 1, 536 of version 2, which is what one segment always holds.
pub const LONGEST: usize = 536;
const LONGEST_V1: usize = 107;

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// `PP2_TYPE_CRC32C`.
const CRC32C: u8 = 3;

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// This client's.
    Client(SocketAddr),
    /// The proxy's own, e.g. a health check (`LOCAL`).
    Own,
    /// Somebody's whom the proxy cannot name: `UNKNOWN`, or a client of a Unix socket.
    Nobody,
}

/// Why a header is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It does not begin like one.
    Missing,
    /// It begins like one and breaks the rules, or is too long.
    Malformed,
}

/// Reads a header from the front of what has come: whose the connection is and how long the header was, or `None` as long
/// as more must come.
///
/// # Errors
/// As soon as it can be no header.
pub fn decode(bytes: &[u8]) -> Result<Option<(Named, usize)>, Broken> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    if begins(V2) {
        return decode_v2(bytes);
    }
    if begins(V1) {
        return decode_v1(bytes);
    }
    Err(Broken::Missing)
}

fn decode_v1(bytes: &[u8]) -> Result<Option<(Named, usize)>, Broken> {
    let seen = bytes.get(..LONGEST_V1).unwrap_or(bytes);
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        let printable = seen
            .iter()
            .enumerate()
            .all(|(at, byte)| matches!(byte, b' '..=b'~') || (*byte == b'\r' && at + 1 == seen.len()));
        return if printable && seen.len() < LONGEST_V1 { Ok(None) } else { Err(Broken::Malformed) };
    };
    let line = seen.get(V1.len()..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Broken::Malformed)?;
    if !line.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Broken::Malformed);
    }
    let line = std::str::from_utf8(line).map_err(|_| Broken::Malformed)?;
    let named = named_by_words(line).ok_or(Broken::Malformed)?;
    Ok(Some((named, end + 1)))
}

fn named_by_words(line: &str) -> Option<Named> {
    let mut words = line.split(' ');
    let source: IpAddr = match words.next()? {
        // What else stands there must be ignored.
        "UNKNOWN" => return Some(Named::Nobody),
        "TCP4" => addresses::<Ipv4Addr>(&mut words)?.into(),
        "TCP6" => addresses::<Ipv6Addr>(&mut words)?.into(),
        _ => return None,
    };
    let (from, _to) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| client(source, from))
}

/// The first of two.
fn addresses<'w, A: std::str::FromStr>(words: &mut impl Iterator<Item = &'w str>) -> Option<A> {
    let source = words.next()?.parse().ok()?;
    words.next()?.parse::<A>().ok()?;
    Some(source)
}

fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

fn client(address: IpAddr, port: u16) -> Named {
    let address = address.to_canonical();
    // Nobody comes from there.
    if address.is_unspecified() || address.is_multicast() {
        return Named::Nobody;
    }
    Named::Client(SocketAddr::new(address, port))
}

fn decode_v2(bytes: &[u8]) -> Result<Option<(Named, usize)>, Broken> {
    let Some(fixed) = bytes.get(V2.len()..V2_FIXED) else { return Ok(None) };
    let [command, family, high, low] = *fixed else { return Err(Broken::Malformed) };
    let whole = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if whole > LONGEST || !matches!(command, 0x20 | 0x21) {
        return Err(Broken::Malformed);
    }
    let Some(header) = bytes.get(..whole) else { return Ok(None) };
    let rest = header.get(V2_FIXED..).unwrap_or_default();
    let (named, length) = match family {
        0x00 => (Named::Nobody, 0),
        0x11 => (source::<4>(rest)?, 12),
        0x21 => (source::<16>(rest)?, 36),
        0x31 => (Named::Nobody, 216),
        // A datagram in a stream, or what the protocol does not know. What is the proxy's own need not say.
        _ if command == 0x20 => return Ok(Some((Named::Own, whole))),
        _ => return Err(Broken::Malformed),
    };
    check_extensions(header, rest.get(length..).ok_or(Broken::Malformed)?)?;
    Ok(Some((if command == 0x20 { Named::Own } else { named }, whole)))
}

/// The source of two addresses of `SIZE` bytes and two ports.
fn source<const SIZE: usize>(rest: &[u8]) -> Result<Named, Broken>
where
    IpAddr: From<[u8; SIZE]>,
{
    let address = rest.first_chunk::<SIZE>().ok_or(Broken::Malformed)?;
    let port = rest.get(2 * SIZE..).and_then(<[u8]>::first_chunk::<2>).ok_or(Broken::Malformed)?;
    Ok(client(IpAddr::from(*address), u16::from_be_bytes(*port)))
}

/// Extensions are passed over, but each must end within the header, and a checksum must be right.
fn check_extensions(header: &[u8], mut rest: &[u8]) -> Result<(), Broken> {
    let mut summed = false;
    while !rest.is_empty() {
        let at = header.len() - rest.len();
        let [kind, high, low, ..] = *rest else { return Err(Broken::Malformed) };
        let end = 3 + usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(3..end).ok_or(Broken::Malformed)?;
        if kind == CRC32C {
            if summed || *value != checksum(header, at + 3).to_be_bytes() {
                return Err(Broken::Malformed);
            }
            summed = true;
        }
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(())
}

/// CRC-32C (RFC 9260, appendix A) of the header with the four bytes of the sum itself as zeros.
fn checksum(header: &[u8], sum: usize) -> u32 {
    let blanked =
        header.iter().enumerate().map(|(at, byte)| if (sum..sum + 4).contains(&at) { 0 } else { *byte });
    !blanked.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg()))
    })
}

/// The header of version 2 for a connection from `client` to `to`.
pub fn encode(client: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut header = [V2, &[0x21]].concat();
    match (client.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend([0x11, 0, 12]);
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            header.extend([0x21, 0, 36]);
            header.extend(six(from).octets());
            header.extend(six(to).octets());
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(to.port().to_be_bytes());
    header
}

fn six(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(four) => four.to_ipv6_mapped(),
        IpAddr::V6(six) => six,
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
