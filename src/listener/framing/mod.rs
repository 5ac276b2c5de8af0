//! The grammar of HTTP/1.1 requests, stricter than hyper's: pure parsers over bytes, no I/O.

mod authority;
mod chunks;
mod head;

pub use authority::is_authority;
pub use chunks::Chunks;
pub use head::{Body, Head, HeadLimits, HeadParser};

/// `tchar` of RFC 9110: what methods and field names consist of.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN.get(usize::from(*byte)).is_some_and(|is| *is))
}

/// [`is_token_byte`] of every byte: names are looked at on every request.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "below 128")]
        {
            table[byte] = is_token_byte(byte as u8);
        }
        byte += 1;
    }
    table
};

const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// What a field value may consist of: no control character but the tab.
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// Without blanks and tabs at both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Name and trimmed value of one field line, without its line end.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), crate::request::facts::Malformed> {
    use crate::request::facts::Malformed;
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::LineEnding);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Malformed::HeaderName)?;
    let (name, value) = line.split_at(colon);
    if !is_token(name) {
        return Err(Malformed::HeaderName);
    }
    let value = trim(value.get(1..).unwrap_or_default());
    // Without an early way out, so that it becomes vector code.
    if value.iter().fold(false, |bad, byte| bad | !is_value_byte(*byte)) {
        return Err(Malformed::HeaderValue);
    }
    Ok((name, value))
}
