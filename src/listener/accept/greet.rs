//! What comes before the first request: the PROXY header of a trusted proxy, then TLS, all within one deadline.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use rustls::CertificateError;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, LazyConfigAcceptor, StartHandshake, TlsAcceptor};

use super::{Door, Full, Refusal};
use crate::clock::Now;
use crate::listener::passage::{HelloTooLarge, Passing, Recorded};
use crate::listener::proxy::{self, Broken, Named};
use crate::listener::serve::{self, Served};
use crate::listener::socket::Socket;
use crate::listener::tls::{self, Chosen};
use crate::listener::{Connection, Kind};
use crate::request::body::Body;
use crate::request::certificate::{Certificate, Certified, PolicyId};
use crate::request::client::Client;
use crate::stores::streams::Kill;

/// For a client to hear why there is no handshake, and what it may have sent meanwhile.
const GOODBYE: Duration = Duration::from_secs(1);
const GOODBYE_BYTES: usize = 32 * 1024;

/// Why there is nothing to serve.
enum End {
    /// The client left before it said anything.
    Gone,
    /// Turned away.
    Refused(Refusal),
    /// No handshake.
    Failed(io::Error),
}

/// What the handshake has come to.
enum Greeted {
    /// HTTP in the clear.
    Clear(Socket),
    /// HTTP inside TLS.
    Tls(Box<TlsStream<Socket>>),
    /// TLS goes on to somebody else.
    Passed(Served),
}

impl<S, V> Door<S>
where
    S: Fn(Rc<Connection>) -> V + 'static,
    V: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + 'static,
{
    /// What serves the connection, if it comes so far.
    pub(super) async fn greet(
        self: Rc<Self>,
        socket: Socket,
        peer: SocketAddr,
        kill: Rc<Kill>,
    ) -> Option<Served> {
        let accepted = self.cx.clock.now();
        let mut connection = Connection::new(peer, self.kind, kill);
        connection.watch.ended.set_events(Rc::clone(&self.cx.events), self.kind);
        let proxied = self.cx.proxy_protocol.get() && self.cx.trusted.borrow().contains(peer.ip());
        if self.kind != Kind::Https && !proxied {
            return Some(self.serve(socket, connection, accepted));
        }
        let limit = self.cx.limits.borrow().head_timeout;
        match tokio::time::timeout(limit, self.begin(socket, &mut connection, proxied)).await {
            Ok(Ok(Greeted::Clear(socket))) => return Some(self.serve(socket, connection, accepted)),
            Ok(Ok(Greeted::Tls(stream))) => return Some(self.serve(*stream, connection, accepted)),
            Ok(Ok(Greeted::Passed(served))) => return Some(served),
            Ok(Err(End::Gone)) => {}
            Ok(Err(End::Refused(refusal))) => self.cx.events.refused(refusal),
            Ok(Err(End::Failed(error))) => self.cx.events.handshake_failed(reason_of(&error)),
            Err(_) if proxied && connection.proxy.is_none() => {
                self.cx.events.refused(Refusal::ProxyHeaderLate);
            }
            Err(_) => self.cx.events.handshake_failed("timeout"),
        }
        None
    }

    async fn begin(
        &self,
        mut socket: Socket,
        connection: &mut Connection,
        proxied: bool,
    ) -> Result<Greeted, End> {
        if proxied {
            let named = proxy_header(&mut socket).await?;
            self.believe(&mut socket, connection, named)?;
        }
        let Some(entrance) = self.cx.tls.as_ref().filter(|_| self.kind == Kind::Https) else {
            return Ok(Greeted::Clear(socket));
        };
        let passages = self.cx.passages.as_ref().filter(|passages| passages.any());
        if passages.is_none()
            && let Some(only) = entrance.only()
        {
            let stream = shaken(TlsAcceptor::from(only).accept(socket)).await?;
            return agreed(connection, stream, None);
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), Recorded::new(socket));
        let StartHandshake { accepted, io, .. } = hello.await.map_err(End::Failed)?;
        let name = accepted.client_hello().server_name().map(plain_name);
        let (socket, hello) = io.into_parts();
        let carry = passages.zip(name.as_deref()).and_then(|(passages, name)| passages.lead(name));
        if let Some(carry) = carry {
            let (peer, kill) = (connection.peer, Rc::clone(&connection.kill));
            let client = match connection.proxy {
                Some((_, Named::Nobody)) => Client::Unknown,
                _ => Client::Address(peer.ip()),
            };
            return Ok(Greeted::Passed(carry(Passing { socket, hello, peer, client, kill })));
        }
        // An authority that tries whether the host is ours has no certificate to show; it gets the handshake and no more.
        let challenge = tls::is_challenge(&accepted.client_hello());
        let Chosen { config, policy } =
            if challenge { entrance.open_way() } else { entrance.choose(name.as_deref()) };
        let stream = shaken(StartHandshake::from_parts(accepted, socket).into_stream(config)).await?;
        if challenge {
            return Err(End::Gone);
        }
        agreed(connection, stream, policy)
    }

    /// The client that a trusted proxy names is the peer from here on, and has a cap of its own.
    fn believe(&self, socket: &mut Socket, connection: &mut Connection, named: Named) -> Result<(), End> {
        connection.proxy = Some((connection.peer, named));
        let Named::Client(client) = named else { return Ok(()) };
        connection.peer = client;
        // Another proxy, which stands for many.
        if self.cx.trusted.borrow().contains(client.ip()) {
            return Ok(());
        }
        let most = self.cx.limits.borrow().connections_per_client;
        let full = |full| match full {
            Full::All => Refusal::AllFull,
            Full::Client => Refusal::ClientFull,
        };
        socket.permit().count_for(client.ip(), most).map_err(|error| End::Refused(full(error)))
    }

    fn serve<T: serve::Io>(&self, io: T, connection: Connection, accepted: Now) -> Served {
        let connection = Rc::new(connection);
        self.cx.deadlines.watch(&connection, accepted);
        if *self.cx.drain.borrow() {
            connection.watch.close();
        }
        let service = (self.service)(Rc::clone(&connection));
        let limits = serve::HttpLimits::of(&self.cx.limits.borrow());
        serve::serve(io, &connection, limits, service)
    }
}

/// Takes the header off the front of what comes; what has come behind it goes back.
async fn proxy_header(socket: &mut Socket) -> Result<Named, End> {
    let mut buffer = [0; proxy::LONGEST];
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        let read = socket.read(room).await.map_err(|_| End::Gone)?;
        if read == 0 {
            // A balancer that only looks whether somebody listens.
            return Err(if filled == 0 { End::Gone } else { End::Refused(Refusal::ProxyHeaderMalformed) });
        }
        filled += read;
        let seen = buffer.get(..filled).unwrap_or_default();
        match proxy::decode(seen) {
            Ok(None) => {}
            Ok(Some((named, length))) => {
                socket.give_back(seen.get(length..).unwrap_or_default());
                return Ok(named);
            }
            Err(Broken::Missing) => return Err(End::Refused(Refusal::ProxyHeaderMissing)),
            Err(Broken::Malformed) => return Err(End::Refused(Refusal::ProxyHeaderMalformed)),
        }
    }
}

/// A handshake to its end. Who fails in it is told why: were the socket closed on what he has sent meanwhile (in TLS 1.3 his
/// request is on its way), the kernel would take the alert back.
async fn shaken(handshake: Accept<Socket>) -> Result<TlsStream<Socket>, End> {
    let (error, mut socket) = match handshake.into_fallible().await {
        Ok(stream) => return Ok(stream),
        Err(failed) => failed,
    };
    if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        let _ = tokio::time::timeout(GOODBYE, dropped(&mut socket)).await;
    }
    Err(End::Failed(error))
}

/// Reads and drops what still comes.
async fn dropped(socket: &mut Socket) -> io::Result<()> {
    socket.shutdown().await?;
    let (mut buffer, mut left) = ([0; 1024], GOODBYE_BYTES);
    while left > 0 {
        match socket.read(&mut buffer).await? {
            0 => break,
            length => left = left.saturating_sub(length),
        }
    }
    Ok(())
}

/// Lower case, without a trailing dot.
fn plain_name(name: &str) -> Box<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

/// What was agreed in the handshake.
fn agreed(
    connection: &mut Connection,
    stream: TlsStream<Socket>,
    policy: Option<PolicyId>,
) -> Result<Greeted, End> {
    let session = stream.get_ref().1;
    // Whoever comes for a challenge has seen its certificate: that was all.
    if session.alpn_protocol() == Some(tls::CHALLENGE) {
        return Err(End::Gone);
    }
    connection.sni = session.server_name().map(|name| name.to_ascii_lowercase().into());
    connection.h2 = session.alpn_protocol() == Some(b"h2");
    connection.certified = policy.map(|policy| {
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        Box::new(Certified { policy, shown: leaf.and_then(|leaf| Certificate::read(leaf)) })
    });
    Ok(Greeted::Tls(Box::new(stream)))
}

fn reason_of(error: &io::Error) -> &'static str {
    let Some(inner) = error.get_ref() else { return "io" };
    if inner.is::<HelloTooLarge>() {
        return "hello_too_large";
    }
    match inner.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::General(text)) if text.contains("no server certificate") => "unknown_name",
        Some(rustls::Error::NoCertificatesPresented) => "client_certificate_missing",
        Some(rustls::Error::InvalidCertificate(error)) => certificate_reason(error),
        // A list that another CA of the same name has signed.
        Some(rustls::Error::InvalidCertRevocationList(_)) => "client_certificate_revocation_unknown",
        Some(_) => "tls",
        None => "io",
    }
}

fn certificate_reason(error: &CertificateError) -> &'static str {
    use CertificateError as E;
    match error {
        E::Expired | E::ExpiredContext { .. } => "client_certificate_expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "client_certificate_not_yet_valid",
        E::Revoked => "client_certificate_revoked",
        E::UnknownRevocationStatus => "client_certificate_revocation_unknown",
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            "client_certificate_revocation_list_ended"
        }
        E::UnknownIssuer | E::BadSignature => "client_certificate_foreign",
        _ => "client_certificate_unfit",
    }
}
