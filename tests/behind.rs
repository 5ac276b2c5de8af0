//! Behind others: PROXY headers of trusted balancers, a real HAProxy, `plain` behind an ingress, lists of a CDN in files.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their tables"
)]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::gate::{Config, Gate, free_addresses, place};
use common::raw::{self, Answer};
use common::upstream::{OK, Upstream};
use common::{HOST, wait_until};
use portcullis::listener::proxy;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const CLIENT: &str = "203.0.113.7";
const V1: &str = "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const REQUIRED: &str = "proxy_protocol = \"require-from-trusted\"\n";

fn behind(trusted: &str, site: &str, upstream: &Upstream) -> Gate {
    let listen = format!("trusted_proxies = [{trusted}]\n{REQUIRED}");
    let limits = "head_timeout = \"1s\"".into();
    Config { listen, limits, site: site.into(), ..Config::default() }.start(upstream.address)
}

fn v2(from: &str) -> Vec<u8> {
    proxy::encode(from.parse().unwrap(), "192.0.2.1:443".parse().unwrap())
}

fn get(path: &str, lines: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{lines}Connection: close\r\n\r\n").into_bytes()
}

/// TLS behind these bytes.
async fn tls(gate: &Gate, before: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(gate.https).await?;
    stream.write_all(before).await?;
    let config = raw::trusting(&gate.ca(), &["http/1.1"]);
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), stream).await
}

async fn ask(gate: &Gate, before: &[u8], path: &str, lines: &str) -> Answer {
    raw::ask(&mut tls(gate, before).await.expect("TLS"), &get(path, lines)).await
}

/// What comes back on a fresh connection, up to its end.
async fn sent(address: SocketAddr, pieces: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    raw::exchange(&mut stream, b"").await
}

fn status(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer).split(' ').nth(1).unwrap_or("closed").to_owned()
}

fn clients(gate: &Gate) -> Vec<String> {
    let lines = gate.log();
    let client =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["client"].as_str().map(str::to_owned);
    lines.lines().filter_map(client).collect()
}

#[tokio::test]
async fn a_header_of_a_trusted_proxy_names_the_client_on_every_listener_wherever_it_is_cut() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"127.0.0.1\"", "", &upstream);
    let headers = [V1.as_bytes().to_vec(), v2("203.0.113.7:51000"), v2("[::ffff:203.0.113.7]:51000")];
    for header in &headers {
        assert_eq!(ask(&gate, header, "/", "").await.status, 200);
        assert_eq!(status(&sent(gate.plain, &[header, &get("/", "")]).await), "200");
        assert_eq!(status(&sent(gate.http, &[header, &get("/", "")]).await), "308");
        // With the ClientHello, and byte for byte.
        let whole = [&header[..], &get("/", "")].concat();
        for cut in [1, 5, 11, 12, 13, 15, 16, 17, header.len() - 1, header.len(), header.len() + 3] {
            assert_eq!(
                status(&sent(gate.plain, &[&whole[..cut], &whole[cut..]]).await),
                "200",
                "cut at {cut}"
            );
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(status(&sent(gate.plain, &bytes).await), "200");
    }
    let requests = upstream.requests();
    assert!(requests.iter().all(|request| request.header("x-forwarded-for") == Some(CLIENT)));
    assert_eq!(requests.len(), headers.len() * 14);
    assert!(wait_until(raw::LIMIT, || clients(&gate).len() == requests.len()));
    assert!(clients(&gate).iter().all(|client| client == CLIENT));
}

#[tokio::test]
async fn what_a_trusted_proxy_must_send_and_does_not_send_rightly_closes_its_connection_and_is_counted() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"127.0.0.1\"", "", &upstream);
    let refused = |reason: &str, times: f64| {
        let series = format!("portcullis_connections_refused_total{{listener=\"-\",reason=\"{reason}\"}}");
        wait_until(raw::LIMIT, || gate.metric(&series) == Some(times))
    };
    assert!(tls(&gate, b"").await.is_err(), "TLS without a header");
    for address in [gate.https, gate.http, gate.plain] {
        assert!(sent(address, &[&get("/", "")]).await.is_empty());
    }
    assert!(refused("proxy_header_missing", 4.0));
    for broken in [
        &b"PROXY TCP4 203.0.113.7 192.0.2.1 51000 99999\r\n"[..],
        b"PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\nGET",
        &[b"PROXY UNKNOWN ", &[b'x'; 120][..]].concat(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x01\0",
    ] {
        assert!(sent(gate.plain, &[broken, &get("/", "")]).await.is_empty(), "{broken:?}");
        assert!(sent(gate.https, &[broken]).await.is_empty(), "{broken:?}");
    }
    assert!(refused("proxy_header_malformed", 10.0));
    // One that dribbles, and one that is silent, each until the one deadline.
    let begun = Instant::now();
    let (half, silence) = ([&V1.as_bytes()[..20]], []);
    let (half, none) = tokio::join!(sent(gate.https, &half), sent(gate.plain, &silence));
    assert!(half.is_empty() && none.is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(800), "{:?}", begun.elapsed());
    assert!(refused("proxy_header_late", 2.0));
    // A balancer that looks whether somebody listens is no fault.
    drop(TcpStream::connect(gate.https).await.unwrap());
    assert!(wait_until(raw::LIMIT, || gate.metric("portcullis_connections{listener=\"https\"}") == Some(0.0)));
    assert!(refused("proxy_header_malformed", 10.0));
    assert!(upstream.bytes().is_empty());
}

#[tokio::test]
async fn a_strangers_header_is_not_believed_and_without_one_he_is_served() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"192.0.2.1\"", "", &upstream);
    for header in [V1.as_bytes().to_vec(), v2("203.0.113.7:51000"), LOCAL.to_vec()] {
        assert!(tls(&gate, &header).await.is_err());
        assert_eq!(status(&sent(gate.http, &[&header, &get("/", "")]).await), "400");
        assert!(sent(gate.plain, &[&header, &get("/", "")]).await.is_empty());
    }
    assert!(upstream.bytes().is_empty());
    assert_eq!(ask(&gate, b"", "/", "").await.status, 200);
    assert_eq!(upstream.requests()[0].header("x-forwarded-for"), Some("127.0.0.1"));

    let off = Config { listen: "trusted_proxies = [\"127.0.0.1\"]\n".into(), ..Config::default() };
    let off = off.start(upstream.address);
    assert!(tls(&off, V1.as_bytes()).await.is_err());
    assert_eq!(status(&sent(off.plain, &[V1.as_bytes(), &get("/", "")]).await), "400");
}

#[tokio::test]
async fn a_proxys_own_connection_is_its_own_and_one_that_it_cannot_name_is_nobodys() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"127.0.0.1\"", "", &upstream);
    assert_eq!(ask(&gate, LOCAL, "/", "").await.status, 200);
    assert_eq!(ask(&gate, LOCAL, "/metrics", "").await.status, 200, "this machine asks");
    let nobody: [&[u8]; 3] = [
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
        &[&b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8"[..], &[0; 216]].concat(),
    ];
    for header in nobody {
        assert_eq!(ask(&gate, header, "/", "").await.status, 200);
        for claimed in ["", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-For: 10.0.0.5\r\n"] {
            let answer = ask(&gate, header, "/metrics", claimed).await;
            assert_eq!(answer.status, 404, "nobody is in no allowlist, whatever is claimed: {claimed:?}");
        }
    }
    let told: Vec<_> =
        upstream.requests().iter().map(|one| one.header("x-forwarded-for").map(str::to_owned)).collect();
    assert_eq!(told.iter().filter(|client| client.as_deref() == Some("127.0.0.1")).count(), 2);
    assert_eq!(told.iter().filter(|client| client.is_none()).count(), 3);
}

#[tokio::test]
async fn allowlists_rates_caps_and_blocks_see_the_client_of_the_header() {
    let upstream = Upstream::answering(OK);
    let site =
        "[site.rate.login]\nrefill = \"1/min\"\nburst = 1\n[site.only_from]\nmetrics = [\"203.0.113.7\"]\n";
    let listen = format!("trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n{REQUIRED}");
    let limits = "connections_per_client = 2".into();
    let gate = Config { listen, limits, site: site.into(), ..Config::default() }.start(upstream.address);
    let other = v2("198.51.100.1:1");
    assert_eq!(ask(&gate, V1.as_bytes(), "/metrics", "").await.status, 200);
    assert_eq!(ask(&gate, &other, "/metrics", "").await.status, 404);
    // Only a proxy's word about its client counts, and only from the right.
    let claim = "X-Forwarded-For: 203.0.113.7\r\n";
    assert_eq!(ask(&gate, &other, "/metrics", claim).await.status, 404);
    let cdn = v2("10.0.0.9:1");
    assert_eq!(ask(&gate, &cdn, "/metrics", claim).await.status, 200);
    assert_eq!(
        ask(&gate, &cdn, "/metrics", "X-Forwarded-For: 203.0.113.7, 198.51.100.1\r\n").await.status,
        404
    );
    assert_eq!(ask(&gate, &cdn, "/metrics", "X-Forwarded-For: 203.0.113.7, x\r\n").await.status, 404);
    assert_eq!(ask(&gate, &cdn, "/metrics", "").await.status, 404);

    let login = format!("POST /api/auth/login HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n{{}}");
    for (from, wanted) in [("203.0.113.7:1", 200), ("203.0.113.8:1", 200), ("203.0.113.7:2", 429)] {
        let answer = raw::ask(&mut tls(&gate, &v2(from)).await.unwrap(), login.as_bytes()).await;
        assert_eq!(answer.status, wanted, "{from}");
    }

    let held = [tls(&gate, &other).await.unwrap(), tls(&gate, &other).await.unwrap()];
    assert!(tls(&gate, &other).await.is_err(), "a third connection of one client");
    assert_eq!(ask(&gate, V1.as_bytes(), "/", "").await.status, 200, "another client of the same proxy");
    drop(held);
    assert!(common::wait_until_async(raw::LIMIT, async || tls(&gate, &other).await.is_ok()).await);

    let mut live = tls(&gate, V1.as_bytes()).await.unwrap();
    let blocked = gate.cli(["block", "address", "203.0.113.7"]);
    assert!(blocked.status.success(), "{blocked:?}");
    assert_eq!(raw::ask(&mut live, &get("/", "")).await.status, 403);
    assert_eq!(ask(&gate, &other, "/", "").await.status, 200);
}

#[tokio::test]
async fn a_plain_listener_behind_a_balancer_of_bytes_takes_no_scheme_from_its_clients() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"127.0.0.1\", \"10.0.0.9\"", "", &upstream);
    let http = "X-Forwarded-Proto: http\r\n";
    for (header, scheme) in
        [(v2("203.0.113.7:1"), "https"), (v2("10.0.0.9:1"), "http"), (LOCAL.to_vec(), "http")]
    {
        assert_eq!(status(&sent(gate.plain, &[&header, &get("/", http)]).await), "200");
        let requests = upstream.requests();
        let last: Vec<_> = requests.iter().map(|one| one.header("x-forwarded-proto").unwrap()).collect();
        let wanted = last.iter().filter(|one| **one == scheme).count();
        assert!(wanted >= 1, "{last:?}");
    }
    let schemes: Vec<_> =
        upstream.requests().iter().map(|one| one.header("x-forwarded-proto").unwrap().to_owned()).collect();
    assert_eq!(schemes.iter().filter(|one| *one == "http").count(), 2, "{schemes:?}");
}

/// A running HAProxy; killed when dropped.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_haproxy_names_its_clients_by_both_versions_and_its_health_checks_are_answered() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"127.0.0.1\"", "", &upstream);
    let [first, second, stats] = free_addresses();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("haproxy.cfg");
    let check = |name: &str, bind: SocketAddr, how: &str| {
        format!(
            "listen {name}\n  bind {bind}\n  option httpchk\n  http-check send meth GET uri / hdr Host {HOST}\n  \
             server gate {} {how} check check-ssl check-send-proxy check-sni {HOST} verify none inter 200ms\n",
            gate.https
        )
    };
    let text = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n\
         {}{}frontend stats\n  mode http\n  bind {stats}\n  stats enable\n  stats uri /stats\n",
        check("one", first, "send-proxy"),
        check("two", second, "send-proxy-v2 proxy-v2-options crc32c,ssl,authority,unique-id"),
    );
    std::fs::write(&file, text).unwrap();
    let spawned = Command::new("haproxy").args(["-db", "-f"]).arg(&file).stdout(Stdio::null()).spawn();
    let _balancer = Balancer(spawned.expect("haproxy is missing: `make test-deps` installs it"));
    for (address, client) in [(first, "127.0.0.2"), (second, "127.0.0.3")] {
        let mut said = None;
        let answered = wait_until(Duration::from_secs(20), || {
            let curl = Command::new("curl")
                .args(["--silent", "--show-error", "--max-time", "5", "--interface", client])
                .args(["--resolve", &format!("{HOST}:{}:127.0.0.1", address.port())])
                .arg("--cacert")
                .arg(gate.ca())
                .arg(format!("https://{HOST}:{}/from/{client}", address.port()))
                .output()
                .expect("curl");
            said = Some(curl.clone());
            curl.stdout == b"ok"
        });
        assert!(answered, "{said:?}\n{}", gate.errors());
        let requests = upstream.requests();
        let told = requests.iter().find(|one| one.target.ends_with(client)).expect("a request");
        assert_eq!(told.header("x-forwarded-for"), Some(client));
    }
    let mut page = String::new();
    let up = wait_until(Duration::from_secs(20), || {
        let url = format!("http://{stats}/stats;csv");
        let curl = Command::new("curl").args(["--silent", &url]).output().unwrap();
        page = String::from_utf8_lossy(&curl.stdout).into_owned();
        let checked = |name: &str| page.lines().any(|line| line.starts_with(name) && line.contains("L7OK"));
        checked("one,gate,") && checked("two,gate,")
    });
    assert!(up, "{page}");
}

#[tokio::test]
async fn a_list_in_a_file_is_taken_over_when_it_changes_and_one_wrong_line_changes_nothing() {
    let upstream = Upstream::answering(OK);
    let listen = "trusted_proxies = [\"192.0.2.1\", { file = \"cdn.txt\" }]\n".into();
    let site = "[site.only_from]\nmetrics = [{ file = \"staff.txt\" }]\n".into();
    let staff = "# people\n203.0.113.0/24\n".to_owned();
    let files = vec![("cdn.txt", "# none yet\n192.0.2.7 # a remark\n".to_owned()), ("staff.txt", staff)];
    let gate = Config { listen, site, files, ..Config::default() }.start(upstream.address);
    let line = format!("X-Forwarded-For: {CLIENT}\r\n");
    assert_eq!(gate.ask("GET /metrics", &line, b"").await.status, 404, "a tunnel on this machine");
    let dir = gate.config().parent().unwrap().to_owned();
    place(&dir.join("cdn.txt"), "127.0.0.0/8\r\n2001:db8::/32\r\n");
    let served = common::wait_until_async(raw::LIMIT, async || {
        gate.ask("GET /metrics", &line, b"").await.status == 200
    })
    .await;
    assert!(served, "{}", gate.errors());

    for (text, said) in [
        ("127.0.0.0/8\n<html>\n", "cdn.txt:2:1: `<html>` is no network"),
        ("127.0.0.1/8\n", "cdn.txt:1:1: `127.0.0.1/8` has bits set"),
        ("# gone\n", "holds no address"),
    ] {
        place(&dir.join("cdn.txt"), text);
        let reload = gate.cli(["reload"]);
        assert!(!reload.status.success());
        let heard =
            String::from_utf8_lossy(&reload.stderr).into_owned() + &String::from_utf8_lossy(&reload.stdout);
        assert!(heard.contains(said), "{heard}");
        assert_eq!(gate.ask("GET /metrics", &line, b"").await.status, 200, "the old list is kept");
        let check = gate.cli(["check", "--offline"]);
        assert_eq!(check.status.code(), Some(3));
    }
    std::fs::remove_file(dir.join("cdn.txt")).unwrap();
    assert!(!gate.cli(["reload"]).status.success());
    assert_eq!(gate.ask("GET /metrics", &line, b"").await.status, 200);
}

#[tokio::test]
async fn explain_says_how_the_address_was_found_and_why_the_walk_stopped() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"10.0.0.0/8\"", "", &upstream);
    let url = format!("https://{HOST}/");
    for (arguments, client, found) in [
        (&["--from", CLIENT][..], CLIENT, "203.0.113.7 is not in trusted_proxies"),
        (&["--from", CLIENT, "-H", "X-Forwarded-For: 1.2.3.4"], CLIENT, "whatever it claims"),
        (&["--from", "127.0.0.1", "-H", "Forwarded: for=1.2.3.4"], "unknown", "nobody can be believed"),
        (
            &["--from", "10.0.0.5"],
            "10.0.0.5",
            "10.0.0.5 must begin with a PROXY header, here one that says LOCAL",
        ),
        (
            &["--from", "10.0.0.5", "--proxy", CLIENT],
            CLIENT,
            "the PROXY header of 10.0.0.5 names 203.0.113.7",
        ),
        (
            &[
                "--from",
                "10.0.0.5",
                "--proxy",
                "10.1.1.1",
                "-H",
                "X-Forwarded-For: 1.1.1.1, 203.0.113.7, 10.9.9.9",
            ],
            CLIENT,
            "X-Forwarded-For's element 2 from the right and the first that is not in trusted_proxies",
        ),
        (
            &["--from", "10.0.0.5", "--proxy", "10.1.1.1", "-H", "X-Forwarded-For: 203.0.113.7, x"],
            "unknown",
            "element 1 from the right is no address",
        ),
        (
            &["--from", "10.0.0.5", "--proxy", "10.1.1.1", "-H", "X-Forwarded-For: 10.3.3.3, 10.2.2.2"],
            "10.3.3.3",
            "so is all of X-Forwarded-For; 10.3.3.3 is its element 2",
        ),
        (&["--from", "10.0.0.5", "--proxy", "10.1.1.1"], "unknown", "sends no X-Forwarded-For"),
    ] {
        let arguments = [&["explain", &*url][..], arguments].concat();
        let told = gate.cli(arguments.iter().copied());
        let text = String::from_utf8_lossy(&told.stdout);
        assert!(text.contains(found), "{arguments:?}: {text} {told:?}");
        assert!(text.lines().any(|line| line.starts_with("client") && line.ends_with(client)), "{text}");
    }
    let told = gate.cli(["explain", &url, "--from", CLIENT, "--proxy", "1.2.3.4"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("is not in listen.trusted_proxies"), "{told:?}");
}
