//! Promises of token verification: what is forged, ended or another's never reaches the application.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, reason = "a stream takes time")]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::gate::{Config, Gate, place};
use common::raw::LIMIT;
use common::tokens::{App, now};
use common::upstream::{OK, Upstream};
use common::{wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn b64(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn signed(text: String, secret: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{text}.{}", b64(hmac::sign(&key, text.as_bytes())))
}

fn jwt(claims: &str, secret: &str) -> String {
    signed(format!("{}.{}", b64(r#"{"alg":"HS256"}"#), b64(claims)), secret)
}

/// Claims of this subject, good for so many seconds.
fn claims(subject: &str, seconds: i64) -> String {
    let ends = now().checked_add_signed(seconds).unwrap();
    format!(r#"{{"sub":"{subject}","exp":{ends},"iss":"us","aud":"files","type":"access"}}"#)
}

const VERIFIED: &str = "[site.tokens]\nverify = { key_file = \"key\" }\nissuer = \"us\"\naudience = [\"files\"]\n\
                        claims = { type = \"access\" }\n";

fn gate(app: &App, site: &str, upstream: &Upstream) -> Gate {
    let files = vec![("key", format!("{SECRET}\n"))];
    Config { app: app.path(), site: site.into(), files, ..Config::default() }.start(upstream.address)
}

async fn asked(gate: &Gate, token: &str) -> u16 {
    gate.ask("GET /api/x", &format!("authorization: Bearer {token}\r\n"), b"").await.status
}

#[tokio::test]
async fn forged_ended_and_foreign_tokens_never_reach_the_application() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, VERIFIED, &upstream);
    let good = jwt(&claims("1", 600), SECRET);
    assert_eq!(asked(&gate, &good).await, 200);
    let (header, rest) = good.split_once('.').unwrap();
    let changed = format!("{header}.{}.{}", b64(claims("2", 600)), rest.split('.').nth(1).unwrap());
    let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(claims("1", 600)));
    let critical =
        signed(format!("{}.{}", b64(r#"{"alg":"HS256","crit":["x"]}"#), b64(claims("1", 600))), SECRET);
    let seen = upstream.requests().len();
    for (what, token) in [
        ("signed by another", jwt(&claims("1", 600), "ffffffffffffffffffffffffffffffff")),
        ("changed", changed),
        ("alg none", unsigned),
        ("crit", critical),
        ("ended", jwt(&claims("1", -6), SECRET)),
        ("not yet good", jwt(&format!(r#"{{"nbf":{},{}"#, now() + 60, &claims("1", 600)[1..]), SECRET)),
        ("of another issuer", jwt(&claims("1", 600).replace("us", "them"), SECRET)),
        ("for another audience", jwt(&claims("1", 600).replace("files", "mail"), SECRET)),
        ("a refresh token", jwt(&claims("1", 600).replace("access", "refresh"), SECRET)),
        ("without an end", jwt(r#"{"sub":"1","iss":"us","aud":"files","type":"access"}"#, SECRET)),
        ("opaque", "c4f1b2f0a9d8e7c6b5a4".to_owned()),
    ] {
        let answer = gate.ask("GET /api/x", &format!("authorization: Bearer {token}\r\n"), b"").await;
        assert_eq!((answer.status, answer.text().as_str()), (401, r#"{"who":"nobody"}"#), "{what}");
        assert!(
            answer.header("www-authenticate").is_some_and(|value| value.contains("invalid_token")),
            "{what}"
        );
        let query = gate.ask(&format!("GET /live/ws?token={token}"), "", b"").await;
        assert_eq!(query.status, 401, "{what}, in the query");
        let page = gate.ask("GET /", &format!("cookie: sid={token}; other=1\r\n"), b"").await;
        assert_eq!(page.status, 200, "{what}: a page strips the cookie");
    }
    let came: Vec<_> = upstream.requests().into_iter().skip(seen).collect();
    assert!(
        came.iter()
            .all(|request| request.target == "/" && !request.all("cookie").any(|line| line.contains("sid")))
    );
    assert_eq!(gate.ask("GET /api/x", "", b"").await.status, 200, "who shows no token is not asked for one");
    assert_eq!(asked(&gate, &good).await, 200);
    let denied = "portcullis_denials_total{class=\"api\",guard=\"verify\",reason=\"token_invalid\",site=\"files.test\"}";
    assert_eq!(gate.metric(denied), Some(10.0));
}

#[tokio::test]
async fn keepstacks_tokens_are_verified_with_its_secret() {
    let upstream = Upstream::answering(OK);
    let site = "[site.tokens]\nverify = { key_file = \"key\" }\n";
    let files = vec![("key", SECRET.to_owned())];
    let gate = Config { site: site.into(), files, ..Config::default() }.start(upstream.address);
    let ask = async |token: String| {
        let line = format!("authorization: Bearer {token}\r\n");
        gate.ask("GET /api/assets", &line, b"").await
    };
    let body = b64(format!(r#"{{"sub":1,"role":"viewer","exp":{}}}"#, now() + 600));
    assert_eq!(ask(signed(body.clone(), SECRET)).await.status, 200);
    let forged = ask(signed(b64(format!(r#"{{"sub":1,"role":"admin","exp":{}}}"#, now() + 600)), "x")).await;
    assert_eq!(forged.status, 401);
    assert_eq!(forged.text(), r#"{"detail":"Authentication required"}"#, "in the application's own shape");
}

#[tokio::test]
async fn a_flood_of_forged_tokens_costs_its_client_a_budget_and_harms_nobody_who_is_in() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, VERIFIED, &upstream);
    let good = jwt(&claims("1", 600), SECRET);
    assert_eq!(asked(&gate, &good).await, 200, "{}", gate.log());
    let mut seen = Vec::new();
    for n in 0..40 {
        seen.push(asked(&gate, &jwt(&claims(&n.to_string(), 600), "ffffffffffffffffffffffffffffffff")).await);
    }
    assert_eq!(
        seen.iter().filter(|status| **status == 401).count(),
        seen.iter().position(|s| *s == 429).unwrap()
    );
    assert!(seen.contains(&429), "{seen:?}");
    assert_eq!(asked(&gate, &good).await, 200);
}

#[tokio::test]
async fn a_page_of_another_site_spends_nothing_of_what_bad_tokens_cost_its_visitors() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, VERIFIED, &upstream);
    let lines = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n";
    let mut refused = 0;
    for n in 0..60 {
        let forged = jwt(&claims(&n.to_string(), 600), "ffffffffffffffffffffffffffffffff");
        let answer = gate.ask(&format!("GET /x?token={forged}"), lines, b"").await;
        assert!(matches!(answer.status, 401 | 429), "{}", answer.status);
        refused += usize::from(answer.status == 429);
    }
    assert!(refused > 20, "nor is there signature work without end for whoever says so himself");
    assert_eq!(
        asked(&gate, &jwt(&claims("1", 600), SECRET)).await,
        200,
        "a good token that nobody has seen yet"
    );
}

/// What an answer makes of cookies, and what of them the application was sent.
async fn cookies(
    gate: &Gate,
    upstream: &Upstream,
    line: &str,
    cookies: &str,
) -> (u16, Vec<String>, Option<String>) {
    let heard = upstream.requests().len();
    let answer = gate.ask(line, &format!("cookie: {cookies}\r\n"), b"").await;
    let lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    let set = lines.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    let set = set.map(|(_, value)| value.split(';').next().unwrap().to_owned()).collect();
    let sent = upstream.requests().into_iter().nth(heard);
    (answer.status, set, sent.map(|request| request.header("cookie").unwrap_or_default().to_owned()))
}

#[tokio::test]
async fn an_access_cookie_that_has_ended_or_is_bad_never_takes_the_refresh_cookie_with_it() {
    let more = "refresh_cookie = \"renew\"\nrefresh_lifetime = \"168h\"";
    let app = App::new("jwt", r#"["bearer", "cookie:sid", "cookie:second"]"#, more);
    let upstream = Upstream::answering(OK);
    let refresh = "[[site.route]]\nmatch = \"/api/refresh\"\nclass = \"refresh\"\n";
    let gate = gate(&app, &format!("{VERIFIED}{refresh}"), &upstream);
    let (good, ended) = (jwt(&claims("1", 600), SECRET), jwt(&claims("1", -60), SECRET));
    let forged = jwt(&claims("1", 600), "ffffffffffffffffffffffffffffffff");
    for (line, bad, forgotten) in [
        ("GET /", &ended, vec![]),
        ("GET /", &forged, vec!["sid=".to_owned()]),
        ("POST /api/refresh", &ended, vec![]),
    ] {
        let sent = format!("sid={bad}; second={good}; renew=r1; other=1");
        let (status, set, came) = cookies(&gate, &upstream, line, &sent).await;
        assert_eq!((status, set), (200, forgotten), "{line}");
        assert_eq!(came.unwrap(), format!("second={good}; renew=r1; other=1"), "{line}");
    }
    let (status, _, came) = cookies(&gate, &upstream, "GET /api/x", &format!("sid={ended}; renew=r1")).await;
    assert_eq!((status, came), (401, None), "elsewhere it is refused");
}

#[tokio::test]
async fn a_forged_cookie_beside_an_old_refresh_token_makes_its_session_no_younger() {
    let app =
        App::new("jwt", r#"["bearer", "cookie:sid"]"#, "[login]\naccount = \"email\"\ntoken = \"token\"");
    let token = |seconds: i64, secret| {
        let issued = format!(r#"{{"iat":{},"#, now().checked_add_signed(seconds).unwrap());
        jwt(&claims("alice", 600 + seconds).replacen('{', &issued, 1), secret)
    };
    let handed_out = token(2, SECRET);
    let upstream = Upstream::by_request(move |_| {
        let body = format!(r#"{{"token":"{handed_out}"}}"#);
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into()
    });
    let rates =
        ["refresh", "login"].map(|class| format!("[site.rate.{class}]\nrefill = \"1000/s\"\nburst = 1000\n"));
    let refresh = "[[site.route]]\nmatch = \"/api/refresh\"\nclass = \"refresh\"\n";
    let gate = gate(&app, &format!("{VERIFIED}{}{refresh}", rates.concat()), &upstream);
    let old = token(-1000, SECRET);
    assert!(gate.cli(["block", "subject", "alice"]).status.success());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (forged, other) = (token(0, "ffffffffffffffffffffffffffffffff"), claims("bob", 600));
    for line in ["POST /api/refresh", "POST /login?grant_type=refresh_token"] {
        for cookie in ["", &old, &forged, &jwt(&other, "ffffffffffffffffffffffffffffffff")] {
            let headers = format!("content-type: application/json\r\ncookie: other=1; sid={cookie}\r\n");
            let body = br#"{"grant_type":"refresh_token","refresh_token":"old"}"#;
            let answer = gate.ask(line, &headers, body).await;
            assert_eq!(answer.status, 401, "{line} {cookie} {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_cookie_that_the_answer_sets_anew_is_not_taken_from_the_browser() {
    let app = App::everywhere("jwt");
    let upstream =
        Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: sid=new; Path=/\r\n\r\n");
    let gate = gate(&app, VERIFIED, &upstream);
    let forged = jwt(&claims("1", 600), "ffffffffffffffffffffffffffffffff");
    let (status, set, _) = cookies(&gate, &upstream, "GET /login", &format!("sid={forged}")).await;
    assert_eq!((status, set), (200, vec!["sid=new".to_owned()]));
}

#[tokio::test]
async fn another_key_counts_from_the_reload_on_and_a_broken_one_changes_nothing() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, VERIFIED, &upstream);
    let (old, new) = (SECRET, "ffffffffffffffffffffffffffffffff");
    let (old, new_token) = (jwt(&claims("1", 600), old), jwt(&claims("1", 600), new));
    assert_eq!((asked(&gate, &old).await, asked(&gate, &new_token).await), (200, 401));
    let key = gate.config().with_file_name("key");
    place(&key, "short");
    let refused = gate.cli(["reload"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("32 are needed"), "{refused:?}");
    assert_eq!(asked(&gate, &old).await, 200);
    place(&key, new);
    assert!(wait_until(LIMIT, || gate.cli(["reload"]).status.success()));
    assert_eq!((asked(&gate, &old).await, asked(&gate, &new_token).await), (401, 200));
}

#[tokio::test]
async fn streams_end_with_their_token_where_the_site_says_so() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::scripted(|mut session| {
        if session.head().is_none() {
            return;
        }
        session.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        while session.send(b"data: 1\n\n") {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let gate = gate(&app, &format!("{VERIFIED}cut_at_expiry = true\n"), &upstream);
    // Five seconds of leeway come on top.
    let mut streams = Vec::new();
    let start = Instant::now();
    for seconds in [-3, 600] {
        let mut stream = gate.connect().await;
        let token = jwt(&claims("1", seconds), SECRET);
        let head =
            format!("GET /live/events HTTP/1.1\r\nhost: files.test\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        streams.push(stream);
    }
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LIMIT, streams[0].read_to_end(&mut rest)).await.expect("cut in time");
    assert!(start.elapsed() >= Duration::from_secs(1));
    let mut byte = [0; 1];
    streams[1].read_exact(&mut byte).await.expect("the other goes on");
}

/// openssl makes the key, we sign with it, the gateway fetches its public half over TLS from a provider with a CA of its own.
#[tokio::test]
async fn keys_are_fetched_from_a_provider_and_follow_its_rotation() {
    let provider = Provider::start().await;
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let site = format!(
        "[site.tokens]\nverify = {{ jwks = \"https://localhost:{}/jwks\", ca_file = \"ca.pem\" }}\n",
        provider.port
    );
    let first = Ed::new("one");
    provider.publish(&[&first]);
    let files = vec![("ca.pem", provider.ca.clone())];
    let mut gate = Config { app: app.path(), site, files, ..Config::default() }.start(upstream.address);
    assert!(wait_for_status(&gate, &first.token(), 200).await, "{}", gate.errors());
    let second = Ed::new("two");
    assert_eq!(asked(&gate, &second.token()).await, 401);
    provider.stop();
    gate.kill();
    gate.start_again();
    assert_eq!(asked(&gate, &first.token()).await, 200, "the last good keys outlive a restart");
    let status = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(wait_for(LIMIT, || gate.errors().contains("no keys from https://localhost")).await, "{status}");
}

#[tokio::test]
async fn until_keys_were_had_once_a_token_gets_503_and_everything_else_goes_on() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let site = "[site.tokens]\nverify = { jwks = \"http://127.0.0.1:1/jwks\" }\n";
    let gate = Config { app: app.path(), site: site.into(), ..Config::default() }.start(upstream.address);
    let token = jwt(&claims("1", 600), SECRET);
    assert_eq!(asked(&gate, &token).await, 503);
    let page = gate.ask("GET /", &format!("cookie: sid={token}; renew=r1\r\n"), b"").await;
    assert_eq!((page.status, page.header("set-cookie")), (503, None), "nobody is logged out of it");
    assert_eq!(gate.ask("GET /api/x", "", b"").await.status, 200);
    let told =
        wait_for(LIMIT, || String::from_utf8_lossy(&gate.cli(["status"]).stdout).contains("no keys from"))
            .await;
    assert!(told, "status says why");
}

async fn wait_for_status(gate: &Gate, token: &str, wanted: u16) -> bool {
    common::wait_until_async(LIMIT, async || asked(gate, token).await == wanted).await
}

/// An Ed25519 key made by openssl.
struct Ed {
    kid: &'static str,
    dir: tempfile::TempDir,
}

impl Ed {
    fn new(kid: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = Self { kid, dir };
        key.openssl(&["genpkey", "-algorithm", "ed25519", "-out", "key.pem"]);
        key
    }

    fn openssl(&self, arguments: &[&str]) -> Vec<u8> {
        let ran = Command::new("openssl").args(arguments).current_dir(self.dir.path()).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        ran.stdout
    }

    fn jwk(&self) -> String {
        let der = self.openssl(&["pkey", "-in", "key.pem", "-pubout", "-outform", "DER"]);
        let x = b64(&der[der.len() - 32..]);
        format!(r#"{{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"{}","x":"{x}"}}"#, self.kid)
    }

    fn token(&self) -> String {
        let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, self.kid);
        let text = format!("{}.{}", b64(header), b64(claims("1", 600)));
        std::fs::write(self.dir.path().join("text"), &text).unwrap();
        let signature = self.openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "text"]);
        format!("{text}.{}", b64(signature))
    }
}

/// An identity provider: one key set over TLS.
struct Provider {
    port: u16,
    ca: String,
    set: Arc<std::sync::Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Provider {
    async fn start() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(params, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".into()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let set = Arc::<std::sync::Mutex<String>>::default();
        let says = Arc::clone(&set);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = [0; 2048];
                let _ = stream.read(&mut head).await;
                let body = says.lock().unwrap().clone();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { port, ca: ca.pem(), set, task }
    }

    fn publish(&self, keys: &[&Ed]) {
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        *self.set.lock().unwrap() = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    }

    fn stop(&self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_broken_ca_file_of_the_provider_is_refused_with_the_config_and_another_one_is_taken_over() {
    let provider = Provider::start().await;
    let key = Ed::new("one");
    provider.publish(&[&key]);
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let address = format!("https://localhost:{}/jwks", provider.port);
    let site = format!("[site.tokens]\nverify = {{ jwks = \"{address}\", ca_file = \"ca.pem\" }}\n");
    let stranger = Provider::start().await;
    let files = vec![("ca.pem", stranger.ca.clone())];
    let gate = Config { app: app.path(), site, files, ..Config::default() }.start(upstream.address);
    assert!(wait_for(LIMIT, || gate.errors().contains(&format!("no keys from {address}"))).await);
    let file = gate.config().with_file_name("ca.pem");
    for (text, word) in [("", "holds no certificate"), ("-----BEGIN CERTIFICATE-----\n", "damaged")] {
        place(&file, text);
        let told = gate.cli(["check", "--offline"]);
        let said = String::from_utf8_lossy(&told.stdout).into_owned();
        assert_eq!(told.status.code(), Some(3), "{said}");
        assert!(said.contains("ca.pem") && said.contains(word) && said.contains("verify"), "{said}");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(gate.cli(["reload"]).status.code(), Some(3));
    place(&file, &provider.ca);
    assert!(wait_until(LIMIT, || gate.cli(["reload"]).status.success()));
    assert!(wait_for_status(&gate, &key.token(), 200).await, "{}", gate.errors());
}

#[tokio::test]
async fn what_a_token_says_of_itself_is_told_as_known_only_where_it_was_verified() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, VERIFIED, &upstream);
    let explained = async |token: &str, line: &str| {
        let answer = gate.ask(line, &format!("authorization: Bearer {token}\r\n"), b"").await;
        let id = answer.header("x-request-id").unwrap().to_owned();
        String::from_utf8(gate.cli(["explain", "--id", &id]).stdout).unwrap()
    };
    let known = explained(&jwt(&claims("17", 600), SECRET), "GET /api/x").await;
    assert!(known.contains(", subject 17"), "{known}");
    let forged = jwt(&claims("18", 600), "ffffffffffffffffffffffffffffffff");
    let unknown = explained(&forged, "GET /api/x").await;
    assert!(unknown.contains(", calls itself subject 18"), "{unknown}");
    let shown = String::from_utf8(gate.cli(["check", "--offline"]).stdout).unwrap();
    assert!(
        shown.contains("verified    with 1 key of ") && shown.contains("(HS256, HS384, HS512)"),
        "{shown}"
    );
    assert!(shown.contains("issuer us; audience files; type = \"access\""), "{shown}");
    let json: serde_json::Value =
        serde_json::from_slice(&gate.cli(["check", "--offline", "--json"]).stdout).unwrap();
    let verify = &json["sites"][0]["verify"];
    assert_eq!((&verify["issuer"][0], &verify["keys"]["count"]), (&"us".into(), &1.into()), "{verify}");
    assert!(json["sites"][0]["backchannel_logout"].is_null());
}

#[test]
fn explain_without_a_gateway_says_why_there_are_no_keys() {
    let app = App::everywhere("jwt");
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[tls]\nself_signed = true\n[admin]\nsocket = \"{}\"\n[[site]]\nhosts = [\"files.test\"]\napp = \"{}\"\n\
         upstream = \"http://127.0.0.1:1\"\n[site.tokens]\nverify = {{ jwks = \"http://127.0.0.1:1/\" }}\n",
        dir.path().join("admin.sock").display(),
        app.path()
    );
    let config = dir.path().join("portcullis.toml");
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["explain", "https://files.test/api/x", "-H", "@-", "--config"])
        .arg(&config)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let line = format!("Authorization: Bearer {}\n", jwt(&claims("1", 600), SECRET));
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains("keys_unavailable") && said.contains("by a running gateway only"), "{said}");
}
