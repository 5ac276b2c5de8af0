//! An upstream that lies, breaks off, or says too much: nothing leaks into another answer, nothing cut short looks whole,
//! and the next request works at once.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::print_stdout, reason = "what was measured is said")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::gate::{Config, Gate, free_addresses};
use common::http2::Client;
use common::upstream::Upstream;
use common::{HOST, raw, strict, wait_for};
use tokio::io::AsyncWriteExt;

/// How the upstream goes on after its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Stay,
    Close,
    Reset,
}
use Then::{Close, Reset, Stay};

/// What the client must see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sees {
    /// 502, and nothing of the upstream's.
    Bad,
    /// An answer whose body does not end.
    Cut,
    /// This whole body with status 200.
    Whole(&'static str),
}
use Sees::{Bad, Cut, Whole};

const HUGE: usize = 1 << 20;

/// Name, bytes, what then, what the client sees. `@` stands for a header of one MiB.
const CASES: [(&str, &str, Then, Sees); 41] = [
    ("good", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood", Stay, Whole("good")),
    ("length too short", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokPOISON", Stay, Whole("ok")),
    ("length too long", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Close, Cut),
    ("length too long, reset", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", Reset, Cut),
    (
        "a second answer",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
        Stay,
        Whole("ok"),
    ),
    (
        "bytes after chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nPOISON",
        Stay,
        Whole("ok"),
    ),
    (
        "chunks cut before the last",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        Close,
        Cut,
    ),
    ("chunks cut, reset", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", Reset, Cut),
    (
        "a chunk cut in its middle",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort",
        Close,
        Cut,
    ),
    (
        "chunks cut in the last",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n0\r\n",
        Close,
        Cut,
    ),
    (
        "a chunk size that is none",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nxyz\r\n",
        Close,
        Cut,
    ),
    (
        "a chunk size beyond all bounds",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nfffffffffffffffff\r\n",
        Close,
        Cut,
    ),
    ("up to the end", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it", Close, Whole("all of it")),
    ("up to a reset", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nshort", Reset, Cut),
    ("HTTP/1.0 up to the end", "HTTP/1.0 200 OK\r\n\r\nall of it", Close, Whole("all of it")),
    ("HTTP/1.0 up to a reset", "HTTP/1.0 200 OK\r\n\r\nshort", Reset, Cut),
    (
        "both length and chunks",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Stay,
        Bad,
    ),
    ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 6\r\n\r\nokPOISON", Stay, Bad),
    ("two equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Stay, Bad),
    ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", Stay, Bad),
    ("a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", Stay, Bad),
    (
        "a length beyond all bounds",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
        Stay,
        Bad,
    ),
    ("a coding that is not ours", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", Close, Bad),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Close, Bad),
    (
        "a blank before the colon",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nok",
        Stay,
        Bad,
    ),
    ("status 99", "HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    ("status 1000", "HTTP/1.1 1000 Odd\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    ("status 777", "HTTP/1.1 777 Odd\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    ("status of letters", "HTTP/1.1 abc Odd\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    (
        "interim answers first",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Stay,
        Whole("ok"),
    ),
    ("NUL in a header", "HTTP/1.1 200 OK\r\nX-Odd: a\0b\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    (
        "CR in a header",
        "HTTP/1.1 200 OK\r\nX-Odd: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        Stay,
        Bad,
    ),
    ("NUL in a name", "HTTP/1.1 200 OK\r\nX\0Odd: a\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    ("a folded header", "HTTP/1.1 200 OK\r\nX-Odd: a\r\n b\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    ("a header of one MiB", "HTTP/1.1 200 OK\r\nX-Odd: @\r\nContent-Length: 2\r\n\r\nok", Stay, Bad),
    ("garbage", "\x01\x02\x03 not HTTP at all\r\n\r\n", Close, Bad),
    ("HTTP/0.9", "<html>POISON</html>", Close, Bad),
    ("nothing", "", Close, Bad),
    ("half a head", "HTTP/1.1 200 OK\r\nContent-Le", Close, Bad),
    (
        "101 that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nPOISON",
        Stay,
        Bad,
    ),
];

fn upstream_of_cases() -> Upstream {
    Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            let last = request.target.rsplit('/').next().unwrap().to_owned();
            let Some(case) = request.target.strip_prefix("/api/case/") else {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{last}", last.len());
                if !session.send(answer.as_bytes()) {
                    return;
                }
                continue;
            };
            let (_, bytes, then, _) = CASES[case.parse::<usize>().unwrap()];
            let sent = session.send(bytes.replace('@', &"x".repeat(HUGE)).as_bytes());
            match then {
                Stay if sent => {}
                Reset => return session.reset(),
                _ => return session.close(),
            }
        }
    })
}

/// What an HTTP/1.1 client sees: status, body, and whether that ended as announced.
async fn over_h1(gate: &Gate, path: &str) -> (u16, Vec<u8>, bool) {
    let head =
        format!("GET {path} HTTP/1.1\r\nHost: {HOST}:{}\r\nConnection: close\r\n\r\n", gate.https.port());
    let bytes = raw::exchange(&mut gate.connect().await, head.as_bytes()).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let end = strict::head_end(&bytes).unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = text.split(' ').nth(1).unwrap().parse().unwrap();
    let (head, body) = (text[..end].to_lowercase(), &bytes[end..]);
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    if let Some(length) = length {
        return (status, body.to_vec(), body.len() == length);
    }
    assert!(head.contains("transfer-encoding: chunked"), "neither length nor chunks: {head}");
    let whole = body.ends_with(b"0\r\n\r\n");
    let pieces: Vec<&[u8]> = body.split(|byte| *byte == b'\n').skip(1).step_by(2).collect();
    let body = pieces.iter().flat_map(|piece| piece.strip_suffix(b"\r").unwrap_or(piece)).copied().collect();
    (status, body, whole)
}

fn judge(name: &str, sees: Sees, (status, body, whole): (u16, Vec<u8>, bool)) {
    let text = String::from_utf8_lossy(&body).into_owned();
    assert!(!text.contains("POISON"), "{name}: {text}");
    match sees {
        Bad => assert_eq!((status, whole), (502, true), "{name}: {text}"),
        Cut => {
            assert!(status == 502 || !whole, "{name}: {status} with {text:?} looks whole");
        }
        Whole(expected) => assert_eq!((status, text.as_str(), whole), (200, expected, true), "{name}"),
    }
}

#[tokio::test]
async fn whatever_an_upstream_answers_an_http1_client_gets_502_a_cut_body_or_the_truth() {
    let upstream = upstream_of_cases();
    let gate = Gate::start("", upstream.address);
    for (place, (name, _, _, sees)) in CASES.into_iter().enumerate() {
        judge(name, sees, over_h1(&gate, &format!("/api/case/{place}")).await);
        let next = over_h1(&gate, &format!("/api/ok/canary{place}")).await;
        let expected = format!("canary{place}");
        assert_eq!((next.0, next.1.as_slice(), next.2), (200, expected.as_bytes(), true), "after {name}");
    }
}

#[tokio::test]
async fn whatever_an_upstream_answers_an_http2_client_gets_502_a_reset_stream_or_the_truth() {
    let upstream = upstream_of_cases();
    let gate = Gate::start("", upstream.address);
    let client = Client::connect(&gate).await;
    for (place, (name, _, _, sees)) in CASES.into_iter().enumerate() {
        let answer = client.ask("GET", &format!("/api/case/{place}"), b"").await;
        // A stream that is reset before its head was sent has no answer at all: cut, and seen to be.
        let seen =
            answer.map_or((502, Vec::new(), false), |answer| (answer.status, answer.body, answer.whole));
        judge(name, sees, seen);
        let next = client.ask("GET", &format!("/api/ok/canary{place}"), b"").await.unwrap();
        assert_eq!(
            (next.status, next.body, next.whole),
            (200, format!("canary{place}").into(), true),
            "after {name}"
        );
    }
}

#[tokio::test]
async fn surplus_bytes_never_reach_another_clients_answer() {
    let upstream = Upstream::by_request(|request| {
        let number = request.target.rsplit('/').next().unwrap();
        let stray = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON";
        let stray = if number.ends_with(['3', '7']) { stray } else { "" };
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{number}{stray}", number.len()).into_bytes()
    });
    let gate = Gate::start("", upstream.address);
    let mut tasks = Vec::new();
    for task in 0..4 {
        let client = Client::connect(&gate).await;
        tasks.push(tokio::spawn(async move {
            for number in 0..250 {
                let number = task * 1000 + number;
                let answer = client.ask("GET", &format!("/api/n/{number}"), b"").await.unwrap();
                assert_eq!((answer.status, answer.body), (200, number.to_string().into_bytes()));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn interim_answers_without_end_are_ended_and_others_served_meanwhile() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            if request.target.contains("endless") {
                while session.send(b"HTTP/1.1 100 Continue\r\n\r\n") {}
                return;
            }
            session.send(common::upstream::OK);
        }
    });
    let gate = Gate::start("", upstream.address);
    let (endless, other) =
        tokio::join!(gate.ask("GET /api/endless", "", b""), gate.ask("GET /api/other", "", b""));
    assert_eq!((endless.status, other.status), (502, 200));
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502_with_the_cause_in_the_log_and_the_metrics() {
    let [nobody] = free_addresses();
    let route = "[[site.route]]\nmatch = \"/nowhere/*\"\nclass = \"api\"\nupstream = \"http://no-such-host.invalid:80\"";
    let gate = Gate::start(route, nobody);
    assert_eq!(gate.ask("GET /api/x", "", b"").await.status, 502);
    assert_eq!(gate.ask("GET /nowhere/x", "", b"").await.status, 502);
    for words in ["no connection to the upstream: Connection refused", "failed to lookup address"] {
        assert!(wait_for(raw::LIMIT, || gate.log().contains(words)).await, "{}", gate.log());
    }
    let up = |gate: &Gate| {
        gate.metric(&format!("portcullis_upstream_up{{site=\"{HOST}\",upstream=\"http://{nobody}\"}}"))
    };
    assert_eq!(up(&gate), Some(0.0), "{:?}", gate.admin("/metrics"));
    // The outage ends: the next request works, and nobody has to wait for it.
    let listener = TcpListener::bind(nobody).unwrap();
    std::thread::spawn(move || serve(&listener));
    assert_eq!(gate.ask("GET /api/x", "", b"").await.status, 200);
    assert_eq!(up(&gate), Some(1.0));
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || {
            let mut piece = [0; 65536];
            while stream.read(&mut piece).is_ok_and(|length| length > 0) {
                let _ = stream.write_all(common::upstream::OK);
            }
        });
    }
}

#[tokio::test]
async fn the_log_tells_in_words_how_an_answer_broke_off() {
    let upstream = upstream_of_cases();
    let gate = Gate::start("", upstream.address);
    over_h1(&gate, "/api/case/2").await;
    over_h1(&gate, "/api/case/16").await;
    over_h1(&gate, "/api/case/38").await;
    for words in [
        "the upstream broke its answer off",
        "Content-Length and Transfer-Encoding in one answer",
        "the upstream closed the connection without an answer",
    ] {
        assert!(wait_for(raw::LIMIT, || gate.log().contains(words)).await, "{words} in {}", gate.log());
    }
}

/// An upstream that writes for ever and counts; its own send buffer is small, so that what is counted has left it.
fn endless_upstream() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let counted = Arc::clone(&counted);
            std::thread::spawn(move || pour(stream.unwrap(), &counted));
        }
    });
    (address, count)
}

fn pour(mut stream: TcpStream, count: &AtomicU64) {
    socket2::SockRef::from(&stream).set_send_buffer_size(16 * 1024).unwrap();
    let _ = stream.read(&mut [0; 65536]);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n");
    while let Ok(length) = stream.write(&[7; 16 * 1024]) {
        count.fetch_add(length as u64, Ordering::SeqCst);
    }
}

/// Waits until the count has stood still for a second.
async fn settled(count: &AtomicU64) -> u64 {
    loop {
        let before = count.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        if before > 0 && count.load(Ordering::SeqCst) == before {
            return before;
        }
    }
}

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_stalled_http1_reader_makes_the_gateway_take_at_most_a_mib_from_the_upstream() {
    let (address, count) = endless_upstream();
    let gate = Config::default().start(address);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // What the client's own kernel takes is not the gateway's: keep it small.
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let stream = socket.connect(gate.https).await.unwrap();
    let config = Arc::new(raw::trusting(&gate.ca(), &["http/1.1"]));
    let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let head = format!("GET /api/assets/a/file HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let taken = settled(&count).await;
    println!("taken for a stalled HTTP/1.1 reader: {} KiB", taken / 1024);
    assert!(taken <= MIB, "{taken}");
}

#[tokio::test]
async fn a_stalled_http2_stream_makes_the_gateway_take_at_most_a_mib_from_the_upstream() {
    let (address, count) = endless_upstream();
    let gate = Config::default().start(address);
    let client = Client::connect(&gate).await;
    let (answer, _stream) = client.open(client.head("GET", "/api/assets/a/file"), true).await;
    let _answer = answer.await.unwrap();
    let taken = settled(&count).await;
    println!("taken for a stalled HTTP/2 stream: {} KiB", taken / 1024);
    assert!(taken <= MIB, "{taken}");
}
