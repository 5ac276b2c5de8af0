//! Promises of the warnings: each is given when it is true and only then, says what to do, and `check`, the start and
//! `status` say the same.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

mod common;

use std::net::TcpListener;
use std::path::Path;

use common::gate::{Config, Gate};
use common::raw;
use common::tokens::session;
use common::upstream::{OK, Upstream};
use common::{HOST, wait_until};
use portcullis::clock::Now;
use portcullis::config;
use portcullis::request::client::Client;
use portcullis::warnings::{Machine, Running, Warning, all};
use tokio::io::AsyncWriteExt;

const NOW: Now = Now { mono: 1, wall: 1_790_000_000_000 };

fn of(site: &str, machine: &Machine, running: Option<&Running>) -> Vec<Warning> {
    let text =
        format!("[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.test\"]\napp = \"keepstack\"\n{site}");
    let loaded = config::parse(Path::new("/etc/portcullis/portcullis.toml"), &text, NOW);
    all(&loaded.unwrap_or_else(|problems| panic!("{problems}")).settings, machine, running)
}

fn words(site: &str, machine: &Machine, running: Option<&Running>) -> Vec<&'static str> {
    let warnings = of(site, machine, running);
    for warning in &warnings {
        assert!(warning.what.len() > 20 && warning.remedy.len() > 10, "{warning}");
    }
    warnings.iter().map(|warning| warning.word).collect()
}

const LOCAL: &str = "upstream = \"http://127.0.0.1:8000\"\n";

#[test]
fn an_upstream_that_others_can_reach_is_warned_of() {
    let quiet = Machine::default();
    for (host, warned) in [
        ("203.0.113.5", true),
        ("[2001:db8::5]", true),
        ("10.0.0.5", false),
        ("192.168.1.5", false),
        ("100.64.0.5", false),
        ("[fd00::5]", false),
        ("127.0.0.1", false),
        ("localhost", false),
        ("keepstack", false),
    ] {
        let found = words(&format!("upstream = \"http://{host}:8000\"\n"), &quiet, None);
        assert_eq!(found == ["upstream_public"], warned, "{host}: {found:?}");
    }
    let route = format!(
        "{LOCAL}[[site.route]]\nmatch = \"/x\"\nclass = \"api\"\nupstream = \"http://203.0.113.5:1\"\n"
    );
    assert_eq!(words(&route, &quiet, None), ["upstream_public"]);
}

#[test]
fn an_application_that_listens_on_all_addresses_is_warned_of() {
    let on = |address: &str, port| Machine {
        listening: vec![(address.parse().unwrap(), port)],
        ..Machine::default()
    };
    for (machine, warned) in [
        (on("0.0.0.0", 8000), true),
        (on("::", 8000), true),
        (on("127.0.0.1", 8000), false),
        (on("0.0.0.0", 8001), false),
        (Machine::default(), false),
    ] {
        assert_eq!(words(LOCAL, &machine, None) == ["upstream_exposed"], warned, "{machine:?}");
    }
}

#[test]
fn a_state_that_forgets_or_is_new_is_warned_of() {
    let volatile = Machine { volatile: Some("memory (tmpfs)"), ..Machine::default() };
    assert_eq!(words(LOCAL, &volatile, None), ["state_volatile"]);
    let fresh = Running { fresh: true, ..Running::default() };
    assert_eq!(words(LOCAL, &Machine::default(), Some(&fresh)), ["state_fresh"]);
    assert!(words(LOCAL, &Machine::default(), Some(&Running::default())).is_empty());
}

#[test]
fn a_proxy_that_hides_its_clients_is_warned_of() {
    let from = |clients: &[(&str, usize)]| {
        let clients =
            clients.iter().map(|(address, count)| (Client::Address(address.parse().unwrap()), *count));
        let running = Running { clients: clients.collect(), ..Running::default() };
        words(LOCAL, &Machine::default(), Some(&running)) == ["one_client"]
    };
    assert!(from(&[("172.17.0.1", 100)]) && from(&[("127.0.0.1", 5000)]));
    assert!(!from(&[("172.17.0.1", 99)]), "too few to tell");
    assert!(!from(&[("203.0.113.7", 5000)]), "a public one is a visitor");
    assert!(!from(&[("172.17.0.1", 5000), ("203.0.113.7", 1)]) && !from(&[]));
}

#[test]
fn lifetimes_of_tokens_that_cannot_be_right_are_warned_of() {
    let short = format!("{LOCAL}[site.tokens]\nlifetime = \"24h\"\n");
    assert_eq!(words(&short, &Machine::default(), None), ["lifetime_short"]);
    assert!(
        words(&format!("{LOCAL}[site.tokens]\nlifetime = \"200h\"\n"), &Machine::default(), None).is_empty()
    );
    let seen =
        |hours: u64| Running { lifetimes: vec![("a.test".into(), hours * 3600)], ..Running::default() };
    assert!(words(LOCAL, &Machine::default(), Some(&seen(168))).is_empty());
    let warnings = of(LOCAL, &Machine::default(), Some(&seen(720)));
    assert_eq!(warnings[0].word, "lifetime_seen");
    assert!(warnings[0].remedy.contains("lifetime = \"720h\""), "{}", warnings[0]);
}

#[test]
fn a_download_host_of_the_same_domain_is_warned_of_where_cookies_count() {
    let with = |app: &str, host: &str| {
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"files.example.com\"]\napp = \"{app}\"\n{LOCAL}\
             download_host = \"{host}\"\n"
        );
        let loaded = config::parse(Path::new("/etc/portcullis/portcullis.toml"), &text, NOW).unwrap();
        all(&loaded.settings, &Machine::default(), None)
    };
    for (app, host, warned) in [
        ("generic", "dl.example.com", true),
        ("generic", "dl.files.example.com", true),
        ("generic", "example-downloads.com", false),
        ("keepstack", "dl.example.com", false),
    ] {
        let warnings = with(app, host);
        let found = warnings.iter().any(|warning| warning.word == "download_host_same_site");
        assert_eq!(found, warned, "{app} {host}: {warnings:?}");
    }
}

#[test]
fn a_token_that_makes_no_companion_cookie_is_warned_of() {
    let seen = Running { long_tokens: vec!["a.test".into()], ..Running::default() };
    assert_eq!(words(LOCAL, &Machine::default(), Some(&seen)), ["companion_too_long"]);
}

#[test]
fn root_is_warned_of_where_it_runs_not_where_it_checks() {
    let root = Machine { root: true, ..Machine::default() };
    assert!(words(LOCAL, &root, None).is_empty());
    assert_eq!(words(LOCAL, &root, Some(&Running::default())), ["root"]);
}

#[test]
fn a_log_without_its_directory_is_warned_of_before_the_start_fails() {
    let gone = Machine { no_log_directory: Some("/nowhere".into()), ..Machine::default() };
    assert_eq!(words(LOCAL, &gone, None), ["log_directory_missing"]);
    let log = format!("{LOCAL}[log]\naccess = \"/no/such/directory/access.log\"\n");
    assert!(words(&log, &Machine::default(), None).is_empty(), "of a machine that is not looked at");
    let text = format!("[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.test\"]\n{log}");
    let loaded = config::parse(Path::new("/etc/portcullis/portcullis.toml"), &text, NOW).unwrap();
    let seen = Machine::look(&loaded.settings);
    assert_eq!(seen.no_log_directory.as_deref(), Some(Path::new("/no/such/directory")));
}

#[tokio::test]
async fn status_names_an_upstream_that_is_down_and_a_log_that_takes_nothing() {
    let [nobody] = common::gate::free_addresses();
    let gate = Config { site: "[log]\naccess = \"/dev/full\"".into(), ..Default::default() }.start(nobody);
    assert!(!text(&gate, &["status"]).contains("was not reached"), "nobody has tried yet");
    assert_eq!(gate.ask("GET /", "", b"").await.status, 502);
    let says = |word: &str| wait_until(raw::LIMIT, || text(&gate, &["status"]).contains(word));
    assert!(says(&format!("the upstream http://{nobody} of files.test was not reached")));
    assert!(says("the access log cannot be written"), "{}", gate.errors());
}

fn text(gate: &Gate, arguments: &[&str]) -> String {
    let told = gate.cli(arguments.iter().copied());
    assert!(told.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap()
}

#[test]
fn check_the_start_and_status_say_the_same() {
    let application = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = ([127, 0, 0, 1], application.local_addr().unwrap().port()).into();
    let site = "[site.tokens]\nlifetime = \"24h\"\n";
    let gate = Config { site: site.into(), ..Config::default() }.start(address);
    let file = gate.config().display().to_string();
    let places = [text(&gate, &["check", &file]), gate.errors(), text(&gate, &["status"])];
    let what = ["listens on all addresses of this machine", "shorter than the 168h of Keepstack"];
    let remedies = ["bind the application to 127.0.0.1", "what the application is configured to"];
    for words in what.iter().chain(&remedies) {
        assert!(places.iter().all(|place| place.contains(words)), "{words}: {places:#?}");
    }
    let json: serde_json::Value = serde_json::from_str(&text(&gate, &["check", "--json", &file])).unwrap();
    assert!(json["warnings"].to_string().contains(what[0]), "{json}");
    for place in &places[1..] {
        assert!(place.contains("was new at the start"), "{place}");
    }
}

#[tokio::test]
async fn what_only_traffic_shows_is_in_status() {
    let token = session(7);
    let body = format!(r#"{{"token":"{token}","user":{{}}}}"#);
    let upstream = Upstream::by_request(move |request| match &*request.target {
        "/api/auth/login" => format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
        _ => OK.to_vec(),
    });
    let config = Config {
        listen: "trusted_proxies = [\"127.0.0.1/32\"]".into(),
        site: "[site.tokens]\nlifetime = \"24h\"\n".into(),
        ..Config::default()
    };
    let gate = config.start(upstream.address);
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 172.17.0.1\r\n\r\n");
    let mut stream = gate.connect().await;
    for _ in 0..120 {
        assert_eq!(raw::ask(&mut stream, head.as_bytes()).await.status, 200);
    }
    stream.shutdown().await.unwrap();
    let status = text(&gate, &["status"]);
    assert!(status.contains("from one private address, 172.17.0.1"), "{status}");
    assert!(!status.contains("has handed out a token"), "{status}");

    let fields = "X-Forwarded-For: 203.0.113.7\r\nContent-Type: application/json\r\n";
    let answer = gate.ask("POST /api/auth/login", fields, br#"{"username":"a","password":"b"}"#).await;
    assert_eq!(answer.status, 200);
    assert!(wait_until(raw::LIMIT, || text(&gate, &["status"]).contains("lifetime = \"168h\"")));
    let status = text(&gate, &["status"]);
    assert!(!status.contains("one private address"), "{status}");
}
