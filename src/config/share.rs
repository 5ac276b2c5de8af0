//! What a site forgives those who ask for share links, and what an app file says of an application's links.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;

use super::defaults;
use super::path_pattern::PathPattern;

/// `[site.share_guard]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareRules {
    /// Links that are none, of one client.
    pub misses: NonZeroU32,
    /// The same of its network, an IPv4 /24 or an IPv6 /48.
    pub network_misses: NonZeroU32,
    /// After this time all are forgiven.
    pub per: Duration,
    /// How long who has spent them is locked out at first; each lockout is twice as long as the one before.
    pub lockout_first: Duration,
    /// The longest one.
    pub lockout_most: Duration,
}

impl Default for ShareRules {
    fn default() -> Self {
        Self {
            misses: defaults::SHARE_MISSES,
            network_misses: defaults::SHARE_NETWORK_MISSES,
            per: defaults::SHARE_MISSES_PER,
            lockout_first: defaults::SHARE_LOCKOUT,
            lockout_most: defaults::SHARE_LONGEST_LOCKOUT,
        }
    }
}

/// `[share]` of an app file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppShare {
    /// Statuses by which the application says that there is no such link; all look the same outside.
    pub dead: Vec<StatusCode>,
    /// Routes to which requests for one link go one at a time.
    pub one_at_a_time: Vec<PathPattern>,
    /// The turn ends with the last byte of the answer, not with its head.
    pub until_end: bool,
    /// Each request for a range counts as a download.
    pub ranges_count: bool,
}

impl Default for AppShare {
    fn default() -> Self {
        Self {
            dead: vec![StatusCode::NOT_FOUND, StatusCode::GONE],
            one_at_a_time: Vec::new(),
            until_end: true,
            ranges_count: false,
        }
    }
}
