//! Observing: what guards would refuse is counted and said, and let through; what always enforces does so.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::fs;

use common::gate::{Config, Gate};
use common::http2::Client;
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_for};
use serde_json::Value;

/// Each client is somebody, and only some may reach the API; everything has a limit that is soon passed.
const SITE: &str = "[site.only_from]\napi = [\"203.0.113.0/24\"]\n[site.limits]\nbody = \"1KiB\"\n\
    [site.rate.login]\nrefill = \"1/h\"\nburst = 1\n";
const INSIDE: &str = "X-Forwarded-For: 203.0.113.7\r\n";
const OUTSIDE: &str = "X-Forwarded-For: 198.51.100.7\r\n";

fn gate(upstream: &Upstream, site: &str) -> Gate {
    Config { listen: "trusted_proxies = [\"127.0.0.1\"]\n".into(), site: site.into(), ..Config::default() }
        .start(upstream.address)
}

/// A request that one guard refuses.
struct Case {
    guard: &'static str,
    reason: &'static str,
    class: &'static str,
    line: &'static str,
    headers: String,
    body: usize,
    status: u16,
}

fn cases() -> Vec<Case> {
    let case = |guard, reason, class, line, headers: &str, body, status| Case {
        guard,
        reason,
        class,
        line,
        headers: headers.into(),
        body,
        status,
    };
    // Somebody else, who has his own budget.
    let foreign = "X-Forwarded-For: 203.0.113.8\r\nOrigin: https://evil.test\r\n";
    let script = format!("{INSIDE}Sec-Fetch-Dest: script\r\n");
    vec![
        case("allowlist", "not_allowlisted", "api", "GET /api/assets", OUTSIDE, 0, 404),
        case("browser", "cross_origin", "login", "POST /api/auth/login", foreign, 2, 403),
        case("browser", "cross_origin", "share_download", "GET /s/abc/file", &script, 0, 403),
        case("size", "body_too_large", "page", "POST /form", INSIDE, 2000, 413),
        // The one that may log in has done so.
        case("rate", "rate_limited", "login", "POST /api/auth/login", INSIDE, 2, 429),
    ]
}

async fn ask(gate: &Gate, case: &Case) -> raw::Answer {
    // What is no JSON would be refused by the login guard, which is not meant.
    let body = if case.class == "login" { b"{}".to_vec() } else { vec![b'x'; case.body] };
    gate.ask(case.line, &case.headers, &body).await
}

/// The counter of a case; `family` is `denials` or `would_deny`.
fn count(gate: &Gate, family: &str, case: &Case) -> f64 {
    let Case { guard, reason, class, .. } = case;
    let series = format!(
        "portcullis_{family}_total{{class=\"{class}\",guard=\"{guard}\",reason=\"{reason}\",site=\"{HOST}\"}}"
    );
    gate.metric(&series).unwrap_or(0.0)
}

/// The line of an answer, once it is there.
async fn line_of(gate: &Gate, answer: &raw::Answer) -> Value {
    line_by_id(gate, answer.header("x-request-id").unwrap()).await
}

async fn line_by_id(gate: &Gate, id: &str) -> Value {
    assert!(wait_for(raw::LIMIT, || gate.log().contains(id)).await);
    let log = gate.log();
    serde_json::from_str(log.lines().find(|line| line.contains(id)).unwrap()).unwrap()
}

async fn spend_the_login(gate: &Gate) {
    assert_eq!(gate.ask("POST /api/auth/login", INSIDE, b"{}").await.status, 200);
}

/// Each case as `observed` says: refused and counted as a denial, or let through and counted as what would be one.
async fn assert_each(gate: &Gate, observed: impl Fn(&Case) -> bool) {
    for case in cases() {
        let before = (count(gate, "denials", &case), count(gate, "would_deny", &case));
        let answer = ask(gate, &case).await;
        let after = (count(gate, "denials", &case), count(gate, "would_deny", &case));
        let delta = (after.0 - before.0, after.1 - before.1);
        let line = line_of(gate, &answer).await;
        let name = format!("{} on {}: {line}", case.guard, case.line);
        let lets = observed(&case);
        assert_eq!(answer.status, if lets { 200 } else { case.status }, "{name}");
        assert_eq!(delta, if lets { (0.0, 1.0) } else { (1.0, 0.0) }, "{name}");
        assert_eq!(line["verdict"], if lets { "would_deny" } else { "deny" }, "{name}");
        assert_eq!((&line["guard"], &line["reason"]), (&case.guard.into(), &case.reason.into()), "{name}");
    }
}

#[tokio::test]
async fn each_guard_enforces_or_only_observes_as_the_site_says_and_a_reload_changes_it() {
    let upstream = Upstream::answering(OK);
    let gate = gate(&upstream, SITE);
    spend_the_login(&gate).await;
    assert_each(&gate, |_| false).await;
    let config = fs::read_to_string(gate.config()).unwrap();
    let observing = config.replace("[site.only_from]", "mode = \"observe\"\n[site.only_from]");
    fs::write(gate.config(), &observing).unwrap();
    assert!(gate.cli(["reload"]).status.success());
    assert_each(&gate, |_| true).await;
    fs::write(gate.config(), config).unwrap();
    assert!(gate.cli(["reload"]).status.success());
    assert_each(&gate, |_| false).await;
}

#[tokio::test]
async fn each_guard_alone_observes_on_the_route_that_names_it() {
    let upstream = Upstream::answering(OK);
    for guard in ["allowlist", "browser", "size", "values", "rate", "share"] {
        let routes = [
            ("/api/assets", "api"),
            ("/api/auth/login", "login"),
            ("/s/{token}/file", "share_download"),
            ("/form", "page"),
        ];
        let routes: String = routes
            .iter()
            .map(|(path, class)| {
                format!("[[site.route]]\nmatch = \"{path}\"\nclass = \"{class}\"\nobserve = [\"{guard}\"]\n")
            })
            .collect();
        let gate = self::gate(&upstream, &format!("{SITE}{routes}"));
        spend_the_login(&gate).await;
        assert_each(&gate, |case| case.guard == guard).await;
    }
}

#[tokio::test]
async fn blocks_malformed_requests_and_classes_that_are_closed_by_default_are_refused_in_observe_mode_too() {
    let upstream = Upstream::answering(OK);
    let site = SITE.replace(
        "[site.only_from]\n",
        "mode = \"observe\"\n[site.only_from]\nmetrics = [\"192.0.2.0/24\"]\n",
    );
    let gate = gate(&upstream, &format!("{site}[[site.route]]\nmatch = \"/closed/*\"\nclass = \"docs\"\n"));
    let token = "eyJzdWIiOiI3In0.c2lnbmF0dXJl";
    assert!(gate.cli_with(["block", "token", "-"], token).status.success());
    assert!(gate.cli(["block", "address", "198.51.100.9/32"]).status.success());
    for (line, headers, status, verdict, reason) in [
        ("GET /metrics", INSIDE.to_owned(), 404, "deny", "not_allowlisted"),
        ("POST /closed/x", INSIDE.to_owned(), 404, "deny", "not_allowlisted"),
        (
            "GET /api/assets",
            format!("{INSIDE}Authorization: Bearer {token}\r\n"),
            401,
            "deny",
            "token_blocked",
        ),
        ("GET /", "X-Forwarded-For: 198.51.100.9\r\n".to_owned(), 403, "deny", "address_blocked"),
        ("GET /%00", INSIDE.to_owned(), 400, "malformed", "path"),
    ] {
        let answer = gate.ask(line, &headers, b"").await;
        let said = line_of(&gate, &answer).await;
        assert_eq!(answer.status, status, "{said}");
        assert_eq!((&said["verdict"], &said["reason"]), (&verdict.into(), &reason.into()), "{said}");
    }
    assert!(upstream.bytes().is_empty(), "none of it reached the application");
}

#[tokio::test]
async fn a_body_over_its_limit_passes_whole_while_the_guard_observes_whether_it_says_its_length_or_not() {
    let upstream = Upstream::answering(OK);
    let gate = gate(&upstream, &format!("mode = \"observe\"\n{SITE}"));
    let case = cases().into_iter().find(|case| case.guard == "size").unwrap();
    let body = "y".repeat(5000);
    assert_eq!(gate.ask("POST /form", INSIDE, body.as_bytes()).await.status, 200);
    assert_eq!(count(&gate, "would_deny", &case), 1.0, "once, not again when it is over");
    let chunked = format!(
        "POST /form HTTP/1.1\r\nHost: {HOST}\r\n{INSIDE}Transfer-Encoding: chunked\r\n\r\n1388\r\n{body}\r\n0\r\n\r\n"
    );
    let answer = raw::ask(&mut gate.connect().await, chunked.as_bytes()).await;
    assert_eq!(answer.status, 200);
    let line = line_of(&gate, &answer).await;
    assert_eq!(
        (&line["verdict"], &line["guard"], &line["bytes_in"]),
        (&"would_deny".into(), &"size".into(), &5000.into())
    );
    let client = Client::connect(&gate).await;
    let (answer, mut stream) =
        client.open(client.head("POST", "/form").header("x-forwarded-for", "203.0.113.7"), false).await;
    stream.send_data(body.clone().into(), true).unwrap();
    let answer = common::http2::read(answer).await.unwrap();
    assert_eq!(answer.status, 200);
    let line = line_by_id(&gate, answer.headers["x-request-id"].to_str().unwrap()).await;
    assert_eq!((&line["verdict"], &line["guard"]), (&"would_deny".into(), &"size".into()));
    assert_eq!(count(&gate, "would_deny", &case), 3.0);
    assert!(upstream.requests().iter().all(|request| request.body.len() == 5000), "whole");
    // What is not too large is nothing to talk of.
    let small = format!(
        "POST /form HTTP/1.1\r\nHost: {HOST}\r\n{INSIDE}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let answer = raw::ask(&mut gate.connect().await, small.as_bytes()).await;
    assert_eq!(line_of(&gate, &answer).await["verdict"], "permit");
    assert_eq!(count(&gate, "would_deny", &case), 3.0);
}

#[tokio::test]
async fn a_body_that_passes_its_limit_on_the_way_is_counted_as_refused() {
    let upstream = Upstream::answering(OK);
    let gate = gate(&upstream, SITE);
    let case = cases().into_iter().find(|case| case.guard == "size").unwrap();
    let body = "y".repeat(5000);
    let chunked = format!(
        "POST /form HTTP/1.1\r\nHost: {HOST}\r\n{INSIDE}Transfer-Encoding: chunked\r\n\r\n1388\r\n{body}\r\n0\r\n\r\n"
    );
    let answer = raw::ask(&mut gate.connect().await, chunked.as_bytes()).await;
    assert_eq!(answer.status, 413);
    let line = line_of(&gate, &answer).await;
    assert_eq!(
        (&line["verdict"], &line["guard"], &line["reason"]),
        (&"deny".into(), &"size".into(), &"body_too_large".into())
    );
    assert_eq!(count(&gate, "denials", &case), 1.0);
}

#[tokio::test]
async fn explain_says_what_would_be_denied_and_charges_nothing() {
    let upstream = Upstream::answering(OK);
    let gate = gate(&upstream, &format!("mode = \"observe\"\n{SITE}"));
    let url = format!("https://{HOST}:{}/api/assets", gate.https.port());
    let asked = format!("GET {url}");
    let told = gate.cli(["explain", &asked, "--from", "198.51.100.7"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("allowlist would deny: not_allowlisted"), "{told}");
    assert!(told.contains("forwarded to") && told.contains("only observes here"), "{told}");
    let json = gate.cli(["explain", &asked, "--from", "198.51.100.7", "--json"]);
    assert!(String::from_utf8(json.stdout).unwrap().contains("\"would_deny\""));
    let closed = gate.cli([
        "explain",
        &format!("GET https://{HOST}:{}/metrics", gate.https.port()),
        "--from",
        "198.51.100.7",
    ]);
    let closed = String::from_utf8(closed.stdout).unwrap();
    assert!(
        closed.contains("allowlist deny: not_allowlisted") && closed.contains("refused with 404"),
        "{closed}"
    );
    let text = gate.admin("/metrics").unwrap();
    assert!(!text.contains("portcullis_would_deny_total{"), "asking counts nothing");
    assert!(text.contains("# HELP portcullis_denials_total") || !text.contains("portcullis_denials_total{"));
}

#[test]
fn what_always_enforces_cannot_be_named_and_the_config_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let check = |class: &str, guard: &str| {
        let path = dir.path().join("portcullis.toml");
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"{HOST}\"]\nupstream = \"http://127.0.0.1:1\"\n\
             [[site.route]]\nmatch = \"/x\"\nclass = \"{class}\"\nobserve = [\"{guard}\"]\n"
        );
        fs::write(&path, text).unwrap();
        portcullis::config::load(&path).map(|_| ()).map_err(|problems| problems.to_string())
    };
    for (class, guard, why) in [
        ("metrics", "allowlist", "class `metrics` is closed by default"),
        ("api", "blocks", "an operator's block holds everywhere"),
        ("api", "malformed", "cannot be judged"),
    ] {
        let told = check(class, guard).unwrap_err();
        assert!(told.contains("always enforces") && told.contains(why), "{told}");
        assert!(
            told.contains("what may observe is verify, members, browser, size, values, rate, share"),
            "{told}"
        );
    }
    let told = check("api", "rat").unwrap_err();
    assert!(told.contains("`rat` is not known") && told.contains("did you mean `rate`?"), "{told}");
    for guard in ["allowlist", "browser", "size", "values", "rate", "share"] {
        check("admin", guard).unwrap_or_else(|told| panic!("{told}"));
    }
}
