//! `portcullis explain`: asks the running gateway, whose deciding code tells. Where none runs, the same code tells by the
//! config alone.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::client::{Failure, Gateway, print_json};
use super::{exit, request};
use crate::clock::Clock;
use crate::gateway::explain::{Explanation, Means, Question, explain};
use crate::guards::Reason;
use crate::policy::{Snapshot, compile};
use crate::request::share_key::ShareKey;
use crate::stores::blocks::Index;
use crate::stores::kept::Kept;
use crate::stores::seal::Seal;
use crate::stores::sessions::Sessions;
use crate::telemetry::audit::plain;

/// Headers that carry credentials.
const SECRET: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "sec-websocket-protocol"];
/// More than any head may have.
const MOST: u64 = 64 << 10;

/// Arguments of `explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The request, e.g. 'POST https://files.example.com/api/auth/login'; without a method it is GET.
    #[arg(required_unless_present = "id")]
    request: Option<String>,
    /// Say instead what was decided of the request with this id (`X-Request-Id`, access log).
    #[arg(long, value_name = "REQUEST_ID", conflicts_with_all = ["request", "headers"])]
    id: Option<String>,
    /// The address that it comes from.
    #[arg(long, value_name = "ADDRESS", default_value = "203.0.113.7")]
    from: IpAddr,
    /// The client that a PROXY header of `--from` names, where listen.proxy_protocol wants one.
    #[arg(long, value_name = "ADDRESS")]
    proxy: Option<IpAddr>,
    /// The client's certificate, a PEM file, for a site that asks for one; keys in it are not looked at.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// A header, e.g. 'X-Forwarded-For: 198.51.100.1'; `@-` reads lines of headers from standard input. Those that
    /// carry secrets are taken from there only: arguments are seen in `ps`.
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
    let Some(request) = &args.request else {
        return of_id(args, gateway, (out, err));
    };
    let told = headers(&args.headers, &mut std::io::stdin()).and_then(|headers| {
        let certificates = args.certificate.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let (request, from, proxy) = (request.clone(), args.from, args.proxy);
        ask(&Question { request, from, proxy, headers, certificates }, config, gateway, err)
    });
    let told = told.and_then(|told| if args.json { print_json(&told, out) } else { print(&told, out) });
    told.map_or_else(|failure| failure.tell(gateway, "explain", args.json, err), |()| exit::OK)
}

fn of_id(args: &Args, gateway: &Gateway, (out, err): (&mut dyn Write, &mut dyn Write)) -> u8 {
    let told = request::ask(args.id.as_deref().unwrap_or_default(), gateway)
        .and_then(|told| if args.json { print_json(&told, out) } else { request::print(&told.request, out) });
    told.map_or_else(|failure| failure.tell(gateway, "explain", args.json, err), |()| exit::OK)
}

fn ask(
    question: &Question,
    config: &Path,
    gateway: &Gateway,
    err: &mut dyn Write,
) -> Result<Explanation, Failure> {
    match gateway.ask::<Explanation>(Method::POST, "/v1/explain", Some(question)) {
        Err(Failure::NotReached(reason)) => match by_config(config, question) {
            Some(told) => {
                let _ =
                    writeln!(err, "portcullis: no gateway runs: told by the config alone, no block is known");
                told.map_err(Failure::Usage)
            }
            None => Err(Failure::NotReached(reason)),
        },
        answered => answered,
    }
}

/// Explains without a gateway; `None` when the config does not hold.
fn by_config(config: &Path, question: &Question) -> Option<Result<Explanation, String>> {
    let settings = crate::config::load(config).ok()?.settings;
    let policy = compile(&settings, &Kept::new(1));
    let snapshot = Snapshot::new(Arc::new(policy));
    let means = Means {
        snapshot: &snapshot,
        index: &Index::default(),
        // Only blocks of share links look at its hashes, and none is known.
        share_key: &ShareKey::new(&[0; 32]),
        // Nor were tickets and cookies ever given.
        seal: &Seal::new(&[]),
        sessions: &Sessions::default(),
        now: Clock::system().now(),
    };
    Some(explain(question, means).map(without_gateway))
}

/// What only a running gateway has must not look like a fault of the config.
fn without_gateway(mut told: Explanation) -> Explanation {
    if told.reason.as_deref() == Some(Reason::KeysUnavailable.word()) {
        told.cause =
            Some("the site's keys are fetched (jwks) by a running gateway only, and none was asked".into());
        told.remedy =
            Some("ask while the gateway runs; `key_file` in [site.tokens] verify works without one".into());
    }
    told
}

/// The headers as asked, those of standard input in the place of `@-`.
fn headers(asked: &[String], input: &mut dyn Read) -> Result<Vec<String>, Failure> {
    let mut headers = Vec::new();
    for header in asked {
        if header == "@-" {
            let mut text = String::new();
            input.take(MOST).read_to_string(&mut text)?;
            headers.extend(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
            continue;
        }
        let name = header.split(':').next().unwrap_or_default().trim().to_ascii_lowercase();
        if SECRET.contains(&&*name) {
            return Err(Failure::Usage(format!(
                "`{name}` carries a secret, and arguments are seen in `ps`: give the line to standard input, with -H @-"
            )));
        }
        headers.push(header.clone());
    }
    Ok(headers)
}

/// The certificates of a PEM file, DER in base64.
fn certificates(file: &Path) -> Result<Vec<String>, Failure> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain.iter().map(|one| STANDARD.encode(one)).collect()),
        Ok(_) => Err(Failure::Usage(format!("{} holds no certificate", file.display()))),
        Err(error) => Err(Failure::Usage(format!("{} cannot be read: {error}", file.display()))),
    }
}

fn print(told: &Explanation, out: &mut dyn Write) -> Result<(), Failure> {
    let mut line = |name: &str, value: Option<&str>| match value {
        Some(value) => writeln!(out, "{name:<12}{}", plain(value)),
        None => Ok(()),
    };
    line("client", Some(&told.client))?;
    line("  found", Some(&told.found).filter(|found| !found.is_empty()).map(String::as_str))?;
    line("certificate", told.certificate.as_deref())?;
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
        let verdict = said.verdict.replace('_', " ");
        writeln!(out, "  {:<10}{}{}", plain(&said.guard), plain(&verdict), plain(&reason))?;
    }
    match (told.status, &told.reason, &told.upstream) {
        (Some(status), reason, _) => {
            writeln!(out, "refused with {status}: {}", plain(reason.as_deref().unwrap_or("-")))?;
            for (name, text) in [("meaning", &told.cause), ("remedy", &told.remedy)] {
                if let Some(text) = text {
                    writeln!(out, "  {name:<10}{}", plain(text))?;
                }
            }
        }
        (None, _, upstream) => {
            let observed = told.guards.iter().any(|said| said.verdict == "would_deny");
            let note = if observed { ", because what would deny it only observes here" } else { "" };
            writeln!(out, "forwarded to {}{note}", plain(upstream.as_deref().unwrap_or("-")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_by_standard_input_only() {
        let asked = |header: &str| headers(&[header.to_owned()], &mut "Cookie: a=b\n\nX: y\n".as_bytes());
        assert_eq!(asked("X-Forwarded-For: ::1").unwrap(), ["X-Forwarded-For: ::1"]);
        assert_eq!(asked("@-").unwrap(), ["Cookie: a=b", "X: y"]);
        for secret in ["Authorization: Bearer x", "cookie:a=b", " Sec-WebSocket-Protocol : x"] {
            assert!(matches!(asked(secret), Err(Failure::Usage(_))), "{secret}");
        }
    }
}
