//! Several upstreams of one site: who gets a request, what happens when one of them is gone, hangs or says that it is not well,
//! and that nothing is ever sent twice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::gate::{Config, Gate, free_addresses};
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_for, wait_until_async};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::{Domain, Socket, Type};

fn gate(first: SocketAddr, others: &[SocketAddr], section: &str) -> Gate {
    let site = format!("[site.upstreams]\n{section}\n");
    Config { app: "generic".into(), others: others.to_vec(), site, ..Config::default() }.start(first)
}

async fn statuses(gate: &Gate, line: &str, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(gate.ask(line, "", b"").await.status);
    }
    statuses
}

/// Connections to it are neither taken nor refused.
struct Swallower {
    address: SocketAddr,
    _socket: Socket,
    _full: Vec<Socket>,
}

fn swallower() -> Swallower {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fill = || {
        let one = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        one.set_nonblocking(true).unwrap();
        let _ = one.connect(&address.into());
        one
    };
    let full = (0..4).map(|_| fill()).collect();
    let hangs = TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err();
    assert!(hangs, "the kernel takes no more");
    Swallower { address, _socket: socket, _full: full }
}

#[tokio::test]
async fn requests_take_turns_and_an_upstream_that_is_gone_costs_none() {
    let (one, other) = (Upstream::answering(OK), Upstream::answering(OK));
    let [gone] = free_addresses();
    let gate = gate(one.address, &[other.address, gone], "");
    for line in ["GET /a", "POST /a"] {
        assert_eq!(statuses(&gate, line, 30).await, [200; 30]);
    }
    let shares = [one.requests().len(), other.requests().len()];
    assert_eq!(shares.iter().sum::<usize>(), 60, "each request is sent once");
    assert!(shares.iter().all(|share| *share >= 20), "{shares:?}");
    let up = |address: SocketAddr| {
        gate.metric(&format!("portcullis_upstream_up{{site=\"files.test\",upstream=\"http://{address}\"}}"))
    };
    assert_eq!((up(one.address), up(gone)), (Some(1.0), Some(0.0)));
}

#[tokio::test]
async fn what_may_have_been_sent_is_never_sent_again() {
    let closes = || {
        Upstream::scripted(|mut session| {
            session.request();
            session.close();
        })
    };
    let (one, other) = (closes(), closes());
    let gate = gate(one.address, &[other.address], "");
    for method in ["GET", "POST", "DELETE", "PUT"] {
        for _ in 0..5 {
            let body = if method == "GET" { &b""[..] } else { b"data" };
            assert_eq!(gate.ask(&format!("{method} /a"), "", body).await.status, 502);
        }
    }
    assert_eq!(one.requests().len() + other.requests().len(), 20);
    // Nor does it count against them: a stranger's request could bring it about.
    assert!(one.requests().len() >= 8 && other.requests().len() >= 8);
}

#[tokio::test]
async fn one_that_swallows_connections_costs_its_timeout_once() {
    let good = Upstream::answering(OK);
    let hole = swallower();
    let gate = gate(hole.address, &[good.address], "connect_timeout = \"400ms\"");
    let start = Instant::now();
    assert_eq!(statuses(&gate, "GET /a", 40).await, [200; 40]);
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!(good.requests().len(), 40);
}

#[tokio::test]
async fn where_nobody_else_is_there_a_hanging_upstream_is_tried_once_a_second_and_all_others_are_told_at_once()
 {
    let hole = swallower();
    let gate = gate(hole.address, &[], "connect_timeout = \"700ms\"");
    assert_eq!(gate.ask("GET /a", "", b"").await.status, 504);
    let start = Instant::now();
    assert_eq!(statuses(&gate, "GET /a", 20).await, [504; 20]);
    assert!(start.elapsed() < Duration::from_secs(6), "twenty waits would be 14 s: {:?}", start.elapsed());
    let log = || gate.log();
    assert!(wait_for(Duration::from_secs(5), || log().contains("no connection a moment ago")).await);
}

#[tokio::test]
async fn a_client_stays_with_its_upstream_until_that_is_gone() {
    let name = |name: &'static str| {
        Upstream::by_request(move |_| {
            format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{name}").into_bytes()
        })
    };
    let all = [name("a"), name("b"), name("c")];
    let config = Config {
        app: "generic".into(),
        listen: "trusted_proxies = [\"127.0.0.1\"]\n".into(),
        others: vec![all[1].address, all[2].address],
        site: "[site.upstreams]\nbalance = \"sticky\"\n".into(),
        ..Config::default()
    };
    let gate = config.start(all[0].address);
    let mut seen = std::collections::BTreeSet::new();
    for client in 0..20 {
        let from = format!("X-Forwarded-For: 203.0.113.{client}\r\n");
        let first = gate.ask("GET /a", &from, b"").await.text();
        for _ in 0..3 {
            assert_eq!(gate.ask("GET /a", &from, b"").await.text(), first, "client {client}");
        }
        seen.insert(first);
    }
    assert_eq!(seen.len(), 3, "clients are spread");
}

#[tokio::test]
async fn who_has_the_fewest_requests_under_way_gets_the_next() {
    let slow = Upstream::scripted(|mut session| {
        session.request();
        session.until_closed();
    });
    let quick = Upstream::answering(OK);
    let gate = gate(slow.address, &[quick.address], "balance = \"least-requests\"");
    let mut asked = FuturesUnordered::new();
    let mut answered = 0;
    while answered < 30 {
        asked.push(gate.ask("GET /a", "", b""));
        // Who hangs goes on hanging.
        let next = tokio::time::timeout(Duration::from_millis(700), asked.next()).await;
        answered += usize::from(next.is_ok_and(|answer| answer.unwrap().status == 200));
    }
    // Each worker counts what it has itself.
    let workers = std::thread::available_parallelism().unwrap().get();
    assert!(slow.connections().len() <= workers, "{} of them hang", slow.connections().len());
}

#[tokio::test]
async fn one_that_says_it_is_not_well_gets_nothing_until_it_says_otherwise() {
    let well = Arc::new(AtomicBool::new(false));
    let said = Arc::clone(&well);
    let moody = Upstream::by_request(move |request| {
        let ok = request.target == "/" || said.load(Ordering::SeqCst);
        let status = if ok { "200 OK" } else { "503 Service Unavailable" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    let steady = Upstream::answering(OK);
    let gate = gate(moody.address, &[steady.address], "health_path = \"/alive\"\nhealth_every = \"1s\"");
    let asks = |upstream: &Upstream, path: &str| {
        upstream.requests().iter().filter(|request| request.target == path).count()
    };
    let series =
        format!("portcullis_upstream_up{{site=\"files.test\",upstream=\"http://{}\"}}", moody.address);
    assert!(wait_for(Duration::from_secs(10), || gate.metric(&series) == Some(0.0)).await);
    assert_eq!(statuses(&gate, "GET /", 20).await, [200; 20]);
    assert_eq!(asks(&moody, "/"), 0);
    let question = &moody.requests()[0];
    assert_eq!(
        (question.header("user-agent"), question.header("host")),
        (Some("portcullis-health-check"), Some("files.test"))
    );
    well.store(true, Ordering::SeqCst);
    let back = wait_until_async(Duration::from_secs(10), async || {
        statuses(&gate, "GET /", 2).await;
        asks(&moody, "/") > 0
    });
    assert!(back.await);
    assert_eq!(gate.metric(&series), Some(1.0));
}

#[tokio::test]
async fn while_none_is_there_browsers_see_the_maintenance_page_and_programs_a_502() {
    let [first, second] = free_addresses();
    let config = Config {
        app: "generic".into(),
        others: vec![second],
        site: "[site.upstreams]\nmaintenance = \"down.html\"\n".into(),
        files: vec![(
            "down.html",
            "<title>Back soon</title><style>p{color:red}</style><p>Back soon</p>".into(),
        )],
        ..Config::default()
    };
    let gate = config.start(first);
    let page = gate.ask("GET /", "Accept: text/html,*/*\r\n", b"").await;
    assert_eq!((page.status, page.header("retry-after")), (503, Some("30")));
    assert!(page.text().contains("Back soon"), "{page:?}");
    let csp = page.header("content-security-policy").unwrap();
    assert!(csp.contains("default-src 'none'; style-src 'unsafe-inline'"), "{csp}");
    assert_eq!(gate.ask("GET /", "Accept: application/json\r\n", b"").await.status, 502);
    let listener = TcpListener::bind(second).unwrap();
    let back = Instant::now();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read, Write};
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(OK);
        }
    });
    assert_eq!(gate.ask("GET /", "", b"").await.status, 200, "it is asked although it was out");
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}

#[tokio::test]
async fn a_site_says_how_long_an_answer_and_a_pause_in_it_may_take() {
    let silent = Upstream::scripted(|mut session| {
        let request = session.request().unwrap();
        if request.target == "/pause" {
            session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        }
        session.until_closed();
    });
    let section = "first_byte_timeout = \"500ms\"\nprogress_timeout = \"500ms\"";
    let gate = gate(silent.address, &[], section);
    let start = Instant::now();
    assert_eq!(gate.ask("GET /silent", "", b"").await.status, 504);
    assert!(start.elapsed() < Duration::from_secs(8));
    let mut stream = gate.connect().await;
    let request = format!("GET /pause HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    let start = Instant::now();
    let answer = String::from_utf8(raw::exchange(&mut stream, request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(8), "cut, not waited for");
    assert!(silent.all_closed_within(Duration::from_secs(5)));
}

#[tokio::test]
async fn a_name_is_reached_by_whichever_of_its_addresses_listens() {
    let upstream = Upstream::answering(OK);
    let named = Config {
        app: "generic".into(),
        site: format!(
            "[[site.route]]\nmatch = \"/named/*\"\nclass = \"api\"\nupstream = \"http://localhost:{}\"\n",
            upstream.address.port()
        ),
        ..Config::default()
    };
    let gate = named.start(upstream.address);
    assert_eq!(gate.ask("GET /named/a", "", b"").await.status, 200);
}
