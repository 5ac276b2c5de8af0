//! Leaf types that parse themselves: behind this module there is no string left to interpret.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

pub use super::networks::{Networks, parse_network};

/// A number of bytes: `32KiB`, `1MiB`, `10GiB`, `512` (bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A token bucket: `burst` at once, refilled at one per `refill` (GCRA).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Time in which one request comes back.
    pub refill: Duration,
    /// Most requests at once.
    pub burst: NonZeroU32,
}

/// A host name of a site: exact, or `*.example.com` for exactly one label in front.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    wildcard: bool,
    /// Lower case, without the `*.` and without a trailing dot.
    name: Box<str>,
}

/// A problem in one value: what is wrong and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// What is wrong, e.g. `"5 per minute" is no rate`.
    pub message: String,
    /// What would be right, e.g. `write a number and a unit: "20/min"`.
    pub help: String,
}

impl ValueError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.help)
    }
}

// === impl ByteSize ===

impl FromStr for ByteSize {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || {
            ValueError::new(
                format!("`{text}` is no size"),
                "write a whole number and KiB, MiB or GiB, e.g. \"32KiB\"",
            )
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let factor = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.into_iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

// === impl Rate ===

/// Parses the long-run part of a rate, `20/min`, into the time in which one comes back.
///
/// # Errors
/// When it is not a whole number from 1 and one of `/s`, `/min`, `/h`, `/day`.
pub fn parse_refill(text: &str) -> Result<Duration, ValueError> {
    let wrong = || {
        ValueError::new(
            format!("`{text}` is no rate"),
            "write a whole number, a slash and s, min, h or day, e.g. \"20/min\"",
        )
    };
    let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
    let count: u32 = count.trim().parse().map_err(|_| wrong())?;
    let unit = match unit.trim() {
        "s" | "sec" => Duration::from_secs(1),
        "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "day" => Duration::from_secs(86_400),
        _ => return Err(wrong()),
    };
    unit.checked_div(count).filter(|each| !each.is_zero()).ok_or_else(wrong)
}

/// Parses a length of time: `250ms`, `10s`, `15m`, `168h`, `30d`.
///
/// # Errors
/// When it is not a whole number and one of these units.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let wrong = || {
        ValueError::new(
            format!("`{text}` is no length of time"),
            "write a whole number and ms, s, m, h or d, e.g. \"10s\"",
        )
    };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

/// Parses an address to listen on: `[::]:443`, `127.0.0.1:9180`.
///
/// # Errors
/// When address or port is missing.
pub fn parse_socket(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| {
        ValueError::new(
            format!("`{text}` is no address with a port"),
            "write e.g. \"[::]:443\" for every address or \"127.0.0.1:8443\" for one",
        )
    })
}

// === impl HostPattern ===

impl HostPattern {
    /// Whether a host (lower case, no port, no trailing dot) is meant.
    pub fn matches(&self, host: &str) -> bool {
        if !self.wildcard {
            return host == &*self.name;
        }
        host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == &*self.name)
    }

    /// The name without `*.`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `*.name`: any one label in front.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }
}

impl FromStr for HostPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = |why: &str| {
            ValueError::new(
                format!("`{text}` is no host name: {why}"),
                "write the bare name, e.g. \"files.example.com\" or \"*.example.com\"",
            )
        };
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (wildcard, name) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        if name.is_empty() || name.len() > 253 {
            return Err(wrong("empty or longer than 253 characters"));
        }
        if name.contains("://") || name.contains('/') {
            return Err(wrong("no scheme and no path"));
        }
        let address = name.parse::<IpAddr>().is_ok();
        if wildcard && (address || !name.contains('.')) {
            return Err(wrong("behind `*.` a domain of one's own must stand"));
        }
        if !address {
            if name.contains(':') {
                return Err(wrong("no port; `listen.public_port` says it"));
            }
            let good = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            };
            if !name.split('.').all(good) {
                return Err(wrong("a label is empty, too long, or has a character that names do not have"));
            }
        }
        Ok(Self { wildcard, name: name.into() })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.wildcard { "*." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("512", 512), ("1B", 1), ("32KiB", 32 << 10), ("1 MiB", 1 << 20), ("10GiB", 10 << 30)]
        {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.to_string().parse(), Ok(size), "{size}");
        }
        for text in ["", "KiB", "1KB", "1.5MiB", "-1", "99999999TiB", "99999999999999999999"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn refills_are_the_time_for_one() {
        for (text, millis) in
            [("1/s", 1000), ("20/min", 3000), ("300/min", 200), ("1/h", 3_600_000), ("2/day", 43_200_000)]
        {
            assert_eq!(parse_refill(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "20", "0/s", "-1/s", "1/week", "1.5/s", "/s", "5 per minute"] {
            assert!(parse_refill(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_want_a_unit() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("15m", 900_000), ("168h", 604_800_000), ("30d", 2_592_000_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1.5h", "-1s", "1y", "99999999999999999999s", "999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_are_exact_and_mapped_ones_are_ipv4() {
        let inside = |net: &str, address: &str| {
            Networks::new([parse_network(net).unwrap()]).contains(address.parse().unwrap())
        };
        for (net, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("::/0", "10.0.0.1", false),
        ] {
            assert_eq!(inside(net, address), expected, "{address} in {net}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "a", "10.0.0.0/8 ", "::ffff:10.0.0.1/104"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
        assert!(!Networks::default().contains("127.0.0.1".parse().unwrap()), "an empty set holds nobody");
    }

    #[test]
    fn hosts_match_whole_names_and_one_label() {
        for (pattern, host, expected) in [
            ("a.example", "a.example", true),
            ("A.Example.", "a.example", true),
            ("a.example", "b.a.example", false),
            ("*.a.example", "b.a.example", true),
            ("*.a.example", "a.example", false),
            ("*.a.example", "c.b.a.example", false),
            ("*.a.example", ".a.example", false),
            ("localhost", "localhost", true),
            ("192.0.2.1", "192.0.2.1", true),
        ] {
            assert_eq!(
                pattern.parse::<HostPattern>().unwrap().matches(host),
                expected,
                "{host} for {pattern}"
            );
        }
        for text in [
            "",
            ".",
            "*",
            "*.",
            "*.com",
            "*.192.0.2.1",
            "a:80",
            "http://a",
            "a/b",
            "a..b",
            "-a",
            "a b",
            "ä.example",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn sockets_want_a_port() {
        assert!(parse_socket("[::]:443").is_ok());
        for text in ["", ":443", "443", "localhost:443", "1.2.3.4", "[::]"] {
            assert!(parse_socket(text).is_err(), "{text}");
        }
    }
}
