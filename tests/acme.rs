//! Certificates by themselves, from a real authority (pebble): all ways to show that a host is ours, renewal, and what
//! becomes of an authority that fails or lies.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]
#![allow(clippy::print_stdout, reason = "measured figures are shown")]

mod common;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::authority::{Exchange, Front, Options, Pebble, text_of};
use common::gate::Gate;
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_until, wait_until_async};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nonces are refused now and then, as a real authority may, and what was shown once counts no second time. Three in a row end
/// an order, which is then tried again: at one in ten that is rare.
const ROUGH: [(&str, &str); 2] = [("PEBBLE_WFE_NONCEREJECT", "10"), ("PEBBLE_AUTHZREUSE", "0")];
/// For what comes in seconds, on a machine that is busy. More than the gateway's patience with one request: pebble knows a way
/// to lock itself up in an order (its issue 554), after which another is begun.
const LIMIT: Duration = Duration::from_secs(60);

fn rough() -> Options {
    Options { environment: ROUGH.to_vec(), ..Options::default() }
}

/// `curl` that trusts nothing but the authority's root.
fn green(address: SocketAddr, host: &str, root: &Path) -> bool {
    let (resolve, url) =
        (format!("{host}:{}:127.0.0.1", address.port()), format!("https://{host}:{}/", address.port()));
    let status = Command::new("curl")
        .args(["-sSf", "--max-time", "10", "-o", "/dev/null", "--resolve", &resolve, "--cacert"])
        .arg(root)
        .arg(url)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    status.success()
}

fn becomes_green(gate: &Gate, pebble: &Pebble, hosts: &[&str]) {
    let all = || hosts.iter().all(|host| green(gate.https, host, &pebble.root()));
    assert!(wait_until(LIMIT, all), "{}\n{}", gate.errors(), pebble.log());
}

/// What `status` says of a host's certificate.
fn shown(gate: &Gate, host: &str) -> Value {
    let answer: Value = serde_json::from_slice(&gate.cli(["status", "--json"]).stdout).unwrap();
    let all = answer["status"]["certificates"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["host"] == host).unwrap_or_default()
}

#[test]
fn a_certificate_comes_by_itself_and_curl_is_content_without_a_restart() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options::default());
    let begun = Instant::now();
    let gate = pebble.config("").start(upstream.address);
    let ready = begun.elapsed();
    becomes_green(&gate, &pebble, &[HOST]);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}, ready after {ready:?}");
    println!("ready after {ready:?}, the first certificate after {took:?}");
    let one = shown(&gate, HOST);
    assert_eq!((&one["from"], &one["problem"]), (&"acme".into(), &Value::Null), "{one}");
    assert!(one["days_left"].as_i64().unwrap() > 300, "{one}");
    let text = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(text.contains("files.test by acme") && text.contains("days left"), "{text}");
    assert!(gate.errors().contains("a new certificate for files.test is in service"), "{}", gate.errors());
    let series = "portcullis_certificate_expiry_timestamp_seconds{host=\"files.test\"}";
    let end = gate.metric(series).unwrap() * 1000.0;
    assert_eq!(end, one["not_after"].as_f64().unwrap());
}

/// Every file below a directory.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// A server that takes connections and never says a word; how many it holds.
fn stalled() -> (SocketAddr, Arc<Mutex<Vec<std::net::TcpStream>>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let held = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&held);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            taken.lock().unwrap().push(stream.unwrap());
        }
    });
    (address, held)
}

const EXPIRY: &str = "portcullis_certificate_expiry_timestamp_seconds{host=\"files.test\"}";

#[test]
fn a_start_waits_for_no_authority_and_a_missing_certificate_is_no_healthy_one() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::reserve();
    let (silent, held) = stalled();
    let gate = pebble.config_by(silent, "").start(upstream.address);
    assert!(wait_until(LIMIT, || !held.lock().unwrap().is_empty()), "the authority was never asked");
    assert_eq!(raw_status(&gate), 200, "served while the authority says nothing");
    let one = shown(&gate, HOST);
    assert_eq!(
        (&one["from"], &one["problem"], &one["next"]),
        (&"throw-away".into(), &Value::Null, &Value::Null)
    );
    assert_eq!(gate.metric(EXPIRY), Some(0.0), "the throw-away one is none to be content with");
    drop(gate);
    // Nobody listens where this pebble will never run.
    let gate = pebble.config("").start(upstream.address);
    let problem = || shown(&gate, HOST)["problem"].as_str().unwrap_or_default().to_owned();
    assert!(wait_until(LIMIT, || problem().contains("no connection")), "{}", gate.errors());
    assert_eq!(raw_status(&gate), 200);
    assert_eq!(gate.metric(EXPIRY), Some(0.0));
    let text = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(text.contains("no certificate yet but a throw-away one"), "{text}");
}

fn http(address: SocketAddr, host: &str, path: &str) -> String {
    let url = format!("http://{address}{path}");
    let header = format!("Host: {host}");
    let output =
        Command::new("curl").args(["-s", "-i", "--max-time", "5", "-H", &header, &url]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn http_01_answers_known_tokens_only_and_covers_every_host_of_a_site() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&rough());
    let mut config = pebble.config("challenges = [\"http-01\"]");
    config.site = "redirect_hosts = [\"www.files.test\"]".into();
    let gate = config.start(upstream.address);
    becomes_green(&gate, &pebble, &[HOST]);
    // A host that is only redirected has one too: without it its visitors would never be redirected.
    assert!(wait_until(LIMIT, || shown(&gate, "www.files.test")["from"] == "acme"), "{}", gate.errors());
    for (host, path) in
        [(HOST, "/.well-known/acme-challenge/unknown"), (HOST, "/.well-known/acme-challenge/")]
    {
        let answer = http(gate.http, host, path);
        assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    }
    let stranger = http(gate.http, "evil.test", "/.well-known/acme-challenge/unknown");
    assert!(stranger.starts_with("HTTP/1.1 421"), "{stranger}");
    assert!(upstream.bytes().is_empty() || !String::from_utf8_lossy(&upstream.bytes()).contains("acme"));
    let files = files_below(&gate.state().join("acme"));
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700), "{file:?}");
    }
}

/// Trusts everybody: what is shown is looked at, not believed.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn carefree(alpn: &[&str]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// What a client sees that asks for `acme-tls/1` and nothing else.
async fn challenge_seen(address: SocketAddr) -> Option<(CertificateDer<'static>, Vec<u8>)> {
    let mut config = carefree(&["acme-tls/1"]);
    config.resumption = rustls::client::Resumption::disabled();
    let mut stream = raw::tls(address, HOST, config).await.ok()?;
    let leaf = stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned();
    let mut read = Vec::new();
    let _ = stream.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await;
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut read)).await.ok()?;
    Some((leaf, read))
}

#[tokio::test]
async fn a_handshake_for_a_challenge_gets_its_certificate_and_nothing_else() {
    let upstream = Upstream::answering(OK);
    // The authority takes its time to look: long enough for us to look too.
    let environment = vec![("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "3")];
    let pebble = Pebble::start(&Options { environment, ..Options::default() });
    let gate = pebble.config("challenges = [\"tls-alpn-01\"]").start(upstream.address);
    let mut seen = None;
    assert!(
        wait_until_async(LIMIT, async || {
            seen = challenge_seen(gate.https).await;
            seen.is_some()
        })
        .await,
        "{}",
        gate.errors()
    );
    let (leaf, read) = seen.unwrap();
    assert!(read.is_empty(), "served {:?}", String::from_utf8_lossy(&read));
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let acme = parsed.extensions().iter().find(|one| one.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
    assert!(acme.critical);
    // Everybody else is shown the other one, in the same moment.
    let mut both = raw::tls(gate.https, HOST, carefree(&["acme-tls/1", "http/1.1"])).await.unwrap();
    assert_ne!(both.get_ref().1.peer_certificates().unwrap()[0].as_ref(), leaf.as_ref());
    assert_eq!(
        raw::ask(&mut both, format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.status,
        200
    );
    assert!(wait_until(LIMIT, || green(gate.https, HOST, &pebble.root())), "{}", gate.errors());
    assert!(challenge_seen(gate.https).await.is_none(), "the challenge is over");
}

/// A program that puts records into pebble's DNS and writes down how it was called.
fn hook(pebble: &Pebble, dir: &Path) -> String {
    let script = dir.join("dns-record");
    let (names, log) = (pebble.names(), dir.join("calls"));
    let text = format!(
        "#!/bin/bash\nset -eu\n[ \"$1 $2\" = \"first second\" ]\necho \"$3 $4 $5 env $(env | sort | tr '\\n' ' ')\" >> {log}\n\
         case $3 in\n\
         present) curl -sSf -d \"{{\\\"host\\\":\\\"$ACME_NAME.\\\",\\\"value\\\":\\\"$5\\\"}}\" http://{names}/set-txt;;\n\
         cleanup) curl -sSf -d \"{{\\\"host\\\":\\\"$4.\\\"}}\" http://{names}/clear-txt;;\n\
         *) exit 1;;\nesac\n",
        log = log.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    format!("dns_command = [\"{}\", \"first\", \"second\"]", script.display())
}

#[test]
fn dns_01_by_a_command_gives_a_wildcard_and_the_command_learns_no_secret() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&rough());
    let dir = tempfile::tempdir().unwrap();
    let mut config = pebble.config(&hook(&pebble, dir.path()));
    config.site = format!(
        "[[site]]\nhosts = [\"*.wild.test\"]\napp = \"keepstack\"\nupstream = \"http://{}\"",
        upstream.address
    );
    config.environment = vec![("SECRET_OF_OURS", "hush".into())];
    let gate = config.start(upstream.address);
    becomes_green(&gate, &pebble, &["any.wild.test", HOST]);
    let calls = text_of(&dir.path().join("calls"));
    let lines: Vec<&str> = calls.lines().collect();
    // Each order's own pair: where too many nonces in a row are refused there is another order.
    assert!(!lines.is_empty() && lines.len().is_multiple_of(2), "{calls}");
    for (line, action) in lines.iter().zip(["present", "cleanup"].into_iter().cycle()) {
        // Only the wildcard needs it.
        assert!(line.starts_with(&format!("{action} _acme-challenge.wild.test ")), "{line}");
        assert!(
            line.contains(&format!("ACME_ACTION={action} ACME_NAME=_acme-challenge.wild.test ACME_VALUE="))
        );
        assert!(!line.contains("hush") && !line.contains("PORTCULLIS"), "{line}");
    }
}

#[test]
fn a_dns_command_that_hangs_is_killed_with_all_that_it_began() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options::default());
    let dir = tempfile::tempdir().unwrap();
    let (script, pids) = (dir.path().join("hang"), dir.path().join("pids"));
    let calls = dir.path().join("calls");
    program(
        &script,
        &format!(
            "echo $1 $2 $3 >> {}\n[ $1 = cleanup ] && exit\nsleep 90 &\necho $$ $! > {}\nwait",
            calls.display(),
            pids.display()
        ),
    );
    let more =
        format!("challenges = [\"dns-01\"]\ndns_command = [\"{}\"]\ndns_timeout = \"1s\"", script.display());
    let gate = pebble.config(&more).start(upstream.address);
    let problem = || shown(&gate, HOST)["problem"].as_str().unwrap_or_default().to_owned();
    assert!(wait_until(LIMIT, || problem().contains("was killed")), "{}", gate.errors());
    for pid in text_of(&pids).split_whitespace() {
        let alive = || {
            let stat = text_of(Path::new(&format!("/proc/{pid}/stat")));
            !stat.is_empty() && !stat.contains(") Z ")
        };
        assert!(wait_until(Duration::from_secs(5), || !alive()), "{pid} lives");
    }
    assert_eq!(raw_status(&gate), 200, "the gateway serves on");
    // Nobody knows how far it had come.
    assert_eq!(actions(&calls), ["present", "cleanup"]);
}

/// A script that is run.
fn program(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/bash\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

/// The first word of each line.
fn actions(calls: &Path) -> Vec<String> {
    text_of(calls).lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_dns_command_is_told_to_clean_up_whatever_became_of_the_order_and_what_it_cannot_is_said() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options::default());
    let dir = tempfile::tempdir().unwrap();
    let (script, calls) = (dir.path().join("fails"), dir.path().join("calls"));
    let more = format!("challenges = [\"dns-01\"]\ndns_command = [\"{}\"]", script.display());
    let noted = format!("echo $1 $2 $3 >> {}", calls.display());
    program(&script, &format!("{noted}\necho \"no such zone for $1\" >&2\nexit 3"));
    let gate = pebble.config(&more).start(upstream.address);
    let said = |words: &str| wait_until(LIMIT, || gate.errors().contains(words));
    assert!(said("no such zone for present"), "{}", gate.errors());
    assert!(said("no such zone for cleanup"), "{}", gate.errors());
    assert!(said("_acme-challenge.files.test"), "{}", gate.errors());
    assert_eq!(actions(&calls), ["present", "cleanup"]);
    drop(gate);
    // It hangs, and meanwhile the config names another address to write to.
    std::fs::remove_file(&calls).unwrap();
    program(&script, &format!("{noted}\n[ $1 = cleanup ] || sleep 90"));
    let gate = pebble.config(&more).start(upstream.address);
    assert!(wait_until(LIMIT, || actions(&calls) == ["present"]), "{}", gate.errors());
    let text = text_of(&gate.config()).replace("me@files.test", "you@files.test");
    std::fs::write(gate.config(), text).unwrap();
    assert!(wait_until(LIMIT, || actions(&calls).contains(&"cleanup".into())), "{}", gate.errors());
}

#[test]
fn an_order_that_a_kill_has_cut_is_begun_anew_after_the_restart_and_its_record_is_taken_away() {
    let upstream = Upstream::answering(OK);
    let environment = vec![("PEBBLE_VA_NOSLEEP", "0"), ("PEBBLE_VA_SLEEPTIME", "2")];
    let pebble = Pebble::start(&Options { environment, ..Options::default() });
    let dir = tempfile::tempdir().unwrap();
    let more = format!("challenges = [\"dns-01\"]\n{}", hook(&pebble, dir.path()));
    let mut gate = pebble.config(&more).start(upstream.address);
    let calls = dir.path().join("calls");
    assert!(wait_until(LIMIT, || actions(&calls) == ["present"]), "{}", gate.errors());
    gate.kill();
    gate.start_again();
    becomes_green(&gate, &pebble, &[HOST]);
    assert_eq!(actions(&calls), ["present", "cleanup", "present", "cleanup"]);
    let values: Vec<_> =
        text_of(&calls).lines().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect();
    assert_eq!((&values[0], &values[2]), (&values[1], &values[3]));
}

#[test]
fn dns_commands_that_hang_keep_no_other_host_from_its_certificate() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options::default());
    let dir = tempfile::tempdir().unwrap();
    let (script, calls) = (dir.path().join("hangs"), dir.path().join("calls"));
    program(&script, &format!("echo $1 $2 $3 >> {}\nsleep 90", calls.display()));
    let mut config = pebble.config(&format!("dns_command = [\"{}\"]", script.display()));
    // More than run at once, and all before the other one by name.
    let wild: Vec<_> = (0..6).map(|number| format!("\"*.a{number}.test\"")).collect();
    config.site = format!(
        "[[site]]\nhosts = [{}]\napp = \"keepstack\"\nupstream = \"http://{}\"",
        wild.join(", "),
        upstream.address
    );
    let gate = config.start(upstream.address);
    becomes_green(&gate, &pebble, &[HOST]);
    assert!(wait_until(LIMIT, || actions(&calls).len() >= 4), "{}", gate.errors());
}

fn raw_status(gate: &Gate) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(gate.ask("GET /", "", b"")).status
}

#[test]
fn a_host_that_cannot_be_shown_is_said_with_what_the_authority_saw_and_remembered_over_a_restart() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&rough());
    // Nobody listens there.
    pebble.lead_names_to("127.0.0.77");
    let mut gate = pebble.config("challenges = [\"http-01\"]").start(upstream.address);
    let problem = |gate: &Gate| shown(gate, HOST)["problem"].as_str().unwrap_or_default().to_owned();
    assert!(wait_until(LIMIT, || problem(&gate).contains("http-01")), "{}", gate.errors());
    let (said, before) = (problem(&gate), shown(&gate, HOST));
    assert!(said.contains("connection"), "{said}");
    let text = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(text.contains("throw-away") && text.contains("tried again") && text.contains(&said), "{text}");
    gate.kill();
    gate.start_again();
    assert_eq!(shown(&gate, HOST)["next"], before["next"], "it waits on");
    assert_eq!(problem(&gate), said);
    // Mended, and said so.
    pebble.lead_names_to("127.0.0.1");
    assert!(gate.cli(["reload"]).status.success());
    becomes_green(&gate, &pebble, &[HOST]);
    assert_eq!(shown(&gate, HOST)["problem"], Value::Null);
}

#[test]
fn a_certificate_is_renewed_in_time_and_garbage_in_the_state_is_replaced() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options { lifetime: 6, ..rough() });
    let refused = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&refused);
    let front = Front::start(&pebble, move |exchange| {
        *seen.lock().unwrap() += String::from_utf8_lossy(exchange.answer.body()).matches("badNonce").count();
    });
    let mut gate = pebble.config_by(front.address, "").start(upstream.address);
    becomes_green(&gate, &pebble, &[HOST]);
    let first = shown(&gate, HOST)["not_after"].clone();
    let renewed = || shown(&gate, HOST)["not_after"].as_u64() > first.as_u64();
    assert!(wait_until(LIMIT, renewed), "{}", gate.errors());
    becomes_green(&gate, &pebble, &[HOST]);
    assert!(wait_until(LIMIT, || *refused.lock().unwrap() > 0), "no nonce was refused: {}", pebble.log());
    gate.kill();
    for file in files_below(&gate.state().join("acme")) {
        std::fs::write(file, "garbage \u{0}").unwrap();
    }
    let before = gate.errors().len();
    gate.start_again();
    becomes_green(&gate, &pebble, &[HOST]);
    let said = gate.errors()[before..].to_owned();
    assert!(said.contains("for files.test is of no use") && said.contains("the account in"), "{said}");
}

/// Answers renewal windows in pebble's place; this version has none.
fn renewal_windows(
    exchange: &mut Exchange,
    front: &Mutex<String>,
    window: &Mutex<(&'static str, &'static str)>,
) {
    if exchange.path == "/dir" {
        let mut directory: Value = serde_json::from_slice(exchange.answer.body()).unwrap();
        let order = directory["newOrder"].as_str().unwrap().to_owned();
        *front.lock().unwrap() = order.clone();
        directory["renewalInfo"] = order.replace("/order-plz", "/renewal").into();
        exchange.say(200, directory.to_string());
    }
    if exchange.path.starts_with("/renewal/") {
        let (start, end) = *window.lock().unwrap();
        let json = serde_json::json!({ "suggestedWindow": { "start": start, "end": end } });
        exchange.say(200, json.to_string());
        exchange.answer.headers_mut().insert("retry-after", "21600".parse().unwrap());
    }
}

#[test]
fn a_revoked_certificate_is_replaced_when_the_authority_says_so_and_not_for_ever() {
    const LATER: (&str, &str) = ("2099-01-01T00:00:00Z", "2099-02-01T00:00:00Z");
    const NOW: (&str, &str) = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options::default());
    let (window, replaced) = (Arc::new(Mutex::new(LATER)), Arc::new(Mutex::new(Vec::new())));
    let (seen, orders) = (Arc::clone(&window), Arc::clone(&replaced));
    let base = Mutex::new(String::new());
    let front = Front::start(&pebble, move |exchange| {
        renewal_windows(exchange, &base, &seen);
        // One whose nonce was refused comes again, and is no order.
        if exchange.path == "/order-plz" && exchange.answer.status() == 201 {
            assert_eq!(exchange.payload()["profile"], "shortlived");
            let replaces = exchange.payload()["replaces"].as_str().map(str::to_owned);
            orders.lock().unwrap().push(replaces.clone());
            if let Some(replaces) = replaces {
                let mut order: Value = serde_json::from_slice(exchange.answer.body()).unwrap();
                order["replaces"] = replaces.into();
                exchange.say(201, order.to_string());
            }
        }
    });
    let mut gate = pebble.config_by(front.address, "profile = \"shortlived\"").start(upstream.address);
    becomes_green(&gate, &pebble, &[HOST]);
    gate.kill();
    assert_eq!(*replaced.lock().unwrap(), [None]);
    *window.lock().unwrap() = NOW;
    // Asked again every few hours; here the hour is now.
    for file in files_below(&gate.state().join("acme")) {
        if file.ends_with("files.test.json") {
            std::fs::remove_file(file).unwrap();
        }
    }
    gate.start_again();
    let orders = || replaced.lock().unwrap().clone();
    assert!(wait_until(LIMIT, || orders().len() == 2), "{}", gate.errors());
    let id = orders()[1].clone().expect("the order says which certificate it replaces");
    assert!(id.split('.').count() == 2, "{id}");
    let news = || gate.errors().matches("a new certificate").count();
    assert!(wait_until(LIMIT, || news() == 2), "{}", gate.errors());
    // It says so of the new one as well, and is not followed a second time.
    assert!(!wait_until(Duration::from_secs(2), || orders().len() > 2), "it is renewed for ever");
}

#[test]
fn an_authority_in_trouble_is_nobodys_failure_and_what_it_asks_for_holds_over_restarts_and_reloads() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&rough());
    let orders = Arc::new(Mutex::new(0));
    let asked = Arc::clone(&orders);
    let front = Front::start(&pebble, move |exchange| {
        if exchange.path == "/order-plz" {
            *asked.lock().unwrap() += 1;
            exchange.say(503, "<html><h1>Down for maintenance</h1></html>");
            exchange.answer.headers_mut().insert("retry-after", "7200".parse().unwrap());
        }
    });
    let orders = || *orders.lock().unwrap();
    let mut config = pebble.config_by(front.address, "");
    config.site = "redirect_hosts = [\"www.files.test\"]".into();
    let mut gate = config.start(upstream.address);
    let next = |gate: &Gate, host: &str| shown(gate, host)["next"].as_u64();
    let begun = next_of_now();
    let waits = |gate: &Gate| {
        let both = [HOST, "www.files.test"].map(|host| next(gate, host));
        both.iter().all(|next| next.is_some_and(|next| next > begun + 7_000_000)).then_some(both)
    };
    assert!(wait_until(LIMIT, || waits(&gate).is_some()), "{}", gate.errors());
    let (before, tried) = (waits(&gate), orders());
    let problem = shown(&gate, HOST)["problem"].as_str().unwrap_or_default().to_owned();
    assert!(problem.contains("503"), "{problem}");
    gate.kill();
    gate.start_again();
    assert_eq!(waits(&gate), before, "{}", gate.errors());
    for file in
        files_below(&gate.state().join("acme")).iter().filter(|file| file.ends_with("files.test.json"))
    {
        let record: Value = serde_json::from_str(&text_of(file)).unwrap();
        assert_eq!(record["failures"], 0, "no host is to blame: {file:?}");
    }
    // A reload is believed to come after mending; not twice in an hour.
    assert!(gate.cli(["reload"]).status.success());
    assert!(wait_until(LIMIT, || orders() > tried), "{}", gate.errors());
    assert!(wait_until(LIMIT, || waits(&gate).is_some()), "{}", gate.errors());
    let tried = orders();
    assert!(gate.cli(["reload"]).status.success());
    assert!(waits(&gate).is_some(), "nothing is under way");
    assert_eq!(orders(), tried);
}

fn next_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

#[test]
fn an_order_goes_without_saying_what_it_replaces_only_where_that_is_refused() {
    const NOW: (&str, &str) = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    const OTHER: &str = "www.files.test";
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options::default());
    let (window, base) = (Mutex::new(NOW), Mutex::new(String::new()));
    let orders = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&orders);
    let front = Front::start(&pebble, move |exchange| {
        renewal_windows(exchange, &base, &window);
        if exchange.path != "/order-plz" || exchange.answer.status() != 201 {
            return;
        }
        let payload = exchange.payload();
        let host = payload["identifiers"][0]["value"].as_str().unwrap().to_owned();
        let replaces = payload["replaces"].is_string();
        seen.lock().unwrap().push((host.clone(), replaces));
        if replaces && host == HOST {
            exchange.say(409, problem_of("alreadyReplaced"));
        } else if replaces {
            exchange.say(429, problem_of("rateLimited"));
            exchange.answer.headers_mut().insert("retry-after", "7200".parse().unwrap());
        }
    });
    let mut config = pebble.config_by(front.address, "");
    config.site = format!("redirect_hosts = [\"{OTHER}\"]");
    let gate = config.start(upstream.address);
    let news = || gate.errors().matches("a new certificate").count();
    assert!(wait_until(LIMIT, || news() == 3), "{}", gate.errors());
    let problem = || shown(&gate, OTHER)["problem"].as_str().unwrap_or_default().to_owned();
    assert!(wait_until(LIMIT, || problem().contains("rateLimited")), "{}", gate.errors());
    let of = |host: &str| -> Vec<bool> {
        orders.lock().unwrap().iter().filter(|one| one.0 == host).map(|one| one.1).collect()
    };
    assert_eq!((of(HOST), of(OTHER)), (vec![false, true, false], vec![false, true]));
    // Who was told to wait waits, and nobody else.
    let next = |host: &str| shown(&gate, host)["next"].as_u64().unwrap_or(0);
    assert!(next(OTHER) >= next_of_now() + 7_000_000, "{}", shown(&gate, OTHER));
    assert_eq!(shown(&gate, HOST)["problem"], Value::Null);
}

fn problem_of(kind: &str) -> String {
    serde_json::json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no" }).to_string()
}

#[test]
fn another_ca_in_the_file_that_vouches_for_the_authority_counts_without_a_restart() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&rough());
    let gate = pebble.config("").start(upstream.address);
    becomes_green(&gate, &pebble, &[HOST]);
    // An account is open, by TLS that trusted what the file held before.
    let right = text_of(&pebble.api_ca());
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let wrong = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    std::fs::write(pebble.api_ca(), wrong).unwrap();
    let text = text_of(&gate.config()) + "redirect_hosts = [\"www.files.test\"]\n";
    std::fs::write(gate.config(), text).unwrap();
    let problem = || shown(&gate, "www.files.test")["problem"].as_str().unwrap_or_default().to_owned();
    assert!(wait_until(LIMIT, || problem().contains("TLS")), "{}", gate.errors());
    assert_eq!(shown(&gate, HOST)["problem"], Value::Null, "this one has what it wants");
    std::fs::write(pebble.api_ca(), right).unwrap();
    let has_come = || shown(&gate, "www.files.test")["from"] == "acme";
    assert!(
        wait_until(LIMIT, has_come),
        "{}\n{}\n{}",
        shown(&gate, "www.files.test"),
        gate.errors(),
        pebble.log()
    );
}

const LIES: [(&str, &str); 5] = [
    ("wrong.test", "is not for `wrong.test`"),
    ("key.test", "do not go together"),
    ("old.test", "has expired"),
    ("garbage.test", "no certificates in PEM"),
    ("big.test", "larger than"),
];

/// The key that the gateway has asked for, of which only the public half is known here.
struct Public(Vec<u8>);

impl rcgen::PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// A certificate of somebody else's, in place of what pebble gave for these hosts.
fn lie(exchange: &mut Exchange) {
    if !exchange.path.starts_with("/certZ/") {
        return;
    }
    let Ok(leaf) = CertificateDer::from_pem_slice(exchange.answer.body()) else { return };
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.clone();
    let host = names[0].to_string();
    let Some((host, _)) = LIES.iter().find(|(name, _)| host.contains(name)) else { return };
    let public = Public(parsed.public_key().subject_public_key.data.to_vec());
    let issuer = rcgen::Issuer::new(rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap());
    let sign = |name: &str, change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        params.signed_by(&public, &issuer).unwrap().pem()
    };
    let text = match *host {
        "wrong.test" => sign("bank.test", &|_| {}),
        "key.test" => {
            let params = rcgen::CertificateParams::new(["key.test".to_owned()]).unwrap();
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        }
        "old.test" => sign("old.test", &|params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 4, 1);
        }),
        "garbage.test" => "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n".into(),
        _ => "A".repeat(10 << 20),
    };
    exchange.say(200, text);
}

#[test]
fn an_authority_that_lies_changes_nothing_and_why_is_said() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options::default());
    let front = Front::start(&pebble, lie);
    let mut config = pebble.config_by(front.address, "");
    let hosts: Vec<String> = LIES.iter().map(|(host, _)| format!("\"{host}\"")).collect();
    config.site = format!("redirect_hosts = [{}]", hosts.join(", "));
    let gate = config.start(upstream.address);
    becomes_green(&gate, &pebble, &[HOST]);
    for (host, why) in LIES {
        let problem = || shown(&gate, host)["problem"].as_str().unwrap_or_default().to_owned();
        // One that sends what is too large to be read is not asked again at once for the others either.
        assert!(
            wait_until(LIMIT, || problem().contains(why)),
            "{host}: {} {}",
            shown(&gate, host),
            gate.errors()
        );
        assert_eq!(shown(&gate, host)["from"], "throw-away", "{host}");
    }
    assert_eq!(shown(&gate, HOST)["from"], "acme");
    assert!(green(gate.https, HOST, &pebble.root()));
}

#[test]
fn an_account_bound_to_another_at_the_authority_is_opened_with_its_key() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&Options { external_key: Some(KEY), ..Options::default() });
    let mut config = pebble.config("eab_kid = \"kid-1\"\neab_key_file = \"eab.key\"");
    config.files = vec![("eab.key", format!("{KEY}\n"))];
    let gate = config.start(upstream.address);
    becomes_green(&gate, &pebble, &[HOST]);
    let unbound = Pebble::start(&Options { external_key: Some(KEY), ..Options::default() });
    let gate = unbound.config("").start(upstream.address);
    let problem = || shown(&gate, HOST)["problem"].as_str().unwrap_or_default().to_owned();
    assert!(wait_until(LIMIT, || problem().contains("name acme.eab_kid")), "{}", gate.errors());
}
