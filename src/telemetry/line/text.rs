//! Pieces of lines: numbers, addresses, strangers' texts.

use std::fmt::Write;
use std::net::IpAddr;

use crate::telemetry::mask;

/// A stranger's text as printable ASCII without blanks, quotes and backslashes; bounded.
pub(super) fn printable(text: &[u8], out: &mut String) {
    mask::push_printable(text, out);
}

/// The same, but blanks stay.
pub(super) fn words(text: &[u8], out: &mut String) {
    mask::push_words(text, out);
}

/// An address, or what stands for one that cannot be told.
pub(super) fn client(client: Option<IpAddr>, unknown: &str, out: &mut String) {
    match client {
        None => out.push_str(unknown),
        // The standard library's way costs ten times as much.
        Some(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            digits(out, a.into(), 1);
            for part in [b, c, d] {
                out.push('.');
                digits(out, part.into(), 1);
            }
        }
        Some(IpAddr::V6(address)) => {
            let _ = write!(out, "{address}");
        }
    }
}

/// A decimal number of at least so many digits; the standard library's way costs ten times as much.
pub(super) fn digits(out: &mut String, mut value: u64, width: usize) {
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
