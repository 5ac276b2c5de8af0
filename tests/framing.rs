//! Raw bytes into a real listener: the service sees exactly the requests that are well-formed, or none; the client
//! gets its refusal whole, and the connection ends.

#![allow(
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test may panic, and a table may be long"
)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use portcullis::clock::{Clock, TestClock};
use portcullis::config::settings::{Limits, MinRate};
use portcullis::config::values::{ByteSize, Networks};
use portcullis::listener::caps::Caps;
use portcullis::listener::deadlines::Deadlines;
use portcullis::listener::tls::{Certificates, Entrance, Resolver, Wanted};
use portcullis::listener::{Connection, Context, Events, Kind, Listener, Refusal, Stream};
use portcullis::request::body::Body;
use portcullis::stores::streams::Kill;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};

const PATIENCE: Duration = Duration::from_secs(10);

/// What the service saw, in order: `GET /path body`, or `... BROKEN`.
type Seen = Rc<RefCell<Vec<String>>>;
/// The kill switches of HTTP/2 streams, in order.
type Kills = Rc<RefCell<Vec<Rc<Kill>>>>;

#[derive(Clone)]
struct Recorder {
    seen: Seen,
    kills: Kills,
    connection: Rc<Connection>,
}

/// Says in the record that its request was dropped before it was answered.
struct Dropped(Seen);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.borrow_mut().push("cancelled".into());
    }
}

impl Recorder {
    async fn answer(self, mut request: Request<Incoming>, number: u64) -> Response<Body> {
        if self.connection.refusal(number).is_some() {
            let mut answer = Response::new("refused".into());
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            return answer;
        }
        let line = format!("{} {}", request.method(), request.uri());
        match request.uri().path() {
            "/early" => {
                self.seen.borrow_mut().push(line);
                let mut answer = Response::new("too large".into());
                *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
                return answer;
            }
            "/hang" => {
                let _dropped = Dropped(Rc::clone(&self.seen));
                self.seen.borrow_mut().push(line);
                return std::future::pending().await;
            }
            "/huge" => return Response::new(Body::from("x".repeat(32 << 20))),
            "/ws" => {
                self.seen.borrow_mut().push(line);
                return echo(hyper::upgrade::on(&mut request));
            }
            _ => {}
        }
        let body = match request.into_body().collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(_) => "BROKEN".into(),
        };
        self.seen.borrow_mut().push(format!("{line} {body}").trim_end().to_owned());
        Response::new("fine".into())
    }
}

fn echo(upgrade: hyper::upgrade::OnUpgrade) -> Response<Body> {
    tokio::task::spawn_local(async move {
        let mut io = TokioIo::new(upgrade.await.expect("upgraded"));
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            io.write_all(&buffer[..read]).await.expect("echo");
            io.flush().await.expect("flush");
        }
    });
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    answer
}

impl Service<Request<Incoming>> for Recorder {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let number = self.connection.requests.get() + 1;
        self.connection.requests.set(number);
        if self.connection.h2 {
            let stream = Stream::new(Rc::clone(&self.connection));
            self.kills.borrow_mut().push(Rc::clone(&stream.kill));
            *self.connection.next_stream.borrow_mut() = Some(stream);
        }
        let this = self.clone();
        Box::pin(async move { Ok(this.answer(request, number).await) })
    }
}

#[derive(Default)]
struct Counts(RefCell<Vec<String>>);

impl Events for Counts {
    fn connection_closed(&self, kind: Kind) {
        self.0.borrow_mut().push(format!("closed {}", kind.word()));
    }
    fn handshake_failed(&self, reason: &'static str) {
        self.0.borrow_mut().push(format!("handshake {reason}"));
    }
    fn refused(&self, reason: Refusal) {
        self.0.borrow_mut().push(format!("refused {}", reason.word()));
    }
}

/// A listener on loopback and all that a test looks at or turns.
struct Door {
    address: SocketAddr,
    seen: Seen,
    kills: Kills,
    connections: Rc<RefCell<Vec<Rc<Connection>>>>,
    cx: Rc<Context>,
    hand: Arc<TestClock>,
    drain: watch::Sender<bool>,
    /// Closes the socket when dropped.
    close: Option<oneshot::Sender<()>>,
    counts: Rc<Counts>,
    state: tempfile::TempDir,
    done: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn limits() -> Limits {
    Limits {
        connections: 100,
        connections_per_client: 50,
        request_head: ByteSize(32 << 10),
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        min_rate: MinRate { bytes: ByteSize(16 << 10), per: Duration::from_secs(10) },
        drain_timeout: Duration::from_secs(5),
        limiter_keys: 1000,
    }
}

impl Door {
    fn open(kind: Kind) -> Self {
        Self::with(kind, limits())
    }

    fn with(kind: Kind, limits: Limits) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let (clock, hand) = Clock::test(Clock::system().now().wall);
        let wanted = Wanted {
            config: "portcullis.toml".into(),
            files: vec![],
            hosts: vec!["localhost".parse().expect("a host")],
            nameless: Some("localhost".parse().expect("a host")),
            own: true,
            given: None,
            stranger: false,
            state_dir: state.path().to_owned(),
        };
        let tls = (kind == Kind::Https).then(|| {
            let certificates = Certificates::build(&wanted, clock.now(), None).expect("certificates");
            Entrance::open_to_all(Resolver::new(certificates, Default::default()), true)
                .expect("a TLS config")
        });
        let (drain, draining) = watch::channel(false);
        let counts = Rc::new(Counts::default());
        let cx = Rc::new(Context {
            limits: Rc::new(RefCell::new(limits)),
            trusted: Rc::new(RefCell::new(Networks::new(["127.0.0.1/32".parse().expect("a network")]))),
            proxy_protocol: Rc::default(),
            tls,
            passages: None,
            deadlines: Rc::new(Deadlines::default()),
            descriptors: portcullis::stores::descriptors::Descriptors::new(1 << 20),
            caps: Arc::new(Caps::default()),
            drain: draining,
            clock,
            events: Rc::clone(&counts) as Rc<dyn Events>,
        });
        let listener = Listener::bind("127.0.0.1:0".parse().expect("an address"), kind).expect("bound");
        let address = listener.address().expect("an address");
        let (seen, kills) = (Seen::default(), Kills::default());
        let connections = Rc::<RefCell<Vec<Rc<Connection>>>>::default();
        let service = {
            let (seen, kills) = (Rc::clone(&seen), Rc::clone(&kills));
            let connections = Rc::clone(&connections);
            move |connection: Rc<Connection>| {
                connections.borrow_mut().push(Rc::clone(&connection));
                Recorder { seen: Rc::clone(&seen), kills: Rc::clone(&kills), connection }
            }
        };
        let (close, closed) = oneshot::channel::<()>();
        let closed = async { drop(closed.await) };
        let done = tokio::task::spawn_local(listener.open().expect("opened").run_until(
            Rc::clone(&cx),
            service,
            closed,
        ));
        Self { address, seen, kills, connections, cx, hand, drain, close: Some(close), counts, state, done }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// Sends it all and reads to the end.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.expect("sent");
        read_to_end(&mut stream).await
    }

    fn seen(&self) -> Vec<String> {
        self.seen.borrow().clone()
    }

    fn tick(&self, by: Duration) {
        self.hand.advance(by);
        self.cx.deadlines.tick(&self.cx.limits.borrow(), self.cx.clock.now());
    }
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    read.await.expect("the connection ends").expect("the connection ends without a reset");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until the text is there.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), text: &str) -> String {
    let mut all = String::new();
    let mut buffer = [0; 4096];
    while !all.contains(text) {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("no {text:?} in {all:?}")).expect("read");
        assert_ne!(read, 0, "ended before {text:?}: {all:?}");
        all.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    all
}

/// Lets the other tasks run until it holds.
async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes to hold");
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn statuses(answer: &str) -> Vec<&str> {
    answer.match_indices("HTTP/1.").filter_map(|(at, _)| answer.get(at + 9..at + 12)).collect()
}

const FIRST: &str = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const UPGRADING: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn a_bad_head_is_refused_in_its_turn_and_nothing_behind_it_is_served() {
    run(async {
        for trick in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 34\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let door = Door::open(Kind::Plain);
            let answer = door.exchange([FIRST, trick, SMUGGLED].concat().as_bytes()).await;
            assert_eq!(statuses(&answer), ["200", "400"], "{trick:?}: {answer}");
            assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
            assert_eq!(door.seen(), ["GET /first"], "{trick:?}");
        }
    });
}

#[test]
fn a_bad_chunk_breaks_its_request_and_nothing_behind_it_is_served() {
    run(async {
        for body in [
            "5\r\nhelloX\r\n0\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5;\nhello\r\n0\r\n\r\n",
            "0\r\nContent-Length: 40\r\n\r\n",
            "0\r\nX: a\nb\r\n\r\n",
        ] {
            let door = Door::open(Kind::Plain);
            let head = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            door.exchange([FIRST, head, body, SMUGGLED].concat().as_bytes()).await;
            assert_eq!(door.seen(), ["GET /first", "POST /chunked BROKEN"], "{body:?}");
        }
    });
}

#[test]
fn good_requests_arrive_in_order_however_they_are_cut() {
    let all = [
        FIRST,
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n",
        "GET http://a/c HTTP/1.1\r\nHost: A\r\n\r\n",
        "GET /d HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n\r\n",
    ]
    .concat();
    let expected = ["GET /first", "POST /a hello", "POST /b hello", "GET http://a/c", "GET /d"];
    run(async {
        let door = Door::open(Kind::Plain);
        let answer = door.exchange(all.as_bytes()).await;
        assert_eq!(statuses(&answer), ["200"; 5]);
        assert_eq!(door.seen(), expected);

        door.seen.borrow_mut().clear();
        let mut stream = door.connect().await;
        stream.set_nodelay(true).expect("no delay");
        for byte in all.as_bytes() {
            stream.write_all(&[*byte]).await.expect("sent");
            tokio::task::yield_now().await;
        }
        assert_eq!(statuses(&read_to_end(&mut stream).await), ["200"; 5]);
        assert_eq!(door.seen(), expected);
    });
}

#[test]
fn http_1_0_is_served_and_closed() {
    run(async {
        let door = Door::open(Kind::Plain);
        let answer = door.exchange(b"GET /old HTTP/1.0\r\n\r\n").await;
        assert_eq!((statuses(&answer), door.seen()), (vec!["200"], vec!["GET /old".to_owned()]));
    });
}

#[test]
fn an_early_answer_reaches_a_client_that_goes_on_sending() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut stream = door.connect().await;
        stream
            .write_all(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
            .await
            .expect("sent");
        let answer = read_until(&mut stream, "too large").await;
        assert_eq!(statuses(&answer), ["413"]);
        // Closed at once, our socket would answer these bytes with a reset, and the answer might be lost with it.
        for _ in 0..12 {
            stream.write_all(&[b'x'; 16 * 1024]).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((read_to_end(&mut stream).await.as_str(), door.cx.caps.open()), ("", 1));
        drop(stream);
        door.connections.borrow_mut().clear();
        until(|| door.cx.caps.open() == 0).await;
    });
}

#[test]
fn a_client_that_never_stops_sending_is_cut_in_the_end() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut stream = door.connect().await;
        stream
            .write_all(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
            .await
            .expect("sent");
        read_until(&mut stream, "too large").await;
        let flood = async { while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, flood).await.expect("cut after a bounded number of bytes");

        let mut stream = door.connect().await;
        stream
            .write_all(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            .await
            .expect("sent");
        read_until(&mut stream, "too large").await;
        until(|| door.connections.borrow().last().is_some_and(|open| open.watch.lingering.get())).await;
        door.tick(Duration::ZERO);
        door.tick(Duration::from_secs(3));
        assert!(door.connections.borrow().last().is_some_and(|open| open.kill.is_killed()));
    });
}

#[test]
fn a_client_that_leaves_cancels_its_request() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut stream = door.connect().await;
        stream.write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\nGET /par").await.expect("sent");
        until(|| !door.seen().is_empty()).await;
        drop(stream);
        until(|| door.seen() == ["GET /hang", "cancelled"]).await;
        let closed = Rc::clone(&door.counts);
        door.connections.borrow_mut().clear();
        until(|| *closed.0.borrow() == ["closed plain"]).await;
        assert_eq!(door.cx.caps.open(), 0);
    });
}

#[test]
fn a_tunnel_gets_what_followed_its_request_and_then_everything() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut stream = door.connect().await;
        let early = format!("GET /ws HTTP/1.1\r\n{UPGRADING}\r\n\0early");
        stream.write_all(early.as_bytes()).await.expect("sent");
        let answer = read_until(&mut stream, "\0early").await;
        assert_eq!(statuses(&answer), ["101"]);
        stream.write_all(b"\x01\r\r\nlater").await.expect("sent");
        read_until(&mut stream, "\r\nlater").await;
        drop(stream);
        door.connections.borrow_mut().clear();
        until(|| door.cx.caps.open() == 0).await;
        assert_eq!(door.seen(), ["GET /ws"]);
    });
}

#[test]
fn a_refused_upgrade_leaves_ordinary_requests_behind_it() {
    run(async {
        let door = Door::open(Kind::Plain);
        let last = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let all = format!("GET /no HTTP/1.1\r\n{UPGRADING}{FIRST}{last}");
        assert_eq!(statuses(&door.exchange(all.as_bytes()).await), ["200"; 3]);
        assert_eq!(door.seen(), ["GET /no", "GET /first", "GET /last"]);

        door.seen.borrow_mut().clear();
        let all = format!("GET /no HTTP/1.1\r\n{UPGRADING}\0garbage\r\n\r\n{SMUGGLED}");
        assert_eq!(statuses(&door.exchange(all.as_bytes()).await), ["200", "400"]);
        assert_eq!(door.seen(), ["GET /no"]);
    });
}

#[test]
fn a_killed_connection_is_reset_with_its_answer_unsent() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut stream = door.connect().await;
        stream.write_all(b"GET /huge HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        let mut some = [0; 1024];
        stream.read_exact(&mut some).await.expect("the start of the answer");
        let connection = door.connections.borrow_mut().pop().expect("a connection");
        connection.kill.kill();
        drop(connection);
        until(|| door.cx.caps.open() == 0).await;
        let mut rest = Vec::new();
        let error = stream.read_to_end(&mut rest).await.expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(rest.len() < 32 << 20);
    });
}

#[test]
fn the_silent_are_cut_and_the_idle_are_closed() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut silent = door.connect().await;
        let mut idle = door.connect().await;
        idle.write_all(FIRST.as_bytes()).await.expect("sent");
        read_until(&mut idle, "fine").await;
        until(|| door.cx.deadlines.len() == 2).await;
        silent.write_all(b"GET / HT").await.expect("sent");

        door.tick(Duration::ZERO);
        door.tick(Duration::from_secs(11));
        let end = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 9])).await.expect("an end");
        assert!(end.is_err(), "cut, not closed");

        door.tick(Duration::from_secs(70));
        assert_eq!(read_to_end(&mut idle).await, "");
    });
}

#[test]
fn one_client_cannot_take_all_connections() {
    run(async {
        let door = Door::with(Kind::Http, Limits { connections_per_client: 2, connections: 3, ..limits() });
        // Loopback is a trusted proxy here, which stands for many clients: only the bound over all holds.
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(door.connect().await);
        }
        until(|| door.cx.caps.open() == 3).await;
        assert_eq!(read_to_end(&mut door.connect().await).await, "");
        *door.cx.trusted.borrow_mut() = Networks::default();
        held.clear();
        door.connections.borrow_mut().clear();
        until(|| door.cx.caps.open() == 0).await;
        for _ in 0..2 {
            held.push(door.connect().await);
        }
        until(|| door.cx.caps.open() == 2).await;
        assert_eq!(read_to_end(&mut door.connect().await).await, "");
        let refused: Vec<_> =
            door.counts.0.borrow().iter().filter(|count| count.starts_with("refused")).cloned().collect();
        assert_eq!(refused, ["refused connections", "refused connections_per_client"]);
    });
}

#[test]
fn a_plain_listener_serves_trusted_proxies_only() {
    run(async {
        let door = Door::open(Kind::Plain);
        *door.cx.trusted.borrow_mut() = Networks::default();
        assert_eq!(read_to_end(&mut door.connect().await).await, "");
        assert_eq!(*door.counts.0.borrow(), ["refused untrusted_peer"]);
    });
}

#[test]
fn a_drain_answers_what_is_here_and_ends() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut idle = door.connect().await;
        idle.write_all(FIRST.as_bytes()).await.expect("sent");
        read_until(&mut idle, "fine").await;
        let mut posting = door.connect().await;
        posting.write_all(b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").await.expect("sent");
        until(|| door.connections.borrow().iter().any(|open| open.watch.owing.get())).await;
        // In the kernel's queue, not accepted yet.
        let mut queued = std::net::TcpStream::connect(door.address).expect("connected");
        std::io::Write::write_all(&mut queued, SMUGGLED.as_bytes()).expect("sent");
        door.drain.send(true).expect("somebody listens");

        assert_eq!(read_to_end(&mut idle).await, "");
        posting.write_all(b"cd").await.expect("sent");
        assert_eq!(statuses(&read_to_end(&mut posting).await), ["200"]);
        queued.set_nonblocking(true).expect("set");
        let mut queued = TcpStream::from_std(queued).expect("a stream");
        assert_eq!(statuses(&read_to_end(&mut queued).await), ["200"]);
        drop((idle, posting, queued));
        tokio::time::timeout(PATIENCE, door.done)
            .await
            .expect("drained")
            .expect("no panic")
            .expect("no error");
        assert!(TcpStream::connect(door.address).await.is_err());
    });
}

#[test]
fn who_asks_on_an_old_connection_while_it_closes_is_served_and_told_to_go() {
    run(async {
        let door = Door::open(Kind::Plain);
        let mut old = door.connect().await;
        old.write_all(FIRST.as_bytes()).await.expect("sent");
        read_until(&mut old, "fine").await;
        let open = Rc::clone(&door.connections.borrow()[0]);
        until(|| open.watch.in_flight.get() == 0).await;
        door.drain.send(true).expect("somebody listens");
        until(|| open.watch.closing.get()).await;
        old.write_all(FIRST.as_bytes()).await.expect("sent");
        let answer = read_to_end(&mut old).await;
        assert_eq!(statuses(&answer), ["200"]);
        assert!(answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
    });
}

#[test]
fn a_port_that_is_closed_serves_who_waits_in_its_queue() {
    run(async {
        let mut door = Door::open(Kind::Plain);
        // Nothing runs between here and the close: the kernel alone has taken them.
        let queued: Vec<_> = (0..5)
            .map(|_| {
                let mut client = std::net::TcpStream::connect(door.address).expect("connected");
                std::io::Write::write_all(&mut client, SMUGGLED.as_bytes()).expect("sent");
                client.set_nonblocking(true).expect("set");
                client
            })
            .collect();
        drop(door.close.take());
        for client in queued {
            let mut client = TcpStream::from_std(client).expect("a stream");
            read_until(&mut client, "fine").await;
            client.write_all(SMUGGLED.as_bytes()).await.expect("sent");
            read_until(&mut client, "fine").await;
        }
        tokio::time::timeout(PATIENCE, door.done)
            .await
            .expect("closed")
            .expect("no panic")
            .expect("no error");
        assert!(TcpStream::connect(door.address).await.is_err());
    });
}

// === TLS ===

async fn tls(
    door: &Door,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    use rustls_pki_types::pem::PemObject;
    let ca = rustls_pki_types::CertificateDer::from_pem_file(door.state.path().join("ca.pem")).expect("a CA");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, door.connect().await).await
}

#[test]
fn the_same_rules_hold_inside_tls() {
    run(async {
        let door = Door::open(Kind::Https);
        let mut stream = tls(&door, "localhost", &["http/1.1"]).await.expect("a handshake");
        let trick = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all([FIRST, trick, SMUGGLED].concat().as_bytes()).await.expect("sent");
        assert_eq!(statuses(&read_to_end(&mut stream).await), ["200", "400"]);
        assert_eq!(door.seen(), ["GET /first"]);
        assert_eq!(door.connections.borrow()[0].sni.as_deref(), Some("localhost"));
    });
}

#[test]
fn a_tunnel_works_inside_tls() {
    run(async {
        let door = Door::open(Kind::Https);
        let mut stream = tls(&door, "localhost", &[]).await.expect("a handshake");
        stream.write_all(format!("GET /ws HTTP/1.1\r\n{UPGRADING}early").as_bytes()).await.expect("sent");
        read_until(&mut stream, "early").await;
        stream.write_all(b"later").await.expect("sent");
        read_until(&mut stream, "later").await;
    });
}

#[test]
fn a_name_that_is_not_ours_gets_an_alert() {
    run(async {
        let door = Door::open(Kind::Https);
        let error = tls(&door, "other.test", &[]).await.map(drop).expect_err("refused");
        assert!(error.to_string().contains("alert"), "{error}");
        until(|| door.counts.0.borrow().len() == 2).await;
        assert_eq!(*door.counts.0.borrow(), ["handshake unknown_name", "closed https"]);
    });
}

#[test]
fn one_site_alone_is_reached_by_address_too() {
    run(async {
        let door = Door::open(Kind::Https);
        let mut stream = tls(&door, "127.0.0.1", &[]).await.expect("a handshake");
        stream.write_all(FIRST.as_bytes()).await.expect("sent");
        read_until(&mut stream, "fine").await;
        assert_eq!(door.connections.borrow()[0].sni, None);
    });
}

#[test]
fn http_2_streams_are_served_side_by_side_and_end_alone() {
    run(async {
        let door = Door::open(Kind::Https);
        let stream = tls(&door, "localhost", &["h2", "http/1.1"]).await.expect("a handshake");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::task::spawn_local(async move { drop(connection.await) });
        let request =
            |path: &str| Request::post(format!("https://localhost{path}")).body(()).expect("a request");

        let (hanging, _) = client.send_request(request("/hang"), true).expect("sent");
        let (answer, mut body) = client.send_request(request("/a"), false).expect("sent");
        body.send_data(Bytes::from_static(b"hello"), true).expect("sent");
        assert_eq!(answer.await.expect("an answer").status(), 200);
        assert_eq!(door.seen(), ["POST https://localhost/hang", "POST https://localhost/a hello"]);

        let open = Rc::clone(&door.connections.borrow()[0]);
        assert_eq!((open.h2, open.watch.in_flight.get()), (true, 1));
        drop(hanging);
        until(|| door.seen().last().is_some_and(|last| last == "cancelled")).await;
        until(|| open.watch.in_flight.get() == 0).await;
    });
}

#[test]
fn a_killed_stream_is_reset_and_its_neighbours_go_on_a_killed_connection_takes_all() {
    run(async {
        let door = Door::open(Kind::Https);
        let stream = tls(&door, "localhost", &["h2"]).await.expect("a handshake");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::task::spawn_local(async move { drop(connection.await) });
        let request =
            |path: &str| Request::get(format!("https://localhost{path}")).body(()).expect("a request");

        let (cut, _) = client.send_request(request("/hang"), true).expect("sent");
        let (other, _) = client.send_request(request("/hang"), true).expect("sent");
        until(|| door.kills.borrow().len() == 2).await;
        door.kills.borrow()[0].kill();
        assert!(cut.await.expect_err("cut").is_reset());
        let (fine, _) = client.send_request(request("/fine"), true).expect("sent");
        assert_eq!(fine.await.expect("an answer").status(), 200);
        assert_eq!(door.seen().iter().filter(|seen| *seen == "cancelled").count(), 1);

        let open = door.connections.borrow_mut().pop().expect("a connection");
        open.kill.kill();
        drop(open);
        other.await.expect_err("cut");
        until(|| door.seen().iter().filter(|seen| *seen == "cancelled").count() == 2).await;
        until(|| door.cx.caps.open() == 0).await;
    });
}

#[test]
fn an_idle_http_2_connection_is_told_goodbye() {
    run(async {
        let door = Door::open(Kind::Https);
        let stream = tls(&door, "localhost", &["h2"]).await.expect("a handshake");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let ended = tokio::task::spawn_local(connection);
        let request = Request::get("https://localhost/a").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("sent");
        drop(answer.await.expect("an answer").into_body());
        let open = Rc::clone(&door.connections.borrow()[0]);
        until(|| open.watch.in_flight.get() == 0).await;
        door.tick(Duration::ZERO);
        door.tick(Duration::from_secs(76));
        drop(client);
        let ended = tokio::time::timeout(PATIENCE, ended).await.expect("an end").expect("no panic");
        assert!(ended.is_ok(), "{ended:?}");
    });
}

#[test]
fn curl_takes_our_certificates() {
    run(async {
        let door = Door::open(Kind::Https);
        for (version, word) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let output = tokio::task::spawn_blocking({
                let (ca, port) = (door.state.path().join("ca.pem"), door.address.port());
                move || {
                    std::process::Command::new("curl")
                        .args([
                            "-sS",
                            version,
                            "-d",
                            "hello",
                            "-w",
                            " %{http_version}",
                            "--noproxy",
                            "*",
                            "--cacert",
                        ])
                        .arg(ca)
                        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
                        .arg(format!("https://localhost:{port}/curl"))
                        .output()
                }
            });
            let output = output.await.expect("no panic").expect("curl is installed");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said, format!("fine {word}"), "{}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(door.seen().len(), 2);
    });
}
