//! One concrete body for both directions: small, so that futures that hold it stay small.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

/// What a body breaks off with.
pub type Broken = Box<dyn Error + Send + Sync>;

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
    source: Source,
    tail: Box<dyn Tail>,
    done: bool,
    /// What is still to be said behind the last piece.
    epilogue: Option<HeaderMap>,
}

/// Where a streamed body comes from.
pub enum Source {
    /// HTTP/1.1, by hyper.
    Http1(Incoming),
    /// HTTP/2, by hyper.
    Http2(Incoming),
    /// HTTP/2, by a connection of our own.
    Own(Pin<Box<dyn HttpBody<Data = Bytes, Error = Broken>>>),
}

/// Watches a streamed body; lives exactly as long as the body, so what it owns (registrations, leases, permits) does too.
pub trait Tail {
    /// A piece of data passes.
    ///
    /// # Errors
    /// To cut the body off here: over its limit, or cut by a block.
    fn data(&mut self, piece: &Bytes) -> Result<(), BodyError>;
    /// The body ended as it should; never called for one that was cut short.
    fn complete(&mut self);
    /// The peer broke the body off.
    fn broken(&mut self, error: &(dyn Error + 'static)) {
        let _ = error;
    }
    /// The next piece is waited for, or has come.
    fn waiting(&mut self, waiting: bool) {
        let _ = waiting;
    }
    /// Why it was broken off, where that is known here better than below.
    fn cause(&self) -> Option<&'static str> {
        None
    }
    /// What of the trailers may pass; `None`: they end here.
    fn trailers(&mut self, trailers: HeaderMap) -> Option<HeaderMap> {
        let _ = trailers;
        None
    }
    /// Trailers in place of those that did not come, or of the rest of a body that broke off.
    fn epilogue(&mut self, broken: bool) -> Option<HeaderMap> {
        let _ = broken;
        None
    }
}

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The peer broke off, or broke the rules.
    #[error("the peer broke the body off")]
    Peer(#[source] Broken),
    /// Over its limit.
    #[error("the body is larger than its limit")]
    TooLarge,
    /// A block cut it.
    #[error("cut by a block")]
    Cut,
}

impl Body {
    /// A body streamed from a peer.
    pub fn stream(source: Source, tail: Box<dyn Tail>) -> Self {
        Self::Stream(Box::new(Stream { source, tail, done: false, epilogue: None }))
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
            Self::Stream(stream) => stream.done && stream.epilogue.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.source.size_hint(),
        }
    }
}

impl Stream {
    /// Puts another watcher around the one that is there.
    #[must_use]
    pub fn wrap(self, outer: impl FnOnce(Box<dyn Tail>) -> Box<dyn Tail>) -> Self {
        Self { tail: outer(self.tail), ..self }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(self.epilogue.take().map(|said| Ok(Frame::trailers(said))));
        }
        let polled = self.source.poll_frame(cx);
        self.tail.waiting(polled.is_pending());
        let frame = match std::task::ready!(polled) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                self.done = true;
                self.tail.broken(&*error);
                let said = self.tail.epilogue(true).map(Frame::trailers);
                return Poll::Ready(Some(said.ok_or(BodyError::Peer(error))));
            }
            None => {
                self.finish();
                return self.poll(cx);
            }
        };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.last(frame),
        };
        if let Err(error) = self.tail.data(&data) {
            self.done = true;
            return Poll::Ready(Some(Err(error)));
        }
        if self.source.is_end_stream() {
            self.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn last(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let trailers = frame.into_trailers().unwrap_or_default();
        let passing = self.tail.trailers(trailers);
        self.finish();
        let said = passing.or(self.epilogue.take());
        Poll::Ready(said.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn finish(&mut self) {
        if !self.done {
            self.done = true;
            self.tail.complete();
            self.epilogue = self.tail.epilogue(false);
        }
    }
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let (incoming, h2) = match self {
            Self::Own(body) => return body.as_mut().poll_frame(cx),
            Self::Http1(incoming) => (incoming, false),
            Self::Http2(incoming) => (incoming, true),
        };
        let frame = std::task::ready!(Pin::new(&mut *incoming).poll_frame(cx));
        // hyper takes a reset without an error for an end.
        if frame.is_none() && h2 && !incoming.is_end_stream() {
            return Poll::Ready(Some(Err("reset in the middle of the body".into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) | Self::Http2(incoming) => incoming.is_end_stream(),
            Self::Own(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) | Self::Http2(incoming) => incoming.size_hint(),
            Self::Own(body) => body.size_hint(),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("done", &self.done).finish_non_exhaustive()
    }
}
