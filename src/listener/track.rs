//! Stands between hyper and the service: says when a request begins, when its answer is decided, when it is done.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};

use super::{Connection, Stream};
use crate::request::body::{Body, BodyError};

/// Requests that a client of HTTP/2 may break off in a row: more than all that a browser can have open when its user
/// leaves a page.
const CANCELLED: u32 = 150;

/// A service whose requests are marked in [`super::watch::Watch`].
pub(crate) struct Tracked<S> {
    service: S,
    connection: Rc<Connection>,
}

impl<S> Tracked<S> {
    pub(crate) fn new(service: S, connection: Rc<Connection>) -> Self {
        Self { service, connection }
    }
}

/// A request in flight, until dropped.
struct InFlight {
    connection: Rc<Connection>,
    /// HTTP/2: its stream, and the place among those that run.
    stream: Option<(Rc<Stream>, usize)>,
    /// The next piece of the answer has been asked for.
    feeding: bool,
    /// The answer went out whole.
    whole: bool,
}

impl InFlight {
    /// A request waits for upstream, not for its client, until there is an answer.
    fn new(connection: Rc<Connection>) -> Self {
        let watch = &connection.watch;
        watch.in_flight.set(watch.in_flight.get() + 1);
        watch.feeding.set(watch.feeding.get() + 1);
        let stream = connection.next_stream.borrow().clone();
        let stream = stream.map(|stream| {
            let place = connection.streams.enter(&stream);
            (stream, place)
        });
        Self { connection, stream, feeding: true, whole: false }
    }

    fn feeding(&mut self, feeding: bool) {
        if self.feeding != feeding {
            self.feeding = feeding;
            let count = &self.connection.watch.feeding;
            count.set(if feeding { count.get() + 1 } else { count.get().saturating_sub(1) });
            if let Some((stream, _)) = &self.stream {
                stream.feeding.set(feeding);
            }
        }
    }
}

impl InFlight {
    fn taken(&self) {
        let taken = match &self.stream {
            Some((stream, _)) => &stream.taken,
            None => &self.connection.watch.taken,
        };
        taken.set(taken.get() + 1);
    }

    /// Rapid reset, slowed down so far that each request is begun before it is reset: each costs us work upstream.
    fn count_cancelled(&self) {
        let cancelled = &self.connection.watch.cancelled;
        if self.whole {
            cancelled.set(cancelled.get().saturating_sub(1));
            return;
        }
        cancelled.set(cancelled.get() + 1);
        if cancelled.get() > CANCELLED {
            self.connection.kill.kill();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.feeding(false);
        let count = &self.connection.watch.in_flight;
        count.set(count.get().saturating_sub(1));
        if let Some((_, place)) = self.stream {
            self.connection.streams.leave(place);
        }
        if self.connection.h2 {
            self.count_cancelled();
        }
    }
}

pin_project_lite::pin_project! {
    /// The service's answer to come.
    pub(crate) struct Answering<F> {
        #[pin]
        answer: F,
        number: u64,
        in_flight: Option<InFlight>,
    }
}

impl<S> Service<Request<Incoming>> for Tracked<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let watch = &self.connection.watch;
        let number = watch.begun.get() + 1;
        watch.begun.set(number);
        watch.mid_head.set(false);
        // A tunnel whose client left in the moment in which it began has left this behind: it is no other stream's.
        self.connection.next_tunnel.take();
        let answer = self.service.call(request);
        let in_flight = InFlight::new(Rc::clone(&self.connection));
        Answering { answer, number, in_flight: Some(in_flight) }
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<TrackedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut answer) = std::task::ready!(this.answer.poll(cx));
        if let Some(in_flight) = this.in_flight {
            let connection = &in_flight.connection;
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS && !connection.h2 {
                connection.tunnel.set(true);
            } else if connection.watch.closing.get() && !connection.h2 {
                // Whoever asks while we are closing is served, and told to go elsewhere.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            connection.watch.answer(*this.number);
        }
        let in_flight = this.in_flight.take();
        Poll::Ready(Ok(answer.map(|body| TrackedBody { body, in_flight })))
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.whole = self.body.is_end_stream();
        }
    }
}

/// An answer's body: as long as it lives the request is in flight.
pub(crate) struct TrackedBody {
    body: Body,
    in_flight: Option<InFlight>,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(in_flight) = &mut this.in_flight {
            in_flight.feeding(frame.is_pending());
            if frame.is_ready() {
                in_flight.taken();
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
