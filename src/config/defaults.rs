//! Every default of the config, with its reason. `config/portcullis.toml` shows the same values; a test compares.

use std::num::NonZeroU32;
use std::time::Duration;

use super::class::Class;
use super::settings::LoginGuard;
use super::values::{ByteSize, Rate};

/// The policy of everything on a download host.
pub const DOWNLOAD_CSP: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// Dual stack, the port that browsers try.
pub const HTTPS: &[&str] = &["[::]:443"];
/// Only redirects and ACME are served there.
pub const HTTP: &[&str] = &["[::]:80"];
/// The port that browsers do not write.
pub const PUBLIC_PORT: u16 = 443;
/// Where systemd's `RuntimeDirectory` puts it.
pub const ADMIN_SOCKET: &str = "/run/portcullis/admin.sock";
/// Loopback: numbers about traffic are nobody else's business.
pub const ADMIN_METRICS: &str = "127.0.0.1:9180";
/// As narrow as its listener.
pub const METRICS_ONLY_FROM: &[&str] = &["127.0.0.1/32", "::1/128"];
/// Where systemd's `StateDirectory` puts it.
pub const STATE_DIR: &str = "/var/lib/portcullis";
/// About 400 MiB when every connection is a TLS one with buffers in use; a small server holds it.
pub const CONNECTIONS: usize = 20_000;
/// A household or an office behind one address stays below; a flood from one does not take all.
pub const CONNECTIONS_PER_CLIENT: usize = 200;
/// Four times what browsers send with many cookies.
pub const REQUEST_HEAD: ByteSize = ByteSize(32 << 10);
/// JSON of the applications served is far smaller; an application may buffer it whole.
pub const BODY: ByteSize = ByteSize(1 << 20);
/// A name and a password; it is held in memory while it is judged.
pub const LOGIN_BODY: ByteSize = ByteSize(16 << 10);
/// Empty for cookies; a JWT otherwise.
pub const REFRESH_BODY: ByteSize = ByteSize(16 << 10);
/// A video or a disk image; streamed, so it costs no memory here.
pub const UPLOAD_BODY: ByteSize = ByteSize(10 << 30);
/// A slow phone on a bad line needs 3 s for handshake and head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the minute at which clients poll, so that they keep their connection.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// 13 kbit/s: below the worst mobile line, above a client that only wants to hold a place.
pub const MIN_RATE_BYTES: ByteSize = ByteSize(16 << 10);
/// Long enough for a hole in radio reception.
pub const MIN_RATE_PER: Duration = Duration::from_secs(10);
/// Below the 90 s after which systemd kills.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Some 40 MiB of limiter state, once so many clients have come.
pub const LIMITER_KEYS: usize = 1_000_000;
/// One year: what HSTS preload lists and scanners ask for.
pub const HSTS: &str = "max-age=31536000";
/// What an answer without scripts, frames and forms needs: nothing.
pub const CSP: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";
/// The application of a site that names none.
pub const APP: &str = "generic";
/// Where ACME certificates come from.
pub const ACME_DIRECTORY: &str = "letsencrypt";
/// Until a record is seen everywhere: some providers need more than a minute.
pub const ACME_DNS_TIMEOUT: Duration = Duration::from_secs(180);
/// Access tokens of an application that says nothing: Keepstack's week, the longest known; blocks last at least it.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(168 * 3600);

/// A person mistypes a link a few times; whoever guesses needs more tries than there are years.
pub const SHARE_MISSES: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
/// Some offices share a network, and each of them has its own dead links.
pub const SHARE_NETWORK_MISSES: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
/// One miss in three seconds for ever is no person.
pub const SHARE_MISSES_PER: Duration = Duration::from_secs(60);
/// Short enough for a person to wait for.
pub const SHARE_LOCKOUT: Duration = Duration::from_secs(30);
/// Long enough that guessing on is one try an hour.
pub const SHARE_LONGEST_LOCKOUT: Duration = Duration::from_secs(3600);

/// A tunnel of TLS may be as quiet as an agent that waits for work; who pings more often keeps it for ever.
pub const PASSTHROUGH_IDLE: Duration = Duration::from_secs(3600);

/// The rate of a class that neither site nor app file names; `None`: not limited.
pub fn rate(class: Class) -> Option<Rate> {
    let (per_minute, burst) = match class {
        // A person mistypes a few times; a list of passwords needs thousands of tries.
        Class::Login => (20, 10),
        // Codes and secrets are guessed there, machines come one by one.
        Class::Setup | Class::Enroll => (10, 5),
        // One for each page load of each tab.
        Class::Oidc | Class::Refresh => (30, 10),
        // A shared album: a page with some hundred pictures at once.
        Class::Share | Class::ShareDownload => (300, 100),
        _ => return None,
    };
    let refill = Duration::from_secs(60).checked_div(per_minute)?;
    Some(Rate { refill, burst: NonZeroU32::new(burst)? })
}

/// What counts wrong passwords.
pub fn login_guard() -> LoginGuard {
    let failures = |count: u32| NonZeroU32::MIN.saturating_add(count - 1);
    LoginGuard {
        // A person mistypes, tries the old password, and the one of another service.
        failures: failures(5),
        // An office behind one address has several such people.
        client_failures: failures(20),
        account_failures: failures(20),
        per: Duration::from_secs(15 * 60),
        lockout_first: Duration::from_secs(30),
        lockout_most: Duration::from_secs(3600),
        never_lock: Vec::new(),
        devices: true,
    }
}
