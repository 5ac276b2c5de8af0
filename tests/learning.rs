//! Promises of learning and refresh: a block of a person is not undone by a refresh or a login's answer, a logout stays one
//! when the application forgets, who is disabled or given another password is out; and nobody can make the gateway block
//! an innocent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "measured figures are shown; streams take time"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::gate::{Config, Gate};
use common::raw::{Answer, LIMIT};
use common::strict::Request;
use common::upstream::{OK, Session, Upstream};
use common::{HOST, tokens, wait_for};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const FREELY: &str = "[site.rate.login]\nrefill = \"1000/s\"\nburst = 1000\n[site.rate.refresh]\nrefill = \"1000/s\"\nburst = 1000\n";
const COOKIE: &str = "arkeep_refresh_token";

/// How a stand-in behaves that is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Mood {
    #[default]
    Sound,
    /// Logs out whoever comes.
    Gullible,
    /// Says that the logout is elsewhere.
    Redirecting,
    /// Answers a logout out of a cache.
    Cached,
}

/// What Arkeep keeps in memory and in its database, as measured: refresh cookies rotate, the list of ended tokens is lost with a
/// restart, and a new password ends nothing.
#[derive(Default)]
struct State {
    mood: Mood,
    /// Cookie → subject. In its database.
    refresh: BTreeMap<String, String>,
    /// Ended tokens. In memory.
    ended: BTreeSet<String>,
    count: u64,
    /// Refreshes that it was asked for.
    refreshes: usize,
    /// How it encodes answers, whatever it is asked.
    encoding: Option<&'static str>,
    /// Bytes of padding in its answers.
    padding: usize,
    /// Behind its tokens.
    tail: &'static str,
}

/// A way to answer, by its name.
type Kind = (&'static str, fn(&mut State));

#[derive(Clone)]
struct Arkeep(Arc<Mutex<State>>);

fn claims_of(token: &str) -> Option<Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let text = String::from_utf8(payload).ok()?;
    let claims: Value = serde_json::from_str(&text).ok()?;
    (tokens::jwt(&text) == token && claims["exp"].as_u64()? > tokens::now()).then_some(claims)
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length =
        if status.starts_with("204") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    [format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n").as_bytes(), body].concat()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body).unwrap();
    gzip.finish().unwrap()
}

impl State {
    fn token(&mut self, subject: &str) -> String {
        self.count += 1;
        let (now, jti) = (tokens::now(), self.count);
        tokens::jwt(&format!(
            r#"{{"iss":"arkeep-server","sub":"{subject}","uid":"{subject}","jti":"j{jti}","iat":{now},"exp":{}}}"#,
            now + 900
        ))
    }

    fn cookie(&mut self, subject: &str) -> String {
        self.count += 1;
        let cookie = format!("{:064x}", self.count);
        self.refresh.insert(cookie.clone(), subject.into());
        cookie
    }

    fn pair(&mut self, subject: &str) -> Vec<u8> {
        let (token, cookie) = (self.token(subject), self.cookie(subject));
        let pad = "x".repeat(self.padding);
        let body = json!({ "data": { "access_token": format!("{token}{}", self.tail), "expires_in": 899 }, "pad": pad });
        let set = format!("Set-Cookie: {COOKIE}={cookie}; Path=/api/v1/auth; HttpOnly; SameSite=Strict\r\n");
        let body = body.to_string().into_bytes();
        let (encoding, body) = match self.encoding {
            Some("gzip") => ("Content-Encoding: gzip\r\n", gzip(&body)),
            Some(_) => ("Content-Encoding: br\r\n", body),
            None => ("", body),
        };
        answer("200 OK", &format!("Content-Type: application/json\r\n{encoding}{set}"), &body)
    }

    fn caller(&self, request: &Request) -> Option<Value> {
        let token = request.header("authorization")?.split_once(' ')?.1;
        claims_of(token).filter(|claims| !self.ended.contains(claims["jti"].as_str().unwrap_or_default()))
    }

    fn respond(&mut self, request: &Request) -> Vec<u8> {
        let refused = || answer("401 Unauthorized", "Content-Type: application/json\r\n", b"{}");
        let path = request.target.split('?').next().unwrap_or_default();
        let cookie = request.all("cookie").flat_map(|line| line.split("; ")).find_map(|pair| {
            pair.split_once('=').filter(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
        });
        match (&*request.method, path) {
            ("POST", "/api/v1/auth/login") => {
                let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
                let subject = format!("id-{}", body["email"].as_str().unwrap_or_default());
                if body["password"] == "right" { self.pair(&subject) } else { refused() }
            }
            ("POST", "/api/v1/auth/refresh") => {
                self.refreshes += 1;
                match cookie.and_then(|cookie| self.refresh.remove(&cookie)) {
                    Some(subject) => self.pair(&subject),
                    None => refused(),
                }
            }
            ("GET", "/api/v1/auth/oidc/callback") => {
                let token = self.token("id-alice");
                let cookie = self.cookie("id-alice");
                let headers = format!(
                    "Location: /auth/callback?token={token}&expires_in=899\r\nSet-Cookie: {COOKIE}={cookie}; Path=/api/v1/auth\r\n"
                );
                answer("302 Found", &headers, b"")
            }
            (_, "/api/v1/auth/logout") => match (self.mood, self.caller(request)) {
                (Mood::Redirecting, _) => answer("302 Found", "Location: /login\r\n", b""),
                (Mood::Cached, _) => answer("200 OK", "Age: 7\r\n", b"{}"),
                (Mood::Gullible, _) => answer("204 No Content", "", b""),
                (_, None) => refused(),
                (_, Some(claims)) => {
                    self.ended.insert(claims["jti"].as_str().unwrap_or_default().to_owned());
                    cookie.and_then(|cookie| self.refresh.remove(&cookie));
                    answer("204 No Content", "", b"")
                }
            },
            ("PATCH" | "DELETE", _) if path.starts_with("/api/v1/users/") => match self.caller(request) {
                Some(claims) if claims["sub"] == "id-root" || path.ends_with("/me") => {
                    answer("200 OK", "Content-Type: application/json\r\n", b"{\"data\":{}}")
                }
                Some(_) => answer("403 Forbidden", "", b"{}"),
                None => refused(),
            },
            _ if self.caller(request).is_none() => refused(),
            _ => OK.to_vec(),
        }
    }
}

impl Arkeep {
    fn start() -> (Self, Upstream) {
        let this = Self(Arc::default());
        let state = this.clone();
        let upstream = Upstream::scripted(move |mut session: Session| {
            while let Some(request) = session.request() {
                if request.target.starts_with("/api/v1/ws") {
                    session.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
                    while session.send(b"9\r\ndata: 1\n\n\r\n") {
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    return;
                }
                let answer = state.with(|state| state.respond(&request));
                if !session.send(&answer) {
                    return;
                }
            }
        });
        (this, upstream)
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// As measured: SIGTERM and start, and what was ended is good again.
    fn restart(&self) {
        self.with(|state| state.ended.clear());
    }
}

/// A session as a browser has it.
#[derive(Clone, Debug)]
struct Held {
    token: String,
    cookie: String,
}

fn held(answer: &Answer) -> Held {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let cookie = answer.header("set-cookie").unwrap();
    let cookie = cookie.split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
    Held { token: body["data"]["access_token"].as_str().unwrap().to_owned(), cookie }
}

fn arkeep(upstream: &Upstream, site: &str) -> Gate {
    Config { app: "arkeep".into(), site: format!("{site}\n{FREELY}"), ..Config::default() }
        .start(upstream.address)
}

async fn try_login(gate: &Gate, name: &str) -> Answer {
    let body = json!({ "email": name, "password": "right" }).to_string();
    gate.ask("POST /api/v1/auth/login", "Content-Type: application/json\r\n", body.as_bytes()).await
}

async fn login(gate: &Gate, name: &str) -> Held {
    held(&try_login(gate, name).await)
}

async fn refresh(gate: &Gate, cookie: &str) -> Answer {
    gate.ask("POST /api/v1/auth/refresh", &format!("Cookie: {COOKIE}={cookie}\r\n"), b"").await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn use_it(gate: &Gate, token: &str) -> u16 {
    gate.ask("GET /api/v1/jobs", &bearer(token), b"").await.status
}

async fn logout(gate: &Gate, fields: &str) -> u16 {
    gate.ask("POST /api/v1/auth/logout", fields, b"").await.status
}

fn done(gate: &Gate, words: &[&str]) -> String {
    let told = gate.cli(words.iter().copied());
    let text = format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{words:?}: {text}");
    text
}

fn blocks(gate: &Gate) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&done(gate, &["blocks", "--json"])).unwrap();
    listed["blocks"].as_array().unwrap().clone()
}

/// Equal seconds count as older: what shall be newer begins in the next one.
async fn next_second() {
    let now = tokens::now();
    assert!(wait_for(LIMIT, || tokens::now() > now).await);
}

fn withheld(answer: &Answer) {
    let body = r#"{"error":{"message":"authentication required","code":"unauthorized"}}"#;
    assert_eq!((answer.status, answer.text().as_str()), (401, body), "{}", answer.head);
    assert_eq!((answer.header("set-cookie"), answer.header("location")), (None, None), "{}", answer.head);
}

#[tokio::test]
async fn a_blocked_person_gets_no_new_session_by_a_refresh_and_the_application_is_not_even_asked() {
    let (app, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let (first, bob) = (login(&gate, "alice").await, login(&gate, "bob").await);
    // Rotated twice: what comes of a session is as old as its login.
    next_second().await;
    let second = held(&refresh(&gate, &first.cookie).await);
    let third = held(&refresh(&gate, &second.cookie).await);
    let told = done(&gate, &["block", "subject", "id-alice"]);
    assert!(told.contains("logging in again is possible") && !told.contains("still gives"), "{told}");
    next_second().await;
    let asked = app.with(|state| state.refreshes);
    for cookie in [&third.cookie, &second.cookie, &first.cookie] {
        withheld(&refresh(&gate, cookie).await);
    }
    assert_eq!(app.with(|state| state.refreshes), asked, "it would have rotated the cookie");
    assert_eq!(use_it(&gate, &third.token).await, 401);
    // Others are not touched, and the person may log in again, and stay.
    held(&refresh(&gate, &bob.cookie).await);
    let again = login(&gate, "alice").await;
    assert_eq!(use_it(&gate, &again.token).await, 200);
    let later = held(&refresh(&gate, &again.cookie).await);
    assert_eq!(use_it(&gate, &later.token).await, 200);
}

/// Faketime's library, which gives a process another time than the machine's.
fn faketime() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    found.expect("libfaketimeMT.so.1: install Debian's faketime").display().to_string()
}

#[tokio::test]
async fn sixteen_minutes_after_a_block_of_a_person_by_the_clock_a_refresh_is_refused() {
    let (app, upstream) = Arkeep::start();
    let folder = tempfile::tempdir().unwrap();
    let time = folder.path().join("time");
    std::fs::write(&time, "+0\n").unwrap();
    let environment = vec![
        ("LD_PRELOAD", faketime()),
        ("FAKETIME_TIMESTAMP_FILE", time.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".into()),
    ];
    let gate = Config { app: "arkeep".into(), site: FREELY.into(), environment, ..Config::default() }
        .start(upstream.address);
    let (alice, bob) = (login(&gate, "alice").await, login(&gate, "bob").await);
    let old = app.with(|state| state.cookie("id-alice"));
    done(&gate, &["block", "subject", "id-alice"]);
    let uptime = || -> u64 {
        let status: Value = serde_json::from_str(&done(&gate, &["status", "--json"])).unwrap();
        status["status"]["uptime_seconds"].as_u64().unwrap()
    };
    let before = uptime();
    std::fs::write(&time, "+960\n").unwrap();
    assert!((960..1020).contains(&(uptime() - before)), "its clocks say so");
    next_second().await;
    let asked = app.with(|state| state.refreshes);
    withheld(&refresh(&gate, &alice.cookie).await);
    assert_eq!(
        app.with(|state| state.refreshes),
        asked,
        "the access token has ended long ago, the block has not"
    );
    withheld(&refresh(&gate, &old).await);
    assert_eq!(use_it(&gate, &alice.token).await, 401);
    held(&refresh(&gate, &bob.cookie).await);
    held(&try_login(&gate, "alice").await);
}

#[tokio::test]
async fn a_refresh_at_the_login_is_one_wherever_it_says_so() {
    // As token endpoints of OAuth: by what is asked for, and some take that from the query.
    let upstream = Upstream::by_request(|_| {
        let body = json!({ "access_token": tokens::login("id-alice", "fresh", tokens::now()) }).to_string();
        answer("200 OK", "Content-Type: application/json\r\n", body.as_bytes())
    });
    let gate =
        Config { app: "generic".into(), site: FREELY.into(), ..Config::default() }.start(upstream.address);
    done(&gate, &["block", "subject", "id-alice"]);
    next_second().await;
    let (form, json) =
        ("Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: application/json\r\n");
    for (line, kind, body, status) in [
        ("POST /api/token", form, "grant_type=password&username=alice&password=x", 200),
        ("POST /api/token?next=/", json, r#"{"username":"alice","password":"x"}"#, 200),
        ("POST /api/token?grant_type=password", form, "username=alice&password=x", 200),
        ("POST /api/token", form, "grant_type=refresh_token&refresh_token=x", 401),
        ("POST /api/token", json, r#"{"grant_type":"refresh_token","refresh_token":"x"}"#, 401),
        ("POST /api/token", json, r#"{"GRANT_TYPE":"refresh_token"}"#, 401),
        ("POST /api/token?grant_type=refresh_token&refresh_token=x", "", "", 401),
        ("POST /api/token?grant_type=refresh_token", form, "grant_type=password&refresh_token=x", 401),
        ("POST /api/token?x;Grant%5Ftype=password&refresh_token=x", "", "", 401),
        ("POST /api/token", "Content-Type: text/plain\r\n", "grant_type=refresh_token", 401),
    ] {
        let told = gate.ask(line, kind, body.as_bytes()).await;
        assert_eq!(told.status, status, "{line} {body}");
    }
}

#[tokio::test]
async fn a_refresh_cookie_of_before_the_gateway_is_judged_by_what_the_application_answers() {
    let (app, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let (old, other) = app.with(|state| (state.cookie("id-alice"), state.cookie("id-bob")));
    let kept = app.with(|state| state.cookie("id-carol"));
    done(&gate, &["block", "subject", "id-alice"]);
    next_second().await;
    // Nor does a forged token beside it make it younger.
    let forged = tokens::login("id-alice", "forged", tokens::now());
    let forged = format!("{}{COOKIE}={old}\r\n", bearer(&forged).replace("\r\n", "\r\nCookie: "));
    withheld(&gate.ask("POST /api/v1/auth/refresh", &forged, b"").await);
    assert_eq!(app.with(|state| state.refreshes), 1);
    assert_eq!(gate.metric(r#"portcullis_denials_total{class="refresh",guard="blocks",reason="answer_blocked",site="files.test"}"#), Some(1.0));
    held(&refresh(&gate, &other).await);
    // From the first refresh on it is known, and as old as can be.
    let carol = held(&refresh(&gate, &kept).await);
    done(&gate, &["block", "subject", "id-carol"]);
    next_second().await;
    let asked = app.with(|state| state.refreshes);
    withheld(&refresh(&gate, &carol.cookie).await);
    assert_eq!(app.with(|state| state.refreshes), asked);
}

#[tokio::test]
async fn whose_a_refresh_cookie_is_outlives_kill_and_stop_of_the_gateway() {
    let (app, upstream) = Arkeep::start();
    let mut gate = arkeep(&upstream, "");
    let alice = login(&gate, "alice").await;
    let store = gate.state().join("blocks.redb");
    let begun = b"\"subject\":\"id-alice\",\"begun\"";
    let written = || std::fs::read(&store).unwrap().windows(begun.len()).any(|window| window == begun);
    assert!(wait_for(LIMIT, written).await, "it was not written down");
    let whole = std::fs::read(&store).unwrap();
    assert!(
        !whole.windows(alice.cookie.len()).any(|window| window == alice.cookie.as_bytes()),
        "the cookie itself"
    );
    gate.kill();
    gate.start_again();
    let bob = login(&gate, "bob").await;
    // Nothing waits for its seconds when the gateway is told to stop.
    gate.signal("TERM");
    assert_eq!(gate.wait_ended(LIMIT), Some(0));
    gate.start_again();
    for (who, session) in [("id-alice", alice), ("id-bob", bob)] {
        done(&gate, &["block", "subject", who]);
        next_second().await;
        withheld(&refresh(&gate, &session.cookie).await);
    }
    assert_eq!(app.with(|state| state.refreshes), 0);
}

#[tokio::test]
async fn with_and_logins_a_blocked_person_gets_no_token_by_password_single_sign_on_or_refresh() {
    let (app, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let callback = async || gate.ask("GET /api/v1/auth/oidc/callback?code=1&state=2", "", b"").await;
    let passed = callback().await;
    assert!(
        passed.status == 302 && passed.header("location").unwrap().contains("?token=ey"),
        "{}",
        passed.head
    );
    let cookie = passed.header("set-cookie").unwrap().split([';', '=']).nth(1).unwrap().to_owned();
    let number = json_of(&done(&gate, &["block", "subject", "id-alice", "--and-logins", "--json"]))["block"]
        ["id"]
        .to_string();
    next_second().await;
    withheld(&try_login(&gate, "alice").await);
    withheld(&callback().await);
    withheld(&refresh(&gate, &cookie).await);
    assert_eq!(app.with(|state| state.refreshes), 0, "the callback's cookie is known too");
    login(&gate, "bob").await;
    assert!(wait_for(LIMIT, || gate.log().matches("answer_blocked").count() == 2).await, "{}", gate.log());
    assert!(!gate.log().contains("token=ey"), "{}", gate.log());
    done(&gate, &["unblock", &number]);
    login(&gate, "alice").await;
    assert_eq!(callback().await.status, 302);
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn what_cannot_be_read_is_withheld_while_somebody_is_blocked_and_passes_otherwise() {
    let (app, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let kinds: [Kind; 4] = [
        ("compressed in a way that we know", |state| state.encoding = Some("gzip")),
        ("compressed in a way that we do not know", |state| state.encoding = Some("br")),
        ("too long", |state| state.padding = 70_000),
        ("with a token in two spellings", |state| state.tail = "."),
    ];
    let usual = |state: &mut State| (state.encoding, state.padding, state.tail) = (None, 0, "");
    for (what, change) in &kinds {
        app.with(|state| {
            usual(state);
            change(state)
        });
        let answer = try_login(&gate, "bob").await;
        assert!(answer.status == 200 && answer.header("set-cookie").is_some(), "{what}: {}", answer.head);
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert_eq!(answer.body.len(), length, "{what}");
    }
    // Somebody else is blocked: what can be read shows that it is not him.
    done(&gate, &["block", "subject", "id-alice", "--and-logins"]);
    for (what, change) in &kinds {
        app.with(|state| {
            usual(state);
            change(state)
        });
        let answer = try_login(&gate, "bob").await;
        if what.ends_with("we know") {
            assert_eq!(answer.status, 200, "{what}");
        } else {
            withheld(&answer);
        }
        withheld(&try_login(&gate, "alice").await);
    }
    let unreadable = r#"portcullis_denials_total{class="login",guard="blocks",reason="answer_unreadable",site="files.test"}"#;
    assert_eq!(gate.metric(unreadable), Some(6.0));
}

#[tokio::test]
async fn a_logout_stays_one_when_the_application_forgets_and_the_gateway_is_killed() {
    let (app, upstream) = Arkeep::start();
    let mut gate = arkeep(&upstream, "");
    let (alice, other) = (login(&gate, "alice").await, login(&gate, "alice").await);
    let fields = format!(
        "{}Cookie: {COOKIE}={}\r\nOrigin: https://{HOST}:{}\r\n",
        bearer(&alice.token),
        alice.cookie,
        gate.https.port()
    );
    assert_eq!(logout(&gate, &fields).await, 204);
    gate.kill();
    app.restart();
    gate.start_again();
    let asked = upstream.requests().len();
    assert_eq!(use_it(&gate, &alice.token).await, 401);
    withheld(&refresh(&gate, &alice.cookie).await);
    assert_eq!(upstream.requests().len(), asked, "the gateway's own 401");
    assert_eq!(use_it(&gate, &other.token).await, 200, "exactly that session");
    held(&refresh(&gate, &other.cookie).await);
    let learned = blocks(&gate);
    assert!(
        learned.len() == 2
            && learned.iter().all(|block| block["learned"] == true && block["reason"] == "learned: logout"),
        "{learned:?}"
    );
    let audit = std::fs::read_to_string(gate.state().join("audit.log")).unwrap();
    assert!(audit.contains("learned: logout") && !audit.contains(&alice.token), "{audit}");
    // A mistake can be undone like any block.
    let ends: Vec<u64> =
        learned.iter().map(|block| block["until"].as_u64().unwrap() / 1000 - tokens::now()).collect();
    assert!(ends[0] <= 900 + 300, "no longer than the token and a leeway: {ends:?}");
    done(&gate, &["unblock", &learned[0]["id"].to_string()]);
    assert_eq!(use_it(&gate, &alice.token).await, 200);
}

#[tokio::test]
async fn a_logout_cuts_the_live_streams_of_its_token_and_nobody_elses() {
    let (_, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let (alice, bob) = (login(&gate, "alice").await, login(&gate, "bob").await);
    let open = async |token: &str| {
        let mut stream = gate.connect().await;
        let head =
            format!("GET /api/v1/ws?token={token} HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream
    };
    let (mut hers, mut his) = (open(&alice.token).await, open(&bob.token).await);
    let start = Instant::now();
    assert_eq!(logout(&gate, &bearer(&alice.token)).await, 204, "its own answer arrives");
    let mut piece = [0; 4096];
    let cut =
        timeout(LIMIT, async { while matches!(hers.read(&mut piece).await, Ok(length) if length > 0) {} })
            .await;
    println!("logged out and cut in {} ms", start.elapsed().as_millis());
    assert!(cut.is_ok(), "it was not cut");
    assert!(matches!(timeout(LIMIT, his.read(&mut piece)).await, Ok(Ok(length)) if length > 0));
}

#[tokio::test]
async fn no_forged_logout_makes_the_gateway_block_an_innocent() {
    let (app, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let (victim, mallory) = (login(&gate, "victim").await, login(&gate, "mallory").await);
    let (hers, his) = (bearer(&victim.token), bearer(&mallory.token));
    let signed = victim.token.rsplit_once('.').unwrap().0.to_owned();
    let junk = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 32]));
    // Arkeep believes no other signature; that is what its app file relies on.
    assert_eq!(logout(&gate, &bearer(&junk)).await, 401);
    assert!(blocks(&gate).is_empty());
    app.with(|state| state.mood = Mood::Gullible);
    let expired =
        tokens::jwt(&format!(r#"{{"sub":"id-victim","jti":"old","iat":1,"exp":{}}}"#, tokens::now() - 5));
    let cookie = |session: &Held| format!("Cookie: {COOKIE}={}\r\n", session.cookie);
    let tricks: [(&str, &str, String); 13] = [
        ("another site's page", "POST", format!("{hers}Origin: https://evil.test\r\n")),
        ("an origin that is hidden", "POST", format!("{hers}Origin: null\r\n")),
        ("what the browser says", "POST", format!("{hers}Sec-Fetch-Site: cross-site\r\n")),
        ("another host of the domain", "POST", format!("{hers}Sec-Fetch-Site: same-site\r\n")),
        ("a picture", "GET", hers.clone()),
        ("the victim's token in the query", "POST /?token", his.clone()),
        ("the victim's refresh cookie", "POST", format!("{his}{}", cookie(&victim))),
        (
            "two tokens in one line",
            "POST",
            format!("Authorization: Bearer {} {}\r\n", mallory.token, victim.token),
        ),
        ("no signature", "POST", bearer(&format!("{signed}."))),
        ("only what is signed", "POST", bearer(&signed)),
        ("another scheme", "POST", hers.replace("Bearer", "Token")),
        ("a token that has ended", "POST", bearer(&expired)),
        ("none", "POST", String::new()),
    ];
    for (trick, line, fields) in &tricks {
        let line = match *line {
            "POST /?token" => format!("POST /api/v1/auth/logout?token={}", victim.token),
            method => format!("{method} /api/v1/auth/logout"),
        };
        let status = gate.ask(&line, fields, b"").await.status;
        assert!([204, 400].contains(&status), "{trick}: {status}");
        let learned = blocks(&gate);
        assert!(learned.is_empty(), "{trick}: {learned:?}");
    }
    for mood in [Mood::Redirecting, Mood::Cached] {
        app.with(|state| state.mood = mood);
        logout(&gate, &hers).await;
        assert!(blocks(&gate).is_empty());
    }
    assert_eq!(use_it(&gate, &victim.token).await, 200);
    held(&refresh(&gate, &victim.cookie).await);
}

#[tokio::test]
async fn an_application_that_logs_out_whoever_comes_teaches_nothing_unless_its_app_file_says_so() {
    let upstream = Upstream::answering(b"HTTP/1.1 204 No Content\r\n\r\n");
    let gate = Config { app: "generic".into(), ..Config::default() }.start(upstream.address);
    let token = tokens::login("victim", "j1", tokens::now());
    assert_eq!(gate.ask("POST /api/auth/logout", &bearer(&token), b"").await.status, 204);
    assert!(blocks(&gate).is_empty());
}

#[tokio::test]
async fn who_is_disabled_deleted_or_given_another_password_is_out_with_all_old_sessions() {
    let (_, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let (root, long) = (login(&gate, "root").await, format!(r#"{{"pad":"{}"}}"#, "x".repeat(20_000)));
    let cases = [
        ("a", "PATCH", r#"{"display_name":"A","role":"user","is_active":false}"#),
        ("b", "PATCH", r#"{"display_name":"B","role":"user","is_active":true,"password":"another"}"#),
        ("c", "DELETE", ""),
        ("d", "PATCH", &long),
        ("e", "PATCH", "what is this"),
    ];
    for (name, method, body) in cases {
        let session = login(&gate, name).await;
        let fields = format!("{}Content-Type: application/json\r\n", bearer(&root.token));
        let line = format!("{method} /api/v1/users/id-{name}");
        assert_eq!(gate.ask(&line, &fields, body.as_bytes()).await.status, 200);
        assert_eq!(use_it(&gate, &session.token).await, 401, "{name}");
        withheld(&refresh(&gate, &session.cookie).await);
    }
    let learned = blocks(&gate);
    assert!(
        learned.len() == 5 && learned.iter().all(|block| block["reason"] == "learned: admin"),
        "{learned:?}"
    );
    let shown = done(&gate, &["blocks"]);
    assert!(shown.contains("learned: admin"), "{shown}");
    // With the new password one is in.
    next_second().await;
    let again = login(&gate, "b").await;
    assert_eq!(use_it(&gate, &again.token).await, 200);
    assert_eq!(use_it(&gate, &root.token).await, 200);
}

#[tokio::test]
async fn what_an_administrator_was_not_allowed_or_did_not_change_ends_nobodys_sessions() {
    let (_, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let (root, mallory, victim) =
        (login(&gate, "root").await, login(&gate, "mallory").await, login(&gate, "victim").await);
    let json = "Content-Type: application/json\r\n";
    let disable = r#"{"is_active":false}"#;
    let edit = r#"{"display_name":"V","role":"user","is_active":true}"#;
    for (who, more, line, body, status) in [
        (&mallory, "", "PATCH /api/v1/users/id-victim", disable, 403),
        (&mallory, "", "DELETE /api/v1/users/id-victim", "", 403),
        (&root, "", "PATCH /api/v1/users/id-victim", edit, 200),
        (&root, "", "PATCH /api/v1/users/id-victim/avatar", disable, 200),
        (&root, "Origin: https://evil.test\r\n", "PATCH /api/v1/users/id-victim", disable, 200),
        (&mallory, "", "PATCH /api/v1/users/me", r#"{"display_name":"M"}"#, 200),
    ] {
        let answer = gate.ask(line, &format!("{}{json}{more}", bearer(&who.token)), body.as_bytes()).await;
        assert_eq!(answer.status, status, "{line} {body}");
    }
    assert!(blocks(&gate).is_empty());
    assert_eq!(use_it(&gate, &victim.token).await, 200);
}

#[tokio::test]
async fn who_changes_his_own_password_stays_in_and_his_other_sessions_do_not() {
    let (_, upstream) = Arkeep::start();
    let mut gate = arkeep(&upstream, "");
    let (here, there) = (login(&gate, "alice").await, login(&gate, "alice").await);
    let fields = format!("{}Content-Type: application/json\r\n", bearer(&here.token));
    let changed = gate.ask("PATCH /api/v1/users/me", &fields, br#"{"password":"another"}"#).await;
    assert_eq!(changed.status, 200);
    next_second().await;
    let standing = async |gate: &Gate| (use_it(gate, &here.token).await, use_it(gate, &there.token).await);
    assert_eq!(standing(&gate).await, (200, 401));
    gate.signal("TERM");
    assert_eq!(gate.wait_ended(LIMIT), Some(0));
    gate.start_again();
    assert_eq!(standing(&gate).await, (200, 401), "after a restart too");
    withheld(&refresh(&gate, &there.cookie).await);
    let later = held(&refresh(&gate, &here.cookie).await);
    assert_eq!(use_it(&gate, &later.token).await, 200);
}

#[tokio::test]
async fn a_new_password_in_keepstack_ends_the_week_of_the_old_token() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let (admin, victim, other) = (tokens::session(1), tokens::session(7), tokens::session(8));
    let fields = format!("{}Content-Type: application/json\r\n", bearer(&admin));
    let status = gate.ask("PATCH /api/users/07", &fields, br#"{"password":"another"}"#).await.status;
    assert_eq!(status, 200);
    let ask = async |token: &str| gate.ask("GET /api/assets", &bearer(token), b"").await.status;
    assert_eq!((ask(&victim).await, ask(&other).await, ask(&admin).await), (401, 200, 200));
    let week = blocks(&gate)[0]["until"].as_u64().unwrap() / 1000 - tokens::now();
    assert!(week >= 604_800, "as long as a token lives: {week}");
}

#[tokio::test]
async fn who_logs_out_all_day_does_not_make_the_gateway_deaf_to_what_is_done_to_him() {
    let (_, upstream) = Arkeep::start();
    let gate = arkeep(&upstream, "");
    let (root, kept) = (login(&gate, "root").await, login(&gate, "mallory").await);
    let counted = |lesson: &str, outcome: &str| {
        gate.metric(&format!(
            "portcullis_learned_total{{lesson=\"{lesson}\",outcome=\"{outcome}\",site=\"files.test\"}}"
        ))
    };
    for _ in 0..61 {
        let session = login(&gate, "mallory").await;
        assert_eq!(logout(&gate, &bearer(&session.token)).await, 204);
    }
    assert_eq!((counted("logout", "learned"), counted("logout", "over_quota")), (Some(60.0), Some(1.0)));
    let fields = format!("{}Content-Type: application/json\r\n", bearer(&root.token));
    let body = br#"{"password":"another","is_active":false}"#;
    assert_eq!(gate.ask("PATCH /api/v1/users/id-mallory", &fields, body).await.status, 200);
    assert_eq!((counted("admin", "learned"), use_it(&gate, &kept.token).await), (Some(1.0), 401));
    withheld(&refresh(&gate, &kept.cookie).await);
}

/// Its session is an opaque cookie, as form applications have it.
struct Forms {
    gate: Gate,
    _upstream: Upstream,
    _app: tokens::App,
}

impl Forms {
    fn start() -> Self {
        let app = tokens::App::new(
            "opaque",
            r#"["cookie:sid"]"#,
            "refresh_cookie = \"renew\"\nrefresh_lifetime = \"168h\"\n[logout]\nends = \"cookie:sid\"",
        );
        let text = std::fs::read_to_string(app.path()).unwrap();
        std::fs::write(app.path(), text.replace("[routes]\n", "[routes]\nlogout = [\"/logout\"]\n")).unwrap();
        let upstream = Upstream::answering(OK);
        let listen = "trusted_proxies = [\"127.0.0.1\"]\n".into();
        let gate = Config { app: app.path(), listen, ..Config::default() }.start(upstream.address);
        Self { gate, _upstream: upstream, _app: app }
    }

    async fn ask(&self, line: &str, client: &str, cookie: &str) -> u16 {
        let fields = format!("X-Forwarded-For: {client}\r\nCookie: {cookie}\r\n");
        self.gate.ask(line, &fields, b"").await.status
    }
}

#[tokio::test]
async fn a_logout_teaches_of_a_cookie_however_it_is_escaped_and_quoted() {
    let forms = Forms::start();
    for (number, value) in [
        "plain-session-1",
        "ab%2Bc%3D-session-2",
        "BAh7CEkiD3Nlc3Npb25faWQGOgZFVEkiJQ==--d41d8cd98f00b204e9800998ecf8427e",
        "eyJpdiI6IjEyMzQ1Njc4In0%3D",
        "\"quoted-session-5\"",
        "s%3AabcdefghijklmnopqrstuvwxyZ.0123456789abcdef",
    ]
    .iter()
    .enumerate()
    {
        let cookie = format!("sid={value}");
        assert_eq!(forms.ask("GET /api/x", "203.0.113.7", &cookie).await, 200, "{value}");
        assert_eq!(forms.ask("POST /logout", "203.0.113.7", &cookie).await, 200, "{value}");
        assert_eq!(forms.ask("GET /api/x", "203.0.113.7", &cookie).await, 401, "{value}");
        assert_eq!(blocks(&forms.gate).len(), number + 1, "{value}");
    }
    let two = "sid=one-session-of-two; sid=another-session";
    assert_eq!(forms.ask("POST /logout", "203.0.113.7", two).await, 400);
}

#[tokio::test]
async fn where_nobody_can_tell_persons_apart_no_client_uses_up_what_a_site_may_teach() {
    let forms = Forms::start();
    for number in 0..601 {
        let cookie = format!("sid=session-of-mallory-{number}");
        assert_eq!(forms.ask("POST /logout", "203.0.113.7", &cookie).await, 200);
    }
    let of = |outcome: &str| {
        let series = format!(
            "portcullis_learned_total{{lesson=\"logout\",outcome=\"{outcome}\",site=\"files.test\"}}"
        );
        forms.gate.metric(&series)
    };
    assert_eq!((of("learned"), of("over_quota")), (Some(600.0), Some(1.0)));
    let own = "sid=session-of-somebody-else";
    assert_eq!(forms.ask("POST /logout", "203.0.113.8", own).await, 200);
    assert_eq!(forms.ask("GET /api/x", "203.0.113.8", own).await, 401);
}

#[tokio::test]
async fn a_site_that_observes_only_counts_and_one_with_learning_off_does_not_even_that() {
    for (site, counted) in [("mode = \"observe\"", Some(1.0)), ("learn = \"off\"", None)] {
        let (_, upstream) = Arkeep::start();
        let gate = arkeep(&upstream, site);
        let alice = login(&gate, "alice").await;
        assert_eq!(logout(&gate, &bearer(&alice.token)).await, 204);
        assert!(blocks(&gate).is_empty(), "{site}");
        let series = r#"portcullis_learned_total{lesson="logout",outcome="observed",site="files.test"}"#;
        assert_eq!(gate.metric(series), counted, "{site}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_while_it_is_held_is_no_answer() {
    let upstream = Upstream::scripted(|mut session| {
        session.request();
        session.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{\"data\":",
        );
        session.reset();
    });
    let gate = arkeep(&upstream, "");
    let answer = try_login(&gate, "alice").await;
    assert!(answer.status == 502 && !answer.text().contains("data"), "{}", answer.head);
    assert!(wait_for(LIMIT, || gate.log().contains("broke off")).await, "{}", gate.log());
}

#[tokio::test]
async fn to_judge_an_answer_costs_microseconds() {
    use portcullis::config::app::{Carrier, TokenFormat, Tokens};
    use portcullis::request::tokens_in::Places;
    let tokens = Tokens {
        format: TokenFormat::Jwt,
        carriers: vec![Carrier::Bearer, Carrier::Query("token".into())],
        refresh_cookie: Some(COOKIE.into()),
        account_claim: None,
        issuer: None,
        lifetime: Duration::from_secs(900),
        refresh_lifetime: Duration::from_secs(604_800),
    };
    let answer = State::default().pair("id-alice");
    let body =
        answer.windows(4).position(|window| window == b"\r\n\r\n").map(|at| &answer[at + 4..]).unwrap();
    let places = Places { tokens: &tokens, field: Some("data.access_token"), lifetime: tokens.lifetime };
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..1000 {
            let body = std::hint::black_box(body);
            let named = places.named_in(body).unwrap();
            let found = places.find(&http::HeaderMap::new(), body, named.as_ref()).unwrap();
            assert_eq!(found.len(), 1);
        }
        fastest = fastest.min(start.elapsed() / 1000);
    }
    println!("{} bytes judged in {} ns", body.len(), fastest.as_nanos());
    assert!(fastest < Duration::from_millis(1));
}
