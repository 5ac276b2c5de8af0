//! Promises of the download host and of the companion cookie.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::chromium::{Chromium, Opened, Tab};
use common::gate::{Config, Gate};
use common::raw::{self, Answer};
use common::strict::Request;
use common::tokens::session;
use common::upstream::Upstream;
use common::{HOST, wait_for, wait_until};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DL: &str = "dl.test";
const FILE: &str = "/api/assets/7/file";
const THUMB: &str = "/api/assets/7/thumb";
const WHOLE: &str =
    "download_host = \"dl.test\"\n[site.tokens]\ncompanion_cookie = true\npreviews = \"members\"\n";
const NAVIGATE: &str = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
const COOKIE: &str = "__Host-portcullis-companion";
/// A picture of one pixel.
const PIXEL: &str = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7";

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// As Keepstack: a token for the name, files for who has one, thumbs for everybody.
fn application(request: &Request) -> Vec<u8> {
    let path = request.target.split('?').next().unwrap();
    let json = "Content-Type: application/json\r\n";
    match path {
        "/api/auth/login" if request.body.starts_with(b"{\"username\":\"wrong") => {
            answer("401 Unauthorized", json, b"{}")
        }
        "/api/auth/login" => {
            let name = String::from_utf8_lossy(&request.body);
            let subject = name.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(1);
            let token = if name.contains("long") { "x".repeat(4000) } else { session(subject) };
            answer("200 OK", json, json!({ "token": token, "user": {} }).to_string().as_bytes())
        }
        "/s/abc" => {
            let page = b"<!doctype html><title>share</title><a href=\"/s/abc/file\"><h1>get it</h1></a>";
            answer("200 OK", "Content-Type: text/html\r\n", page)
        }
        "/logout" => answer("200 OK", json, b"{}"),
        THUMB => answer("200 OK", "Content-Type: image/gif\r\n", &STANDARD.decode(PIXEL).unwrap()),
        "/api/moved/file" => answer("302 Found", "Location: /login?next=x\r\n", b""),
        _ if path.ends_with("/file") => file(request, path),
        _ => answer("200 OK", "Content-Type: text/html\r\n", b"<!doctype html><title>page</title>"),
    }
}

fn file(request: &Request, path: &str) -> Vec<u8> {
    if path.starts_with("/api/") && request.header("authorization").is_none() {
        return answer("401 Unauthorized", "", b"{\"detail\":\"Authentication required\"}");
    }
    let headers = "Content-Type: text/html\r\nContent-Disposition: inline; filename=\"a.html\"\r\nETag: \"1\"\r\n\
                   Set-Cookie: session=planted\r\nAccess-Control-Allow-Origin: *\r\n";
    match request.header("range") {
        Some(_) => answer("206 Partial Content", &format!("{headers}Content-Range: bytes 2-3/4\r\n"), b"le"),
        None => answer("200 OK", headers, b"file"),
    }
}

/// One request over a connection of its own to one of the hosts.
async fn at(gate: &Gate, host: &str, line: &str, headers: &str) -> Answer {
    let mut stream = raw::tls(gate.https, host, raw::trusting(&gate.ca(), &["http/1.1"])).await.unwrap();
    let head = format!("{line} HTTP/1.1\r\nHost: {host}:{}\r\n{headers}\r\n", gate.https.port());
    raw::ask(&mut stream, head.as_bytes()).await
}

/// Where the site sends a navigation: path and ticket.
async fn sent_on(gate: &Gate, path: &str, headers: &str) -> String {
    let answer = gate.ask(&format!("GET {path}"), &format!("{NAVIGATE}{headers}"), b"").await;
    assert_eq!(answer.status, 307, "{}", answer.head);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let place = format!("https://{DL}:{}", gate.https.port());
    answer.header("location").unwrap().strip_prefix(&place).expect("to the download host").to_owned()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The companion cookie that an answer sets; the one that knows the device stands beside it.
fn set_cookie(answer: &raw::Answer) -> Option<String> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    let mut cookies = lines.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    cookies.find(|(_, value)| value.starts_with(COOKIE)).map(|(_, value)| value.to_owned())
}

/// Logs in; the companion cookie as the browser sends it.
async fn companion(gate: &Gate, subject: u64) -> String {
    let body = format!("{{\"username\":\"u{subject}\",\"password\":\"p\"}}");
    let answer =
        gate.ask("POST /api/auth/login", "Content-Type: application/json\r\n", body.as_bytes()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\"token\""), "the answer is what it was");
    let cookie = &*set_cookie(&answer).expect("a companion cookie");
    let week = ["; Path=/; Max-Age=6047", "; Path=/; Max-Age=6048"];
    assert!(week.iter().any(|week| cookie.contains(week)), "as long as the token: {cookie}");
    assert!(cookie.ends_with("; Secure; HttpOnly; SameSite=Strict"), "{cookie}");
    format!("Cookie: {}\r\n", cookie.split(';').next().unwrap())
}

fn seen(upstream: &Upstream, path: &str) -> Vec<Request> {
    upstream.requests().into_iter().filter(|request| request.target.starts_with(path)).collect()
}

#[tokio::test]
async fn an_upload_is_shown_on_the_download_host_and_asked_for_as_it_would_have_been() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start("download_host = \"dl.test\"\n", upstream.address);
    let token = session(7);
    let own = format!("{}Cookie: sid=abc; theme=dark\r\n", bearer(&token));
    let there = sent_on(&gate, &format!("{FILE}?size=4"), &own).await;
    assert!(there.starts_with(&format!("{FILE}?size=4&ticket=")));
    assert!(!there.contains(&token), "nobody reads the token in it");
    assert!(upstream.requests().is_empty());
    let theirs = "Cookie: sid=other\r\nAuthorization: Bearer other\r\nSec-Fetch-Site: same-site\r\n";
    let shown = at(&gate, DL, &format!("GET {there}"), theirs).await;
    assert_eq!((shown.status, shown.text()), (200, "file".to_owned()));
    for (name, value) in [
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
        ("content-disposition", "attachment; filename=\"a.html\""),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(shown.header(name), Some(value), "{name}");
    }
    assert_eq!((shown.header("set-cookie"), shown.header("access-control-allow-origin")), (None, None));
    let [request] = &seen(&upstream, FILE)[..] else { panic!("one request") };
    let main = format!("{HOST}:{}", gate.https.port());
    assert_eq!(request.target, format!("{FILE}?size=4"));
    assert_eq!(request.header("authorization"), Some(&*format!("Bearer {token}")));
    assert_eq!(request.header("cookie"), Some("sid=abc; theme=dark"));
    assert_eq!((request.header("host"), request.header("x-forwarded-host")), (Some(&*main), Some(&*main)));
    let part = at(&gate, DL, &format!("GET {there}"), "Range: bytes=2-3\r\n").await;
    assert_eq!((part.status, part.text()), (206, "le".to_owned()));
    assert_eq!(at(&gate, DL, &format!("HEAD {there}"), "").await.status, 200);
}

#[tokio::test]
async fn what_the_sites_own_pages_fetch_or_show_is_served_in_place() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start("download_host = \"dl.test\"\n", upstream.address);
    let token = bearer(&session(7));
    for (headers, status) in [
        ("Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\nSec-Fetch-Site: same-origin\r\n", 200),
        ("Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n", 200),
        ("Accept: */*\r\n", 200),
        ("", 200),
        (NAVIGATE, 307),
        ("Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n", 307),
        ("Accept: text/html,application/xhtml+xml\r\n", 307),
        ("Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n", 403),
        ("Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: object\r\n", 403),
        ("Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: embed\r\n", 403),
    ] {
        for path in [FILE, THUMB, "/s/abc/file"] {
            let answer = gate.ask(&format!("GET {path}"), &format!("{token}{headers}"), b"").await;
            assert_eq!(answer.status, status, "{path} {headers:?}");
            let policy = answer.header("content-security-policy").unwrap();
            assert!(policy.ends_with("sandbox"), "{path} {headers:?}: {policy}");
        }
    }
    for path in ["/", "/api/assets", "/s/abc"] {
        assert_eq!(gate.ask(&format!("GET {path}"), NAVIGATE, b"").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn the_download_host_serves_tickets_and_nothing_else() {
    let upstream = Upstream::by_request(application);
    let other = "[[site]]\nhosts = [\"other.test\"]\napp = \"keepstack\"\nupstream = \"http://127.0.0.1:1\"\n\
                 download_host = \"dl2.test\"\n";
    let gate = Gate::start(&format!("download_host = \"dl.test\"\n{other}"), upstream.address);
    let there = sent_on(&gate, FILE, &bearer(&session(7))).await;
    let (path, ticket) = there.split_once("?ticket=").unwrap();
    let line = |target: &str| format!("GET {target}");
    for (host, line, headers) in [
        (DL, line("/"), ""),
        (DL, line(FILE), ""),
        (DL, line(FILE), &*bearer(&session(7))),
        (DL, line("/metrics"), ""),
        (DL, line(&format!("{path}?ticket=")), ""),
        (DL, line(&format!("{path}?ticket={}", &ticket[1..])), ""),
        (DL, line(&format!("{path}?ticket={}", &ticket[..ticket.len() - 4])), ""),
        (DL, line(&format!("{path}?ticket={ticket}A")), ""),
        (DL, line(&format!("{path}?ticket={}", "A".repeat(4096))), ""),
        (DL, line(&format!("{path}?ticket={ticket}&ticket={ticket}")), ""),
        (DL, line(&format!("{path}?TICKET={ticket}")), ""),
        (DL, line(&format!("{path}?{}ticket={ticket}", "ticket=x&".repeat(1000))), ""),
        (DL, line(&format!("{path}?x=1&ticket={ticket}")), ""),
        (DL, line(&format!("{path}?ticket={ticket}&x=1")), ""),
        (DL, line(&format!("/api/assets/8/file?ticket={ticket}")), ""),
        (DL, line(&format!("/api/users?ticket={ticket}")), ""),
        (DL, line(&format!("/api/assets/../assets/7/file?ticket={ticket}")), ""),
        (DL, format!("POST {there}"), ""),
        (DL, format!("DELETE {there}"), ""),
        (DL, line(&there), "Content-Length: 1\r\n"),
        (DL, line(&there), "Transfer-Encoding: chunked\r\n"),
        ("dl2.test", line(&there), ""),
    ] {
        let body = if headers.starts_with("Content-L") { "x" } else { "" };
        let chunks = if headers.starts_with("Transfer") { "0\r\n\r\n" } else { "" };
        let mut stream = raw::tls(gate.https, host, raw::trusting(&gate.ca(), &["http/1.1"])).await.unwrap();
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n{body}{chunks}");
        let answer = raw::ask(&mut stream, head.as_bytes()).await;
        assert_eq!(answer.status, 404, "{host} {line} {headers:?}");
        assert!(
            answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"),
            "{line}"
        );
    }
    assert!(upstream.requests().is_empty(), "nobody was asked");
    // On the site itself a ticket is a word of the query like any other.
    assert_eq!(gate.ask(&line(&there), "", b"").await.status, 401);
    // A connection that was begun for another site serves no ticket, and none is begun for a stranger.
    let mut stream =
        raw::tls(gate.https, "other.test", raw::trusting(&gate.ca(), &["http/1.1"])).await.unwrap();
    let head = format!("GET {there} HTTP/1.1\r\nHost: {DL}\r\n\r\n");
    assert_eq!(raw::ask(&mut stream, head.as_bytes()).await.status, 421);
    assert_eq!(at(&gate, DL, &line(&there), "").await.status, 200, "it was good all the time");
}

#[tokio::test]
async fn a_place_that_the_application_names_is_on_its_own_host() {
    let upstream = Upstream::by_request(application);
    let route =
        "download_host = \"dl.test\"\n[[site.route]]\nmatch = \"/api/moved/file\"\nclass = \"download\"\n";
    let gate = Gate::start(route, upstream.address);
    let there = sent_on(&gate, "/api/moved/file", "").await;
    let moved = at(&gate, DL, &format!("GET {there}"), "").await;
    let home = format!("https://{HOST}:{}/login?next=x", gate.https.port());
    assert_eq!((moved.status, moved.header("location")), (302, Some(&*home)));
}

#[tokio::test]
async fn who_is_sent_with_more_than_a_ticket_holds_is_refused_not_served_in_place() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start("download_host = \"dl.test\"\n", upstream.address);
    let large = format!("{NAVIGATE}Cookie: a={}\r\n", "x".repeat(10_000));
    assert_eq!(gate.ask(&format!("GET {FILE}"), &large, b"").await.status, 431);
    let usual = format!("Cookie: a={}\r\n", "x".repeat(7_000));
    let there = sent_on(&gate, &format!("{FILE}?{}", "y".repeat(9_000)), &usual).await;
    assert_eq!(at(&gate, DL, &format!("GET {there}"), "").await.status, 401, "the application's own");
}

#[tokio::test]
async fn blocks_hold_for_tickets_and_cut_what_they_have_begun() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            if request.target.contains("endless") {
                session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegun");
                std::thread::sleep(Duration::from_secs(20));
                return;
            }
            session.send(&application(&request));
        }
    });
    let gate = Gate::start("download_host = \"dl.test\"\n", upstream.address);
    let token = session(7);
    let there = sent_on(&gate, FILE, &bearer(&token)).await;
    let live = sent_on(&gate, "/api/assets/endless/file", &bearer(&token)).await;
    let shared = sent_on(&gate, "/s/abc/file", "").await;
    let shared_live = sent_on(&gate, "/s/abc/file?endless", "").await;
    let begin = async |target: &str| {
        let mut stream = raw::tls(gate.https, DL, raw::trusting(&gate.ca(), &["http/1.1"])).await.unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nHost: {DL}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"begun") {
            bytes.push(stream.read_u8().await.unwrap());
        }
        stream
    };
    let (mut one, mut two) = (begin(&live).await, begin(&shared_live).await);
    assert_eq!(at(&gate, DL, &format!("GET {there}"), "").await.status, 200);
    assert_eq!(at(&gate, DL, &format!("GET {shared}"), "").await.status, 200);
    assert!(gate.cli_with(["block", "token", "-"], &token).status.success());
    assert!(gate.cli_with(["block", "share", "-"], "abc").status.success());
    for stream in [&mut one, &mut two] {
        let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "it is cut");
    }
    assert_eq!(at(&gate, DL, &format!("GET {there}"), "").await.status, 401);
    assert_eq!(at(&gate, DL, &format!("GET {there}"), "Range: bytes=2-3\r\n").await.status, 401);
    assert_eq!(at(&gate, DL, &format!("GET {shared}"), "").await.status, 404);
    // A new ticket does not help: it opens the same request.
    let again = sent_on(&gate, FILE, &bearer(&token)).await;
    assert_eq!(at(&gate, DL, &format!("GET {again}"), "").await.status, 401);
}

#[tokio::test]
async fn no_ticket_and_no_companion_cookie_is_in_a_log_or_a_listing() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start(WHOLE, upstream.address);
    let cookie = companion(&gate, 7).await;
    let there = sent_on(&gate, FILE, &cookie).await;
    let ticket = there.split("ticket=").nth(1).unwrap();
    assert_eq!(at(&gate, DL, &format!("GET {there}"), "").await.status, 200);
    let odd = format!("Referer: https://{DL}{there}\r\n");
    assert_eq!(at(&gate, DL, &format!("POST {there}"), &odd).await.status, 404);
    assert_eq!(at(&gate, DL, &format!("GET /x?ticket={ticket}"), "").await.status, 404);
    let secret = cookie.trim_end().split('=').nth(1).unwrap();
    assert!(wait_until(Duration::from_secs(5), || gate.log().lines().count() >= 5), "{}", gate.log());
    let listing = String::from_utf8(gate.cli(["denials", "--json"]).stdout).unwrap();
    assert!(listing.contains("no_ticket"), "{listing}");
    for text in [gate.log(), gate.errors(), listing, gate.admin("/metrics").unwrap()] {
        assert!(!text.contains(&ticket[..20]) && !text.contains(&secret[..20]), "{text}");
    }
    assert!(gate.log().contains("ticket=***"), "{}", gate.log());
}

#[tokio::test]
async fn a_companion_cookie_makes_downloads_work_and_nothing_else() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start("[site.tokens]\ncompanion_cookie = true\n", upstream.address);
    let cookie = companion(&gate, 7).await;
    let with_own = cookie.replace("\r\n", "; theme=dark\r\n");
    for line in [format!("GET {FILE}"), format!("HEAD {FILE}")] {
        assert_eq!(gate.ask(&line, &with_own, b"").await.status, 200, "{line}");
    }
    assert_eq!(gate.ask(&format!("GET {FILE}"), "", b"").await.status, 401, "who has none");
    for line in [
        "GET /api/assets",
        "GET /",
        "POST /api/assets/7/file",
        "DELETE /api/assets/7/file",
        &format!("GET {THUMB}"),
    ] {
        gate.ask(line, &with_own, b"").await;
    }
    for request in upstream.requests() {
        let added = request.target == FILE && ["GET", "HEAD"].contains(&&*request.method);
        let token = request.header("authorization");
        let had = request.header("cookie").is_some();
        assert_eq!(token.is_some(), added && had, "{} {}", request.method, request.target);
        assert!(token.is_none_or(|token| token.starts_with("Bearer ")));
        assert!(
            [None, Some("theme=dark")].contains(&request.header("cookie")),
            "{:?}",
            request.header("cookie")
        );
    }
}

#[tokio::test]
async fn an_authorization_of_its_own_is_stronger_and_foreign_pages_are_refused() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start(WHOLE, upstream.address);
    let cookie = companion(&gate, 7).await;
    let own = session(8);
    assert_eq!(gate.ask(&format!("GET {FILE}"), &format!("{cookie}{}", bearer(&own)), b"").await.status, 200);
    let [request] = &seen(&upstream, FILE)[..] else { panic!("one request") };
    assert_eq!(request.header("authorization"), Some(&*format!("Bearer {own}")));
    for from in
        ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", "Origin: https://evil.test\r\n"]
    {
        for (path, mode) in [(FILE, ""), (THUMB, ""), (FILE, NAVIGATE)] {
            let answer = gate.ask(&format!("GET {path}"), &format!("{cookie}{from}{mode}"), b"").await;
            assert_eq!(answer.status, 403, "{path} {from:?}");
        }
    }
    assert_eq!((seen(&upstream, FILE).len(), seen(&upstream, THUMB).len()), (1, 0));
}

#[tokio::test]
async fn previews_for_members_are_closed_to_strangers() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start(WHOLE, upstream.address);
    let cookie = companion(&gate, 7).await;
    for path in [THUMB, "/api/assets/7/preview?size=800"] {
        let image = "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\nSec-Fetch-Site: same-origin\r\n";
        let answer = gate.ask(&format!("GET {path}"), &format!("{cookie}{image}"), b"").await;
        assert_eq!(answer.status, 200, "{path}");
        let stranger = gate.ask(&format!("GET {path}"), image, b"").await;
        assert_eq!(
            (stranger.status, &*stranger.text()),
            (401, "{\"detail\":\"Authentication required\"}"),
            "{path}"
        );
        // Nobody has verified this token.
        assert_eq!(gate.ask(&format!("GET {path}"), &bearer(&session(7)), b"").await.status, 401, "{path}");
        assert_eq!(gate.ask(&format!("POST {path}"), &cookie, b"").await.status, 401, "{path}");
        // A preview in a tab of its own: the ticket says that a member asked.
        let there = sent_on(&gate, path, &cookie).await;
        assert_eq!(at(&gate, DL, &format!("GET {there}"), "").await.status, 200, "{path}");
        let stranger = sent_on(&gate, path, "").await;
        assert_eq!(at(&gate, DL, &format!("GET {stranger}"), "").await.status, 401, "{path}");
    }
    assert!(upstream.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_companion_cookie_dies_with_its_token() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start(WHOLE, upstream.address);
    let (one, two, three) = (companion(&gate, 1).await, companion(&gate, 2).await, companion(&gate, 3).await);
    let asked = async |cookie: &str, status: u16| {
        assert_eq!(gate.ask(&format!("GET {THUMB}"), cookie, b"").await.status, status);
        let there = sent_on(&gate, FILE, cookie).await;
        assert_eq!(at(&gate, DL, &format!("GET {there}"), "").await.status, status);
    };
    asked(&one, 200).await;
    let before = sent_on(&gate, FILE, &one).await;
    assert!(gate.cli(["block", "subject", "1"]).status.success());
    asked(&one, 401).await;
    assert_eq!(at(&gate, DL, &format!("GET {before}"), "").await.status, 401, "a ticket made of it too");
    asked(&two, 200).await;
    assert!(gate.cli_with(["block", "token", "-"], &session(2)).status.success());
    assert!(gate.cli(["block", "everyone", "--yes"]).status.success());
    asked(&two, 401).await;
    asked(&three, 401).await;
}

#[tokio::test]
async fn forged_cut_foreign_and_double_companion_cookies_are_nobodys() {
    let upstream = Upstream::by_request(application);
    let other = format!(
        "[[site]]\nhosts = [\"other.test\"]\napp = \"keepstack\"\nupstream = \"http://{}\"\n\
         [site.tokens]\ncompanion_cookie = true\n",
        upstream.address
    );
    let gate = Gate::start(&format!("{WHOLE}{other}"), upstream.address);
    let good = companion(&gate, 7).await;
    let text = good.trim_end().split('=').nth(1).unwrap().to_owned();
    let second = companion(&gate, 8).await;
    let ticket = sent_on(&gate, FILE, &good).await.split("ticket=").nth(1).unwrap().to_owned();
    let cookie = |value: &str| format!("Cookie: {COOKIE}={value}\r\n");
    for bad in [
        cookie(""),
        cookie("AAAA"),
        cookie(&text[1..]),
        cookie(&text[..text.len() - 1]),
        cookie(&format!("{text}A")),
        cookie(&ticket),
        cookie(&session(7)),
        cookie(&"A".repeat(9000)),
        format!("Cookie: {COOKIE}={text}; {}", second.strip_prefix("Cookie: ").unwrap()),
        format!("Cookie: x{COOKIE}={text}\r\n"),
    ] {
        assert_eq!(gate.ask(&format!("GET {FILE}"), &bad, b"").await.status, 401, "{bad}");
        assert_eq!(gate.ask(&format!("GET {THUMB}"), &bad, b"").await.status, 401, "{bad}");
    }
    assert_eq!(at(&gate, "other.test", &format!("GET {FILE}"), &good).await.status, 401, "another site's");
    assert_eq!(gate.ask(&format!("GET {FILE}"), &good, b"").await.status, 200);
    for request in upstream.requests() {
        let cookies = request.header("cookie").unwrap_or_default();
        assert!(!cookies.contains(&format!(" {COOKIE}")) && !cookies.starts_with(COOKIE), "{cookies}");
    }
}

#[tokio::test]
async fn no_spelling_of_the_gateways_own_cookies_reaches_the_application_or_counts() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start(WHOLE, upstream.address);
    let good = companion(&gate, 7).await;
    let text = good.trim_end().split('=').nth(1).unwrap().to_owned();
    const DEVICE: &str = "__Host-portcullis-device";
    let mut number = 100;
    for name in [COOKIE, DEVICE] {
        for (line, left) in [
            (format!("Cookie: a=b; {name}={text}; c=d\r\n"), "a=b; c=d"),
            (format!("Cookie: {name} = {text} ;a=b\r\n"), "a=b"),
            (format!("Cookie: a=b;\t{name}\t={text}\r\n"), "a=b"),
            (format!("Cookie: a=b; {}={text}\r\n", name.to_lowercase()), "a=b"),
            (format!("Cookie: {}={text}; a=b\r\n", name.to_uppercase()), "a=b"),
            (format!("Cookie: {}={text}; a=b\r\n", name.replace('-', "%2D")), "a=b"),
            (format!("Cookie: {}={text}; a=b\r\n", name.replace("__", ".+")), "a=b"),
            (format!("Cookie: {name}; a=b\r\n"), "a=b"),
            (format!("Cookie: {name}=\"{text}\"; a=b\r\n"), "a=b"),
            (format!("Cookie: a=b\r\nCookie: {name}={text}\r\nCookie: c=d\r\n"), "a=b; c=d"),
            (format!("Cookie: {name}={text}; {name}={text}; a=b; {name}=x\r\n"), "a=b"),
            (format!("Cookie: {}a=b\r\n", format!("{name}=x;").repeat(500)), "a=b"),
            (format!("Cookie: {name}={}; a=b\r\n", "A".repeat(4096)), "a=b"),
        ] {
            number += 1;
            gate.ask(&format!("GET /api/assets?n={number}"), &line, b"").await;
            let heard = seen(&upstream, &format!("/api/assets?n={number}")).pop().unwrap();
            let joined: Vec<_> =
                heard.all("cookie").flat_map(|line| line.split(';')).map(str::trim).collect();
            assert_eq!(joined.join("; "), left, "{}", &line[..line.len().min(120)]);
        }
    }
    // Over HTTP/2 a browser may send each cookie in a line of its own.
    let h2 = common::http2::Client::connect(&gate).await;
    let head = ["a=b", &format!("{COOKIE}={text}"), "c=d", &format!("{DEVICE}={text}"), "e=f"]
        .iter()
        .fold(h2.head("GET", "/api/assets/8/file"), |head, crumb| head.header("cookie", *crumb));
    let (answer, _) = h2.open(head, true).await;
    assert_eq!(common::http2::read(answer).await.unwrap().status, 200, "it counts");
    let heard = seen(&upstream, "/api/assets/8/file").pop().unwrap();
    assert_eq!(heard.all("cookie").collect::<Vec<_>>(), ["a=b; c=d; e=f"]);
    assert!(heard.header("authorization").is_some());
    // Only as the browser spells it; and a thousand that differ are none.
    for line in [
        format!("Cookie: {}={text}\r\n", COOKIE.to_lowercase()),
        format!("Cookie: {}={text}\r\n", COOKIE.replace('-', "%2D")),
        format!("Cookie: {COOKIE}=\"{text}\"\r\n"),
        format!("Cookie: {}{COOKIE}={text}\r\n", format!("{COOKIE}=x;").repeat(500)),
        format!("Cookie: {COOKIE}={text}\r\nCookie: {COOKIE}=x\r\n"),
    ] {
        let answer = gate.ask(&format!("GET {FILE}"), &line, b"").await;
        assert_eq!(answer.status, 401, "{}", &line[..line.len().min(120)]);
    }
    let twice = format!("{good}Cookie: {COOKIE}={text}\r\n");
    assert_eq!(gate.ask(&format!("GET {FILE}"), &twice, b"").await.status, 200, "the same twice is one");
    let all = upstream.requests();
    let clean = |request: &Request| {
        !request.all("cookie").any(|line| line.to_ascii_lowercase().contains("portcullis"))
    };
    assert!(all.iter().all(clean));
}

/// As Arkeep: single sign-on ends in a redirect that has the token.
fn single_sign_on(request: &Request) -> Vec<u8> {
    let token = |subject| common::tokens::login(subject, "j", common::tokens::now());
    let path = request.target.split('?').next().unwrap();
    let json = "Content-Type: application/json\r\n";
    match path.rsplit('/').next().unwrap() {
        "callback" => {
            let place = format!("Location: /auth/callback?token={}&expires_in=899\r\n", token("u"));
            answer("302 Found", &place, b"")
        }
        "both" => answer("302 Found", &format!("Location: /x?a={}&b={}\r\n", token("u"), token("v")), b""),
        "none" => answer("302 Found", "Location: /auth/failed?error=1\r\n", b""),
        "json" => {
            let body = json!({ "data": { "access_token": token("u") } }).to_string();
            answer("200 OK", json, body.as_bytes())
        }
        "page" => answer("200 OK", "Content-Type: text/html\r\n", token("u").as_bytes()),
        "refused" => answer("401 Unauthorized", json, b"{}"),
        _ => answer("200 OK", "Content-Type: text/html\r\n", b"page"),
    }
}

#[tokio::test]
async fn single_sign_on_that_ends_in_a_redirect_with_the_token_gives_the_companion_cookie() {
    let upstream = Upstream::by_request(single_sign_on);
    let route = "[[site.route]]\nmatch = \"/api/v1/files/*\"\nclass = \"download\"\n";
    let site = format!("[site.tokens]\ncompanion_cookie = true\n{route}");
    let gate = Config { app: "arkeep".into(), site, ..Config::default() }.start(upstream.address);
    let callback =
        async |end: &str| gate.ask(&format!("GET /api/v1/auth/oidc/{end}?code=c&state=s"), "", b"").await;
    for end in ["callback", "json"] {
        let given = callback(end).await;
        let cookie = set_cookie(&given).expect("a companion cookie");
        assert!(
            cookie.ends_with("; Secure; HttpOnly; SameSite=Strict") && !cookie.contains("Max-Age=0"),
            "{cookie}"
        );
        let own = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
        assert_eq!(gate.ask(&format!("GET /api/v1/files/of-{end}"), &own, b"").await.status, 200);
        let heard = seen(&upstream, &format!("/api/v1/files/of-{end}")).pop().unwrap();
        let token = heard.header("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        assert!(
            given.head.contains(&token) || given.text().contains(&token),
            "the token that was handed out"
        );
    }
    // Somebody else may have logged in: never the cookie of an earlier login beside it.
    let gone = format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    for end in ["both", "none", "page"] {
        assert_eq!(set_cookie(&callback(end).await), Some(gone.clone()), "{end}");
    }
    assert_eq!(set_cookie(&callback("refused").await), None);
    // A page that only sends on, with whatever a stranger has put into a link, is no login.
    let login = gate.ask("GET /api/v1/auth/login?next=/callback", "", b"").await;
    assert_eq!(set_cookie(&login), None, "{}", login.head);
    // What is blocked is not handed out, in no form.
    assert!(gate.cli(["block", "subject", "u", "--and-logins"]).status.success());
    let refused = callback("callback").await;
    assert_eq!((refused.status, set_cookie(&refused), refused.header("location")), (401, None, None));
}

#[tokio::test]
async fn only_an_answer_that_hands_out_a_token_sets_the_cookie_and_a_token_too_long_takes_it() {
    let upstream = Upstream::by_request(application);
    let route = "[[site.route]]\nmatch = \"/logout\"\nclass = \"logout\"\n";
    let gate = Gate::start(&format!("{WHOLE}{route}"), upstream.address);
    let json = "Content-Type: application/json\r\n";
    let login = async |name: &str| {
        let body = format!("{{\"username\":\"{name}\",\"password\":\"p\"}}");
        gate.ask("POST /api/auth/login", json, body.as_bytes()).await
    };
    let gone = format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict");
    assert_eq!(login("wrong").await.header("set-cookie"), None);
    let long = login("long").await;
    assert_eq!((long.status, set_cookie(&long)), (200, Some(gone.clone())), "not that of an earlier login");
    assert!(long.text().contains("xxxx"));
    let counted = "portcullis_companion_cookies_not_set_total{site=\"files.test\"}";
    assert_eq!(gate.metric(counted), Some(1.0));
    let status = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(status.contains("does not fit into a companion cookie"), "{status}");
    assert_eq!(gate.ask("POST /logout", json, b"{}").await.header("set-cookie"), Some(&*gone));
    assert_eq!(gate.ask("GET /", "", b"").await.header("set-cookie"), None);
    drop(gate);
    let plain = Gate::start("", upstream.address);
    let body = b"{\"username\":\"u\",\"password\":\"p\"}";
    let off = plain.ask("POST /api/auth/login", json, body).await;
    assert_eq!((off.status, set_cookie(&off)), (200, None), "off unless it is asked for");
}

#[tokio::test]
async fn a_reload_gives_and_takes_the_download_host_and_a_restart_keeps_its_tickets() {
    let upstream = Upstream::by_request(application);
    let mut gate = Gate::start("", upstream.address);
    let token = bearer(&session(7));
    let open = format!("{NAVIGATE}{token}");
    assert_eq!(
        gate.ask(&format!("GET {FILE}"), &open, b"").await.status,
        200,
        "without one it is served in place"
    );
    let text = std::fs::read_to_string(gate.config()).unwrap();
    std::fs::write(gate.config(), format!("{text}\ndownload_host = \"dl.test\"\n")).unwrap();
    assert!(gate.cli(["reload"]).status.success());
    let there = sent_on(&gate, FILE, &token).await;
    assert_eq!(at(&gate, DL, &format!("GET {there}"), "").await.status, 200);
    gate.kill();
    gate.start_again();
    assert_eq!(
        at(&gate, DL, &format!("GET {there}"), "").await.status,
        200,
        "the keys are in the state directory"
    );
    std::fs::write(gate.config(), text).unwrap();
    assert!(gate.cli(["reload"]).status.success());
    let config = raw::trusting(&gate.ca(), &["http/1.1"]);
    assert!(raw::tls(gate.https, DL, config).await.is_err(), "the host is a stranger's again");
    assert_eq!(gate.ask(&format!("GET {FILE}"), &open, b"").await.status, 200);
}

#[tokio::test]
async fn a_refresh_renews_the_companion_cookie_also_where_the_token_is_deep_in_the_answer() {
    let upstream = Upstream::by_request(|request| {
        let token = common::tokens::login("u", "j", common::tokens::now());
        let body = json!({ "data": { "access_token": token, "expires_in": 899 } }).to_string();
        let type_ = if request.target.contains("odd") { "text/plain" } else { "application/json" };
        answer("200 OK", &format!("Content-Type: {type_}\r\n"), body.as_bytes())
    });
    let site = "[site.tokens]\ncompanion_cookie = true\n";
    let gate =
        Config { app: "arkeep".into(), site: site.into(), ..Config::default() }.start(upstream.address);
    for path in ["/api/v1/auth/login", "/api/v1/auth/refresh"] {
        let answer = gate.ask(&format!("POST {path}"), "Content-Type: application/json\r\n", b"{}").await;
        let cookie = answer.header("set-cookie").unwrap_or_default();
        assert!(
            cookie.starts_with(&format!("{COOKIE}=")) && answer.text().contains("access_token"),
            "{path}: {cookie}"
        );
        let odd = gate.ask(&format!("POST {path}?odd"), "Content-Type: application/json\r\n", b"{}").await;
        assert_eq!((odd.status, odd.header("set-cookie")), (200, None), "no answer of a login: {path}");
    }
}

#[test]
fn explain_and_check_say_where_a_download_is_shown() {
    let upstream = Upstream::by_request(application);
    let gate = Gate::start(WHOLE, upstream.address);
    let url = format!("https://{HOST}{FILE}");
    let told =
        gate.cli(["explain", &url, "--from", "203.0.113.7", "-H", "Sec-Fetch-Mode: navigate", "--json"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("\"redirect\"") && told.contains(&format!("https://{DL}")), "{told}");
    let file = gate.config().display().to_string();
    let checked = String::from_utf8(gate.cli(["check", &file]).stdout).unwrap();
    for line in [
        "downloads   shown on dl.test",
        "Location of its redirect, gives a cookie that stands for it",
        "previews    members only",
    ] {
        assert!(checked.contains(line), "{checked}");
    }
}

// === in a real browser ===

/// Each upload tells the application that it has run, and where.
fn uploads(request: &Request) -> Vec<u8> {
    let ran = |kind: &str| format!("fetch('/ran/{kind}')");
    let html = |kind: &str| format!("<!doctype html><title>upload</title><script>{}</script>", ran(kind));
    let svg = |kind: &str| {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"><script>{}</script></svg>",
            ran(kind)
        )
    };
    let path = request.target.split('?').next().unwrap();
    let name = path.trim_end_matches("/file").rsplit('/').next().unwrap();
    let (kind, body) = match name {
        "html" | "frame" | "object" | "embed" => ("text/html", html(name)),
        "svg" | "picture" => ("image/svg+xml", svg(name)),
        "xhtml" => (
            "application/xhtml+xml",
            format!(
                "<html xmlns=\"http://www.w3.org/1999/xhtml\"><title>x</title><script>{}</script></html>",
                ran(name)
            ),
        ),
        "script" | "worker" => ("text/javascript", ran(name)),
        _ if path.ends_with("/thumb") => return application(request),
        _ if request.method == "POST" => return application(request),
        _ => ("text/html", "<!doctype html><title>page</title>".to_owned()),
    };
    answer("200 OK", &format!("Content-Type: {kind}\r\n"), body.as_bytes())
}

/// Tries everything that would run an upload from this origin, and waits until all has come to an end.
async fn try_all(browser: &mut Chromium, tab: &Tab, origin: &str) {
    assert_eq!(browser.open(tab, &format!("{origin}/")).await, Opened::Loaded);
    let script = r#"(async () => {
        const ended = (tag, key, name) => new Promise(end => {
            const one = document.createElement(tag);
            one.onload = one.onerror = end;
            setTimeout(end, 1500);
            one[key] = '/api/assets/' + name + '/file';
            if (tag === 'object') one.type = 'text/html';
            if (tag === 'embed') one.type = 'text/html';
            document.body.append(one);
        });
        const worker = new Promise(end => {
            try {
                const one = new Worker('/api/assets/worker/file');
                one.onerror = one.onmessage = end;
            } catch (error) { end(); }
            setTimeout(end, 1500);
        });
        await Promise.all([ended('iframe', 'src', 'frame'), ended('script', 'src', 'script'),
            ended('object', 'data', 'object'), ended('embed', 'src', 'embed'), ended('img', 'src', 'picture'), worker]);
        return true;
    })()"#;
    assert_eq!(browser.run(tab, script).await, json!(true));
    for name in ["html", "svg", "xhtml"] {
        let place = format!("{origin}/api/assets/{name}/file");
        let opened = browser.open(tab, &place).await;
        if opened == Opened::Loaded {
            browser.run(tab, "new Promise(end => setTimeout(() => end(true), 200))").await;
        }
    }
}

fn ran(upstream: &Upstream) -> Vec<String> {
    let requests =
        upstream.requests().into_iter().filter_map(|one| one.target.strip_prefix("/ran/").map(str::to_owned));
    let mut kinds: Vec<String> = requests.collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn an_upload_runs_nowhere_in_a_real_browser_and_does_without_the_gateway() {
    let mut browser = Chromium::start().await;
    let bare = Upstream::by_request(uploads);
    let tab = browser.tab().await;
    try_all(&mut browser, &tab, &format!("http://{}", bare.address)).await;
    assert_eq!(ran(&bare), ["embed", "frame", "html", "object", "script", "svg", "worker", "xhtml"]);
    browser.close(tab).await;
    let upstream = Upstream::by_request(uploads);
    // No policy on pages: what is proved is what the download host does.
    let site = "download_host = \"dl.test\"\n[site.headers]\ncsp = \"off\"\n";
    let gate = Gate::start(site, upstream.address);
    let tab = browser.tab().await;
    try_all(&mut browser, &tab, &format!("https://{HOST}:{}", gate.https.port())).await;
    assert_eq!(ran(&upstream), Vec::<String>::new());
    assert!(!seen(&upstream, "/api/assets/html/file").is_empty(), "it was downloaded");
    assert!(!seen(&upstream, "/api/assets/picture/file").is_empty(), "as a picture it was shown");
}

/// A click into the page's corner.
fn press(kind: &str) -> serde_json::Value {
    json!({ "type": kind, "x": 30, "y": 40, "button": "left", "clickCount": 1 })
}

#[tokio::test]
async fn with_the_companion_cookie_pictures_show_and_links_download_in_a_real_browser() {
    let upstream = Upstream::by_request(application);
    let gate = Config { site: WHOLE.into(), ..Config::default() }.start(upstream.address);
    let mut browser = Chromium::start().await;
    let tab = browser.tab().await;
    let origin = format!("https://{HOST}:{}", gate.https.port());
    assert_eq!(browser.open(&tab, &format!("{origin}/")).await, Opened::Loaded);
    let picture = format!(
        "new Promise(end => {{ const one = new Image(); one.onload = () => end(true); one.onerror = () => end(false); \
         one.src = '{THUMB}?' + Math.random(); }})"
    );
    assert_eq!(browser.run(&tab, &picture).await, json!(false), "a stranger sees none");
    let login = "fetch('/api/auth/login', { method: 'POST', headers: { 'Content-Type': 'application/json' }, \
                 body: JSON.stringify({ username: 'u7', password: 'p' }) }).then(answer => answer.status)";
    assert_eq!(browser.run(&tab, login).await, json!(200));
    assert_eq!(browser.run(&tab, "document.cookie").await, json!(""), "no script reads it");
    assert_eq!(browser.run(&tab, &picture).await, json!(true));
    let link = format!(
        "{{ const one = document.createElement('a'); one.href = '{FILE}'; document.body.append(one); one.click(); }} true"
    );
    browser.run(&tab, &link).await;
    let folder = browser.downloads();
    let saved = || {
        let files = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.filter_map(|path| std::fs::read_to_string(path).ok()).any(|text| text == "file")
    };
    let end = std::time::Instant::now() + Duration::from_secs(15);
    while !saved() {
        assert!(
            std::time::Instant::now() < end,
            "{:?} {:#?}",
            std::fs::read_dir(&folder),
            browser.lines(&tab)
        );
        browser.run(&tab, "new Promise(end => setTimeout(() => end(true), 50))").await;
    }
    assert_eq!(
        browser.run(&tab, "location.href").await,
        json!(format!("{origin}/")),
        "the page stays where it was"
    );
    // A share page is a sandbox; its link downloads all the same.
    assert_eq!(browser.open(&tab, &format!("{origin}/s/abc")).await, Opened::Loaded);
    browser.ask(&tab, "Input.dispatchMouseEvent", press("mousePressed")).await;
    browser.ask(&tab, "Input.dispatchMouseEvent", press("mouseReleased")).await;
    assert!(wait_for(Duration::from_secs(10), || !seen(&upstream, "/s/abc/file").is_empty()).await);
    assert_eq!(browser.violations(&tab), Vec::<String>::new());
}
