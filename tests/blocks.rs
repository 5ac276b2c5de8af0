//! Promises of the emergency blocks: what is blocked is refused at once, wherever and however it is spelled; its live
//! streams are cut within half a second, and nobody else's.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "measured figures are shown; streams take time"
)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use common::gate::{Config, Gate};
use common::raw::{self, LIMIT};
use common::tokens::{self, App, login, session};
use common::upstream::{OK, Record, Session, Upstream};
use common::{HOST, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// From the start of the command to the end of every stream (DESIGN 6).
const PROMISE: Duration = Duration::from_millis(500);
const PIECE: usize = 64 * 1024;

type Tls = TlsStream<TcpStream>;

/// Sends pieces until nobody takes them; `pause` between two.
fn pour(session: &mut Session, total: usize, pause: Duration) -> bool {
    let piece = vec![b'd'; PIECE];
    (0..total / PIECE).all(|_| {
        std::thread::sleep(pause);
        session.send(&piece)
    })
}

/// An application with streams of every sort; the path says which.
fn streams(mut session: Session) {
    while let Some(head) = session.head() {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let number = |key: &str| -> usize {
            let value = path.split(['?', '&']).find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).unwrap_or_default()
        };
        let goes_on = match path.split(['/', '?']).nth(2).unwrap_or_default() {
            "ws" => {
                std::thread::sleep(Duration::from_millis(number("wait") as u64));
                session.send(&switching(&head)) && {
                    while session.more().is_some() {
                        let echo = session.take();
                        session.send(&echo);
                    }
                    false
                }
            }
            "events" => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                let mut open = session.send(head);
                while open {
                    open = session.send(b"9\r\ndata: 1\n\n\r\n");
                    std::thread::sleep(Duration::from_millis(10));
                }
                false
            }
            "silent" => {
                session.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
                session.until_closed();
                false
            }
            "file" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", number("size"));
                session.send(head.as_bytes())
                    && pour(&mut session, number("size"), Duration::from_millis(number("pause") as u64))
            }
            "file-in" => {
                let mut got = session.take().len();
                while got < number("size") && session.more().is_some() {
                    got += session.take().len();
                }
                got >= number("size") && session.send(OK)
            }
            _ => session.send(OK),
        };
        if !goes_on {
            return;
        }
    }
}

fn switching(head: &str) -> Vec<u8> {
    let key = head.lines().find_map(|line| {
        line.to_ascii_lowercase().starts_with("sec-websocket-key:").then(|| line[18..].trim())
    });
    let proof = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.unwrap_or_default()).as_bytes(),
    );
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        STANDARD.encode(proof)
    )
    .into_bytes()
}

/// A gateway before [`streams`], with an application that looks for pairs everywhere.
fn streaming() -> (Arc<Gate>, Arc<Upstream>, App) {
    let upstream = Arc::new(Upstream::scripted(streams));
    let app = App::everywhere("hmac-pair");
    let limits = "min_rate = { bytes = \"1B\", per = \"60s\" }".into();
    let gate = Config { app: app.path(), limits, ..Config::default() }.start(upstream.address);
    (Arc::new(gate), upstream, app)
}

fn before(app: &App, upstream: &Upstream) -> Gate {
    Config { app: app.path(), ..Config::default() }.start(upstream.address)
}

async fn send(gate: &Gate, line: &str, fields: &str) -> Tls {
    let mut stream = gate.connect().await;
    let head = format!("{line} HTTP/1.1\r\nHost: {HOST}:{}\r\n{fields}\r\n", gate.https.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn websocket(gate: &Gate, path: &str, token: &str) -> Tls {
    let fields = format!(
        "{}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        bearer(token)
    );
    send(gate, &format!("GET {path}"), &fields).await
}

/// Reads until the other side ends it; when that was, and how many bytes had come.
async fn read_to_the_end(mut stream: Tls) -> (Instant, usize) {
    let (mut piece, mut got) = (vec![0; PIECE], 0);
    while let Ok(Ok(length)) = timeout(LIMIT, stream.read(&mut piece)).await {
        if length == 0 {
            break;
        }
        got += length;
    }
    (Instant::now(), got)
}

/// Sends until the other side ends it; when that was.
async fn send_to_the_end(mut stream: Tls) -> Instant {
    let piece = vec![b'u'; 4096];
    let end = Instant::now() + LIMIT;
    while Instant::now() < end && stream.write_all(&piece).await.is_ok() && stream.flush().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Instant::now()
}

async fn is_there(stream: &mut Tls) -> bool {
    let mut piece = [0; PIECE];
    matches!(timeout(LIMIT, stream.read(&mut piece)).await, Ok(Ok(length)) if length > 0)
}

async fn echoes(stream: &mut Tls) -> bool {
    stream.write_all(b"are you there").await.is_ok() && stream.flush().await.is_ok() && is_there(stream).await
}

/// Blocks a token from another process; when the command began.
async fn block(gate: &Arc<Gate>, token: &str) -> Instant {
    let (gate, token) = (Arc::clone(gate), token.to_owned());
    let start = Instant::now();
    let told =
        tokio::task::spawn_blocking(move || gate.cli_with(["block", "token", "-"], &token)).await.unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.status.success() && text.starts_with("BLOCKED: "),
        "{text}{}",
        String::from_utf8_lossy(&told.stderr)
    );
    println!("the command took {} ms", start.elapsed().as_millis());
    start
}

/// Watches when the upstream sees a connection closed.
fn closing(upstream: &Upstream, marker: &str) -> tokio::task::JoinHandle<Instant> {
    let record: Arc<Record> = upstream.connection_with(marker);
    tokio::task::spawn_blocking(move || {
        wait_until(LIMIT, || record.is_closed());
        Instant::now()
    })
}

fn assert_in_time(what: &str, start: Instant, end: Instant) {
    let took = end.saturating_duration_since(start);
    println!("{what}: {} ms", took.as_millis());
    assert!(took <= PROMISE, "{what} took {} ms", took.as_millis());
}

#[tokio::test]
async fn live_streams_of_a_blocked_token_are_cut_within_half_a_second_and_nobody_elses() {
    let (gate, upstream, _app) = streaming();
    let (stolen, own) = (session(1), session(2));
    let (size, up) = (1_usize << 30, 1 << 20);
    let download = format!("GET /down/file/NAME?size={size}&pause=1");
    let upload = |size| format!("Content-Type: x/y\r\nContent-Length: {size}\r\n");

    let mut stolen_socket = websocket(&gate, "/live/ws/stolen", &stolen).await;
    assert!(is_there(&mut stolen_socket).await && echoes(&mut stolen_socket).await);
    let mut own_socket = websocket(&gate, "/live/ws/own", &own).await;
    assert!(is_there(&mut own_socket).await && echoes(&mut own_socket).await);
    let mut stolen_events = send(&gate, "GET /live/events/stolen", &bearer(&stolen)).await;
    let mut own_events = send(&gate, "GET /live/events/own", &bearer(&own)).await;
    let mut stolen_silence = send(&gate, "GET /live/silent/stolen", &bearer(&stolen)).await;
    let mut stolen_file = send(&gate, &download.replace("NAME", "stolen"), &bearer(&stolen)).await;
    let mut own_file = send(&gate, &download.replace("NAME", "own"), &bearer(&own)).await;
    for stream in [&mut stolen_events, &mut own_events, &mut stolen_silence, &mut stolen_file, &mut own_file]
    {
        assert!(is_there(stream).await);
    }
    let unread = send(&gate, &download.replace("NAME", "unread"), &bearer(&stolen)).await;
    let uploading = |name: &str, token: &str, size: usize| {
        let line = format!("POST /up/file-in/{name}?size={size}");
        let fields = format!("{}{}", bearer(token), upload(size));
        let gate = Arc::clone(&gate);
        async move { send(&gate, &line, &fields).await }
    };
    let stolen_upload = uploading("stolen", &stolen, size).await;
    let mut own_upload = uploading("own", &own, up).await;
    own_upload.write_all(&vec![b'u'; up / 2]).await.unwrap();
    let markers = [
        "/live/ws/stolen",
        "/live/events/stolen",
        "/live/silent/stolen",
        "/file/stolen",
        "/file/unread",
        "/file-in/stolen",
    ];
    let closings: Vec<_> = markers.iter().map(|marker| (*marker, closing(&upstream, marker))).collect();
    let ends = [
        ("WebSocket", tokio::spawn(read_to_the_end(stolen_socket))),
        ("events", tokio::spawn(read_to_the_end(stolen_events))),
        ("silent events", tokio::spawn(read_to_the_end(stolen_silence))),
        ("download", tokio::spawn(read_to_the_end(stolen_file))),
    ];
    let upload_end = tokio::spawn(send_to_the_end(stolen_upload));

    let start = block(&gate, &stolen).await;

    for (marker, closing) in closings {
        assert_in_time(&format!("upstream {marker}"), start, closing.await.unwrap());
    }
    for (what, end) in ends {
        assert_in_time(&format!("client {what}"), start, end.await.unwrap().0);
    }
    assert_in_time("client upload", start, upload_end.await.unwrap());
    let (_, late) = read_to_the_end(unread).await;
    assert!(late < size / 4, "an unread download still gave {late} bytes");

    assert!(echoes(&mut own_socket).await, "somebody else's WebSocket was cut");
    assert!(is_there(&mut own_events).await && is_there(&mut own_events).await);
    assert!(is_there(&mut own_file).await && is_there(&mut own_file).await);
    own_upload.write_all(&vec![b'u'; up / 2]).await.unwrap();
    assert_eq!(raw::read_answer(&mut own_upload, false).await.status, 200, "somebody else's upload was cut");
    assert_eq!(gate.metric("portcullis_streams_cut_total"), Some(6.0));
}

#[tokio::test]
async fn one_stream_of_a_shared_http2_connection_is_cut_whether_its_reader_reads_or_not() {
    let (gate, upstream, _app) = streaming();
    let (stolen, own) = (session(1), session(2));
    let tls = raw::tls(gate.https, HOST, raw::trusting(&gate.ca(), &["h2"])).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(65_535).initial_connection_window_size(1 << 24);
    let (client, connection) = builder.handshake::<_, bytes::Bytes>(tls).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut ask = |path: String, token: &str| {
        let request = http::Request::get(format!("https://{HOST}:{}{path}", gate.https.port()))
            .header("authorization", format!("Bearer {token}"));
        client.send_request(request.body(()).unwrap(), true).unwrap().0
    };
    let total = 3 << 20;
    let endless = |name: &str| format!("/down/file/{name}?size={}&pause=1", 1 << 30);
    let stalled = ask(endless("stalled"), &stolen).await.unwrap().into_body();
    let reading = ask(endless("reading"), &stolen).await.unwrap().into_body();
    let mut whole = ask(format!("/down/file/whole?size={total}&pause=25"), &own).await.unwrap().into_body();
    // Its window is used up: nothing more can be sent to it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let closings: Vec<_> =
        ["/file/stalled", "/file/reading"].map(|marker| (marker, closing(&upstream, marker))).into();
    let drain = |mut body: h2::RecvStream| async move {
        let mut got = 0;
        loop {
            match body.data().await {
                Some(Ok(data)) => {
                    got += data.len();
                    let _ = body.flow_control().release_capacity(data.len());
                }
                Some(Err(error)) => return (got, Some(error), Instant::now()),
                None => return (got, None, Instant::now()),
            }
        }
    };
    let reader = tokio::spawn(drain(reading));
    let other = tokio::spawn(async move {
        let mut got = 0;
        while let Some(data) = whole.data().await {
            let data = data.expect("somebody else's stream was cut");
            got += data.len();
            let _ = whole.flow_control().release_capacity(data.len());
        }
        got
    });

    let start = block(&gate, &stolen).await;

    for (marker, closing) in closings {
        assert_in_time(&format!("upstream {marker}"), start, closing.await.unwrap());
    }
    let (_, error, end) = timeout(LIMIT, reader).await.unwrap().unwrap();
    assert!(error.is_some_and(|error| error.is_reset()), "the stream was not reset");
    assert_in_time("client reading", start, end);
    let (late, error, _) = timeout(LIMIT, drain(stalled)).await.unwrap();
    assert!(error.is_some_and(|error| error.is_reset()), "the stalled stream was not reset");
    assert!(late <= 65_535, "{late} bytes came through a window of 65535");
    assert_eq!(timeout(LIMIT, other).await.unwrap().unwrap(), total, "the other stream must finish whole");
    assert!(!connection.is_finished(), "the connection that is shared was closed");
    assert_eq!(gate.metric("portcullis_streams_cut_total"), Some(2.0));
}

#[tokio::test]
async fn a_block_during_a_hundred_upgrades_in_flight_leaves_no_live_one() {
    let (gate, upstream, _app) = streaming();
    let stolen = session(1);
    let upgrades: Vec<_> = (0..100)
        .map(|number| {
            let (gate, stolen) = (Arc::clone(&gate), stolen.clone());
            tokio::spawn(async move {
                let path = format!("/live/ws/{number}?wait={}", number * 4);
                let mut stream = websocket(&gate, &path, &stolen).await;
                let mut head = [0; 12];
                let opened = stream.read_exact(&mut head).await.is_ok() && head.ends_with(b"101");
                (opened, stream)
            })
        })
        .collect();
    assert!(wait_until_async(|| upstream.connections().len() > 20).await);
    block(&gate, &stolen).await;
    let acknowledged = Instant::now();
    let mut opened = 0;
    for upgrade in upgrades {
        let (was_opened, stream) = timeout(LIMIT, upgrade).await.unwrap().unwrap();
        opened += usize::from(was_opened);
        // A refused one waits for the next request; a live one would wait for ever too: so it must not echo.
        if was_opened {
            let (end, _) = read_to_the_end(stream).await;
            assert!(end.saturating_duration_since(acknowledged) < LIMIT, "a socket lives on");
        }
    }
    println!("{opened} of 100 had been opened");
    assert!(opened > 0 && opened < 100, "{opened}: the block did not come in between");
    assert!(upstream.all_closed_within(LIMIT), "the application still has a connection");
}

async fn wait_until_async(mut yes: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end && !yes() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    yes()
}
