//! `[acme]` after validation: which authority, how it is shown that a host is ours, and which host gets its certificate how.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::values::HostPattern;

/// `[acme]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Contact.
    pub email: Box<str>,
    /// `letsencrypt`, `letsencrypt-staging` or a URL.
    pub directory: Box<str>,
    /// CAs of a private directory's TLS, absolute.
    pub ca_file: Option<PathBuf>,
    /// What that file holds.
    pub ca: Option<Vec<CertificateDer<'static>>>,
    /// One of the authority's profiles, by its name there.
    pub profile: Option<Box<str>>,
    /// How it may be shown that a host is ours, what is tried first first.
    pub challenges: Vec<Challenge>,
    /// What puts records into the DNS: a program and its first arguments.
    pub dns_command: Vec<Box<str>>,
    /// How long one run of it may take.
    pub dns_timeout: Duration,
    /// The account at the authority that ours belongs to.
    pub external_account: Option<ExternalAccount>,
}

/// A way to show that a host is ours (RFC 8555 section 8, RFC 8737).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// A certificate of its own for a handshake that asks for it.
    TlsAlpn01,
    /// An answer on the `http` listener.
    Http01,
    /// A TXT record.
    Dns01,
}

/// External account binding (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key's name at the authority.
    pub kid: Box<str>,
    /// The key, decoded.
    pub key: Zeroizing<Vec<u8>>,
}

/// Where a host has its certificate from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateFrom {
    /// Files of `tls.certificates`; the first that covers it.
    File(PathBuf),
    /// The authority of `[acme]`.
    Acme,
    /// Our own throw-away CA.
    OwnCa,
    /// No TLS is served.
    Nowhere,
}

impl Challenge {
    /// All, the least demanding first.
    pub const ALL: [Self; 3] = [Self::TlsAlpn01, Self::Http01, Self::Dns01];

    /// Its name in the config and at the authority.
    pub const fn word(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
        }
    }
}

impl Acme {
    /// The directory's address.
    pub fn url(&self) -> &str {
        match &*self.directory {
            "letsencrypt" => "https://acme-v02.api.letsencrypt.org/directory",
            "letsencrypt-staging" => "https://acme-staging-v02.api.letsencrypt.org/directory",
            url => url,
        }
    }

    /// How it can be shown that this host is ours, what is tried first first. A wildcard stands in the DNS only.
    pub fn ways(&self, host: &HostPattern) -> Vec<Challenge> {
        let fits = |way: &Challenge| !host.is_wildcard() || *way == Challenge::Dns01;
        self.challenges.iter().copied().filter(fits).collect()
    }
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("kid", &self.kid).finish_non_exhaustive()
    }
}
