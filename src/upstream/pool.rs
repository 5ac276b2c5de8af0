//! Idle connections of HTTP/1.1 to one upstream, of one worker: last in, first out.
//!
//! A connection goes back only when its answer has ended as announced, with no status of 500 or above and no
//! `Connection: close`; hyper closes it by itself when the upstream sends a byte that nobody asked for. A lease that is
//! dropped before closes its connection at once: the upstream sees that nobody listens any more.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::task::AbortHandle;

use super::connect::{Connected, Means, for_http1};
use crate::clock::{Clock, Now};
use crate::config::upstream::Upstream;
use crate::gateway::ForwardError;
use crate::request::body::Body;

/// uvicorn closes after five seconds of silence; one that we would just reuse then must not be among ours.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept for each worker and upstream: as many as a few busy HTTP/2 clients use at once, since each one
/// over it is opened anew for every request.
const MAX_IDLE: usize = 512;
/// A name may lead elsewhere by now: no connection serves for ever.
pub const OLDEST: Duration = Duration::from_secs(300);
/// An upstream that nobody asked for any more, after a reload.
const FORGET: Duration = Duration::from_secs(600);

/// The idle connections of one upstream.
pub struct Pool {
    upstream: Upstream,
    means: Means,
    clock: Clock,
    idle: RefCell<Vec<Idle>>,
    last_used: Cell<u64>,
    /// Connections in use.
    busy: Cell<usize>,
}

struct Idle {
    connected: Option<Connected>,
    since: u64,
}

/// A connection in use.
pub struct Lease {
    pool: Rc<Pool>,
    connected: Option<Connected>,
    reused: bool,
    reusable: bool,
    /// Whether the whole request has been taken: an answer may come before.
    asked_whole: Rc<Cell<bool>>,
}

// === impl Pool ===

impl Pool {
    /// An empty pool.
    pub fn new(upstream: Upstream, means: Means, clock: Clock) -> Self {
        let last_used = Cell::new(clock.now().mono_ms());
        Self { upstream, means, clock, idle: RefCell::default(), last_used, busy: Cell::new(0) }
    }

    /// A connection: the one that idled last, or a new one within this time.
    ///
    /// # Errors
    /// Why none came about.
    pub async fn lease(self: &Rc<Self>, within: Duration) -> Result<Lease, ForwardError> {
        while let Some(connected) = self.take() {
            let lease = self.lease_of(connected, true);
            // The runtime hears of a close or of stray bytes later than the kernel does.
            if lease.is_quiet() {
                return Ok(lease);
            }
        }
        // Apart, since it is large and rare: the requests' own futures are copied when they begin.
        let connected = Box::pin(for_http1(&self.upstream, &self.means, within)).await?;
        Ok(self.lease_of(connected, false))
    }

    fn lease_of(self: &Rc<Self>, connected: Connected, reused: bool) -> Lease {
        self.busy.set(self.busy.get() + 1);
        Lease {
            pool: Rc::clone(self),
            connected: Some(connected),
            reused,
            reusable: false,
            asked_whole: Rc::default(),
        }
    }

    /// The upstream was asked for.
    pub fn used(&self) {
        self.last_used.set(self.clock.now().mono_ms());
    }

    /// Connections in use.
    pub fn busy(&self) -> usize {
        self.busy.get()
    }

    fn take(&self) -> Option<Connected> {
        let mut idle = self.idle.borrow_mut();
        // Given back, but their task has not come to rest yet.
        let mut busy = Vec::new();
        let mut found = None;
        while let Some(mut one) = idle.pop() {
            match &one.connected {
                Some(connected) if connected.sender.is_ready() => {
                    found = one.connected.take();
                    break;
                }
                Some(connected) if !connected.sender.is_closed() => busy.push(one),
                _ => {}
            }
        }
        idle.extend(busy.into_iter().rev());
        found
    }

    fn put(&self, connected: Connected) {
        let mut idle = self.idle.borrow_mut();
        let now = self.clock.now();
        if idle.len() < MAX_IDLE && !passed(connected.born, OLDEST, now) {
            idle.push(Idle { connected: Some(connected), since: now.mono_ms() });
        } else {
            connected.driver.abort();
        }
    }

    /// Closes what idled too long.
    pub fn tick(&self, now: Now) {
        self.idle.borrow_mut().retain(|one| !passed(one.since, IDLE, now));
    }

    /// Nobody has asked for it for a long time.
    pub fn is_forgotten(&self, now: Now) -> bool {
        self.idle.borrow().is_empty() && passed(self.last_used.get(), FORGET, now)
    }
}

/// Whether so much time has passed.
pub fn passed(since: u64, limit: Duration, now: Now) -> bool {
    u128::from(now.mono_ms().saturating_sub(since)) >= limit.as_millis()
}

impl Drop for Idle {
    fn drop(&mut self) {
        if let Some(connected) = &self.connected {
            connected.driver.abort();
        }
    }
}

// === impl Lease ===

impl Lease {
    /// Sends a request and waits for the head of its answer. The error gives the request back when nothing of it was sent.
    pub async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let Some(connected) = &mut self.connected else {
            unreachable!("a lease holds its connection until it ends")
        };
        connected.line.asked();
        let answer = connected.sender.try_send_request(request).await;
        connected.line.answered();
        answer
    }

    fn is_quiet(&self) -> bool {
        self.connected.as_ref().is_some_and(|connected| connected.line.is_quiet())
    }

    /// Ends the connection.
    pub fn driver(&self) -> Option<&AbortHandle> {
        self.connected.as_ref().map(|connected| &connected.driver)
    }

    /// The connection had served before: the upstream may have closed it meanwhile.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Decides by an answer's head whether the connection may be used again.
    pub fn judge(&mut self, answer: &Response<Incoming>, asked_whole: Rc<Cell<bool>>) {
        self.asked_whole = asked_whole;
        let closes = answer.headers().get_all(http::header::CONNECTION).iter().any(|line| {
            line.as_bytes()
                .split(|byte| *byte == b',')
                .any(|one| one.trim_ascii().eq_ignore_ascii_case(b"close"))
        });
        self.reusable = !closes && answer.status() < StatusCode::INTERNAL_SERVER_ERROR;
    }

    /// The answer has ended as it should.
    pub fn give_back(&mut self) {
        // One that is not reusable stays here and is closed with the lease.
        if !self.reusable || !self.asked_whole.get() {
            return;
        }
        if let Some(connected) = self.connected.take() {
            self.pool.put(connected);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.busy.set(self.pool.busy.get().saturating_sub(1));
        if let Some(connected) = &self.connected {
            connected.driver.abort();
        }
    }
}
