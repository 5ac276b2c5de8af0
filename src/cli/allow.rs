//! `portcullis allow`: a timed hole in an allowlist, for the first run of an application.

use std::io::Write;

use clap::Args;
use http::Method;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::admin::allow::{AllowOrder, Allowed};
use crate::config::values::{parse_duration, parse_network};
use crate::telemetry::audit::{plain, timestamp};

/// Let one network reach class `setup` for a while. In memory only: a restart of the gateway closes it.
#[derive(Debug, Args)]
pub struct AllowArgs {
    /// The class: setup.
    #[arg(value_name = "CLASS")]
    pub class: String,
    /// Address or CIDR. Wants --yes when wider than a /16 (IPv6: /32).
    #[arg(long, value_name = "ADDRESS")]
    pub from: String,
    /// For how long, at most 24h.
    #[arg(long = "for", value_name = "DURATION", default_value = "15m")]
    pub lasting: String,
    /// The site (a host name); needed where there are several.
    #[arg(long)]
    pub site: Option<String>,
    /// Why; kept in the audit log.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// A wide network is meant.
    #[arg(long)]
    pub yes: bool,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Opens the hole; the exit code says whether every worker has it.
pub fn run(args: &AllowArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let opened = order(args)
        .and_then(|order| gateway.ask::<Allowed>(Method::POST, "/v1/allow", Some(&order)))
        .and_then(|allowed| {
            if args.json { print_json(&allowed, out) } else { tell(&allowed, out) }.map(|()| allowed)
        });
    match opened {
        Ok(allowed) if allowed.confirmed => exit::OK,
        Ok(_) => exit::ERROR,
        Err(failure) => failure.tell(gateway, "allow", args.json, err),
    }
}

fn order(args: &AllowArgs) -> Result<AllowOrder, Failure> {
    let usage = |error: &dyn ToString| Failure::Usage(error.to_string());
    let lasting = parse_duration(&args.lasting).map_err(|error| usage(&error))?;
    Ok(AllowOrder {
        class: args.class.clone(),
        from: parse_network(&args.from).map_err(|error| usage(&error))?,
        lasting: u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX),
        site: args.site.clone(),
        reason: args.reason.clone(),
        yes: args.yes,
    })
}

fn tell(allowed: &Allowed, out: &mut dyn Write) -> Result<(), Failure> {
    let hole = &allowed.hole;
    let word = if allowed.confirmed { "OPEN" } else { "NOT CONFIRMED" };
    writeln!(out, "{word}: {} of {} for {}", plain(&hole.class), plain(&hole.site), hole.network)?;
    writeln!(out, "  until   {}, or a restart of the gateway", timestamp(hole.until))?;
    writeln!(out, "  close   say it again with --for 1s")?;
    if !allowed.confirmed {
        writeln!(out, "  ! not every worker has answered in time: say it again")?;
    }
    for warning in &allowed.warnings {
        writeln!(out, "  ! {}", plain(warning))?;
    }
    Ok(())
}
