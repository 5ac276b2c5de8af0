//! One line of the access log, in one of three forms; written into a buffer that is used again.
//!
//! `docs/logs.md` is the list of what stands in a line; a test compares.

mod combined;
mod json;
mod readable;
mod stamp;
#[cfg(test)]
mod tests;
mod text;

use std::net::IpAddr;
use std::time::Duration;

use self::stamp::Stamp;
use super::mask::Mask;
use crate::config::class::Class;

pub use self::stamp::push_rfc3339;

/// What is known of a request when it has ended. Masking happens here, so the fields are as they came.
#[derive(Clone)]
pub struct Entry<'a> {
    /// Milliseconds since 1970 when the head had come.
    pub wall: u64,
    /// The request's id.
    pub id: &'a str,
    /// The client's address; `None`: it cannot be told.
    pub client: Option<IpAddr>,
    /// The site's name in the configuration; `-` for none.
    pub site: &'a str,
    /// The route's class; `None` when there was no route.
    pub class: Option<Class>,
    /// The method, as sent; `-` where the head could not be read.
    pub method: &'a str,
    /// Path and query, as sent; `-` as above.
    pub target: &'a str,
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
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
    /// What the client's certificate calls it.
    pub certificate: Option<&'a str>,
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

/// The masks for one entry.
#[derive(Debug, Clone, Copy)]
pub struct Masks<'a> {
    /// Of the request's own site: for its target.
    pub site: &'a Mask,
    /// Of all sites: `Referer` and `Location` may name another one.
    pub all: &'a Mask,
}

/// Lines that are missing at this place of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub lines: u64,
    /// Milliseconds since 1970 of the first one.
    pub from: u64,
    /// And of the last one.
    pub until: u64,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object.
    Json,
    /// Apache's and nginx's combined format.
    Combined,
    /// For people.
    Readable,
}

/// Writes lines, one after the other, into a text of its own.
#[derive(Debug, Default)]
pub struct Pen {
    line: String,
    stamp: Stamp,
}

impl Pen {
    /// The line with its line feed.
    pub fn write(&mut self, form: Form, entry: &Entry<'_>, masks: Masks<'_>) -> &str {
        self.line.clear();
        let (stamp, out) = (self.stamp.of(form, entry.wall), &mut self.line);
        match form {
            Form::Json => json::write(entry, stamp, masks, out),
            Form::Combined => combined::write(entry, stamp, masks, out),
            Form::Readable => readable::write(entry, stamp, masks, out),
        }
        out.push('\n');
        out
    }
}

impl Gap {
    /// One more line is lost, of a request at this time.
    pub fn grow(&mut self, wall: u64) {
        if self.lines == 0 {
            self.from = wall;
        }
        self.lines += 1;
        self.until = wall;
    }

    /// Appends the line that tells of it: in the combined form a comment, which log readers pass over.
    pub fn write(&self, form: Form, out: &mut String) {
        match form {
            Form::Json => json::gap(self, out),
            Form::Combined | Form::Readable => {
                out.push_str("# ");
                text::digits(out, self.lines, 1);
                out.push_str(" lines dropped between ");
                push_rfc3339(self.from, out);
                out.push_str(" and ");
                push_rfc3339(self.until, out);
                out.push_str(": they could not be written in time");
            }
        }
        out.push('\n');
    }
}
