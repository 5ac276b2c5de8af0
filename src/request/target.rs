//! The host that a request is for.
//!
//! HTTP/1.1 heads come here with their framing checked: exactly one Host, equal to an absolute target's authority. HTTP/2
//! brings `:authority`, `Host`, or both, which must then agree.

use http::request::Parts;

use super::facts::Malformed;

/// A host: lower case, without port and trailing dot; IPv6 without brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host(Box<str>);

impl Host {
    /// The host of a request head.
    ///
    /// # Errors
    /// [`Malformed::Host`] when there is none, several, or none that can be a host.
    pub fn read(head: &Parts) -> Result<Self, Malformed> {
        let mut fields = head.headers.get_all(http::header::HOST).iter();
        let field = fields.next().map(|value| value.to_str().map_err(|_| Malformed::Host)).transpose()?;
        if fields.next().is_some() {
            return Err(Malformed::Host);
        }
        match (head.uri.authority(), field) {
            (Some(authority), Some(field)) if !authority.as_str().eq_ignore_ascii_case(field) => {
                Err(Malformed::Host)
            }
            (Some(authority), _) => Self::parse(authority.as_str()),
            (None, Some(field)) => Self::parse(field),
            (None, None) => Err(Malformed::Host),
        }
    }

    /// Parses `name`, `name:port`, `1.2.3.4:port` or `[v6]:port`.
    ///
    /// # Errors
    /// [`Malformed::Host`] for user-info, a port that is none, an empty name, or characters that hosts do not have.
    pub fn parse(authority: &str) -> Result<Self, Malformed> {
        let (name, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (name, after) = rest.split_once(']').ok_or(Malformed::Host)?;
                name.parse::<std::net::Ipv6Addr>().map_err(|_| Malformed::Host)?;
                match after.strip_prefix(':') {
                    Some(port) => (name, Some(port)),
                    None if after.is_empty() => (name, None),
                    None => return Err(Malformed::Host),
                }
            }
            None => match authority.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (authority, None),
            },
        };
        let port_fine = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        let name = name.strip_suffix('.').unwrap_or(name);
        let name_fine = !name.is_empty()
            && name.len() <= 253
            && !name.ends_with('.')
            && !name.contains("..")
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':'));
        if !port_fine || !name_fine {
            return Err(Malformed::Host);
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An address rather than a name.
    pub fn is_address(&self) -> bool {
        self.0.parse::<std::net::IpAddr>().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_port_case_and_trailing_dot() {
        for (authority, host) in [
            ("Files.Example.com", "files.example.com"),
            ("files.example.com:8443", "files.example.com"),
            ("files.example.com.", "files.example.com"),
            ("192.0.2.1:80", "192.0.2.1"),
            ("[::1]:443", "::1"),
        ] {
            assert_eq!(Host::parse(authority).unwrap().as_str(), host);
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for authority in [
            "", ":80", "a:0", "a:99999", "a:+1", "a:", "u@a", "a b", "a/b", "[::1", "[x]:1", "[::1]x", "a..",
            "ä",
        ] {
            assert!(Host::parse(authority).is_err(), "{authority}");
        }
    }
}
