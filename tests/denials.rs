//! Promises of the gateway's memory: what was refused is listed and explained, what a request carried can be blocked, an
//! account found, a door opened for a while; no client pushes the others out, and no secret shows.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

mod common;

use std::fmt::Write as _;

use common::gate::{Config, Gate};
use common::raw::{self, LIMIT};
use common::strict::Request;
use common::tokens::{self, session};
use common::upstream::{OK, Upstream};
use common::{HOST, wait_for, wait_until};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

/// A budget that does not fill up again, one that only counts, a place where nobody listens.
const SITE: &str = "[site.rate.login]\nrefill = \"1/h\"\nburst = 1\n\
    [[site.route]]\nmatch = \"/gone\"\nclass = \"api\"\nupstream = \"http://127.0.0.1:1\"\n\
    [[site.route]]\nmatch = \"/watched\"\nclass = \"login\"\nobserve = [\"rate\"]\n";
/// Clients are who `X-Forwarded-For` says.
const PROXY: &str = "trusted_proxies = [\"127.0.0.1/32\"]";

fn proxied(site: &str, upstream: &Upstream) -> Gate {
    Config { listen: PROXY.into(), site: site.into(), ..Config::default() }.start(upstream.address)
}

fn from(address: &str) -> String {
    format!("X-Forwarded-For: {address}\r\n")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A verb: its exit code, and all that it has written.
fn told(gate: &Gate, arguments: &[&str]) -> (i32, String) {
    let told = gate.cli(arguments.iter().copied());
    let text = format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    (told.status.code().unwrap_or(-1), text)
}

fn done(gate: &Gate, arguments: &[&str]) -> String {
    let (code, text) = told(gate, arguments);
    assert_eq!(code, 0, "{arguments:?}: {text}");
    text
}

fn json(gate: &Gate, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(gate, arguments)).unwrap()
}

fn denials(gate: &Gate, more: &[&str]) -> Vec<Value> {
    let all = json(gate, &[&["denials", "--json"], more].concat());
    assert_eq!(all["schema"], 1);
    all["denials"].as_array().unwrap().clone()
}

fn id(answer: &raw::Answer) -> String {
    answer.header("x-request-id").unwrap_or_else(|| panic!("no id: {}", answer.head)).to_owned()
}

#[tokio::test]
async fn what_was_refused_is_listed_and_explained_with_its_cause_and_remedy() {
    let upstream = Upstream::answering(OK);
    let gate = proxied(SITE, &upstream);
    let one = from("203.0.113.7");
    assert_eq!(gate.ask("POST /api/auth/login", &one, b"{}").await.status, 200);
    assert_eq!(gate.ask("GET /watched", &one, b"").await.status, 200, "the rate only counts there");
    let mut ids = Vec::new();
    for (line, status, words) in [
        ("POST /api/auth/login", 429, &["rate: rate_limited", "[site.rate.CLASS]"][..]),
        ("GET /metrics?x=1", 404, &["allowlist: not_allowlisted", "allow setup", "/metrics?x=1"]),
        ("GET /a%00b", 400, &["malformed: path", "encoded_slash"]),
        ("GET /watched", 200, &["would: rate: rate_limited", "permitted"]),
        ("GET /gone", 502, &["no connection to the upstream", "is it running"]),
        ("GET /fine", 200, &["permitted", "/*"]),
    ] {
        let answer = gate.ask(line, &one, b"").await;
        assert_eq!(answer.status, status, "{line}");
        let told = done(&gate, &["explain", "--id", &id(&answer)]);
        for word in words {
            assert!(told.contains(word), "{line}: {word} is not in\n{told}");
        }
        ids.push((line, id(&answer)));
    }
    let other = raw::ask(
        &mut gate.connect().await,
        format!("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n{one}\r\n").as_bytes(),
    )
    .await;
    assert_eq!(other.status, 421);
    let misdirected = done(&gate, &["explain", "--id", &id(&other)]);
    assert!(misdirected.contains("host: misdirected") && misdirected.contains("`hosts`"), "{misdirected}");

    let listed: Vec<String> =
        denials(&gate, &[]).iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    let mut wanted: Vec<String> = ids.iter().take(4).map(|(_, id)| id.clone()).collect();
    wanted.push(id(&other));
    assert!(wanted.iter().all(|id| listed.contains(id)), "{wanted:?} in {listed:?}");
    assert_eq!(listed.len(), 5, "what was permitted or failed upstream is no denial");
    assert!(
        denials(&gate, &["--client", "203.0.113.0/24"]).len() == 5
            && denials(&gate, &["--client", "::1"]).is_empty()
    );
    assert!(denials(&gate, &["--since", "1h"]).len() == 5);
    assert_eq!(told(&gate, &["denials", "--client", "nobody"]).0, 2);
    assert_eq!(told(&gate, &["denials", "--since", "soon"]).0, 2);
    let shown = done(&gate, &["denials"]);
    assert!(shown.starts_with("TIME") && shown.contains("would: rate: rate_limited"), "{shown}");

    let (code, gone) = told(&gate, &["explain", "--id", "0123456789abcdef"]);
    assert!(code == 1 && gone.contains("no longer remembered") && gone.contains("access log"), "{gone}");
    assert_eq!(told(&gate, &["explain", "--id", "not an id"]).0, 2);
}

#[tokio::test]
async fn a_flood_from_one_client_pushes_nobody_elses_refusals_out() {
    let upstream = Upstream::answering(OK);
    let gate = proxied("", &upstream);
    let mut quiet = Vec::new();
    for number in 1..=5 {
        let answer = gate.ask("GET /metrics", &from(&format!("203.0.113.{number}")), b"").await;
        quiet.push(id(&answer));
    }
    // More than all workers can remember, each on a connection of its own, so that every worker has some.
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let flood = format!("GET /metrics HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n");
    let mut floods = Vec::new();
    for _ in 0..4 * workers {
        let mut stream = gate.connect().await;
        let flood = flood.clone();
        floods.push(tokio::spawn(async move {
            for _ in 0..700 {
                assert_eq!(raw::ask(&mut stream, flood.as_bytes()).await.status, 404);
            }
        }));
    }
    for flood in floods {
        flood.await.unwrap();
    }
    for id in &quiet {
        assert!(done(&gate, &["explain", "--id", id]).contains("not_allowlisted"));
    }
    let all = denials(&gate, &[]);
    assert!(all.len() <= 1024 * workers, "{} are remembered", all.len());
}

#[tokio::test]
async fn block_request_blocks_what_the_request_carried() {
    let upstream = Upstream::answering(OK);
    let gate = proxied("", &upstream);
    let token = session(7);
    let with_token = gate.ask("GET /api/assets", &bearer(&token), b"").await;
    let share = gate.ask("GET /s/Sh4reT0ken/file", "", b"").await;
    let bare = gate.ask("GET /api/assets", &from("203.0.113.9"), b"").await;
    assert_eq!((with_token.status, share.status, bare.status), (200, 200, 200));

    let blocked = done(&gate, &["block", "request", &id(&with_token), "--reason", "from a log line"]);
    assert!(blocked.starts_with("BLOCKED: fingerprint") && blocked.contains("subject 7"), "{blocked}");
    assert_eq!(gate.ask("GET /api/assets", &bearer(&token), b"").await.status, 401);
    assert_eq!(gate.ask("GET /api/assets", &bearer(&session(8)), b"").await.status, 200);
    let until = json(&gate, &["blocks", "--json"])["blocks"][0]["until"].as_u64().unwrap() / 1000;
    assert!(until.abs_diff(tokens::now() + 604_800) < 900, "it ends with the token: {until}");

    let blocked = done(&gate, &["block", "request", &id(&share)]);
    assert!(blocked.starts_with("BLOCKED: share"), "{blocked}");
    assert_eq!(gate.ask("GET /s/Sh4reT0ken", "", b"").await.status, 404);
    assert_eq!(gate.ask("GET /s/an0ther", "", b"").await.status, 200);

    let (code, refused) = told(&gate, &["block", "request", &id(&bare)]);
    assert!(code == 5 && refused.contains("`portcullis block address 203.0.113.9`"), "{refused}");
    let (code, unknown) = told(&gate, &["block", "request", "0123456789abcdef"]);
    assert!(
        code == 1 && unknown.contains("NOT DONE") && unknown.contains("no longer remembered"),
        "{unknown}"
    );
}

#[tokio::test]
async fn block_log_takes_the_hash_that_the_access_log_shows() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let (stolen, own) = (session(7), session(8));
    let lines = || {
        gate.log().lines().filter(|line| line.contains("\"token\"")).map(str::to_owned).collect::<Vec<_>>()
    };
    // One after the other: workers write in no order.
    for (number, token) in [&stolen, &own].into_iter().enumerate() {
        assert_eq!(gate.ask("GET /api/assets", &bearer(token), b"").await.status, 200);
        assert!(wait_until(LIMIT, || lines().len() == number + 1), "{}", gate.log());
    }
    let first: Value = serde_json::from_str(&lines()[0]).unwrap();
    let hash = first["token"].as_str().unwrap();
    assert!(hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    let blocked = done(&gate, &["block", "log", hash]);
    assert!(blocked.starts_with("BLOCKED: fingerprint"), "{blocked}");
    assert_eq!(gate.ask("GET /api/assets", &bearer(&stolen), b"").await.status, 401);
    assert_eq!(gate.ask("GET /api/assets", &bearer(&own), b"").await.status, 200);

    // The hash of a share link, as a request's explanation shows it, whole or its beginning.
    let share = gate.ask("GET /s/Sh4reT0ken", "", b"").await;
    let record = json(&gate, &["explain", "--json", "--id", &id(&share)]);
    let hash = record["request"]["share"].as_str().unwrap().to_owned();
    assert!(done(&gate, &["block", "log", &hash[..12]]).starts_with("BLOCKED: share"));
    assert_eq!(gate.ask("GET /s/Sh4reT0ken", "", b"").await.status, 404);

    let (code, unknown) = told(&gate, &["block", "log", "0123456789ab"]);
    assert!(code == 1 && unknown.contains("block request") && unknown.contains("block token -"), "{unknown}");
    for wrong in ["0123", "not hex at al", "eyJhbGciOiJI"] {
        assert_eq!(told(&gate, &["block", "log", wrong]).0, 2, "{wrong}");
    }
}

/// Keepstack's login: the password is the name backwards; each name is a subject by its length.
fn application(request: &Request) -> Vec<u8> {
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    if request.target != "/api/auth/login" {
        return OK.to_vec();
    }
    assert_eq!(request.header("accept-encoding"), None, "its answer could not be read");
    // As Python reads it: of two the last counts.
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let name = body["username"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() || body["password"].as_str() != Some(&name.chars().rev().collect::<String>()) {
        let token = session(name.len() as u64);
        return answer(
            "401 Unauthorized",
            &format!(r#"{{"detail":"Invalid credentials","token":"{token}"}}"#),
        );
    }
    let token = session(name.len() as u64);
    answer("200 OK", &format!(r#"{{"token":"{token}","user":{{"username":"{name}"}}}}"#))
}

async fn login(gate: &Gate, body: &str) -> raw::Answer {
    let fields = "Content-Type: application/json\r\nAccept-Encoding: gzip\r\n";
    gate.ask("POST /api/auth/login", fields, body.as_bytes()).await
}

fn token_in(answer: &raw::Answer) -> String {
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    json["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn block_account_ends_the_sessions_of_who_logged_in_by_that_name_also_after_a_restart() {
    let upstream = Upstream::by_request(application);
    let mut gate = Gate::start("[site.rate.login]\nrefill = \"1000/s\"\nburst = 1000\n", upstream.address);
    let body = r#"{ "username":"al\u0069ce", "password":"ecila" }"#;
    let answer = login(&gate, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let token = token_in(&answer);
    assert_eq!(upstream.requests()[0].body, body.as_bytes(), "it goes on byte for byte");
    assert_eq!(gate.ask("GET /api/assets", &bearer(&token), b"").await.status, 200);

    // What is learned reaches the disk within seconds.
    let store = gate.state().join("blocks.redb");
    let written = || std::fs::read(&store).unwrap().windows(5).any(|window| window == b"alice");
    assert!(wait_for(LIMIT, written).await, "it was not written down");
    gate.kill();
    gate.start_again();
    let blocked = done(&gate, &["block", "account", "alice"]);
    assert!(blocked.starts_with("BLOCKED: subject 5") && blocked.contains("alice is subject 5"), "{blocked}");
    assert_eq!(gate.ask("GET /api/assets", &bearer(&token), b"").await.status, 401);
    assert_eq!(gate.ask("GET /api/assets", &bearer(&session(9)), b"").await.status, 200);
    let refused = denials(&gate, &["--account", "alice"]);
    assert_eq!((refused.len(), &refused[0]["reason"]), (1, &Value::from("token_blocked")));
    let (code, unknown) = told(&gate, &["block", "account", "nobody"]);
    assert!(code == 1 && unknown.contains("block subject"), "{unknown}");
    assert_eq!(told(&gate, &["denials", "--account", "nobody"]).0, 1);
}

#[tokio::test]
async fn only_a_login_that_succeeded_teaches_and_nobody_is_learned_as_somebody_else() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start("[site.rate.login]\nrefill = \"1000/s\"\nburst = 1000\n", upstream.address);
    assert_eq!(login(&gate, r#"{"username":"victim","password":"wrong"}"#).await.status, 401);
    // Whoever logs in as himself while the body also names somebody else: the application never hears of it.
    for body in [
        r#"{"username":"victim","username":"me","password":"em"}"#,
        r#"{"Username":"victim","username":"me","password":"em"}"#,
    ] {
        assert_eq!(login(&gate, body).await.status, 400, "{body}");
    }
    let padded = format!(r#"{{"username":"victim","pad":"{}","password":"mitciv"}}"#, "x".repeat(16 << 10));
    assert_eq!(login(&gate, &padded).await.status, 413, "over the limit of the class");
    let plain = gate
        .ask(
            "POST /api/auth/login",
            "Content-Type: text/plain\r\n",
            br#"{"username":"victim","password":"mitciv"}"#,
        )
        .await;
    assert_eq!(plain.status, 200);
    for name in ["victim", "me"] {
        assert_eq!(told(&gate, &["block", "account", name]).0, 1, "{name} was learned");
    }
    assert_eq!(login(&gate, r#"{"username":"victim","password":"mitciv"}"#).await.status, 200);
    assert!(
        done(&gate, &["block", "account", "VICTIM"]).contains("victim is subject 6"),
        "in any case of letters"
    );
}

#[tokio::test]
async fn an_account_is_learned_from_the_claim_of_a_refreshed_token_too() {
    let token = tokens::jwt(&format!(
        r#"{{"sub":"0b5e","email":"bob@a.test","jti":"j1","iat":{},"exp":{}}}"#,
        tokens::now() - 5,
        tokens::now() + 900
    ));
    let body = format!(r#"{{"data":{{"access_token":"{token}","expires_in":899}}}}"#);
    let upstream = Upstream::by_request(move |request| match &*request.target {
        "/api/v1/auth/refresh" => format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
        _ => OK.to_vec(),
    });
    let gate = Config { app: "arkeep".into(), ..Config::default() }.start(upstream.address);
    assert_eq!(told(&gate, &["block", "account", "bob@a.test"]).0, 1);
    let cookie = "Cookie: arkeep_refresh_token=00ff\r\n";
    assert_eq!(gate.ask("POST /api/v1/auth/refresh", cookie, b"").await.status, 200);
    let blocked = done(&gate, &["block", "account", "bob@a.test"]);
    assert!(blocked.contains("bob@a.test is subject 0b5e") && blocked.contains("--and-logins"), "{blocked}");
}

#[tokio::test]
async fn allow_opens_setup_for_one_network_for_a_while_on_all_workers_and_no_longer() {
    let upstream = Upstream::answering(OK);
    let config = Config { app: "arkeep".into(), listen: PROXY.into(), ..Config::default() };
    let mut gate = config.start(upstream.address);
    let ask = async |gate: &Gate, address: &str| {
        gate.ask("POST /api/v1/setup/complete", &from(address), b"{}").await.status
    };
    assert_eq!(ask(&gate, "203.0.113.9").await, 404);
    let opened =
        done(&gate, &["allow", "setup", "--from", "203.0.113.9", "--for", "15m", "--reason", "first run"]);
    assert!(opened.starts_with(&format!("OPEN: setup of {HOST} for 203.0.113.9/32")), "{opened}");
    // New connections reach every worker in turn.
    for _ in 0..4 {
        assert_eq!(ask(&gate, "203.0.113.9").await, 200);
    }
    assert_eq!(ask(&gate, "203.0.113.10").await, 404);
    let metrics = gate.ask("GET /metrics", &from("203.0.113.9"), b"").await;
    assert_eq!(metrics.status, 404, "only setup is open");
    // What rebuilds the blocks or the policy closes nothing.
    done(&gate, &["block", "subject", "x"]);
    done(&gate, &["unblock", "1"]);
    done(&gate, &["reload"]);
    let status = done(&gate, &["status"]);
    assert!(status.contains("open     setup of") && status.contains("203.0.113.9/32"), "{status}");
    let shown = &json(&gate, &["status", "--json"])["status"]["holes"][0];
    assert!(shown["until"].as_u64().unwrap() / 1000 > tokens::now() + 800, "{shown}");
    let audit = std::fs::read_to_string(gate.state().join("audit.log")).unwrap();
    assert!(audit.contains("\"action\":\"allow\"") && audit.contains("first run"), "{audit}");

    done(&gate, &["allow", "setup", "--from", "203.0.113.9", "--for", "1s"]);
    assert!(
        common::wait_until_async(LIMIT, async || ask(&gate, "203.0.113.9").await == 404).await,
        "it ends by itself"
    );
    assert!(wait_until(LIMIT, || !done(&gate, &["status"]).contains("open  ")));

    for (arguments, code, word) in [
        (&["allow", "metrics", "--from", "203.0.113.9"][..], 2, "only_from"),
        (&["allow", "setup", "--from", "203.0.113.9", "--for", "25h"], 2, "24h"),
        (&["allow", "setup", "--from", "203.0.113.9", "--for", "0s"], 2, ""),
        (&["allow", "setup", "--from", "0.0.0.0/0"], 5, "--yes"),
        (&["allow", "setup", "--from", "nowhere"], 2, ""),
        (&["allow", "setup", "--from", "203.0.113.9", "--site", "other.test"], 2, "no site"),
    ] {
        let (was, text) = told(&gate, arguments);
        assert!(was == code && text.contains(word), "{arguments:?}: {was} {text}");
    }
    done(&gate, &["allow", "setup", "--from", "0.0.0.0/0", "--yes"]);
    assert_eq!(ask(&gate, "203.0.113.10").await, 200);
    gate.kill();
    gate.start_again();
    assert_eq!(ask(&gate, "203.0.113.10").await, 404, "a restart closes it");
}

#[tokio::test]
async fn no_secret_shows_in_what_is_remembered() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start(SITE, upstream.address);
    let token = session(7);
    let opaque = "SECRET-opaque-token";
    let mut asked = Vec::new();
    for (line, fields, body) in [
        (
            "POST /api/auth/login",
            "Content-Type: application/json\r\n".to_owned(),
            r#"{"username":"alice","password":"ecila-SECRET"}"#,
        ),
        (
            "POST /api/auth/login",
            "Content-Type: application/json\r\n".to_owned(),
            r#"{"username":"alice","password":"ecila-SECRET"}"#,
        ),
        ("GET /metrics?token=SECRET-query", bearer(&token), ""),
        ("GET /metrics", bearer(opaque), ""),
        ("GET /s/SECRET-share/file", String::new(), ""),
        ("GET /s/SECRET-share%00", String::new(), ""),
        ("GET /gone?access_token=SECRET", format!("Cookie: sid=SECRET\r\n{}", bearer(&token)), ""),
        ("GET /api/x", bearer(&format!("{token}.SECRET")), ""),
        ("GET /metrics/\u{1b}[2J", String::new(), ""),
    ] {
        let mut stream = gate.connect().await;
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head =
            format!("{line} HTTP/1.1\r\nHost: {HOST}:{}\r\n{fields}{length}\r\n{body}", gate.https.port());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let answer = tokio::time::timeout(LIMIT, raw::read_answer(&mut stream, false)).await.unwrap();
        asked.extend(answer.header("x-request-id").map(str::to_owned));
    }
    let mut all = String::new();
    let mut say = |arguments: &[&str]| {
        let (code, text) = told(&gate, arguments);
        write!(all, "{arguments:?} {code}\n{text}").unwrap();
    };
    say(&["denials"]);
    say(&["denials", "--json"]);
    for id in &asked {
        say(&["explain", "--id", id]);
        say(&["explain", "--json", "--id", id]);
        say(&["block", "request", id]);
    }
    say(&["block", "account", "alice", "--json"]);
    say(&["blocks"]);
    say(&["status"]);
    let signature = token.rsplit_once('.').unwrap().1;
    for secret in ["SECRET", signature, &token, "\u{1b}"] {
        assert!(!all.contains(secret), "{secret:?} in {all}");
    }
    assert!(asked.len() >= 8 && all.contains("BLOCKED: share") && all.contains("***"), "{all}");
}
