//! An HTTP/2 client that sends any frame it is told, and an encoder of header blocks that refuses nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::gate::Gate;
use super::{HOST, raw};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// A connection after its preface.
pub struct Frames {
    stream: TlsStream<TcpStream>,
}

/// A frame as it came.
#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Reset(u32),
    /// GOAWAY with an error, or the end of the connection.
    Closed,
    /// Nothing in time.
    Nothing,
}

impl Frames {
    /// Connects, with these settings (identifier, value).
    pub async fn open(gate: &Gate, settings: &[(u16, u32)]) -> Self {
        let config = raw::trusting(&gate.ca(), &["h2"]);
        let stream = raw::tls(gate.https, HOST, config).await.expect("a TLS connection");
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let mut frames = Self { stream };
        let preface =
            [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &payload)].concat();
        assert!(frames.send(&preface).await);
        frames
    }

    /// Sends; whether the peer still takes it.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        matches!(timeout(raw::LIMIT, sent).await, Ok(Ok(())))
    }

    /// The next frame; `None` at the end or after `limit`.
    pub async fn next(&mut self, limit: Duration) -> Option<Frame> {
        timeout(limit, self.read()).await.ok()?
    }

    /// Whether the connection ends in time; frames are read and dropped until then.
    pub async fn ends_within(&mut self, limit: Duration) -> bool {
        timeout(limit, async { while self.read().await.is_some() {} }).await.is_ok()
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        let frame = Frame { kind: head[3], flags: head[4], id, payload };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            let _ = self.stream.write_all(&self::frame(SETTINGS, ACK, 0, &[])).await;
        }
        if frame.kind == PING && frame.flags & ACK == 0 {
            let _ = self.stream.write_all(&self::frame(PING, ACK, 0, &frame.payload)).await;
        }
        let _ = self.stream.flush().await;
        Some(frame)
    }

    /// What becomes of a stream: the status of a whole answer, or its end without one.
    pub async fn outcome(&mut self, id: u32) -> Outcome {
        let reading = async {
            let mut status = None;
            while let Some(frame) = self.read().await {
                match frame.kind {
                    GOAWAY if frame.payload[4..8] != [0; 4] => return Outcome::Closed,
                    RST_STREAM if frame.id == id => {
                        let code = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
                        // An answer may end before the request does: RST_STREAM(NO_ERROR) behind it.
                        return status.map_or(Outcome::Reset(code), Outcome::Status);
                    }
                    HEADERS if frame.id == id => status = status.or(Some(status_of(&frame.payload))),
                    _ => {}
                }
                let ends = matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
                if let (true, Some(status)) = (ends && frame.id == id, status) {
                    return Outcome::Status(status);
                }
            }
            Outcome::Closed
        };
        timeout(raw::LIMIT, reading).await.unwrap_or(Outcome::Nothing)
    }

    /// One request without a body, on this stream.
    pub async fn ask(&mut self, id: u32, fields: &[(&[u8], &[u8])]) -> Outcome {
        self.send(&headers(id, fields, END_STREAM)).await;
        self.outcome(id).await
    }
}

/// A frame.
pub fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// A whole header block in one frame.
pub fn headers(id: u32, fields: &[(&[u8], &[u8])], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, id, &block(fields))
}

/// The fields of an ordinary request.
pub fn request<'a>(method: &'a [u8], path: &'a [u8]) -> Vec<(&'a [u8], &'a [u8])> {
    vec![(b":method", method), (b":scheme", b"https"), (b":authority", HOST.as_bytes()), (b":path", path)]
}

/// A header block of literals, never indexed, never compressed.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        string(&mut out, name);
        string(&mut out, value);
    }
    out
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    // An integer with a prefix of seven bits (RFC 7541, 5.1).
    let mut length = text.len();
    if length < 127 {
        out.push(u8::try_from(length).unwrap());
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(u8::try_from(length % 128).unwrap() | 128);
            length /= 128;
        }
        out.push(u8::try_from(length).unwrap());
    }
    out.extend_from_slice(text);
}

/// The status, which comes first in a block: indexed, or a literal of the name at place 8.
fn status_of(block: &[u8]) -> u16 {
    // The table's size may be set first.
    let at = block.iter().position(|byte| byte & 0xe0 != 0x20).unwrap();
    match block[at] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        0x48 | 0x08 | 0x18 => {
            let length = usize::from(block[at + 1] & 0x7f);
            let text = &block[at + 2..at + 2 + length];
            if block[at + 1] & 0x80 == 0 {
                String::from_utf8_lossy(text).parse().unwrap()
            } else {
                digits(text)
            }
        }
        // A status that came before, from the table: the tests compare these with others only.
        indexed => u16::from(indexed),
    }
}

/// Three digits in the code of Huffman (RFC 7541, appendix B): five bits up to 2, else six.
fn digits(text: &[u8]) -> u16 {
    let mut bits = text.iter().flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let five = (0..5).fold(0, |sum, _| sum * 2 + bits.next().unwrap());
        let digit = if five <= 2 { five } else { five * 2 + bits.next().unwrap() - 0x19 + 3 };
        number = number * 10 + digit;
    }
    number
}
