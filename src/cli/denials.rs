//! `portcullis denials`: what was refused lately, or would have been.

use std::io::Write;

use clap::Args;
use http::Method;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::admin::recent::{DenialList, Wanted};
use crate::config::values::parse_duration;
use crate::stores::recent::Record;
use crate::telemetry::audit::{plain, timestamp};

/// List what was refused lately, or would have been.
#[derive(Debug, Args)]
pub struct DenialsArgs {
    /// Only of this address or network, or of `unknown`.
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    /// Only with a token of this account, as it is typed at the login.
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,
    /// Not older, e.g. 1h.
    #[arg(long, value_name = "DURATION")]
    pub since: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub fn run(args: &DenialsArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let listed = wanted(args)
        .and_then(|wanted| gateway.ask::<DenialList>(Method::POST, "/v1/denials", Some(&wanted)))
        .and_then(|list| {
            if args.json { print_json(&list, out) } else { print(&list.denials, args.account.is_some(), out) }
        });
    listed.map_or_else(|failure| failure.tell(gateway, "denials", args.json, err), |()| exit::OK)
}

fn wanted(args: &DenialsArgs) -> Result<Wanted, Failure> {
    let since = args.since.as_deref().map(parse_duration).transpose();
    let since = since.map_err(|error| Failure::Usage(error.to_string()))?;
    let since = since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    Ok(Wanted { client: args.client.clone(), account: args.account.clone(), since })
}

fn print(denials: &[Record], of_account: bool, out: &mut dyn Write) -> Result<(), Failure> {
    if denials.is_empty() {
        writeln!(out, "Nothing of that is remembered: nothing was refused.")?;
        return Ok(());
    }
    let mut rows = vec![["TIME", "ID", "CLIENT", "STATUS", "WHY", "REQUEST"].map(String::from)];
    rows.extend(denials.iter().map(row));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    if of_account && denials.iter().any(|record| record.tokens.iter().any(|token| !token.verified)) {
        writeln!(
            out,
            "\nThey are of the account by what their tokens call themselves: no key was there to verify that."
        )?;
    }
    writeln!(out, "\n`portcullis explain --id ID` says what one means and what to do about it.")?;
    Ok(())
}

fn row(record: &Record) -> [String; 6] {
    let path = record.path.as_deref().or(record.route.as_deref()).unwrap_or("-");
    let request = format!("{} {}{path}", record.method, record.site.as_deref().unwrap_or_default());
    let status = if record.status == 0 { "-".to_owned() } else { record.status.to_string() };
    [
        timestamp(record.time),
        plain(&record.id),
        plain(&record.client),
        status,
        plain(&why(record)),
        plain(&request),
    ]
}

/// Who refused it and why, in the words of metrics and logs.
pub(super) fn why(record: &Record) -> String {
    let reason = record.reason.as_deref().unwrap_or("-");
    match (&*record.verdict, record.guard.as_deref()) {
        ("would_deny", Some(guard)) => format!("would: {guard}: {reason}"),
        (_, Some(guard)) => format!("{guard}: {reason}"),
        ("malformed", None) => format!("malformed: {reason}"),
        (verdict, None) => verdict.to_owned(),
    }
}
