//! The login guard in the running gateway: guesses are counted and locked out, owners are not, and what the application
//! hears and answers stays as it is.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "tests measure real time")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::gate::{Config, Gate};
use common::raw::Answer;
use common::strict::Request;
use common::upstream::Upstream;
use common::{http2, raw, tokens, wait_until};
use tokio::io::AsyncWriteExt;

const LOGIN: &str = "POST /api/auth/login";
const JSON: &str = "Content-Type: application/json\r\n";
/// No rate stands in the way of what is tested.
const FAST: &str = "[site.rate.login]\nrefill = \"1000/s\"\nburst = 10000\n";
const COOKIE: &str = "__Host-portcullis-device";

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into()
}

fn let_in() -> Vec<u8> {
    answer("200 OK", &format!(r#"{{"token":"{}","user":{{}}}}"#, tokens::session(1)))
}

fn body_of(account: &str, password: &str) -> String {
    format!(r#"{{"username":"{account}","password":"{password}"}}"#)
}

/// The password of everybody is `right`; others come by the words in it.
fn application(request: &Request) -> Vec<u8> {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    if request.header("authorization").is_some_and(|value| value.starts_with("Basic")) {
        let right = request.header("authorization") == Some("Basic YW5uOnJpZ2h0");
        return answer(if right { "200 OK" } else { "401 Unauthorized" }, "{}");
    }
    match () {
        () if body.contains("right") => let_in(),
        () if body.contains("busy") => answer("429 Too Many Requests", "{}"),
        () if body.contains("broken") => answer("500 Internal Server Error", "{}"),
        () => answer("401 Unauthorized", r#"{"detail":"Invalid credentials"}"#),
    }
}

struct Rig {
    gate: Gate,
    upstream: Upstream,
}

impl Rig {
    fn start(site: &str) -> Self {
        Self::of("keepstack", site)
    }

    fn of(app: &str, site: &str) -> Self {
        let upstream = Upstream::by_request(application);
        let gate = config(app, site).start(upstream.address);
        Self { gate, upstream }
    }

    /// Tries as this client, over a proxy that names it, with these headers.
    async fn attempt(&self, client: &str, headers: &str, body: &str) -> Answer {
        let headers = format!("X-Forwarded-For: {client}\r\n{JSON}{headers}");
        self.gate.ask(LOGIN, &headers, body.as_bytes()).await
    }

    async fn log_in(&self, client: &str, account: &str, password: &str) -> u16 {
        self.attempt(client, "", &body_of(account, password)).await.status
    }

    /// Statuses of so many wrong tries.
    async fn guess(&self, client: &str, account: &str, tries: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for number in 0..tries {
            statuses.push(self.log_in(client, account, &format!("guess{number}")).await);
        }
        statuses
    }

    /// Twenty wrong tries from as many clients.
    async fn besiege(&self, account: &str) {
        for number in 0..20 {
            assert_eq!(self.log_in(&format!("198.51.100.{number}"), account, "guess").await, 401);
        }
        assert_eq!(self.log_in("198.51.100.99", account, "right").await, 429, "strangers are locked out");
    }

    fn heard(&self) -> usize {
        self.upstream.requests().len()
    }

    fn lockouts(&self) -> (f64, f64) {
        let of = |name| self.gate.metric(&format!("portcullis_lockouts_{name}{{site=\"files.test\"}}"));
        (of("total").unwrap(), of("active").unwrap())
    }
}

fn config(app: &str, site: &str) -> Config {
    Config {
        app: app.into(),
        listen: "trusted_proxies = [\"127.0.0.1\"]\n".into(),
        site: format!("{site}\n{FAST}"),
        ..Config::default()
    }
}

fn device_of(answer: &Answer) -> Option<String> {
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    let cookie = lines.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).map(|(_, value)| value);
    cookie
        .into_iter()
        .find(|value| value.starts_with(COOKIE))
        .map(|value| value.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn five_guesses_at_an_account_are_heard_and_the_rest_are_told_when_to_come_again() {
    let rig = Rig::start("");
    assert_eq!(rig.guess("203.0.113.7", "ann", 8).await, [401, 401, 401, 401, 401, 429, 429, 429]);
    let refused = rig.attempt("203.0.113.7", "", &body_of("ANN ", "right")).await;
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (429, r#"{"detail":"Too many attempts. Try again later."}"#)
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(rig.heard(), 5);
    assert_eq!(rig.log_in("203.0.113.8", "ann", "right").await, 200, "others go in");
    assert_eq!(rig.lockouts(), (1.0, 1.0));
}

#[tokio::test]
async fn of_a_thousand_parallel_guesses_the_application_hears_no_more_than_the_budget() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            // All of them are under way before the first is answered.
            std::thread::sleep(Duration::from_millis(300));
            if !session.send(&application(&request)) {
                return;
            }
        }
    });
    let gate = Config { site: FAST.into(), ..Config::default() }.start(upstream.address);
    let client = http2::Client::connect(&gate).await;
    let statuses = Arc::new([const { AtomicUsize::new(0) }; 600]);
    let guesses: Vec<_> = (0..1000)
        .map(|number| {
            let (client, statuses) = (client.clone(), Arc::clone(&statuses));
            tokio::spawn(async move {
                let head = client.head("POST", "/api/auth/login").header("content-type", "application/json");
                let (answer, mut stream) = client.open(head, false).await;
                let body = body_of("ann", &format!("guess{number}"));
                // Who is locked out may be told so before he has sent anything.
                let _ = stream.send_data(Bytes::from(body), true);
                let answer = http2::read(answer).await.unwrap();
                statuses[usize::from(answer.status)].fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    for guess in guesses {
        guess.await.unwrap();
    }
    let count = |status: usize| statuses[status].load(Ordering::SeqCst);
    assert_eq!((count(401), count(429)), (5, 995));
    assert_eq!(upstream.requests().len(), 5);
}

#[tokio::test]
async fn good_logins_are_never_limited_and_a_success_clears_its_own_pair() {
    let upstream = Upstream::by_request(application);
    // The application's own rates hold here.
    let gate = Gate::start("", upstream.address);
    for number in 0..8 {
        let answer = gate.ask(LOGIN, JSON, body_of("ann", "right").as_bytes()).await;
        assert_eq!(answer.status, 200, "login {number}");
    }
    let rig = Rig::start("");
    for _ in 0..3 {
        assert_eq!(rig.guess("203.0.113.7", "ann", 4).await, [401; 4]);
        assert_eq!(rig.log_in("203.0.113.7", "ann", "right").await, 200);
    }
    assert_eq!(rig.lockouts().0, 0.0);
}

#[tokio::test]
async fn what_the_application_could_not_judge_costs_nothing_and_who_hangs_up_pays() {
    let rig = Rig::start("");
    for word in ["busy", "broken"] {
        for _ in 0..10 {
            assert!([429, 500].contains(&rig.log_in("203.0.113.7", "ann", word).await));
        }
    }
    assert_eq!(rig.heard(), 20);
    let upstream = Upstream::scripted(|mut session| {
        // Never answered.
        session.until_closed();
    });
    let gate = config("keepstack", "").start(upstream.address);
    for number in 0..5 {
        let body = body_of("ann", "guess");
        let mut stream = gate.connect().await;
        let head = format!(
            "{LOGIN} HTTP/1.1\r\nHost: files.test:{}\r\nX-Forwarded-For: 203.0.113.7\r\n{JSON}Content-Length: {}\r\n\r\n{body}",
            gate.https.port(),
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let come = || upstream.connections().len() == number + 1;
        assert!(wait_until(Duration::from_secs(5), come), "guess {number} is sent");
        drop(stream);
        assert!(upstream.all_closed_within(Duration::from_secs(5)), "it is not waited for any longer");
    }
    let headers = format!("X-Forwarded-For: 203.0.113.7\r\n{JSON}");
    assert_eq!(gate.ask(LOGIN, &headers, body_of("ann", "guess").as_bytes()).await.status, 429);
}

#[tokio::test]
async fn who_resets_his_stream_before_the_answer_pays_too() {
    let upstream = Upstream::scripted(|mut session| session.until_closed());
    let gate = Config { site: FAST.into(), ..Config::default() }.start(upstream.address);
    let client = http2::Client::connect(&gate).await;
    let head = || client.head("POST", "/api/auth/login").header("content-type", "application/json");
    for number in 0..5 {
        let (answer, mut stream) = client.open(head(), false).await;
        stream.send_data(Bytes::from(body_of("ann", &format!("guess{number}"))), true).unwrap();
        let come = common::wait_for(raw::LIMIT, || upstream.connections().len() == number + 1);
        assert!(come.await, "guess {number} is sent");
        stream.send_reset(h2::Reason::CANCEL);
        drop(answer);
        assert!(common::wait_for(raw::LIMIT, || upstream.connections()[number].is_closed()).await);
    }
    let (answer, mut stream) = client.open(head(), false).await;
    stream.send_data(Bytes::from(body_of("ann", "right")), true).unwrap();
    assert_eq!(http2::read(answer).await.unwrap().status, 429);
}

#[tokio::test]
async fn a_botnet_gets_twenty_guesses_and_the_owner_gets_in_by_his_device() {
    let rig = Rig::start("");
    let welcome = rig.attempt("203.0.113.7", "", &body_of("ann", "right")).await;
    let device = device_of(&welcome).expect("a device cookie");
    assert!(device_of(&rig.attempt("203.0.113.7", "", &body_of("ann", "wrong")).await).is_none());
    rig.besiege("ann").await;
    let from = |cookie: &str| format!("Cookie: theme=dark; {cookie}; lang=en\r\n");
    let own = rig.attempt("192.0.2.1", &from(&device), &body_of("ann", "right")).await;
    assert_eq!(own.status, 200, "from anywhere");
    assert!(device_of(&own).is_some(), "renewed");
    let heard = rig.upstream.requests();
    let cookies: Vec<&str> = heard.iter().filter_map(|request| request.header("cookie")).collect();
    assert_eq!(cookies, ["theme=dark; lang=en"], "the application sees none");
    assert_eq!(rig.log_in("203.0.113.7", "ann", "right").await, 200, "from where he was before");
    // Whoever has stolen the device has five guesses too, and no more.
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(rig.attempt("192.0.2.2", &from(&device), &body_of("ann", "wrong")).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    assert!(!rig.gate.log().contains(&device[..60]) && !rig.gate.errors().contains(&device[..60]));
}

#[tokio::test]
async fn forged_foreign_and_others_cookies_are_nothing_and_a_block_of_the_subject_kills_its_own() {
    let rig = Rig::start("");
    let other = Rig::start("");
    let device_for = async |rig: &Rig, account: &str| {
        device_of(&rig.attempt("203.0.113.7", "", &body_of(account, "right")).await).unwrap()
    };
    let (own, bobs) = (device_for(&rig, "ann").await, device_for(&rig, "bob").await);
    let foreign = device_for(&other, "ann").await;
    rig.besiege("ann").await;
    let mut forged = own.clone().into_bytes();
    let last = forged.last_mut().unwrap();
    *last = if *last == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for cookie in
        [&forged, &foreign, &bobs, &format!("{COOKIE}="), &own.to_lowercase(), &own.replace("__Host-", "")]
    {
        let tried =
            rig.attempt("192.0.2.1", &format!("Cookie: {cookie}\r\n"), &body_of("ann", "right")).await;
        assert_eq!(tried.status, 429, "{cookie}");
    }
    let with_own = || format!("Cookie: {own}\r\n");
    let exact = rig.attempt("192.0.2.1", &with_own(), &body_of("Ann", "right")).await;
    assert_eq!(exact.status, 429, "another spelling is another account");
    let blocked = rig.gate.cli(["block", "subject", "1"]);
    assert!(blocked.status.success(), "{blocked:?}");
    assert_eq!(rig.attempt("192.0.2.1", &with_own(), &body_of("ann", "right")).await.status, 429);
    let lifted = rig.gate.cli(["unblock", "1"]);
    assert!(lifted.status.success(), "{lifted:?}");
    assert_eq!(rig.attempt("192.0.2.1", &with_own(), &body_of("ann", "right")).await.status, 200);
}

#[tokio::test]
async fn known_devices_outlive_a_restart_and_lockouts_a_reload_but_no_restart() {
    let mut rig = Rig::start("");
    let device = device_of(&rig.attempt("203.0.113.7", "", &body_of("ann", "right")).await).unwrap();
    rig.besiege("ann").await;
    let text = std::fs::read_to_string(rig.gate.config()).unwrap();
    common::gate::place(&rig.gate.config(), &(text + "\n[site.headers]\nset = { X-New = \"1\" }\n"));
    let reloaded = rig.gate.cli(["reload"]);
    assert!(reloaded.status.success(), "{reloaded:?}");
    assert_eq!(rig.log_in("192.0.2.9", "ann", "right").await, 429, "locked out still");
    assert_eq!(rig.lockouts(), (1.0, 1.0));
    rig.gate.kill();
    rig.gate.start_again();
    assert_eq!(rig.lockouts(), (0.0, 0.0));
    rig.besiege("ann").await;
    let cookie = format!("Cookie: {device}\r\n");
    assert_eq!(rig.attempt("192.0.2.1", &cookie, &body_of("ann", "right")).await.status, 200);
}

#[tokio::test]
async fn a_body_that_can_be_read_in_two_ways_never_reaches_the_application() {
    let rig = Rig::start("");
    let padded = format!(r#"{{"z":"{}","username":"ann","password":"x"}}"#, "z".repeat(15_000));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (kind, body) in [
        (JSON, r#"{"username":"a","username":"b","password":"x"}"#),
        (JSON, r#"{"username":"a","Username":"b","password":"x"}"#),
        (JSON, r#"{"username":["a"],"password":"x"}"#),
        (JSON, r#"{"username":7,"password":"x"}"#),
        (JSON, r#"{"username":null,"password":"x"}"#),
        (JSON, "{\"username\":\"a\\u0000\",\"password\":\"x\"}"),
        (JSON, r#"[{"username":"a"}]"#),
        (JSON, r#"{"username":"a","password":"x"} {}"#),
        (JSON, r#"{"username":"a""#),
        (JSON, "username=a&password=x"),
        (JSON, "\u{feff}{\"username\":\"a\",\"password\":\"x\"}"),
        ("", "nonsense"),
        ("Content-Type: text/plain\r\n", "username=a"),
        (form, r#"{"username":"a","password":"x=","z":"&username=b&c=d"}"#),
        (form, "username=a&username=b"),
        (form, "username=%zz"),
        ("Content-Type: multipart/form-data; boundary=x\r\n", "--x\r\n\r\na\r\n--x--"),
        ("Content-Type: application/json\r\nContent-Type: text/plain\r\n", r#"{"username":"a"}"#),
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", r#"{"username":"a"}"#),
        (JSON, &format!(r#"{{"username":"{}","password":"x"}}"#, "a".repeat(600))),
    ] {
        let headers = format!("X-Forwarded-For: 203.0.113.7\r\n{kind}");
        let answer = rig.gate.ask(LOGIN, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{kind} {body}");
    }
    assert_eq!((rig.heard(), rig.lockouts().0), (0, 0.0), "and none was counted");
    let forwarded = rig.attempt("203.0.113.7", "", &padded).await;
    assert_eq!(forwarded.status, 401, "padding is read");
    assert_eq!(rig.upstream.requests()[0].body, padded.as_bytes(), "byte for byte");
    assert_eq!(rig.guess("203.0.113.7", "ann", 5).await, [401, 401, 401, 401, 429], "and counted");
}

#[tokio::test]
async fn sixteen_kib_are_read_and_one_byte_more_is_refused_chunked_or_not() {
    let rig = Rig::start("");
    let of = |length: usize| {
        let frame = body_of("ann", "").len();
        body_of("ann", &"x".repeat(length - frame))
    };
    let chunked = async |body: &str| {
        let head = format!(
            "{LOGIN} HTTP/1.1\r\nHost: files.test:{}\r\nX-Forwarded-For: 203.0.113.7\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n",
            rig.gate.https.port()
        );
        let mut bytes = head.into_bytes();
        for piece in body.as_bytes().chunks(1000) {
            bytes.extend(
                format!("{:x}\r\n", piece.len()).bytes().chain(piece.iter().copied()).chain(*b"\r\n"),
            );
        }
        bytes.extend(b"0\r\n\r\n");
        raw::ask(&mut rig.gate.connect().await, &bytes).await.status
    };
    assert_eq!(rig.attempt("203.0.113.7", "", &of(16 << 10)).await.status, 401);
    assert_eq!(chunked(&of(16 << 10)).await, 401);
    let heard = rig.upstream.requests();
    assert!(heard.iter().all(|request| request.body == of(16 << 10).as_bytes()) && heard.len() == 2);
    assert_eq!(rig.attempt("203.0.113.7", "", &of((16 << 10) + 1)).await.status, 413);
    assert_eq!(chunked(&of((16 << 10) + 1)).await, 413);
    assert_eq!(rig.heard(), 2);
    let client = http2::Client::connect(&rig.gate).await;
    let head = client.head("POST", "/api/auth/login").header("content-type", "application/json");
    let (answer, mut stream) = client.open(head, false).await;
    stream.send_data(Bytes::from(of((16 << 10) + 1)), true).unwrap();
    assert_eq!(http2::read(answer).await.unwrap().status, 413);
    assert_eq!(rig.heard(), 2);
}

/// An answer of so many bytes that lets in, by its length or in pieces.
fn long_answer(length: usize, chunked: bool) -> Vec<u8> {
    let start = format!(r#"{{"token":"{}","pad":""#, tokens::session(1));
    let body = format!("{start}{}\"}}", "x".repeat(length - start.len() - 2));
    if !chunked {
        return answer("200 OK", &body);
    }
    let mut bytes =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.as_bytes().chunks(40_000) {
        bytes.extend(format!("{:x}\r\n", piece.len()).bytes().chain(piece.iter().copied()).chain(*b"\r\n"));
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[tokio::test]
async fn an_answer_of_64_kib_is_judged_and_one_byte_more_passes_untouched_however_it_is_framed() {
    let upstream = Upstream::by_request(|request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let length: String = body.chars().filter(char::is_ascii_digit).collect();
        long_answer(length.parse().unwrap(), body.contains("chunked"))
    });
    let site = format!("{FAST}[site.tokens]\ncompanion_cookie = true\n");
    let gate = Config { site, ..Config::default() }.start(upstream.address);
    let client = http2::Client::connect(&gate).await;
    // What an answer sets of ours, by the cookie's name, and how long its body is.
    let ask = async |length: usize, chunked: bool, h2: bool| {
        let body = body_of("ann", &format!("{length} {}", if chunked { "chunked" } else { "" }));
        if h2 {
            let head = client.head("POST", "/api/auth/login").header("content-type", "application/json");
            let (answer, mut stream) = client.open(head, false).await;
            stream.send_data(Bytes::from(body), true).unwrap();
            let answer = http2::read(answer).await.unwrap();
            let cookies = answer.headers.get_all("set-cookie").iter();
            let cookies: Vec<_> = cookies.map(|line| line.to_str().unwrap().to_owned()).collect();
            return (answer.status, answer.body, cookies, answer.whole);
        }
        let answer = gate.ask(LOGIN, JSON, body.as_bytes()).await;
        let lines = answer.head.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
        let cookies: Vec<_> = lines.map(str::to_owned).collect();
        (answer.status, answer.body, cookies, true)
    };
    let all = [(65_536, true), (65_537, false), (200_000, false)].into_iter().flat_map(|(length, judged)| {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(chunked, h2)| (length, judged, chunked, h2))
    });
    let all: Vec<_> = all.collect();
    for (length, judged, chunked, h2) in all.iter().copied() {
        let what = format!("{length} bytes, chunked: {chunked}, HTTP/2: {h2}");
        let (status, body, cookies, whole) = ask(length, chunked, h2).await;
        assert_eq!((status, body.len(), whole), (200, length, true), "{what}");
        assert!(body.ends_with(b"xxx\"}"), "{what}");
        assert_eq!(cookies.iter().any(|line| line.starts_with(COOKIE)), judged, "{what}: {cookies:?}");
        let companion = cookies.iter().find(|line| line.starts_with("__Host-portcullis-companion="));
        assert_eq!(companion.unwrap().contains("Max-Age=0"), !judged, "{what}: {cookies:?}");
    }
    // While somebody is blocked, what nobody can read could be his.
    assert!(gate.cli(["block", "subject", "99"]).status.success());
    for (length, judged, chunked, h2) in all {
        let (status, body, cookies, _) = ask(length, chunked, h2).await;
        let what = format!("{length} bytes, chunked: {chunked}, HTTP/2: {h2}");
        assert_eq!(status, if judged { 200 } else { 401 }, "{what}");
        assert!(judged || (body.len() < 100 && cookies.is_empty()), "{what}: {cookies:?}");
    }
    assert!(!gate.log().contains("\"status\":502"), "{}", gate.log());
}

#[tokio::test]
async fn no_spelling_of_a_login_that_some_framework_takes_for_it_passes_uncounted() {
    let rig = Rig::start("");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let typed = |kind: &str| format!("Content-Type: {kind}\r\n");
    let decoy = r#"{"username":"decoy","z":"&username=ann&password=guess&y="}"#;
    for (what, line, kind, body) in [
        // PHP: blanks before a name go, a NUL ends it, brackets make a list; the last one wins.
        ("a blank", LOGIN, form.into(), "username=decoy&+username=ann&password=x"),
        ("a NUL", LOGIN, form.into(), "username=decoy&username%00=ann&password=x"),
        ("a list", LOGIN, form.into(), "username=decoy&username[]=ann&password=x"),
        ("a list alone", LOGIN, form.into(), "username%5B0%5D=ann&password=x"),
        ("escaped twice", LOGIN, form.into(), "username=decoy&user%256eame=ann&password=x"),
        ("a semicolon", LOGIN, form.into(), "username=decoy&password=x;username=ann"),
        ("another case", LOGIN, form.into(), "Username=ann&password=x"),
        // A body that is a form to who looks at the beginning of the type only.
        ("a comma", LOGIN, typed("application/x-www-form-urlencoded, application/json"), decoy),
        ("a longer word", LOGIN, typed("application/x-www-form-urlencoded2"), decoy),
        ("a parameter", LOGIN, typed("application/json; x=application/x-www-form-urlencoded"), decoy),
        ("a form in disguise", LOGIN, typed("application/x-www-form-urlencoded; charset=utf-8"), decoy),
        // Other letters.
        (
            "utf-7",
            LOGIN,
            typed("application/json; charset=utf-7"),
            r#"{"username":"+AGE-nn","password":"x"}"#,
        ),
        ("utf-16", LOGIN, typed("application/json; charset=\"UTF-16\""), r#"{"username":"ann"}"#),
        (
            "two charsets",
            LOGIN,
            typed("application/json; charset=utf-8; charset=ibm500"),
            r#"{"username":"a"}"#,
        ),
        ("ebcdic", LOGIN, typed("application/x-www-form-urlencoded;charset=IBM037"), "%A4%A2=x"),
        ("a BOM before a form", LOGIN, form.into(), "\u{feff}username=ann&password=x"),
        ("utf-16 bytes", LOGIN, JSON.into(), "{\0\"\0u\0\"\0"),
        ("half a letter", LOGIN, JSON.into(), r#"{"username":"\ud800","password":"x"}"#),
        // The query, where many look as well, and some first.
        (
            "query and body differ",
            "POST /api/auth/login?username=ann",
            JSON.into(),
            r#"{"username":"decoy"}"#,
        ),
        (
            "twice in the query",
            "POST /api/auth/login?username=ann&username=b",
            JSON.into(),
            r#"{"password":"x"}"#,
        ),
        ("spelled otherwise there", "POST /api/auth/login?Username=ann", JSON.into(), r#"{"password":"x"}"#),
        ("a list there", "POST /api/auth/login?username[]=ann", JSON.into(), r#"{"password":"x"}"#),
        // JSON that others forgive.
        ("a comment", LOGIN, JSON.into(), r#"/**/{"username":"ann","password":"x"}"#),
        ("single quotes", LOGIN, JSON.into(), "{'username':'ann'}"),
        ("a trailing comma", LOGIN, JSON.into(), r#"{"username":"ann","password":"x",}"#),
        ("no number", LOGIN, JSON.into(), r#"{"username":"ann","x":NaN}"#),
        ("garbage behind", LOGIN, JSON.into(), "{\"username\":\"ann\",\"password\":\"x\"}\0"),
        ("a list of keys", LOGIN, JSON.into(), r#"{"username":"decoy","username[]":"ann"}"#),
    ] {
        let headers = format!("X-Forwarded-For: 203.0.113.7\r\n{kind}");
        let answer = rig.gate.ask(line, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{what}: {body}");
    }
    assert_eq!((rig.heard(), rig.lockouts().0), (0, 0.0), "refused, and not counted");
}

#[tokio::test]
async fn who_names_nobody_counts_as_a_client_and_a_query_names_somebody_too() {
    let rig = Rig::start("");
    for body in
        [r#"{"user":{"username":"ann"}}"#, r#"{"login":"ann","password":"x"}"#, r#"{"x":{"y":["username"]}}"#]
    {
        assert_eq!(rig.attempt("203.0.113.8", "", body).await.status, 401, "{body}");
    }
    for _ in 0..2 {
        assert_eq!(rig.attempt("203.0.113.8", "", "").await.status, 401);
    }
    assert_eq!(rig.attempt("203.0.113.8", "", r#"{"login":"ann"}"#).await.status, 429);
    // The query alone names an account, and a default password.
    for number in 0..5 {
        let line = format!("POST /api/auth/login?username=ann&n={number}");
        let answer = rig.gate.ask(&line, "X-Forwarded-For: 203.0.113.9\r\n", b"").await;
        assert_eq!(answer.status, 401, "{number}");
    }
    assert_eq!(rig.log_in("203.0.113.9", "ann", "guess").await, 429);
    let heard = rig.heard();
    let line = "POST /api/auth/login?username=viewer&password=demo1234";
    assert_eq!(rig.gate.ask(line, "X-Forwarded-For: 203.0.113.10\r\n", b"").await.status, 401);
    assert_eq!(rig.heard(), heard);
}

#[tokio::test]
async fn a_guess_counts_in_every_framing_and_in_every_spelling_of_the_account() {
    let rig = Rig::start("");
    // HTTP/2 says no length, and may add fields behind.
    let client = http2::Client::connect(&rig.gate).await;
    let mut statuses = Vec::new();
    for number in 0..7 {
        let head = client
            .head("POST", "/api/auth/login")
            .header("content-type", "application/json")
            .header("x-forwarded-for", "203.0.113.7");
        let (answer, mut stream) = client.open(head, false).await;
        let body = body_of("ann", &format!("guess{number}"));
        let (first, second) = body.split_at(9);
        stream.send_data(Bytes::copy_from_slice(first.as_bytes()), false).unwrap();
        stream.send_data(Bytes::copy_from_slice(second.as_bytes()), false).unwrap();
        stream.send_trailers(http::HeaderMap::new()).unwrap();
        statuses.push(http2::read(answer).await.unwrap().status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    // Who asks first whether he may send is counted when he has sent.
    let mut statuses = Vec::new();
    for number in 0..6 {
        let body = body_of("ann", &format!("guess{number}"));
        let head = format!(
            "{LOGIN} HTTP/1.1\r\nHost: files.test:{}\r\nX-Forwarded-For: 203.0.113.8\r\n{JSON}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
            rig.gate.https.port(),
            body.len()
        );
        let mut stream = rig.gate.connect().await;
        assert_eq!(raw::ask(&mut stream, head.as_bytes()).await.status, 100);
        statuses.push(raw::ask(&mut stream, body.as_bytes()).await.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    // To a database that forgives accents and what cannot be seen all of these are one.
    let mut statuses = Vec::new();
    for name in ["eve", "\u{c8}ve", "e\u{200b}ve", "\u{ff45}v\u{e9}", "E\u{ad}V\u{ca}", "\u{feff}eve"] {
        statuses.push(rig.log_in("203.0.113.9", name, "guess").await);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
}

#[tokio::test]
async fn a_redirect_of_a_framework_clears_no_count_and_an_upstream_that_is_away_costs_nobody() {
    let upstream = Upstream::by_request(|request| {
        if request.target.ends_with("//login") || request.target.contains("elsewhere") {
            return b"HTTP/1.1 308 Permanent Redirect\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n"
                .to_vec();
        }
        application(request)
    });
    let silent = Upstream::scripted(|mut session| session.until_closed());
    let route = format!(
        "[site.upstreams]\nconnect_timeout = \"150ms\"\n[[site.route]]\nmatch = \"/away/login\"\nclass = \"login\"\n\
         upstream = \"h2c://{}\"\n",
        silent.address
    );
    let gate = config("keepstack", &route).start(upstream.address);
    let ask = async |client: &str, path: &str, password: &str| {
        let headers = format!("X-Forwarded-For: {client}\r\n{JSON}");
        gate.ask(&format!("POST {path}"), &headers, body_of("ann", password).as_bytes()).await.status
    };
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(ask("203.0.113.7", "/api/auth/login", "guess").await);
        statuses.push(ask("203.0.113.7", "/api/auth/login", "guess").await);
        assert_eq!(
            ask("203.0.113.7", "/api/auth/login?elsewhere", "guess").await,
            if statuses.len() < 6 { 308 } else { 429 }
        );
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    for number in 0..7 {
        assert_eq!(ask("203.0.113.8", "/away/login", "right").await, 504, "{number}");
    }
}

#[tokio::test]
async fn forms_name_accounts_too_and_looking_at_the_login_page_is_no_try() {
    let rig = Rig::start("");
    let form = "X-Forwarded-For: 203.0.113.7\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    for (number, name) in ["ann", "Ann", "%41NN", "+ann+", "ann"].iter().enumerate() {
        let body = format!("username={name}&password=guess{number}");
        assert_eq!(rig.gate.ask(LOGIN, form, body.as_bytes()).await.status, 401);
    }
    assert_eq!(rig.gate.ask(LOGIN, form, b"username=ann&password=right").await.status, 429);
    for method in ["GET", "HEAD", "OPTIONS"] {
        for _ in 0..8 {
            let line = format!("{method} /api/auth/login");
            let answer = rig.gate.ask(&line, "X-Forwarded-For: 203.0.113.7\r\n", b"").await;
            assert_eq!(answer.status, 401, "the application's own");
        }
    }
    assert_eq!(rig.log_in("203.0.113.7", "bob", "right").await, 200);
    let get = "X-Forwarded-For: 203.0.113.7\r\nContent-Type: application/json\r\n";
    let hidden = rig.gate.ask("GET /api/auth/login", get, body_of("ann", "guess").as_bytes()).await;
    assert_eq!(hidden.status, 429, "a GET with a body is one");
}

#[tokio::test]
async fn an_application_that_nobody_has_described_is_guarded_whatever_its_guesser_says_he_comes_from() {
    // As Laravel, Express and others: who is refused goes back to where he says that he comes from; as Django: a form sets a
    // cookie each time that it is shown.
    let upstream = Upstream::by_request(|request| {
        let right = request.body.windows(5).any(|word| word == b"right");
        let back = request.header("referrer").or(request.header("referer")).unwrap_or("/last").to_owned();
        let to = |place: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n")
                .into_bytes()
        };
        match (right, request.target.ends_with("?form")) {
            (true, _) => to("/dashboard"),
            (false, _) if request.target.ends_with("?fixed") => to("/?error=1"),
            (false, true) => {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: csrf=1\r\nContent-Length: 4\r\n\r\nform".to_vec()
            }
            (false, false) => to(&back),
        }
    });
    let gate = config("generic", "").start(upstream.address);
    let own = format!("https://files.test:{}", gate.https.port());
    let ask = async |client: &str, path: &str, referer: &str, password: &str| {
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let headers = format!("X-Forwarded-For: {client}\r\n{form}{referer}");
        let body = format!("username=ann&password={password}");
        gate.ask(&format!("POST {path}"), &headers, body.as_bytes()).await.status
    };
    let plain = format!("Referer: {own}/login\r\n");
    for (number, (path, referer, heard)) in [
        ("/login", plain.clone(), 5),
        ("/login", format!("Referer: {own}/elsewhere\r\n"), 20),
        ("/login", String::new(), 20),
        ("/login", "Referer: https://evil.test/\r\n".to_owned(), 20),
        ("/login", format!("{plain}Referrer: {own}/elsewhere\r\n"), 20),
        ("/login?form", plain.clone(), 20),
        ("/login?fixed", format!("Referer: {own}/elsewhere\r\n"), 20),
    ]
    .into_iter()
    .enumerate()
    {
        let client = format!("203.0.113.{number}");
        let mut guesses = 0;
        while ask(&client, path, &referer, "guess").await != 429 {
            guesses += 1;
            assert!(guesses <= heard, "{path} {referer}");
        }
        assert_eq!(guesses, heard, "{path} {referer}");
    }
    // A browser says where it comes from; one that does not has room all the same.
    for (client, referer) in [("192.0.2.1", &*plain), ("192.0.2.2", "")] {
        for number in 0..18 {
            assert_eq!(ask(client, "/login", referer, "right").await, 302, "login {number} {referer}");
        }
    }
}

#[tokio::test]
async fn wrong_basic_credentials_on_any_route_count_as_failed_logins() {
    let rig = Rig::start("");
    let ask = async |client: &str, credentials: &str, path: &str| {
        let headers = format!("X-Forwarded-For: {client}\r\nAuthorization: Basic {credentials}\r\n");
        rig.gate.ask(&format!("GET {path}"), &headers, b"").await.status
    };
    // ann:right, many at once and one after the other.
    for path in ["/api/a", "/api/b"].iter().cycle().take(30) {
        assert_eq!(ask("203.0.113.7", "YW5uOnJpZ2h0", path).await, 200);
    }
    // ann:wrong.
    let mut statuses = Vec::new();
    for path in ["/api/a", "/other", "/api/c", "/x", "/api/a", "/api/a", "/api/a", "/api/a"] {
        statuses.push(ask("203.0.113.7", "YW5uOndyb25n", path).await);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429]);
    assert_eq!(rig.log_in("203.0.113.7", "ann", "right").await, 429, "one account, one budget");
    assert_eq!(ask("203.0.113.8", "YW5uOnJpZ2h0", "/api/a").await, 200);
    assert_eq!(ask("203.0.113.8", "!!!", "/api/a").await, 400);
    // Beside a body of another account they count too: whom the application takes nobody knows.
    let beside = async |client: &str, credentials: &str| {
        let headers = format!("Authorization: Basic {credentials}\r\n");
        rig.attempt(client, &headers, &body_of("decoy", "x")).await.status
    };
    let mut statuses = Vec::new();
    for number in 0..8 {
        // eve:wrong, from everywhere.
        statuses.push(beside(&format!("198.51.100.{number}"), "ZXZlOndyb25n").await);
    }
    assert_eq!(statuses, [401; 8]);
    for number in 8..40 {
        beside(&format!("198.51.100.{number}"), "ZXZlOndyb25n").await;
    }
    assert_eq!(rig.log_in("192.0.2.1", "eve", "right").await, 429, "twenty for the account");
    // admin:admin, which its documents name.
    assert_eq!((beside("192.0.2.2", "YWRtaW46YWRtaW4=").await, beside("192.0.2.2", "!!!").await), (401, 400));
}

#[tokio::test]
async fn refusals_that_look_like_successes_end_too_and_good_logins_have_room() {
    let upstream = Upstream::by_request(|request| {
        let right = request.body.windows(5).any(|word| word == b"right");
        let to = |place: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nSet-Cookie: x=1\r\nContent-Length: 0\r\n\r\n")
                .into()
        };
        match (&*request.target, right) {
            ("/auth/login", true) => to("/dashboard"),
            ("/auth/login", false) => to("/signin?error=1"),
            (_, true) => answer("200 OK", r#"{"ok":true}"#),
            (_, false) => answer("200 OK", r#"{"ok":false,"error":"wrong password"}"#),
        }
    });
    let described = common::tokens::App::new(
        "opaque",
        r#"["cookie:sid"]"#,
        "[login]\naccount = \"email\"\ntoken = \"token\"",
    );
    let text = std::fs::read_to_string(described.path()).unwrap();
    std::fs::write(described.path(), text.replace("[\"/login\"]", "[\"/auth/login\"]")).unwrap();
    let forms = config(&described.path(), "").start(upstream.address);
    let generic = config("generic", "").start(upstream.address);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (gate, path, kind, heard) in [
        // Its app file says that only a token is a success, so its redirect is none for sure.
        (&forms, "/auth/login", form, 20),
        // `/signin` is a login.
        (&generic, "/auth/login", form, 5),
        (&generic, "/api/login", JSON, 20),
    ] {
        let own = format!(
            "Origin: https://files.test:{0}\r\nReferer: https://files.test:{0}/start\r\n",
            gate.https.port()
        );
        let ask = async |client: &str, password: &str| {
            let headers = format!("X-Forwarded-For: {client}\r\n{kind}{own}");
            let body = match kind == JSON {
                true => format!(r#"{{"email":"ann","password":"{password}"}}"#),
                false => format!("email=ann&password={password}"),
            };
            gate.ask(&format!("POST {path}"), &headers, body.as_bytes()).await.status
        };
        for number in 0..8 {
            assert_ne!(ask("192.0.2.1", "right").await, 429, "good login {number} at {path}");
        }
        let client = format!("203.0.113.{heard}");
        let mut guesses = 0;
        while guesses < 40 && ask(&client, "guess").await != 429 {
            guesses += 1;
        }
        assert!(guesses <= heard && guesses >= 5, "{path}: {guesses}");
    }
}

#[tokio::test]
async fn good_logins_at_a_form_as_laravels_are_never_limited() {
    let upstream = Upstream::by_request(|request| {
        let place = if request.target == "/login" { "/two-factor-challenge" } else { "/" };
        format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nSet-Cookie: coolify_session=1\r\nContent-Length: 0\r\n\r\n").into()
    });
    let gate = config("coolify", "").start(upstream.address);
    let own = format!("https://files.test:{}", gate.https.port());
    let ask = async |path: &str| {
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let headers =
            format!("X-Forwarded-For: 192.0.2.1\r\n{form}Origin: {own}\r\nReferer: {own}{path}\r\n");
        gate.ask(&format!("POST {path}"), &headers, b"email=ann&password=right").await.status
    };
    for number in 0..12 {
        assert_eq!(ask("/login").await, 302, "login {number}");
        assert_eq!(ask("/two-factor-challenge").await, 302, "second step {number}");
    }
}

/// Credentials of a program.
fn basic(account: &str, password: &str) -> String {
    use base64::Engine as _;
    let words = base64::engine::general_purpose::STANDARD.encode(format!("{account}:{password}"));
    format!("Authorization: Basic {words}\r\n")
}

#[tokio::test]
async fn wrong_basic_credentials_beside_any_other_try_count_and_are_refused_too() {
    let upstream = Upstream::by_request(|_| answer("401 Unauthorized", "{}"));
    for line in ["POST /api/v1/setup/complete", "POST /api/v1/auth/refresh", "POST /api/v1/agents/enroll"] {
        let gate = config("arkeep", ARKEEP).start(upstream.address);
        let before = upstream.requests().len();
        let mut statuses = Vec::new();
        for number in 0..30 {
            let client = format!("203.0.113.{}", number / 6);
            let headers = format!("X-Forwarded-For: {client}\r\n{}", basic("ann", "wrong"));
            statuses.push(gate.ask(line, &headers, b"{}").await.status);
        }
        let heard = upstream.requests().len() - before;
        assert_eq!(heard, 20, "{line}: {statuses:?}");
        let headers = format!("X-Forwarded-For: 198.51.100.1\r\n{JSON}");
        let body = br#"{"email":"ann","password":"guess"}"#;
        let login = gate.ask("POST /api/v1/auth/login", &headers, body).await.status;
        assert_eq!(login, 429, "one account, one budget: {line}");
    }
}

#[tokio::test]
async fn parallel_guesses_by_basic_credentials_beside_a_login_do_not_slip_by_and_a_known_address_goes_on() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            let right = request.header("authorization") == Some("Basic YW5uOnJpZ2h0");
            if !right {
                std::thread::sleep(Duration::from_millis(200));
            }
            if !session.send(&if right { let_in() } else { answer("401 Unauthorized", "{}") }) {
                return;
            }
        }
    });
    let gate = config("keepstack", "").start(upstream.address);
    let ask = async |client: &str, decoy: &str, password: &str| {
        let headers = format!("X-Forwarded-For: {client}\r\n{JSON}{}", basic("ann", password));
        gate.ask(LOGIN, &headers, body_of(decoy, "x").as_bytes()).await.status
    };
    assert_eq!(ask("192.0.2.1", "someone", "right").await, 200);
    assert_eq!(ask("198.51.100.200", "decoy", "wrong").await, 401, "a failure stands");
    let before = upstream.requests().len();
    let guesses = (0..60).map(|number| {
        let client = format!("198.51.100.{}", number / 4);
        async move { ask(&client, &format!("decoy{number}"), "wrong").await }
    });
    futures_util::future::join_all(guesses).await;
    let heard = upstream.requests().len() - before;
    assert!((15..=19).contains(&heard), "of 60 guesses the application has heard {heard}");
    for number in 0..20 {
        ask(&format!("203.0.113.{number}"), &format!("more{number}"), "wrong").await;
    }
    assert_eq!(ask("203.0.113.99", "someone", "right").await, 429, "the account is locked to strangers");
    assert_eq!(ask("192.0.2.1", "someone", "right").await, 200, "not to who was let in with it lately");
}

#[tokio::test]
async fn parallel_guesses_by_basic_credentials_do_not_slip_by_and_who_was_let_in_lately_is_not_locked_out() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(request) = session.request() {
            let wrong = request.header("authorization") != Some("Basic YW5uOnJpZ2h0");
            if wrong {
                std::thread::sleep(Duration::from_millis(200));
            }
            if !session.send(&answer(if wrong { "401 Unauthorized" } else { "200 OK" }, "{}")) {
                return;
            }
        }
    });
    let gate = config("keepstack", "").start(upstream.address);
    let ask = async |client: &str, password: &str| {
        let headers = format!("X-Forwarded-For: {client}\r\n{}", basic("ann", password));
        gate.ask("GET /api/dav/x", &headers, b"").await.status
    };
    // The backup program, from where it always comes.
    assert_eq!(ask("192.0.2.1", "right").await, 200);
    assert_eq!(ask("198.51.100.200", "wrong").await, 401, "a failure stands");
    let before = upstream.requests().len();
    for client in 0..6 {
        let client = format!("198.51.100.{client}");
        let passwords: Vec<String> = (0..60).map(|number| format!("guess{number}")).collect();
        futures_util::future::join_all(passwords.iter().map(|password| ask(&client, password))).await;
    }
    let heard = upstream.requests().len() - before;
    assert!((15..=19).contains(&heard), "of 360 guesses the application has heard {heard}");
    assert_eq!(ask("198.51.100.99", "right").await, 429, "the account is locked to strangers");
    for _ in 0..10 {
        assert_eq!(ask("192.0.2.1", "right").await, 200);
    }
    let all: Vec<u16> = futures_util::future::join_all((0..30).map(|_| ask("192.0.2.1", "right"))).await;
    assert_eq!(all, [200; 30], "many at once, as programs do");
    for number in 0..7 {
        let status = ask("192.0.2.1", "wrong").await;
        assert_eq!(status, if number < 5 { 401 } else { 429 }, "it has five guesses too, and no more");
    }
}

#[tokio::test]
async fn a_login_from_another_sites_page_is_refused_and_not_counted() {
    let rig = Rig::start("");
    for lines in ["Origin: https://evil.test\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        for _ in 0..4 {
            let answer = rig.attempt("203.0.113.7", lines, &body_of("ann", "guess")).await;
            assert_eq!(answer.status, 403, "{lines}");
        }
    }
    assert_eq!(rig.heard(), 0);
    assert_eq!(rig.guess("203.0.113.7", "ann", 5).await, [401; 5]);
}

/// A page of another site asks for things in the name of who looks at it: `line`, so often as its rate allows at once and more.
async fn spends_nothing(app: &str, foreign: (&str, &str), own: (&str, &str, &[u8])) {
    let upstream = Upstream::by_request(application);
    let listen = "trusted_proxies = [\"127.0.0.1\"]\n".into();
    let site = "[site.only_from]\nsetup = [\"0.0.0.0/0\"]\n".into();
    let gate = Config { app: app.into(), listen, site, ..Config::default() }.start(upstream.address);
    let me = "X-Forwarded-For: 203.0.113.7\r\n";
    for number in 0..15 {
        let line = format!("{}?{number}", foreign.0);
        let answer = gate.ask(&line, &format!("{me}Sec-Fetch-Site: cross-site\r\n{}", foreign.1), b"").await;
        assert_eq!(answer.status, 403, "{line}");
        assert_eq!(answer.header("retry-after"), None);
    }
    assert_eq!(upstream.requests().len(), 0, "the application hears of none");
    let answer = gate.ask(own.0, &format!("{me}Sec-Fetch-Site: same-origin\r\n{}", own.1), own.2).await;
    assert!(!matches!(answer.status, 403 | 429), "{}: {}", own.0, answer.status);
    let reason = "reason=\"cross_origin\",site=\"files.test\"";
    let metrics = gate.admin("/metrics").unwrap();
    let counted = metrics.lines().find(|line| line.contains(reason) && line.contains("denials"));
    assert!(counted.is_some_and(|line| line.ends_with(" 15")), "{counted:?}");
}

#[tokio::test]
async fn a_page_of_another_site_spends_nothing_of_its_visitors() {
    const IMAGE: &str = "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
    const POST: &str = "Sec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: empty\r\nOrigin: https://evil.test\r\n";
    const FORM: &str =
        "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nOrigin: https://evil.test\r\n";
    const AHEAD: &str = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\nSec-Purpose: prefetch\r\n";
    let log_in = (LOGIN, JSON, &br#"{"username":"ann","password":"right"}"#[..]);
    spends_nothing("keepstack", ("GET /api/auth/login", IMAGE), log_in).await;
    spends_nothing("keepstack", ("GET /api/auth/login", AHEAD), log_in).await;
    let callback = ("GET /api/v1/auth/oidc/login", "Sec-Fetch-Dest: document\r\n", &b""[..]);
    spends_nothing("arkeep", ("GET /api/v1/auth/oidc/login", IMAGE), callback).await;
    spends_nothing("arkeep", ("POST /api/v1/auth/oidc/callback", POST), callback).await;
    let refresh = ("POST /api/v1/auth/refresh", "", &b""[..]);
    spends_nothing("arkeep", ("POST /api/v1/auth/refresh", POST), refresh).await;
    spends_nothing("arkeep", ("POST /api/v1/auth/refresh", FORM), refresh).await;
    spends_nothing("arkeep", ("GET /api/v1/auth/refresh", IMAGE), refresh).await;
    let join = ("POST /api/v1/agents/enroll", "", &b"{}"[..]);
    spends_nothing("arkeep", ("POST /api/v1/agents/enroll", POST), join).await;
    let set_up = ("POST /api/v1/setup/complete", "", &b"{}"[..]);
    spends_nothing("arkeep", ("POST /api/v1/setup/complete", POST), set_up).await;
}

/// What people and programs do, and what the pages of single sign-on do for them, goes on.
#[tokio::test]
async fn links_single_sign_on_programs_and_pages_that_hide_where_they_are_go_on() {
    let rig = Rig::of("arkeep", "");
    let document = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    let form_post = format!("{document}Origin: https://idp.test\r\n");
    let typed = "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
    // A page with the policy `no-referrer` posts its form with an origin of nobody's.
    let hidden = "Sec-Fetch-Site: same-origin\r\nOrigin: null\r\n";
    for (line, headers, body) in [
        ("GET /api/v1/auth/login", document, &b""[..]),
        ("GET /api/v1/auth/oidc/callback?code=1", document, b""),
        ("POST /api/v1/auth/oidc/callback", &form_post, b"code=1&state=2"),
        ("POST /api/v1/auth/oidc/callback", "Origin: https://idp.test\r\n", b"code=1&state=2"),
        ("GET /api/v1/auth/oidc/login", typed, b""),
        ("POST /api/v1/auth/login", hidden, br#"{"email":"a@b.test","password":"guess"}"#),
        ("POST /api/v1/auth/refresh", hidden, b""),
        ("POST /api/v1/agents/enroll", "", br#"{"agent_secret":"guess"}"#),
    ] {
        let answer = rig.gate.ask(line, &format!("X-Forwarded-For: 203.0.113.7\r\n{headers}"), body).await;
        assert_eq!(answer.status, 401, "{line} {headers}");
    }
    assert_eq!(rig.heard(), 8);
}

#[tokio::test]
async fn default_passwords_are_refused_from_outside_and_the_operator_hears_of_it() {
    let rig = Rig::start("");
    let answer = rig.attempt("203.0.113.7", "", &body_of("Admin", "admin")).await;
    assert_eq!((answer.status, answer.text().as_str()), (401, r#"{"detail":"Authentication required"}"#));
    assert_eq!(answer.header("www-authenticate"), None, "as the application would answer");
    assert_eq!(rig.log_in("203.0.113.7", "viewer", "demo1234").await, 401);
    // Nor in a spelling that some framework takes for it, or beside another one.
    for (number, (query, headers, body)) in [
        ("", "", r#"{"username":"admin","Password":"admin"}"#),
        ("", "", r#"{"username":"admin","password":"x","password":"admin"}"#),
        ("?password=admin", "", r#"{"username":"admin","password":"x"}"#),
        ("?Password=admin", "", r#"{"username":"admin","password":"x"}"#),
        ("", "Authorization: Basic YWRtaW46YWRtaW4=\r\n", r#"{"username":"admin","password":"x"}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = format!("X-Forwarded-For: 203.0.113.{}\r\n{JSON}{headers}", 20 + number);
        let answer = rig.gate.ask(&format!("{LOGIN}{query}"), &headers, body.as_bytes()).await;
        assert!([400, 401].contains(&answer.status), "{query} {body}: {}", answer.status);
    }
    assert_eq!(rig.heard(), 0);
    assert_eq!(rig.log_in("203.0.113.7", "viewer", "other").await, 401);
    assert_eq!(rig.heard(), 1, "other passwords are the application's affair");
    let status = rig.gate.cli(["status"]);
    let said = String::from_utf8(status.stdout).unwrap();
    assert!(said.contains("default password of `admin` was tried from outside 4 times"), "{said}");
    let audit = rig.gate.state().join("audit.log");
    let told = || std::fs::read_to_string(&audit).unwrap_or_default();
    assert!(wait_until(Duration::from_secs(10), || told().contains("\"default password\"")), "{}", told());
    assert!(!told().contains("demo1234"));
    let reason = "portcullis_denials_total{class=\"login\",guard=\"login\",reason=\"default_password\",site=\"files.test\"}";
    assert_eq!(rig.gate.metric(reason), Some(4.0));
    let opened = rig.gate.cli(["allow", "setup", "--from", "203.0.113.9", "--for", "1m"]);
    assert!(opened.status.success(), "{opened:?}");
    rig.log_in("203.0.113.9", "admin", "admin").await;
    assert_eq!(rig.heard(), 2, "who may set it up may use it");
}

#[tokio::test]
async fn an_operator_sees_lockouts_and_ends_them() {
    let rig = Rig::start("");
    assert_eq!(rig.log_in("192.0.2.77", "ann", "right").await, 200);
    rig.guess("203.0.113.7", "ann", 7).await;
    rig.guess("203.0.113.7", "hunter2secret", 7).await;
    let audit = rig.gate.state().join("audit.log");
    let told = || std::fs::read_to_string(&audit).unwrap_or_default();
    assert!(wait_until(Duration::from_secs(10), || told().matches("\"lockout\"").count() == 2), "{}", told());
    assert!(told().contains(r#""account":"ann""#), "{}", told());
    assert!(!told().contains("hunter2") && !rig.gate.errors().contains("hunter2"), "perhaps a password");
    let denials = String::from_utf8(rig.gate.cli(["denials"]).stdout).unwrap();
    let refused = denials.lines().find(|line| line.contains("login: locked_out")).expect("a line of it");
    let id = refused.split_whitespace().nth(1).unwrap();
    let explained = String::from_utf8(rig.gate.cli(["explain", "--id", id]).stdout).unwrap();
    assert!(
        explained.contains("too many wrong passwords") && explained.contains("portcullis unlock"),
        "{explained}"
    );
    let run = |words: &[&str]| {
        let done = rig.gate.cli(words.iter().copied());
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    assert!(run(&["unlock", "account", "bob"]).contains("NOTHING WAS LOCKED"));
    let lifted = run(&["unlock", "account", "Ann"]);
    assert!(
        lifted.contains("UNLOCKED: client at account on files.test (30 s): 203.0.113.7 as ann"),
        "{lifted}"
    );
    assert_eq!(rig.log_in("203.0.113.7", "ann", "right").await, 200);
    assert_eq!(rig.log_in("203.0.113.7", "hunter2secret", "right").await, 429);
    let lifted = run(&["unlock", "client", "203.0.113.7", "--json"]);
    assert!(lifted.contains("\"unlocked\"") && lifted.contains("\"account\": \"hu…\""), "{lifted}");
    assert_eq!(rig.log_in("203.0.113.7", "hunter2secret", "right").await, 200);
    assert_eq!(rig.lockouts(), (2.0, 0.0));
    rig.besiege("ann").await;
    assert_eq!(rig.lockouts(), (3.0, 1.0));
    run(&["unlock", "all"]);
    assert_eq!((rig.lockouts(), rig.log_in("192.0.2.78", "ann", "right").await), ((3.0, 0.0), 200));
    for wrong in [&["unlock"][..], &["unlock", "client", "not an address"], &["unlock", "client"]] {
        assert_eq!(rig.gate.cli(wrong.iter().copied()).status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn explain_tells_of_a_client_that_is_locked_out() {
    let rig = Rig::start("[site.login_guard]\nclient_failures = 3\nfailures = 3\n");
    let explain = || {
        let words = [
            "explain",
            "POST https://files.test/api/auth/login",
            "--from",
            "127.0.0.1",
            "-H",
            "X-Forwarded-For: 203.0.113.7",
        ];
        String::from_utf8(rig.gate.cli(words).stdout).unwrap()
    };
    let free = explain();
    assert!(free.contains("login") && !free.contains("locked_out"), "{free}");
    for account in ["a", "b", "c", "d"] {
        rig.guess("203.0.113.7", account, 1).await;
    }
    let locked = explain();
    assert!(locked.contains("locked_out") && locked.contains("portcullis unlock client"), "{locked}");
}

#[tokio::test]
async fn the_guard_may_only_observe_and_says_what_it_would_refuse() {
    let rig = Rig::start("mode = \"observe\"\n");
    assert_eq!(rig.guess("203.0.113.7", "ann", 8).await, [401; 8]);
    let series = "portcullis_would_deny_total{class=\"login\",guard=\"login\",reason=\"locked_out\",site=\"files.test\"}";
    assert_eq!(rig.gate.metric(series), Some(3.0));
    let odd = rig.gate.ask(LOGIN, "X-Forwarded-For: 203.0.113.7\r\n", b"nonsense").await;
    assert_eq!(odd.status, 401, "the application answers");
    let large = vec![b'x'; 100_000];
    assert_eq!(rig.gate.ask(LOGIN, "X-Forwarded-For: 203.0.113.7\r\n", &large).await.status, 401);
    assert!(rig.upstream.requests().iter().any(|request| request.body == large), "whole, byte for byte");
    let route = "[[site.route]]\nmatch = \"/api/auth/login\"\nclass = \"login\"\nobserve = [\"login\"]\n";
    let rig = Rig::start(route);
    assert_eq!(rig.guess("203.0.113.7", "ann", 8).await, [401; 8], "on this route alone");
}

#[tokio::test]
async fn accounts_that_must_not_be_locked_are_not_and_their_guessers_are() {
    let rig = Rig::start("[site.login_guard]\nnever_lock = [\"Robot\"]\naccount_failures = 5\n");
    for number in 0..12 {
        assert_eq!(rig.log_in(&format!("198.51.100.{number}"), "robot", "guess").await, 401);
    }
    assert_eq!(rig.guess("203.0.113.7", "robot", 6).await, [401, 401, 401, 401, 401, 429]);
    assert_eq!(rig.log_in("203.0.113.8", "robot", "right").await, 200);
}

#[tokio::test]
async fn a_slow_body_is_not_waited_for_long_and_takes_no_others_room() {
    let rig = Rig::start("");
    let head = format!(
        "{LOGIN} HTTP/1.1\r\nHost: files.test:{}\r\nX-Forwarded-For: 203.0.113.7\r\n{JSON}Content-Length: 100\r\n\r\n{{",
        rig.gate.https.port()
    );
    let mut slow = Vec::new();
    // More than it may hold: a try that asks whether it is full takes a place too, for a moment, which one of these wanted.
    for _ in 0..80 {
        let mut stream = rig.gate.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        slow.push(stream);
    }
    let full = async || rig.log_in("203.0.113.7", "ann", "right").await == 429;
    let begun = Instant::now();
    let mut seen = full().await;
    while !seen && begun.elapsed() < Duration::from_secs(5) {
        seen = full().await;
    }
    assert!(seen, "a client holds 64 at most");
    assert_eq!(rig.log_in("203.0.113.8", "ann", "right").await, 200, "others have their own room");
    let reason = "portcullis_denials_total{class=\"login\",guard=\"login\",reason=\"logins_full\",site=\"files.test\"}";
    assert!(rig.gate.metric(reason) >= Some(1.0));
}

const ARKEEP: &str = "[site.only_from]\nsetup = [\"0.0.0.0/0\"]\n[site.rate.setup]\nrefill = \"1000/s\"\nburst = 1000\n\
    [site.rate.refresh]\nrefill = \"1000/s\"\nburst = 1000\n[site.rate.enroll]\nrefill = \"1000/s\"\nburst = 1000\n";

#[tokio::test]
async fn of_twelve_who_set_up_at_once_one_passes() {
    let upstream = Upstream::scripted(|mut session| {
        while let Some(_request) = session.request() {
            std::thread::sleep(Duration::from_millis(500));
            session.send(&answer("201 Created", "{}"));
        }
    });
    let gate = config("arkeep", ARKEEP).start(upstream.address);
    let body = br#"{"name":"a","email":"a@b.test","password":"x"}"#;
    let ask = || gate.ask("POST /api/v1/setup/complete", "X-Forwarded-For: 203.0.113.7\r\n", body);
    let statuses = futures_util::future::join_all((0..12).map(|_| ask())).await;
    let count = |status| statuses.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(201), count(429)), (1, 11));
    assert!(statuses.iter().all(|answer| answer.status == 201 || answer.header("retry-after").is_some()));
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(ask().await.status, 201, "the turn is over with its answer: then the application says no");
}

#[tokio::test]
async fn refreshes_and_joining_machines_have_budgets_of_their_own() {
    let rig = Rig::of("arkeep", ARKEEP);
    let ask = async |line: &str, more: &str, body: &[u8]| {
        let headers = format!("X-Forwarded-For: 203.0.113.7\r\n{more}");
        rig.gate.ask(line, &headers, body).await.status
    };
    let mut failed = 0;
    let cookie =
        "Cookie: arkeep_refresh_token=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\r\n";
    while ask("POST /api/v1/auth/refresh", cookie, b"").await == 401 {
        failed += 1;
        assert!(failed <= 20);
    }
    assert_eq!(failed, 20);
    let alive =
        "Cookie: arkeep_refresh_token=ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\r\n";
    assert_eq!(ask("POST /api/v1/auth/refresh", alive, b"").await, 401, "another token is asked");
    let mut guesses = 0;
    while ask("POST /api/v1/agents/enroll", "", br#"{"agent_secret":"guess"}"#).await == 401 {
        guesses += 1;
        assert!(guesses <= 10);
    }
    assert_eq!(guesses, 10);
    let refused = Upstream::by_request(|request| match &*request.target {
        "/api/v1/auth/refresh" => answer("400 Bad Request", r#"{"error":"invalid_grant"}"#),
        _ => answer("422 Unprocessable Entity", "{}"),
    });
    let gate = config("arkeep", ARKEEP).start(refused.address);
    for (line, heard) in [("POST /api/v1/auth/refresh", 60), ("POST /api/v1/agents/enroll", 10)] {
        let before = refused.requests().len();
        for number in 0..heard + 5 {
            let headers =
                format!("X-Forwarded-For: 203.0.113.7\r\nCookie: arkeep_refresh_token={number:064x}\r\n");
            gate.ask(line, &headers, b"{}").await;
        }
        assert_eq!(refused.requests().len() - before, heard, "{line}: however it is refused");
    }
    let body = br#"{"email":"a@b.test","password":"guess"}"#;
    for _ in 0..5 {
        assert_eq!(ask("POST /api/v1/auth/login", JSON, body).await, 401, "the login pays for none of it");
    }
    assert_eq!(ask("POST /api/v1/auth/login", JSON, body).await, 429);
}

#[tokio::test]
#[ignore = "a measurement: run with --release --run-ignored only --no-capture"]
async fn what_the_guard_costs() {
    let rig = Rig::start("");
    let mut stream = rig.gate.connect().await;
    let body = body_of("ann", "right");
    let port = rig.gate.https.port();
    let login = format!(
        "{LOGIN} HTTP/1.1\r\nHost: files.test:{port}\r\nX-Forwarded-For: 203.0.113.7\r\n{JSON}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let other = login.replace("/api/auth/login", "/api/things/new");
    for (word, bytes) in [("login", &login), ("other", &other), ("login", &login), ("other", &other)] {
        let begun = Instant::now();
        for _ in 0..5000 {
            assert_eq!(raw::ask(&mut stream, bytes.as_bytes()).await.status, 200);
        }
        println!("{word}: {:?} each", begun.elapsed() / 5000);
    }
}
