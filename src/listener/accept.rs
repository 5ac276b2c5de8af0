//! Sockets of one worker: bind, accept with back-off, caps, drain. What comes before the first request is in [`greet`].

mod greet;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use super::bind::{self, Bound};
use super::caps::{Caps, Full, Permit};
use super::deadlines::{Deadlines, PERIOD};
use super::local::Local;
use super::passage::Passages;
use super::socket::Socket;
use super::tls::Entrance;
use super::{Connection, Kind};
use crate::clock::Clock;
use crate::config::settings::Limits;
use crate::config::values::Networks;
use crate::request::body::Body;
use crate::stores::descriptors::Descriptors;
use crate::stores::streams::{Kill, Killable};

/// First and longest wait after the kernel refused us a connection; short, since a place may be free at once.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(100));

/// Why what still runs at the end of a drain is cut.
const DRAINED: &str = "the gateway stopped and its drain was over (limits.drain_timeout)";

/// What the kernel may hold for a client beyond what is on its way to it.
const UNSENT: u32 = 128 * 1024;

/// Why a connection was turned away before it could send anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// `limits.connections`.
    AllFull,
    /// `limits.connections_per_client`.
    ClientFull,
    /// A `plain` listener and a peer that is no trusted proxy.
    Untrusted,
    /// The kernel had no more descriptors or memory.
    Exhausted,
    /// `listen.proxy_protocol`: a trusted peer began with something else than a PROXY header.
    ProxyHeaderMissing,
    /// Its PROXY header breaks the rules.
    ProxyHeaderMalformed,
    /// Its PROXY header was not whole within `limits.head_timeout`.
    ProxyHeaderLate,
}

impl Refusal {
    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AllFull => "connections",
            Self::ClientFull => "connections_per_client",
            Self::Untrusted => "untrusted_peer",
            Self::Exhausted => "descriptors",
            Self::ProxyHeaderMissing => "proxy_header_missing",
            Self::ProxyHeaderMalformed => "proxy_header_malformed",
            Self::ProxyHeaderLate => "proxy_header_late",
        }
    }
}

/// What metrics want to know of connections. Called on the worker's thread.
pub trait Events {
    /// A connection was taken in.
    fn connection_opened(&self, kind: Kind) {
        let _ = kind;
    }
    /// It is gone, for whatever reason; a tunnel counts as long as it lives.
    fn connection_closed(&self, kind: Kind) {
        let _ = kind;
    }
    /// A TLS handshake failed: `timeout`, `unknown_name`, `tls`, `io`, or what was wrong with a client's certificate.
    fn handshake_failed(&self, reason: &'static str) {
        let _ = reason;
    }
    /// A connection was turned away.
    fn refused(&self, reason: Refusal) {
        let _ = reason;
    }
}

impl Events for () {}

/// What all listeners of one worker share.
pub struct Context {
    /// Bounds; replaced at reload, read per connection.
    pub limits: Rc<RefCell<Limits>>,
    /// Peers that stand for many clients: no cap per client; `plain` listeners serve only them.
    pub trusted: Rc<RefCell<Networks>>,
    /// Connections of `trusted` begin with a PROXY header.
    pub proxy_protocol: Rc<Cell<bool>>,
    /// TLS; an `https` listener without it cannot run.
    pub tls: Option<Arc<Entrance>>,
    /// Names whose TLS is not ended here.
    pub passages: Option<Rc<dyn Passages>>,
    /// This worker's connections.
    pub deadlines: Rc<Deadlines>,
    /// Counts over all workers.
    pub caps: Arc<Caps>,
    /// How many file descriptors there may be: the last ones are not for clients.
    pub descriptors: Descriptors,
    /// Becomes true when it is time to stop.
    pub drain: watch::Receiver<bool>,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub events: Rc<dyn Events>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("deadlines", &self.deadlines.len()).finish_non_exhaustive()
    }
}

impl Context {
    /// Looks after the deadlines of this worker's connections for ever; to be spawned once per worker.
    pub async fn keep_deadlines(self: Rc<Self>) -> Infallible {
        let mut every = tokio::time::interval(PERIOD);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            self.deadlines.tick(&self.limits.borrow(), self.clock.now());
        }
    }
}

/// A bound socket of one worker.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    kind: Kind,
    outlives: bool,
}

/// The same at work on this thread.
#[derive(Debug)]
pub struct Opened {
    socket: Rc<Bound>,
    kind: Kind,
}

/// What happens to a connection once it is accepted.
struct Door<S> {
    cx: Rc<Context>,
    kind: Kind,
    service: S,
    open: Open,
}

/// Connections that still live, and a bell for when one ends.
#[derive(Default)]
struct Open {
    count: Cell<usize>,
    ended: Notify,
}

impl Listener {
    /// Binds. Several workers may bind the same address; `[::]` takes IPv4 too, and becomes `0.0.0.0` on hosts
    /// without IPv6.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr, kind: Kind) -> io::Result<Self> {
        Ok(Self { socket: bind::bind(address)?, kind, outlives: false })
    }

    /// Takes over a socket that listens already and does not block; several workers may share it. `outlives`: somebody else holds
    /// it for longer than we do.
    pub fn passed(socket: std::net::TcpListener, kind: Kind, outlives: bool) -> Self {
        Self { socket, kind, outlives }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Accepts and serves until drained; then waits for the connections, at most `limits.drain_timeout`, and cuts what
    /// is left.
    ///
    /// # Errors
    /// When the socket cannot be used at all.
    pub async fn run<S, V>(self, cx: Rc<Context>, service: S) -> io::Result<()>
    where
        S: Fn(Rc<Connection>) -> V + 'static,
        V: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + 'static,
    {
        self.open()?.run_until(cx, service, std::future::pending()).await
    }

    /// Gives it to the runtime of this thread.
    ///
    /// # Errors
    /// When the socket cannot be used at all.
    pub fn open(self) -> io::Result<Opened> {
        Ok(Opened { socket: Rc::new(Bound::new(self.socket, self.outlives)?), kind: self.kind })
    }
}

impl Opened {
    /// The socket, for as long as it is open.
    pub fn socket(&self) -> Weak<Bound> {
        Rc::downgrade(&self.socket)
    }

    /// What [`Listener::run`] does, but when `closed` comes first only the socket is closed: its connections live on.
    ///
    /// # Errors
    /// When the socket cannot be used at all.
    pub async fn run_until<S, V>(
        self,
        cx: Rc<Context>,
        service: S,
        closed: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        S: Fn(Rc<Connection>) -> V + 'static,
        V: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + 'static,
    {
        if self.kind == Kind::Https && cx.tls.is_none() {
            return Err(io::Error::other("an https listener needs TLS settings"));
        }
        let bound = self.socket;
        let mut drain = cx.drain.clone();
        let door = Rc::new(Door { cx, kind: self.kind, service, open: Open::default() });
        let drains = tokio::select! {
            biased;
            () = drained(&mut drain) => true,
            () = closed => false,
            never = door.let_in(&bound.socket) => match never {},
        };
        if drains {
            door.cx.deadlines.close_all();
        }
        // Nobody can be lent it from here on. Closing it would reset whoever is in a handshake or waits in its queue.
        let bound = Rc::into_inner(bound).ok_or_else(|| io::Error::other("a socket is held twice"))?;
        if bound.shuts_out() {
            let _ = tokio::time::timeout(bind::UNDER_WAY, door.let_in(&bound.socket)).await;
        }
        let socket = bound.socket.into_std()?;
        // The kernel keeps one more than it is told; where others hold the socket too there is no end to what comes.
        for _ in 0..=bind::BACKLOG {
            match socket.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    door.enter(TcpStream::from_std(stream)?, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        drop(socket);
        if drains {
            door.drain().await;
        }
        Ok(())
    }
}

impl<S, V> Door<S>
where
    S: Fn(Rc<Connection>) -> V + 'static,
    V: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + 'static,
{
    /// Accepts for as long as it is polled.
    async fn let_in(self: &Rc<Self>, listener: &TcpListener) -> Infallible {
        let mut wait = BACK_OFF.0;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    wait = BACK_OFF.0;
                    self.enter(stream, peer);
                }
                Err(error) if is_exhausted(&error) => {
                    self.cx.events.refused(Refusal::Exhausted);
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BACK_OFF.1);
                }
                // The client gave up before we came to it.
                Err(_) => {}
            }
        }
    }

    fn enter(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        match self.admit(peer.ip(), stream.as_raw_fd()) {
            Ok(permit) => {
                // Without it small answers would wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
                // A client that takes nothing must not make us take megabytes from the upstream.
                let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
                let guest = Guest::new(Rc::clone(self));
                let kill = Rc::new(Kill::default());
                let socket = Socket::new(stream, Local::new(Rc::clone(&kill)), permit);
                let work = Rc::clone(self).receive(socket, peer, Rc::clone(&kill));
                tokio::task::spawn_local(async move {
                    let _ = Killable::new(work, kill).await;
                    drop(guest);
                });
            }
            Err(reason) => self.cx.events.refused(reason),
        }
    }

    fn admit(&self, peer: IpAddr, descriptor: RawFd) -> Result<Permit, Refusal> {
        if !self.cx.descriptors.allow_client(descriptor) {
            return Err(Refusal::Exhausted);
        }
        let trusted = self.cx.trusted.borrow().contains(peer);
        if self.kind == Kind::Plain && !trusted {
            return Err(Refusal::Untrusted);
        }
        let limits = self.cx.limits.borrow();
        let per_client = (!trusted).then_some(limits.connections_per_client);
        self.cx.caps.enter(peer, limits.connections, per_client).map_err(|full| match full {
            Full::All => Refusal::AllFull,
            Full::Client => Refusal::ClientFull,
        })
    }

    async fn receive(self: Rc<Self>, socket: Socket, peer: SocketAddr, kill: Rc<Kill>) {
        // Boxed, so that what only the handshake needs is gone once it is over.
        let served = Box::pin(self.greet(socket, peer, kill)).await;
        if let Some(served) = served {
            served.await;
        }
    }

    async fn drain(&self) {
        self.cx.deadlines.close_all();
        let limit = self.cx.limits.borrow().drain_timeout;
        let all_gone = async {
            while self.open.count.get() > 0 {
                self.open.ended.notified().await;
            }
        };
        if tokio::time::timeout(limit, all_gone).await.is_err() {
            self.cx.deadlines.kill_all(DRAINED);
        }
    }
}

/// Counts one connection of a door as open until dropped.
struct Guest<S>(Rc<Door<S>>);

impl<S> Guest<S> {
    fn new(door: Rc<Door<S>>) -> Self {
        door.open.count.set(door.open.count.get() + 1);
        Self(door)
    }
}

impl<S> Drop for Guest<S> {
    fn drop(&mut self) {
        let open = &self.0.open;
        open.count.set(open.count.get().saturating_sub(1));
        open.ended.notify_one();
    }
}

async fn drained(drain: &mut watch::Receiver<bool>) {
    // Whoever could say so is gone: nobody will ever ask for a drain.
    if drain.wait_for(|drain| *drain).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
