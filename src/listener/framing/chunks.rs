//! A chunked body, byte by byte: exact sizes, bounded extensions, bounded and harmless trailers.

use super::field;
use crate::request::facts::Malformed;

/// Bytes of extensions on one size line.
const LINE_EXTENSIONS: usize = 256;
/// Bytes of extensions in one body.
const ALL_EXTENSIONS: usize = 16 * 1024;
/// Bytes of all trailers.
const TRAILERS: usize = 8 * 1024;
/// Fields of all trailers.
const TRAILER_FIELDS: usize = 100;

/// What a trailer must not carry: framing, routing, credentials, identity.
const NO_TRAILERS: [&str; 16] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "authorization",
    "proxy-authorization",
    "cookie",
    "content-encoding",
    "content-type",
    "content-range",
    "forwarded",
    "set-cookie",
];

/// Judges one chunked body as its bytes arrive.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    left: u64,
    digits: u8,
    line_extensions: usize,
    all_extensions: usize,
    trailers: usize,
    trailer_fields: usize,
    line: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    TrailerLf,
    Done,
}

impl Chunks {
    /// How many of these bytes belong to the body and hold, and what is wrong with the next one, if anything is.
    pub fn accept(&mut self, bytes: &[u8]) -> (usize, Option<Malformed>) {
        let mut used = 0;
        while self.state != State::Done {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some(byte) = rest.first() else { break };
            if self.state == State::Data {
                let run = self.left.min(rest.len() as u64);
                self.left -= run;
                used += usize::try_from(run).unwrap_or(rest.len());
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            match self.step(*byte) {
                Ok(next) => self.state = next,
                Err(wrong) => return (used, Some(wrong)),
            }
            used += 1;
        }
        (used, None)
    }

    /// The body is whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size, b';') if self.digits > 0 => self.extension(),
            (State::Size, _) => self.digit(byte),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'\t' | 0x20..=0x7e) => self.extension(),
            (State::SizeLf, b'\n') => Ok(self.size_line_done()),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::Trailer, b'\n') => Err(Malformed::Chunk),
            (State::Trailer, _) => {
                self.trailers += 1;
                if self.trailers > TRAILERS {
                    return Err(Malformed::Chunk);
                }
                self.line.push(byte);
                Ok(State::Trailer)
            }
            (State::TrailerLf, b'\n') => self.trailer_line_done(),
            _ => Err(Malformed::Chunk),
        }
    }

    fn digit(&mut self, byte: u8) -> Result<State, Malformed> {
        let digit = char::from(byte).to_digit(16).ok_or(Malformed::Chunk)?;
        self.digits += 1;
        // Sixteen digits are sixty-four bits: nothing can overflow.
        if self.digits > 16 {
            return Err(Malformed::Chunk);
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self) -> Result<State, Malformed> {
        self.line_extensions += 1;
        self.all_extensions += 1;
        if self.line_extensions > LINE_EXTENSIONS || self.all_extensions > ALL_EXTENSIONS {
            return Err(Malformed::Chunk);
        }
        Ok(State::Extension)
    }

    fn size_line_done(&mut self) -> State {
        self.digits = 0;
        self.line_extensions = 0;
        if self.left == 0 { State::Trailer } else { State::Data }
    }

    fn trailer_line_done(&mut self) -> Result<State, Malformed> {
        if self.line.is_empty() {
            self.line = Vec::new();
            return Ok(State::Done);
        }
        self.trailer_fields += 1;
        let (name, _) = field(&self.line).map_err(|_| Malformed::Chunk)?;
        let known = NO_TRAILERS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        let identity = name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"x-"));
        if known || identity || self.trailer_fields > TRAILER_FIELDS {
            return Err(Malformed::Chunk);
        }
        self.line.clear();
        Ok(State::Trailer)
    }
}

#[cfg(test)]
#[path = "chunks_tests.rs"]
mod tests;
