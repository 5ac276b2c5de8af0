//! An answer's body as it comes by a stream of HTTP/2.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ::h2::RecvStream;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::http2::told;
use crate::request::body::Broken;
use crate::stores::streams::Kill;

/// The body. It ends well only with the end of the stream: a reset without an error (`NO_ERROR`) is none.
pub struct StreamBody {
    recv: RecvStream,
    /// The upstream's time is over.
    stop: Rc<Kill>,
    data_done: bool,
}

impl StreamBody {
    /// Of this stream; `stop` breaks it off.
    pub fn new(recv: RecvStream, stop: Rc<Kill>) -> Self {
        Self { recv, stop, data_done: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ::h2::Error>>> {
        if !self.data_done {
            if let Some(piece) = ready!(self.recv.poll_data(cx)) {
                return Poll::Ready(Some(piece.map(|piece| {
                    // The window opens as pieces are taken; an error shows with the next piece.
                    let _ = self.recv.flow_control().release_capacity(piece.len());
                    Frame::data(piece)
                })));
            }
            self.data_done = true;
        }
        self.recv.poll_trailers(cx).map(|trailers| trailers.map(|some| some.map(Frame::trailers)).transpose())
    }
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        if this.stop.poll_killed(cx) {
            return Poll::Ready(Some(Err("stopped".into())));
        }
        let polled = ready!(this.poll(cx));
        // In words: the code of a reset is between the upstream and us, and none of our client's.
        Poll::Ready(polled.map(|frame| frame.map_err(|error| told(&error).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.recv.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
