//! The body of a login, held while the guard reads it: bounded in time, in bytes, and over all clients.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;

use crate::guards::Reason;
use crate::request::body::{Body, BodyError, Broken, Source, Tail};
use crate::request::client::Client;
use crate::stores::held::{Held, Room};

/// How long all of a body may take.
const WITHIN: Duration = Duration::from_secs(10);

/// A body, as far as it was read.
#[derive(Debug)]
pub struct Holding {
    /// What was read.
    pub bytes: Bytes,
    /// What was not, when there is a reason.
    rest: Option<Body>,
    /// Why not all of it was read.
    pub unread: Option<Reason>,
    /// Its part of the room.
    _held: Option<Held>,
}

impl Holding {
    /// The body to forward, byte for byte.
    pub fn into_body(self) -> Body {
        match self.rest {
            None if self.bytes.is_empty() => Body::Empty,
            None => Body::Full(self.bytes),
            Some(rest) => {
                let chain = Chain { first: Some(self.bytes).filter(|first| !first.is_empty()), rest };
                Body::stream(Source::Own(Box::pin(chain)), Box::new(Unwatched))
            }
        }
    }

    /// Nothing read: of a try whose secret is not in its body.
    pub fn unread(body: Body) -> Self {
        Self { bytes: Bytes::new(), rest: Some(body), unread: None, _held: None }
    }

    /// Without its bytes: what stays until the application has answered.
    pub fn room(&mut self) -> Option<Held> {
        self._held.take()
    }
}

/// Reads a body of at most so many bytes.
///
/// # Errors
/// When it breaks off, breaks the rules, or passes the limit of its class.
pub async fn hold(body: Body, most: u64, room: &Arc<Room>, client: Client) -> Result<Holding, BodyError> {
    hold_within(WITHIN, body, most, (room, client)).await
}

async fn hold_within(
    within: Duration,
    body: Body,
    most: u64,
    (room, client): (&Arc<Room>, Client),
) -> Result<Holding, BodyError> {
    let Some(mut held) = room.begin(client) else {
        let unread = Some(Reason::LoginsFull);
        return Ok(Holding { unread, ..Holding::unread(body) });
    };
    let mut reading = Reading { body, first: Bytes::new(), more: BytesMut::new() };
    let read = tokio::time::timeout(within, reading.read(most, &mut held)).await;
    let unread = match read {
        Ok(Ok(unread)) => unread,
        Ok(Err(error)) => return Err(error),
        Err(_) => Some(Reason::LoginSlow),
    };
    let (bytes, body) = reading.into_parts();
    Ok(Holding { bytes, rest: unread.map(|_| body), unread, _held: Some(held) })
}

/// One piece, as most bodies are, is not copied.
struct Reading {
    body: Body,
    first: Bytes,
    more: BytesMut,
}

impl Reading {
    async fn read(&mut self, most: u64, held: &mut Held) -> Result<Option<Reason>, BodyError> {
        while let Some(frame) = self.body.frame().await {
            let Ok(piece) = frame?.into_data() else { continue };
            let room = held.grow(piece.len());
            self.take(piece);
            if self.first.len().max(self.more.len()) as u64 > most {
                return Ok(Some(Reason::BodyTooLarge));
            }
            if !room {
                return Ok(Some(Reason::LoginsFull));
            }
        }
        Ok(None)
    }

    fn take(&mut self, piece: Bytes) {
        if self.first.is_empty() {
            self.first = piece;
        } else {
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.first);
            }
            self.more.extend_from_slice(&piece);
        }
    }

    fn into_parts(self) -> (Bytes, Body) {
        let bytes = if self.more.is_empty() { self.first } else { self.more.freeze() };
        (bytes, self.body)
    }
}

/// What was read, and then the rest.
struct Chain {
    first: Option<Bytes>,
    rest: Body,
}

impl HttpBody for Chain {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        Pin::new(&mut self.rest).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }
}

/// The rest is watched already.
struct Unwatched;

impl Tail for Unwatched {
    fn data(&mut self, _: &Bytes) -> Result<(), BodyError> {
        Ok(())
    }

    fn complete(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const HERE: Client = Client::Unknown;

    /// Pieces, and then an end or nothing more.
    struct Pieces(VecDeque<&'static [u8]>, bool);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Broken;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
            match self.0.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece))))),
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn body(pieces: &[&'static [u8]], ends: bool) -> Body {
        let pieces = Pieces(pieces.iter().copied().collect(), ends);
        Body::stream(Source::Own(Box::pin(pieces)), Box::new(Unwatched))
    }

    async fn held(within: u64, body: Body, most: u64) -> Holding {
        let room = Arc::<Room>::default();
        hold_within(Duration::from_millis(within), body, most, (&room, HERE)).await.unwrap()
    }

    #[tokio::test]
    async fn a_body_is_held_whole_or_up_to_where_it_is_too_long() {
        let whole = held(5000, body(&[b"abc", b"de", b"", b"f"], true), 6).await;
        assert_eq!((&*whole.bytes, whole.unread), (&b"abcdef"[..], None));
        let long = held(5000, body(&[b"abc", b"de", b"fg"], true), 4).await;
        assert_eq!(long.unread, Some(Reason::BodyTooLarge));
        let all = long.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(all, &b"abcdefg"[..], "where the guard only observes all of it goes on");
        assert!(matches!(held(5000, body(&[], true), 4).await.into_body(), Body::Empty));
    }

    #[tokio::test]
    async fn who_does_not_send_is_not_waited_for() {
        let slow = held(20, body(&[b"abc"], false), 100).await;
        assert_eq!((&*slow.bytes, slow.unread), (&b"abc"[..], Some(Reason::LoginSlow)));
    }
}
