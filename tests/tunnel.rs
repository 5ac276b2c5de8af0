//! WebSockets: a tunnel after a true 101 and only then, and nobody's tunnel outlives a drain.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::gate::{Config, Gate};
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_for};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// The example of RFC 6455, 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn generic(limits: &str) -> Config {
    Config { app: "generic".into(), limits: limits.into(), ..Config::default() }
}

/// Sends every message back; says goodbye when it hears `bye`.
async fn echo_upstream() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if message == Message::text("bye") {
                        let frame = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
                        let _ = socket.close(Some(frame)).await;
                    } else if (message.is_text() || message.is_binary())
                        && socket.send(message).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn open(gate: &Gate, origin: Option<&str>) -> Result<Socket, Error> {
    let mut request = format!("wss://{HOST}:{}/ws", gate.https.port()).into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    let config = WebSocketConfig::default().max_frame_size(Some(64 << 20));
    let opened =
        tokio_tungstenite::client_async_with_config(request, gate.connect().await, Some(config)).await;
    opened.map(|(socket, _)| socket)
}

async fn next(socket: &mut Socket) -> Message {
    timeout(raw::LIMIT, socket.next()).await.expect("a message in time").unwrap().unwrap()
}

#[tokio::test]
async fn messages_of_every_kind_and_size_come_back_as_they_were() {
    let gate = generic("").start(echo_upstream().await);
    let mut socket = open(&gate, None).await.unwrap();
    let big: Vec<u8> = (0..10_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![0, 255, 13, 10]),
        Message::binary(big),
        Message::text("ä".repeat(100_000)),
    ] {
        let (mut sink, mut stream) = socket.split();
        let (sent, came) = tokio::join!(sink.send(message.clone()), timeout(raw::LIMIT, stream.next()));
        sent.unwrap();
        assert!(came.unwrap().unwrap().unwrap() == message, "{} bytes", message.len());
        socket = sink.reunite(stream).unwrap();
    }
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong("p".into()));
}

#[tokio::test]
async fn either_side_may_close_and_one_line_of_the_log_tells_the_bytes() {
    let gate = generic("").start(echo_upstream().await);
    let mut socket = open(&gate, None).await.unwrap();
    socket.send(Message::text("x".repeat(1000))).await.unwrap();
    next(&mut socket).await;
    assert!(!gate.log().contains("/ws"), "a tunnel is logged when it ends");
    socket.close(None).await.unwrap();
    assert!(next(&mut socket).await.is_close());
    drop(socket);
    let lines = |gate: &Gate| gate.log().lines().filter(|line| line.contains("/ws")).count();
    assert!(wait_for(raw::LIMIT, || lines(&gate) == 1).await, "{}", gate.log());
    let line: serde_json::Value =
        serde_json::from_str(gate.log().lines().find(|line| line.contains("/ws")).unwrap()).unwrap();
    let bytes = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{line}"));
    assert_eq!(line["status"], 101);
    assert!(bytes("bytes_in") >= 1000 && bytes("bytes_out") >= 1000, "{line}");
    let mut socket = open(&gate, None).await.unwrap();
    socket.send(Message::text("bye")).await.unwrap();
    let Message::Close(Some(frame)) = next(&mut socket).await else { panic!("no close") };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Normal, "bye"));
    while timeout(raw::LIMIT, socket.next()).await.expect("the end in time").is_some_and(|one| one.is_ok()) {}
    assert!(wait_for(raw::LIMIT, || lines(&gate) == 2).await, "{}", gate.log());
}

/// No deadline is near: a goodbye would be waited for five seconds.
const SOON: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_reset_of_one_side_is_passed_on_at_once() {
    let switching = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    let upstream = Upstream::scripted(move |mut session| {
        session.head();
        session.send(switching.as_bytes());
        if session.more().is_some() && session.ahead().ends_with(b"reset") {
            return session.reset();
        }
        session.until_closed();
    });
    let gate = generic("").start(upstream.address);
    let open = async |says: &[u8]| {
        let mut stream = gate.connect().await;
        stream.write_all(upgrade(&gate, "").as_bytes()).await.unwrap();
        assert_eq!(timeout(raw::LIMIT, raw::read_answer(&mut stream, true)).await.unwrap().status, 101);
        stream.write_all(says).await.unwrap();
        stream.flush().await.unwrap();
        stream
    };
    let mut stream = open(b"reset").await;
    let mut rest = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the client has not heard of the upstream's reset");

    let stream = open(b"hello").await;
    let record = upstream.connection_with("hello");
    stream.get_ref().0.set_zero_linger().unwrap();
    drop(stream);
    assert!(wait_for(SOON, || record.is_closed()).await, "the upstream has not heard of the client's reset");
}

fn upgrade(gate: &Gate, fields: &str) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {HOST}:{}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n",
        gate.https.port()
    )
}

#[tokio::test]
async fn without_a_true_101_there_is_no_tunnel() {
    let true_one = format!("Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {ACCEPT}");
    let cases = [
        (
            "101",
            "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="
                .into(),
            502,
        ),
        ("101", "Upgrade: websocket\r\nConnection: upgrade".into(), 502),
        ("101", format!("Upgrade: h2c\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {ACCEPT}"), 502),
        ("200", format!("{true_one}\r\nContent-Length: 0"), 200),
        ("401", "Content-Length: 0".into(), 401),
        ("426", "Upgrade: websocket\r\nContent-Length: 0".into(), 426),
    ];
    for (status, fields, seen) in cases {
        let what = format!("{status} {fields}");
        let upstream = Upstream::scripted(move |mut session| {
            session.head();
            session.send(format!("HTTP/1.1 {status} Any\r\n{fields}\r\n\r\n").as_bytes());
            session.until_closed();
        });
        let gate = generic("").start(upstream.address);
        let mut stream = gate.connect().await;
        stream.write_all(upgrade(&gate, "").as_bytes()).await.unwrap();
        let answer = timeout(raw::LIMIT, raw::read_answer(&mut stream, false)).await.expect(&what);
        assert_eq!(answer.status, seen, "{what}");
        assert!(answer.header("sec-websocket-accept").is_none() || seen == 200, "{what}");
        // What follows is no frame of a tunnel.
        let _ = stream.write_all(b"SECRETFRAME\r\n\r\n").await;
        let mut rest = Vec::new();
        let _ = timeout(raw::LIMIT, stream.read_to_end(&mut rest)).await.expect("an end");
        let received = upstream.bytes();
        assert!(!String::from_utf8_lossy(&received).contains("SECRETFRAME"), "{what}");
    }
}

#[tokio::test]
async fn bytes_sent_before_the_answer_reach_the_upstream_only_after_its_101() {
    let upstream = Upstream::scripted(|mut session| {
        session.head();
        // Were they let through, they would be here with the head.
        assert_eq!(session.ahead(), b"");
        session.send(
            format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\nDOWN").as_bytes(),
        );
        while session.ahead() != b"EARLY" && session.more().is_some() {}
        session.send(b"HEARD");
        session.until_closed();
    });
    let gate = generic("").start(upstream.address);
    let mut stream = gate.connect().await;
    stream.write_all(format!("{}EARLY", upgrade(&gate, "")).as_bytes()).await.unwrap();
    let answer = timeout(raw::LIMIT, raw::read_answer(&mut stream, true)).await.unwrap();
    assert_eq!(answer.status, 101);
    let mut tunnelled = [0; 9];
    timeout(raw::LIMIT, stream.read_exact(&mut tunnelled)).await.expect("both in time").unwrap();
    assert_eq!(&tunnelled, b"DOWNHEARD");
}

#[tokio::test]
async fn a_foreign_page_opens_no_socket_the_sites_own_does() {
    let gate = generic("").start(echo_upstream().await);
    let own = format!("https://{HOST}:{}", gate.https.port());
    assert!(open(&gate, Some(&own)).await.is_ok());
    for foreign in
        ["https://evil.example", "null", &format!("http://{HOST}"), "https://files.test.evil.example"]
    {
        match open(&gate, Some(foreign)).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 403, "{foreign}"),
            other => panic!("{foreign}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_tunnel_is_not_held_to_the_deadlines_of_requests() {
    let limits =
        "head_timeout = \"1s\"\nidle_timeout = \"1s\"\nmin_rate = { bytes = \"1MiB\", per = \"1s\" }";
    let gate = generic(limits).start(echo_upstream().await);
    let mut socket = open(&gate, None).await.unwrap();
    // An idle connection beside it shows that the deadlines are at work.
    let mut idle = gate.connect().await;
    let head = format!("HEAD /ws HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    idle.write_all(head.as_bytes()).await.unwrap();
    let _ =
        timeout(raw::LIMIT, idle.read_to_end(&mut Vec::new())).await.expect("idle connections are closed");
    tokio::time::sleep(Duration::from_secs(2)).await;
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still here"));
}

#[tokio::test]
async fn a_drain_lets_downloads_finish_closes_the_idle_and_cuts_tunnels_at_its_end() {
    let echo = echo_upstream().await;
    let slow = Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            if request.target != "/slow" {
                session.send(OK);
                continue;
            }
            session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            for _ in 0..10 {
                session.send(b"x");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let route = format!("[[site.route]]\nmatch = \"/ws\"\nclass = \"live\"\nupstream = \"http://{echo}\"");
    let mut gate = Config { site: route, ..generic("drain_timeout = \"3s\"") }.start(slow.address);
    let port = gate.https.port();
    let mut socket = open(&gate, None).await.unwrap();
    let mut idle = gate.connect().await;
    raw::ask(&mut idle, format!("GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n").as_bytes()).await;
    let mut running = gate.connect().await;
    running.write_all(format!("GET /slow HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n").as_bytes()).await.unwrap();
    let mut first = [0; 1];
    running.read_exact(&mut first).await.unwrap();

    let begun = Instant::now();
    gate.signal("TERM");
    let mut end = Vec::new();
    timeout(Duration::from_secs(2), idle.read_to_end(&mut end)).await.expect("closed soon").unwrap();
    let mut rest = Vec::new();
    timeout(raw::LIMIT, running.read_to_end(&mut rest)).await.expect("the end").unwrap();
    assert!(rest.ends_with(b"\r\n\r\nxxxxxxxxxx"), "{:?}", String::from_utf8_lossy(&rest));
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::text("still here"));
    assert!(TcpStream::connect(gate.https).await.is_err(), "no new connections");
    let last = timeout(raw::LIMIT, socket.next()).await.expect("cut in the end");
    assert!(last.is_none_or(|one| one.is_err()));
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0), "{}", gate.errors());
    let took = begun.elapsed();
    assert!((3..8).contains(&took.as_secs()), "{took:?}");
}
