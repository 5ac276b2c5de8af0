//! Promises about share links: guessing ends, owners are not locked out, dead links tell nothing, downloads are counted
//! right, and pictures cost the application no more than they should.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::time::{Duration, Instant};

use common::gate::{Config, Gate};
use common::keepstack::{FILE, Keepstack, MOMENT};
use common::raw::{self, Answer, LIMIT};
use common::strict::Request;
use common::tokens::session;
use common::upstream::Upstream;
use common::{HOST, wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Answers as Keepstack does: a link that is alive, one that is for looking only, several kinds that are none.
fn application(request: &Request) -> Vec<u8> {
    let answer = |line: &str, more: &str, body: &str| {
        format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n{more}\r\n{body}", body.len()).into_bytes()
    };
    let token = request.target.split('/').nth(2).unwrap_or_default();
    match token {
        _ if token.starts_with("alive") => answer("200 OK", "Content-Type: text/html\r\n", "a picture"),
        _ if token.starts_with("locked") && request.method == "POST" => {
            match request.body.ends_with(b"right") {
                true => answer("200 OK", "", "the file"),
                false => answer("403 Forbidden", "", "{}"),
            }
        }
        _ if token.starts_with("locked") => answer("200 OK", "", "which password?"),
        "viewonly" => answer("403 Forbidden", "", r#"{"detail":"Download not permitted"}"#),
        "expired" => answer("410 Gone", "ETag: \"410\"\r\n", r#"{"detail":"Link expired"}"#),
        "usedup" => answer(
            "410 Gone",
            "Set-Cookie: why=limit\r\nVary: Cookie\r\n",
            r#"{"detail":"Download limit reached"}"#,
        ),
        "slow" => {
            std::thread::sleep(Duration::from_millis(60));
            answer("404 Not Found", "", "{}")
        }
        _ => answer("404 Not Found", "Last-Modified: never\r\n", r#"{"detail":"Invalid or revoked link"}"#),
    }
}

/// Believes the test's word for who asks.
fn gate(site: &str, upstream: &Upstream) -> Gate {
    let listen = "trusted_proxies = [\"127.0.0.1\"]\n".into();
    Config { listen, site: site.into(), ..Config::default() }.start(upstream.address)
}

/// One connection, over which many people ask.
struct Visitor(TlsStream<TcpStream>, u16);

impl Visitor {
    async fn of(gate: &Gate) -> Self {
        Self(gate.connect().await, gate.https.port())
    }

    async fn ask_with(&mut self, from: &str, path: &str, lines: &str) -> Answer {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {HOST}:{}\r\nX-Forwarded-For: {from}\r\n{lines}\r\n",
            self.1
        );
        raw::ask(&mut self.0, head.as_bytes()).await
    }

    async fn ask(&mut self, from: &str, path: &str) -> Answer {
        self.ask_with(from, path, "").await
    }

    /// How many of these links the application is asked for.
    async fn guesses(&mut self, from: &str, links: std::ops::Range<u32>) -> usize {
        let mut asked = 0;
        for link in links {
            asked += usize::from(self.ask(from, &format!("/s/guess{link}")).await.status == 404);
        }
        asked
    }
}

#[tokio::test]
async fn guessing_ends_and_links_that_are_alive_stay_open_to_everybody() {
    let upstream = Upstream::by_request(application);
    let gate = gate("[site.share_guard]\nper = \"10h\"\n", &upstream);
    let mut visitor = Visitor::of(&gate).await;
    assert_eq!(visitor.ask("198.51.100.1", "/s/alive1").await.status, 200);
    for _ in 0..30 {
        assert_eq!(visitor.ask("192.0.2.1", "/s/alive2").await.status, 200, "hits cost nothing");
    }
    assert_eq!(visitor.guesses("192.0.2.1", 0..40).await, 20);
    assert_eq!(upstream.requests().iter().filter(|request| request.target.contains("guess")).count(), 20);
    let locked = visitor.ask("192.0.2.1", "/s/alive3").await;
    let wait: u64 = locked.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(
        (locked.status, locked.text().contains("Try again later")),
        (429, true),
        "as the application says it"
    );
    for link in ["/s/alive1", "/s/alive2/preview"] {
        assert_eq!(visitor.ask("192.0.2.1", link).await.status, 200, "{link} has answered lately");
    }
    assert_eq!(visitor.guesses("192.0.2.2", 100..110).await, 10, "a neighbour has a budget of his own");
    assert_eq!(visitor.guesses("192.0.3.1", 100..110).await, 10);
    let series = format!(
        "portcullis_denials_total{{class=\"share\",guard=\"share\",reason=\"links_locked\",site=\"{HOST}\"}}"
    );
    assert_eq!(gate.metric(&series), Some(21.0));
}

#[tokio::test]
async fn a_network_that_guesses_together_is_locked_together() {
    let upstream = Upstream::by_request(application);
    let gate = gate("[site.share_guard]\nmisses = 5\nnetwork_misses = 12\nper = \"10h\"\n", &upstream);
    let mut visitor = Visitor::of(&gate).await;
    let mut asked = 0;
    for desk in 1..=8 {
        asked += visitor.guesses(&format!("192.0.2.{desk}"), desk * 100..desk * 100 + 9).await;
    }
    assert_eq!(asked, 12);
    assert_eq!(visitor.guesses("192.0.3.1", 5000..5009).await, 5);
}

#[tokio::test]
async fn a_dead_link_in_an_offices_chat_locks_nobody_out() {
    let upstream = Upstream::by_request(application);
    // Nothing is forgiven while the test runs.
    let gate = gate("[site.share_guard]\nnetwork_misses = 40\nper = \"10h\"\n", &upstream);
    let mut visitor = Visitor::of(&gate).await;
    for desk in 1..=60 {
        let desk = format!("192.0.2.{desk}");
        assert_eq!(visitor.ask(&desk, "/s/expired").await.status, 404, "{desk}");
    }
    for _ in 0..30 {
        assert_eq!(
            visitor.ask("192.0.2.7", "/s/expired").await.status,
            404,
            "nor one who tries again and again"
        );
    }
    assert_eq!(visitor.guesses("192.0.2.7", 0..40).await, 19, "it has cost one");
}

#[tokio::test]
async fn a_forum_page_full_of_pictures_of_guessed_links_costs_its_readers_nothing() {
    let upstream = Upstream::by_request(application);
    let gate = gate("[site.share_guard]\nper = \"10h\"\n", &upstream);
    let mut visitor = Visitor::of(&gate).await;
    for dest in ["image", "iframe", "empty", "video"] {
        let lines =
            format!("Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: {dest}\r\n");
        // More than the rate's burst of a hundred.
        for link in 0..75 {
            let answer = visitor.ask_with("192.0.2.1", &format!("/s/{dest}{link}/file"), &lines).await;
            assert_eq!(answer.status, 403);
        }
    }
    let prefetched = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document\r\nSec-Purpose: prefetch\r\n";
    assert_eq!(visitor.ask_with("192.0.2.1", "/s/ahead", prefetched).await.status, 403);
    assert_eq!(upstream.requests().len(), 0, "the application hears of none");
    // A share page in a sandbox is foreign to its own picture, as browsers see it.
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(
        visitor.ask_with("192.0.2.1", "/s/alive", link).await.status,
        200,
        "who follows a link gets in"
    );
    let own = "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    assert_eq!(visitor.ask_with("192.0.2.1", "/s/alive2", own).await.status, 200, "nor the rate");
    let picture = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
    assert_eq!(visitor.ask_with("192.0.2.1", "/s/alive/preview", picture).await.status, 200);
    assert_eq!(visitor.guesses("192.0.2.1", 0..40).await, 20, "the budget is whole");
}

#[tokio::test]
async fn a_links_password_is_guessed_twenty_times_and_its_owner_gets_in() {
    let upstream = Upstream::by_request(application);
    let gate = gate("[site.share_guard]\nper = \"10h\"\n", &upstream);
    let send = async |from: &str, link: &str, word: &str| {
        let lines = format!("X-Forwarded-For: {from}\r\n");
        gate.ask(&format!("POST /s/{link}"), &lines, format!("password={word}").as_bytes()).await
    };
    let mut visitor = Visitor::of(&gate).await;
    assert_eq!(visitor.ask("192.0.2.1", "/s/locked1").await.status, 200, "the page that asks for it");
    let mut heard = 0;
    while send("192.0.2.1", "locked1", "guess").await.status == 403 {
        heard += 1;
        assert!(heard <= 21, "twenty, and the one that locks");
    }
    let locked = send("192.0.2.1", "locked1", "right").await;
    assert_eq!(
        (locked.status, locked.header("retry-after").is_some()),
        (429, true),
        "though the link is alive"
    );
    assert_eq!(send("192.0.2.1", "locked2", "right").await.status, 200, "another link");
    assert_eq!(send("198.51.100.1", "locked1", "right").await.status, 200, "somebody else");
    assert_eq!(visitor.guesses("192.0.2.1", 0..40).await, 20, "no guess at links");
}

#[tokio::test]
async fn parallel_guesses_at_a_links_password_do_not_slip_by() {
    let upstream = Upstream::by_request(|request| {
        if request.method == "POST" {
            std::thread::sleep(Duration::from_millis(200));
        }
        application(request)
    });
    let freely = "[site.rate.share]\nrefill = \"1000/s\"\nburst = 10000\n";
    let gate = gate(&format!("{freely}[site.share_guard]\nper = \"10h\"\n"), &upstream);
    let send = async |from: &str, word: &str| {
        let lines = format!("X-Forwarded-For: {from}\r\n");
        gate.ask("POST /s/locked1", &lines, format!("password={word}").as_bytes()).await.status
    };
    let all_at_once = async |from: &str| {
        let before = upstream.requests().len();
        futures_util::future::join_all((0..100).map(|_| send(from, "guess"))).await;
        upstream.requests().len() - before
    };
    let heard = all_at_once("192.0.2.1").await;
    assert!((20..=64).contains(&heard), "before one was wrong: {heard}");
    assert_eq!(send("198.51.100.1", "guess").await, 403);
    let heard = all_at_once("198.51.100.1").await;
    assert!((15..=20).contains(&heard), "while one was wrong: {heard}");
    assert_eq!(send("203.0.113.1", "right").await, 200);
}

/// What a stranger sees of an answer, but for its id and the time of day.
fn seen(answer: &Answer) -> (u16, String, String) {
    let told = |line: &&str| !line.starts_with("x-request-id:") && !line.starts_with("date:");
    (answer.status, answer.head.lines().filter(told).collect::<Vec<_>>().join("\n"), answer.text())
}

#[tokio::test]
async fn dead_unknown_expired_used_up_and_blocked_links_look_the_same() {
    let upstream = Upstream::by_request(application);
    let gate = gate("", &upstream);
    assert!(gate.cli_with(["block", "share", "-"], "alive9").status.success());
    let mut visitor = Visitor::of(&gate).await;
    for below in ["", "/file", "/preview"] {
        for lines in ["", "Accept: text/html\r\n", "Accept: application/json\r\nCookie: a=b\r\n"] {
            let mut looks = Vec::new();
            for token in ["never-was", "expired", "usedup", "alive9"] {
                looks.push(seen(&visitor.ask_with("192.0.2.1", &format!("/s/{token}{below}"), lines).await));
            }
            assert_eq!(looks[0].0, 404);
            assert!(looks.iter().all(|look| *look == looks[0]), "{below} {lines}: {looks:#?}");
            for hint in ["etag", "set-cookie", "last-modified", "vary", "Gone", "limit", "revoked"] {
                assert!(!looks[0].1.contains(hint) && !looks[0].2.contains(hint), "{hint} in {looks:#?}");
            }
        }
    }
    let asked = |token: &str| upstream.requests().iter().filter(|one| one.target.contains(token)).count();
    assert_eq!((asked("alive9"), asked("expired")), (0, 9));
    // Who gets this has a link that is alive: its page answers 200.
    let looking = visitor.ask("192.0.2.1", "/s/viewonly/file").await;
    assert_eq!((looking.status, looking.text().as_str()), (403, r#"{"detail":"Download not permitted"}"#));
}

#[tokio::test]
async fn a_blocked_link_takes_as_long_as_one_that_the_application_does_not_know() {
    let upstream = Upstream::by_request(application);
    let gate = gate("", &upstream);
    assert!(gate.cli_with(["block", "share", "-"], "alive9").status.success());
    let mut visitor = Visitor::of(&gate).await;
    let mut times = Vec::new();
    for path in ["/s/never-was", "/s/alive9", "/s/slow", "/s/alive9"] {
        let start = Instant::now();
        assert_eq!(visitor.ask("192.0.2.1", path).await.status, 404);
        times.push(start.elapsed());
    }
    // On a busy machine all take longer, so that only the least time is sure.
    let least = [25, 25, 75, 75].map(Duration::from_millis);
    assert!(times.iter().zip(least).all(|(time, least)| *time >= least), "{times:?}");
}

#[tokio::test]
async fn no_log_has_the_link_and_the_audit_log_has_the_lockout() {
    let upstream = Upstream::by_request(application);
    let gate = gate("[site.share_guard]\nper = \"10h\"\n", &upstream);
    let mut visitor = Visitor::of(&gate).await;
    assert_eq!(visitor.guesses("192.0.2.1", 0..25).await, 20);
    let audit = || std::fs::read_to_string(gate.state().join("audit.log")).unwrap_or_default();
    assert!(wait_for(LIMIT, || audit().contains("\"lockout\"")).await, "{}", gate.errors());
    let audit = audit();
    let line: serde_json::Value =
        serde_json::from_str(audit.lines().find(|line| line.contains("\"lockout\"")).unwrap()).unwrap();
    let what = serde_json::json!({ "site": HOST, "of": "share links", "client": "192.0.2.1", "seconds": 30 });
    assert_eq!(line["what"], what);
    let count = |name| gate.metric(&format!("portcullis_lockouts_{name}{{site=\"{HOST}\"}}"));
    assert_eq!((count("total"), count("active")), (Some(1.0), Some(1.0)));
    let unlocked = gate.cli(["unlock", "client", "192.0.2.1"]);
    let said = String::from_utf8_lossy(&unlocked.stdout);
    assert_eq!(said, format!("UNLOCKED: share links on {HOST} (30 s): 192.0.2.1\n"));
    assert_eq!((visitor.guesses("192.0.2.1", 500..525).await, count("total")), (20, Some(2.0)));
    assert!(wait_until(LIMIT, || gate.log().contains("links_locked")));
    let denials = gate.cli(["denials", "--json"]);
    let denials = String::from_utf8_lossy(&denials.stdout).into_owned();
    assert!(
        denials.contains("links_locked") && denials.contains("share_guard"),
        "cause and remedy: {denials}"
    );
    for (log, text) in
        [("audit", audit), ("access", gate.log()), ("process", gate.errors()), ("denials", denials)]
    {
        assert!(!text.contains("guess"), "{log}: {text}");
    }
}

#[tokio::test]
async fn what_only_observes_counts_and_lets_pass_and_an_application_that_is_down_costs_nobody() {
    let upstream = Upstream::by_request(application);
    let watching = gate("mode = \"observe\"\n[site.share_guard]\nper = \"10h\"\n", &upstream);
    let mut visitor = Visitor::of(&watching).await;
    assert_eq!(visitor.guesses("192.0.2.1", 0..25).await, 25);
    let series = format!(
        "portcullis_would_deny_total{{class=\"share\",guard=\"share\",reason=\"links_locked\",site=\"{HOST}\"}}"
    );
    assert_eq!(watching.metric(&series), Some(5.0));
    let [nobody] = common::gate::free_addresses();
    let listen = "trusted_proxies = [\"127.0.0.1\"]\n".into();
    let gate = Config { listen, ..Config::default() }.start(nobody);
    let mut visitor = Visitor::of(&gate).await;
    for link in 0..30 {
        assert_eq!(visitor.ask("192.0.2.1", &format!("/s/link{link}")).await.status, 502);
    }
}

// === downloads ===

/// So many ask at once, each over a connection of its own; how many got the file.
async fn downloads(at_once: usize, ask: impl AsyncFn() -> Option<Answer>) -> usize {
    let all = futures_util::future::join_all((0..at_once).map(|_| ask())).await;
    all.into_iter().flatten().filter(|answer| answer.body == FILE).count()
}

async fn direct(keepstack: &Keepstack) -> Option<Answer> {
    let mut stream = TcpStream::connect(keepstack.upstream.address).await.unwrap();
    Some(raw::ask(&mut stream, b"GET /s/link/file HTTP/1.1\r\nHost: a\r\n\r\n").await)
}

#[tokio::test]
async fn a_link_for_n_downloads_never_gives_one_more_and_does_without_the_gateway() {
    for (max, lossy) in [(1, false), (1, true), (3, true)] {
        let bare = Keepstack::start(max, lossy);
        let got = downloads(24, async || direct(&bare).await).await;
        assert!(got > max as usize, "{got} of {max}: without the gateway the application gives too many");
        let keepstack = Keepstack::start(max, lossy);
        let gate = Gate::start("", keepstack.upstream.address);
        let got = downloads(24, async || Some(gate.ask("GET /s/link/file", "", b"").await)).await;
        assert_eq!(got, max as usize, "through the gateway");
        let other = gate.ask("GET /s/other/file", "", b"").await;
        assert_eq!(other.status, 404, "the stand-in has one count for all links: {}", other.text());
    }
}

#[tokio::test]
async fn clients_that_leave_while_the_application_counts_give_nobody_one_more() {
    let keepstack = Keepstack::start(2, true);
    let gate = Gate::start("", keepstack.upstream.address);
    let target = "/s/link/file?dawdle";
    let head = format!("GET {target} HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    let mut leaves = gate.connect().await;
    leaves.write_all(head.as_bytes()).await.unwrap();
    leaves.flush().await.unwrap();
    assert!(wait_for(LIMIT, || keepstack.upstream.requests().len() == 1).await, "it is being counted");
    drop(leaves);
    let mut got = 0;
    for _ in 0..2 {
        got += downloads(4, async || Some(gate.ask("GET /s/link/file", "", b"").await)).await;
        tokio::time::sleep(MOMENT * 12).await;
    }
    assert!(got <= 2, "{got}");
}

/// Asks for this link as this client with this token, and waits for nothing.
async fn sent(gate: &Gate, from: &str, path: &str, token: &str) -> TlsStream<TcpStream> {
    let mut stream = gate.connect().await;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}:{}\r\nX-Forwarded-For: {from}\r\nAuthorization: Bearer {token}\r\n\r\n",
        gate.https.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// Its end comes soon, and nothing of the application's.
async fn assert_cut(stream: &mut TlsStream<TcpStream>, what: &str) {
    let mut got = [0; 12];
    let read = tokio::time::timeout(LIMIT, stream.read(&mut got)).await.expect(what);
    let got = &got[..read.unwrap_or(0)];
    assert!(got.is_empty() || got.starts_with(b"HTTP/1.1 40"), "{what}: {got:?}");
}

fn order(gate: &Gate, words: &[&str], input: &str) {
    let done = gate.cli_with(words.iter().copied(), input);
    assert!(done.status.success(), "{words:?}: {done:?}");
}

#[tokio::test]
async fn a_block_cuts_who_waits_for_a_links_turn_and_his_request_never_reaches_the_application() {
    // The first one is never answered, so that the turn is his.
    let upstream = Upstream::scripted(|mut session| {
        session.request();
        session.until_closed();
    });
    let gate = gate("", &upstream);
    let (holder, stolen, own) = (session(1), session(2), session(3));
    let mut first = sent(&gate, "192.0.2.1", "/s/link/file", &holder).await;
    assert!(wait_for(LIMIT, || upstream.connections().len() == 1).await);
    let mut by_token = sent(&gate, "192.0.2.2", "/s/link/file", &stolen).await;
    let mut by_address = sent(&gate, "192.0.2.3", "/s/link/file", &own).await;
    let mut by_link = sent(&gate, "192.0.2.4", "/s/link/file", &own).await;
    let h2 = common::http2::Client::connect(&gate).await;
    let of_h2 = |path: &str, from: &str| h2.head("GET", path).header("x-forwarded-for", from);
    let (waits, _) = h2.open(of_h2("/s/link/file", "192.0.2.5"), true).await;
    // They stand in line now. One that is late is refused instead, which is as good.
    tokio::time::sleep(MOMENT * 10).await;
    let start = Instant::now();
    order(&gate, &["block", "token", "-"], &stolen);
    assert_cut(&mut by_token, "a blocked token").await;
    order(&gate, &["block", "address", "192.0.2.3"], "");
    assert_cut(&mut by_address, "a blocked address").await;
    order(&gate, &["block", "address", "192.0.2.5"], "");
    let ended = tokio::time::timeout(LIMIT, waits).await.unwrap();
    assert!(ended.is_err() || ended.unwrap().status() == 403, "its stream is reset");
    assert!(h2.is_open().await, "others of its connection go on");
    order(&gate, &["block", "share", "-"], "link");
    assert_cut(&mut by_link, "a blocked link").await;
    assert_cut(&mut first, "who had its turn").await;
    assert!(start.elapsed() < Duration::from_secs(9), "a wait for a turn would have ended by itself");
    assert!(upstream.all_closed_within(Duration::from_secs(2)), "what was asked is aborted at once");
    assert_eq!(upstream.requests().len(), 1, "no other was asked for");
}

#[tokio::test]
async fn a_download_that_a_block_has_cut_while_it_was_counted_gives_nobody_one_more() {
    let keepstack = Keepstack::start(1, true);
    let gate = gate("", &keepstack.upstream);
    let mut first = sent(&gate, "192.0.2.1", "/s/link/file?dawdle", &session(1)).await;
    assert!(wait_for(LIMIT, || keepstack.upstream.requests().len() == 1).await, "it is being counted");
    let other = sent(&gate, "192.0.2.2", "/s/link/file", &session(2)).await;
    order(&gate, &["block", "address", "192.0.2.1"], "");
    assert_cut(&mut first, "a blocked address").await;
    let counted = || keepstack.count.load(std::sync::atomic::Ordering::SeqCst) == 1;
    assert!(wait_for(LIMIT, counted).await, "the application counts on");
    tokio::time::sleep(MOMENT * 5).await;
    assert_eq!(keepstack.upstream.requests().len(), 1, "who is next in line waits until that must be over");
    drop(other);
}

#[tokio::test]
async fn ranges_that_a_client_asks_for_at_once_count_as_one_and_a_resumed_download_as_another() {
    let keepstack = Keepstack::start(9, false);
    let gate = Gate::start("", keepstack.upstream.address);
    let count = || keepstack.count.load(std::sync::atomic::Ordering::SeqCst);
    let head = format!(
        "GET /s/slow/file HTTP/1.1\r\nHost: {HOST}:{}\r\nRange: bytes=0-9\r\n\r\n",
        gate.https.port()
    );
    let mut first = gate.connect().await;
    first.write_all(head.as_bytes()).await.unwrap();
    first.flush().await.unwrap();
    assert!(wait_for(LIMIT, || count() == 1).await);
    for range in ["bytes=10-19", "bytes=0-", "bytes=2000-"] {
        let other = gate.ask("GET /s/slow/file", &format!("Range: {range}\r\n"), b"").await;
        assert_eq!((other.status, other.header("retry-after")), (429, Some("5")), "{range}");
    }
    let whole = raw::read_answer(&mut first, false).await;
    assert_eq!((whole.status, whole.body.len()), (200, FILE.len()), "whole, as HTTP allows");
    assert_eq!(whole.header("accept-ranges"), Some("none"), "so that clients ask for no parts");
    assert_eq!(count(), 1);
    // Only the application could tell that this is the same download.
    let resumed = gate.ask("GET /s/link/file", "Range: bytes=3000-\r\n", b"").await;
    assert_eq!((resumed.status, resumed.body.len(), count()), (206, 1000, 2));
}

#[tokio::test]
async fn one_client_alone_closes_no_link_to_others() {
    let keepstack = Keepstack::start(1000, false);
    let listen = "trusted_proxies = [\"127.0.0.1\"]\n".into();
    let gate = Config { listen, ..Config::default() }.start(keepstack.upstream.address);
    let head = format!(
        "GET /s/dawdle/file HTTP/1.1\r\nHost: {HOST}:{}\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n",
        gate.https.port()
    );
    let mut his = Vec::new();
    for _ in 0..70 {
        let mut stream = gate.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        his.push(stream);
    }
    let refused = format!(
        "portcullis_denials_total{{class=\"share_download\",guard=\"share\",reason=\"link_busy\",site=\"{HOST}\"}}"
    );
    assert!(wait_for(LIMIT, || gate.metric(&refused) >= Some(30.0)).await, "{:?}", gate.metric(&refused));
    let other = gate.ask("GET /s/dawdle/file", "X-Forwarded-For: 192.0.2.2\r\n", b"").await;
    assert_eq!(other.status, 200, "he waits his turn, and has it");
}

// === pictures ===

#[tokio::test]
async fn sizes_that_cost_the_application_seconds_never_reach_it() {
    let upstream = Upstream::by_request(application);
    let open = "[[site.route]]\nmatch = \"/iiif/*\"\nclass = \"preview\"\n";
    let gate = gate(open, &upstream);
    let mut visitor = Visitor::of(&gate).await;
    for path in [
        "/api/assets/u/preview?size=401",
        "/api/assets/u/preview?size=-1",
        "/api/assets/u/preview?size=400&size=3999",
        "/api/assets/u/preview?%73%69ze=3999",
        "/api/assets/u/previe%77?size=3999",
        "/iiif/3/u/full/12000,12000/0/default.jpg",
        "/iiif/3/u/full/%312000,12000/0/default.jpg",
        "/iiif/3/u/0,0,9000,1/,4000/0/default.jpg",
        "/iiif/3/u/full/pct:1000/0/default.jpg",
        "/iiif/3/u/full/max/0.1/default.jpg",
    ] {
        let answer = visitor.ask("192.0.2.1", path).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"detail":"Bad Request"}"#), "{path}");
    }
    assert_eq!(upstream.requests().len(), 0);
    for path in [
        "/api/assets/u/preview",
        "/api/assets/u/preview?size=400",
        "/iiif/3/u/full/!4000,4000/0/default.jpg",
        "/iiif/3/u/full/max/90/default.jpg",
        "/s/alive/preview",
    ] {
        visitor.ask("192.0.2.1", path).await;
        assert_eq!(upstream.requests().last().unwrap().target, path);
    }
    let mut passed = 0;
    for _ in 0..40 {
        passed += usize::from(visitor.ask("192.0.2.9", "/iiif/3/u/info.json").await.status != 429);
    }
    assert!((30..=32).contains(&passed), "{passed}: 30 a minute for each address");
}

#[tokio::test]
async fn one_line_closes_previews_and_another_opens_the_catalogue_and_share_pages_keep_their_pictures() {
    let upstream = Upstream::by_request(application);
    let closed = gate("[site.only_from]\npreview = [\"10.0.0.0/8\"]\n", &upstream);
    let mut visitor = Visitor::of(&closed).await;
    for path in
        ["/api/assets/u/thumb", "/api/assets/u/preview", "/oai?verb=ListRecords", "/iiif/3/u/info.json"]
    {
        let answer = visitor.ask("192.0.2.1", path).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, r#"{"detail":"Not Found"}"#), "{path}");
    }
    assert_eq!(upstream.requests().len(), 0);
    assert_eq!(visitor.ask("192.0.2.1", "/s/alive/preview").await.status, 200);
    visitor.ask("10.1.2.3", "/api/assets/u/thumb").await;
    assert_eq!(upstream.requests().len(), 2);
    let open = gate("[site.only_from]\ndocs = [\"192.0.2.0/24\"]\n", &upstream);
    let mut visitor = Visitor::of(&open).await;
    visitor.ask("192.0.2.1", "/oai?verb=ListRecords").await;
    assert_eq!(upstream.requests().len(), 3);
}
