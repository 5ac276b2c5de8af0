//! A request's body on its way up a stream of HTTP/2, no faster than the upstream takes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::request::body::{Body, BodyError};

/// Sends the body to its end, trailers included. One that breaks off resets the stream: it must not look whole.
pub async fn pipe(mut body: Body, mut up: SendStream<Bytes>) {
    loop {
        let sent = match next(&mut body, &mut up).await {
            Next::Over => return,
            Next::Broken => return up.send_reset(Reason::CANCEL),
            Next::End => return drop(up.send_data(Bytes::new(), true)),
            Next::Frame(frame) => match frame.into_data() {
                Ok(data) => {
                    let last = body.is_end_stream();
                    send(data, last, &mut up).await && !last
                }
                // An error here means that the stream is over already.
                Err(frame) => return drop(up.send_trailers(frame.into_trailers().unwrap_or_default())),
            },
        };
        if !sent {
            return;
        }
    }
}

enum Next {
    Frame(Frame<Bytes>),
    End,
    /// The client's doing.
    Broken,
    /// The upstream wants no more.
    Over,
}

/// The next piece, or that the upstream has ended the stream meanwhile.
async fn next(body: &mut Body, up: &mut SendStream<Bytes>) -> Next {
    let frame: Option<Result<Frame<Bytes>, BodyError>> = match poll_fn(|cx| {
        if up.poll_reset(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut *body).poll_frame(cx).map(Some)
    })
    .await
    {
        Some(frame) => frame,
        None => return Next::Over,
    };
    match frame {
        Some(Ok(frame)) => Next::Frame(frame),
        Some(Err(_)) => Next::Broken,
        None => Next::End,
    }
}

/// Sends a piece as the window opens; `false`: the stream is over.
async fn send(mut data: Bytes, last: bool, up: &mut SendStream<Bytes>) -> bool {
    if data.is_empty() {
        return up.send_data(data, last).is_ok();
    }
    while !data.is_empty() {
        up.reserve_capacity(data.len());
        let room = match up.capacity() {
            0 => match poll_fn(|cx| up.poll_capacity(cx)).await {
                Some(Ok(room)) => room,
                _ => return false,
            },
            room => room,
        };
        let piece = data.split_to(room.min(data.len()));
        let ends = last && data.is_empty();
        if !piece.is_empty() && up.send_data(piece, ends).is_err() {
            return false;
        }
    }
    // What is not needed belongs to the other streams.
    up.reserve_capacity(0);
    true
}
