//! WebSockets over HTTP/2 (RFC 8441): judged like any request, tunnelled to the application as HTTP/1.1, and cut alone.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::gate::{Config, Gate};
use common::http2::{self, Client};
use common::upstream::Upstream;
use common::{HOST, raw, tokens, wait_for};
use futures_util::{SinkExt, StreamExt};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::request::Builder;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

type Socket = WebSocketStream<DuplexStream>;

/// Heads that applications were asked with.
type Heads = std::sync::Arc<std::sync::Mutex<Vec<HeaderMap>>>;

/// Sends every message back, and speaks the subprotocol `echo`.
async fn echo_upstream(heads: Heads) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                #[expect(clippy::result_large_err, reason = "its callback is declared so")]
                let seen = |request: &Request, mut answer: Response| -> Result<Response, ErrorResponse> {
                    heads.lock().unwrap().push(request.headers().clone());
                    if request.headers().contains_key("sec-websocket-protocol") {
                        answer.headers_mut().insert("sec-websocket-protocol", "echo".parse().unwrap());
                    }
                    Ok(answer)
                };
                let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, seen).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    let echo = message.is_text() || message.is_binary();
                    if echo && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn generic(limits: &str) -> Config {
    Config { app: "generic".into(), limits: limits.into(), ..Config::default() }
}

/// The head of a WebSocket.
fn head(client: &Client, path: &str) -> Builder {
    client
        .head("CONNECT", path)
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
}

async fn open(client: &Client, head: Builder) -> (http::response::Parts, Socket) {
    let (answer, send) = client.open(head, false).await;
    let (head, recv) = timeout(raw::LIMIT, answer).await.expect("an answer in time").unwrap().into_parts();
    assert_eq!(head.status, StatusCode::OK, "{head:?}");
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(carry(far, recv, send));
    let config = WebSocketConfig::default().max_frame_size(Some(64 << 20));
    (head, WebSocketStream::from_raw_socket(near, Role::Client, Some(config)).await)
}

/// A stream of HTTP/2 as one of bytes.
async fn carry(far: DuplexStream, mut recv: RecvStream, mut send: SendStream<Bytes>) {
    let (mut read, mut write) = tokio::io::split(far);
    let down = async {
        while let Some(Ok(piece)) = recv.data().await {
            write.write_all(&piece).await.unwrap_or_default();
            let _ = recv.flow_control().release_capacity(piece.len());
        }
        let _ = write.shutdown().await;
    };
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let mut piece = Bytes::copy_from_slice(&buffer[..length]);
            while !piece.is_empty() {
                send.reserve_capacity(piece.len());
                let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else { return };
                let _ = send.send_data(piece.split_to(room.min(piece.len())), false);
            }
        }
        let _ = send.send_data(Bytes::new(), true);
    };
    tokio::join!(down, up);
}

async fn next(socket: &mut Socket) -> Message {
    timeout(raw::LIMIT, socket.next()).await.expect("a message in time").unwrap().unwrap()
}

async fn echoes(socket: &mut Socket, text: &str) -> bool {
    socket.send(Message::text(text)).await.is_ok() && next(socket).await == Message::text(text)
}

#[tokio::test]
async fn messages_pass_to_an_http1_application_with_a_key_of_our_own_and_the_log_counts_them() {
    let heads = Heads::default();
    let gate = generic("").start(echo_upstream(heads.clone()).await);
    let client = Client::connect(&gate).await;
    let asked = head(&client, "/ws?a=b")
        .header("sec-websocket-protocol", "echo")
        .header("sec-websocket-key", "Zm9yZ2VkIGJ5IHRoZSBjbGk=")
        .header("x-forwarded-user", "root");
    let (answer, mut socket) = open(&client, asked).await;
    assert_eq!(answer.headers["sec-websocket-protocol"], "echo");
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers.contains_key(gone), "{gone}");
    }
    assert!(answer.headers.contains_key("x-request-id"));
    let seen = heads.lock().unwrap()[0].clone();
    assert_eq!(
        (&seen["upgrade"], &seen["connection"]),
        (&"websocket".parse().unwrap(), &"upgrade".parse().unwrap())
    );
    assert_ne!(seen["sec-websocket-key"], "Zm9yZ2VkIGJ5IHRoZSBjbGk=");
    assert_eq!(seen["sec-websocket-version"], "13");
    assert!(!seen.contains_key("x-forwarded-user"));

    let big: Vec<u8> = (0..5_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    for message in [Message::text("hello"), Message::text(""), Message::binary(big)] {
        let (mut sink, mut stream) = socket.split();
        let (sent, came) = tokio::join!(sink.send(message.clone()), timeout(raw::LIMIT, stream.next()));
        sent.unwrap();
        assert!(came.unwrap().unwrap().unwrap() == message, "{} bytes", message.len());
        socket = sink.reunite(stream).unwrap();
    }
    socket.close(None).await.unwrap();
    assert!(next(&mut socket).await.is_close());
    drop(socket);
    let line = |gate: &Gate| gate.log().lines().find(|line| line.contains("/ws")).map(str::to_owned);
    assert!(wait_for(raw::LIMIT, || line(&gate).is_some()).await, "{}", gate.log());
    let line: serde_json::Value = serde_json::from_str(&line(&gate).unwrap()).unwrap();
    let bytes = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{line}"));
    assert_eq!((&line["status"], &line["method"]), (&200.into(), &"CONNECT".into()), "{line}");
    assert!(bytes("bytes_in") >= 5_000_000 && bytes("bytes_out") >= 5_000_000, "{line}");
}

#[tokio::test]
async fn a_block_cuts_one_tunnel_of_a_shared_connection_whether_it_is_read_or_not_and_no_other() {
    let app = tokens::App::new("jwt", "[\"bearer\", \"query:token\"]", "");
    let flood = Upstream::scripted(|mut session| {
        let head = session.head().unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap().to_owned();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        session.send(
            format!("HTTP/1.1 101 Any\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
                .as_bytes(),
        );
        while session.send(&[0; 65536]) {}
    });
    let site = format!(
        "[[site.route]]\nmatch = \"/live/flood\"\nclass = \"live\"\nupstream = \"http://{}\"",
        flood.address
    );
    let echo = echo_upstream(Heads::default()).await;
    let gate = Config { app: app.path(), site, ..Config::default() }.start(echo);
    let client = Client::connect(&gate).await;
    let stolen = tokens::login("alice", "stolen", tokens::now());
    let good = tokens::login("alice", "good", tokens::now());
    let bearer =
        |path: &str, token: &str| head(&client, path).header("authorization", format!("Bearer {token}"));
    let (_, mut bad) = open(&client, bearer("/live/a", &stolen)).await;
    let (_, mut other) = open(&client, bearer("/live/b", &good)).await;
    // Of this one nobody takes anything: what is on its way to the client waits for room.
    let (answer, _up) = client.open(head(&client, &format!("/live/flood?token={stolen}")), false).await;
    let unread = answer.await.unwrap().into_body();
    assert!(echoes(&mut bad, "bad").await && echoes(&mut other, "good").await);

    let began = Instant::now();
    let done = gate.cli_with(["block", "token", "-"], &stolen);
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{done:?}");
    let end = timeout(raw::LIMIT, bad.next()).await.expect("the end in time");
    assert!(end.is_none_or(|one| one.is_err()));
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}, {told}", began.elapsed());
    let closed = || flood.connections().iter().all(|one| one.is_closed());
    assert!(wait_for(Duration::from_secs(2), closed).await, "the application goes on sending");
    let mut unread = unread;
    let reset = async {
        loop {
            match unread.data().await {
                Some(Ok(piece)) => drop(unread.flow_control().release_capacity(piece.len())),
                Some(Err(error)) => return error.reason(),
                None => return None,
            }
        }
    };
    assert_eq!(timeout(raw::LIMIT, reset).await.expect("the end in time"), Some(h2::Reason::CANCEL));
    assert!(echoes(&mut other, "still here").await);
    assert!(client.ask("GET", "/nothing", b"").await.is_ok(), "the connection serves on");
}

#[tokio::test]
async fn a_websocket_over_http2_is_judged_like_any_request() {
    let heads = Heads::default();
    let app = tokens::App::new("jwt", "[\"bearer\"]", "");
    let site = "[[site.route]]\nmatch = \"GET /own/ws\"\nclass = \"live\"\n\
                [[site.route]]\nmatch = \"/own/*\"\nclass = \"share\"\n\
                [[site.route]]\nmatch = \"/metrics\"\nclass = \"metrics\"\n\
                [site.only_from]\nmetrics = [\"192.0.2.0/24\"]\n[site.rate.share]\nrefill = \"1/day\"\nburst = 1\n";
    let config = Config { app: app.path(), site: site.into(), ..Config::default() };
    let gate = config.start(echo_upstream(heads.clone()).await);
    let client = Client::connect(&gate).await;
    let refused = async |head: Builder| {
        let (answer, _send) = client.open(head, false).await;
        http2::read(answer).await.unwrap().status
    };
    let own = format!("https://{HOST}:{}", gate.https.port());
    let (_, mut socket) = open(&client, head(&client, "/live/ws").header("origin", &own)).await;
    assert!(echoes(&mut socket, "own").await);
    for foreign in ["https://evil.example", "null"] {
        assert_eq!(refused(head(&client, "/live/ws").header("origin", foreign)).await, 403, "{foreign}");
    }
    assert_eq!(refused(head(&client, "/metrics")).await, 404);
    // The route of its GET, which has no rate, and not the other, which has.
    for _ in 0..3 {
        let (_, mut socket) = open(&client, head(&client, "/own/ws")).await;
        assert!(echoes(&mut socket, "own").await);
    }
    let token = tokens::login("alice", "one", tokens::now());
    assert!(gate.cli_with(["block", "token", "-"], &token).status.success());
    let blocked = head(&client, "/live/ws").header("authorization", format!("Bearer {token}"));
    assert_eq!(refused(blocked).await, 401);
    let other = client.head("CONNECT", "/live/ws").extension(Protocol::from_static("connect-udp"));
    assert_eq!(refused(other).await, 400);
    assert_eq!(heads.lock().unwrap().len(), 4, "no refused one has reached the application");
}

#[tokio::test]
async fn without_a_true_101_there_is_no_tunnel() {
    let proof =
        "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (answer, status) in [
        (format!("101 Any\r\n{proof}"), 502),
        ("101 Any\r\nUpgrade: websocket\r\nConnection: upgrade".into(), 502),
        ("200 OK\r\nContent-Length: 2\r\n\r\nok".into(), 502),
        ("204 No Content".into(), 502),
        ("401 Any\r\nContent-Length: 2\r\n\r\nno".into(), 401),
        ("426 Any\r\nContent-Length: 0".into(), 426),
    ] {
        let what = answer.clone();
        let upstream = Upstream::scripted(move |mut session| {
            while session.head().is_some() && session.send(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()) {}
        });
        let gate = generic("").start(upstream.address);
        let client = Client::connect(&gate).await;
        let (head, mut send) = client.open(head(&client, "/ws"), false).await;
        send.send_data(Bytes::from_static(b"EARLYFRAME"), false).unwrap();
        assert_eq!(http2::read(head).await.unwrap().status, status, "{what}");
        let _ = send.send_data(Bytes::from_static(b"SECRETFRAME"), false);
        assert!(client.ask("GET", "/other", b"").await.is_ok());
        let seen = String::from_utf8_lossy(&upstream.bytes()).into_owned();
        assert!(!seen.contains("FRAME"), "{what}: {seen}");
    }
}

#[tokio::test]
async fn a_tunnel_is_not_held_to_the_deadlines_of_requests_and_its_connection_is_when_it_has_ended() {
    let limits =
        "head_timeout = \"1s\"\nidle_timeout = \"1s\"\nmin_rate = { bytes = \"1MiB\", per = \"1s\" }";
    let gate = generic(limits).start(echo_upstream(Heads::default()).await);
    let client = Client::connect(&gate).await;
    let (_, mut socket) = open(&client, head(&client, "/ws")).await;
    // An idle connection beside it shows that the deadlines are at work.
    let mut idle = gate.connect().await;
    let asked = format!("HEAD /ws HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    idle.write_all(asked.as_bytes()).await.unwrap();
    timeout(raw::LIMIT, idle.read_to_end(&mut Vec::new()))
        .await
        .expect("idle connections are closed")
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(echoes(&mut socket, "still here").await);
    drop(idle);
    let open = async |count| {
        wait_for(raw::LIMIT, || gate.metric("portcullis_connections{listener=\"https\"}") == Some(count))
            .await
    };
    assert!(open(1.0).await);
    drop(socket);
    assert!(open(0.0).await, "the connection stays");
}

#[tokio::test]
async fn who_goes_ends_the_tunnel_for_the_other_side() {
    let quiet = Upstream::scripted(|mut session| {
        let head = session.head().unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap().to_owned();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        session.send(
            format!("HTTP/1.1 101 Any\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\nDOWN")
                .as_bytes(),
        );
        if head.contains("/ws/leaves") {
            return;
        }
        session.until_closed();
    });
    let gate = generic("").start(quiet.address);
    let client = Client::connect(&gate).await;
    let (answer, send) = client.open(head(&client, "/ws/leaves"), false).await;
    let answer = http2::read(answer).await.unwrap();
    assert_eq!(
        (answer.status, &*answer.body),
        (200, &b"DOWN"[..]),
        "what the application said comes, then the end"
    );
    drop(send);
    let (answer, mut send) = client.open(head(&client, "/ws/stays"), false).await;
    let body = answer.await.unwrap().into_body();
    send.send_reset(h2::Reason::CANCEL);
    drop(body);
    let closed = || quiet.connections().iter().all(|one| one.is_closed());
    assert!(wait_for(raw::LIMIT, closed).await, "the application's side of a reset tunnel stays open");
    assert!(Client::connect(&gate).await.ask("GET", "/", b"").await.is_ok());
}
