//! Who a client is: nobody but a trusted hop can say so, and the application hears it once, from us.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their tables"
)]

mod common;

use common::HOST;
use common::frames::{self, Frames, Outcome};
use common::gate::{Config, Gate};
use common::raw;
use common::upstream::{OK, Upstream};
use tokio::net::TcpStream;

const FORGED: &str = "6.6.6.6";
/// From each of these some framework takes client address, scheme, host, port, prefix, user, method or path.
const NAMES: [&str; 66] = [
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Scheme",
    "X-Forwarded-Ssl",
    "X-Forwarded-Protocol",
    "X-Forwarded-By",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Client-Cert",
    "X-Forwarded-Uri",
    "X-Forwarded-Method",
    "X-Forwarded",
    "Forwarded",
    "Forwarded-For",
    "True-Client-IP",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Client-IP",
    "CF-Connecting-IP",
    "CF-Connecting-IPv6",
    "CF-IPCountry",
    "CF-Visitor",
    "CF-Ray",
    "Fly-Client-IP",
    "Fly-Forwarded-Proto",
    "Fastly-Client-IP",
    "Fastly-Client",
    "X-Original-Forwarded-For",
    "X-Original-URL",
    "X-Original-Host",
    "X-Original-Method",
    "X-Rewrite-URL",
    "X-Remote-IP",
    "X-Remote-Addr",
    "X-Originating-IP",
    "X-ProxyUser-Ip",
    "X-Host",
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X-Scheme",
    "X-Url-Scheme",
    "Front-End-Https",
    "Remote-User",
    "X-Remote-User",
    "X-Auth-User",
    "X-User",
    "X-Script-Name",
    "SSL-Client-Cert",
    "SSL-Client-Verify",
    "X-SSL-Client-CN",
    "X-Client-Cert",
    "X-Envoy-External-Address",
    "X-Envoy-Original-Path",
    "X-Request-ID",
    "Via",
    "Proxy",
    "X-Azure-ClientIP",
];
/// What the application may hear.
const OURS: [&str; 8] = [
    "host",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
    "x-request-id",
    "via",
];

fn behind(trusted: &str, site: &str, upstream: &Upstream) -> Gate {
    let listen = format!("trusted_proxies = [{trusted}]\n");
    Config { listen, site: site.into(), ..Config::default() }.start(upstream.address)
}

#[tokio::test]
async fn no_forged_identity_reaches_the_application() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    for name in NAMES {
        let twin = name.replace('-', "_");
        let lower = name.to_lowercase();
        for lines in [
            format!("{name}: {FORGED}\r\n"),
            format!("{lower}: {FORGED}\r\n{name}: {FORGED}\r\n"),
            format!("{twin}: {FORGED}\r\n"),
            format!(
                "{name}: {FORGED}\r\nConnection: {name}, x-forwarded-for, x-real-ip, host, x-forwarded-proto\r\n"
            ),
        ] {
            assert_eq!(gate.ask("GET /", &lines, b"").await.status, 200, "{lines}");
        }
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 4 * NAMES.len());
    for request in requests {
        for (name, value) in &request.headers {
            assert!(OURS.contains(&&**name) && !value.contains(FORGED), "{name}: {value}");
        }
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        assert!(request.header("host").unwrap().starts_with(HOST));
    }
}

#[tokio::test]
async fn no_forged_identity_reaches_the_application_by_http_2() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let mut client = Frames::open(&gate, &[]).await;
    let names: Vec<String> =
        NAMES.iter().flat_map(|name| [name.to_lowercase(), name.to_lowercase().replace('-', "_")]).collect();
    for (part, id) in names.chunks(40).zip((1..).step_by(2)) {
        let mut fields = frames::request(b"GET", b"/");
        fields.extend(part.iter().map(|name| (name.as_bytes(), FORGED.as_bytes())));
        assert_eq!(client.ask(id, &fields).await, Outcome::Status(200));
    }
    let text = String::from_utf8_lossy(&upstream.bytes()).into_owned();
    assert!(!text.contains(FORGED), "{text}");
    assert!(
        upstream
            .requests()
            .iter()
            .all(|request| request.headers.iter().all(|(name, _)| OURS.contains(&&**name)))
    );
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_the_application_hears_one_address() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"127.0.0.0/8\", \"10.0.0.0/8\"", "", &upstream);
    let cases = [
        ("203.0.113.7", Some("203.0.113.7")),
        ("6.6.6.6, 203.0.113.7", Some("203.0.113.7")),
        ("127.0.0.1, 203.0.113.7, 10.1.2.3", Some("203.0.113.7")),
        ("::ffff:203.0.113.7", Some("203.0.113.7")),
        ("[2001:db8::7]:4711", Some("2001:db8::7")),
        ("203.0.113.7:4711", Some("203.0.113.7")),
        ("6.6.6.6\r\nX-Forwarded-For: 203.0.113.7", Some("203.0.113.7")),
        ("6.6.6.6, nonsense", None),
        ("unknown", None),
        ("6.6.6.6,", None),
    ];
    for (value, _) in cases {
        let lines = format!("X-Forwarded-For: {value}\r\nX-Real-IP: {FORGED}\r\nForwarded: for={FORGED}\r\n");
        assert_eq!(gate.ask("GET /", &lines, b"").await.status, 200, "{value}");
    }
    assert_eq!(gate.ask("GET /", "", b"").await.status, 200);
    let told: Vec<Option<String>> = upstream
        .requests()
        .iter()
        .map(|request| {
            assert_eq!(request.header("forwarded"), None);
            assert_eq!(request.header("x-real-ip"), request.header("x-forwarded-for"));
            request.header("x-forwarded-for").map(str::to_owned)
        })
        .collect();
    for (value, client) in cases {
        assert!(told.contains(&client.map(str::to_owned)), "{value}: {told:?}");
    }
    assert!(!told.contains(&Some(FORGED.into())), "{told:?}");
    assert!(gate.metric("portcullis_client_address_unknown_total").unwrap() >= 4.0);
}

#[tokio::test]
async fn the_unknown_client_is_in_no_allowlist_and_all_of_them_share_one_budget() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("[site.rate.login]\nrefill = \"1/min\"\nburst = 2\n", upstream.address);
    // This machine is who may see it, but not who claims to be somebody else behind it.
    assert_eq!(gate.ask("GET /metrics", "", b"").await.status, 200);
    for line in [
        "X-Forwarded-For: 127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "CF-Connecting-IP: ::1",
        "Forwarded: for=127.0.0.1",
    ] {
        assert_eq!(gate.ask("GET /metrics", &format!("{line}\r\n"), b"").await.status, 404, "{line}");
    }
    let login = |claim: &'static str| gate.ask("POST /api/auth/login", claim, b"{}");
    assert_eq!(login("X-Forwarded-For: 198.51.100.1\r\n").await.status, 200);
    assert_eq!(login("X-Forwarded-For: 198.51.100.2\r\n").await.status, 200);
    assert_eq!(login("X-Real-IP: 198.51.100.3\r\n").await.status, 429);
    assert_eq!(login("").await.status, 200, "who claims nothing has a budget of its own");
    assert!(gate.metric("portcullis_client_address_unknown_total").unwrap() >= 7.0);
}

#[tokio::test]
async fn allowlists_and_rates_see_the_client_behind_a_trusted_proxy() {
    let upstream = Upstream::answering(OK);
    let site = "[site.rate.login]\nrefill = \"1/min\"\nburst = 1\n[site.only_from]\nmetrics = [\"203.0.113.0/24\"]\n";
    let gate = behind("\"127.0.0.1\"", site, &upstream);
    for (claim, status) in [
        ("203.0.113.7", 200),
        ("::ffff:203.0.113.7", 200),
        ("198.51.100.1", 404),
        ("203.0.113.7, 198.51.100.1", 404),
        ("127.0.0.1", 404),
        ("nonsense", 404),
    ] {
        let line = format!("X-Forwarded-For: {claim}\r\n");
        assert_eq!(gate.ask("GET /metrics", &line, b"").await.status, status, "{claim}");
    }
    assert_eq!(gate.ask("GET /metrics", "", b"").await.status, 404, "a proxy that names nobody");
    for (client, status) in
        [("203.0.113.1", 200), ("203.0.113.1", 429), ("203.0.113.2", 200), ("203.0.113.1", 429)]
    {
        let line = format!("X-Forwarded-For: {client}\r\n");
        assert_eq!(gate.ask("POST /api/auth/login", &line, b"{}").await.status, status, "{client}");
    }
}

#[tokio::test]
async fn an_ipv4_client_of_a_dual_stack_listener_is_ipv4() {
    let upstream = Upstream::answering(OK);
    let mut gate = Gate::start("", upstream.address);
    gate.kill();
    let text = std::fs::read_to_string(gate.config()).unwrap();
    let text = text.replacen(&gate.https.to_string(), &format!("[::]:{}", gate.https.port()), 1);
    std::fs::write(gate.config(), text).unwrap();
    gate.start_again();
    assert_eq!(gate.ask("GET /metrics", "", b"").await.status, 200, "127.0.0.1 is this machine");
    assert_eq!(upstream.requests()[0].header("x-real-ip"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_plain_listener_serves_trusted_proxies_only_and_believes_their_scheme() {
    let upstream = Upstream::answering(OK);
    let stranger = behind("\"192.0.2.1\"", "", &upstream);
    let mut stream = TcpStream::connect(stranger.plain).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert!(raw::exchange(&mut stream, head.as_bytes()).await.is_empty());
    assert!(upstream.bytes().is_empty());

    let gate = behind("\"127.0.0.1\"", "", &upstream);
    let cases = [
        ("X-Forwarded-Proto: https\r\n", "https"),
        ("X-Forwarded-Proto: http\r\n", "http"),
        ("X-Forwarded-Proto: HTTPS\r\n", "https"),
        ("X-Forwarded-Proto: https, http\r\n", "http"),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", "http"),
        ("X-Forwarded-Proto: gopher\r\n", "http"),
        ("", "https"),
    ];
    for (lines, scheme) in cases {
        let before = upstream.requests().len();
        let mut stream = TcpStream::connect(gate.plain).await.unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Port: 1\r\n{lines}\r\n"
        );
        assert_eq!(raw::ask(&mut stream, head.as_bytes()).await.status, 200);
        let requests = upstream.requests();
        assert_eq!(requests.len(), before + 1);
        let request =
            requests.iter().rev().find(|request| request.header("x-forwarded-for") == Some("203.0.113.7"));
        assert!(request.is_some());
        let port = gate.https.port().to_string();
        assert!(requests.iter().all(|request| request.header("x-forwarded-port") == Some(&*port)));
        let schemes =
            requests.iter().filter(|request| request.header("x-forwarded-proto") == Some(scheme)).count();
        let wanted = cases.iter().take(before + 1).filter(|(_, one)| *one == scheme).count();
        assert_eq!(schemes, wanted, "{lines:?}");
    }
}

#[tokio::test]
async fn the_scheme_inside_tls_is_https_whatever_a_trusted_proxy_says() {
    let upstream = Upstream::answering(OK);
    let gate = behind("\"127.0.0.1\"", "", &upstream);
    let lines = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.test\r\n";
    assert_eq!(gate.ask("GET /", lines, b"").await.status, 200);
    let request = upstream.requests().remove(0);
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert!(request.header("x-forwarded-host").unwrap().starts_with(HOST));
}
