//! `[site.login_guard]`: how many wrong passwords are forgiven.

use std::num::NonZeroU32;
use std::time::Duration;

/// `[site.login_guard]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginGuard {
    /// Failures of one client at one account, and of a known device.
    pub failures: NonZeroU32,
    /// Failures of one client at all accounts.
    pub client_failures: NonZeroU32,
    /// Failures of all clients at one account.
    pub account_failures: NonZeroU32,
    /// After this time all are forgiven.
    pub per: Duration,
    /// How long the first lockout lasts.
    pub lockout_first: Duration,
    /// Each is twice as long as the one before, up to this.
    pub lockout_most: Duration,
    /// Accounts that are counted and not locked over all clients.
    pub never_lock: Vec<Box<str>>,
    /// Devices on which somebody has logged in are known by a cookie.
    pub devices: bool,
}
