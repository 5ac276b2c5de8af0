//! What `status` says of certificates.

use serde::{Deserialize, Serialize};

/// One host's certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateShown {
    /// The host.
    pub host: String,
    /// `file`, `acme` or `throw-away`.
    pub from: String,
    /// Unix milliseconds of its end.
    pub not_after: u64,
    /// Whole days to it; below 0 when it is over.
    pub days_left: i64,
    /// An authority is asked for this host.
    pub wanted: bool,
    /// What went wrong when the authority was asked last.
    pub problem: Option<String>,
    /// Unix milliseconds of the next time that it is asked; `None`: that is under way, or it never is.
    pub next: Option<u64>,
    /// So little is left that something must be wrong.
    pub soon: bool,
}
