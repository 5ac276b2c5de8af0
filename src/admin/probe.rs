//! What goes over the admin socket about `block --verify`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::api::Refusal;
use crate::stores::blocks::What;

/// The body of `POST /v1/probe`. Not to be printed: a token may be in it, and is wiped when this is dropped.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeOrder {
    /// What is blocked.
    pub what: What,
    /// Where it is blocked; `None`: on all sites, and each is probed.
    #[serde(default)]
    pub site: Option<String>,
    /// The blocked token itself, where it is known.
    #[serde(default)]
    pub token: Option<String>,
}

impl Drop for ProbeOrder {
    fn drop(&mut self) {
        self.token.zeroize();
    }
}

/// The answer to `POST /v1/probe`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Probed {
    /// Of this form.
    pub schema: u64,
    /// One for each site.
    pub probes: Vec<Probe>,
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The site.
    pub site: String,
    /// Where it connected to.
    pub through: String,
    /// What it came with: `token`, or the kind of block whose guise the gateway gave it.
    pub with: String,
    /// A guard has refused it.
    pub refused: bool,
    /// The answer's status; `None`: there was no answer.
    pub status: Option<u16>,
    /// Which guard refused it.
    pub guard: Option<String>,
    /// Why, in one word of the closed list.
    pub reason: Option<String>,
    /// Microseconds from the begin of the connection to the head of the answer.
    pub took_us: u64,
    /// Why there is no proof.
    pub failure: Option<String>,
}

/// Answers `POST /v1/probe`.
pub type Prober =
    Arc<dyn Fn(ProbeOrder) -> Pin<Box<dyn Future<Output = Result<Probed, Refusal>> + Send>> + Send + Sync>;
