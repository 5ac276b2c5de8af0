//! One line of the access log, in one of three forms; written into a buffer that is used again.

use std::fmt::Write;
use std::time::Duration;

use time::OffsetDateTime;

use super::mask::{Mask, push_printable};
use crate::config::class::Class;

/// What is known of a request when it has ended. Masking happens here, so the fields are as they came.
#[derive(Clone)]
pub struct Entry<'a> {
    /// Milliseconds since 1970 when the head had come.
    pub wall: u64,
    /// The request's id.
    pub id: &'a str,
    /// The client's address, or `unknown`.
    pub client: &'a dyn std::fmt::Display,
    /// The site's name in the configuration; `-` for none.
    pub site: &'a str,
    /// The route's class; `None` when there was no route.
    pub class: Option<Class>,
    /// The method, as sent.
    pub method: &'a str,
    /// Path and query, as sent.
    pub target: &'a str,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: &'a str,
    /// The `Referer`, as sent.
    pub referer: Option<&'a [u8]>,
    /// The `User-Agent`, as sent.
    pub agent: Option<&'a [u8]>,
    /// The `Location` of the answer.
    pub location: Option<&'a [u8]>,
    /// The answer's status.
    pub status: u16,
    /// What was decided.
    pub verdict: Verdict,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// From the head until all was over.
    pub duration: Duration,
    /// Until the upstream's head; `None`: it was not asked, or gave none.
    pub upstream: Option<Duration>,
    /// Why the upstream could not answer, or why the request ended early, in words.
    pub cause: Option<&'a str>,
    /// The token's `jti`, or a short keyed hash of it. Never the token.
    pub token: Option<&'a str>,
}

/// What was decided of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every guard passed it.
    Permitted,
    /// A guard refused it; both are words of closed lists.
    Denied {
        /// Which.
        guard: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A guard that only observes would have refused it.
    Observed {
        /// Which.
        guard: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// It was no request that one can judge; the word of the closed list.
    Malformed(&'static str),
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Json,
    /// Apache's combined format.
    Combined,
    /// For people.
    Readable,
}

/// Appends the line with its line feed.
pub fn write(form: Form, entry: &Entry<'_>, mask: &Mask, out: &mut String) {
    match form {
        Form::Json => json(entry, mask, out),
        Form::Combined => combined(entry, mask, out),
        Form::Readable => readable(entry, mask, out),
    }
    out.push('\n');
}

fn json(entry: &Entry<'_>, mask: &Mask, out: &mut String) {
    out.push_str("{\"time\":\"");
    push_rfc3339(entry.wall, out);
    out.push('"');
    text(out, "id", entry.id);
    key(out, "client");
    let _ = write!(out, "\"{}\"", entry.client);
    text(out, "site", entry.site);
    text(out, "class", entry.class.map_or("-", Class::word));
    text(out, "method", entry.method);
    quoted(out, "path", |out| mask.target(entry.target, out));
    number(out, "status", entry.status.into());
    verdict(out, entry.verdict);
    number(out, "bytes_in", entry.received);
    number(out, "bytes_out", entry.sent);
    millis(out, "duration_ms", entry.duration);
    if let Some(upstream) = entry.upstream {
        millis(out, "upstream_ms", upstream);
    }
    if let Some(cause) = entry.cause {
        quoted(out, "cause", |out| push_words(cause, out));
    }
    if let Some(token) = entry.token {
        text(out, "token", token);
    }
    if let Some(referer) = entry.referer {
        quoted(out, "referer", |out| mask.url(referer, out));
    }
    if let Some(location) = entry.location {
        quoted(out, "location", |out| mask.url(location, out));
    }
    if let Some(agent) = entry.agent {
        quoted(out, "agent", |out| push_words(&String::from_utf8_lossy(agent), out));
    }
    out.push('}');
}

fn verdict(out: &mut String, verdict: Verdict) {
    match verdict {
        Verdict::Permitted => text(out, "verdict", "permit"),
        Verdict::Denied { guard, reason } => {
            text(out, "verdict", "deny");
            text(out, "guard", guard);
            text(out, "reason", reason);
        }
        Verdict::Observed { guard, reason } => {
            text(out, "verdict", "would_deny");
            text(out, "guard", guard);
            text(out, "reason", reason);
        }
        Verdict::Malformed(reason) => {
            text(out, "verdict", "malformed");
            text(out, "reason", reason);
        }
    }
}

fn combined(entry: &Entry<'_>, mask: &Mask, out: &mut String) {
    let _ = write!(out, "{} - - [", entry.client);
    push_clf_time(entry.wall, out);
    out.push_str("] \"");
    push_printable(entry.method, out);
    out.push(' ');
    mask.target(entry.target, out);
    let _ = write!(out, " {}\" {} {} \"", entry.version, entry.status, entry.sent);
    match entry.referer {
        Some(referer) => mask.url(referer, out),
        None => out.push('-'),
    }
    out.push_str("\" \"");
    match entry.agent {
        Some(agent) => push_words(&String::from_utf8_lossy(agent), out),
        None => out.push('-'),
    }
    out.push('"');
}

fn readable(entry: &Entry<'_>, mask: &Mask, out: &mut String) {
    let mut time = String::with_capacity(24);
    push_rfc3339(entry.wall, &mut time);
    let _ = write!(out, "{} {:<15} ", time.get(11..19).unwrap_or_default(), entry.client);
    let class = entry.class.map_or("-", Class::word);
    let _ = write!(out, "{} {class:<14} ", entry.status);
    push_printable(entry.method, out);
    out.push(' ');
    mask.target(entry.target, out);
    match entry.verdict {
        Verdict::Permitted => {}
        Verdict::Denied { guard, reason } => {
            let _ = write!(out, "  refused by {guard}: {reason}");
        }
        Verdict::Observed { guard, reason } => {
            let _ = write!(out, "  {guard} would refuse: {reason}");
        }
        Verdict::Malformed(reason) => {
            let _ = write!(out, "  malformed: {reason}");
        }
    }
    let _ = write!(out, "  {} ms", entry.duration.as_millis());
    if let Some(cause) = entry.cause {
        out.push_str("  ");
        push_words(cause, out);
    }
}

/// As [`push_printable`], but blanks stay.
fn push_words(text: &str, out: &mut String) {
    let start = out.len();
    for (place, word) in text.split(' ').enumerate() {
        if out.len() - start >= super::mask::MAX_FIELD {
            return;
        }
        if place > 0 {
            out.push(' ');
        }
        push_printable(word, out);
    }
}

fn key(out: &mut String, key: &str) {
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
}

fn text(out: &mut String, name: &str, value: &str) {
    quoted(out, name, |out| push_printable(value, out));
}

/// `write` must leave out quotes and backslashes, as everything of `mask` does.
fn quoted(out: &mut String, name: &str, write: impl FnOnce(&mut String)) {
    key(out, name);
    out.push('"');
    write(out);
    out.push('"');
}

fn number(out: &mut String, name: &str, value: u64) {
    key(out, name);
    digits(out, value, 1);
}

fn millis(out: &mut String, name: &str, value: Duration) {
    key(out, name);
    let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
    digits(out, micros / 1000, 1);
    out.push('.');
    digits(out, micros % 1000, 3);
}

/// A decimal number of at least so many digits; the standard library's way costs ten times as much.
fn digits(out: &mut String, mut value: u64, width: usize) {
    let mut text = [b'0'; 20];
    let mut used = 0;
    for place in text.iter_mut().rev() {
        if value == 0 && used >= width {
            break;
        }
        *place = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        used += 1;
    }
    let text = text.get(text.len() - used..).unwrap_or_default();
    out.push_str(std::str::from_utf8(text).unwrap_or_default());
}

fn moment(wall: u64) -> (OffsetDateTime, u64) {
    let seconds = i64::try_from(wall / 1000).unwrap_or_default();
    (OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH), wall % 1000)
}

/// `2026-11-22T05:07:08.123Z`.
pub fn push_rfc3339(wall: u64, out: &mut String) {
    let (at, millis) = moment(wall);
    // No clock of ours is before 1970 or after 9999.
    digits(out, u64::try_from(at.year()).unwrap_or_default(), 4);
    let parts = [
        ('-', u8::from(at.month())),
        ('-', at.day()),
        ('T', at.hour()),
        (':', at.minute()),
        (':', at.second()),
    ];
    for (mark, part) in parts {
        out.push(mark);
        digits(out, part.into(), 2);
    }
    out.push('.');
    digits(out, millis, 3);
    out.push('Z');
}

fn push_clf_time(wall: u64, out: &mut String) {
    let (at, _) = moment(wall);
    let month = at.month().to_string();
    let month = month.get(..3).unwrap_or("Jan");
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    let _ = write!(out, "{:02}/{month}/{}:{hour:02}:{minute:02}:{second:02} +0000", at.day(), at.year());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_the_standard_library_writes_them(value: u64) {
            let mut text = String::new();
            digits(&mut text, value, 1);
            prop_assert_eq!(text, value.to_string());
            let mut text = String::new();
            digits(&mut text, value % 100, 3);
            prop_assert_eq!(text, format!("{:03}", value % 100));
        }
    }

    fn entry() -> Entry<'static> {
        Entry {
            wall: 1_795_324_028_123,
            id: "01J",
            client: &"203.0.113.7",
            site: "files.example.com",
            class: Some(Class::Login),
            method: "POST",
            target: "/api/auth/login?token=SECRET",
            version: "HTTP/1.1",
            referer: Some(b"https://files.example.com/?code=SECRET"),
            agent: Some(b"curl/8 \"quoted\"\n"),
            location: None,
            status: 429,
            verdict: Verdict::Denied { guard: "rate", reason: "rate_limited" },
            received: 12,
            sent: 34,
            duration: Duration::from_micros(1234),
            upstream: None,
            cause: None,
            token: Some("abc"),
        }
    }

    fn line(form: Form, entry: &Entry<'_>) -> String {
        let mut out = String::new();
        write(form, entry, &Mask::default(), &mut out);
        out
    }

    #[test]
    fn json_lines_parse_and_hold_every_field() {
        let line: serde_json::Value = serde_json::from_str(&line(Form::Json, &entry())).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "time": "2026-11-22T05:07:08.123Z", "id": "01J", "client": "203.0.113.7",
                "site": "files.example.com", "class": "login", "method": "POST",
                "path": "/api/auth/login?token=***", "status": 429, "verdict": "deny", "guard": "rate",
                "reason": "rate_limited", "bytes_in": 12, "bytes_out": 34, "duration_ms": 1.234, "token": "abc",
                "referer": "https://files.example.com/?code=***", "agent": "curl/8 %22quoted%22%0A",
            })
        );
    }

    #[test]
    fn the_combined_form_is_apaches() {
        assert_eq!(
            line(Form::Combined, &entry()),
            "203.0.113.7 - - [22/Nov/2026:05:07:08 +0000] \"POST /api/auth/login?token=*** HTTP/1.1\" 429 34 \
             \"https://files.example.com/?code=***\" \"curl/8 %22quoted%22%0A\"\n"
        );
    }

    #[test]
    fn people_read_who_refused_what_and_why() {
        assert_eq!(
            line(Form::Readable, &entry()),
            "05:07:08 203.0.113.7     429 login          POST /api/auth/login?token=***  refused by rate: \
             rate_limited  1 ms\n"
        );
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_sends_is_one_printable_line(
            target in "\\PC{0,40}", method in ".{0,10}", bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            for form in [Form::Json, Form::Combined, Form::Readable] {
                let entry = Entry {
                    target: &target, method: &method, agent: Some(&bytes), referer: Some(&bytes),
                    location: Some(&bytes), ..entry()
                };
                let line = line(form, &entry);
                let text = line.strip_suffix('\n').unwrap();
                prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{text:?}");
                if form == Form::Json {
                    prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
                }
            }
        }
    }
}
