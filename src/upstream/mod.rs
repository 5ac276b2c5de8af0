//! A permitted request goes out: over a pool of our own for each worker, streamed both ways, never done twice.

mod answer;
pub mod check;
mod choose;
pub mod connect;
pub mod health;
mod held;
mod http2;
mod patience;
mod pipe;
mod pool;
mod shared;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::h2::RecvStream;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tower::Service;

use self::choose::{Choice, Standing};
use self::connect::Means;
use self::health::{Vitals, Way};
use self::held::{AnswerLease, Held};
use self::patience::{End, Flow, Patience, Wait};
use self::pool::{Lease, Pool};
use self::shared::{Shared, StreamLease};
use self::stream::StreamBody;
use crate::clock::Clock;
use crate::config::cluster::{HealthCheck, Manner};
use crate::config::upstream::{Speaks, Upstream};
use crate::gateway::{Forward, ForwardError, Tunnel, Within, upload};
use crate::request::body::{Body, Source};
use crate::stores::streams::Kill;

/// A host that is gone: its connection is asked after it was silent for this long, this often, and given up in minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// The upstreams as one worker sees them. Cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    common: Rc<Common>,
}

struct Common {
    upstreams: RefCell<HashMap<Upstream, Rc<Connections>>>,
    patience: Rc<Patience>,
    means: Means,
    clock: Clock,
}

/// The connections to one upstream.
struct Connections {
    one_by_one: Rc<Pool>,
    shared: Shared,
    vitals: Arc<Vitals>,
}

impl Upstreams {
    /// Pools of one worker.
    pub fn new(means: Means) -> Self {
        let clock = means.clock.clone();
        let common = Common { upstreams: RefCell::default(), patience: Rc::default(), means, clock };
        Self { common: Rc::new(common) }
    }

    /// Every quarter of a second: ends the waits that took too long, closes connections that idled too long.
    pub fn tick(&self) {
        let now = self.common.clock.now();
        self.common.patience.tick(now);
        let mut upstreams = self.common.upstreams.borrow_mut();
        for one in upstreams.values() {
            one.one_by_one.tick(now);
            one.shared.tick(now);
        }
        upstreams.retain(|_, one| !one.one_by_one.is_forgotten(now) || !one.shared.is_empty());
    }

    fn connections(&self, upstream: &Upstream) -> Rc<Connections> {
        if let Some(known) = self.common.upstreams.borrow().get(upstream) {
            return Rc::clone(known);
        }
        let (means, clock) = (&self.common.means, &self.common.clock);
        let new = Rc::new(Connections {
            one_by_one: Rc::new(Pool::new(upstream.clone(), means.clone(), clock.clone())),
            shared: Shared::new(upstream.clone(), means.clone(), clock.clone()),
            vitals: means.health.of(upstream),
        });
        Rc::clone(self.common.upstreams.borrow_mut().entry(upstream.clone()).or_insert(new))
    }

    async fn forward(self, forward: Forward) -> Result<Response<Body>, ForwardError> {
        let wait = self.wait(&forward);
        wait.on(self.clone().offer(forward)).await.unwrap_or(Err(ForwardError::Timeout("no answer")))
    }

    /// Offers the request to one upstream after the other until one takes it. Once any of it may have been sent it is never
    /// offered again: only the client knows whether that does harm.
    async fn offer(self, mut forward: Forward) -> Result<Response<Body>, ForwardError> {
        let cluster = forward.permit.upstream().clone();
        let mut choice = Choice::new(&cluster, forward.client);
        let mut last = ForwardError::Closed;
        let check = cluster.manner().health.as_ref();
        while let Some(upstream) = choice.next(|upstream| self.standing(upstream, &forward, check)) {
            let connections = self.connections(upstream);
            connections.one_by_one.used();
            let unanswered = match speaks_http2(&forward, upstream) {
                // Apart: most requests go the other way, and would carry its room along.
                true => Box::pin(self.by_http2(&connections, &mut forward, cluster.manner())).await,
                false => self.by_http1(&connections, &mut forward, cluster.manner()).await,
            };
            match unanswered {
                Ok(answer) => return Ok(answer),
                Err(Unanswered { error, unsent: Some(request) }) => {
                    forward.request = *request;
                    last = error;
                }
                Err(Unanswered { error, .. }) => return Err(error),
            }
        }
        // Apart: few requests come to this, and all would carry its room along.
        Box::pin(upload::drain(forward.request.into_body(), forward.asks_first || forward.rpc)).await;
        Err(last)
    }

    fn standing(&self, upstream: &Upstream, forward: &Forward, check: Option<&HealthCheck>) -> Standing {
        let connections = self.connections(upstream);
        let out_for = match check {
            Some(check) if self.common.means.health.is_unwell(upstream, check) => u64::MAX,
            _ => connections.vitals.by(way(forward, upstream)).out_for(self.common.clock.now()),
        };
        Standing { out_for, requests: connections.one_by_one.busy() + connections.shared.busy() }
    }

    async fn by_http1(
        &self,
        connections: &Connections,
        forward: &mut Forward,
        manner: &Manner,
    ) -> Result<Response<Body>, Unanswered> {
        let request = std::mem::take(&mut forward.request);
        let key = forward.tunnel.as_ref().and_then(|_| tunnel::expected_accept(&request));
        let (answer, lease) = exchange(&connections.one_by_one, request, manner.connect_timeout).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(switch(answer, lease, forward.tunnel.take(), key.as_deref())?);
        }
        let stall = (!forward.unpaced).then_some(manner.progress_timeout);
        Ok(self.connection_answer(answer, lease, Rc::clone(&forward.asked_whole), stall))
    }

    async fn by_http2(
        &self,
        connections: &Connections,
        forward: &mut Forward,
        manner: &Manner,
    ) -> Result<Response<Body>, Unanswered> {
        let request = std::mem::take(&mut forward.request);
        let spare = http2::spare(&request);
        let mut lease = match connections.shared.lease(manner.connect_timeout).await {
            Ok(lease) => lease,
            Err(error) => return Err(Unanswered { error, unsent: Some(Box::new(request)) }),
        };
        let answer = match (http2::exchange(&mut lease, request).await, spare) {
            (Ok(answer), _) => answer,
            // It has said that it has done nothing with it (RFC 9113, 8.7).
            (Err(failed), Some(spare)) if failed.refused => {
                lease = connections.shared.lease(manner.connect_timeout).await?;
                http2::exchange(&mut lease, spare).await.map_err(|failed| failed.error)?
            }
            (Err(failed), _) => return Err(failed.error.into()),
        };
        answer::check(&answer)?;
        let stall = (!forward.unpaced).then_some(manner.progress_timeout);
        Ok(self.stream_answer(answer, lease, stall))
    }

    fn wait(&self, forward: &Forward) -> Wait {
        let now = self.common.clock.now();
        match forward.answer_within {
            Within::Usual => {
                let limit = forward.permit.upstream().manner().first_byte_timeout;
                self.common.patience.wait(now, limit, Rc::clone(&forward.progress))
            }
            Within::Time(time) => self.common.patience.wait(now, time, Rc::default()),
            Within::Ever => self.common.patience.wait(now, Duration::MAX, Rc::default()),
        }
    }

    /// The answer's body takes the lease along: the connection is free again when the body has ended, and closed when it
    /// is dropped before.
    fn connection_answer(
        &self,
        answer: Response<Incoming>,
        mut lease: Lease,
        asked_whole: Rc<Cell<bool>>,
        stall: Option<Duration>,
    ) -> Response<Body> {
        lease.judge(&answer, asked_whole);
        answer.map(|body| {
            if http_body::Body::is_end_stream(&body) {
                lease.give_back();
                return Body::Empty;
            }
            let end = stall.zip(lease.driver().cloned().map(End::Close));
            self.watched(Source::Http1(body), Held::Connection(lease), end)
        })
    }

    /// The answer's body takes the lease along: the stream is reset when it is dropped before its end.
    fn stream_answer(
        &self,
        answer: Response<RecvStream>,
        lease: StreamLease,
        stall: Option<Duration>,
    ) -> Response<Body> {
        answer.map(|recv| {
            if recv.is_end_stream() {
                return Body::Empty;
            }
            let stop = Rc::<Kill>::default();
            let end = stall.map(|stall| (stall, End::Kill(Rc::clone(&stop))));
            let body = StreamBody::new(recv, stop);
            self.watched(Source::Own(Box::pin(body)), Held::Stream(lease), end)
        })
    }

    /// `end`: what happens to an answer that stays silent for so long.
    fn watched(&self, source: Source, held: Held, end: Option<(Duration, End)>) -> Body {
        let flow = Flow::owed(Rc::default());
        let now = self.common.clock.now();
        let watch = end.map(|(limit, end)| self.common.patience.watch(now, limit, &flow, end));
        Body::stream(source, Box::new(AnswerLease::new(held, flow, watch)))
    }
}

/// What is spoken follows from scheme and request alone: `h2c` is HTTP/2 in the clear, gRPC is HTTP/2 always (over TLS it is
/// settled there), all else is HTTP/1.1. A WebSocket goes as HTTP/1.1 to any of them: the one way that every server has.
fn speaks_http2(forward: &Forward, upstream: &Upstream) -> bool {
    let known = matches!(upstream.speaks, Speaks::H2c);
    forward.tunnel.is_none() && (known || forward.rpc)
}

fn way(forward: &Forward, upstream: &Upstream) -> Way {
    let calls = matches!(upstream.speaks, Speaks::Https(_)) && speaks_http2(forward, upstream);
    if calls { Way::Calls } else { Way::Usual }
}

impl Service<Forward> for Upstreams {
    type Response = Response<Body>;
    type Error = ForwardError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, ForwardError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ForwardError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, forward: Forward) -> Self::Future {
        Box::pin(self.clone().forward(forward))
    }
}

/// Why there is no answer, and the request itself where nothing of it was sent.
struct Unanswered {
    error: ForwardError,
    unsent: Option<Box<Request<Body>>>,
}

impl From<ForwardError> for Unanswered {
    fn from(error: ForwardError) -> Self {
        Self { error, unsent: None }
    }
}

/// Sends the request on a connection. Only a request of which nothing was sent is tried again, on another connection.
async fn exchange(
    pool: &Rc<Pool>,
    mut request: Request<Body>,
    within: Duration,
) -> Result<(Response<Incoming>, Lease), Unanswered> {
    loop {
        let mut lease = match pool.lease(within).await {
            Ok(lease) => lease,
            Err(error) => return Err(Unanswered { error, unsent: Some(Box::new(request)) }),
        };
        match lease.send(request).await {
            Ok(answer) => {
                answer::check(&answer)?;
                return Ok((answer, lease));
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if lease.is_reused() => request = unsent,
                unsent => {
                    let error = forward_error(&error.into_error());
                    return Err(Unanswered { error, unsent: unsent.map(Box::new) });
                }
            },
        }
    }
}

fn forward_error(error: &hyper::Error) -> ForwardError {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return ForwardError::Closed;
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    ForwardError::Protocol(format!("{error}{cause}{}", tls::remedy_of(error)))
}

/// A 101: to who asked for a WebSocket, with the right proof, a tunnel; to anybody else a broken rule.
fn switch(
    mut answer: Response<Incoming>,
    lease: Lease,
    tunnel: Option<Tunnel>,
    accept: Option<&str>,
) -> Result<Response<Body>, ForwardError> {
    let Some(tunnel) = tunnel else {
        return Err(ForwardError::Protocol("101 to a request that asked for no upgrade".into()));
    };
    if !tunnel::is_true(answer.headers(), accept) {
        return Err(ForwardError::Protocol("101 without the proof of a WebSocket (RFC 6455, 4.1)".into()));
    }
    let upstream = hyper::upgrade::on(&mut answer);
    tunnel::open(tunnel, upstream, lease);
    Ok(answer.map(|_| Body::Empty))
}
