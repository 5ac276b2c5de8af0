//! Apache's and nginx's combined form, such that goaccess, fail2ban and CrowdSec's nginx parser read each line: what they
//! would stumble over is written as near as they can take it. The JSON form has it all.

use super::text::{client, digits, words};
use super::{Entry, Masks};

/// A client that cannot be told: the dummy address of RFC 7600, which is nobody's. Readers want an address, and one that
/// is banned must ban nobody.
const NOBODY: &str = "192.0.0.8";

/// More of a method is noise.
const METHOD: usize = 32;

pub(super) fn write(entry: &Entry<'_>, stamp: &str, masks: Masks<'_>, out: &mut String) {
    client(entry.client, NOBODY, out);
    out.push_str(" - - [");
    out.push_str(stamp);
    out.push_str(" +0000] \"");
    method(entry.method, out);
    out.push(' ');
    masks.site.target(entry.target, out);
    out.push(' ');
    out.push_str(entry.version);
    out.push_str("\" ");
    digits(out, entry.status.into(), 3);
    out.push(' ');
    digits(out, entry.sent, 1);
    or_dash(out, entry.referer, |out, referer| masks.all.url(referer, out));
    or_dash(out, entry.agent, |out, agent| words(agent, out));
}

/// A word: CrowdSec takes letters, digits and `_` only. Where no method could be read it is the word that Squid writes.
fn method(method: &str, out: &mut String) {
    if method == "-" {
        return out.push_str("NONE");
    }
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    out.extend(method.chars().take(METHOD).map(word));
}

fn or_dash(out: &mut String, value: Option<&[u8]>, write: impl FnOnce(&mut String, &[u8])) {
    out.push_str(" \"");
    match value {
        Some(value) if !value.is_empty() => write(out, value),
        _ => out.push('-'),
    }
    out.push('"');
}
