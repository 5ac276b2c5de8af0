//! Several upstreams of one site: who gets a request, what happens when one of them is gone, hangs or says that it is not well,
//! and that nothing is ever sent twice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::gate::{Config, Gate, free_addresses, place};
use common::http2::Client;
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_for, wait_until_async};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use peers::App;
use socket2::{Domain, Socket, Type};

const OTHER: &str = "other.test";

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

/// Of a request to the second site.
async fn other_status(gate: &Gate) -> u16 {
    let config = raw::trusting(&gate.ca(), &["http/1.1"]);
    let mut stream = raw::tls(gate.https, OTHER, config).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {OTHER}\r\n\r\n");
    raw::ask(&mut stream, head.as_bytes()).await.status
}

fn asked(upstream: &Upstream, path: &str) -> usize {
    upstream.requests().iter().filter(|request| request.target == path).count()
}

/// Whether an upstream serves, as the metric of a site says it.
fn up(gate: &Gate, site: &str, upstream: SocketAddr) -> Option<f64> {
    gate.metric(&format!("portcullis_upstream_up{{site=\"{site}\",upstream=\"http://{upstream}\"}}"))
}

/// Answers one path well or not, as the switch says, and all others well.
fn moody(path: &'static str) -> (Upstream, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let said = Arc::clone(&well);
    let upstream = Upstream::by_request(move |request| {
        let ok = request.target != path || said.load(Ordering::SeqCst);
        let status = if ok { "200 OK" } else { "503 Service Unavailable" };
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    });
    (upstream, well)
}

/// Answers each connection once.
fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        }
    });
}

/// Connections to it are neither taken nor refused.
struct Swallower {
    address: SocketAddr,
    socket: Socket,
    full: Vec<Socket>,
}

impl Swallower {
    /// From now on it serves.
    fn recover(self) {
        drop(self.full);
        self.socket.listen(128).unwrap();
        serve(self.socket.into());
    }
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
    Swallower { address, socket, full }
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
    assert_eq!((up(&gate, HOST, one.address), up(&gate, HOST, gone)), (Some(1.0), Some(0.0)));
}

#[tokio::test]
async fn an_upstream_that_takes_no_connection_is_left_out_for_longer_each_time_and_comes_back() {
    let (tries, serves) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (steady, fickle) = (App::default(), App::default());
    let app = steady.clone();
    let one = peers::listen(move |stream| app.clone().http2(stream)).await;
    let (app, tried, says) = (fickle.clone(), Arc::clone(&tries), Arc::clone(&serves));
    // A connection that comes to nothing, where it can be counted: the kernel tells nobody of those that it refuses.
    let other = peers::listen(move |stream| {
        let (app, serves) = (app.clone(), says.load(Ordering::SeqCst));
        tried.fetch_add(1, Ordering::SeqCst);
        async move {
            if serves {
                app.http2(stream).await;
            }
        }
    })
    .await;
    let site = format!(
        "[[site.route]]\nmatch = \"/h2c/*\"\nclass = \"api\"\nupstream = [\"h2c://{one}\", \"h2c://{other}\"]\n"
    );
    let config = Config { app: "generic".into(), site, ..Config::default() };
    let gate = config.start(Upstream::answering(OK).address);
    let begun = Instant::now();
    assert_eq!(statuses(&gate, "GET /h2c/a", 60).await, [200; 60]);
    // After one second, two more, four more.
    let most = (begun.elapsed().as_secs_f64() + 1.0).log2().floor() + 1.0;
    let tried = tries.load(Ordering::SeqCst);
    assert!((1.0..=most).contains(&(tried as f64)), "{tried} tries in {:?}", begun.elapsed());
    assert_eq!((steady.seen().len(), fickle.seen().len()), (60, 0));
    serves.store(true, Ordering::SeqCst);
    let back = wait_until_async(Duration::from_secs(20), async || {
        statuses(&gate, "GET /h2c/a", 2).await;
        !fickle.seen().is_empty()
    });
    assert!(back.await);
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
    let large = vec![b'x'; 1 << 20];
    let half = || {
        Upstream::scripted(|mut session| {
            session.head();
            session.close();
        })
    };
    let (first, second) = (half(), half());
    let half_read = self::gate(first.address, &[second.address], "");
    for _ in 0..4 {
        assert_eq!(half_read.ask("POST /half", "", &large).await.status, 502);
    }
    assert_eq!(first.connections().len() + second.connections().len(), 4, "nor what was sent in part");
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
    let start = Instant::now();
    assert_eq!(gate.ask("GET /a", "", b"").await.status, 504);
    assert!(start.elapsed() < Duration::from_secs(4), "five are the usual patience: {:?}", start.elapsed());
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
    let (moody, well) = moody("/alive");
    let steady = Upstream::answering(OK);
    let gate = gate(moody.address, &[steady.address], "health_path = \"/alive\"\nhealth_every = \"1s\"");
    let believed = || up(&gate, HOST, moody.address);
    assert!(wait_for(Duration::from_secs(10), || believed() == Some(0.0)).await);
    assert_eq!(statuses(&gate, "GET /", 20).await, [200; 20]);
    assert_eq!(asked(&moody, "/"), 0);
    let status = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(status.contains("does not say at /alive that it serves"), "{status}");
    let question = &moody.requests()[0];
    assert_eq!(
        (question.header("user-agent"), question.header("host")),
        (Some("portcullis-health-check"), Some("files.test"))
    );
    well.store(true, Ordering::SeqCst);
    let back = wait_until_async(Duration::from_secs(10), async || {
        statuses(&gate, "GET /", 2).await;
        asked(&moody, "/") > 0
    });
    assert!(back.await);
    assert_eq!(believed(), Some(1.0));
}

#[tokio::test]
async fn a_health_path_that_a_reload_takes_away_keeps_nobody_out() {
    let (moody, _) = moody("/alive");
    let steady = Upstream::answering(OK);
    let gate = gate(moody.address, &[steady.address], "health_path = \"/alive\"\nhealth_every = \"1s\"");
    assert!(wait_for(Duration::from_secs(10), || up(&gate, HOST, moody.address) == Some(0.0)).await);
    let text = std::fs::read_to_string(gate.config()).unwrap();
    // How often it is asked has nothing to do with what it has said.
    place(&gate.config(), &text.replace("\"1s\"", "\"2s\""));
    assert!(gate.cli(["reload"]).status.success());
    assert_eq!(statuses(&gate, "GET /a", 10).await, [200; 10]);
    assert_eq!(asked(&moody, "/a"), 0);
    place(&gate.config(), &text.replace("\"/alive\"", "\"off\""));
    assert!(gate.cli(["reload"]).status.success());
    let back = wait_until_async(Duration::from_secs(5), async || {
        statuses(&gate, "GET /b", 2).await;
        asked(&moody, "/b") > 0
    });
    assert!(back.await);
    assert_eq!(up(&gate, HOST, moody.address), Some(1.0));
}

#[tokio::test]
async fn sites_that_share_an_upstream_ask_it_each_its_own_question_and_believe_its_own_answer() {
    let (moody, well) = moody("/deep");
    let steady = Upstream::answering(OK);
    let section = |path: &str| format!("[site.upstreams]\nhealth_path = \"{path}\"\nhealth_every = \"1s\"\n");
    let second = format!(
        "[[site]]\nhosts = [\"{OTHER}\"]\napp = \"generic\"\nupstream = [\"http://{}\", \"http://{}\"]\n{}",
        moody.address,
        steady.address,
        section("/deep")
    );
    let config = Config {
        app: "generic".into(),
        others: vec![steady.address],
        site: section("/shallow") + &second,
        ..Config::default()
    };
    let gate = config.start(moody.address);
    let believed = || (up(&gate, HOST, moody.address), up(&gate, OTHER, moody.address));
    let settled =
        async |wanted| wait_for(Duration::from_secs(10), || believed() == (Some(1.0), wanted)).await;
    assert!(settled(Some(0.0)).await, "{:?}", believed());
    let before = asked(&moody, "/deep");
    assert!(wait_for(Duration::from_secs(10), || asked(&moody, "/deep") >= before + 2).await);
    assert_eq!(believed(), (Some(1.0), Some(0.0)), "neither question changes what is believed by the other");
    for _ in 0..10 {
        assert_eq!(other_status(&gate).await, 200);
    }
    assert_eq!(asked(&moody, "/"), 0);
    statuses(&gate, "GET /", 10).await;
    assert_eq!(asked(&moody, "/"), 5, "the first site has it");
    well.store(true, Ordering::SeqCst);
    assert!(settled(Some(1.0)).await, "{:?}", believed());
}

#[tokio::test]
async fn of_several_upstreams_each_is_asked_for_the_health_path_of_its_app_file() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/apps");
    let mut gates = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let named = text
            .lines()
            .find_map(|line| line.strip_prefix("health_path = "))
            .map(|path| path.split('"').nth(1).unwrap().to_owned());
        let app = path.file_stem().unwrap().to_str().unwrap().to_owned();
        // Of those without one the generic app stands for all.
        if named.is_none() && app != "generic" {
            continue;
        }
        let both = [Upstream::answering(OK), Upstream::answering(OK)];
        let config = Config { app, others: vec![both[1].address], ..Config::default() };
        gates.push((config.start(both[0].address), both, named));
    }
    let alone = Upstream::answering(OK);
    let _alone = Config::default().start(alone.address);
    assert!(gates.iter().filter(|(.., named)| named.is_some()).count() >= 2);
    for (gate, both, named) in &gates {
        let Some(named) = named else { continue };
        for upstream in both {
            assert!(wait_for(Duration::from_secs(10), || !upstream.requests().is_empty()).await, "{named}");
            let request = &upstream.requests()[0];
            assert_eq!((&*request.method, &request.target), ("GET", named));
            assert_eq!(request.header("user-agent"), Some("portcullis-health-check"));
            assert!(wait_for(raw::LIMIT, || up(gate, HOST, upstream.address) == Some(1.0)).await);
        }
    }
    let unasked = gates.iter().filter(|(.., named)| named.is_none()).flat_map(|(_, both, _)| both);
    assert!(unasked.chain([&alone]).all(|upstream| upstream.connections().is_empty()));
}

#[tokio::test]
async fn who_says_that_his_requests_are_grpc_keeps_nobody_from_an_upstream_that_is_back() {
    let hole = swallower();
    let gate = gate(hole.address, &[], "connect_timeout = \"400ms\"");
    assert_eq!(gate.ask("GET /a", "", b"").await.status, 504);
    let strangers = Client::connect(&gate).await;
    let keep = tokio::spawn(async move {
        loop {
            let head = strangers.head("POST", "/a").header("content-type", "application/grpc");
            let (answer, _) = strangers.open(head, true).await;
            let _ = common::http2::read(answer).await;
        }
    });
    hole.recover();
    let begun = Instant::now();
    let served = wait_until_async(Duration::from_secs(6), async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        gate.ask("GET /a", "", b"").await.status == 200
    });
    assert!(served.await, "not after {:?}", begun.elapsed());
    assert!(!keep.is_finished(), "the strangers have gone on all the time");
    keep.abort();
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
    serve(listener);
    assert_eq!(gate.ask("GET /", "", b"").await.status, 200, "it is asked although it was out");
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}

#[tokio::test]
async fn while_none_is_there_a_small_body_is_read_before_the_answer_and_a_large_one_is_not() {
    let [nobody] = free_addresses();
    let site = "[site.upstreams]\nmaintenance = \"down.html\"\n".into();
    let files = vec![("down.html", "<title>Back soon</title>".into())];
    let gate = Config { app: "generic".into(), site, files, ..Config::default() }.start(nobody);
    let client = Client::connect(&gate).await;
    let mut statuses = Vec::new();
    for accepts in ["text/html", "application/json"] {
        let head = || client.head("POST", "/a").header("accept", accepts);
        let (mut answer, mut body) = client.open(head().header("content-length", "8"), false).await;
        body.send_data("half".into(), false).unwrap();
        let early = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
        assert!(early.is_err(), "some clients take it for a broken connection: {early:?}");
        body.send_data("half".into(), true).unwrap();
        let read = common::http2::read(answer).await.unwrap();
        assert!(read.whole);
        statuses.push(read.status);
        // Nobody is asked to send what nobody wants, and who is slow is not waited for.
        for (name, value) in [("content-length", "65537"), ("expect", "100-continue"), ("x-slow", "1")] {
            let begun = Instant::now();
            let (answer, _body) = client.open(head().header(name, value), false).await;
            let answer = tokio::time::timeout(raw::LIMIT, answer).await.expect("an answer").unwrap();
            assert_eq!(Some(&answer.status().as_u16()), statuses.last());
            let most = if name == "x-slow" { 3000 } else { 500 };
            assert!(begun.elapsed() < Duration::from_millis(most), "{name}: {:?}", begun.elapsed());
        }
    }
    assert_eq!(statuses, [503, 502]);
}

#[tokio::test]
async fn a_site_says_how_long_an_answer_and_a_pause_in_it_may_take() {
    let dumb = || {
        Upstream::scripted(|mut session| {
            let request = session.request().unwrap();
            if request.target == "/pause" {
                session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
            }
            session.until_closed();
        })
    };
    let (silent, other) = (dumb(), dumb());
    let section = "first_byte_timeout = \"500ms\"\nprogress_timeout = \"500ms\"";
    let gate = gate(silent.address, &[other.address], section);
    let start = Instant::now();
    assert_eq!(gate.ask("GET /silent", "", b"").await.status, 504);
    assert!(start.elapsed() < Duration::from_secs(8));
    assert_eq!(gate.ask("POST /silent", "", b"once").await.status, 504);
    assert_eq!(asked(&silent, "/silent") + asked(&other, "/silent"), 2, "nobody is asked instead");
    let mut stream = gate.connect().await;
    let request = format!("GET /pause HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    let start = Instant::now();
    let answer = String::from_utf8(raw::exchange(&mut stream, request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nabc"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(8), "cut, not waited for");
    assert!(
        silent.all_closed_within(Duration::from_secs(5)) && other.all_closed_within(Duration::from_secs(5))
    );
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

#[tokio::test]
async fn a_name_that_leads_elsewhere_is_followed_without_a_reload() {
    // One port on two addresses; the answer says which was reached.
    let says = |listener: TcpListener, name: &'static str| {
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let answer =
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n{name}");
                let _ = stream.write_all(answer.as_bytes());
            }
        });
    };
    let old = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = old.local_addr().unwrap().port();
    says(TcpListener::bind(("127.0.0.2", port)).unwrap(), "new");
    says(old, "old");
    let names = tempfile::tempdir().unwrap();
    let hosts = names.path().join("hosts");
    std::fs::write(&hosts, "").unwrap();
    let config = Config {
        app: "generic".into(),
        site: format!(
            "[[site.route]]\nmatch = \"/named/*\"\nclass = \"api\"\nupstream = \"http://app.test:{port}\"\n"
        ),
        // The resolver's own, for this process: no test changes the machine's.
        environment: vec![
            ("LD_PRELOAD", "libnss_wrapper.so".into()),
            ("NSS_WRAPPER_HOSTS", hosts.display().to_string()),
        ],
        ..Config::default()
    };
    // A name that is not known yet stops no start.
    let gate = config.start(Upstream::answering(OK).address);
    let ask = async || {
        let answer = gate.ask("GET /named/a", "", b"").await;
        (answer.status, answer.text())
    };
    assert_eq!(ask().await.0, 502);
    for (address, name) in [("127.0.0.1", "old"), ("127.0.0.2", "new"), ("127.0.0.1", "old")] {
        place(&hosts, &format!("{address} app.test\n"));
        assert_eq!(ask().await, (200, name.into()), "libnss-wrapper is there? `make test-deps` installs it");
    }
}
