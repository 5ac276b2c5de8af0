//! `portcullis reload`: waits and says what came of it.

use std::io::Write;

use clap::Args;
use http::Method;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::admin::api::{Reloaded, Summary};
use crate::telemetry::audit::plain;

/// Read the config anew; all of it or nothing.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Reloads.
pub fn run(args: &ReloadArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let reloaded = gateway
        .ask::<Reloaded>(Method::POST, "/v1/reload", None::<&()>)
        .and_then(|answer| if args.json { print_json(&answer, out) } else { print(&answer.reload, out) });
    reloaded.map_or_else(|failure| failure.tell(gateway, "reload", args.json, err), |()| exit::OK)
}

fn print(summary: &Summary, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "RELOADED in {} ms: {}", summary.took_ms, plain(&summary.sites.join(", ")))?;
    for warning in &summary.warnings {
        writeln!(out, "  ! {}", plain(warning))?;
    }
    Ok(())
}
