//! Client certificates: asked for by the site that is meant, whatever SNI and Host spell; told to the application by us only.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their tables"
)]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::gate::{Config, Gate, place};
use common::raw::{self, Answer};
use common::upstream::{OK, Upstream};
use common::{HOST, wait_until};
use http::Request;
use peers::Made;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, NamedGroup};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const OPEN: &str = "open.test";
const OTHER: &str = "other.test";
/// A changed file holds so soon.
const TAKEN_OVER: Duration = Duration::from_secs(2);

/// A CA of clients, which can also revoke.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn sign(&self, name: &str, serial: u64, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.push(SanType::DnsName(format!("{name}.agents.test").try_into().unwrap()));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Made { cert: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }

    fn revoke(&self, serials: &[u64]) -> String {
        self.revoke_until(serials, date_time_ymd(2099, 1, 1))
    }

    fn revoke_until(&self, serials: &[u64], next_update: OffsetDateTime) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A gateway with three sites: one that asks, one that asks by another CA, and one that asks nobody.
struct World {
    gate: Gate,
    upstream: Upstream,
    agents: Authority,
    others: Authority,
}

fn rules(mode: &str, ca: &str, more: &str) -> String {
    format!("[site.client_certificates]\nmode = \"{mode}\"\nca_file = \"{ca}\"\n{more}\n")
}

fn world(mode: &str, more: &str) -> World {
    let (agents, others) = (Authority::new("Agents CA"), Authority::new("Others CA"));
    let upstream = Upstream::answering(OK);
    let another = |host: &str, rules: &str| {
        format!(
            "[[site]]\nhosts = [\"{host}\"]\napp = \"generic\"\nupstream = \"http://{}\"\n{rules}\n",
            upstream.address
        )
    };
    let site = [
        rules(mode, "agents.pem", more),
        another(OPEN, ""),
        another(OTHER, &rules("required", "others.pem", "")),
        another("*.wide.test", ""),
    ];
    let files = vec![
        ("agents.pem", agents.pem.clone()),
        ("others.pem", others.pem.clone()),
        ("agents.crl", agents.revoke(&[66])),
    ];
    let gate = Config { site: site.concat(), files, app: "generic".into(), ..Config::default() };
    World { gate: gate.start(upstream.address), upstream, agents, others }
}

/// A client that shows this certificate.
fn client(ca: &Path, alpn: &str, shown: Option<&Made>) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(made) => {
            let chain = vec![CertificateDer::from_pem_slice(made.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config
}

impl World {
    async fn tls(&self, name: &str, shown: Option<&Made>) -> std::io::Result<TlsStream<TcpStream>> {
        raw::tls(self.gate.https, name, client(&self.gate.ca(), "http/1.1", shown)).await
    }

    /// The status, or the alert: of TLS 1.3 the client hears only when it reads.
    async fn ask(&self, name: &str, host: &str, shown: Option<&Made>) -> Result<Answer, String> {
        let mut stream = self.tls(name, shown).await.map_err(|error| error.to_string())?;
        heard(&mut stream, &get("/hello", host, "")).await
    }

    fn failures(&self, reason: &str) -> f64 {
        let series = format!("portcullis_tls_handshake_failures_total{{reason=\"{reason}\"}}");
        self.gate.metric(&series).unwrap_or(0.0)
    }
}

fn get(path: &str, host: &str, lines: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n").into_bytes()
}

async fn heard(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> Result<Answer, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let first =
        tokio::time::timeout(raw::LIMIT, sent).await.expect("in time").map_err(|error| error.to_string())?;
    let mut rest = std::io::Cursor::new([first]).chain(stream);
    Ok(raw::read_answer(&mut rest, false).await)
}

#[tokio::test]
async fn who_has_a_good_certificate_is_served_and_the_application_told_who_it_is_by_us_only() {
    let world = world("required", "allowed = [\"agent-1\", \"*.agents.test\"]\ncrl_file = \"agents.crl\"");
    let agent = world.agents.sign("agent-1", 7, |params| {
        params.distinguished_name.push(DnType::OrganizationName, "A, \"B\" ä");
        params.subject_alt_names.push(SanType::Rfc822Name("me@agents.test".try_into().unwrap()));
    });
    let forged = "Client-Cert: :Zm9yZ2Vk:\r\nclient_cert: x\r\nX-Client-Cert-Subject: CN=root\r\nX-Client-Cert-SAN: DNS:root\r\n\
                  Client-Cert-Chain: :Zm9yZ2Vk:\r\nSSL-Client-Verify: SUCCESS\r\nX-Forwarded-Client-Cert: root\r\n\
                  Connection: client-cert, x-client-cert-subject\r\n";
    let mut stream = world.tls(HOST, Some(&agent)).await.unwrap();
    let answer = heard(&mut stream, &get("/hello", HOST, forged)).await.unwrap();
    assert_eq!(answer.status, 200);
    let der = CertificateDer::from_pem_slice(agent.cert.as_bytes()).unwrap();
    let request = world.upstream.requests().remove(0);
    assert_eq!(request.header("client-cert"), Some(&*format!(":{}:", STANDARD.encode(&der))));
    assert_eq!(request.header("x-client-cert-subject"), Some("O=A\\, \\\"B\\\" %C3%A4,CN=agent-1"));
    assert_eq!(request.header("x-client-cert-san"), Some("DNS:agent-1.agents.test, email:me@agents.test"));
    let text = String::from_utf8_lossy(&world.upstream.bytes()).into_owned();
    assert!(!text.contains("Zm9yZ2Vk") && !text.contains("root") && !text.contains("SUCCESS"), "{text}");
    let mut open = world.tls(OPEN, Some(&agent)).await.unwrap();
    assert_eq!(heard(&mut open, &get("/open", OPEN, forged)).await.unwrap().status, 200);
    let request = world.upstream.requests().into_iter().find(|request| request.target == "/open").unwrap();
    assert!(request.headers.iter().all(|(name, _)| !name.contains("cert")), "{:?}", request.headers);
    assert!(wait_until(raw::LIMIT, || world.gate.log().lines().count() == 2));
    let entries: Vec<Value> =
        world.gate.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |site: &str| entries.iter().find(|entry| entry["site"] == site).unwrap().get("certificate").cloned();
    // Each worker writes its own lines: their order is anybody's.
    assert_eq!((of(HOST), of(OPEN)), (Some("agent-1".into()), None));
}

#[tokio::test]
async fn ten_ways_round_a_required_certificate_are_closed() {
    let world = world("required", "");
    let (agent, other) = (world.agents.sign("agent-1", 1, |_| {}), world.others.sign("other-1", 1, |_| {}));
    assert_eq!(world.ask(HOST, HOST, Some(&agent)).await.unwrap().status, 200);
    assert_eq!(world.ask(OPEN, OPEN, None).await.unwrap().status, 200);
    let before = world.upstream.requests().len();
    let port = world.gate.https.port();

    // 1. Without a certificate, by any spelling of the name in the handshake that reaches the site.
    for name in [HOST, "FILES.test", "Files.Test"] {
        let alert = world.ask(name, HOST, None).await.unwrap_err();
        assert!(alert.contains("CertificateRequired"), "{name}: {alert}");
    }
    // 2. By the name of an open site, or of one with another CA, and the Host of this one, however it is spelled.
    let hosts = [
        HOST.to_owned(),
        HOST.to_uppercase(),
        format!("{HOST}."),
        format!("{HOST}:{port}"),
        format!("{HOST}.:{port}"),
        format!("{}.:443", HOST.to_uppercase()),
    ];
    for host in &hosts {
        for (name, shown) in
            [(OPEN, None), (OTHER, Some(&other)), (OPEN, Some(&agent)), ("a.wide.test", None)]
        {
            let answer = world.ask(name, host, shown).await.unwrap();
            assert_eq!(answer.status, 421, "{name} {host}");
        }
    }
    // 3. By an absolute target with the Host of the open site, and the reverse.
    for (target, host, status) in [(HOST, OPEN, 400), (OPEN, HOST, 400), (HOST, HOST, 421)] {
        let mut stream = world.tls(OPEN, None).await.unwrap();
        let head = format!("GET https://{target}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = heard(&mut stream, head.as_bytes()).await.unwrap();
        assert_eq!(answer.status, status, "{target} {host}");
    }
    // 4. Later on a connection that began with the open site.
    let mut stream = world.tls(OPEN, None).await.unwrap();
    assert_eq!(heard(&mut stream, &get("/", OPEN, "")).await.unwrap().status, 200);
    assert_eq!(heard(&mut stream, &get("/", HOST, "")).await.unwrap().status, 421);
    // 5. Over HTTP/2: another authority on a coalesced connection, and a Host beside it.
    let config = client(&world.gate.ca(), "h2", None);
    let io = raw::tls(world.gate.https, OPEN, config).await.unwrap();
    let (mut send, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for (uri, host, statuses) in [
        (format!("https://{OPEN}/"), None, &[200][..]),
        (format!("https://{HOST}/"), None, &[421]),
        (format!("https://{}/", HOST.to_uppercase()), None, &[421]),
        (format!("https://{OPEN}/"), Some(HOST), &[400, 421]),
        (format!("https://{HOST}/"), Some(OPEN), &[400, 421]),
    ] {
        let mut request = Request::get(&uri).version(http::Version::HTTP_2);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        let status = answer.await.unwrap().status().as_u16();
        assert!(statuses.contains(&status), "{uri} {host:?}: {status}");
    }
    // 6. Without a name, by address, and by names that are nobody's.
    for name in ["127.0.0.1", "nobody.test", "xn--fles-5qa.test"] {
        assert!(world.ask(name, HOST, None).await.is_err(), "{name}");
    }
    // 7. With a certificate of the wrong CA, or one that nobody signed.
    let stranger = Authority::new("Agents CA").sign("agent-1", 1, |_| {});
    for shown in [&other, &stranger] {
        let alert = world.ask(HOST, HOST, Some(shown)).await.unwrap_err();
        assert!(alert.contains("UnknownCA") || alert.contains("DecryptError"), "{alert}");
    }
    assert_eq!(world.upstream.requests().len(), before + 2, "the two of the open site");
}

#[tokio::test]
async fn no_session_of_one_policy_is_resumed_under_another_nor_under_its_own() {
    let world = world("required", "");
    let agent = world.agents.sign("agent-1", 1, |_| {});
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(world.gate.ca()).unwrap()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(agent.cert.as_bytes()).unwrap()];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // The store that a client has for one name is used for another: what an attacker would do.
        let resumption = Resumption::store(Arc::new(OneForAll(ClientSessionMemoryCache::new(32))));
        let builder = |key| {
            ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(chain.clone(), key)
                .unwrap()
        };
        let mut config = builder(PrivateKeyDer::from_pem_slice(agent.key.as_bytes()).unwrap());
        config.resumption = resumption;
        let mut kinds = Vec::new();
        for name in [OPEN, OPEN, HOST, HOST, OPEN] {
            let mut stream = raw::tls(world.gate.https, name, config.clone()).await.unwrap();
            let answer = heard(&mut stream, &get("/", name, "")).await.unwrap();
            assert_eq!(answer.status, 200);
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            kinds.push(resumed);
        }
        assert_eq!(kinds[..4], [false, true, false, false], "{versions:?}");
    }
    let upstream = world.upstream.requests();
    let told = upstream.iter().filter(|request| request.header("client-cert").is_some()).count();
    assert_eq!((told, upstream.len()), (4, 10));
}

/// Keeps the sessions of all servers in one place.
#[derive(Debug)]
struct OneForAll(ClientSessionMemoryCache);

fn all() -> ServerName<'static> {
    ServerName::try_from("all.test").unwrap()
}

impl ClientSessionStore for OneForAll {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(all(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&all())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(all(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&all())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&all());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(all(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&all())
    }
}

#[tokio::test]
async fn expired_revoked_foreign_and_unfit_certificates_get_their_alerts_and_are_counted_by_reason() {
    let world = world("optional", "crl_file = \"agents.crl\"");
    let agents = &world.agents;
    let past = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let future = |params: &mut CertificateParams| params.not_before = date_time_ymd(2090, 1, 1);
    let server = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let cases = [
        (agents.sign("a", 1, past), "CertificateExpired", "client_certificate_expired"),
        (agents.sign("a", 1, future), "CertificateExpired", "client_certificate_not_yet_valid"),
        (agents.sign("a", 66, |_| {}), "CertificateRevoked", "client_certificate_revoked"),
        (world.others.sign("a", 1, |_| {}), "UnknownCA", "client_certificate_foreign"),
        (agents.sign("a", 1, server), "UnsupportedCertificate", "client_certificate_unfit"),
    ];
    for (shown, alert, reason) in cases {
        let said = world.ask(HOST, HOST, Some(&shown)).await.unwrap_err();
        assert!(said.contains(alert), "{reason}: {said}");
        assert!(wait_until(raw::LIMIT, || world.failures(reason) == 1.0), "{reason}");
    }
    assert_eq!(world.ask(HOST, HOST, None).await.unwrap().status, 200, "optional");
    assert_eq!(world.ask(HOST, HOST, Some(&agents.sign("a", 2, |_| {}))).await.unwrap().status, 200);
    assert!(world.ask(OTHER, OTHER, None).await.unwrap_err().contains("CertificateRequired"));
    assert!(wait_until(raw::LIMIT, || world.failures("client_certificate_missing") == 1.0));
    let told: Vec<_> =
        world.upstream.requests().iter().map(|request| request.header("client-cert").is_some()).collect();
    assert_eq!(told, [false, true]);
}

#[tokio::test]
async fn only_allowed_names_pass_and_a_changed_list_holds_for_open_connections_too() {
    let world = world("required", "allowed = [\"agent-1\", \"two.agents.test\"]\ncrl_file = \"agents.crl\"");
    let sign = |name: &str, serial| world.agents.sign(name, serial, |_| {});
    for (name, status) in [("agent-1", 200), ("AGENT-1", 200), ("two", 200), ("agent-3", 403)] {
        let answer = world.ask(HOST, HOST, Some(&sign(name, 3))).await.unwrap();
        assert_eq!(answer.status, status, "{name}");
    }
    let denial = wait_until(raw::LIMIT, || world.gate.log().contains("certificate_not_allowed"));
    assert!(denial && world.gate.log().contains("\"certificate\":\"agent-3\""), "{}", world.gate.log());

    let mut live = world.tls(HOST, Some(&sign("agent-1", 5))).await.unwrap();
    assert_eq!(heard(&mut live, &get("/", HOST, "")).await.unwrap().status, 200);
    let mut open = world.tls(OPEN, None).await.unwrap();
    assert_eq!(heard(&mut open, &get("/", OPEN, "")).await.unwrap().status, 200);
    let dir = world.gate.config().parent().unwrap().to_owned();
    // Broken, empty, missing, or the CA instead: refused, and the old list stays.
    let crl = world.agents.revoke(&[66]);
    for (file, text) in [
        ("agents.crl", String::new()),
        ("agents.crl", crl[..crl.len() / 2].to_owned()),
        ("agents.crl", world.agents.pem.clone()),
        ("agents.pem", String::new()),
        ("agents.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into()),
        ("agents.pem", sign("no CA", 1).cert),
    ] {
        let good = std::fs::read_to_string(dir.join(file)).unwrap();
        place(&dir.join(file), &text);
        let reload = world.gate.cli(["reload"]);
        assert!(!reload.status.success(), "{file}: {text}");
        assert!(String::from_utf8_lossy(&reload.stderr).contains(file), "{reload:?}");
        assert_eq!(world.gate.cli(["check", "--offline"]).status.code(), Some(3));
        assert!(world.ask(HOST, HOST, None).await.is_err(), "still closed");
        assert_eq!(heard(&mut live, &get("/", HOST, "")).await.unwrap().status, 200, "still served");
        place(&dir.join(file), &good);
    }
    std::fs::rename(dir.join("agents.pem"), dir.join("away.pem")).unwrap();
    assert!(!world.gate.cli(["reload"]).status.success());
    assert!(world.ask(HOST, HOST, None).await.is_err());
    std::fs::rename(dir.join("away.pem"), dir.join("agents.pem")).unwrap();

    // Revoked without a command, within two seconds; an open connection must come again, and cannot.
    place(&dir.join("agents.crl"), &world.agents.revoke(&[66, 5]));
    let begun = Instant::now();
    let cut = common::wait_until_async(TAKEN_OVER, async || {
        heard(&mut live, &get("/", HOST, "")).await.map_or(true, |answer| answer.status == 421)
    })
    .await;
    assert!(cut, "not after {:?}", begun.elapsed());
    let alert = world.ask(HOST, HOST, Some(&sign("agent-1", 5))).await.unwrap_err();
    assert!(alert.contains("CertificateRevoked"), "{alert}");
    assert_eq!(world.ask(HOST, HOST, Some(&sign("agent-1", 6))).await.unwrap().status, 200);
    assert_eq!(heard(&mut open, &get("/", OPEN, "")).await.unwrap().status, 200, "others notice nothing");
}

#[tokio::test]
async fn http2_and_websockets_are_under_the_same_rules_and_a_plain_listener_shows_no_certificate() {
    let (agents, upstream) = (Authority::new("Agents CA"), Upstream::answering(OK));
    let listen = "trusted_proxies = [\"127.0.0.1\"]\n".into();
    let files = vec![("agents.pem", agents.pem.clone())];
    let site = rules("required", "agents.pem", "");
    let gate = Config { site, files, listen, ..Config::default() }.start(upstream.address);
    let agent = agents.sign("agent-1", 1, |_| {});
    let io = raw::tls(gate.https, HOST, client(&gate.ca(), "h2", Some(&agent))).await.unwrap();
    let (mut send, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let lines = [("x-forwarded-for", "203.0.113.7"), ("client-cert", ":Zm9yZ2Vk:")];
    let mut request = Request::get(format!("https://{HOST}/")).version(http::Version::HTTP_2);
    for (name, value) in lines {
        request = request.header(name, value);
    }
    let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let mut stream = raw::tls(gate.https, HOST, client(&gate.ca(), "http/1.1", Some(&agent))).await.unwrap();
    let upgrade = "X-Forwarded-For: 203.0.113.7\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    // The application answers no 101: what counts is what it was told.
    let _ = heard(&mut stream, &get("/ws", HOST, upgrade)).await;
    let told: Vec<_> =
        upstream.requests().iter().map(|one| one.header("client-cert").map(str::to_owned)).collect();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|cert| cert.as_ref().is_some_and(|cert| cert.starts_with(":MI"))), "{told:?}");

    // The one site is reached without a name too: under the same rules.
    for (shown, wanted) in [(None, "CertificateRequired"), (Some(&agent), "421"), (Some(&agent), "200")] {
        let mut nameless = client(&gate.ca(), "http/1.1", shown);
        nameless.enable_sni = false;
        let mut stream = raw::tls(gate.https, HOST, nameless).await.unwrap();
        let host = if wanted == "421" { "evil.test" } else { HOST };
        let lines = "X-Forwarded-For: 203.0.113.7\r\n";
        let said = heard(&mut stream, &get("/nameless", host, lines)).await;
        let said = said.map_or_else(|alert| alert, |answer| answer.status.to_string());
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let told = upstream.requests().into_iter().find(|one| one.target == "/nameless").unwrap();
    assert!(told.header("client-cert").is_some(), "{told:?}");
    let mut plain = TcpStream::connect(gate.plain).await.unwrap();
    let answer =
        raw::ask(&mut plain, &get("/", HOST, "X-Forwarded-For: 203.0.113.7\r\nClient-Cert: :x:\r\n")).await;
    assert_eq!(answer.status, 403);
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn a_certificate_without_any_name_is_good_where_any_is_and_on_no_list() {
    let nameless = |agents: &Authority| {
        agents.sign("-", 9, |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.subject_alt_names.clear();
        })
    };
    let listed = world("required", "allowed = [\"-\", \"*.agents.test\"]");
    let shown = nameless(&listed.agents);
    assert_eq!(listed.ask(HOST, HOST, Some(&shown)).await.unwrap().status, 403);
    assert!(listed.upstream.requests().is_empty());
    let any = world("required", "");
    let shown = nameless(&any.agents);
    let mut stream = any.tls(HOST, Some(&shown)).await.unwrap();
    let forged = "X-Client-Cert-Subject: CN=root\r\nX-Client-Cert-SAN: DNS:root\r\n";
    assert_eq!(heard(&mut stream, &get("/", HOST, forged)).await.unwrap().status, 200);
    let request = any.upstream.requests().remove(0);
    assert!(request.header("client-cert").is_some());
    for field in ["x-client-cert-subject", "x-client-cert-san"] {
        assert_eq!(request.header(field).unwrap_or_default(), "", "{field}");
    }
}

#[tokio::test]
async fn a_revocation_list_that_has_ended_or_is_another_cas_lets_nobody_in() {
    let world = world("optional", "crl_file = \"agents.crl\"");
    let good = world.agents.sign("agent-1", 1, |_| {});
    assert_eq!(world.ask(HOST, HOST, Some(&good)).await.unwrap().status, 200);
    let namesake = Authority::new("Agents CA");
    let file = world.gate.config().parent().unwrap().join("agents.crl");
    for (list, said, reason) in [
        (
            world.agents.revoke_until(&[], date_time_ymd(2026, 2, 1)),
            "the revocation list of `CN=Agents CA` in ",
            "client_certificate_revocation_list_ended",
        ),
        (
            world.others.revoke(&[]),
            "holds no revocation list of `CN=Agents CA`",
            "client_certificate_revocation_unknown",
        ),
        (namesake.revoke(&[]), "", "client_certificate_revocation_unknown"),
    ] {
        place(&file, &list);
        let reload = world.gate.cli(["reload"]);
        assert!(reload.status.success(), "{reload:?}");
        let before = world.failures(reason);
        let alert = world.ask(HOST, HOST, Some(&good)).await.unwrap_err();
        assert!(alert.contains("received fatal alert"), "{alert}");
        assert!(
            wait_until(raw::LIMIT, || world.failures(reason) == before + 1.0),
            "{reason}: {:?}",
            world.gate.admin("/metrics")
        );
        let check = world.gate.cli(["check", "--offline"]);
        let text = [check.stdout, check.stderr].concat();
        assert!(String::from_utf8_lossy(&text).contains(said), "{}", String::from_utf8_lossy(&text));
        let status = world.gate.cli(["status"]);
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert_eq!(status.contains("agents.crl has ended"), reason.contains("ended"), "{status}");
        assert_eq!(world.ask(HOST, HOST, None).await.unwrap().status, 200, "optional");
    }
    place(&file, &world.agents.revoke(&[]));
    assert!(world.gate.cli(["reload"]).status.success());
    assert_eq!(world.ask(HOST, HOST, Some(&good)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_session_from_before_a_certificate_was_required_is_not_resumed_afterwards() {
    for versions in [&[&rustls::version::TLS13][..], &[&rustls::version::TLS12]] {
        for before in ["", "optional"] {
            let (agents, upstream) = (Authority::new("Agents CA"), Upstream::answering(OK));
            let section = rules("required", "agents.pem", "");
            let site = match before {
                "" => String::new(),
                mode => section.replace("required", mode),
            };
            let files = vec![("agents.pem", agents.pem.clone())];
            let gate = Config { site: site.clone(), files, ..Config::default() }.start(upstream.address);
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(gate.ca()).unwrap()).unwrap();
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let ask = async || {
                let mut stream =
                    raw::tls(gate.https, HOST, config.clone()).await.map_err(|error| error.to_string())?;
                let answer = heard(&mut stream, &get("/", HOST, "")).await?;
                Ok::<_, String>((answer.status, stream.get_ref().1.handshake_kind()))
            };
            let resumed = if before.is_empty() { HandshakeKind::Resumed } else { HandshakeKind::Full };
            assert_eq!(ask().await, Ok((200, Some(HandshakeKind::Full))));
            assert_eq!(ask().await, Ok((200, Some(resumed))), "{before:?}");
            let text = std::fs::read_to_string(gate.config()).unwrap();
            let after =
                if before.is_empty() { format!("{text}\n{section}") } else { text.replace(&site, &section) };
            place(&gate.config(), &after);
            let reload = gate.cli(["reload"]);
            assert!(reload.status.success(), "{reload:?}");
            // Its tickets are at hand, and worth nothing.
            for _ in 0..3 {
                let alert = ask().await.unwrap_err();
                assert!(alert.contains("CertificateRequired"), "{before:?} {versions:?}: {alert}");
            }
            assert_eq!(upstream.requests().len(), 2);
        }
    }
}

fn openssl(gate: &Gate, arguments: &[&str], input: &str) -> String {
    let port = gate.https.port();
    let script = format!(
        "printf '{input}' | timeout 10 openssl s_client -connect 127.0.0.1:{port} -quiet \"$@\" 2>&1"
    );
    let output = Command::new("bash").args(["-c", &script, "-"]).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn curl(gate: &Gate, host: &str, arguments: &[&str]) -> Output {
    Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--include"])
        .args(["--resolve", &format!("{host}:{}:127.0.0.1", gate.https.port())])
        .arg("--cacert")
        .arg(gate.ca())
        .args(arguments)
        .arg(format!("https://{host}:{}/", gate.https.port()))
        .output()
        .expect("curl")
}

#[test]
fn real_clients_show_theirs_and_explain_and_check_tell_of_it() {
    let world = world("required", "allowed = [\"agent-1\"]\ncrl_file = \"agents.crl\"");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        place(&dir.path().join(name), text);
        dir.path().join(name)
    };
    let paths = |name: &str, made: &Made| {
        [file(&format!("{name}.pem"), &made.cert), file(&format!("{name}-key.pem"), &made.key)]
            .map(|path| path.display().to_string())
    };
    let [cert, key] = paths("agent", &world.agents.sign("agent-1", 1, |_| {}));
    let [revoked, revoked_key] = paths("revoked", &world.agents.sign("agent-1", 66, |_| {}));
    let [third, third_key] = paths("third", &world.agents.sign("agent-3", 1, |_| {}));
    for version in ["--tlsv1.3", "--tls-max=1.2"] {
        let version = version.replace('=', " ");
        let version: Vec<&str> = version.split(' ').collect();
        let ask = |arguments: &[&str]| {
            let output = curl(&world.gate, HOST, &[&version[..], arguments].concat());
            let heard = String::from_utf8_lossy(&output.stdout).into_owned();
            (
                heard.split(' ').nth(1).unwrap_or("-").to_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        };
        assert_eq!(ask(&["--cert", &cert, "--key", &key]).0, "200");
        assert_eq!(ask(&["--cert", &third, "--key", &third_key]).0, "403");
        let (status, error) = ask(&["--cert", &revoked, "--key", &revoked_key]);
        assert!(status == "-" && error.contains("revoked"), "{error}");
        let (status, error) = ask(&[]);
        assert!(status == "-" && !error.is_empty(), "{status} {error}");
    }
    let head = format!("GET / HTTP/1.1\\r\\nHost: {HOST}\\r\\nConnection: close\\r\\n\\r\\n");
    let heard = openssl(&world.gate, &["-servername", HOST, "-cert", &cert, "-key", &key], &head);
    assert!(heard.contains("HTTP/1.1 200"), "{heard}");
    // No name at all, then the Host of the site: what walked round HAProxy and Envoy.
    for arguments in [&["-noservername"][..], &["-servername", OPEN], &["-servername", "files.test."]] {
        let heard = openssl(&world.gate, arguments, &head);
        assert!(!heard.contains("HTTP/1.1 200"), "{arguments:?}: {heard}");
    }

    let url = format!("https://{HOST}/");
    let explain = |arguments: &[&str]| {
        let output = world.gate.cli([&["explain", &*url][..], arguments].concat());
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let told = explain(&["--certificate", &cert]);
    assert!(
        told.contains("certificate CN=agent-1 (DNS:agent-1.agents.test)") && told.contains("forwarded to"),
        "{told}"
    );
    let told = explain(&["--certificate", &third]);
    assert!(told.contains("refused with 403: certificate_not_allowed"), "{told}");
    let told = explain(&["--certificate", &revoked]);
    assert!(told.contains("the handshake would fail") && told.contains("Revoked"), "{told}");
    let told = explain(&[]);
    assert!(told.contains("none shown") && told.contains("certificate_missing"), "{told}");
    let check = world.gate.cli(["check", "--offline"]);
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(text.contains("certificate required of clients, signed by CN=Agents CA"), "{text}");
    assert!(text.contains("allowed   agent-1") && text.contains("agents.crl"), "{text}");
    let check = world.gate.cli(["check", "--offline", "--json"]);
    let json: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(json["sites"][0]["client_certificates"]["mode"], "required");
    assert!(json["sites"][1]["client_certificates"].is_null());
}
