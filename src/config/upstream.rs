//! Where requests go: an address, and what is spoken there.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

/// An upstream. Several of one application are a [`super::cluster::Cluster`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub speaks: Speaks,
}

/// Where an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A TCP port.
    Tcp {
        /// Host name or address.
        host: Arc<str>,
        /// Port.
        port: u16,
    },
    /// A Unix socket, absolute.
    Unix(Arc<Path>),
}

/// What an upstream speaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// HTTP/1.1 in the clear.
    Http,
    /// HTTP/2 in the clear, known beforehand.
    H2c,
    /// TLS: HTTP/1.1 inside, and HTTP/2 for gRPC.
    Https(Arc<UpstreamTls>),
}

/// How an upstream is believed, and what it is shown. Equal when all of it is, files included: a connection made with
/// other files is never used.
#[derive(Debug, Clone)]
pub struct UpstreamTls {
    /// The name in the handshake, which its certificate must have.
    pub name: ServerName<'static>,
    /// Roots and client certificate.
    pub config: Arc<ClientConfig>,
    /// SHA-256 over roots, client certificate and key.
    pub fingerprint: [u8; 32],
}

impl Upstream {
    /// Another port of the same host; a socket file has none.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        match &self.address {
            Address::Tcp { host, .. } => {
                Self { address: Address::Tcp { host: Arc::clone(host), port }, speaks: self.speaks.clone() }
            }
            Address::Unix(_) => self.clone(),
        }
    }
}

impl UpstreamTls {
    fn identity(&self) -> (&ServerName<'static>, &[u8; 32]) {
        (&self.name, &self.fingerprint)
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for UpstreamTls {}

impl Hash for UpstreamTls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// As a passthrough's config writes it: without a scheme.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// As the config writes it.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.speaks {
            Speaks::Http => "http",
            Speaks::H2c => "h2c",
            Speaks::Https(_) => "https",
        };
        match &self.address {
            Address::Unix(_) => write!(f, "{}", self.address),
            Address::Tcp { .. } => write!(f, "{scheme}://{}", self.address),
        }
    }
}
