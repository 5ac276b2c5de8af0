//! What the gateway shows: metrics, logs, probes. All of it true, none of it secret.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::gate::Gate;
use common::http2::Client;
use common::raw;
use common::upstream::{OK, Session, Upstream};
use common::{HOST, wait_until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TOKEN: &str = "eyJzdWIiOiI3In0.c2lnbmF0dXJl";
const WEBSOCKET: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
/// From RFC 6455: the answer to that key.
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Budgets that do not fill up again during a test; a place where nobody listens; a rate that only counts.
const SITE: &str = "[site.rate.login]\nrefill = \"1/h\"\nburst = 1\n\
    [[site.route]]\nmatch = \"/gone\"\nclass = \"api\"\nupstream = \"http://127.0.0.1:1\"\n\
    [[site.route]]\nmatch = \"/watched\"\nclass = \"login\"\nobserve = [\"rate\"]\n";

/// Answers with a page; opens a tunnel where one is asked for.
fn application() -> Upstream {
    Upstream::scripted(|mut session: Session| {
        while let Some(request) = session.request() {
            if request.header("upgrade").is_some() {
                session.send(SWITCH);
                return session.until_closed();
            }
            session.send(OK);
        }
    })
}

/// All series of a scrape whose name and labels hold these words, added up.
fn sum(gate: &Gate, words: &[&str]) -> f64 {
    let text = gate.admin("/metrics").unwrap();
    let (name, labels) = words.split_first().unwrap();
    text.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn assert_sum(gate: &Gate, words: &[&str], wanted: f64) {
    let came = wait_until(raw::LIMIT, || (sum(gate, words) - wanted).abs() < 0.5);
    assert!(came, "{words:?} is {}, not {wanted}\n{}", sum(gate, words), gate.admin("/metrics").unwrap());
}

async fn websocket(gate: &Gate) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut stream = gate.connect().await;
    let head =
        format!("GET /ws HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {TOKEN}\r\n{WEBSOCKET}\r\n");
    assert_eq!(raw::ask(&mut stream, head.as_bytes()).await.status, 101);
    stream
}

/// Something of everything that is counted.
async fn everything(gate: &Gate) {
    for _ in 0..3 {
        assert_eq!(gate.ask("GET /", "", b"").await.status, 200);
    }
    for _ in 0..2 {
        assert_eq!(gate.ask("GET /metrics", "X-Forwarded-For: 192.0.2.1\r\n", b"").await.status, 404);
    }
    for status in [200, 429, 429] {
        assert_eq!(gate.ask("POST /api/auth/login", "", b"{}").await.status, status);
    }
    for _ in 0..2 {
        assert_eq!(gate.ask("GET /watched", "", b"").await.status, 200);
    }
    assert_eq!(gate.ask("GET /gone", "", b"").await.status, 502);
    assert_eq!(gate.ask("GET /%00", "", b"").await.status, 400);
    let both = "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n";
    assert_eq!(gate.ask("POST /", both, b"").await.status, 400);
    let strange = raw::trusting(&gate.ca(), &["http/1.1"]);
    assert!(raw::tls(gate.https, "other.test", strange).await.is_err());
    let mut plain = tokio::net::TcpStream::connect(gate.https).await.unwrap();
    raw::exchange(&mut plain, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
}

#[tokio::test]
async fn counts_are_what_happened() {
    let upstream = application();
    let gate = Gate::start(SITE, upstream.address);
    everything(&gate).await;
    let site = &*format!("site=\"{HOST}\"");
    for (words, wanted) in [
        (&["portcullis_requests_total", site, "class=\"page\"", "status=\"200\""][..], 3.0),
        (&["portcullis_requests_total", site, "class=\"metrics\"", "status=\"404\""], 2.0),
        (&["portcullis_requests_total", site, "class=\"login\"", "status=\"429\""], 2.0),
        (&["portcullis_requests_total", site, "class=\"login\"", "status=\"200\""], 3.0),
        (&["portcullis_requests_total", site, "class=\"api\"", "status=\"502\""], 1.0),
        (&["portcullis_denials_total", site, "guard=\"allowlist\"", "reason=\"not_allowlisted\""], 2.0),
        (&["portcullis_denials_total", site, "class=\"login\"", "guard=\"rate\"", "\"rate_limited\""], 2.0),
        (&["portcullis_would_deny_total", site, "class=\"login\"", "guard=\"rate\""], 1.0),
        (&["portcullis_malformed_total", "reason=\"path\""], 1.0),
        (&["portcullis_malformed_total"], 2.0),
        (&["portcullis_tls_handshake_failures_total", "reason=\"unknown_name\""], 1.0),
        (&["portcullis_tls_handshake_failures_total"], 2.0),
        (&["portcullis_client_address_unknown_total"], 2.0),
        (&["portcullis_request_duration_seconds_count", site, "class=\"page\""], 3.0),
        (&["portcullis_upstream_duration_seconds_count", site], 6.0),
        (&["portcullis_upstream_up", site, "127.0.0.1:1\""], 0.0),
        (&["portcullis_upstream_up", site, &upstream.address.to_string()], 1.0),
        (&["portcullis_limiter_keys"], 2.0),
        (&["portcullis_limiter_evictions_total"], 0.0),
        (&["portcullis_limiter_shared_total"], 0.0),
        (&["portcullis_log_dropped_total"], 0.0),
        (&["portcullis_process_log_dropped_total"], 0.0),
        (&["portcullis_connections"], 0.0),
        (&["portcullis_state_durable"], 1.0),
        (&["portcullis_config_last_reload_successful"], 1.0),
        (&["portcullis_build_info"], 1.0),
    ] {
        assert_sum(&gate, words, wanted);
    }
}

#[tokio::test]
async fn connections_go_up_and_down_and_blocks_and_cut_streams_are_counted() {
    let upstream = application();
    let gate = Gate::start("", upstream.address);
    let idle = [gate.connect().await, gate.connect().await];
    let mut tunnel = websocket(&gate).await;
    assert_sum(&gate, &["portcullis_connections", "listener=\"https\""], 3.0);
    assert!(gate.cli_with(["block", "token", "-"], TOKEN).status.success());
    assert!(gate.cli(["block", "subject", "j1"]).status.success());
    assert!(gate.cli(["block", "address", "198.51.100.0/24"]).status.success());
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(raw::LIMIT, tunnel.read_to_end(&mut rest)).await.expect("the tunnel is cut");
    assert_sum(&gate, &["portcullis_streams_cut_total"], 1.0);
    for kind in ["fingerprint", "subject", "address"] {
        assert_sum(&gate, &["portcullis_blocks", &format!("kind=\"{kind}\"")], 1.0);
    }
    assert_sum(&gate, &["portcullis_blocks"], 3.0);
    assert_sum(&gate, &["portcullis_connections"], 2.0);
    drop(idle);
    assert_sum(&gate, &["portcullis_connections"], 0.0);
    assert!(gate.cli(["unblock", "1"]).status.success());
    assert_sum(&gate, &["portcullis_blocks"], 2.0);
}

#[tokio::test]
async fn every_promised_metric_is_there_and_promtool_has_no_complaint() {
    let upstream = application();
    let gate = Gate::start(SITE, upstream.address);
    everything(&gate).await;
    let scrape = gate.admin("/metrics").unwrap();
    let (head, text) = scrape.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for (name, labels) in [
        ("requests_total", &["site", "class", "status"][..]),
        ("denials_total", &["site", "class", "guard", "reason"]),
        ("would_deny_total", &["site", "class", "guard", "reason"]),
        ("request_duration_seconds_bucket", &["site", "class", "le"]),
        ("upstream_duration_seconds_bucket", &["site", "le"]),
        ("upstream_up", &["site", "upstream"]),
        ("connections", &["listener"]),
        ("malformed_total", &["reason"]),
        ("tls_handshake_failures_total", &["reason"]),
        ("client_address_unknown_total", &[]),
        ("blocks", &["kind"]),
        ("streams_cut_total", &[]),
        ("limiter_keys", &[]),
        ("limiter_evictions_total", &[]),
        ("limiter_shared_total", &[]),
        ("certificate_expiry_timestamp_seconds", &["host"]),
        ("config_last_reload_successful", &[]),
        ("config_last_reload_success_timestamp_seconds", &[]),
        ("state_durable", &[]),
        ("log_dropped_total", &[]),
        ("process_log_dropped_total", &[]),
        ("build_info", &["version"]),
    ] {
        let name = format!("portcullis_{name}");
        let series = text.lines().find(|line| line.split(['{', ' ']).next() == Some(&*name));
        let series = series.unwrap_or_else(|| panic!("{name} is missing in\n{text}"));
        let labelled = series.matches("=\"").count();
        let all = labels.iter().all(|label| series.contains(&format!("{label}=\"")));
        assert!(all && labelled == labels.len(), "{series}");
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: `make test-deps` installs it");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[tokio::test]
async fn only_listed_networks_may_scrape_and_a_reload_changes_who() {
    let upstream = application();
    let gate = Gate::start("", upstream.address);
    let text = fs::read_to_string(gate.config()).unwrap();
    fs::write(gate.config(), text.replace("metrics = ", "metrics_only_from = [\"10.0.0.0/8\"]\nmetrics = "))
        .unwrap();
    assert!(gate.cli(["reload"]).status.success());
    for path in ["/metrics", "/livez", "/readyz"] {
        assert!(gate.admin(path).unwrap().starts_with("HTTP/1.1 404"), "{path}");
    }
    // The one who asks over the admin socket is known by his user, not by an address.
    assert!(gate.cli(["healthcheck"]).status.success());
}

#[tokio::test]
async fn a_draining_gateway_is_alive_and_not_ready() {
    let stop = Arc::<AtomicBool>::default();
    let until = Arc::clone(&stop);
    let upstream = Upstream::scripted(move |mut session| {
        session.head();
        session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
        wait_until(raw::LIMIT, || until.load(Ordering::SeqCst));
        session.send(b"cd");
    });
    let mut gate = Gate::start("", upstream.address);
    assert_eq!(gate.cli(["healthcheck"]).status.code(), Some(0));
    let mut stream = gate.connect().await;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let mut first = [0; 16];
    stream.read_exact(&mut first).await.unwrap();
    gate.signal("TERM");
    let unready = || gate.admin("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 503"));
    assert!(wait_until(raw::LIMIT, unready));
    assert!(gate.admin("/livez").unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(gate.cli(["healthcheck"]).status.code(), Some(1));
    let status = gate.cli(["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("not ready"), "{status:?}");
    stop.store(true, Ordering::SeqCst);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"abcd"), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
    assert_eq!(gate.cli(["healthcheck"]).status.code(), Some(1));
}

/// The access log's lines once this many are there.
fn lines(gate: &Gate, count: usize) -> Vec<Value> {
    assert!(wait_until(raw::LIMIT, || gate.log().lines().count() >= count), "{}", gate.log());
    let log = gate.log();
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

#[tokio::test]
async fn each_request_is_one_line_that_says_what_became_of_it() {
    let upstream = application();
    let gate = Gate::start(SITE, upstream.address);
    let agent = "User-Agent: a\"b\\c\u{e9}\td\u{1F980}\r\nReferer: https://files.test/x\r\n";
    let first = gate.ask("GET /one?q=1", agent, b"").await;
    gate.ask("GET /metrics", "X-Forwarded-For: 192.0.2.1\r\n", b"").await;
    gate.ask("GET /gone", "", b"").await;
    gate.ask("POST /api/assets", "", b"12345").await;
    gate.ask("GET /%00", "", b"").await;
    gate.ask("POST /api/auth/login", "", b"{}").await;
    gate.ask("GET /watched", "", b"").await;
    gate.ask("GET /watched", "", b"").await;
    assert!(gate.cli_with(["block", "token", "-"], TOKEN).status.success());
    gate.ask("GET /api/assets", &format!("Authorization: Bearer {TOKEN}\r\n"), b"").await;
    let log = lines(&gate, 9);
    assert_eq!(log.len(), 9, "{log:#?}");
    assert!(gate.log().bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{}", gate.log());
    let one = |path: &str| {
        let mut found = log.iter().filter(|line| line["path"] == path);
        found.next().unwrap_or_else(|| panic!("{path} is not in {log:#?}"))
    };
    let line = one("/one?q=1");
    assert_eq!(line["id"], first.header("x-request-id").unwrap());
    assert!(line["time"].as_str().unwrap().ends_with('Z'));
    for (field, value) in [
        ("client", "127.0.0.1"),
        ("site", HOST),
        ("class", "page"),
        ("method", "GET"),
        ("verdict", "permit"),
        ("referer", "https://files.test/x"),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert_eq!((&line["status"], &line["bytes_out"]), (&Value::from(200), &Value::from(2)));
    assert!(line["duration_ms"].is_number() && line["upstream_ms"].is_number());
    let denied = one("/metrics");
    assert_eq!(
        (&denied["verdict"], &denied["guard"], &denied["reason"]),
        (&"deny".into(), &"allowlist".into(), &"not_allowlisted".into())
    );
    assert_eq!((&denied["client"], &denied["upstream_ms"]), (&"unknown".into(), &Value::Null));
    assert!(one("/gone")["cause"].as_str().unwrap().contains("no connection to the upstream"));
    assert_eq!(one("/api/assets")["bytes_in"], 5);
    let malformed = log.iter().find(|line| line["verdict"] == "malformed").unwrap();
    assert_eq!((&malformed["reason"], &malformed["status"]), (&"path".into(), &400.into()));
    assert!(log.iter().any(|line| line["verdict"] == "would_deny" && line["guard"] == "rate"));
    let blocked = log.iter().find(|line| line["reason"] == "token_blocked").unwrap();
    assert_eq!(blocked["status"], 401);
    assert_eq!(blocked["token"].as_str().unwrap().len(), 12);
}

#[tokio::test]
async fn no_planted_secret_is_in_any_log_metric_or_listing() {
    for format in ["json", "combined"] {
        plant_secrets(format).await;
    }
}

#[expect(clippy::too_many_lines, reason = "a table of carriers")]
async fn plant_secrets(format: &str) {
    let upstream = Upstream::answering(
        b"HTTP/1.1 302 Found\r\nLocation: /after?token=SECRETlocation&x=1#access_token=SECRETfragment\r\n\
          Set-Cookie: session=SECRETsetcookie\r\nContent-Length: 21\r\n\r\n{\"token\":\"SECRETbody\"}",
    );
    // A second site, whose links the first one's referers name.
    let other = format!(
        "[log]\nformat = \"{format}\"\n[[site]]\nhosts = [\"other.test\"]\napp = \"generic\"\nupstream = \"http://127.0.0.1:1\"\n\
         [[site.route]]\nmatch = \"/given/{{token}}\"\nclass = \"share\"\n"
    );
    let gate = Gate::start(&format!("{SITE}{other}"), upstream.address);
    let token = "eyJTRUNSRVQiOiI3In0.U0VDUkVUc2ln";
    let headers = format!(
        "Authorization: Bearer {token}\r\nCookie: session=SECRETcookie; other=SECRETother\r\n\
         Referer: https://SECRETuser:SECRETpass@files.test/s/SECRETshare?token=SECRETreferer\r\n"
    );
    let basic = "Authorization: Basic U0VDUkVUOlNFQ1JFVA==\r\nProxy-Authorization: Basic SECRETproxy\r\n";
    let body = b"{\"username\":\"demo\",\"password\":\"SECRETpassword\"}";
    let rounds = [
        ("GET /s/SECRETshare", &*headers),
        ("GET /s/SECRETshare/file?access_token=SECRETquery&token=SECRET%71uery", &headers),
        ("GET //s/./SECRETshare;x=1/", &headers),
        ("POST /api/auth/login?password=SECRETinquery", &headers),
        ("POST /api/auth/login", basic),
        ("GET /api/assets?jwt=SECRETjwt", "Sec-WebSocket-Protocol: bearer, SECRETprotocol\r\n"),
        ("GET /gone?key=SECRETkey", &headers),
        ("GET /s/SECRETshare%00", &headers),
        ("GET /metrics?token=SECRETquery", "X-Forwarded-For: SECRETforwarded\r\n"),
        ("GET /s/SECRETshare", "Transfer-Encoding: SECRETcoding\r\nX-SECRET: SECRETfield\r\n"),
        ("GET /s/SECRETshare HTTP/1.1\r\nBad Field: SECRETfield\r\nX: y", &headers),
        (
            "GET /login?next=%2Fs%2FSECRETshare&code=SECRETcode&state=SECRETstate",
            "Referer: https://other.test/given/SECRETshare\r\n",
        ),
        (
            "GET /x?return=https://a/%3Ftoken%3DSECRETnested",
            "User-Agent: x (eyJTRUNSRVQiOiI3In0.U0VDUkVUc2ln)\r\n",
        ),
        (
            "POST /api/assets",
            "Referer: //SECRETuser@h/?a%5Btoken%5D=SECRETreferer#access_token=SECRETfragment\r\nTE: SECRET\r\n",
        ),
    ];
    for (line, headers) in rounds {
        gate.ask(line, headers, if line.starts_with("POST") { body } else { b"" }).await;
    }
    assert!(gate.cli_with(["block", "token", "-", "--reason", "stolen"], token).status.success());
    assert!(gate.cli_with(["block", "share", "-"], "SECRETshare").status.success());
    for (line, headers) in rounds {
        gate.ask(line, headers, b"").await;
    }
    assert!(gate.cli(["unblock", "1"]).status.success());
    over_http2(&gate, token).await;
    let count = 2 * rounds.len() + 3;
    assert!(wait_until(raw::LIMIT, || gate.log().lines().count() >= count), "{}", gate.log());
    assert!(gate.log().bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{}", gate.log());
    let blocks = gate.cli(["blocks", "--json"]);
    let told = String::from_utf8(blocks.stdout).unwrap();
    let status = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    let audit = fs::read_to_string(gate.state().join("audit.log")).unwrap();
    for (place, text) in [
        ("access log", gate.log()),
        ("process log", gate.errors()),
        ("metrics", gate.admin("/metrics").unwrap()),
        ("audit log", audit),
        ("blocks", told),
        ("status", status),
    ] {
        let lower = text.to_ascii_lowercase();
        for secret in ["secret", "u0vdukvu", "eyjtrunsrv"] {
            let at = lower.find(secret);
            assert_eq!(
                at,
                None,
                "{place}: {}",
                &text[at.unwrap_or(0)..][..80.min(text.len() - at.unwrap_or(0))]
            );
        }
    }
}

/// The same carriers as pseudo headers and compressed fields, and a head that is refused.
async fn over_http2(gate: &Gate, token: &str) {
    let client = Client::connect(gate).await;
    for (method, path, name, value) in [
        ("GET", "/s/SECRETshare/file?token=SECRETquery", "authorization", format!("Bearer {token}")),
        (
            "POST",
            "/cb?code=SECRETcode&state=SECRETstate",
            "referer",
            "https://u:SECRETp@h/s/SECRETshare".into(),
        ),
        ("GET", "/s/SECRETshare%00", "cookie", "session=SECRETcookie".into()),
    ] {
        let (answer, _) = client.open(client.head(method, path).header(name, value), true).await;
        let _ = common::http2::read(answer).await;
    }
}

#[tokio::test]
async fn strangers_add_no_series_however_they_spell_what_they_send() {
    let upstream = application();
    let gate = Gate::start(SITE, upstream.address);
    let series = || {
        let text = gate.admin("/metrics").unwrap();
        let own = text.lines().filter(|line| line.starts_with("portcullis_"));
        own.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>()
    };
    let ca = gate.ca();
    let flood = async |word: String| {
        for (line, headers) in [
            (format!("GET /{word}"), String::new()),
            (format!("{word} /"), String::new()),
            (format!("GET /?{word}={word}"), format!("X-{word}: {word}\r\nUser-Agent: {word}\r\n")),
            (format!("GET /s/{word}"), format!("Authorization: Bearer {word}\r\n")),
            (format!("GET /{word}/../%00"), String::new()),
            (format!("GET http://{word}.test/"), String::new()),
            ("GET /metrics".to_owned(), format!("X-Forwarded-For: {word}\r\n")),
        ] {
            gate.ask(&line, &headers, b"").await;
        }
        let mut stream = gate.connect().await;
        raw::ask(&mut stream, format!("GET / HTTP/1.1\r\nHost: {word}.test\r\n\r\n").as_bytes()).await;
        let strange = raw::trusting(&ca, &["http/1.1"]);
        assert!(raw::tls(gate.https, &format!("{word}.test"), strange).await.is_err());
    };
    flood("Q".into()).await;
    let before = series();
    for number in 0..40 {
        flood(format!("Zz{number}")).await;
    }
    let after = series();
    assert_eq!(after, before, "{:?}", after.difference(&before).collect::<Vec<_>>());
    assert!(!gate.admin("/metrics").unwrap().contains("Zz"));
}

#[tokio::test]
async fn what_belongs_to_no_site_is_counted_as_that() {
    let upstream = application();
    let gate = Gate::start(SITE, upstream.address);
    let mut stream = gate.connect().await;
    let answer = raw::ask(&mut stream, b"GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n").await;
    assert_eq!(answer.status, 421);
    assert_eq!(gate.ask("GET /%00", "", b"").await.status, 400);
    for (words, wanted) in [
        (&["portcullis_requests_total", "site=\"-\"", "class=\"-\"", "status=\"421\""][..], 1.0),
        (&["portcullis_requests_total", "site=\"-\"", "class=\"-\"", "status=\"400\""], 1.0),
        (
            &["portcullis_denials_total", "site=\"-\"", "class=\"-\"", "guard=\"host\"", "\"misdirected\""],
            1.0,
        ),
        (&["portcullis_request_duration_seconds_count", "site=\"-\""], 2.0),
    ] {
        assert_sum(&gate, words, wanted);
    }
}

#[tokio::test]
async fn the_combined_format_is_what_log_readers_expect() {
    let upstream = application();
    let gate = Gate::start("[log]\nformat = \"combined\"\n", upstream.address);
    gate.ask("GET /s/abcdef?token=x", "User-Agent: curl \"8\"\r\nReferer: https://a.test/\r\n", b"").await;
    assert!(wait_until(raw::LIMIT, || gate.log().ends_with('\n')));
    let log = gate.log();
    let line = log.trim_end();
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(
        line.contains(" +0000] \"GET /s/***?token=*** HTTP/1.1\" 200 2 \"https://a.test/\" \"curl "),
        "{line}"
    );
    assert_eq!(line.matches('"').count(), 6, "{line}");
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_why_and_cannot_be_forged() {
    let upstream = application();
    let gate = Gate::start("", upstream.address);
    let reason = "laptop lost\n{\"action\":\"forged\"}";
    assert!(gate.cli(["block", "subject", "42", "--reason", reason]).status.success());
    assert!(gate.cli(["unblock", "1"]).status.success());
    assert!(gate.cli(["reload"]).status.success());
    fs::write(gate.config(), "[listen").unwrap();
    gate.signal("HUP");
    let path = gate.state().join("audit.log");
    let whole = || fs::read_to_string(&path).unwrap().lines().count() >= 4;
    assert!(wait_until(Duration::from_secs(5), whole));
    let audit = fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = audit.lines().take(4).map(|line| serde_json::from_str(line).unwrap()).collect();
    let actions: Vec<&str> = lines.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["block", "unblock", "reload", "reload"]);
    assert!(lines[0]["by"].as_str().unwrap().starts_with("uid "));
    assert!(lines[0]["what"].to_string().contains("42") && lines[0].to_string().contains("laptop lost"));
    assert_eq!(lines[2]["outcome"], "done");
    assert!(lines[3]["outcome"].as_str().unwrap().starts_with("refused"));
    for line in &lines {
        assert!(gate.errors().contains(line["time"].as_str().unwrap()), "not in the process log: {line}");
    }
}
