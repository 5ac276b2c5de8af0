//! What a Host field or the authority of an absolute target may be: a name or an address, and perhaps a port.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether this is `name`, `1.2.3.4` or `[::1]`, with or without `:port` from 1 to 65535. No user-info, no zone.
pub fn is_authority(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || is_port(port.strip_prefix(':')));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    is_name(host) && (port.is_none() || is_port(port))
}

fn is_port(port: Option<&str>) -> bool {
    port.is_some_and(|port| {
        (1..=5).contains(&port.len())
            && port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

/// Letters, digits, hyphen, underscore in labels; one dot at the end is allowed. All digits and dots must be an
/// IPv4 address: `127.1` and `2130706433` are read as addresses by some, as names by others.
fn is_name(host: &str) -> bool {
    let plain = host.strip_suffix('.').unwrap_or(host);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let named = plain.len() <= 253
        && plain.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.bytes().all(good));
    let numeric = plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    named && (!numeric || (plain == host && plain.parse::<Ipv4Addr>().is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_ports_are_authorities() {
        for good in [
            "a",
            "A.Example",
            "files.example.com",
            "files.example.com.",
            "a_b.test",
            "xn--bcher-kva.example",
            "localhost:8443",
            "127.0.0.1",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:65535",
            "[::ffff:1.2.3.4]:80",
            "1a.test",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a:",
            "a:0",
            "a:65536",
            "a:080808",
            "a:+80",
            "a:80:80",
            "a:x",
            ":80",
            "user@a",
            "user:pw@a",
            "a/b",
            "a?b",
            "a#b",
            "a,b",
            "a;b",
            "a\\b",
            "a%2eb",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "1.2.3",
            "1.2.3.4.",
            "2130706433",
            "1.2.3.4.5",
            "256.1.1.1",
            "a\t",
            "b\u{fc}cher.example",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
        assert!(!is_authority(b"a\xff"));
    }
}
