//! The form for people: on a terminal.

use std::fmt::Write;

use super::text::{client, printable, words};
use super::{Entry, Masks, Verdict};
use crate::config::class::Class;

pub(super) fn write(entry: &Entry<'_>, stamp: &str, masks: Masks<'_>, out: &mut String) {
    out.push_str(stamp);
    out.push(' ');
    column(out, 15, |out| client(entry.client, "unknown", out));
    let _ = write!(out, "{} ", entry.status);
    column(out, 14, |out| out.push_str(entry.class.map_or("-", Class::word)));
    printable(entry.method.as_bytes(), out);
    out.push(' ');
    masks.site.target(entry.target, out);
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
        words(cause.as_bytes(), out);
    }
}

fn column(out: &mut String, width: usize, write: impl FnOnce(&mut String)) {
    let start = out.len();
    write(out);
    let used = out.len() - start;
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(used) + 1));
}
