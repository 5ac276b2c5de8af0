//! What the login guard forgives, as `check` shows it.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::span;
use crate::config::settings::{LoginGuard, Site};

/// For people.
pub(super) fn write(site: &Site, out: &mut dyn Write) -> io::Result<()> {
    let guard = &site.login_guard;
    let (pair, client, account) = (guard.failures, guard.client_failures, guard.account_failures);
    writeln!(
        out,
        "  logins      {pair} failures in {} of a client at an account, {client} of a client, {account} at an account",
        span(guard.per)
    )?;
    let (first, most) = (span(guard.lockout_first), span(guard.lockout_most));
    let login = site.app.login.as_ref();
    let named = login.is_some_and(|login| login.account.is_some());
    let known = if guard.devices && named { "devices are known by a cookie" } else { "no device cookies" };
    writeln!(out, "              then locked out for {first}, up to {most}; {known}")?;
    if !guard.never_lock.is_empty() {
        writeln!(out, "              never locked over all clients: {}", guard.never_lock.join(", "))?;
    }
    let counted = match login {
        Some(_) if named => None,
        Some(_) => Some("the app file's [login] names no account"),
        None => Some("the app file has no [login], so that what an answer meant is told by its looks"),
    };
    if let Some(why) = counted {
        writeln!(out, "              by client only: {why}")?;
    }
    if let Some(defaults) = login.map(|login| &login.default_passwords).filter(|pairs| !pairs.is_empty()) {
        let names: Vec<&str> = defaults.iter().map(|(account, _)| &**account).collect();
        writeln!(out, "              default passwords refused from outside: {}", names.join(", "))?;
    }
    writeln!(out)
}

/// The same for programs.
pub(super) fn json(guard: &LoginGuard) -> Value {
    json!({
        "failures": guard.failures,
        "client_failures": guard.client_failures,
        "account_failures": guard.account_failures,
        "per_seconds": guard.per.as_secs(),
        "lockout_first_seconds": guard.lockout_first.as_secs(),
        "lockout_most_seconds": guard.lockout_most.as_secs(),
        "never_lock": guard.never_lock,
        "devices": guard.devices,
    })
}
