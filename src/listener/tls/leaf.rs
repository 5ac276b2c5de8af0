//! A certificate with its key, read and known to belong together.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use crate::clock::Now;
use crate::config::values::HostPattern;

/// Longer chains are nobody's.
const LONGEST_CHAIN: usize = 10;
/// An authority's clock may be ahead of ours by so many seconds.
const AHEAD: i64 = 300;

/// A chain, its key, for whom it speaks and from when to when.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// What a handshake shows.
    pub key: Arc<CertifiedKey>,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Leaf {
    /// Of a chain, leaf first, and a key.
    ///
    /// # Errors
    /// When the leaf cannot be read, or the key is not its own.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, String> {
        let leaf = chain.first().ok_or("no certificate in it")?;
        let parsed = parse(leaf).ok_or("the first certificate cannot be read")?;
        let (names, addresses, not_before, not_after) = parsed;
        let key = CertifiedKey::from_der(chain, key, &super::provider())
            .map_err(|error| format!("certificate and key do not go together: {error}"))?;
        Ok(Self { key: Arc::new(key), not_before, not_after, names, addresses })
    }

    /// What an authority has given for a host: PEM of a key and a chain. It is believed in nothing.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn given(pem: &str, host: &HostPattern, now: Now) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| "no private key in PEM")?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .take(LONGEST_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| "no certificates in PEM")?;
        if chain.len() > LONGEST_CHAIN {
            return Err(format!("a chain of more than {LONGEST_CHAIN} certificates"));
        }
        let leaf = Self::new(chain, key)?;
        let unix = i64::try_from(now.unix()).unwrap_or(i64::MAX);
        if !leaf.covers(host) {
            return Err(format!("the certificate is not for `{host}`"));
        }
        if leaf.not_after <= unix {
            return Err("the certificate has expired".into());
        }
        if leaf.not_before > unix.saturating_add(AHEAD) {
            return Err("the certificate is not valid yet: look at this machine's clock".into());
        }
        Ok(leaf)
    }

    /// A name of the certificate is the host, or is a wildcard for exactly one label of it.
    pub fn covers(&self, host: &HostPattern) -> bool {
        if let Ok(address) = host.name().parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let host = host.to_string();
        self.names.iter().any(|name| {
            let parent = host.split_once('.').map(|(_, parent)| parent);
            *name == host || (parent.is_some() && name.strip_prefix("*.") == parent)
        })
    }
}

/// Names, addresses, begin and end of a certificate.
type Parsed = (Vec<String>, Vec<IpAddr>, i64, i64);

fn parse(leaf: &CertificateDer<'_>) -> Option<Parsed> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    for name in parsed.subject_alternative_name().ok()?.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.trim_end_matches('.').to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    let validity = parsed.validity();
    Some((names, addresses, validity.not_before.timestamp(), validity.not_after.timestamp()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
