//! The HTTP/2 connections to one upstream, of one worker, each shared by many streams.
//!
//! A new one is opened when all are full or have said goodbye; those who wait for it meanwhile share it, and its failure too.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::connect::{Means, for_http2};
use super::http2::{Carrier, is_open};
use super::pool::{OLDEST, passed};
use crate::clock::{Clock, Now};
use crate::config::upstream::Upstream;
use crate::gateway::ForwardError;

/// A connection without streams; as for HTTP/1.1, before common servers close it.
const IDLE: Duration = Duration::from_secs(4);
/// Connections of one worker to one upstream: many thousand streams.
const CONNECTIONS: usize = 64;
/// Connections that say goodbye before they have carried anything.
const TRIES: usize = 3;

/// The connections.
pub struct Shared {
    upstream: Upstream,
    means: Means,
    clock: Clock,
    open: RefCell<Vec<Rc<Carrier>>>,
    connecting: Mutex<()>,
    /// Tries to connect that have failed: who waited for one of them fails with it.
    failures: Cell<u64>,
}

/// One stream; reset at once when this is dropped before its end.
pub struct StreamLease {
    carrier: Rc<Carrier>,
    clock: Clock,
    /// What sends the request's body.
    up: Option<AbortHandle>,
}

impl Shared {
    /// No connection yet.
    pub fn new(upstream: Upstream, means: Means, clock: Clock) -> Self {
        let open = RefCell::default();
        Self { upstream, means, clock, open, connecting: Mutex::new(()), failures: Cell::new(0) }
    }

    /// Room for a stream on a connection that takes it.
    ///
    /// # Errors
    /// [`ForwardError`], when there is none and none can be made.
    pub async fn lease(&self, within: Duration) -> Result<StreamLease, ForwardError> {
        for _ in 0..TRIES {
            let lease = match self.find() {
                Some(lease) => lease,
                None => self.connect(within).await?,
            };
            if is_open(&lease).await {
                return Ok(lease);
            }
            // It has said goodbye; what runs on it goes on.
            self.open.borrow_mut().retain(|one| !Rc::ptr_eq(one, &lease.carrier));
        }
        Err(ForwardError::Closed)
    }

    fn find(&self) -> Option<StreamLease> {
        let mut open = self.open.borrow_mut();
        // The runtime hears of an end later than the kernel does.
        open.retain(|one| one.streams.get() > 0 || one.line.is_quiet());
        let now = self.clock.now();
        open.iter()
            .find(|one| one.has_room() && !passed(one.born, OLDEST, now))
            .map(|one| self.lease_of(Rc::clone(one)))
    }

    async fn connect(&self, within: Duration) -> Result<StreamLease, ForwardError> {
        let before = self.failures.get();
        let _alone = self.connecting.lock().await;
        if let Some(lease) = self.find() {
            return Ok(lease);
        }
        if self.failures.get() != before {
            return Err(ForwardError::Connect(std::io::Error::other("the try before has just failed")));
        }
        if self.open.borrow().len() >= CONNECTIONS {
            return Err(ForwardError::Connect(std::io::Error::other(
                "all streams of all connections are taken",
            )));
        }
        let mut carrier = for_http2(&self.upstream, &self.means, within).await.inspect_err(|_| {
            self.failures.set(before.wrapping_add(1));
        })?;
        carrier.born = self.clock.now().mono_ms();
        let carrier = Rc::new(carrier);
        self.open.borrow_mut().push(Rc::clone(&carrier));
        Ok(self.lease_of(carrier))
    }

    fn lease_of(&self, carrier: Rc<Carrier>) -> StreamLease {
        carrier.streams.set(carrier.streams.get() + 1);
        StreamLease { carrier, clock: self.clock.clone(), up: None }
    }

    /// Closes what idled too long.
    pub fn tick(&self, now: Now) {
        self.open
            .borrow_mut()
            .retain(|one| one.streams.get() > 0 || !passed(one.idle_since.get(), IDLE, now));
    }

    /// Streams under way.
    pub fn busy(&self) -> usize {
        self.open.borrow().iter().map(|one| one.streams.get()).sum()
    }

    /// No connection is open.
    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }
}

impl StreamLease {
    /// The connection.
    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// This sends the request's body.
    pub fn sends(&mut self, up: AbortHandle) {
        self.up = Some(up);
    }
}

impl Drop for StreamLease {
    fn drop(&mut self) {
        // With the task goes the client's body, and with the last holder of the stream it is reset.
        if let Some(up) = &self.up {
            up.abort();
        }
        self.carrier.streams.set(self.carrier.streams.get().saturating_sub(1));
        self.carrier.idle_since.set(self.clock.now().mono_ms());
    }
}
