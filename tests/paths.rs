//! A guarded page stays closed in every spelling that some common router would take for it; public pages with odd but
//! legal spellings stay open.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their tables"
)]

mod common;

use std::path::Path;

use common::HOST;
use common::frames::{self, Frames, Outcome};
use common::gate::{Config, Gate};
use common::raw;
use common::upstream::{OK, Upstream};
use http::Method;
use portcullis::clock::Now;
use portcullis::policy::{Policy, compile};
use portcullis::request::path::PathViews;
use portcullis::stores::kept::Kept;
use proptest::prelude::*;

/// Closed to the tests' clients too.
const CLOSED: &str = "[site.only_from]\nmetrics = [\"192.0.2.1\"]\nhealth = [\"192.0.2.1\"]\ndocs = [\"192.0.2.1\"]\n\
                      setup = [\"192.0.2.1\"]\n";
const KEEPSTACK: [&str; 8] = [
    "/metrics",
    "/healthz",
    "/api/version",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/openapi.json",
    "/metrics/x",
];
const ARKEEP: [&str; 6] =
    ["/metrics", "/health", "/docs", "/openapi.json", "/api/v1/setup/complete", "/swagger/index.html"];

/// Spellings of one path, legal or not.
fn spellings(path: &str) -> Vec<String> {
    let name = &path[1..];
    let first = name.as_bytes()[0];
    let rest = &name[1..];
    let upper = name.to_uppercase();
    let mut mixed = name.to_owned();
    mixed[..1].make_ascii_uppercase();
    let escaped: String =
        name.bytes().map(|byte| if byte == b'/' { "/".into() } else { format!("%{byte:02x}") }).collect();
    let mut all: Vec<String> = vec![
        path.into(),
        format!("/{upper}"),
        format!("/{mixed}"),
        format!("/%{first:02x}{rest}"),
        format!("/%{first:02X}{rest}"),
        format!("/%25{first:02x}{rest}"),
        format!("/%2525{first:02x}{rest}"),
        format!("/%u00{first:02x}{rest}"),
        format!("/{escaped}"),
        format!("/%{:02x}{rest}", first.to_ascii_uppercase()),
        path.replace('/', "%2f"),
        path.replace('/', "/%2f"),
        path.replace('/', "%5c"),
        path.replace('/', "\\"),
        path.replace('/', "//"),
        path.replace('/', "/./"),
        path.replace('/', "/.//"),
        path.replace('/', "/;/"),
        path.replace('/', "/;x=y/"),
        path.replace('/', "/%2e/"),
        path.replace('/', "/x/../"),
        path.replace('/', "/x/%2e%2e/"),
        path.replace('/', "/x/.%2E/"),
        path.replace('/', "/x/..;/"),
        path.replace('/', "/x;y/../"),
        path.replace('/', "/x/..%2f"),
        path.replace('/', "/x/%2e%2e%2f"),
        path.replace('/', "/x/..%5c"),
        path.replace('/', "/%252e%252e/"),
        path.replace('/', "/%c0%af"),
        path.replace('/', "/%c0%ae/"),
        path.replace('/', "/%20/"),
        path.replace('/', "/%00/"),
    ];
    for prefix in ["/.", "/..", "/../..", "/%2e%2e", "/a/b/../..", "/a//..", "/x/y/../../.", "/..;", "/;a=b"]
    {
        all.push(format!("{prefix}{path}"));
    }
    for suffix in [
        "/",
        "//",
        "/.",
        "/./",
        "/..;/",
        ".",
        "..",
        "...",
        "/x/..",
        "/x/../",
        "/%2e",
        ";",
        ";x=y",
        ";/",
        "/;x",
        ";a=b;c=d",
        "?",
        "?x=y",
        "?/../x",
        "#",
        "#x",
        "%20",
        "%20/",
        "+",
        "%09",
        "%0a",
        "%0d",
        "%0d%0a",
        "%00",
        "%7f",
        "%23",
        "%23x",
        "%3f",
        "%3fx=y",
        "%3b",
        "%3bx",
        "%2f",
        "%2f/",
        "/%2f",
        "%5c",
        "\\",
        "/%20",
        "%c2%a0",
        "%e3%80%80",
        "%e2%80%a8",
        "%85",
        "%c2%85",
        "%25",
        "%2500",
        "%250a",
        "%252f",
        "%ff",
        "%",
        "%zz",
        "/x",
        "/x/y",
        "/%78",
    ] {
        all.push(format!("{path}{suffix}"));
    }
    all
}

/// Everything that a lenient router may make of a target, by other means than the gateway's own.
fn readings(target: &str) -> Vec<String> {
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut all = vec![target.split(['?', '#']).next().unwrap().to_owned()];
    for _ in 0..2 {
        all.push(decode(all.last().unwrap()));
    }
    all.into_iter()
        .map(|path| {
            let path =
                path.split(['?', '#', '\0', '\n', '\r']).next().unwrap().replace('\\', "/").to_lowercase();
            let mut kept: Vec<String> = Vec::new();
            for segment in path.split('/') {
                match segment.split(';').next().unwrap().trim() {
                    "" | "." => {}
                    ".." => drop(kept.pop()),
                    other => kept.push(other.trim_end_matches('.').trim_end().to_owned()),
                }
            }
            format!("/{}", kept.join("/"))
        })
        .collect()
}

/// The part of a guarded path by which a router finds it.
fn serves(target: &str, page: &str) -> bool {
    readings(target)
        .iter()
        .any(|read| read == page || read.strip_prefix(page).is_some_and(|rest| rest.starts_with('/')))
}

fn gate(app: &str, upstream: &Upstream) -> Gate {
    let site = format!("{CLOSED}\n[[site.route]]\nmatch = \"/*\"\nclass = \"page\"\n");
    Config { app: app.into(), site, ..Config::default() }.start(upstream.address)
}

fn assert_untouched(upstream: &Upstream, pages: &[&str]) {
    for request in upstream.requests() {
        for page in pages {
            assert!(
                !serves(&request.target, page),
                "{} reached the upstream, some serve {page}",
                request.target
            );
        }
    }
}

/// How many refusals there were.
async fn ask_http_1(gate: &Gate, methods: &[&str], pages: &[&str]) -> usize {
    let mut refused = 0;
    for page in pages {
        for (method, spelling) in
            methods.iter().flat_map(|method| spellings(page).into_iter().map(move |one| (method, one)))
        {
            let mut stream = gate.connect().await;
            let head = format!("{method} {spelling} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
            let answer = raw::exchange(&mut stream, head.as_bytes()).await;
            let status = String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned);
            if serves(&spelling, page) {
                assert_ne!(status.as_deref(), Some("200"), "{method} {spelling}");
                refused += 1;
            }
        }
    }
    refused
}

#[tokio::test]
async fn no_spelling_of_a_guarded_page_of_keepstack_gets_through() {
    let upstream = Upstream::answering(OK);
    let gate = gate("keepstack", &upstream);
    assert!(ask_http_1(&gate, &["GET"], &KEEPSTACK).await > 400);
    assert_untouched(&upstream, &KEEPSTACK);
}

#[tokio::test]
async fn no_spelling_of_a_guarded_page_of_arkeep_gets_through() {
    let upstream = Upstream::answering(OK);
    let gate = gate("arkeep", &upstream);
    assert!(ask_http_1(&gate, &["GET"], &ARKEEP).await > 300);
    assert_untouched(&upstream, &ARKEEP);
}

#[tokio::test]
async fn no_method_opens_a_guarded_page() {
    let upstream = Upstream::answering(OK);
    let gate = gate("keepstack", &upstream);
    let methods = ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get", "QUERY", "X"];
    for method in methods {
        for page in KEEPSTACK.iter().chain(&["/METRICS/", "//metrics;x"]) {
            let headers = "X-Original-URL: /\r\nX-Rewrite-URL: /\r\nX-HTTP-Method-Override: GET\r\nConnection: close\r\n";
            let head = format!("{method} {page} HTTP/1.1\r\nHost: {HOST}\r\n{headers}\r\n");
            let answer = raw::exchange(&mut gate.connect().await, head.as_bytes()).await;
            assert!(
                answer.starts_with(b"HTTP/1.1 404"),
                "{method} {page}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
    }
    assert!(upstream.bytes().is_empty());
}

#[tokio::test]
async fn no_spelling_gets_through_by_http_2_or_in_absolute_form() {
    let upstream = Upstream::answering(OK);
    let gate = gate("keepstack", &upstream);
    let (mut client, mut id) = (Frames::open(&gate, &[]).await, 1);
    for spelling in spellings("/metrics") {
        let outcome = client.ask(id, &frames::request(b"GET", spelling.as_bytes())).await;
        assert!(!serves(&spelling, "/metrics") || outcome != Outcome::Status(200), "{spelling}");
        id += 2;
        if outcome == Outcome::Closed {
            (client, id) = (Frames::open(&gate, &[]).await, 1);
        }
        let head =
            format!("GET https://{HOST}{spelling} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answer = raw::exchange(&mut gate.connect().await, head.as_bytes()).await;
        assert!(!serves(&spelling, "/metrics") || !answer.starts_with(b"HTTP/1.1 200"), "{spelling}");
    }
    assert_untouched(&upstream, &["/metrics"]);
}

#[tokio::test]
async fn no_field_chooses_another_path() {
    let upstream = Upstream::answering(OK);
    let gate = gate("keepstack", &upstream);
    for name in [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-URI",
        "X-Forwarded-Prefix",
        "X-Forwarded-Path",
        "X-Original-Path",
        "X_Original_URL",
    ] {
        assert_eq!(gate.ask("GET /", &format!("{name}: /metrics\r\n"), b"").await.status, 200, "{name}");
    }
    assert!(!String::from_utf8_lossy(&upstream.bytes()).contains("/metrics"));
}

#[tokio::test]
async fn odd_but_legal_public_paths_arrive_as_they_mean() {
    let upstream = Upstream::answering(OK);
    let gate = gate("keepstack", &upstream);
    let paths = [
        ("/", "/"),
        ("/?", "/?"),
        ("/?x=/metrics", "/?x=/metrics"),
        ("/a?b=%2Fmetrics&c=%00&d=%0a", "/a?b=%2Fmetrics&c=%00&d=%0a"),
        ("/a?b?c=//", "/a?b?c=//"),
        ("/a%20b", "/a%20b"),
        ("/caf%C3%A9", "/caf%C3%A9"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%7Euser", "/~user"),
        ("/~user", "/~user"),
        ("/a;b=c", "/a;b=c"),
        ("/a%3Bb", "/a%3Bb"),
        ("/100%25", "/100%25"),
        ("/a%25b.txt", "/a%25b.txt"),
        ("/a+b,c=d&e", "/a+b,c=d&e"),
        ("/a:b@c", "/a:b@c"),
        ("/a!$'()*", "/a!$'()*"),
        ("/A/B", "/A/B"),
        ("/a//b", "/a//b"),
        ("/a/", "/a/"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/.well-known/security.txt", "/.well-known/security.txt"),
        ("/.env.example", "/.env.example"),
        ("/a.tar.gz", "/a.tar.gz"),
        ("/...", "/..."),
        ("/metricsx", "/metricsx"),
        ("/xmetrics", "/xmetrics"),
        ("/metric", "/metric"),
        ("/metrics-of-mine", "/metrics-of-mine"),
        ("/x/metrics", "/x/metrics"),
        ("/api/assets/metrics", "/api/assets/metrics"),
        ("/s/AbCdEfGhIjKlMnOpQrStUv", "/s/AbCdEfGhIjKlMnOpQrStUv"),
        ("/a%23b", "/a%23b"),
        ("/a%3Fb", "/a%3Fb"),
        ("/%F0%9F%98%80", "/%F0%9F%98%80"),
    ];
    for (sent, _) in paths {
        assert_eq!(gate.ask(&format!("GET {sent}"), "", b"").await.status, 200, "{sent}");
    }
    let arrived: Vec<String> = upstream.requests().into_iter().map(|request| request.target).collect();
    for (sent, meant) in paths {
        assert!(arrived.iter().any(|target| target == meant), "{sent} should arrive as {meant}: {arrived:?}");
    }
}

fn policy(app: &str, more: &str) -> Policy {
    let text = format!(
        "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"http://127.0.0.1:8000\"\n\
         app = \"{app}\"\n{more}"
    );
    let now = Now { mono: 1, wall: 1_782_000_000_000 };
    let loaded = portcullis::config::parse(Path::new("/etc/portcullis/portcullis.toml"), &text, now);
    compile(&loaded.unwrap_or_else(|problems| panic!("{problems}")).settings, &Kept::new(100))
}

/// Whether a target is refused, or gets a class that restricts.
fn is_closed(policy: &Policy, method: &Method, target: &str) -> bool {
    let Ok(target) = target.parse() else { return true };
    let Ok(views) = PathViews::read(&target) else { return true };
    let found = policy.site(0).unwrap().route(method, &views).unwrap();
    found.route.class.restricts() || (views.encoded_slash && !found.route.keep_encoded_slash)
}

#[test]
fn a_site_route_opens_no_closed_class_by_accident() {
    for own in ["/*", "/{page}", "/{a}/{b}", "/{a}/*", "/m*", "GET /*", "/api/*", "/{a}/{b}/{c}/{d}", "/a/*"]
    {
        for class in ["page", "asset", "api", "download", "admin"] {
            let keep = if class == "admin" { "" } else { "encoded_slash = \"keep\"\n" };
            let route = format!("[[site.route]]\nmatch = \"{own}\"\nclass = \"{class}\"\n{keep}");
            for (app, pages) in [("keepstack", &KEEPSTACK[..]), ("arkeep", &ARKEEP[..])] {
                let policy = policy(app, &route);
                for page in pages {
                    for spelling in spellings(page).iter().filter(|spelling| serves(spelling, page)) {
                        for method in [Method::GET, Method::POST] {
                            assert!(
                                is_closed(&policy, &method, spelling),
                                "{own} as {class} opens {method} {spelling} of {app}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_site_route_that_names_a_closed_page_itself_opens_it() {
    let policy = policy("keepstack", "[[site.route]]\nmatch = \"/docs/*\"\nclass = \"page\"\n");
    assert!(!is_closed(&policy, &Method::GET, "/docs/x"));
    assert!(is_closed(&policy, &Method::GET, "/metrics"));
}

/// One segment, spelt so that some router still takes it for itself.
fn disguised(segment: &'static str) -> impl Strategy<Value = String> {
    let letter = |byte: u8| {
        let char = char::from(byte);
        prop_oneof![
            4 => Just(char.to_string()),
            1 => Just(char.to_uppercase().to_string()),
            1 => Just(format!("%{byte:02x}")),
            1 => Just(format!("%{byte:02X}")),
            1 => Just(format!("%{:02x}", byte.to_ascii_uppercase())),
        ]
    };
    let letters: Vec<_> = segment.bytes().map(letter).collect();
    let before = prop_oneof![3 => Just(""), 1 => Just("/"), 1 => Just("./"), 1 => Just("x/../"), 1 => Just("x;y/..;z/"), 1 => Just("%2e/")];
    let after = prop_oneof![3 => Just(""), 1 => Just("/"), 1 => Just(";a=b"), 1 => Just("."), 1 => Just("%20"), 1 => Just("/."), 1 => Just("?x")];
    (before, letters, after)
        .prop_map(|(before, letters, after)| format!("{before}{}{after}", letters.concat()))
}

proptest! {
    #[test]
    fn folding_never_widens_what_is_closed(spelling in disguised("metrics"), below in "(/[a-z%0-9A-F;.]{0,8})?") {
        let policy = policy("arkeep", "");
        let target = format!("/{spelling}{below}");
        // Dots below may lead out again.
        if serves(&target, "/metrics") {
            prop_assert!(is_closed(&policy, &Method::GET, &target), "{}", target);
        }
    }

    #[test]
    fn what_is_forwarded_has_the_class_that_was_judged(path in "/[a-zA-Z0-9%./;~-]{0,30}") {
        let policy = policy("keepstack", "");
        if let Ok(views) = path.parse().map_err(drop).and_then(|target| PathViews::read(&target).map_err(drop)) {
            let class = |views: &PathViews| policy.site(0).unwrap().route(&Method::GET, views).unwrap().route.class;
            let forwarded = views.forwarded().unwrap_or(path.clone());
            let again = PathViews::read(&forwarded.parse().unwrap()).unwrap();
            prop_assert!(class(&views).strictness() >= class(&again).strictness(), "{} as {}", path, forwarded);
        }
    }
}
