//! An answer's body held back until somebody has looked at it: all of it, or, when it is too long, as it was.
//!
//! One rule for all who look (the login guard, the judge of what is handed out, the companion cookie): what is longer than
//! [`ANSWER`], however it is framed, or in an encoding that we do not know, reads as nothing and goes on untouched. Where that
//! must not be handed out unread its judge withholds it; our own limit is never an answer of its own.

use std::borrow::Cow;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, HeaderMap};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;

use super::lesson::ANSWER;
use crate::request::body::{Body, BodyError, Broken, Source, Tail};

/// What a held body of at most [`ANSWER`] bytes may become when it is unpacked.
const UNPACKED: u64 = 1 << 20;

/// What was held.
#[derive(Debug)]
pub enum Held {
    /// All of it.
    Whole(Bytes),
    /// More than may be held: the beginning is put in front again.
    Longer(Body),
}

/// Holds a body; `None`: it broke off.
pub async fn hold(mut body: Body) -> Option<Held> {
    if body.size_hint().lower() > ANSWER as u64 {
        return Some(Held::Longer(body));
    }
    // Somebody has held it before.
    if let Body::Full(bytes) = body {
        return Some(Held::Whole(bytes));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        read.extend_from_slice(&data);
        if read.len() > ANSWER {
            let source = Source::Own(Box::pin(Ahead { first: Some(read.freeze()), rest: body }));
            return Some(Held::Longer(Body::stream(source, Box::new(Unwatched))));
        }
    }
    Some(Held::Whole(read.freeze()))
}

/// The body as it reads; `None`: in an encoding that we do not know, broken, or too large.
fn decoded<'b>(headers: &HeaderMap, body: &'b [u8]) -> Option<Cow<'b, [u8]>> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let (encoding, None) = (encodings.next(), encodings.next()) else { return None };
    let name = encoding.map(|encoding| encoding.as_bytes().trim_ascii().to_ascii_lowercase());
    match name.as_deref() {
        _ if body.is_empty() => Some(body.into()),
        None | Some(b"identity") => Some(body.into()),
        Some(b"gzip" | b"x-gzip") => unpacked(MultiGzDecoder::new(body)),
        Some(b"deflate") => unpacked(ZlibDecoder::new(body)),
        Some(_) => None,
    }
}

fn unpacked(from: impl Read) -> Option<Cow<'static, [u8]>> {
    let mut bytes = Vec::new();
    from.take(UNPACKED + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= UNPACKED).then_some(bytes.into())
}

impl Held {
    /// As it reads, below these headers; `None`: it cannot be read.
    pub fn read<'h>(&'h self, headers: &HeaderMap) -> Option<Cow<'h, [u8]>> {
        match self {
            Self::Whole(bytes) => decoded(headers, bytes),
            Self::Longer(_) => None,
        }
    }

    /// To be sent on.
    pub fn into_body(self) -> Body {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => Body::Empty,
            Self::Whole(bytes) => Body::Full(bytes),
            Self::Longer(body) => body,
        }
    }
}

/// A body behind what was read of it.
struct Ahead {
    first: Option<Bytes>,
    rest: Body,
}

impl HttpBody for Ahead {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        Pin::new(&mut self.rest).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }
}

/// What watches the body watches its rest already.
struct Unwatched;

impl Tail for Unwatched {
    fn data(&mut self, _: &Bytes) -> Result<(), BodyError> {
        Ok(())
    }

    fn complete(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn named(encodings: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        encodings.iter().for_each(|one| {
            headers.append(CONTENT_ENCODING, http::HeaderValue::from_static(one));
        });
        headers
    }

    #[test]
    fn a_packed_answer_is_unpacked_and_what_nobody_can_unpack_is_not_read() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(b"token").unwrap();
        let gzip = gzip.finish().unwrap();
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(b"token").unwrap();
        for (encodings, body) in [
            (&[][..], b"token".to_vec()),
            (&["Identity"], b"token".to_vec()),
            (&["gzip"], gzip.clone()),
            (&["deflate"], zlib.finish().unwrap()),
        ] {
            assert_eq!(decoded(&named(encodings), &body).as_deref(), Some(&b"token"[..]), "{encodings:?}");
        }
        for encodings in [&["br"][..], &["gzip", "gzip"], &["gzip, gzip"], &["deflate"]] {
            assert!(decoded(&named(encodings), &gzip).is_none(), "{encodings:?}");
        }
        assert!(decoded(&named(&["gzip"]), &gzip[..gzip.len() - 9]).is_none(), "cut");
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![0; 8 << 20]).unwrap();
        let gzip = gzip.finish().unwrap();
        assert!(gzip.len() <= ANSWER && decoded(&named(&["gzip"]), &gzip).is_none());
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_comes_out_as_it_went_in() {
        let long = Bytes::from(vec![b'x'; ANSWER + 1]);
        let Some(Held::Longer(body)) = hold(Body::Full(long.clone())).await else { panic!("held") };
        assert_eq!(body.collect().await.unwrap().to_bytes(), long);
        let rest = Body::Full(Bytes::from_static(b"rest"));
        let ahead = Ahead { first: Some(Bytes::from_static(b"first ")), rest };
        let body = Body::stream(Source::Own(Box::pin(ahead)), Box::new(Unwatched));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "first rest");
    }
}
