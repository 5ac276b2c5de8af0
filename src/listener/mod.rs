//! Sockets come in: accept, TLS, strict framing, hyper. Generic over the service; knows no guard and no policy.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::request::certificate::Certified;
use crate::request::facts::Malformed;
use crate::stores::streams::Kill;

pub mod accept;
mod bind;
pub mod caps;
pub mod conn;
pub mod deadlines;
pub mod framing;
pub mod local;
pub mod passage;
pub mod proxy;
pub mod redirect;
pub mod serve;
pub mod socket;
pub mod stream;
mod tally;
pub mod tls;
mod track;
pub mod watch;

pub use accept::{Context, Events, Listener, Refusal};
pub use bind::{Bound, Lent};
pub use stream::Stream;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TLS, the public door.
    Https,
    /// Port 80: ACME and redirects.
    Http,
    /// HTTP behind another proxy that ends TLS.
    Plain,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Https, Self::Http, Self::Plain];

    /// The label of `portcullis_connections{listener}`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Plain => "plain",
        }
    }
}

/// What the service may know of the connection that a request came by. One for each connection, shared by `Rc` with
/// the I/O type under hyper and with hyper's executor.
#[derive(Debug)]
pub struct Connection {
    /// The socket's peer, IPv4-mapped addresses as IPv4; after a PROXY header the address that it names.
    pub peer: SocketAddr,
    /// The proxy that sent the PROXY header, and what it said.
    pub proxy: Option<(SocketAddr, proxy::Named)>,
    /// Which listener accepted it.
    pub kind: Kind,
    /// The server name of the TLS handshake, lower case; `None` without TLS or without SNI.
    pub sni: Option<Box<str>>,
    /// What rules about client certificates the handshake was made under, and what was shown.
    pub certified: Option<Box<Certified>>,
    /// HTTP/2.
    pub h2: bool,
    /// Ends the whole connection.
    pub kill: Rc<Kill>,
    /// HTTP/1.1: set by the I/O type when it has refused a head. It then hands hyper a harmless head in its place, as
    /// the last one of the connection, so that the refusal is answered in order: the service answers request number
    /// `.0` (counted from 1) of this connection with the status of `.1` and forwards nothing.
    pub malformed: Cell<Option<(u64, Malformed)>>,
    /// HTTP/1.1: set by the I/O type when a body broke the grammar; hyper then reports a broken body.
    pub malformed_body: Cell<Option<Malformed>>,
    /// Requests that the service has seen on this connection; the service counts.
    pub requests: Cell<u64>,
    /// HTTP/2: `call` leaves its stream here, and the executor, which hyper asks next, takes it.
    pub next_stream: RefCell<Option<Rc<Stream>>>,
    /// HTTP/2: what answers with a tunnel leaves here what ends its way to the client; the executor takes it likewise.
    pub next_tunnel: RefCell<Option<Rc<Kill>>>,
    /// HTTP/2: the streams that run.
    pub streams: stream::Running,
    /// Set by the service before it answers 101: the I/O type hands everything through from then on. Until then it
    /// holds back what follows the head of an upgrade request.
    pub tunnel: Cell<bool>,
    /// Bytes received and sent, for the access log and the minimum rate.
    pub received: Cell<u64>,
    /// See `received`.
    pub sent: Cell<u64>,
    /// What deadlines, drain and the I/O type tell each other.
    pub watch: watch::Watch,
}

impl Connection {
    /// A connection that has seen nothing yet.
    pub fn new(peer: SocketAddr, kind: Kind, kill: Rc<Kill>) -> Self {
        Self {
            peer,
            proxy: None,
            kind,
            sni: None,
            certified: None,
            h2: false,
            kill,
            malformed: Cell::new(None),
            malformed_body: Cell::new(None),
            requests: Cell::new(0),
            next_stream: RefCell::new(None),
            next_tunnel: RefCell::new(None),
            streams: stream::Running::default(),
            tunnel: Cell::new(false),
            received: Cell::new(0),
            sent: Cell::new(0),
            watch: watch::Watch::default(),
        }
    }

    /// Ends it with all of its streams; the log says why.
    pub fn cut(&self, cause: &'static str) {
        self.streams.cut(cause);
        self.kill.kill_for(cause);
    }

    /// Why request number `number` (from 1) of this connection was refused before the service could see it.
    pub fn refusal(&self, number: u64) -> Option<Malformed> {
        self.malformed.get().filter(|(refused, _)| *refused == number).map(|(_, reason)| reason)
    }
}
