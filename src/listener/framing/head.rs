//! One request head: `METHOD SP target SP HTTP/1.[01]` and fields, every line ended by CRLF.
//!
//! A head is judged line by line in the order of the wire, and a line only once it is whole; so the verdict does not
//! depend on how the bytes were cut into reads, and each byte is looked at once.

use std::ops::Range;

use super::{field, is_authority, is_token};
use crate::request::facts::Malformed;

/// A method longer than every registered one, with room to spare.
const LONGEST_METHOD: usize = 32;
/// hyper refuses what is longer by itself, and would then answer in our place.
const LONGEST_TARGET: usize = 65_000;

/// Bounds of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, from the first of the method to the last line end.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// So many bytes, at least one.
    Exact(u64),
    /// Chunks.
    Chunked,
}

/// A head that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its bytes.
    pub len: usize,
    /// What follows.
    pub body: Body,
    /// Asks for a WebSocket, in good form: what follows may be no request.
    pub upgrade: bool,
}

/// Judges one head as its bytes arrive.
#[derive(Debug, Default)]
pub struct HeadParser {
    /// Where the line begins that is not whole yet.
    line: usize,
    /// Up to where there is no line end.
    scanned: usize,
    seen: Option<Seen>,
}

/// What the lines so far came to.
#[derive(Debug, Default)]
struct Seen {
    http10: bool,
    get: bool,
    /// Of an absolute target.
    authority: Option<Range<usize>>,
    fields: usize,
    host: Option<Range<usize>>,
    length: Option<u64>,
    chunked: bool,
    expects: bool,
    upgrades: usize,
    websocket: bool,
    connection_upgrade: bool,
}

impl HeadParser {
    /// Goes on with the head; `bytes` are all bytes since its beginning. `None`: not whole yet.
    ///
    /// # Errors
    /// The first thing wrong in the order of the wire.
    pub fn advance(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, Malformed> {
        let within = bytes.get(..limits.bytes).unwrap_or(bytes);
        while let Some(at) = position(within, self.scanned) {
            let end = at + 1;
            let line = line_of(within, self.line..end)?;
            let start = self.line;
            self.line = end;
            self.scanned = end;
            let Some(seen) = &mut self.seen else {
                self.seen = Some(Seen::request_line(line)?);
                continue;
            };
            if line.is_empty() {
                return seen.finish(within, end).map(Some);
            }
            seen.field(line, start, limits)?;
        }
        self.scanned = within.len();
        if bytes.len() >= limits.bytes { Err(Malformed::HeadTooLarge) } else { Ok(None) }
    }
}

fn position(bytes: &[u8], from: usize) -> Option<usize> {
    let at = bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
    Some(from + at)
}

/// A line without its CRLF; it holds no other CR and no NUL.
fn line_of(bytes: &[u8], range: Range<usize>) -> Result<&[u8], Malformed> {
    let line = bytes.get(range).and_then(|line| line.strip_suffix(b"\r\n")).ok_or(Malformed::LineEnding)?;
    if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
        return Err(Malformed::LineEnding);
    }
    Ok(line)
}

impl Seen {
    fn request_line(line: &[u8]) -> Result<Self, Malformed> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed::RequestLine);
        };
        let http10 = match version {
            b"HTTP/1.1" => false,
            b"HTTP/1.0" => true,
            other if other.starts_with(b"HTTP/") => return Err(Malformed::Version),
            _ => return Err(Malformed::RequestLine),
        };
        check_method(method)?;
        let authority = check_target(target, method.len() + 1)?;
        Ok(Self { http10, get: method == b"GET", authority, ..Self::default() })
    }

    fn field(&mut self, line: &[u8], start: usize, limits: HeadLimits) -> Result<(), Malformed> {
        self.fields += 1;
        if self.fields > limits.fields {
            return Err(Malformed::TooManyHeaders);
        }
        let (name, value) = field(line)?;
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(line, value, start),
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrades += 1;
                self.websocket |= has_word(value, b"websocket");
                if self.websocket && !value.eq_ignore_ascii_case(b"websocket") {
                    return Err(Malformed::Upgrade);
                }
                Ok(())
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection_upgrade |= has_word(value, b"upgrade");
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.encoding(value),
            // Servers in the manner of CGI take the underscore for a hyphen.
            14 if name.eq_ignore_ascii_case(b"content_length") => Err(Malformed::ContentLength),
            17 if name.eq_ignore_ascii_case(b"transfer_encoding") => Err(Malformed::TransferEncoding),
            _ => Ok(()),
        }
    }

    fn host(&mut self, line: &[u8], value: &[u8], start: usize) -> Result<(), Malformed> {
        if self.host.is_some() || !is_authority(value) {
            return Err(Malformed::Host);
        }
        // The value is the line's only stretch of these bytes behind "host:" and blanks.
        let blanks =
            line.get(5..).unwrap_or_default().iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        let from = start + 5 + blanks;
        self.host = Some(from..from + value.len());
        Ok(())
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let good = !self.expects && value.eq_ignore_ascii_case(b"100-continue");
        self.expects = true;
        if good { Ok(()) } else { Err(Malformed::Expect) }
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let plain = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        // A zero in front means octal to some.
        let octal = value.len() > 1 && value.starts_with(b"0");
        if !plain || octal || self.length.is_some() || self.chunked {
            return Err(Malformed::ContentLength);
        }
        let number = value.iter().try_fold(0u64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u64::from(digit.wrapping_sub(b'0')))
        });
        self.length = Some(number.ok_or(Malformed::ContentLength)?);
        Ok(())
    }

    fn encoding(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.length.is_some() {
            return Err(Malformed::ContentLength);
        }
        if self.chunked || self.http10 || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Malformed::TransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    fn finish(&self, bytes: &[u8], len: usize) -> Result<Head, Malformed> {
        let text = |range: &Option<Range<usize>>| range.clone().and_then(|range| bytes.get(range));
        match (text(&self.host), text(&self.authority)) {
            (None, _) if !self.http10 => return Err(Malformed::Host),
            (None, Some(_)) => return Err(Malformed::Host),
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
                return Err(Malformed::Host);
            }
            _ => {}
        }
        let body = match self.length {
            _ if self.chunked => Body::Chunked,
            None | Some(0) => Body::None,
            Some(length) => Body::Exact(length),
        };
        if self.upgrades > 0 && (body != Body::None || (self.websocket && !self.good_websocket())) {
            return Err(Malformed::Upgrade);
        }
        Ok(Head { len, body, upgrade: self.websocket })
    }

    /// A half-formed request for a WebSocket is refused, so that nobody behind us may take it for a whole one.
    fn good_websocket(&self) -> bool {
        self.upgrades == 1 && self.connection_upgrade && self.get && !self.http10
    }
}

fn check_method(method: &[u8]) -> Result<(), Malformed> {
    let refused = [&b"CONNECT"[..], b"TRACE", b"TRACK"];
    let good = is_token(method)
        && method.len() <= LONGEST_METHOD
        && !refused.iter().any(|refused| method.eq_ignore_ascii_case(refused));
    if good { Ok(()) } else { Err(Malformed::Method) }
}

/// Origin form, or absolute form; for the latter, where in the head its authority stands.
fn check_target(target: &[u8], start: usize) -> Result<Option<Range<usize>>, Malformed> {
    if target.len() > LONGEST_TARGET || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Malformed::Target);
    }
    if target.starts_with(b"/") {
        return if is_path(target) { Ok(None) } else { Err(Malformed::Target) };
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .ok_or(Malformed::Target)?;
    let rest = target.get(scheme.len()..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !is_authority(authority) || !is_path(path) {
        return Err(Malformed::Target);
    }
    let from = start + scheme.len();
    Ok(Some(from..from + end))
}

/// What browsers send unescaped, and hyper's URI type takes; the path's meaning is judged later.
fn is_path(path: &[u8]) -> bool {
    let mut query = false;
    path.iter().all(|byte| {
        query |= *byte == b'?';
        match byte {
            b'#' | b'<' | b'>' | b'"' => false,
            b'`' => query,
            _ => true,
        }
    })
}

/// Whether a comma-separated list has this word.
fn has_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| super::trim(item).eq_ignore_ascii_case(word))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
