//! Bounds: on connections, time, rates, sizes and file descriptors; who keeps to them is not harmed by who does not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::print_stdout, reason = "what was measured is said")]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use common::gate::{Config, Gate};
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_for};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn limited(limits: &str, upstream: &Upstream) -> Gate {
    Config { limits: limits.into(), ..Config::default() }.start(upstream.address)
}

fn get(gate: &Gate) -> String {
    format!("GET /api/x HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port())
}

/// Whether the peer ends the connection within this time, and after how long.
async fn ends_within(stream: &mut (impl AsyncRead + Unpin), limit: Duration) -> Option<Duration> {
    let begun = Instant::now();
    let mut rest = Vec::new();
    timeout(limit, stream.read_to_end(&mut rest)).await.ok().map(|_| begun.elapsed())
}

/// Whether a connection gets as far as an answer.
async fn is_served(gate: &Gate) -> bool {
    let config = raw::trusting(&gate.ca(), &["http/1.1"]);
    let Ok(mut stream) = raw::tls(gate.https, HOST, config).await else { return false };
    raw::exchange(&mut stream, get(gate).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").as_bytes())
        .await
        .starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn no_more_connections_than_allowed_and_a_place_that_is_left_is_free_at_once() {
    for limits in ["connections = 5", "connections_per_client = 5"] {
        let upstream = Upstream::answering(OK);
        let gate = limited(limits, &upstream);
        let mut held = Vec::new();
        for _ in 0..5 {
            let mut stream = gate.connect().await;
            assert_eq!(raw::ask(&mut stream, get(&gate).as_bytes()).await.status, 200);
            held.push(stream);
        }
        assert!(!is_served(&gate).await, "{limits}: a sixth is turned away");
        for stream in &mut held {
            assert_eq!(raw::ask(stream, get(&gate).as_bytes()).await.status, 200, "{limits}: the five go on");
        }
        drop(held.pop());
        let mut served = false;
        for _ in 0..200 {
            served = is_served(&gate).await;
            if served {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(served, "{limits}: the place is free again");
    }
}

/// Asks over a connection of its own, as a proxy that names this client (`lines`).
async fn ask_as(gate: &Gate, lines: &str, path: &str) -> TcpStream {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n");
    let mut stream = TcpStream::connect(gate.plain).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn answer_to(gate: &Gate, lines: &str) -> raw::Answer {
    let mut stream = ask_as(gate, lines, "/api/x").await;
    timeout(raw::LIMIT, raw::read_answer(&mut stream, false)).await.expect("an answer")
}

/// Takes a place, as soon as there is one, with an answer that does not end.
async fn free_place(gate: &Gate, lines: &str) -> TcpStream {
    for _ in 0..1000 {
        let mut stream = ask_as(gate, lines, "/api/held").await;
        let mut status = [0; 12];
        timeout(raw::LIMIT, stream.read_exact(&mut status)).await.expect("an answer").unwrap();
        if &status == b"HTTP/1.1 200" {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no place is free");
}

/// The example of RFC 6455, 1.3.
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test]
async fn a_client_of_a_trusted_proxy_has_so_many_requests_in_flight_and_its_neighbours_go_on() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(head) = session.head() {
            if head.starts_with("GET /api/held") {
                // The rest of the body never comes.
                session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun");
                return session.until_closed();
            } else if head.contains("websocket") {
                session.send(SWITCHED);
                return session.until_closed();
            }
            session.send(OK);
        }
    });
    let config = Config {
        app: "generic".into(),
        listen: "trusted_proxies = [\"127.0.0.1\"]".into(),
        limits: "connections_per_client = 3".into(),
        ..Config::default()
    };
    let gate = config.start(upstream.address);
    let (v4, v6) = ("X-Forwarded-For: 203.0.113.1\r\n", "X-Forwarded-For: 2001:db8:0:1::1\r\n");
    let twins = [
        (v4, "X-Forwarded-For: ::ffff:203.0.113.1\r\n"),
        (v6, "X-Forwarded-For: 2001:db8:0:1:ffff::2\r\n"),
        ("", "X-Forwarded-For: nonsense\r\n"),
    ];
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (client, twin) in twins {
        let mut held = [
            ask_as(&gate, client, "/api/held").await,
            ask_as(&gate, twin, "/api/held").await,
            ask_as(&gate, &format!("{client}{upgrade}"), "/ws").await,
        ];
        for stream in &mut held {
            stream.read_u8().await.unwrap();
        }
        for lines in [client, twin] {
            let refused = answer_to(&gate, lines).await;
            assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{lines}");
        }
        for neighbour in ["203.0.113.2", "2001:db8:0:2::1"] {
            let lines = format!("X-Forwarded-For: {neighbour}\r\n");
            assert_eq!(answer_to(&gate, &lines).await.status, 200, "{neighbour}");
        }
        // Each way in which one ends gives its place back: an answer, and a tunnel.
        let [answer, _, mut tunnel] = held;
        drop(answer);
        let _next = free_place(&gate, client).await;
        assert_eq!(answer_to(&gate, client).await.status, 429, "{client}: the place is taken again");
        tunnel.shutdown().await.unwrap();
        free_place(&gate, client).await;
    }
    let series = format!(
        "portcullis_denials_total{{class=\"api\",guard=\"listener\",reason=\"connections_per_client\",site=\"{HOST}\"}}"
    );
    assert!(gate.metric(&series).is_some_and(|count| count >= 6.0), "{}", gate.admin("/metrics").unwrap());
    let logged = r#""status":429,"verdict":"deny","guard":"listener","reason":"connections_per_client""#;
    assert!(wait_for(raw::LIMIT, || gate.log().contains(logged)).await, "{}", gate.log());
}

#[tokio::test]
async fn who_sends_no_whole_head_is_cut_at_the_deadline_wherever_it_stands() {
    let upstream = Upstream::answering(OK);
    let gate = limited("head_timeout = \"2s\"", &upstream);
    let mut silent = TcpStream::connect(gate.https).await.unwrap();
    let mut half_hello = TcpStream::connect(gate.https).await.unwrap();
    half_hello.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let mut after_tls = gate.connect().await;
    let mut half_head = gate.connect().await;
    half_head.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    let mut in_the_clear = TcpStream::connect(gate.http).await.unwrap();
    in_the_clear.write_all(b"GET / HT").await.unwrap();
    let mut h2 = raw::tls(gate.https, HOST, raw::trusting(&gate.ca(), &["h2"])).await.unwrap();
    h2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let limit = Duration::from_secs(8);
    let (a, b, c, d, e, f) = tokio::join!(
        ends_within(&mut silent, limit),
        ends_within(&mut half_hello, limit),
        ends_within(&mut after_tls, limit),
        ends_within(&mut half_head, limit),
        ends_within(&mut in_the_clear, limit),
        ends_within(&mut h2, limit),
    );
    for (name, ended) in [
        ("silent", a),
        ("half a hello", b),
        ("after TLS", c),
        ("half a head", d),
        ("plain", e),
        ("h2 preface", f),
    ] {
        let after = ended.unwrap_or_else(|| panic!("{name} is still open"));
        assert!(after >= Duration::from_millis(1500), "{name}: cut after {after:?}, too soon");
    }
    assert_eq!(upstream.connections().len(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_a_busy_one_is_not() {
    let upstream = Upstream::answering(OK);
    let gate = limited("idle_timeout = \"1s\"", &upstream);
    let (mut idle, mut busy) = (gate.connect().await, gate.connect().await);
    raw::ask(&mut idle, get(&gate).as_bytes()).await;
    for _ in 0..6 {
        assert_eq!(raw::ask(&mut busy, get(&gate).as_bytes()).await.status, 200);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert!(ends_within(&mut idle, Duration::from_millis(100)).await.is_some(), "closed meanwhile");
}

#[tokio::test]
async fn a_slow_upload_is_cut_and_a_slow_answer_is_not() {
    let upstream = Upstream::by_request(|request| {
        if request.target == "/api/slow" {
            std::thread::sleep(Duration::from_secs(4));
        }
        OK.to_vec()
    });
    let gate = limited("min_rate = { bytes = \"16KiB\", per = \"1s\" }", &upstream);
    let mut slow = gate.connect().await;
    let head = format!(
        "POST /api/assets HTTP/1.1\r\nHost: {HOST}:{}\r\nContent-Length: 100000\r\n\r\n",
        gate.https.port()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let dribble = async {
        while slow.write_all(b"x").await.is_ok() && begun.elapsed() < raw::LIMIT {
            let _ = slow.flush().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        begun.elapsed()
    };
    let others = async {
        let waiting = gate.ask("GET /api/slow", "", b"").await.status;
        let fast = gate.ask("POST /api/assets", "", &vec![7; 4 << 20]).await.status;
        (waiting, fast)
    };
    let (cut, others) = tokio::join!(dribble, others);
    assert!(cut < raw::LIMIT, "an upload of 20 bytes a second goes on after {cut:?}");
    assert_eq!(others, (200, 200));
    let connections = upstream.connections();
    let broken =
        connections.iter().find(|one| String::from_utf8_lossy(&one.bytes()).contains(": 100000\r\n"));
    assert!(broken.unwrap().is_closed(), "the upstream need not wait for the rest");
}

/// A gate whose clients are named by a trusted proxy on its `plain` listener.
fn behind_a_proxy(site: &str, upstream: &Upstream) -> Gate {
    behind_config(site).start(upstream.address)
}

fn behind_config(site: &str) -> Config {
    Config {
        app: "generic".into(),
        listen: "trusted_proxies = [\"127.0.0.1/32\"]".into(),
        site: site.into(),
        ..Config::default()
    }
}

async fn status_for(gate: &Gate, client: &str, path: &str) -> raw::Answer {
    let mut stream = TcpStream::connect(gate.plain).await.unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}:{}\r\nX-Forwarded-For: {client}\r\nX-Forwarded-Proto: https\r\n\r\n",
        gate.https.port()
    );
    raw::ask(&mut stream, head.as_bytes()).await
}

#[tokio::test]
async fn a_rate_holds_for_each_client_and_class_by_itself() {
    let upstream = Upstream::answering(OK);
    let rates =
        "[site.rate.api]\nrefill = \"1/min\"\nburst = 3\n[site.rate.share]\nrefill = \"1/min\"\nburst = 2";
    let gate = behind_a_proxy(rates, &upstream);
    for client in ["192.0.2.1", "192.0.2.2"] {
        for _ in 0..3 {
            assert_eq!(status_for(&gate, client, "/api/x").await.status, 200, "{client}");
        }
        let refused = status_for(&gate, client, "/api/x").await;
        assert_eq!(refused.status, 429, "{client}");
        let wait: u64 = refused.header("retry-after").expect("when to come back").parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(status_for(&gate, client, "/").await.status, 200, "another class");
        assert_eq!(status_for(&gate, client, "/s/abc").await.status, 200, "a class with a budget of its own");
    }
    let seen = upstream.requests().len();
    assert_eq!(seen, 2 * (3 + 1 + 1), "what is refused does not reach the application");
}

#[tokio::test]
async fn an_ipv6_64_is_one_client_and_the_next_is_another() {
    let upstream = Upstream::answering(OK);
    let gate = behind_a_proxy("[site.rate.api]\nrefill = \"1/min\"\nburst = 3", &upstream);
    for host in ["1", "2", "ffff:ffff:ffff:ffff"] {
        let separator = if host.len() > 1 { ":" } else { "::" };
        let client = format!("2001:db8:0:1{separator}{host}");
        assert_eq!(status_for(&gate, &client, "/api/x").await.status, 200, "{client}");
    }
    assert_eq!(status_for(&gate, "2001:db8:0:1:a:b:c:d", "/api/x").await.status, 429);
    assert_eq!(status_for(&gate, "2001:db8:0:2::1", "/api/x").await.status, 200);
}

#[tokio::test]
async fn a_flood_of_new_clients_frees_no_offender_and_is_counted() {
    let upstream = Upstream::answering(OK);
    let site = "[site.rate.api]\nrefill = \"1/h\"\nburst = 2";
    let gate = Config { limits: "limiter_keys = 1".into(), ..behind_config(site) }.start(upstream.address);
    for status in [200, 200, 429] {
        assert_eq!(status_for(&gate, "192.0.2.1", "/api/x").await.status, status);
    }
    let mut stream = TcpStream::connect(gate.plain).await.unwrap();
    let mut passed = 0;
    for number in 0..4000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let head = format!(
            "GET /api/x HTTP/1.1\r\nHost: {HOST}:{}\r\nX-Forwarded-For: 100.{high}.{low}.7\r\nX-Forwarded-Proto: https\r\n\r\n",
            gate.https.port()
        );
        passed += u32::from(raw::ask(&mut stream, head.as_bytes()).await.status == 200);
    }
    assert_eq!(status_for(&gate, "192.0.2.1", "/api/x").await.status, 429, "the offender is known");
    println!("{passed} of 4000 passed");
    let shown = |name: &str| gate.metric(name).unwrap();
    assert!(shown("portcullis_limiter_keys") <= 2048.0, "{}", shown("portcullis_limiter_keys"));
    assert!(shown("portcullis_limiter_shared_total") > 1000.0);
    // Newcomers of one /24 share one budget now, some of them with a network of the flood.
    let mut served = 0;
    for network in 0..20 {
        for host in 1..=5 {
            let client = format!("203.0.{network}.{host}");
            served += u32::from(status_for(&gate, &client, "/api/x").await.status == 200);
        }
    }
    println!("{served} of 100 newcomers of 20 networks were served");
    assert!((1..=40).contains(&served), "{served}");
}

#[tokio::test]
async fn budgets_outlive_a_reload_that_changes_the_rate() {
    let upstream = Upstream::answering(OK);
    let gate = behind_a_proxy("[site.rate.api]\nrefill = \"1/h\"\nburst = 3", &upstream);
    for status in [200, 200, 200, 429] {
        assert_eq!(status_for(&gate, "192.0.2.1", "/api/x").await.status, status);
    }
    let text = std::fs::read_to_string(gate.config()).unwrap();
    std::fs::write(gate.config(), text.replace("1/h", "1/min").replace("burst = 3", "burst = 30")).unwrap();
    assert!(gate.cli(["reload"]).status.success());
    let refused = status_for(&gate, "192.0.2.1", "/api/x").await;
    assert_eq!(refused.status, 429, "a used-up budget is used up under the new rate");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}: and waits no longer than that says");
}

#[tokio::test]
async fn each_class_has_its_limit_of_the_body() {
    let upstream = Upstream::answering(OK);
    let gate = Config {
        limits: "body = \"2KiB\"\nupload_body = \"8KiB\"".into(),
        app: "generic".into(),
        site: "[[site.route]]\nmatch = \"/up\"\nclass = \"upload\"".into(),
        ..Config::default()
    }
    .start(upstream.address);
    for (path, length, status) in
        [("/api/x", 2048, 200), ("/api/x", 2049, 413), ("/login", 16384, 200), ("/login", 16385, 413)]
    {
        assert_eq!(
            gate.ask(&format!("POST {path}"), "", &vec![b'x'; length]).await.status,
            status,
            "{path} {length}"
        );
    }
}

/// Plain TCP connections that say nothing, as many as the kernel gives.
fn hold(address: SocketAddr, count: usize) -> Vec<StdStream> {
    (0..count).filter_map(|_| StdStream::connect_timeout(&address, Duration::from_secs(1)).ok()).collect()
}

#[tokio::test]
async fn out_of_descriptors_the_gate_lives_on_and_recovers_by_itself() {
    let upstream = Upstream::answering(OK);
    let config = Config {
        limits: "connections_per_client = 1000\nhead_timeout = \"60s\"".into(),
        descriptors: Some(64),
        ..Config::default()
    };
    let gate = config.start(upstream.address);
    let mut old = gate.connect().await;
    assert_eq!(raw::ask(&mut old, get(&gate).as_bytes()).await.status, 200);
    let held = hold(gate.https, 200);
    assert!(!is_served(&gate).await, "new work is shed");
    assert_eq!(raw::ask(&mut old, get(&gate).as_bytes()).await.status, 200, "the old goes on");
    let status = gate.cli(["status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    assert!(gate.admin("/livez").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
    let blocked = gate.cli(["block", "address", "192.0.2.7/32", "--yes"]);
    assert!(blocked.status.success(), "{}", String::from_utf8_lossy(&blocked.stderr));
    // Connections go on to come in and are all shed: that costs next to nothing.
    let (before, begun) = (gate.cpu_seconds(), Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = (gate.cpu_seconds() - before) / begun.elapsed().as_secs_f64();
    println!("CPU seconds per second without descriptors: {spent:.3}");
    assert!(spent <= 0.2, "{spent}");
    drop(held);
    let freed = Instant::now();
    let mut served = is_served(&gate).await;
    while !served && freed.elapsed() < raw::LIMIT {
        served = is_served(&gate).await;
    }
    println!("served again after {:?}", freed.elapsed());
    assert!(served && freed.elapsed() <= Duration::from_millis(500), "{:?}", freed.elapsed());
    assert!(gate.errors().len() < 10_000, "the log is not flooded");
}

#[tokio::test]
async fn a_drain_waits_for_what_a_closed_listener_has_left() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n");
            let slow = request.target == "/api/slow";
            for _ in 0..10 {
                session.send(b"x");
                std::thread::sleep(Duration::from_millis(if slow { 200 } else { 0 }));
            }
        }
    });
    let mut gate = Gate::start("", upstream.address);
    let [other] = common::gate::free_addresses();
    let mut running = gate.connect().await;
    let head = get(&gate).replace("/api/x", "/api/slow");
    running.write_all(head.as_bytes()).await.unwrap();
    running.read_u8().await.unwrap();
    let text = std::fs::read_to_string(gate.config()).unwrap();
    let moved = text.replace(&format!("https = [\"{}\"]", gate.https), &format!("https = [\"{other}\"]"));
    let mut file = std::fs::File::create(gate.config()).unwrap();
    file.write_all(moved.as_bytes()).unwrap();
    drop(file);
    let reloaded = gate.cli(["reload"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert!(
        wait_for(raw::LIMIT, || StdStream::connect(gate.https).is_err()).await,
        "the old listener is closed"
    );
    gate.signal("TERM");
    let mut rest = Vec::new();
    timeout(raw::LIMIT, running.read_to_end(&mut rest)).await.expect("the end").unwrap();
    assert!(rest.ends_with(b"\r\n\r\nxxxxxxxxxx"), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
}
