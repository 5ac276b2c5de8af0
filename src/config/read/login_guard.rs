//! `[site.login_guard]`.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Table;
use crate::config::defaults;
use crate::config::settings::LoginGuard;
use crate::config::values::{ValueError, parse_duration};

/// Longest time that is counted over, and longest lockout.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads the section.
pub(super) fn login_guard(mut table: Table<'_>) -> LoginGuard {
    let default = defaults::login_guard();
    let mut failures = |key, default| table.number(key).and_then(NonZeroU32::new).unwrap_or(default);
    let (pair, client, account) = (
        failures("failures", default.failures),
        failures("client_failures", default.client_failures),
        failures("account_failures", default.account_failures),
    );
    let guard = LoginGuard {
        failures: pair,
        client_failures: client,
        account_failures: account,
        per: table.parse("per", length).unwrap_or(default.per),
        lockout_first: table.parse("lockout_first", length).unwrap_or(default.lockout_first),
        lockout_most: table.parse("lockout_most", length).unwrap_or(default.lockout_most),
        never_lock: table.list("never_lock", name).unwrap_or_default(),
        devices: table.flag("devices").unwrap_or(default.devices),
    };
    let most = table.get("lockout_most").or_else(|| table.get("lockout_first"));
    if let Some(value) = most.filter(|_| guard.lockout_most < guard.lockout_first) {
        value.wrong(ValueError {
            message: "the longest lockout is shorter than the first".into(),
            help: "write e.g. lockout_first = \"30s\" and lockout_most = \"1h\"".into(),
        });
    }
    table.finish();
    guard
}

/// From a second to a day.
fn length(text: &str) -> Result<Duration, ValueError> {
    let length = parse_duration(text)?;
    if (Duration::from_secs(1)..=LONGEST).contains(&length) {
        return Ok(length);
    }
    let help = "write from \"1s\" to \"24h\"";
    Err(ValueError { message: format!("`{text}` is too short or too long"), help: help.into() })
}

fn name(text: &str) -> Result<Box<str>, ValueError> {
    if !text.trim().is_empty() {
        return Ok(text.into());
    }
    let help = "write the name as it is typed at the login";
    Err(ValueError { message: "an account without a name".into(), help: help.into() })
}
