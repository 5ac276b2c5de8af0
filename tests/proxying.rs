//! The gateway hands requests and answers through: streamed, whole, once, and as they are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::print_stdout, reason = "what was measured is said")]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::gate::{Config, Gate};
use common::http2::{self, Client};
use common::upstream::{OK, Session, Upstream};
use common::{HOST, raw, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const GIB: u64 = 1 << 30;
/// Its length is prime to all buffers, so that a piece left out or doubled shows.
const PATTERN: usize = 65_521;
/// What the gate's resident set may grow by, however large the body.
const GROWTH_KIB: u64 = 64 * 1024;

fn pattern() -> Vec<u8> {
    (0..PATTERN).map(|place| u8::try_from(place * 7 % 251).unwrap()).collect()
}

/// Checks that these bytes stand at this place of the repeated pattern.
fn check(pattern: &[u8], mut at: u64, mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        let start = usize::try_from(at % PATTERN as u64).unwrap();
        let length = bytes.len().min(PATTERN - start);
        assert!(bytes[..length] == pattern[start..start + length], "wrong bytes at {at}");
        bytes = &bytes[length..];
        at += length as u64;
    }
    at
}

/// One GiB; by hand more: `PORTCULLIS_TEST_GIB=5`.
fn size() -> u64 {
    GIB * std::env::var("PORTCULLIS_TEST_GIB").map_or(1, |gib| gib.parse().unwrap())
}

/// Sends the pattern to whoever asks GET, checks what is posted.
fn pattern_upstream(size: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || pattern_session(stream.unwrap(), size));
        }
    });
    address
}

fn pattern_session(mut stream: TcpStream, size: u64) {
    let pattern = pattern();
    let mut buffer = vec![0; 256 * 1024];
    let length = stream.read(&mut buffer).unwrap();
    let end = common::strict::head_end(&buffer[..length]).expect("a whole head at once");
    if buffer.starts_with(b"POST") {
        let mut at = check(&pattern, 0, &buffer[end..length]);
        while at < size {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the upload broke off at {at}");
            at = check(&pattern, at, &buffer[..length]);
        }
        let _ = stream.write_all(OK);
    } else {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").unwrap();
        let mut left = size;
        while left > 0 {
            let piece = left.min(PATTERN as u64);
            if stream.write_all(&pattern[..usize::try_from(piece).unwrap()]).is_err() {
                return;
            }
            left -= piece;
        }
    }
}

/// Looks at the gate's resident set every few milliseconds until stopped.
fn watch_memory(gate: &Gate) -> (Arc<AtomicBool>, std::thread::JoinHandle<u64>, u64) {
    let (before, stop) = (gate.resident(), Arc::<AtomicBool>::default());
    let status = gate.status_file();
    let stopped = Arc::clone(&stop);
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        while !stopped.load(Ordering::SeqCst) {
            most = most.max(common::gate::resident_of(&status));
            std::thread::sleep(Duration::from_millis(20));
        }
        most
    });
    (stop, watch, before)
}

#[tokio::test]
async fn a_huge_download_passes_whole_in_constant_memory() {
    let size = size();
    let gate = Config::default().start(pattern_upstream(size));
    let (stop, watch, before) = watch_memory(&gate);
    let begun = Instant::now();
    let mut stream = gate.connect().await;
    let head = format!("GET /api/assets/a/file HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let mut had = 0;
    let end = loop {
        had += stream.read(&mut buffer[had..]).await.unwrap();
        if let Some(end) = common::strict::head_end(&buffer[..had]) {
            break end;
        }
    };
    let pattern = pattern();
    let mut at = check(&pattern, 0, &buffer[end..had]);
    while at < size {
        let length = timeout(raw::LIMIT, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(length > 0, "the download broke off at {at}");
        at = check(&pattern, at, &buffer[..length]);
    }
    stop.store(true, Ordering::SeqCst);
    report("down", size, begun, before, watch.join().unwrap());
}

#[tokio::test]
async fn a_huge_upload_passes_whole_in_constant_memory() {
    let size = size();
    let gate = Config::default().start(pattern_upstream(size));
    let (stop, watch, before) = watch_memory(&gate);
    let begun = Instant::now();
    let mut stream = gate.connect().await;
    let head = format!(
        "POST /api/assets HTTP/1.1\r\nHost: {HOST}:{}\r\nContent-Length: {size}\r\n\r\n",
        gate.https.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (pattern, mut left) = (pattern(), size);
    while left > 0 {
        let piece = left.min(PATTERN as u64);
        stream.write_all(&pattern[..usize::try_from(piece).unwrap()]).await.unwrap();
        left -= piece;
    }
    stream.flush().await.unwrap();
    let answer = timeout(raw::LIMIT, raw::read_answer(&mut stream, false)).await.unwrap();
    assert_eq!(answer.status, 200);
    stop.store(true, Ordering::SeqCst);
    report("up", size, begun, before, watch.join().unwrap());
}

fn report(way: &str, size: u64, begun: Instant, before: u64, most: u64) {
    let grown = most.saturating_sub(before);
    println!(
        "{} MiB {way} in {:?}, resident {before} KiB, grown by {grown} KiB",
        size >> 20,
        begun.elapsed()
    );
    assert!(grown <= GROWTH_KIB, "{way}: grown by {grown} KiB");
}

#[tokio::test]
async fn ranges_and_conditions_pass_both_ways() {
    let upstream = Upstream::answering(
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-4/9\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\nContent-Length: 3\r\n\r\nabc",
    );
    let gate = Gate::start("", upstream.address);
    let fields = "Range: bytes=2-4\r\nIf-Range: \"v1\"\r\nIf-None-Match: \"v0\"\r\n";
    let answer = gate.ask("GET /api/assets/a/file", fields, b"").await;
    assert_eq!((answer.status, answer.text().as_str()), (206, "abc"));
    assert_eq!(answer.header("content-range"), Some("bytes 2-4/9"));
    assert_eq!((answer.header("etag"), answer.header("accept-ranges")), (Some("\"v1\""), Some("bytes")));
    let seen = &upstream.requests()[0];
    assert_eq!(seen.header("range"), Some("bytes=2-4"));
    assert_eq!((seen.header("if-range"), seen.header("if-none-match")), (Some("\"v1\""), Some("\"v0\"")));
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_step() {
    let upstream = Upstream::by_request(|request| match (request.method.as_str(), request.target.as_str()) {
        ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_vec(),
        (_, "/api/204") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        (_, "/api/304") => b"HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n".to_vec(),
        _ => OK.to_vec(),
    });
    let gate = Gate::start("", upstream.address);
    let mut stream = gate.connect().await;
    for (line, status, body) in [
        ("HEAD /api/a", 200, ""),
        ("GET /api/a", 200, "ok"),
        ("GET /api/204", 204, ""),
        ("GET /api/304", 304, ""),
        ("GET /api/a", 200, "ok"),
    ] {
        let head = format!("{line} HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
        let answer = raw::ask(&mut stream, head.as_bytes()).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{line}");
        if line.starts_with("HEAD") {
            assert_eq!(answer.header("content-length"), Some("5"));
        }
    }
    let client = Client::connect(&gate).await;
    for (method, path, status, body) in [
        ("HEAD", "/api/a", 200, ""),
        ("GET", "/api/204", 204, ""),
        ("GET", "/api/304", 304, ""),
        ("GET", "/api/a", 200, "ok"),
    ] {
        let answer = client.ask(method, path, b"").await.unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice(), answer.whole),
            (status, body.as_bytes(), true),
            "{path}"
        );
    }
}

#[tokio::test]
async fn each_event_of_a_stream_arrives_before_the_next_is_sent() {
    let (next, wanted) = mpsc::sync_channel::<()>(1);
    let wanted = Mutex::new(wanted);
    let upstream = Upstream::scripted(move |mut session| {
        if session.request().is_some() {
            session.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            let wanted = wanted.lock().unwrap();
            for number in 0..20 {
                wanted.recv().unwrap();
                session.send(format!("9\r\ndata: {number:02}\n\r\n").as_bytes());
            }
            session.send(b"0\r\n\r\n");
        }
    });
    let gate = Gate::start("", upstream.address);
    let client = Client::connect(&gate).await;
    let (answer, _) = client.open(client.head("GET", "/api/events"), true).await;
    let mut body = answer.await.unwrap().into_body();
    for number in 0..20 {
        next.send(()).unwrap();
        let event = timeout(raw::LIMIT, body.data()).await.expect("the event at once").unwrap().unwrap();
        assert_eq!(event, format!("data: {number:02}\n"));
    }
    // The end may come as an empty piece.
    let rest = timeout(raw::LIMIT, body.data()).await.expect("the end");
    assert!(rest.as_ref().is_none_or(|rest| rest.as_ref().is_ok_and(Bytes::is_empty)), "{rest:?}");
}

#[tokio::test]
async fn the_client_is_told_to_go_on_only_when_its_body_is_wanted() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("[site.only_from]\nadmin = [\"192.0.2.0/24\"]", upstream.address);
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}:{}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n",
            gate.https.port()
        )
    };
    let mut stream = gate.connect().await;
    stream.write_all(head("/api/x", 5).as_bytes()).await.unwrap();
    let first = timeout(raw::LIMIT, raw::read_answer(&mut stream, true)).await.unwrap();
    assert_eq!(first.status, 100);
    assert_eq!(raw::ask(&mut stream, b"hello").await.status, 200);
    assert_eq!(upstream.requests()[0].body, b"hello");
    // An allowlist denies one, a limit the other: neither is asked for its body.
    for (path, length, status) in [("/api/users", 5, 404), ("/api/x", 2 << 20, 413)] {
        let mut stream = gate.connect().await;
        stream.write_all(head(path, length).as_bytes()).await.unwrap();
        let answer = timeout(raw::LIMIT, raw::read_answer(&mut stream, false)).await.unwrap();
        assert_eq!(answer.status, status, "{path}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

/// Answers each upload after its head; then closes, or stays and never reads.
fn early_upstream(stays: bool) -> Upstream {
    Upstream::scripted(move |mut session: Session| {
        if session.head().is_some() {
            session.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
            if stays {
                std::thread::sleep(Duration::from_secs(5));
            }
        }
    })
}

#[tokio::test]
async fn an_early_answer_to_an_upload_reaches_the_client() {
    for stays in [false, true] {
        let upstream = early_upstream(stays);
        let gate = Gate::start("", upstream.address);
        for round in 0..10 {
            early_h1(&gate, &format!("http/1.1, stays: {stays}, round {round}")).await;
            early_h2(&gate, &format!("h2, stays: {stays}, round {round}")).await;
        }
    }
}

async fn early_h1(gate: &Gate, what: &str) {
    let (mut read, mut write) = tokio::io::split(gate.connect().await);
    let head = format!(
        "POST /api/assets HTTP/1.1\r\nHost: {HOST}:{}\r\nContent-Length: 33554432\r\n\r\n",
        gate.https.port()
    );
    let sending = tokio::spawn(async move {
        let _ = write.write_all(head.as_bytes()).await;
        while write.write_all(&[7; 65536]).await.is_ok() {}
    });
    let answer = timeout(raw::LIMIT, raw::read_answer(&mut read, false)).await.expect(what);
    assert_eq!((answer.status, answer.text().as_str()), (401, "no"), "{what}");
    sending.abort();
}

async fn early_h2(gate: &Gate, what: &str) {
    let client = Client::connect(gate).await;
    let (answer, mut body) = client.open(client.head("POST", "/api/assets"), false).await;
    body.send_data(Bytes::from(vec![7; 8 << 20]), false).unwrap();
    let answer = http2::read(answer).await.expect(what);
    assert_eq!((answer.status, answer.body.as_slice()), (401, b"no".as_slice()), "{what}");
}

/// Answers without end or not at all, and says how long after a signal it saw that nobody listens any more.
fn leaving_upstream(answers: bool, gone: Arc<AtomicU64>) -> Upstream {
    Upstream::scripted(move |mut session: Session| {
        if session.request().is_none() {
            return;
        }
        if answers {
            session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 107374182400\r\n\r\n");
            while session.send(&[7; 65536]) {}
        } else {
            session.until_closed();
        }
        gone.fetch_add(1, Ordering::SeqCst);
    })
}

#[tokio::test]
async fn a_client_that_leaves_is_gone_for_the_upstream_within_a_second() {
    for answers in [true, false] {
        let gone = Arc::<AtomicU64>::default();
        let upstream = leaving_upstream(answers, Arc::clone(&gone));
        let gate = Gate::start("", upstream.address);
        let upstream = &upstream;
        let asked = |count| wait_for(raw::LIMIT, move || upstream.connections().len() == count);
        let mut stream = gate.connect().await;
        let head = format!("GET /api/assets/a/file HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
        stream.write_all(head.as_bytes()).await.unwrap();
        if answers {
            stream.read_exact(&mut vec![0; 1 << 20]).await.unwrap();
        }
        assert!(asked(1).await);
        let left = Instant::now();
        drop(stream);
        wait_for(raw::LIMIT, || gone.load(Ordering::SeqCst) == 1).await;
        assert!(left.elapsed() <= Duration::from_secs(1), "http/1.1, {answers}: {:?}", left.elapsed());

        let client = Client::connect(&gate).await;
        let (answer, body) = client.open(client.head("GET", "/api/assets/a/file"), true).await;
        assert!(asked(2).await);
        let answer = if answers { Ok(answer.await.unwrap()) } else { Err(answer) };
        let left = Instant::now();
        drop((answer, body));
        wait_for(raw::LIMIT, || gone.load(Ordering::SeqCst) == 2).await;
        assert!(left.elapsed() <= Duration::from_secs(1), "h2, {answers}: {:?}", left.elapsed());
    }
}

#[tokio::test]
async fn bodies_pass_both_ways_with_length_and_in_chunks_and_trailers_do_no_harm() {
    let upstream = Upstream::by_request(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        match request.target.as_str() {
            "/api/chunks" => format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Sum: 1\r\n\r\n",
                body.len()
            ),
            _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        }
        .into_bytes()
    });
    let gate = Gate::start("", upstream.address);
    let mut stream = gate.connect().await;
    let client = Client::connect(&gate).await;
    for path in ["/api/chunks", "/api/length"] {
        let port = gate.https.port();
        let length = format!("POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Length: 5\r\n\r\nhello");
        let chunks = format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nTransfer-Encoding: chunked\r\nTrailer: checksum\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nchecksum: 1\r\n\r\n"
        );
        for request in [length, chunks] {
            let answer = raw::ask(&mut stream, request.as_bytes()).await;
            assert_eq!(
                (answer.status, answer.text().trim_end_matches("\r\n")),
                (200, "hello"),
                "{request} {}",
                gate.log()
            );
        }
        let answer = client.ask("POST", path, b"hello").await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.whole), (200, b"hello".as_slice(), true));
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 6);
    assert!(requests.iter().all(|request| request.body == b"hello" && request.header("checksum").is_none()));
}

#[tokio::test]
async fn a_body_over_its_limit_is_413_and_the_upstream_never_sees_a_whole_one() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let head = |length: &str| {
        format!("POST /api/x HTTP/1.1\r\nHost: {HOST}:{}\r\n{length}\r\n\r\n", gate.https.port())
    };
    let announced = format!("{}{}", head("Content-Length: 1048577"), "a".repeat(1_048_577));
    let answer = raw::exchange(&mut gate.connect().await, announced.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{:?}", String::from_utf8_lossy(&answer));
    assert_eq!(upstream.connections().len(), 0, "an announced one is not even begun");
    let piece = format!("{:x}\r\n{}\r\n", 65536, "a".repeat(65536));
    let chunked = format!("{}{}0\r\n\r\n", head("Transfer-Encoding: chunked"), piece.repeat(17));
    let answer = raw::exchange(&mut gate.connect().await, chunked.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{:?}", String::from_utf8_lossy(&answer));
    let client = Client::connect(&gate).await;
    let (answer, mut stream) = client.open(client.head("POST", "/api/x"), false).await;
    stream.send_data(Bytes::from(vec![b'a'; (1 << 20) + 1]), true).unwrap();
    assert_eq!(http2::read(answer).await.unwrap().status, 413);
    assert!(upstream.all_closed_within(raw::LIMIT), "the requests are broken off");
    for connection in upstream.connections() {
        let bytes = connection.bytes();
        assert!(!bytes.ends_with(b"0\r\n\r\n"), "a whole request reached the upstream");
    }
    // Exactly the limit passes.
    assert_eq!(gate.ask("POST /api/x", "", &vec![b'a'; 1 << 20]).await.status, 200);
}

#[tokio::test]
async fn heads_pass_as_they_are_up_to_the_limits() {
    let long: &'static str = Box::leak("v".repeat(100 * 1024).into_boxed_str());
    let upstream = Upstream::by_request(move |request| {
        if request.target == "/api/long" {
            return format!("HTTP/1.1 200 OK\r\nX-Long: {long}\r\nContent-Length: 2\r\n\r\nok").into_bytes();
        }
        b"HTTP/1.1 302 Found\r\nSet-Cookie: a=1; Path=/x\r\nSet-Cookie: a=1; Path=/x\r\nSet-Cookie: b=2\r\nLocation: http://elsewhere.example/a?b=%2F#c\r\nContent-Length: 2\r\n\r\nok".to_vec()
    });
    let gate = Gate::start("", upstream.address);
    let answer = gate.ask("GET /api/x", "", b"").await;
    assert_eq!(answer.header("location"), Some("http://elsewhere.example/a?b=%2F#c"));
    let cookies: Vec<&str> =
        answer.head.lines().filter(|line| line.to_lowercase().starts_with("set-cookie")).collect();
    assert_eq!(cookies.len(), 3, "{cookies:?}");
    assert!(cookies[0].contains("a=1; Path=/x") && cookies[0] == cookies[1], "{cookies:?}");
    let answer = gate.ask("GET /api/long", "", b"").await;
    assert_eq!((answer.status, answer.header("x-long").map(str::len)), (200, Some(long.len())));
    // A hundred cookies in one field, and in many crumbs over HTTP/2, arrive as one field.
    let cookies: Vec<String> = (0..100).map(|number| format!("name{number}=value{number}")).collect();
    gate.ask("GET /api/c", &format!("Cookie: {}\r\n", cookies.join("; ")), b"").await;
    let client = Client::connect(&gate).await;
    let crumbs =
        cookies.iter().take(60).fold(client.head("GET", "/api/c"), |head, one| head.header("cookie", one));
    let (answer, _) = client.open(crumbs, true).await;
    assert_eq!(http2::read(answer).await.unwrap().status, 302);
    let seen = upstream.requests();
    assert_eq!(seen[2].header("cookie"), Some(cookies.join("; ").as_str()));
    assert_eq!(seen[3].header("cookie"), Some(cookies[..60].join("; ").as_str()));
    for (length, status) in [(31 * 1024, 302), (33 * 1024, 431)] {
        let field = format!("X-Big: {}\r\n", "x".repeat(length));
        assert_eq!(gate.ask("GET /api/x", &field, b"").await.status, status, "{length}");
    }
}

#[tokio::test]
async fn an_http10_client_gets_a_plain_body_and_the_end_of_the_connection() {
    let upstream =
        Upstream::answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let gate = Gate::start("", upstream.address);
    let head = format!("GET /api/x HTTP/1.0\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    let bytes = raw::exchange(&mut gate.connect().await, head.as_bytes()).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("HTTP/1.0 200") || text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.ends_with("\r\n\r\nhello") && !text.to_lowercase().contains("transfer-encoding"), "{text}");
}

#[tokio::test]
async fn a_request_that_was_sent_is_never_sent_again() {
    let upstream = Upstream::scripted(|mut session| {
        session.request();
        session.close();
    });
    let gate = Gate::start("", upstream.address);
    let client = Client::connect(&gate).await;
    for (count, method) in ["POST", "GET", "DELETE", "PUT"].into_iter().enumerate() {
        assert_eq!(gate.ask(&format!("{method} /api/x"), "", b"").await.status, 502, "{method}");
        assert_eq!(client.ask(method, "/api/x", b"").await.unwrap().status, 502, "{method}");
        assert_eq!(upstream.requests().len(), 2 * (count + 1), "{method}");
    }
}

#[tokio::test]
async fn a_connection_that_the_upstream_has_closed_costs_no_request() {
    let upstream = Upstream::scripted(|mut session| {
        if session.request().is_some() {
            session.send(OK);
        }
    });
    let gate = Gate::start("", upstream.address);
    let mut stream = gate.connect().await;
    for number in 1..=50 {
        let method = if number % 2 == 0 { "POST" } else { "GET" };
        let head = format!(
            "{method} /api/x HTTP/1.1\r\nHost: {HOST}:{}\r\nContent-Length: 0\r\n\r\n",
            gate.https.port()
        );
        assert_eq!(raw::ask(&mut stream, head.as_bytes()).await.status, 200, "number {number}");
        assert_eq!(upstream.requests().len(), number);
        assert!(upstream.all_closed_within(raw::LIMIT));
    }
}
