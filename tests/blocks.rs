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
use std::sync::atomic::{AtomicUsize, Ordering};
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
    let open = Arc::new(AtomicUsize::new(0));
    let upgrades: Vec<_> = (0..100)
        .map(|number| {
            let (gate, stolen, open) = (Arc::clone(&gate), stolen.clone(), Arc::clone(&open));
            tokio::spawn(async move {
                let path = format!("/live/ws/{number}?wait={}", number * 10);
                let mut stream = websocket(&gate, &path, &stolen).await;
                let mut head = [0; 12];
                let opened = stream.read_exact(&mut head).await.is_ok() && head.ends_with(b"101");
                open.fetch_add(usize::from(opened), Ordering::SeqCst);
                (opened, stream)
            })
        })
        .collect();
    assert!(wait_until_async(|| open.load(Ordering::SeqCst) > 5).await);
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

/// Runs a verb that must do what it says.
fn done(gate: &Gate, arguments: &[&str], input: &str) -> String {
    let told = gate.cli_with(arguments.iter().copied(), input);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&told.stderr));
    text
}

/// The status of a request with this bearer token.
async fn status(gate: &Gate, path: &str, token: &str) -> u16 {
    gate.ask(&format!("GET {path}"), &bearer(token), b"").await.status
}

#[tokio::test]
async fn each_kind_of_block_refuses_at_once_and_only_what_it_means() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let listen = "trusted_proxies = [\"127.0.0.1/32\"]".into();
    let gate = Config { app: app.path(), listen, ..Config::default() }.start(upstream.address);
    let old = tokens::now() - 10;
    let (a, a2, b) = (login("a", "a1", old), login("a", "a2", old), login("b", "b1", old));
    let (c, d) = (login("c", "c1", old), login("7", "d1", old));
    let seven = tokens::jwt(&format!(r#"{{"sub":7,"jti":"d2","iat":{old}}}"#));
    for token in [&a, &a2, &b, &c, &d, &seven] {
        assert_eq!(status(&gate, "/api/x", token).await, 200);
    }

    done(&gate, &["block", "token", "-"], &a);
    assert_eq!((status(&gate, "/api/x", &a).await, status(&gate, "/api/x", &a2).await), (401, 200));
    done(&gate, &["block", "jti", "a2"], "");
    assert_eq!((status(&gate, "/api/x", &a2).await, status(&gate, "/api/x", &b).await), (401, 200));
    done(&gate, &["block", "subject", "c", "--and-logins"], "");
    done(&gate, &["block", "subject", "b"], "");
    assert_eq!((status(&gate, "/api/x", &b).await, status(&gate, "/api/x", &d).await), (401, 200));
    // Whoever logs in again in a later second is let in, unless logins are refused too.
    let mut again = login("b", "b2", tokens::now());
    while status(&gate, "/api/x", &again).await != 200 {
        assert!(tokens::now() < old + 30, "nobody can log in again");
        again = login("b", "b2", tokens::now());
    }
    assert_eq!(status(&gate, "/api/x", &login("c", "c2", tokens::now())).await, 401);
    done(&gate, &["block", "subject", "7"], "");
    assert_eq!(
        (status(&gate, "/api/x", &d).await, status(&gate, "/api/x", &seven).await),
        (401, 401),
        "7 and \"7\""
    );

    done(&gate, &["block", "share", "-"], &format!("https://{HOST}/s/Tok3n/file"));
    for path in [
        "/s/Tok3n",
        "/s/Tok3n/file",
        "/s/Tok%33n",
        "//s//Tok3n",
        "/s/Tok3n;x=1",
        "/s/./Tok3n",
        "/S/Tok3n",
        "/s/Tok3n/",
    ] {
        assert_eq!(gate.ask(&format!("GET {path}"), "", b"").await.status, 404, "{path}");
    }
    assert_eq!(gate.ask("GET /s/tok3n", "", b"").await.status, 200, "another link");

    done(&gate, &["block", "address", "198.51.100.7"], "");
    let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    assert_eq!(gate.ask("GET /api/x", &from("198.51.100.7"), b"").await.status, 403);
    assert_eq!(gate.ask("GET /api/x", &from("::ffff:198.51.100.7"), b"").await.status, 403);
    assert_eq!(gate.ask("GET /api/x", &from("198.51.100.8"), b"").await.status, 200);

    let everyone = gate.cli(["block", "everyone"]);
    assert_eq!(everyone.status.code(), Some(5), "so wide a block wants --yes");
    let fresh = login("e", "e1", old);
    assert_eq!(status(&gate, "/api/x", &fresh).await, 200);
    done(&gate, &["block", "everyone", "--yes"], "");
    assert_eq!(status(&gate, "/api/x", &fresh).await, 401);
    assert_eq!(gate.ask("GET /api/x", "", b"").await.status, 200, "nobody's request has no session");

    let listed = done(&gate, &["blocks"], "");
    assert!(
        listed.contains("everyone") && listed.contains("198.51.100.7") && !listed.contains("Tok3n"),
        "{listed}"
    );
    done(&gate, &["unblock", "1"], "");
    assert_eq!(gate.cli(["unblock", "1"]).status.code(), Some(1), "it stands no more");
}

#[tokio::test]
async fn who_waits_for_the_applications_answer_or_has_not_sent_all_is_cut_and_the_application_let_go() {
    let upstream = Upstream::scripted(|mut session| session.until_closed());
    let listen = "trusted_proxies = [\"127.0.0.1\"]".into();
    let gate = Config { listen, ..Config::default() }.start(upstream.address);
    let (gate, upstream) = (Arc::new(gate), Arc::new(upstream));
    let (stolen, other) = (session(1), session(2));
    let waits = send(&gate, "GET /api/assets/waits", &bearer(&stolen)).await;
    let upload =
        send(&gate, "POST /api/assets/upload", &format!("{}Content-Length: 9\r\n", bearer(&stolen))).await;
    let mut stays = send(&gate, "GET /api/assets/stays", &bearer(&other)).await;
    // The guard holds a login until all of it is there: the application has heard nothing.
    let half = format!(
        "X-Forwarded-For: 192.0.2.1\r\n{}Content-Type: application/json\r\nContent-Length: 90\r\n",
        bearer(&stolen)
    );
    let mut login = send(&gate, "POST /api/auth/login", &half).await;
    login.write_all(b"{\"username\":").await.unwrap();
    login.flush().await.unwrap();
    let closed = [closing(&upstream, "/waits"), closing(&upstream, "/upload")];
    upstream.connection_with("/stays");
    let begun = block(&gate, &stolen).await;
    for (what, stream) in [("who waits", waits), ("who uploads", upload), ("who logs in", login)] {
        let (end, got) = read_to_the_end(stream).await;
        assert_in_time(what, begun, end);
        assert_eq!(got, 0, "{what}");
    }
    for closed in closed {
        assert_in_time("the upstream", begun, closed.await.unwrap());
    }
    assert!(timeout(Duration::from_millis(100), stays.read(&mut [0; 1])).await.is_err(), "another waits on");
    assert!(!upstream.bytes().windows(5).any(|window| window == b"login"), "a login in halves goes nowhere");
}

#[tokio::test]
async fn a_block_of_everyone_says_whether_new_logins_pass_and_so_it_is() {
    let opaque = App::new("opaque", r#"["bearer", "cookie:sid"]"#, "");
    let dated = App::new("jwt", r#"["bearer", "cookie:sid"]"#, "");
    for (app, passes) in [(&opaque, false), (&dated, true)] {
        let upstream = Upstream::by_request(|request| {
            let token = if request.target == "/login?opaque" {
                "c4f1b2f0a9d8e7c6b5a4".into()
            } else {
                login("e", "e9", tokens::now())
            };
            format!("HTTP/1.1 200 OK\r\nSet-Cookie: sid={token}; Path=/\r\nContent-Length: 2\r\n\r\nok")
                .into_bytes()
        });
        let gate = before(app, &upstream);
        let said = done(&gate, &["block", "everyone", "--yes"], "");
        let refused =
            "do not say how old they are: all count as old, so that logging in again is REFUSED TOO";
        assert_eq!(
            (said.contains(refused), said.contains("logging in again is possible")),
            (!passes, passes),
            "{said}"
        );
        let person = gate.cli(["block", "subject", "nobody"]);
        assert_eq!(person.status.success(), passes, "nobody is found by his name there: {person:?}");
        let begun = tokens::now();
        while tokens::now() <= begun {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let path = if passes { "/login" } else { "/login?opaque" };
        let json = "Content-Type: application/json\r\n";
        let answer = gate.ask(&format!("POST {path}"), json, b"{}").await;
        assert_eq!(
            (answer.status, answer.header("set-cookie").is_some()),
            if passes { (200, true) } else { (401, false) }
        );
        done(&gate, &["unblock", "1"], "");
        assert_eq!(gate.ask(&format!("POST {path}"), json, b"{}").await.status, 200, "lifted");
    }
}

#[tokio::test]
async fn a_blocked_token_is_refused_in_every_place_where_an_application_may_look() {
    for format in ["hmac-pair", "jwt", "opaque"] {
        let upstream = Upstream::answering(OK);
        let app = App::everywhere(format);
        let gate = before(&app, &upstream);
        let token = match format {
            "hmac-pair" => session(1),
            "jwt" => login("1", "1", 1),
            _ => "0123456789abcdefABCDEF~_-.".to_owned(),
        };
        let escaped = format!("%{:02x}{}", token.as_bytes()[0], &token[1..]);
        let field = |name: &str, value: String| ("/api/x".to_owned(), format!("{name}: {value}\r\n"));
        let query = |query: String| (format!("/api/x?{query}"), String::new());
        let places = [
            field("Authorization", format!("Bearer {token}")),
            field("authorization", format!("bEARER {token}")),
            field("Authorization", format!("Bearer   \t {token}  ")),
            field("Authorization", token.clone()),
            field("Authorization", format!("Token token=\"{token}\", nonce=\"x\"")),
            field("Authorization", format!("Basic {}", STANDARD.encode(format!("me:{token}")))),
            field("Authorization", format!("Basic {}", STANDARD.encode(format!("{token}:")))),
            field("Cookie", format!("a=b; sid={token}")),
            field("Cookie", format!("sid=\"{token}\"; a=b")),
            field("Cookie", format!("a=b;sid = {escaped}")),
            field("Cookie", format!("SID={token}")),
            field("Cookie", format!("sid=\"Bearer {token}\"")),
            query(format!("token=Bearer%20{token}")),
            field("Sec-WebSocket-Protocol", format!("chat, {token}")),
            field("Sec-WebSocket-Protocol", format!("graphql-transport-ws, access_token.{token}")),
            field(
                "Sec-WebSocket-Protocol",
                format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(&token)),
            ),
            query(format!("token={token}")),
            query(format!("a=b&token={escaped}&c")),
            query(format!("t%6Fken={token}")),
            query(format!("TOKEN=+{token}")),
        ];
        for (path, fields) in &places {
            let answer = gate.ask(&format!("GET {path}"), fields, b"").await;
            assert_eq!(answer.status, 200, "{format}, before: {path} {fields}");
        }
        assert_eq!(upstream.requests().len(), places.len());
        done(&gate, &["block", "token", "-"], &token);
        for (path, fields) in &places {
            let answer = gate.ask(&format!("GET {path}"), fields, b"").await;
            assert_eq!(answer.status, 401, "{format}: {path} {fields}");
        }
        assert_eq!(upstream.requests().len(), places.len(), "one has reached the application");
        assert_eq!(status(&gate, "/api/x", "another.one").await, 200);
    }
}

/// Spellings of `token` that some decoder takes for it: Python's base64 drops what is no digit of it, Go and PyJWT
/// forgive spare bits or padding, frameworks trim, split and unescape.
fn spellings(token: &str) -> Vec<(String, String)> {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other_alphabet = signature.replace('-', "+").replace('_', "/");
    let spare: Vec<String> = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        .chars()
        .map(|last| format!("{signed}.{}{last}", &signature[..signature.len() - 1]))
        .collect();
    let mut tokens = spare;
    tokens.extend(
        ["=", "==", "=AAAA", ".", "..", ".AAAA", "~", "!!!!", "%", "\u{7f}"]
            .map(|tail| format!("{token}{tail}")),
    );
    tokens.extend([
        format!("{signed}.{other_alphabet}"),
        format!("{signed}.!{signature}"),
        format!("{signed}.{}~~~~{}", &signature[..9], &signature[9..]),
        format!("{signed}.{} {}", &signature[..9], &signature[9..]),
        format!("{signed}..{signature}"),
        format!("{signed}.AAAA.{signature}"),
        format!("{signed}.{signature}, x"),
        format!("{signed}.{signature} x.y"),
        format!("x {token}"),
        format!("x,{token}"),
        format!("{token} {token}"),
        format!("\u{a0}{token}"),
    ]);
    let mut all = Vec::new();
    for spelled in tokens {
        all.push(("/api/x".into(), format!("Authorization: Bearer {spelled}\r\n")));
        all.push(("/api/x".into(), format!("Cookie: sid={spelled}\r\n")));
        let escaped = percent_encoding::utf8_percent_encode(&spelled, percent_encoding::NON_ALPHANUMERIC);
        all.push((format!("/api/x?token={escaped}"), String::new()));
    }
    let field = |line: String| ("/api/x".to_owned(), line + "\r\n");
    all.extend([
        field(format!("Authorization: Bearer x\r\nAuthorization: Bearer {token}")),
        field(format!("Authorization: Bearer {token}\r\nAuthorization: Bearer x")),
        field(format!("Authorization: Bearer\u{a0}{token}")),
        field(format!("Authorization: Basic {token}")),
        field(format!("Authorization: Basic {}", STANDARD_NO_PAD.encode(format!("user:{token}")))),
        field(format!("Authorization: Negotiate {token}")),
        field(format!("Cookie: sid=x; sid={token}")),
        field(format!("Cookie: sid=x\r\nCookie: sid={token}")),
        field(format!("Cookie: a=b sid={token}")),
        field(format!("Cookie: a=b, sid={token}")),
        field(format!("Cookie: sid=\"{token}\" x")),
        field(format!("Cookie: sid=\"\\{:03o}{}\"", token.as_bytes()[0], &token[1..])),
        field(format!("Cookie: sid=x; Sid={token}")),
        field(format!("Cookie: %73id={token}")),
        (format!("/api/x?token=x&token={token}"), String::new()),
        (format!("/api/x?token=x;token={token}"), String::new()),
        (format!("/api/x?token={token}+"), String::new()),
        (format!("/api/x?token={token}%20"), String::new()),
        (format!("/api/x?token=%0b{token}"), String::new()),
        (format!("/api/x?token={token}%00"), String::new()),
        (format!("/api/x?%20token={token}"), String::new()),
    ]);
    all
}

#[tokio::test]
async fn no_spelling_of_a_blocked_token_reaches_the_application() {
    for format in ["hmac-pair", "jwt"] {
        let upstream = Upstream::answering(OK);
        let app = App::everywhere(format);
        let gate = before(&app, &upstream);
        let token = if format == "jwt" { login("1", "1", 1) } else { session(1) };
        done(&gate, &["block", "token", "-"], &token);
        let all = spellings(&token);
        for (path, fields) in &all {
            let line = format!("GET {path} HTTP/1.1\r\nHost: {HOST}:{}\r\n", gate.https.port());
            // One byte for each character: 0xA0 is sent as Latin-1.
            let bytes: Vec<u8> =
                format!("{line}{fields}\r\n").chars().map(|c| u8::try_from(c).unwrap()).collect();
            let answer = raw::ask(&mut gate.connect().await, &bytes).await;
            assert!(matches!(answer.status, 400 | 401), "{format}: {path} {fields} {}", answer.head);
            assert_eq!(
                upstream.connections().len(),
                0,
                "{format}: {path} {fields} has reached the application"
            );
        }
        println!("{format}: {} spellings", all.len());
    }
}

#[tokio::test]
async fn a_blocked_cookie_is_stripped_where_its_owner_must_be_able_to_log_in_again_and_refused_elsewhere() {
    let (gate, upstream, _app) = streaming();
    let (stolen, other) = (session(1), session(2));
    done(&gate, &["block", "token", "-"], &stolen);
    let cookie = |token: &str| format!("Cookie: theme=dark; sid={token}; renew=00ff\r\n");
    for path in ["GET /", "POST /login"] {
        let answer = gate.ask(path, &cookie(&stolen), b"").await;
        assert_eq!(answer.status, 200, "{path}");
        let expired = |name: &str| answer.head.contains(&format!("set-cookie: {name}=; Max-Age=0"));
        assert!(expired("sid") && expired("renew"), "{}", answer.head);
    }
    assert_eq!(gate.ask("POST /login", &format!("Cookie: Sid={stolen}\r\n"), b"").await.status, 200);
    let seen = upstream.requests();
    assert!(seen.iter().all(|request| !format!("{request:?}").contains(&stolen)), "{seen:?}");
    assert_eq!(seen[0].header("cookie"), Some("theme=dark"));
    assert_eq!(gate.ask("GET /api/x", &cookie(&stolen), b"").await.status, 401);
    // A second credential that is blocked is not stripped, so it is refused.
    let both = format!("{}{}", cookie(&stolen), bearer(&stolen));
    assert_eq!(gate.ask("GET /", &both, b"").await.status, 401);
    let good = format!("{}{}", cookie(&stolen), bearer(&other));
    assert_eq!(gate.ask("GET /", &good, b"").await.status, 200);

    // A page that is still loading without the cookie is not cut by somebody else's block; one with a cookie is.
    let mut without = send(&gate, "GET /page/file/without?size=1073741824&pause=5", &cookie(&stolen)).await;
    let mut with = send(&gate, "GET /page/file/with?size=1073741824&pause=5", &cookie(&other)).await;
    assert!(is_there(&mut without).await && is_there(&mut with).await);
    block(&gate, &other).await;
    let (_, _) = timeout(LIMIT, read_to_the_end(with)).await.expect("the page with the cookie was not cut");
    assert!(
        is_there(&mut without).await && is_there(&mut without).await,
        "the page without the cookie was cut"
    );
    for _ in 0..20 {
        assert!(is_there(&mut without).await, "the page without the cookie was cut");
    }
}

#[tokio::test]
async fn refusals_look_as_the_applications_own() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("hmac-pair");
    let gate = before(&app, &upstream);
    let stolen = session(1);
    done(&gate, &["block", "token", "-"], &stolen);
    let answer = gate.ask("GET /api/x", &bearer(&stolen), b"").await;
    assert_eq!((answer.status, answer.text().as_str()), (401, r#"{"who":"nobody"}"#));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    done(&gate, &["block", "share", "-"], "Tok3n");
    let shared = gate.ask("GET /s/Tok3n", "", b"").await;
    let closed = gate.ask("GET /metrics", "", b"").await;
    assert_eq!((shared.status, shared.text().as_str()), (404, r#"{"what":"nothing"}"#));
    assert!(shared.header("x-request-id").is_some(), "{}", shared.head);
    assert_eq!(closed.status, 200, "this application has no such page");
    let socket = gate
        .ask("GET /live/x", &format!("{}Connection: Upgrade\r\nUpgrade: websocket\r\n", bearer(&stolen)), b"")
        .await;
    assert_eq!(socket.status, 401);
    assert!(upstream.requests().iter().all(|request| request.target == "/metrics"));
    assert!(wait_until(LIMIT, || ["token_blocked", "share_blocked"]
        .iter()
        .all(|word| gate.log().contains(word))));
    let log = gate.log();
    for secret in [stolen.as_str(), "Tok3n"] {
        assert!(!log.contains(secret) && !gate.errors().contains(secret), "{log}{}", gate.errors());
    }
}

#[tokio::test]
async fn a_file_that_was_broken_when_it_was_first_named_is_taken_once_it_is_mended() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let gate = Config { app: app.path(), ..Config::default() }.start(upstream.address);
    let file = gate.config().with_file_name("blocks.toml");
    common::gate::place(&file, "[[blocks]]\n");
    let named = std::fs::read_to_string(gate.config()).unwrap() + "\n[blocks]\nfile = \"blocks.toml\"\n";
    common::gate::place(&gate.config(), &named);
    assert!(wait_until_async(|| done(&gate, &["status"], "").contains("was refused")).await);
    common::gate::place(&file, "[[blocks]]\njti = \"listed\"\nreason = \"in git\"\n");
    assert!(wait_until_async(|| done(&gate, &["blocks"], "").contains("in git")).await);
}

#[tokio::test]
async fn the_last_good_copy_of_the_block_file_holds_over_a_restart_with_a_broken_or_missing_one() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let (listed, other) = (login("a", "listed", tokens::now()), login("b", "other", tokens::now()));
    let good = "[[blocks]]\njti = \"listed\"\nreason = \"in git\"\n";
    let site = "[blocks]\nfile = \"blocks.toml\"\n".into();
    let files = vec![("blocks.toml", good.to_owned())];
    let mut gate = Config { app: app.path(), site, files, ..Config::default() }.start(upstream.address);
    let file = gate.config().with_file_name("blocks.toml");
    let blocked = async |gate: &Gate| {
        assert_eq!(status(gate, "/api/x", &other).await, 200);
        status(gate, "/api/x", &listed).await == 401
    };
    assert!(blocked(&gate).await);
    for broken in [Some("[[blocks]]\njti = \"listed\"\nfingerprint = \"short\"\n"), Some(""), None] {
        match broken {
            Some(text) => common::gate::place(&file, text),
            None => std::fs::remove_file(&file).unwrap(),
        }
        gate.kill();
        gate.start_again();
        assert!(blocked(&gate).await, "lifted by {broken:?}");
        let told = done(&gate, &["status"], "");
        let wrong = broken.is_some_and(|text| !text.is_empty());
        assert_eq!(told.contains("was refused") && told.contains("64 hex digits"), wrong, "{told}");
        assert_eq!(
            gate.metric("portcullis_config_last_reload_successful"),
            Some(f64::from(u8::from(!wrong)))
        );
        if wrong {
            assert!(gate.errors().contains("THE BLOCK FILE IS NOT TAKEN"), "{}", gate.errors());
        }
    }
    common::gate::place(&file, good);
    done(&gate, &["reload"], "");
    assert_eq!(done(&gate, &["blocks"], "").matches("in git").count(), 1, "the same entry is the same block");
    // Mended while it runs: an empty list, and only that, lifts all.
    common::gate::place(&file, "blocks = []\n");
    assert!(wait_until_async(|| done(&gate, &["blocks"], "").contains("No block stands")).await);
    assert!(!blocked(&gate).await);

    // Without a state there is no last good copy: a broken list is no start.
    common::gate::place(&file, "[[blocks]]\n");
    gate.kill();
    std::fs::remove_file(gate.state().join("blocks.redb")).unwrap();
    let told = gate.cli(["run"]);
    assert_eq!(told.status.code(), Some(3), "{}", String::from_utf8_lossy(&told.stderr));
}
