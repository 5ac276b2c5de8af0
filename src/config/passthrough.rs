//! `[[passthrough]]`: names whose TLS goes on to somebody else as it came.

use std::time::Duration;

use super::upstream::Address;
use super::values::{HostPattern, Networks};

/// One `[[passthrough]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passthrough {
    /// Names; the first one is its name in metrics, logs and blocks.
    pub hosts: Vec<HostPattern>,
    /// Who ends its TLS.
    pub upstream: Address,
    /// The upstream is told of the client by a PROXY header, version 2.
    pub proxy_protocol: bool,
    /// Who may reach it; `None`: everybody.
    pub only_from: Option<Networks>,
    /// A connection that is silent both ways for so long is ended.
    pub idle_timeout: Duration,
}

impl Passthrough {
    /// Its name in metrics, logs and blocks: its first host.
    pub fn name(&self) -> String {
        self.hosts.first().map(ToString::to_string).unwrap_or_default()
    }
}
