//! What the login guard forgives, as `check` shows it.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::span;
use crate::config::settings::Site;

/// For people.
pub(super) fn write(site: &Site, out: &mut dyn Write) -> io::Result<()> {
    let guard = &site.login_guard;
    let (pair, client, account) = (guard.failures, guard.client_failures, guard.account_failures);
    let per = span(guard.per);
    match names_accounts(site) {
        true => writeln!(
            out,
            "  logins      {pair} failures in {per} of a client at an account, {client} of a client, {account} at an account"
        )?,
        false => writeln!(
            out,
            "  logins      {pair} failures in {per} of a client, {client} where nobody can tell"
        )?,
    }
    let (first, most) = (span(guard.lockout_first), span(guard.lockout_most));
    let known = if knows_devices(site) { "devices are known by a cookie" } else { "no device cookies" };
    writeln!(out, "              then locked out for {first}, up to {most}; {known}")?;
    if !guard.never_lock.is_empty() {
        writeln!(out, "              never locked over all clients: {}", guard.never_lock.join(", "))?;
    }
    if !names_accounts(site) {
        let why = match site.app.login {
            Some(_) => "the app file's [login] names no account",
            None => "the app file has no [login], so that what an answer meant is told by its looks",
        };
        writeln!(out, "              by client only, but for Basic credentials: {why}")?;
    }
    let login = site.app.login.as_ref();
    if let Some(defaults) = login.map(|login| &login.default_passwords).filter(|pairs| !pairs.is_empty()) {
        let names: Vec<&str> = defaults.iter().map(|(account, _)| &**account).collect();
        writeln!(out, "              default passwords refused from outside: {}", names.join(", "))?;
    }
    writeln!(out)
}

fn names_accounts(site: &Site) -> bool {
    site.app.login.as_ref().is_some_and(|login| login.account.is_some())
}

/// A device is known for an account.
fn knows_devices(site: &Site) -> bool {
    site.login_guard.devices && names_accounts(site)
}

/// The same for programs.
pub(super) fn json(site: &Site) -> Value {
    let guard = &site.login_guard;
    json!({
        "by_account": names_accounts(site),
        "failures": guard.failures,
        "client_failures": guard.client_failures,
        "account_failures": guard.account_failures,
        "per_seconds": guard.per.as_secs(),
        "lockout_first_seconds": guard.lockout_first.as_secs(),
        "lockout_most_seconds": guard.lockout_most.as_secs(),
        "never_lock": guard.never_lock,
        "devices": knows_devices(site),
    })
}
