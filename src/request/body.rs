//! One concrete body for both directions: small, so that futures that hold it stay small.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

/// A body of a request or an answer.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// All of it at hand.
    Full(Bytes),
    /// Streamed from a peer, watched by a [`Tail`].
    Stream(Box<Stream>),
}

/// A streamed body and what watches it.
pub struct Stream {
    incoming: Incoming,
    tail: Box<dyn Tail>,
    done: bool,
}

/// Watches a streamed body; lives exactly as long as the body, so what it owns (registrations, leases, permits) does too.
pub trait Tail {
    /// A piece of data passes.
    ///
    /// # Errors
    /// To cut the body off here: over its limit, or cut by a block.
    fn data(&mut self, piece: &Bytes) -> Result<(), BodyError>;
    /// The peer is waited for, or no longer; said at every look, not only when it changes.
    fn waits(&mut self, waits: bool) {
        let _ = waits;
    }
    /// The body ended as it should; never called for one that was cut short.
    fn complete(&mut self);
    /// The peer broke the body off.
    fn broken(&mut self, error: &hyper::Error) {
        let _ = error;
    }
    /// Whether trailers may pass.
    fn trailers(&self) -> bool {
        false
    }
}

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer broke off, or broke the rules.
    #[error("the peer broke the body off")]
    Peer(#[source] hyper::Error),
    /// Over its limit.
    #[error("the body is larger than its limit")]
    TooLarge,
    /// A block cut it.
    #[error("cut by a block")]
    Cut,
}

impl Body {
    /// A body streamed from a peer.
    pub fn stream(incoming: Incoming, tail: Box<dyn Tail>) -> Self {
        Self::Stream(Box::new(Stream { incoming, tail, done: false }))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Full(Bytes::from_static(text.as_bytes()))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Full(Bytes::from(text))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.done,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}

impl Stream {
    /// Puts another watcher around the one that is there.
    #[must_use]
    pub fn wrap(self, outer: impl FnOnce(Box<dyn Tail>) -> Box<dyn Tail>) -> Self {
        Self { incoming: self.incoming, tail: outer(self.tail), done: self.done }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        self.tail.waits(polled.is_pending());
        let frame = match std::task::ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.done = true;
                self.tail.broken(&error);
                return Poll::Ready(Some(Err(BodyError::Peer(error))));
            }
            None => {
                self.finish();
                return Poll::Ready(None);
            }
        };
        match frame.data_ref() {
            Some(piece) => {
                if let Err(error) = self.tail.data(piece) {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                if self.incoming.is_end_stream() {
                    self.finish();
                }
            }
            None if !self.tail.trailers() => {
                self.finish();
                return Poll::Ready(None);
            }
            None => self.finish(),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn finish(&mut self) {
        if !self.done {
            self.done = true;
            self.tail.complete();
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("done", &self.done).finish_non_exhaustive()
    }
}
