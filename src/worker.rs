//! One thread: its runtime, its listeners, its pool, its streams; here the gateway meets its upstreams and listeners.

mod link;
mod passages;
mod pump;
mod service;
#[cfg(test)]
mod tests;
mod workers;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, LocalSet};

use self::service::Service;
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::gateway::collector::Collector;
use crate::gateway::recent::Recents;
use crate::gateway::view::Views;
use crate::listener::accept::{Context, Events, Listener, Refusal};
use crate::listener::caps::Caps;
use crate::listener::deadlines::PERIOD;
use crate::listener::redirect::{Redirect, RedirectService};
use crate::listener::tls::Entrance;
use crate::listener::{Bound, Kind, Lent};
use crate::policy::{PolicyCell, PolicyReader};
use crate::request::share_key::ShareKey;
use crate::request::target::Host;
use crate::stores::blocks::Blocks;
use crate::stores::cached::BlocksReader;
use crate::stores::challenges::Challenges;
use crate::stores::descriptors::Descriptors;
use crate::stores::kept::Kept;
use crate::stores::places::Places;
use crate::stores::streams::Streams;
use crate::telemetry::access_log::Lane;
use crate::telemetry::audit::Say;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Upstreams;
use crate::upstream::check::Checks;
use crate::upstream::connect::Means;
use crate::upstream::health::Health;

use self::passages::{Doors, Ways};
pub use self::workers::{Command, Swept, Workers};

/// Why all ends at once.
const ABANDONED: &str =
    "the process that took over from this one was gone: nobody could tell it of blocks any more";
/// Clients that a worker names when asked whose requests it has seen: two say already that it was not one.
const CLIENTS: usize = 2;

/// What a worker is made of; everything in it may go to another thread.
pub struct Setup {
    /// The clocks.
    pub clock: Clock,
    /// The policy.
    pub policy: Arc<PolicyCell>,
    /// The emergency blocks.
    pub blocks: Arc<Blocks>,
    /// What outlives a policy.
    pub kept: Kept,
    /// Hashes share tokens.
    pub share_key: ShareKey,
    /// TLS of the public side.
    pub tls: Arc<Entrance>,
    /// Counts of open connections, of all workers.
    pub caps: Arc<Caps>,
    /// Counts of requests in flight, of all workers.
    pub in_flight: Arc<Places>,
    /// Which upstreams were reached last.
    pub health: Arc<Health>,
    /// It asks the upstreams for their health, for all workers.
    pub checks_health: bool,
    /// How many file descriptors there may be.
    pub descriptors: Descriptors,
    /// The process log.
    pub say: Say,
    /// This worker's counters.
    pub metrics: Arc<Metrics>,
    /// This worker's access log.
    pub lane: Lane,
    /// First half of each request id.
    pub id_base: u32,
    /// Becomes true when it is time to stop.
    pub drain: watch::Receiver<bool>,
    /// What the control thread asks.
    pub commands: mpsc::Receiver<Command>,
    /// The sockets, bound, each with the address that the config names.
    pub listeners: Vec<(SocketAddr, Listener)>,
}

/// Runs a worker on this thread until it is drained.
///
/// # Errors
/// When the runtime cannot be made, or a socket not be used.
pub fn run(setup: Setup) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, Worker::new(setup).work())
}

struct Worker {
    gateway: Rc<Gateway<Upstreams>>,
    cx: Rc<Context>,
    policy: Rc<PolicyReader>,
    streams: Rc<Streams>,
    commands: mpsc::Receiver<Command>,
    waiting: Vec<(SocketAddr, Listener)>,
    open: Vec<Open>,
    serving: JoinSet<std::io::Result<()>>,
    say: Say,
    /// Asks the upstreams for their health, for all workers.
    checks: Option<Checks>,
    /// When the drain began, in monotonic nanoseconds.
    draining: Option<u64>,
}

/// A socket that the worker listens on.
struct Open {
    kind: Kind,
    /// As the config names it.
    address: SocketAddr,
    /// For a process that takes over; gone once it is closed.
    socket: Weak<Bound>,
    /// Ends the listener when dropped.
    _end: oneshot::Sender<()>,
}

impl Open {
    /// A second descriptor of the socket.
    fn lend(&self) -> Option<Lent> {
        let (socket, outlives) = self.socket.upgrade()?.lend().ok()?;
        Some(Lent { kind: self.kind, address: self.address, socket, outlives })
    }
}

impl Worker {
    fn new(setup: Setup) -> Self {
        let streams = Rc::<Streams>::default();
        let policy = Rc::new(PolicyReader::new(Arc::clone(&setup.policy)));
        let settings = &policy.current().policy().settings.clone();
        let means =
            Means { health: setup.health, descriptors: setup.descriptors, clock: setup.clock.clone() };
        let gateway = Gateway {
            views: Views::new(PolicyReader::new(setup.policy), Arc::clone(&setup.metrics)),
            blocks: BlocksReader::new(setup.blocks),
            streams: Rc::clone(&streams),
            lane: Rc::new(setup.lane),
            recent: Rc::new(Recents::new(setup.share_key.clone())),
            collector: Collector::new(Arc::clone(&setup.kept.reports)),
            kept: setup.kept,
            in_flight: setup.in_flight,
            clock: setup.clock.clone(),
            share_key: setup.share_key,
            id_base: setup.id_base,
            count: Cell::new(0),
            upstream: Upstreams::new(means.clone()),
        };
        let gateway = Rc::new(gateway);
        let ways = Ways {
            gateway: Rc::clone(&gateway),
            policy: Rc::clone(&policy),
            metrics: Arc::clone(&setup.metrics),
            means,
        };
        let cx = Context {
            limits: Rc::new(RefCell::new(settings.limits.clone())),
            trusted: Rc::new(RefCell::new(settings.listen.trusted_proxies.clone())),
            proxy_protocol: Rc::new(Cell::new(settings.listen.proxy_protocol)),
            tls: Some(setup.tls),
            passages: Some(Rc::new(Doors(Rc::new(ways)))),
            deadlines: Rc::default(),
            caps: setup.caps,
            descriptors: setup.descriptors,
            drain: setup.drain,
            clock: setup.clock,
            events: Rc::new(Counted(setup.metrics)),
        };
        Self {
            gateway,
            cx: Rc::new(cx),
            policy,
            streams,
            commands: setup.commands,
            waiting: setup.listeners,
            open: Vec::new(),
            serving: JoinSet::new(),
            say: setup.say,
            checks: setup.checks_health.then(Checks::default),
            draining: None,
        }
    }

    async fn work(mut self) -> std::io::Result<()> {
        for (address, listener) in std::mem::take(&mut self.waiting) {
            self.listen(address, listener)?;
        }
        let mut every = tokio::time::interval(PERIOD);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(()),
                },
                ended = self.serving.join_next(), if !self.serving.is_empty() => match ended {
                    // A listener ends when it is drained, or because a reload has closed it.
                    Some(Ok(result)) => result?,
                    Some(Err(error)) if error.is_panic() => return Err(std::io::Error::other(error)),
                    _ => {}
                },
                _ = every.tick() => self.tick(),
            }
            if self.is_drained() {
                return Ok(());
            }
        }
    }

    /// Listeners wait for their connections by themselves; tunnels, and what a closed listener has left, get the same time.
    fn is_drained(&mut self) -> bool {
        if !*self.cx.drain.borrow() {
            return false;
        }
        let now = self.cx.clock.now();
        let limit = self.cx.limits.borrow().drain_timeout;
        if self.draining.is_none() {
            // Also those whose listener a reload has closed.
            self.cx.deadlines.close_all();
        }
        let since = *self.draining.get_or_insert(now.mono);
        let over = u128::from(now.mono.saturating_sub(since)) >= limit.as_nanos();
        let empty = self.streams.is_empty() && self.cx.deadlines.is_empty();
        self.serving.is_empty() && (over || empty)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Sweep(answer) => {
                let index = self.gateway.blocks.current();
                let cut = self.streams.sweep(|facts| index.matching(facts).is_some());
                self.gateway.views.metrics().streams_cut(cut);
                // The control thread may have given up waiting; the sweep is done all the same.
                let _ = answer.send(cut);
            }
            Command::Cut(answer) => {
                let cut = self.streams.cut(ABANDONED, |_| true);
                self.gateway.views.metrics().streams_cut(cut);
                self.cx.deadlines.kill_all(ABANDONED);
                let _ = answer.send(cut);
            }
            Command::Recall(query, answer) => {
                let _ = answer.send(self.gateway.recent.recall(&query, &self.streams));
            }
            Command::Clients(answer) => {
                let _ = answer.send(self.gateway.recent.clients(CLIENTS));
            }
            Command::Sockets(answer) => {
                drop(answer.send(self.open.iter().filter_map(Open::lend).collect()));
            }
            Command::TakeBack => {
                self.open.iter().filter_map(|one| one.socket.upgrade()).for_each(|socket| socket.take_back());
            }
            Command::Listen { open, close } => {
                self.open.retain(|one| !close.contains(&(one.kind, one.address)));
                for (address, listener) in open {
                    self.listen_too(address, listener);
                }
                self.take_over();
            }
        }
    }

    /// A socket of a reload. It is no reason to end what is served.
    fn listen_too(&mut self, address: SocketAddr, listener: Listener) {
        if let Err(error) = self.listen(address, listener) {
            (self.say)(&format!(
                "a worker cannot listen on {address}: {error}; it serves what it has, and a restart tries again"
            ));
        }
    }

    /// Looks after waits and pools.
    fn tick(&self) {
        self.gateway.upstream.tick();
        if let Some(checks) = &self.checks {
            let snapshot = self.policy.current();
            let clusters = snapshot.policy().settings.sites.iter().map(|site| &site.upstream);
            checks.tick(&self.gateway.upstream, clusters, self.cx.clock.now());
        }
        self.cut_ended();
        self.take_over();
        self.cx.deadlines.tick(&self.cx.limits.borrow(), self.cx.clock.now());
    }

    /// Streams whose token has ended, where a site wants it so.
    fn cut_ended(&self) {
        if !self.streams.any_ends() {
            return;
        }
        let now = self.cx.clock.now().unix();
        let cut = self.streams.sweep(|facts| facts.ends.is_some_and(|ends| now >= ends));
        self.gateway.views.metrics().streams_cut(cut);
    }

    /// Takes over what a reload has changed for connections.
    fn take_over(&self) {
        let current = self.policy.current();
        let settings = &current.policy().settings;
        if *self.cx.limits.borrow() != settings.limits {
            self.cx.limits.replace(settings.limits.clone());
        }
        if *self.cx.trusted.borrow() != settings.listen.trusted_proxies {
            self.cx.trusted.replace(settings.listen.trusted_proxies.clone());
        }
        self.cx.proxy_protocol.set(settings.listen.proxy_protocol);
    }

    fn listen(&mut self, address: SocketAddr, listener: Listener) -> std::io::Result<()> {
        let kind = listener.kind();
        let listener = listener.open()?;
        let cx = Rc::clone(&self.cx);
        let (open, closed) = oneshot::channel();
        let socket = listener.socket();
        let closed = async { drop(closed.await) };
        match kind {
            Kind::Https | Kind::Plain => {
                let gateway = Rc::clone(&self.gateway);
                let service = move |connection| Service { gateway: Rc::clone(&gateway), connection };
                self.serving.spawn_local(listener.run_until(cx, service, closed));
            }
            Kind::Http => {
                let (policy, challenges) =
                    (Rc::clone(&self.policy), Arc::clone(&self.gateway.kept.challenges));
                let service =
                    move |connection| RedirectService::new(redirect(&policy, &challenges), connection);
                self.serving.spawn_local(listener.run_until(cx, service, closed));
            }
        }
        self.open.push(Open { kind, address, socket, _end: open });
        Ok(())
    }
}

fn redirect(policy: &PolicyReader, challenges: &Arc<Challenges>) -> Rc<Redirect> {
    let snapshot = policy.current();
    let public_port = snapshot.policy().settings.listen.public_port;
    let knows =
        move |host: &str| Host::parse(host).is_ok_and(|host| snapshot.policy().place(&host).is_some());
    Rc::new(Redirect { public_port, knows: Box::new(knows), challenges: Arc::clone(challenges) })
}

/// Counts what happens to connections.
struct Counted(Arc<Metrics>);

impl Events for Counted {
    fn connection_opened(&self, kind: Kind) {
        self.0.connection_opened(kind.word());
    }

    fn connection_closed(&self, kind: Kind) {
        self.0.connection_closed(kind.word());
    }

    fn handshake_failed(&self, reason: &'static str) {
        self.0.handshake_failed(reason);
    }

    fn refused(&self, reason: Refusal) {
        self.0.connection_refused("-", reason.word());
    }
}
