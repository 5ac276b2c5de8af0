//! A permitted request goes out: over a pool of our own for each worker, streamed both ways, never sent twice.

mod answer;
pub mod connect;
pub mod health;
mod patience;
mod pool;
mod tunnel;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tower::Service;

use self::connect::Means;
use self::patience::{Flow, Patience};
use self::pool::{Lease, Pool};
use crate::clock::Clock;
use crate::config::settings::Upstream;
use crate::gateway::{Forward, ForwardError, Tunnel};
use crate::request::body::Body;

/// How long an upstream may take to its first byte, once the client's body has stopped moving.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may pause in the middle of an answer; `live` and `rpc` may for ever.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// The upstreams as one worker sees them. Cheap to clone.
#[derive(Clone)]
pub struct Upstreams {
    shared: Rc<Shared>,
}

struct Shared {
    pools: RefCell<HashMap<Upstream, Rc<Pool>>>,
    patience: Rc<Patience>,
    means: Means,
    clock: Clock,
}

impl Upstreams {
    /// Pools of one worker.
    pub fn new(means: Means, clock: Clock) -> Self {
        let shared = Shared { pools: RefCell::default(), patience: Rc::default(), means, clock };
        Self { shared: Rc::new(shared) }
    }

    /// Every quarter of a second: ends the waits that took too long, closes connections that idled too long.
    pub fn tick(&self) {
        let now = self.shared.clock.now();
        self.shared.patience.tick(now);
        let mut pools = self.shared.pools.borrow_mut();
        pools.values().for_each(|pool| pool.tick(now));
        pools.retain(|_, pool| !pool.is_forgotten(now));
    }

    fn pool(&self, upstream: &Upstream) -> Rc<Pool> {
        if let Some(pool) = self.shared.pools.borrow().get(upstream) {
            return Rc::clone(pool);
        }
        let pool = Rc::new(Pool::new(upstream.clone(), self.shared.means.clone(), self.shared.clock.clone()));
        Rc::clone(self.shared.pools.borrow_mut().entry(upstream.clone()).or_insert(pool))
    }

    async fn forward(self, forward: Forward) -> Result<Response<Body>, ForwardError> {
        let Forward { permit, request, progress, asked_whole, unpaced, tunnel } = forward;
        let pool = self.pool(permit.upstream());
        let key = tunnel.as_ref().and_then(|_| tunnel::expected_accept(&request));
        let wait = self.shared.patience.wait(self.shared.clock.now(), ANSWER_TIMEOUT, progress);
        let (answer, lease) = match wait.on(exchange(&pool, request)).await {
            Some(answered) => answered?,
            None => return Err(ForwardError::Timeout("no answer")),
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switch(answer, lease, tunnel, key.as_deref());
        }
        Ok(self.stream(answer, lease, asked_whole, unpaced))
    }

    /// The answer's body takes the lease along: the connection is free again when the body has ended, and closed when it
    /// is dropped before.
    fn stream(
        &self,
        answer: Response<Incoming>,
        mut lease: Lease,
        asked_whole: Rc<Cell<bool>>,
        unpaced: bool,
    ) -> Response<Body> {
        lease.judge(&answer, asked_whole);
        answer.map(|body| {
            if http_body::Body::is_end_stream(&body) {
                lease.give_back();
                return Body::Empty;
            }
            let flow = Flow::owed(Rc::default());
            let now = self.shared.clock.now();
            let driver = lease.driver().filter(|_| !unpaced).cloned();
            let watch = driver.map(|driver| self.shared.patience.watch(now, STALL_TIMEOUT, &flow, driver));
            Body::stream(body, Box::new(pool::AnswerLease::new(lease, flow, watch)))
        })
    }
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

/// Sends the request on a connection. Only a request of which nothing was sent is tried again, on another connection.
async fn exchange(
    pool: &Rc<Pool>,
    mut request: Request<Body>,
) -> Result<(Response<Incoming>, Lease), ForwardError> {
    loop {
        let mut lease = pool.lease().await?;
        match lease.send(request).await {
            Ok(answer) => {
                answer::check(&answer)?;
                return Ok((answer, lease));
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if lease.is_reused() => request = unsent,
                _ => return Err(forward_error(&error.into_error())),
            },
        }
    }
}

fn forward_error(error: &hyper::Error) -> ForwardError {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return ForwardError::Closed;
    }
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    ForwardError::Protocol(format!("{error}{cause}"))
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
