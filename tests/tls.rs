//! TLS as its clients see it: versions, names, key exchange, resumption, and certificates that change.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]
#![allow(clippy::print_stdout, reason = "measured figures are shown")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::gate::{Config, Gate, place};
use common::hand::Hand;
use common::raw::{self, Answer};
use common::upstream::{OK, Upstream};
use common::{HOST, wait_until, wait_until_async};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion};
use tokio_rustls::client::TlsStream;

const OTHER: &str = "photos.test";
/// Another name of that site.
const SECOND: &str = "pictures.test";
const FILES: &str = "certificates = [{ cert = \"full.pem\", key = \"key.pem\" }]";
/// A replaced certificate is served so soon.
const SERVED: Duration = Duration::from_secs(2);

/// A CA of the test's own: what it signs is a real certificate to the gateway.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    dir: tempfile::TempDir,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Pair {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With one name for both OpenSSL takes a leaf for its own issuer.
        params.distinguished_name.push(DnType::CommonName, "CA of the tests");
        let pem = params.self_signed(&key).unwrap().pem();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), &pem).unwrap();
        Self { issuer: Issuer::new(params, key), pem, dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn sign(&self, host: &str) -> Pair {
        self.sign_with(host, |_| {})
    }

    /// The chain, leaf first.
    fn sign_with(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let chain = format!("{}{}", cert.pem(), self.pem);
        Pair { cert: chain, key: key.serialize_pem(), der: cert.der().clone() }
    }

    fn client(&self) -> ClientConfig {
        raw::trusting(&self.file(), &["http/1.1"])
    }

    /// The certificate that a client which comes now is shown.
    async fn shown(&self, gate: &Gate) -> Option<CertificateDer<'static>> {
        let stream = raw::tls(gate.https, HOST, self.client()).await.ok()?;
        Some(stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned())
    }
}

/// A gateway whose one site has a certificate from files.
fn with_files(pair: &Pair, upstream: &Upstream) -> Gate {
    let files = vec![("full.pem", pair.cert.clone()), ("key.pem", pair.key.clone())];
    Config { tls: FILES.into(), files, ..Config::default() }.start(upstream.address)
}

/// Renames new files over the old ones, key first.
fn replace(gate: &Gate, cert: &str, key: &str) {
    let dir = gate.config().parent().unwrap().to_owned();
    place(&dir.join("key.pem"), key);
    place(&dir.join("full.pem"), cert);
}

fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Standard output and success of a command; what it says of failures goes to the output too.
fn run(program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// `openssl s_client` for a host: a handshake, and no more.
fn s_client(address: SocketAddr, host: &str, ca: &Path, more: &[&str]) -> (String, bool) {
    let (address, ca) = (address.to_string(), ca.display().to_string());
    let base = ["s_client", "-connect", &address, "-servername", host, "-verify_hostname", host];
    run("openssl", &[&base, ["-verify_return_error", "-CAfile", &ca].as_slice(), more].concat())
}

/// `curl` for a host, as if DNS named the gateway for it; prints status and HTTP version.
fn curl(address: SocketAddr, host: &str, ca: &Path, more: &[&str]) -> (String, bool) {
    let (resolve, ca) = (format!("{host}:{}:127.0.0.1", address.port()), ca.display().to_string());
    let url = format!("https://{host}:{}/", address.port());
    let told = ["-w", "%{http_code} %{http_version}", "-o", "/dev/null", "-sS", "--max-time", "10"];
    run("curl", &[&told, ["--resolve", &resolve, "--cacert", &ca, &url].as_slice(), more].concat())
}

fn count(gate: &Gate, reason: &str) -> f64 {
    let series = format!("portcullis_tls_handshake_failures_total{{reason=\"{reason}\"}}");
    gate.metric(&series).unwrap_or_default()
}

#[test]
fn curl_and_openssl_speak_tls_1_2_and_1_3() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let (text, done) = s_client(gate.https, HOST, &gate.ca(), &[version, "-alpn", "h2"]);
        assert!(done && text.contains(&format!("New, {name}, Cipher is")), "{text}");
        assert!(text.contains("Verification: OK") && text.contains("ALPN protocol: h2"), "{text}");
    }
    for (version, http) in
        [("1.2", "--http1.1"), ("1.2", "--http2"), ("1.3", "--http1.1"), ("1.3", "--http2")]
    {
        let more = [&format!("--tlsv{version}") as &str, "--tls-max", version, http];
        let expected = if http == "--http2" { "200 2" } else { "200 1.1" };
        assert_eq!(curl(gate.https, HOST, &gate.ca(), &more), (expected.into(), true), "{more:?}");
    }
    for old in ["-tls1_1", "-tls1"] {
        let (text, done) = s_client(gate.https, HOST, &gate.ca(), &[old, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!done && text.contains("alert"), "{text}");
    }
}

#[test]
fn with_min_version_1_3_nobody_gets_in_with_1_2() {
    let upstream = Upstream::answering(OK);
    let tls = "self_signed = true\nmin_version = \"1.3\"".into();
    let gate = Config { tls, ..Config::default() }.start(upstream.address);
    let (text, done) = s_client(gate.https, HOST, &gate.ca(), &["-tls1_2"]);
    assert!(!done && text.contains("protocol version"), "{text}");
    let (text, done) = curl(gate.https, HOST, &gate.ca(), &["--tls-max", "1.2"]);
    assert!(!done, "{text}");
    assert_eq!(curl(gate.https, HOST, &gate.ca(), &["--tlsv1.3"]), ("200 2".into(), true));
}

#[tokio::test]
async fn a_client_that_can_gets_a_key_exchange_that_outlives_quantum_computers() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let stream = gate.connect().await;
    let session = stream.get_ref().1;
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
    // Who cannot, is served as well.
    let (text, done) = s_client(gate.https, HOST, &gate.ca(), &["-groups", "X25519"]);
    assert!(done && text.contains("Server Temp Key: X25519"), "{text}");
}

#[tokio::test]
async fn alpn_settles_http_2_or_1_1_and_nothing_else() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    for (offered, chosen) in [
        (vec!["h2", "http/1.1"], Some("h2")),
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let stream = raw::tls(gate.https, HOST, raw::trusting(&gate.ca(), &offered)).await.unwrap();
        let alpn = stream.get_ref().1.alpn_protocol();
        assert_eq!(alpn, chosen.map(str::as_bytes), "{offered:?}");
    }
    assert!(raw::tls(gate.https, HOST, raw::trusting(&gate.ca(), &["spdy/1"])).await.is_err());
    let mut silent = raw::tls(gate.https, HOST, raw::trusting(&gate.ca(), &[])).await.unwrap();
    assert_eq!(raw::ask(&mut silent, &request(HOST)).await.status, 200);
}

/// An RSA certificate for the site's host, made by openssl.
fn rsa(dir: &Path) -> (PathBuf, String, String) {
    let (cert, key) = (dir.join("rsa.pem"), dir.join("rsa.key"));
    let names = format!("subjectAltName=DNS:{HOST}");
    let (to, from) = (cert.display().to_string(), key.display().to_string());
    let ask = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=x", "-addext"];
    let (text, done) =
        run("openssl", &[&ask, [&names as &str, "-keyout", &from, "-out", &to].as_slice()].concat());
    assert!(done, "{text}");
    let read = |file: &Path| std::fs::read_to_string(file).unwrap();
    (cert.clone(), read(&cert), read(&key))
}

/// Two sites: the first with an ECDSA and an RSA certificate, the second with one that has several names, a wildcard among them.
fn two_sites(authority: &Authority, listen: &str, upstream: &Upstream) -> Gate {
    let first = authority.sign(HOST);
    let second = authority.sign_with(OTHER, |params| {
        for name in [SECOND, "*.wild.test"] {
            params.subject_alt_names.push(SanType::DnsName(name.try_into().unwrap()));
        }
    });
    let (_, cert, key) = rsa(authority.dir.path());
    let files = vec![
        ("a.pem", first.cert),
        ("a.key", first.key),
        ("rsa.pem", cert),
        ("rsa.key", key),
        ("b.pem", second.cert),
        ("b.key", second.key),
    ];
    let tls = "certificates = [{ cert = \"a.pem\", key = \"a.key\" }, { cert = \"rsa.pem\", key = \"rsa.key\" }, \
               { cert = \"b.pem\", key = \"b.key\" }]";
    let site = format!(
        "[[site]]\nhosts = [\"{OTHER}\", \"{SECOND}\", \"*.wild.test\"]\napp = \"keepstack\"\nupstream = \"http://{}\"",
        upstream.address
    );
    Config { tls: tls.into(), listen: listen.into(), files, site, ..Config::default() }
        .start(upstream.address)
}

#[tokio::test]
async fn each_site_shows_its_own_certificate_and_the_client_chooses_between_ecdsa_and_rsa() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let gate = two_sites(&authority, "", &upstream);
    for host in [HOST, OTHER, SECOND, "a.wild.test", "b.wild.test"] {
        let mut stream = raw::tls(gate.https, host, authority.client()).await.unwrap();
        let answer = raw::ask(&mut stream, &request(host)).await;
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"));
        let upper = host.to_ascii_uppercase();
        assert_eq!(curl(gate.https, &upper, &authority.file(), &[]), ("200 2".into(), true), "{upper}");
    }
    let rsa = authority.dir.path().join("rsa.pem");
    for (ca, sort, more) in [
        (authority.file(), "ECDSA", ["-tls1_3", "-sigalgs", "ECDSA+SHA256"]),
        (rsa.clone(), "RSA-PSS", ["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"]),
        (authority.file(), "ECDSA", ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]),
        (rsa, "RSA-PSS", ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]),
    ] {
        let (text, done) = s_client(gate.https, HOST, &ca, &more);
        assert!(done && text.contains(&format!("Peer signature type: {sort}")), "{more:?}: {text}");
    }
}

#[tokio::test]
async fn a_request_for_another_site_than_tls_was_begun_for_gets_421_and_reaches_nobody() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let gate = two_sites(&authority, "", &upstream);
    for (named, asked) in [(HOST, OTHER), (OTHER, HOST), (HOST, "evil.test"), (HOST, "127.0.0.1")] {
        let mut stream = raw::tls(gate.https, named, authority.client()).await.unwrap();
        assert_eq!(raw::ask(&mut stream, &request(asked)).await.status, 421, "{named} {asked}");
        let host = format!("Host: {asked}");
        let (text, _) = curl(gate.https, named, &authority.file(), &["--http2", "-H", &host]);
        assert_eq!(text, "421 2", "{named} {asked}");
    }
    assert!(upstream.bytes().is_empty());
}

#[tokio::test]
async fn a_handshake_for_no_site_of_ours_is_refused() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let gate = two_sites(&authority, "", &upstream);
    for name in ["evil.test", "x.files.test", "files.test.evil.test", "a.b.wild.test", "wild.test"] {
        let (text, done) = run(
            "curl",
            &[
                "-sSk",
                "--max-time",
                "10",
                "--resolve",
                &format!("{name}:{}:127.0.0.1", gate.https.port()),
                &format!("https://{name}:{}/", gate.https.port()),
            ],
        );
        assert!(!done && text.contains("alert"), "{name}: {text}");
    }
    // With several sites a client that names none means none.
    let mut nameless = authority.client();
    nameless.enable_sni = false;
    assert!(raw::tls(gate.https, HOST, nameless).await.is_err());
    assert!(wait_until(raw::LIMIT, || count(&gate, "unknown_name") == 6.0), "{:?}", gate.admin("/metrics"));
}

/// Head of the answer to whoever trusts anything, over a URL's very words.
fn carefree(url: &str, more: &[&str]) -> (String, bool) {
    run("curl", &[["-sSki", "--max-time", "10", url].as_slice(), more].concat())
}

#[test]
fn with_unknown_sni_421_a_stranger_is_told_so_with_the_whole_header_set() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let gate = two_sites(&authority, "unknown_sni = \"421\"", &upstream);
    let port = gate.https.port();
    let resolve = format!("evil.test:{port}:127.0.0.1");
    for url in [format!("https://evil.test:{port}/"), format!("https://127.0.0.1:{port}/")] {
        for (http, line) in [("--http1.1", "HTTP/1.1 421"), ("--http2", "HTTP/2 421")] {
            let (text, done) = carefree(&url, &[http, "--resolve", &resolve]);
            assert!(done && text.starts_with(line), "{url}: {text}");
            let text = text.to_ascii_lowercase();
            for header in [
                "x-content-type-options: nosniff",
                "x-frame-options: deny",
                "referrer-policy: ",
                "permissions-policy: ",
                "cross-origin-opener-policy: same-origin",
                "cross-origin-resource-policy: same-origin",
                "content-security-policy: default-src 'none'",
                "x-request-id: ",
            ] {
                assert!(text.contains(&format!("\n{header}")), "{header} is not in {text}");
            }
        }
    }
    // Its certificate is for nobody, and a stranger's handshake opens no site.
    let resolve = format!("evil.test:{port}:127.0.0.1");
    let host = format!("Host: {HOST}");
    let (text, _) = carefree(&format!("https://evil.test:{port}/"), &["--resolve", &resolve, "-H", &host]);
    assert!(text.contains(" 421"), "{text}");
    let (text, done) = s_client(gate.https, "evil.test", &authority.file(), &[]);
    assert!(!done && !text.contains(OTHER), "{text}");
    assert!(upstream.bytes().is_empty());
}

#[tokio::test]
async fn one_site_alone_is_reached_by_address_and_without_a_name() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let (text, done) = carefree(&format!("https://{}/", gate.https), &[]);
    assert!(done && text.starts_with("HTTP/2 200"), "{text}");
    let mut nameless = raw::trusting(&gate.ca(), &["http/1.1"]);
    nameless.enable_sni = false;
    let mut stream = raw::tls(gate.https, HOST, nameless).await.expect("the site's certificate");
    assert_eq!(raw::ask(&mut stream, &request(HOST)).await.status, 200);
    assert_eq!(raw::ask(&mut stream, &request("evil.test")).await.status, 421);
}

async fn open(gate: &Gate, config: &ClientConfig) -> (TlsStream<tokio::net::TcpStream>, HandshakeKind) {
    let mut stream = raw::tls(gate.https, HOST, config.clone()).await.unwrap();
    // Tickets come after the handshake.
    assert_eq!(raw::ask(&mut stream, &request(HOST)).await.status, 200);
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    (stream, kind)
}

#[tokio::test]
async fn sessions_are_resumed_also_after_the_certificate_was_replaced() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let gate = with_files(&authority.sign(HOST), &upstream);
    let config = authority.client();
    assert_eq!(open(&gate, &config).await.1, HandshakeKind::Full);
    for _ in 0..4 {
        let (stream, kind) = open(&gate, &config).await;
        assert_eq!(kind, HandshakeKind::Resumed);
        assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
    let second = authority.sign(HOST);
    replace(&gate, &second.cert, &second.key);
    let taken = async || authority.shown(&gate).await.as_ref() == Some(&second.der);
    assert!(wait_until_async(raw::LIMIT, taken).await);
    assert_eq!(open(&gate, &config).await.1, HandshakeKind::Resumed);
}

#[tokio::test]
async fn the_keys_of_session_tickets_change_and_no_ticket_outlives_two_changes_be_it_quiet_or_not() {
    let turns = |count: u64| Duration::from_secs(count * (6 * 3600 + 60));
    let upstream = Upstream::answering(OK);
    let hand = Hand::new();
    let gate = Config { environment: hand.environment(), ..Config::default() }.start(upstream.address);
    let client = || raw::trusting(&gate.ca(), &["http/1.1"]);
    let (first, second, third) = (client(), client(), client());
    for config in [&first, &second] {
        assert_eq!(open(&gate, config).await.1, HandshakeKind::Full);
    }
    hand.set(turns(1));
    assert_eq!(open(&gate, &first).await.1, HandshakeKind::Resumed, "the key of before still opens");
    assert_eq!(open(&gate, &third).await.1, HandshakeKind::Full);
    hand.set(turns(2));
    assert_eq!(open(&gate, &second).await.1, HandshakeKind::Full, "it opens no more, and nothing fails");
    assert_eq!(open(&gate, &second).await.1, HandshakeKind::Resumed);
    // Nobody comes for a while: keys change all the same.
    hand.set(turns(3));
    tokio::time::sleep(Duration::from_secs(4)).await;
    hand.set(turns(4));
    assert_eq!(open(&gate, &third).await.1, HandshakeKind::Full);
    assert_eq!(open(&gate, &second).await.1, HandshakeKind::Full, "of the change before the last");
}

/// A CA of clients that ends in ten days, and its list of revoked certificates, which is to be renewed tomorrow.
fn clients(now: time::OffsetDateTime) -> (String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "agents");
    params.not_after = now + time::Duration::days(10);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let list = CertificateRevocationListParams {
        this_update: now - time::Duration::days(1),
        next_update: now + time::Duration::days(1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&Issuer::new(params, key)).unwrap().pem().unwrap();
    (ca, list)
}

#[test]
fn what_ends_while_the_gateway_runs_is_said_with_the_days_that_are_left() {
    let days = |count: u64| Duration::from_secs(count * 86_400);
    let (upstream, authority, hand) = (Upstream::answering(OK), Authority::new(), Hand::new());
    let now = time::OffsetDateTime::now_utc();
    let pair =
        authority.sign_with(HOST, |params| params.not_after = now + time::Duration::hours(20 * 24 + 12));
    let (ca, list) = clients(now);
    let files =
        vec![("full.pem", pair.cert), ("key.pem", pair.key), ("agents.pem", ca), ("agents.crl", list)];
    let site = "[site.client_certificates]\nmode = \"optional\"\nca_file = \"agents.pem\"\ncrl_file = \"agents.crl\"";
    let (site, environment) = (site.into(), hand.environment());
    let config = Config { tls: FILES.into(), site, files, environment, ..Config::default() };
    let gate = config.clone().start(upstream.address);
    let status = |gate: &Gate| String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    let said = [
        "the certificate of files.test ends in 9 days; put a new one into its files",
        "agents.crl has ended on",
        "the CA `CN=agents` has expired on",
    ];
    for line in said {
        assert!(!status(&gate).contains(line), "{}", status(&gate));
    }
    hand.set(days(11));
    for line in said {
        assert!(status(&gate).contains(line), "{}", status(&gate));
    }
    // The log tells of it when it is looked at, which is done each hour; of a gateway that starts at once.
    let gate = config.start(upstream.address);
    for line in said {
        assert!(wait_until(raw::LIMIT, || gate.errors().contains(line)), "{}", gate.errors());
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_served_within_two_seconds_and_open_connections_go_on() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let first = authority.sign(HOST);
    let gate = with_files(&first, &upstream);
    assert_eq!(authority.shown(&gate).await.as_ref(), Some(&first.der));
    let (mut held, _) = open(&gate, &authority.client()).await;
    for _ in 0..3 {
        let next = authority.sign(HOST);
        replace(&gate, &next.cert, &next.key);
        let since = Instant::now();
        let taken = async || authority.shown(&gate).await.as_ref() == Some(&next.der);
        assert!(wait_until_async(SERVED, taken).await, "not after {:?}: {}", since.elapsed(), gate.errors());
        assert_eq!(raw::ask(&mut held, &request(HOST)).await.status, 200);
    }
}

/// What clients count that come again and again while something is done: requests answered, and whatever else.
fn under_load(gate: &Gate, ca: &Path, act: impl FnOnce()) -> (usize, Vec<String>) {
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for fresh in [true, true, false] {
            let (stop, answered, failed) = (&stop, &answered, &failed);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut held = None;
                    while !stop.load(Ordering::Relaxed) {
                        let mut config = raw::trusting(ca, &["http/1.1"]);
                        config.resumption = rustls::client::Resumption::disabled();
                        let mut stream = match held.take() {
                            Some(stream) => stream,
                            None => match raw::tls(gate.https, HOST, config).await {
                                Ok(stream) => stream,
                                Err(error) => return failed.lock().unwrap().push(error.to_string()),
                            },
                        };
                        match raw::ask(&mut stream, &request(HOST)).await.status {
                            200 => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            other => failed.lock().unwrap().push(other.to_string()),
                        }
                        // The last client stays on one connection for all of it.
                        held = (!fresh).then_some(stream);
                    }
                });
            });
        }
        act();
        stop.store(true, Ordering::Relaxed);
    });
    (answered.into_inner(), failed.into_inner().unwrap())
}

#[tokio::test]
async fn a_hundred_certificates_are_swapped_under_load_and_nothing_fails() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let first = authority.sign(HOST);
    let limits = "connections_per_client = 10000".into();
    let files = vec![("full.pem", first.cert.clone()), ("key.pem", first.key.clone())];
    let gate = Config { tls: FILES.into(), files, limits, ..Config::default() }.start(upstream.address);
    let mut last = first;
    let (answered, failed) = under_load(&gate, &authority.file(), || {
        for _ in 0..100 {
            last = authority.sign(HOST);
            replace(&gate, &last.cert, &last.key);
            let told = gate.cli(["reload"]);
            assert!(told.status.success(), "{told:?}");
        }
    });
    assert_eq!(authority.shown(&gate).await.as_ref(), Some(&last.der));
    assert!(failed.is_empty(), "{failed:?}");
    assert!(answered > 300, "only {answered} requests");
    println!("{answered} requests under 100 swaps, none failed");
}

/// Certificate and key files that do not hold, what is wrong with them, and how that is said.
fn broken(authority: &Authority) -> Vec<(&'static str, String, String, &'static str)> {
    let good = authority.sign(HOST);
    let Pair { cert, key, .. } = good.clone();
    let expired = authority.sign_with(HOST, |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 4, 1);
    });
    let early = authority.sign_with(HOST, |params| params.not_before = date_time_ymd(2090, 1, 1));
    let foreign = authority.sign("evil.test");
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let leaf = cert.len() - authority.pem.len();
    vec![
        ("garbage", "\u{0}\u{1}garbage\n".repeat(100), key.clone(), "holds no certificate"),
        (
            "PEM of garbage",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            key.clone(),
            "holds something that is no X.509 certificate",
        ),
        ("empty", String::new(), key.clone(), "holds no certificate"),
        ("half a leaf", half(&cert[..leaf]), key.clone(), "is damaged or cut short"),
        (
            "half a chain",
            format!("{}{}", &cert[..leaf], half(&authority.pem)),
            key.clone(),
            "is damaged or cut short",
        ),
        ("key that is garbage", cert.clone(), "garbage".into(), "holds no private key"),
        ("half a key", cert.clone(), half(&key), "is damaged or cut short"),
        ("empty key", cert.clone(), String::new(), "holds no private key"),
        ("another key", cert, authority.sign(HOST).key, "does not belong to the certificate"),
        ("expired", expired.cert, expired.key, "has expired on"),
        ("not valid yet", early.cert, early.key, "is not valid before"),
        ("another host", foreign.cert, foreign.key, "`files.test` has no certificate; "),
    ]
}

#[tokio::test]
async fn broken_certificate_files_change_nothing_and_are_named_until_good_ones_come() {
    let upstream = Upstream::answering(OK);
    let authority = Authority::new();
    let mut served = authority.sign(HOST);
    let gate = with_files(&served, &upstream);
    let successful = || gate.metric("portcullis_config_last_reload_successful");
    for (what, cert, key, why) in broken(&authority) {
        replace(&gate, &cert, &key);
        assert!(wait_until(raw::LIMIT, || successful() == Some(0.0)), "{what}: {}", gate.errors());
        assert_eq!(authority.shown(&gate).await.as_ref(), Some(&served.der), "{what}");
        let status = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
        let file = if what.contains("key") { "key.pem" } else { "full.pem" };
        assert!(status.contains(file) && status.contains(why), "{what}: {why:?} is not in {status}");
        let told = gate.cli(["reload"]);
        assert_eq!(told.status.code(), Some(3), "{what}: {told:?}");

        served = authority.sign(HOST);
        replace(&gate, &served.cert, &served.key);
        let taken = async || authority.shown(&gate).await.as_ref() == Some(&served.der);
        assert!(wait_until_async(raw::LIMIT, taken).await, "after {what}: {}", gate.errors());
        assert!(wait_until(raw::LIMIT, || successful() == Some(1.0)), "after {what}");
    }
}

/// Reads until the peer ends the connection; how long that took since `from`.
fn until_ended(stream: &mut TcpStream, from: Instant) -> Duration {
    stream.set_read_timeout(Some(raw::LIMIT)).unwrap();
    let ended = stream.read_to_end(&mut Vec::new());
    // A reset, where the gateway has not read all, is an end too.
    let idle = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(!ended.is_err_and(|error| idle(&error)), "not ended after {:?}", from.elapsed());
    from.elapsed()
}

#[test]
fn a_stalled_handshake_is_dropped_at_the_deadline_whether_it_dribbles_or_not() {
    let upstream = Upstream::answering(OK);
    let gate = Config { limits: "head_timeout = \"1s\"".into(), ..Config::default() }.start(upstream.address);
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 100]].concat();
    for sent in [&[][..], &hello[..1], &hello[..5], &hello] {
        let (mut stream, from) = (TcpStream::connect(gate.https).unwrap(), Instant::now());
        stream.write_all(sent).unwrap();
        let took = until_ended(&mut stream, from);
        assert!((0.8..6.0).contains(&took.as_secs_f64()), "{} bytes: {took:?}", sent.len());
    }
    let (mut stream, from) = (TcpStream::connect(gate.https).unwrap(), Instant::now());
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let ended = hello.iter().any(|byte| {
        let idle =
            |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        stream.write_all(&[*byte]).is_err()
            || !matches!(stream.read(&mut [0; 8]), Err(ref error) if idle(error))
    });
    assert!(ended && from.elapsed() < Duration::from_secs(6), "dribbled on for {:?}", from.elapsed());
    assert!(wait_until(raw::LIMIT, || count(&gate, "timeout") == 5.0), "{}", count(&gate, "timeout"));
    assert_eq!(curl(gate.https, HOST, &gate.ca(), &[]), ("200 2".into(), true));
}

#[tokio::test]
async fn the_http_listener_sends_known_hosts_to_https_and_tells_others_421() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("redirect_hosts = [\"www.files.test\"]", upstream.address);
    let ask = async |head: &str| -> Answer {
        let mut stream = tokio::net::TcpStream::connect(gate.http).await.unwrap();
        raw::ask(&mut stream, format!("{head}\r\n\r\n").as_bytes()).await
    };
    let port = gate.https.port();
    for (line, host, to) in [
        ("GET /a?b=c", HOST, format!("https://{HOST}:{port}/a?b=c")),
        ("POST //evil.test/x", HOST, format!("https://{HOST}:{port}//evil.test/x")),
        ("GET /", "FILES.test.:80", format!("https://{HOST}:{port}/")),
        // One site alone is reached by address too.
        ("GET /", "127.0.0.1", format!("https://127.0.0.1:{port}/")),
        ("GET /", "www.files.test", format!("https://www.files.test:{port}/")),
    ] {
        let answer = ask(&format!("{line} HTTP/1.1\r\nHost: {host}")).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some(&*to)), "{line} {host}");
        assert_eq!(answer.header("strict-transport-security"), None);
    }
    for host in ["evil.test", "x.files.test", "files.test.evil.test", "localhost"] {
        let answer = ask(&format!("GET / HTTP/1.1\r\nHost: {host}")).await;
        assert_eq!((answer.status, answer.header("location")), (421, None), "{host}");
    }
    assert!(upstream.bytes().is_empty());
}
