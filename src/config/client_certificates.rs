//! `[site.client_certificates]`: who must show a certificate in the TLS handshake.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;

/// The rules of a site.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// Without a certificate there is no handshake; else one that is shown must be good.
    pub required: bool,
    /// The CAs, absolute.
    pub ca_file: PathBuf,
    /// Their lists of revoked certificates, absolute.
    pub crl_file: Option<PathBuf>,
    /// Names of which a certificate must have one; empty: any.
    pub allowed: Vec<Box<str>>,
    /// The subjects of the CAs, for people.
    pub authorities: Vec<String>,
    /// The CAs and lists, each with its end.
    pub papers: Vec<Paper>,
    /// Verifies what is shown.
    pub verifier: Arc<dyn ClientCertVerifier>,
    /// Digest of mode, CAs and revocations: what a handshake was made under.
    pub id: [u8; 32],
}

/// A CA or a list of revoked certificates, which is to be renewed in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paper {
    /// What is to be said after its end.
    pub past: String,
    /// What to do then.
    pub help: &'static str,
    /// Unix seconds.
    pub ends: i64,
}
