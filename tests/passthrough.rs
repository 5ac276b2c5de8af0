//! TLS that goes on to somebody else by its name: untouched, judged by address, cut live.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their tables"
)]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]
#![allow(clippy::print_stdout, reason = "a measured time is said")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::gate::{Config, Gate, place};
use common::raw;
use common::upstream::{OK, Upstream};
use common::{HOST, wait_for, wait_until};
use peers::{App, Ca};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;

const AGENTS: &str = "agents.test";
/// Debian's: python3-grpcio is for no other.
const PYTHON: &str = "/usr/bin/python3";
const PATIENCE: Duration = Duration::from_secs(60);
const SERIES: &str = "portcullis_connections{listener=\"passthrough\"}";

fn passing(upstream: SocketAddr, more: &str) -> String {
    format!("\n[[passthrough]]\nhosts = [\"{AGENTS}\", \"*.far.test\"]\nupstream = \"{upstream}\"\n{more}\n")
}

fn gate(upstream: SocketAddr, more: &str) -> Gate {
    Config { site: passing(upstream, more), ..Config::default() }.start(Upstream::answering(OK).address)
}

/// An application that ends its TLS itself, and a client that trusts its CA only.
async fn application() -> (App, SocketAddr, ClientConfig) {
    let ca = Ca::new();
    let made = ca.issue_as(AGENTS, |params| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("one.far.test".try_into().unwrap()));
    });
    let acceptor = peers::tls(&made, &["http/1.1"], None);
    let app = App::default();
    let serving = app.clone();
    let address = peers::listen(move |stream| serving.clone().tls(acceptor.clone(), stream)).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), &ca.pem).unwrap();
    (app, address, raw::trusting(&dir.path().join("ca.pem"), &["http/1.1"]))
}

fn get(host: &str) -> Vec<u8> {
    format!("GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

fn entry(gate: &Gate, with: &[&str]) -> Value {
    let mut found = None;
    let there = wait_until(raw::LIMIT, || {
        found = gate.log().lines().find(|line| with.iter().all(|one| line.contains(one))).map(str::to_owned);
        found.is_some()
    });
    assert!(there, "{with:?}: {}", gate.log());
    serde_json::from_str(&found.unwrap()).unwrap()
}

#[tokio::test]
async fn tls_of_a_named_host_reaches_who_ends_it_untouched_and_all_other_names_stay_here() {
    let (app, upstream, client) = application().await;
    let gate = gate(upstream, "");
    for name in [AGENTS, "AGENTS.test", "one.far.test"] {
        let mut stream = raw::tls(gate.https, name, client.clone()).await.expect(name);
        assert_eq!(gate.metric(SERIES), Some(1.0));
        let answer = raw::ask(&mut stream, &get(name)).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "HTTP/1.1 GET /hello"));
        assert!(
            answer.header("x-request-id").is_none() && answer.header("content-security-policy").is_none()
        );
        drop(stream);
        // The application is a task of this thread: it must be let go on.
        assert!(wait_for(raw::LIMIT, || gate.metric(SERIES) == Some(0.0)).await);
    }
    assert!(app.seen().iter().all(|seen| seen.headers.len() == 1), "{:?}", app.seen());
    assert_eq!(gate.ask("GET /", "", b"").await.status, 200, "the site is served as ever");
    for name in ["two.one.far.test", "far.test", "agents.test.evil.test"] {
        assert!(raw::tls(gate.https, name, client.clone()).await.is_err(), "{name}");
    }
    let line = entry(&gate, &["\"path\":\"one.far.test\""]);
    assert_eq!(
        (&line["protocol"], &line["method"], &line["site"]),
        (&json!("TLS"), &json!("CONNECT"), &json!(AGENTS))
    );
    assert_eq!(
        (&line["status"], &line["verdict"], &line["client"]),
        (&json!(200), &json!("permit"), &json!("127.0.0.1"))
    );
    assert!(line["bytes_in"].as_u64().unwrap() > 200 && line["bytes_out"].as_u64().unwrap() > 200, "{line}");
    let series = format!("portcullis_passthrough_bytes_total{{direction=\"down\",site=\"{AGENTS}\"}}");
    assert!(gate.metric(&series).unwrap() > 600.0);
}

/// Handshake bytes of a client: what a real one sends first.
fn hello_of(name: &str, client: &ClientConfig) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(client.clone()), name).unwrap();
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// The same hello in records of so many bytes.
fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
    let head =
        |length: usize| [22, 3, 1, u8::try_from(length >> 8).unwrap(), u8::try_from(length & 255).unwrap()];
    hello[5..].chunks(size).flat_map(|piece| [&head(piece.len())[..], piece].concat()).collect()
}

/// A hello of our own making, with these extensions.
fn made_up(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let body: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, value)| [&kind.to_be_bytes()[..], &with_length(value)].concat())
        .collect();
    let suites = with_length(&[0x0a, 0x0a, 0x13, 0x01]);
    let hello = [&[3, 3][..], &[7; 32], &[0], &suites, &[1, 0], &with_length(&body)].concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &hello].concat();
    message.chunks(16 << 10).flat_map(|piece| [&[22, 3, 1][..], &with_length(piece)].concat()).collect()
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
    let entry = [&[0][..], &length(name), name].concat();
    (0, [&length(&entry)[..], &entry].concat())
}

/// What every hello that means it has: signatures, groups, versions.
fn usual() -> Vec<(u16, Vec<u8>)> {
    vec![(13, vec![0, 2, 4, 3]), (10, vec![0, 4, 0x1a, 0x1a, 0, 23]), (43, vec![4, 0x2a, 0x2a, 3, 4])]
}

#[tokio::test]
async fn a_hello_is_read_however_it_is_cut_and_handed_on_as_it_came() {
    // Hears, and says nothing.
    let upstream = Upstream::scripted(|mut session| session.until_closed());
    let config = Config {
        limits: "head_timeout = \"1s\"".into(),
        site: passing(upstream.address, ""),
        ..Config::default()
    };
    let gate = config.start(Upstream::answering(OK).address);
    let (_, _, client) = application().await;
    let whole = hello_of(AGENTS, &client);
    let ech = (0xfe0d, [&[0, 0, 1, 0, 1, 9, 0, 32][..], &[5; 32], &[0, 64], &[6; 64]].concat());
    let grease = [(0x1a1a, vec![]), sni(AGENTS.as_bytes()), (0x2a2a, vec![0])];
    let padded = [&usual()[..], &[sni(AGENTS.as_bytes()), (21, vec![0; 12 << 10])]].concat();
    let hellos = [
        whole.clone(),
        fragmented(&whole, 1000),
        fragmented(&whole, 7),
        made_up(&[&usual()[..], &grease].concat()),
        made_up(&[&usual()[..], &[ech, sni(AGENTS.as_bytes())]].concat()),
        made_up(&padded),
    ];
    let mut held = Vec::new();
    for (number, hello) in hellos.iter().enumerate() {
        for pieces in [hello.chunks(hello.len()), hello.chunks(hello.len().div_ceil(40))] {
            let mut stream = TcpStream::connect(gate.https).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            held.push(stream);
            let wanted = held.len();
            let came = wait_until(raw::LIMIT, || {
                let seen = upstream.connections();
                seen.len() == wanted && seen.iter().all(|record| hellos.contains(&record.bytes()))
            });
            assert!(came, "hello {number}: {} of {wanted} connections", upstream.connections().len());
        }
    }
    drop(held);

    let none = upstream.connections().len();
    let long = [b"a".repeat(60), b".test".to_vec()].concat();
    let huge = [&usual()[..], &[sni(AGENTS.as_bytes()), (21, vec![0; 17 << 10])]].concat();
    let refused = [
        ("no name", made_up(&usual())),
        ("another name", made_up(&[&usual()[..], &[sni(&long)]].concat())),
        ("a name of 10 KB", made_up(&[&usual()[..], &[sni(&b"a.".repeat(5 << 10))]].concat())),
        ("an address", made_up(&[&usual()[..], &[sni(b"127.0.0.1")]].concat())),
        ("two names", made_up(&[&usual()[..], &[sni(AGENTS.as_bytes()), sni(HOST.as_bytes())]].concat())),
        ("a name with NUL", made_up(&[&usual()[..], &[sni(b"agents.test\0.evil.test")]].concat())),
        ("too large a hello", made_up(&huge)),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: agents.test\r\n\r\n".to_vec()),
        ("a record without end", [&[22, 3, 1, 0xff, 0xff][..], &[0; 40_000]].concat()),
    ];
    for (what, hello) in refused {
        let mut stream = TcpStream::connect(gate.https).await.unwrap();
        let answer = raw::exchange(&mut stream, &hello).await;
        assert!(answer.is_empty() || answer[0] == 21, "{what}: {answer:?}");
    }
    assert_eq!(upstream.connections().len(), none, "nothing of these has reached the upstream");
    let large = "portcullis_tls_handshake_failures_total{reason=\"hello_too_large\"}";
    assert_eq!(gate.metric(large), Some(1.0));

    let begun = Instant::now();
    let mut slow = TcpStream::connect(gate.https).await.unwrap();
    let answer = raw::exchange(&mut slow, &whole[..100]).await;
    assert!(answer.is_empty() && begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
    assert_eq!(upstream.connections().len(), none);
}

#[tokio::test]
async fn a_name_without_end_is_refused_where_no_name_leads_elsewhere_too() {
    let other =
        "\n[[site]]\nhosts = [\"other.test\"]\napp = \"generic\"\nupstream = \"http://127.0.0.1:9\"\n";
    // One site alone, which is reached by any name's absence; and two.
    for site in ["", other] {
        let upstream = Upstream::answering(OK);
        let gate = Gate::start(site, upstream.address);
        let names = [
            b"a.".repeat(5 << 10),
            b"a".repeat(10 << 10),
            [&b"a.".repeat(5 << 10)[..], HOST.as_bytes()].concat(),
            [HOST.as_bytes(), &[0], &b"a".repeat(10 << 10)].concat(),
            b"a.".repeat(15 << 10),
        ];
        for name in &names {
            let hello = made_up(&[&usual()[..], &[sni(name)]].concat());
            for cut in [hello.len(), 100] {
                let mut stream = TcpStream::connect(gate.https).await.unwrap();
                for piece in hello.chunks(cut) {
                    let _ = stream.write_all(piece).await;
                }
                let answer = raw::exchange(&mut stream, b"").await;
                assert_eq!(answer.first(), Some(&21), "{} bytes: {answer:?}", name.len());
            }
        }
        let refused = "portcullis_tls_handshake_failures_total{reason=\"tls\"}";
        assert!(wait_until(raw::LIMIT, || gate.metric(refused) == Some(10.0)), "{:?}", gate.metric(refused));
        assert!(upstream.bytes().is_empty());
        assert_eq!(gate.ask("GET /", "", b"").await.status, 200);
    }
}

#[tokio::test]
async fn only_listed_networks_pass_and_a_block_refuses_and_cuts_live_on_that_name_only() {
    let (_, upstream, client) = application().await;
    let other = "\n[[passthrough]]\nhosts = [\"other.test\"]\nupstream = \"127.0.0.1:9\"\nonly_from = [\"192.0.2.0/24\"]\n";
    let gate = gate(upstream, other);
    let refusal = raw::tls(gate.https, "other.test", client.clone()).await.unwrap_err().to_string();
    assert!(refusal.contains("AccessDenied"), "{refusal}");
    let line = entry(&gate, &["other.test"]);
    assert_eq!(
        (&line["status"], &line["reason"], &line["guard"]),
        (&json!(403), &json!("not_allowlisted"), &json!("allowlist"))
    );
    let series = "portcullis_denials_total{class=\"-\",guard=\"allowlist\",reason=\"not_allowlisted\",site=\"other.test\"}";
    assert_eq!(gate.metric(series), Some(1.0));

    let mut live = raw::tls(gate.https, AGENTS, client.clone()).await.unwrap();
    assert_eq!(raw::ask(&mut live, &get(AGENTS)).await.status, 200);
    let elsewhere = gate.cli(["block", "address", "127.0.0.1", "--site", HOST]);
    assert!(elsewhere.status.success(), "{elsewhere:?}");
    assert_eq!(
        raw::ask(&mut live, &get(AGENTS)).await.status,
        200,
        "a block of the site is none of the agents'"
    );
    let begun = Instant::now();
    let blocked = gate.cli(["block", "address", "127.0.0.1", "--site", AGENTS]);
    assert!(blocked.status.success(), "{blocked:?}");
    let end = tokio::time::timeout(raw::LIMIT, live.read(&mut [0; 64])).await.expect("cut");
    assert!(!matches!(end, Ok(length) if length > 0), "{end:?}");
    let took = begun.elapsed();
    println!("cut {took:?} after the command began");
    // 500 ms are promised (DESIGN 6); the other half is for a machine that runs all tests at once.
    assert!(took < Duration::from_millis(500 + 500), "{took:?}");
    assert!(raw::tls(gate.https, AGENTS, client.clone()).await.is_err());
    assert_eq!(gate.metric("portcullis_streams_cut_total"), Some(1.0));
    assert_eq!(entry(&gate, &["cut by a block"])["site"], json!(AGENTS));
    assert_eq!(entry(&gate, &["address_blocked", AGENTS])["status"], json!(403));
}

#[tokio::test]
async fn the_upstream_hears_of_the_client_by_a_proxy_header_and_so_does_the_gateway() {
    let heard = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 28];
            if stream.read_exact(&mut bytes).await.is_ok() {
                hears.lock().unwrap().push(bytes);
            }
        }
    });
    let listen = "trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = \"require-from-trusted\"\n".into();
    let site = passing(upstream, "proxy_protocol = \"v2\"\nonly_from = [\"203.0.113.0/24\"]\n");
    let gate = Config { listen, site, ..Config::default() }.start(Upstream::answering(OK).address);
    let (_, _, client) = application().await;
    let hello = hello_of(AGENTS, &client);
    for (from, passes) in [("203.0.113.7", true), ("198.51.100.1", false)] {
        let mut stream = TcpStream::connect(gate.https).await.unwrap();
        let line = format!("PROXY TCP4 {from} 192.0.2.1 51000 443\r\n");
        let answer = raw::exchange(&mut stream, &[line.as_bytes(), &hello].concat()).await;
        assert_eq!(answer.is_empty(), passes, "{from}: {answer:?}");
    }
    assert!(wait_until(raw::LIMIT, || heard.lock().unwrap().len() == 1));
    let header = heard.lock().unwrap().remove(0);
    let (read, _) = proxy_header::ProxyHeader::parse(&header, proxy_header::ParseConfig::default()).unwrap();
    let address = read.proxied_address().unwrap();
    assert_eq!(address.source, "203.0.113.7:51000".parse().unwrap());
    assert_eq!(address.destination, gate.https);
}

#[tokio::test]
async fn silence_ends_a_connection_and_an_upstream_that_is_not_there_is_told_of() {
    let (_, upstream, client) = application().await;
    let nobody = "\n[[passthrough]]\nhosts = [\"nobody.test\"]\nupstream = \"127.0.0.1:1\"\n";
    let gate = gate(upstream, &format!("idle_timeout = \"700ms\"\n{nobody}"));
    assert!(raw::tls(gate.https, "nobody.test", client.clone()).await.is_err());
    let line = entry(&gate, &["nobody.test"]);
    assert_eq!(line["status"], json!(502));
    assert!(line["cause"].as_str().unwrap().contains("refused"), "{line}");

    let mut stream = raw::tls(gate.https, AGENTS, client.clone()).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(raw::ask(&mut stream, &get(AGENTS)).await.status, 200, "what is used stays");
    }
    let begun = Instant::now();
    let end = tokio::time::timeout(raw::LIMIT, stream.read(&mut [0; 64])).await.expect("an end");
    assert!(!matches!(end, Ok(length) if length > 0), "{end:?}");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert!(entry(&gate, &["idle_timeout"])["cause"].as_str().unwrap().contains("idle_timeout"));
}

#[tokio::test]
async fn caps_hold_a_reload_leaves_what_runs_and_a_drain_waits_for_it() {
    let (_, upstream, client) = application().await;
    let limits = "connections_per_client = 3\ndrain_timeout = \"20s\"".into();
    let mut gate = Config { limits, site: passing(upstream, ""), ..Config::default() }
        .start(Upstream::answering(OK).address);
    let mut held: Vec<TlsStream<TcpStream>> = Vec::new();
    for _ in 0..3 {
        held.push(raw::tls(gate.https, AGENTS, client.clone()).await.unwrap());
    }
    assert!(raw::tls(gate.https, AGENTS, client.clone()).await.is_err(), "one client has three at most");
    held.truncate(1);
    let text = std::fs::read_to_string(gate.config()).unwrap();
    place(&gate.config(), &text.replace(AGENTS, "moved.test"));
    assert!(gate.cli(["reload"]).status.success());
    assert!(raw::tls(gate.https, AGENTS, client.clone()).await.is_err(), "the name is nobody's now");
    assert_eq!(raw::ask(&mut held[0], &get(AGENTS)).await.status, 200, "what runs goes on");
    gate.signal("TERM");
    assert!(wait_until(raw::LIMIT, || std::net::TcpStream::connect(gate.https).is_err()));
    assert_eq!(raw::ask(&mut held[0], &get(AGENTS)).await.status, 200, "it may finish");
    drop(held);
    let begun = Instant::now();
    let mut ended = None;
    wait_for(raw::LIMIT, || {
        ended = gate.wait_ended(Duration::ZERO);
        ended.is_some()
    })
    .await;
    assert_eq!(ended, Some(0), "and then the gateway ends");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn names_that_collide_and_upstreams_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("portcullis.toml");
    let check = |more: &str| {
        let text = format!(
            "[listen]\nhttps = [\"127.0.0.1:8443\"]\nhttp = []\n[tls]\nself_signed = true\n[[site]]\nhosts = [\"{HOST}\", \"*.wide.test\"]\n\
             upstream = \"http://127.0.0.1:8000\"\n{more}"
        );
        std::fs::write(&file, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["check", "--offline"])
            .arg(&file)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    for (lines, said) in [
        (format!("hosts = [\"{HOST}\"]\nupstream = \"127.0.0.1:9\""), "is named twice"),
        ("hosts = [\"*.wide.test\"]\nupstream = \"127.0.0.1:9\"".into(), "is named twice"),
        ("hosts = [\"a.test\", \"A.test.\"]\nupstream = \"127.0.0.1:9\"".into(), "is named twice"),
        ("hosts = [\"192.0.2.1\"]\nupstream = \"127.0.0.1:9\"".into(), "no TLS client names an address"),
        ("hosts = []\nupstream = \"127.0.0.1:9\"".into(), "the list is empty"),
        ("upstream = \"127.0.0.1:9\"".into(), "names no `hosts`"),
        ("hosts = [\"a.test\"]".into(), "names no `upstream`"),
        ("hosts = [\"a.test\"]\nupstream = \"https://127.0.0.1:9\"".into(), "no scheme"),
        ("hosts = [\"a.test\"]\nupstream = \"127.0.0.1\"".into(), "the port is missing"),
        ("hosts = [\"a.test\"]\nupstream = \"127.0.0.1:8443\"".into(), "is the gateway itself"),
        (
            "hosts = [\"a.test\"]\nupstream = \"127.0.0.1:9\"\nproxy_protocol = \"v1\"".into(),
            "`v1` is not known",
        ),
        ("hosts = [\"a.test\"]\nupstream = \"127.0.0.1:9\"\nidle_timeout = \"0s\"".into(), "no time at all"),
        ("hosts = [\"a.test\"]\nupstream = \"127.0.0.1:9\"\nonly = []".into(), "`only` is no key"),
    ] {
        let (code, heard) = check(&format!("[[passthrough]]\n{lines}\n"));
        assert!(code == Some(3) && heard.contains(said), "{lines}: {heard}");
    }
    let (code, heard) = check(
        "[[passthrough]]\nhosts = [\"a.wide.test\"]\nupstream = \"[::1]:9\"\nonly_from = [\"10.0.0.0/8\"]\n",
    );
    assert_eq!(code, Some(0), "{heard}");
    assert!(
        heard.contains("passthrough a.wide.test")
            && heard.contains("10.0.0.0/8")
            && heard.contains("[::1]:9"),
        "{heard}"
    );
}

/// A program in Python, spoken to by lines.
struct Program {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let found = Command::new(PYTHON).args(["-c", "import grpc"]).output().unwrap();
        assert!(found.status.success(), "python3-grpcio is missing: `make test-deps` installs it");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc").join(script);
        let mut child = Command::new(PYTHON)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let input = child.stdin.take().unwrap();
        Self { child, input, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    fn ask(&mut self, what: &str, arguments: &Value) -> Value {
        writeln!(self.input, "{}", json!([what, arguments])).unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_grpc_client_with_its_own_certificate_talks_to_its_server_through_the_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        place(&dir.path().join(name), text);
        dir.path().join(name).display().to_string()
    };
    let (servers, clients, strangers) = (Ca::new(), Ca::new(), Ca::new());
    let (own, agent, stranger) =
        (servers.issue(AGENTS), clients.issue("agent-1"), strangers.issue("agent-1"));
    let (servers, clients) = (file("servers.pem", &servers.pem), file("clients.pem", &clients.pem));
    let (cert, key) = (file("server.pem", &own.cert), file("server-key.pem", &own.key));
    let server = Program::start("server.py", &[&cert, &key, &clients]);
    let port: u16 = server.line().parse().unwrap();
    let gate = gate(SocketAddr::from(([127, 0, 0, 1], port)), "");
    let through = gate.https.port().to_string();
    let client = |name: &str, made: &peers::Made| {
        let (cert, key) =
            (file(&format!("{name}.pem"), &made.cert), file(&format!("{name}-key.pem"), &made.key));
        Program::start("client.py", &[&through, &servers, AGENTS, &cert, &key])
    };
    let unary = json!({ "path": "/test.Echo/Unary", "body": "hello" });
    let mut agent = client("agent", &agent);
    let answer = agent.ask("unary", &unary);
    assert_eq!((&answer["code"], &answer["body"]), (&json!("OK"), &json!("hello")), "{answer}");
    let answer = agent
        .ask("client_stream", &json!({ "path": "/test.Echo/ClientStream", "count": 50, "size": 20_000 }));
    assert_eq!(answer["body"], json!("50 1000000"), "{answer}");
    agent.ask("open", &json!({ "name": "live", "path": "/test.Echo/Bidi" }));
    assert_eq!(agent.ask("say", &json!({ "name": "live", "body": "one" }))["body"], json!("one"));
    // Who has no such certificate is refused by the server itself.
    let refused =
        client("stranger", &stranger).ask("unary", &json!({ "path": "/test.Echo/Unary", "timeout": 5 }));
    assert_eq!(refused["code"], json!("UNAVAILABLE"), "{refused}");
    let blocked = gate.cli(["block", "address", "127.0.0.1"]);
    assert!(blocked.status.success(), "{blocked:?}");
    assert_eq!(agent.ask("wait", &json!({ "name": "live" }))["code"], json!("UNAVAILABLE"));
}
