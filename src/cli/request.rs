//! `portcullis explain --id`: what was decided of one request, and why.

use std::io::Write;

use http::Method;

use super::client::{Failure, Gateway};
use super::denials::why;
use crate::admin::recent::RequestAnswer;
use crate::stores::recent::{Record, Token};
use crate::telemetry::audit::{plain, timestamp};

/// Asks the gateway's memory.
///
/// # Errors
/// When it is no id, or no longer remembered.
pub(super) fn ask(id: &str, gateway: &Gateway) -> Result<RequestAnswer, Failure> {
    let id = id.trim().to_ascii_lowercase();
    if !(16..=32).contains(&id.len()) || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let message =
            "that is no id of a request: those are 16 hex digits, as in X-Request-Id and the access log";
        return Err(Failure::Usage(message.into()));
    }
    gateway.ask::<RequestAnswer>(Method::GET, &format!("/v1/request?id={id}"), None::<&()>)
}

/// Prints it for people.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn print(record: &Record, out: &mut dyn Write) -> Result<(), Failure> {
    let mut line = |name: &str, value: Option<&str>| match value {
        Some(value) => writeln!(out, "{name:<12}{}", plain(value)),
        None => Ok(()),
    };
    line("request", Some(&format!("{}, {}", record.id, timestamp(record.time))))?;
    line("client", Some(&record.client))?;
    line("site", record.site.as_deref())?;
    line("class", record.class.as_deref())?;
    line("route", record.route.as_deref())?;
    let path = record.path.as_deref().unwrap_or("(the access log has the path)");
    line("asked", Some(&format!("{} {path}", record.method)))?;
    for token in &record.tokens {
        line("credential", Some(&credential(token)))?;
    }
    line("share link", record.share.map(|share| format!("{share:?}")).as_deref())?;
    line("verdict", Some(&verdict(record)))?;
    let status = if record.status == 0 { "none".to_owned() } else { record.status.to_string() };
    line("answer", Some(&status))?;
    line("failure", record.failure.as_deref())?;
    line("meaning", record.cause.as_deref())?;
    line("remedy", record.remedy.as_deref())?;
    if record.blockable().next().is_some() || record.share.is_some() {
        line("", Some(&format!("`portcullis block request {}` blocks what it carried", record.id)))?;
    }
    Ok(())
}

fn verdict(record: &Record) -> String {
    match &*record.verdict {
        "permit" => "permitted".to_owned(),
        "deny" => format!("refused by {}", why(record)),
        "would_deny" => format!("permitted; {}", why(record)),
        _ => why(record),
    }
}

fn credential(token: &Token) -> String {
    let mut said = format!("{} in the access log", token.jti.as_deref().unwrap_or(&token.log));
    if let Some(subject) = &token.subject {
        let word = if token.verified { "subject" } else { "calls itself subject" };
        said.push_str(&format!(", {word} {subject}"));
    }
    if let Some(expires) = token.expires {
        said.push_str(&format!(", expires {}", timestamp(expires.saturating_mul(1000))));
    }
    if token.guessed {
        said.push_str(", perhaps no token at all");
    }
    said
}
