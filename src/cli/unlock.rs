//! `portcullis unlock`: ends lockouts before their time.

use std::io::Write;

use clap::{Args, Subcommand};
use http::Method;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::admin::unlock::{LockoutShown, UnlockOrder, Unlocked};
use crate::telemetry::audit::plain;

/// End lockouts of the login guard and the share guard now, and forgive the failures that led to them.
#[derive(Debug, Args)]
pub struct UnlockArgs {
    /// Whom.
    #[command(subcommand)]
    pub whom: Whom,
    /// Answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Who is unlocked.
#[derive(Debug, Subcommand)]
pub enum Whom {
    /// A client, at all accounts and share links of all sites; with it its network at share links.
    Client {
        /// Its address, as the access log shows it (IPv6: its /64), or `unknown`.
        address: String,
    },
    /// An account, for all clients, on all sites.
    Account {
        /// Its name, as it is typed at the login.
        name: String,
    },
    /// Everybody.
    All,
}

/// Unlocks.
pub fn run(args: &UnlockArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let order = match &args.whom {
        Whom::Client { address } => UnlockOrder::Client(address.clone()),
        Whom::Account { name } => UnlockOrder::Account(name.clone()),
        Whom::All => UnlockOrder::All,
    };
    let done = gateway
        .ask::<Unlocked>(Method::POST, "/v1/unlock", Some(&order))
        .and_then(|answer| if args.json { print_json(&answer, out) } else { tell(&answer, out) });
    done.map_or_else(|failure| failure.tell(gateway, "unlock", args.json, err), |()| exit::OK)
}

fn tell(answer: &Unlocked, out: &mut dyn Write) -> Result<(), Failure> {
    if answer.unlocked.is_empty() {
        writeln!(out, "NOTHING WAS LOCKED; the failures that were counted are forgiven")?;
        return Ok(());
    }
    for lockout in &answer.unlocked {
        writeln!(out, "UNLOCKED: {}", plain(&phrase(lockout)))?;
    }
    Ok(())
}

fn phrase(lockout: &LockoutShown) -> String {
    let client = lockout.client.as_deref().unwrap_or("everybody");
    let at = lockout.account.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
    format!("{} on {} ({}): {client}{at}", lockout.of, lockout.site, span(lockout.seconds))
}

fn span(seconds: u64) -> String {
    if seconds.is_multiple_of(60) { format!("{} min", seconds / 60) } else { format!("{seconds} s") }
}
