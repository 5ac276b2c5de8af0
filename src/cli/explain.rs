//! `portcullis explain`: asks the running gateway, whose deciding code tells. Where none runs, the same code tells by the
//! config alone.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::Method;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::clock::Clock;
use crate::gateway::explain::{Explanation, Means, Question, explain};
use crate::policy::{Snapshot, compile};
use crate::request::share_key::ShareKey;
use crate::stores::blocks::Index;
use crate::stores::limits::Limits;
use crate::telemetry::audit::plain;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The request, e.g. 'POST https://files.example.com/api/auth/login'; without a method it is GET.
    request: String,
    /// The address that it comes from.
    #[arg(long, value_name = "ADDRESS", default_value = "203.0.113.7")]
    from: IpAddr,
    /// A header, e.g. 'X-Forwarded-For: 198.51.100.1'. No tokens here: they would be seen in `ps`.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    args: &Args,
    config: &Path,
    gateway: &Gateway,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> u8 {
    let question = Question { request: args.request.clone(), from: args.from, headers: args.headers.clone() };
    let told = match gateway.ask::<Explanation>(Method::POST, "/v1/explain", Some(&question)) {
        Err(Failure::NotReached(reason)) => match by_config(config, &question) {
            Some(told) => {
                let _ =
                    writeln!(err, "portcullis: no gateway runs: told by the config alone, no block is known");
                told.map_err(Failure::Usage)
            }
            None => Err(Failure::NotReached(reason)),
        },
        answered => answered,
    };
    let told = told.and_then(|told| if args.json { print_json(&told, out) } else { print(&told, out) });
    told.map_or_else(|failure| failure.tell(gateway, "explain", args.json, err), |()| exit::OK)
}

/// Explains without a gateway; `None` when the config does not hold.
fn by_config(config: &Path, question: &Question) -> Option<Result<Explanation, String>> {
    let settings = crate::config::load(config).ok()?.settings;
    let policy = compile(&settings, &Limits::new(1));
    let snapshot = Snapshot::new(Arc::new(policy));
    let means = Means {
        snapshot: &snapshot,
        index: &Index::default(),
        // Only blocks of share links look at its hashes, and none is known.
        share_key: &ShareKey::new(&[0; 32]),
        now: Clock::system().now(),
    };
    Some(explain(question, means))
}

fn print(told: &Explanation, out: &mut dyn Write) -> Result<(), Failure> {
    let mut line = |name: &str, value: Option<&str>| match value {
        Some(value) => writeln!(out, "{name:<12}{}", plain(value)),
        None => Ok(()),
    };
    line("client", Some(&told.client))?;
    line("site", told.site.as_deref())?;
    line("class", told.class.as_deref())?;
    line("route", told.route.as_deref())?;
    if let Some([sent, normal, folded]) = &told.path {
        line("path", Some(sent))?;
        line("  forwarded", Some(normal).filter(|normal| *normal != sent).map(String::as_str))?;
        line("  folded", Some(folded).filter(|folded| *folded != normal).map(String::as_str))?;
    }
    for credential in &told.credentials {
        line("credential", Some(credential))?;
    }
    for said in &told.guards {
        let reason = said.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        writeln!(out, "  {:<10}{}{}", plain(&said.guard), plain(&said.verdict), plain(&reason))?;
    }
    match (told.status, &told.reason, &told.upstream) {
        (Some(status), reason, _) => {
            writeln!(out, "refused with {status}: {}", plain(reason.as_deref().unwrap_or("-")))?;
        }
        (None, _, upstream) => writeln!(out, "forwarded to {}", plain(upstream.as_deref().unwrap_or("-")))?,
    }
    Ok(())
}
