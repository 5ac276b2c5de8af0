//! The JSON form: one object a line. A key that is not known of a request is left out.

use super::text::{client, digits, printable, words};
use super::{Entry, Gap, Masks, Verdict, push_rfc3339};
use crate::config::class::Class;

pub(super) fn write(entry: &Entry<'_>, stamp: &str, masks: Masks<'_>, out: &mut String) {
    out.push_str("{\"time\":\"");
    out.push_str(stamp);
    digits(out, entry.wall % 1000, 3);
    out.push_str("Z\"");
    text(out, ",\"id\":\"", entry.id);
    out.push_str(",\"client\":\"");
    client(entry.client, "unknown", out);
    out.push('"');
    text(out, ",\"site\":\"", entry.site);
    // Words of our own need no look at each byte.
    word(out, ",\"class\":\"", entry.class.map_or("-", Class::word));
    text(out, ",\"method\":\"", entry.method);
    quoted(out, ",\"path\":\"", |out| masks.site.target(entry.target, out));
    word(out, ",\"protocol\":\"", entry.version);
    number(out, ",\"status\":", entry.status.into());
    verdict(out, entry.verdict);
    number(out, ",\"bytes_in\":", entry.received);
    number(out, ",\"bytes_out\":", entry.sent);
    millis(out, ",\"duration_ms\":", entry.duration);
    if let Some(upstream) = entry.upstream {
        millis(out, ",\"upstream_ms\":", upstream);
    }
    if let Some(cause) = entry.cause {
        quoted(out, ",\"cause\":\"", |out| words(cause.as_bytes(), out));
    }
    if let Some(token) = entry.token {
        text(out, ",\"token\":\"", token);
    }
    if let Some(certificate) = entry.certificate {
        quoted(out, ",\"certificate\":\"", |out| words(certificate.as_bytes(), out));
    }
    if let Some(referer) = entry.referer {
        quoted(out, ",\"referer\":\"", |out| masks.all.url(referer, out));
    }
    if let Some(location) = entry.location {
        quoted(out, ",\"location\":\"", |out| masks.all.url(location, out));
    }
    if let Some(agent) = entry.agent {
        quoted(out, ",\"agent\":\"", |out| words(agent, out));
    }
    out.push('}');
}

/// Known by its key `dropped`, which no other line has.
pub(super) fn gap(gap: &Gap, out: &mut String) {
    out.push_str("{\"time\":\"");
    push_rfc3339(gap.until, out);
    out.push_str("\",\"since\":\"");
    push_rfc3339(gap.from, out);
    out.push('"');
    number(out, ",\"dropped\":", gap.lines);
    out.push_str(",\"cause\":\"lines could not be written in time\"}");
}

fn verdict(out: &mut String, verdict: Verdict) {
    let (said, guard, reason) = match verdict {
        Verdict::Permitted => ("permit", None, None),
        Verdict::Denied { guard, reason } => ("deny", Some(guard), Some(reason)),
        Verdict::Observed { guard, reason } => ("would_deny", Some(guard), Some(reason)),
        Verdict::Malformed(reason) => ("malformed", None, Some(reason)),
    };
    word(out, ",\"verdict\":\"", said);
    if let Some(guard) = guard {
        word(out, ",\"guard\":\"", guard);
    }
    if let Some(reason) = reason {
        word(out, ",\"reason\":\"", reason);
    }
}

fn word(out: &mut String, key: &str, word: &str) {
    quoted(out, key, |out| out.push_str(word));
}

fn text(out: &mut String, key: &str, value: &str) {
    quoted(out, key, |out| printable(value.as_bytes(), out));
}

/// `write` must leave out quotes and backslashes, as everything of `mask` does.
fn quoted(out: &mut String, key: &str, write: impl FnOnce(&mut String)) {
    out.push_str(key);
    write(out);
    out.push('"');
}

fn number(out: &mut String, key: &str, value: u64) {
    out.push_str(key);
    digits(out, value, 1);
}

fn millis(out: &mut String, key: &str, value: std::time::Duration) {
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    number(out, key, micros / 1000);
    out.push('.');
    digits(out, micros % 1000, 3);
}
