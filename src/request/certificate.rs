//! A client's certificate, verified in the TLS handshake: who it says the client is, in the words that the application
//! gets. Everything here was signed by a CA that the config names; it is escaped all the same.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::config::values::HostPattern;

/// Which rules for client certificates a handshake was made under: a digest of mode, CAs and revocations.
pub type PolicyId = [u8; 32];

/// What stands in a field as `%XX`: what no field may hold, and the sign itself.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
/// Among names the comma divides.
const ESCAPED_NAME: &AsciiSet = &ESCAPED.add(b',').add(b' ');

/// What a handshake under rules for client certificates has come to.
#[derive(Debug)]
pub struct Certified {
    /// The rules.
    pub policy: PolicyId,
    /// The certificate, if one was shown.
    pub shown: Option<Certificate>,
}

/// A verified certificate.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// What the log calls it: its common name, else its first alternative name, else `-`.
    pub name: Rc<str>,
    common: Option<Box<str>>,
    alternatives: Vec<(&'static str, Box<str>)>,
    /// `Client-Cert` (RFC 9440).
    pub cert: HeaderValue,
    /// The subject as RFC 4514 writes it, percent-encoded where it is not plain ASCII.
    pub subject: HeaderValue,
    /// The alternative names: `DNS:a.example, email:me@a.example`.
    pub names: HeaderValue,
}

impl Certificate {
    /// Reads a certificate in DER. `None`: it cannot be read, and then proves nothing.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut commons = certificate.subject().iter_common_name().map(AttributeTypeAndValue::as_str);
        // With two of them nobody could say which one counts.
        let common: Option<Box<str>> = match (commons.next(), commons.next()) {
            (Some(Ok(common)), None) => Some(common.into()),
            _ => None,
        };
        let alternatives = alternatives(&certificate);
        let mut names = String::new();
        for (kind, name) in &alternatives {
            let gap = if names.is_empty() { "" } else { ", " };
            let _ = write!(names, "{gap}{kind}:{}", utf8_percent_encode(name, ESCAPED_NAME));
        }
        let subject = utf8_percent_encode(&subject(certificate.subject()), ESCAPED).to_string();
        let first = alternatives.first().map(|(_, name)| &**name);
        Some(Self {
            name: common.as_deref().or(first).unwrap_or("-").into(),
            common,
            alternatives,
            cert: HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok()?,
            subject: HeaderValue::try_from(subject).ok()?,
            names: HeaderValue::try_from(names).ok()?,
        })
    }

    /// Whether one of these names is its own: the common name, a DNS name, an address of mail, a URI or an IP address.
    /// `*.example.com` is any DNS name one label below.
    pub fn is_one_of(&self, allowed: &[Box<str>]) -> bool {
        allowed.iter().any(|name| self.is(name))
    }

    fn is(&self, wanted: &str) -> bool {
        if wanted.starts_with("*.") {
            let Ok(pattern) = wanted.parse::<HostPattern>() else { return false };
            let dns = self.alternatives.iter().filter(|(kind, _)| *kind == "DNS");
            return dns.into_iter().any(|(_, name)| pattern.matches(&name.to_ascii_lowercase()));
        }
        let named = self.alternatives.iter().any(|(kind, name)| match *kind {
            "URI" => **name == *wanted,
            _ => name.eq_ignore_ascii_case(wanted),
        });
        named || self.common.as_ref().is_some_and(|common| common.eq_ignore_ascii_case(wanted))
    }
}

fn alternatives(certificate: &X509Certificate<'_>) -> Vec<(&'static str, Box<str>)> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let named = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(("DNS", (*name).into())),
        GeneralName::RFC822Name(name) => Some(("email", (*name).into())),
        GeneralName::URI(name) => Some(("URI", (*name).into())),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| ("IP", address.to_string().into())),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(named).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// RFC 4514: the last part first, and what divides parts is escaped, so that no value looks like two.
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (place, attribute) in part.iter().enumerate() {
            if place > 0 {
                text.push('+');
            } else if !text.is_empty() {
                text.push(',');
            }
            match x509_parser::objects::oid2abbrev(
                attribute.attr_type(),
                x509_parser::objects::oid_registry(),
            ) {
                Ok(word) => text.push_str(word),
                Err(_) => text.push_str(&attribute.attr_type().to_id_string()),
            }
            text.push('=');
            match attribute.as_str() {
                Ok(value) => escape(value, &mut text),
                Err(_) => {
                    text.push('#');
                    for byte in attribute.as_slice() {
                        let _ = write!(text, "{byte:02x}");
                    }
                }
            }
        }
    }
    text
}

fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (place, letter) in value.chars().enumerate() {
        let edge = (place == 0 && matches!(letter, ' ' | '#')) || (place == last && letter == ' ');
        if edge || matches!(letter, '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=') {
            text.push('\\');
        }
        text.push(letter);
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn read(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::read(made.der()).unwrap()
    }

    #[test]
    fn no_value_of_a_certificate_looks_like_another_part_or_field() {
        let made = read(|params| {
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::CommonName, "ops, O=admin\r\nX: 1 %41 ä");
            params.subject_alt_names.push(SanType::URI("spiffe://a/b,DNS:root".try_into().unwrap()));
            params.subject_alt_names.push(SanType::DnsName("Agent.example".try_into().unwrap()));
        });
        assert_eq!(made.subject, "CN=ops\\, O\\=admin%0D%0AX: 1 %2541 %C3%A4,C=DE");
        assert_eq!(made.names, "URI:spiffe://a/b%2CDNS:root, DNS:Agent.example");
        assert!(made.cert.to_str().unwrap().starts_with(":MII"));
    }

    #[test]
    fn only_its_own_names_are_its_names() {
        let made = read(|params| {
            params.distinguished_name.push(DnType::CommonName, "Agent-1");
            params.subject_alt_names.push(SanType::DnsName("one.Agents.example".try_into().unwrap()));
            params.subject_alt_names.push(SanType::Rfc822Name("me@example".try_into().unwrap()));
            params.subject_alt_names.push(SanType::IpAddress([192, 0, 2, 1].into()));
        });
        for (name, own) in [
            ("agent-1", true),
            ("agent-2", false),
            ("one.agents.example", true),
            ("*.agents.example", true),
            ("*.example", false),
            ("agents.example", false),
            ("me@example", true),
            ("192.0.2.1", true),
            ("", false),
            ("-", false),
        ] {
            assert_eq!(made.is_one_of(&[name.into()]), own, "{name}");
        }
        assert!(!made.is_one_of(&[]));
        assert_eq!(&*made.name, "Agent-1");
        assert!(Certificate::read(b"nonsense").is_none());
    }
}
