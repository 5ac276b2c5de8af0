//! Promises of back-channel logout: an identity provider ends sessions, at once and over restarts; nobody else does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

mod common;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::gate::{Config, Gate};
use common::raw::{Answer, LIMIT};
use common::tokens::{App, now};
use common::upstream::{OK, Upstream};
use common::wait_until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ORDERS: &str = "POST /.well-known/portcullis/backchannel-logout";
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const SITE: &str = "[site.tokens]\nverify = { key_file = \"key\" }\nissuer = \"https://id\"\n\
                    backchannel_logout = { audience = \"client\" }\n";

fn b64(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn signed(header: &Value, claims: &Value, secret: &str) -> String {
    let text = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{text}.{}", b64(hmac::sign(&key, text.as_bytes())))
}

/// A token of the provider's that the application takes.
fn access(subject: &str, session: Option<&str>, issued: u64) -> String {
    let mut claims = json!({ "iss": "https://id", "sub": subject, "iat": issued, "exp": now() + 600 });
    if let Some(session) = session {
        claims["sid"] = session.into();
    }
    signed(&json!({ "alg": "HS256" }), &claims, SECRET)
}

/// The claims of an order, with its own name.
fn order(jti: &str) -> Value {
    json!({ "iss": "https://id", "aud": "client", "iat": now(), "exp": now() + 120, "jti": jti, "events": { EVENT: {} } })
}

fn with(mut claims: Value, key: &str, value: impl Into<Value>) -> Value {
    claims[key] = value.into();
    claims
}

fn logout(claims: &Value) -> String {
    signed(&json!({ "alg": "HS256", "typ": "logout+jwt" }), claims, SECRET)
}

fn gate(app: &App, upstream: &Upstream) -> Gate {
    let files = vec![("key", format!("{SECRET}\n"))];
    Config { app: app.path(), site: SITE.into(), files, ..Config::default() }.start(upstream.address)
}

async fn send(gate: &Gate, token: &str) -> Answer {
    let body = format!("logout_token={token}");
    gate.ask(ORDERS, "Content-Type: application/x-www-form-urlencoded\r\n", body.as_bytes()).await
}

async fn asked(gate: &Gate, token: &str) -> u16 {
    gate.ask("GET /api/x", &format!("authorization: Bearer {token}\r\n"), b"").await.status
}

fn blocks(gate: &Gate) -> Vec<Value> {
    let told = gate.cli(["blocks", "--json"]);
    let list: Value = serde_json::from_slice(&told.stdout).unwrap();
    list["blocks"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_logout_at_the_provider_ends_that_session_at_once_and_over_a_restart_and_no_other() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::scripted(|mut session| {
        while let Some(head) = session.head() {
            let live = head.starts_with("GET /live/");
            let answer: &[u8] = if live {
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
            } else {
                OK
            };
            if !session.send(answer) {
                return;
            }
            if live {
                session.until_closed();
                return;
            }
        }
    });
    let mut gate = gate(&app, &upstream);
    let (begun, here) = (now() - 60, now());
    let (ended, other) = (access("7", Some("s1"), begun), access("7", Some("s2"), begun));
    let (unnamed, later) = (access("7", None, begun), access("7", None, here - 5));
    let stranger = access("8", None, begun);
    for token in [&ended, &other, &unnamed, &stranger] {
        assert_eq!(asked(&gate, token).await, 200);
    }
    let mut stream = gate.connect().await;
    let head =
        format!("GET /live/events HTTP/1.1\r\nhost: files.test\r\nauthorization: Bearer {ended}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();

    let told = with(with(order("one"), "sub", "7"), "sid", "s1");
    let told = logout(&with(told, "iat", here - 10));
    let answer = send(&gate, &told).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""), "{}", gate.log());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await;
    assert!(cut.is_ok(), "its stream goes on");
    let expected = [(&ended, 401), (&other, 200), (&unnamed, 401), (&later, 200), (&stranger, 200)];
    for (token, status) in expected {
        assert_eq!(asked(&gate, token).await, status);
    }
    let audit = std::fs::read_to_string(gate.state().join("audit.log")).unwrap();
    let line = audit.lines().find(|line| line.contains("\"logout\"")).unwrap_or_else(|| panic!("{audit}"));
    assert!(line.contains("backchannel https://id") && line.contains("confirmed"), "{line}");
    assert_eq!(gate.metric("portcullis_blocks{kind=\"session\"}"), Some(1.0));

    gate.kill();
    gate.start_again();
    for (token, status) in expected {
        assert_eq!(asked(&gate, token).await, status, "after the restart");
    }
    assert!(blocks(&gate)[0]["learned"].as_bool().unwrap());
    assert!(!upstream.requests().iter().any(|request| request.target.contains("well-known")));
}

#[tokio::test]
async fn a_person_who_logs_out_everywhere_is_out_everywhere_and_may_log_in_again() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, &upstream);
    let old = [access("7", Some("s1"), now() - 5), access("7", None, now())];
    for token in &old {
        assert_eq!(asked(&gate, token).await, 200);
    }
    assert_eq!(send(&gate, &logout(&with(order("all"), "sub", 7))).await.status, 200);
    for token in &old {
        assert_eq!(asked(&gate, token).await, 401);
    }
    // The order's second has to pass: equal seconds count as older.
    let issued = now();
    assert!(wait_until(LIMIT, || now() > issued));
    assert_eq!(asked(&gate, &access("7", Some("s3"), now())).await, 200);
}

#[tokio::test]
async fn what_is_forged_stale_replayed_or_for_others_is_refused_alike_and_teaches_nothing() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, &upstream);
    let good = || with(order("bad"), "sub", "7");
    let typed = |typ: &str| signed(&json!({ "alg": "HS256", "typ": typ }), &good(), SECRET);
    let without = |key: &str| {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(key);
        logout(&claims)
    };
    let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(good().to_string()));
    let bad = [
        (
            "signed by another",
            signed(&json!({ "alg": "HS256" }), &good(), "ffffffffffffffffffffffffffffffff"),
        ),
        ("unsigned", unsigned),
        ("of another issuer", logout(&with(good(), "iss", "https://evil"))),
        ("for another client", logout(&with(good(), "aud", "other"))),
        ("stale", logout(&with(good(), "iat", now() - 400))),
        ("ended", logout(&with(good(), "exp", now() - 10))),
        ("from the future", logout(&with(good(), "iat", now() + 400))),
        ("with a nonce", logout(&with(good(), "nonce", "n"))),
        ("without an event", without("events")),
        ("without a name", without("jti")),
        ("for nobody", without("sub")),
        ("an access token", access("7", None, now())),
        ("typed as an access token", typed("at+jwt")),
        ("no token", "x".into()),
        ("nothing", String::new()),
    ];
    let mut bodies = std::collections::BTreeSet::new();
    for (what, token) in &bad {
        let answer = send(&gate, token).await;
        assert_eq!(answer.status, 400, "{what}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
        bodies.insert(answer.text());
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let told: Value = serde_json::from_str(bodies.first().unwrap()).unwrap();
    assert_eq!(told["error"], "invalid_request");
    assert_eq!(asked(&gate, &access("7", None, now() - 5)).await, 200);
    assert!(blocks(&gate).is_empty());

    // Each was logged with its own cause.
    let logged = wait_until(LIMIT, || gate.log().matches("logout token refused").count() == bad.len());
    assert!(logged, "{}", gate.log());
    let once = logout(&with(order("once"), "sub", "9"));
    assert_eq!(send(&gate, &once).await.status, 200);
    assert_eq!(send(&gate, &once).await.status, 400, "replayed");
    assert_eq!(blocks(&gate).len(), 1);
    assert!(wait_until(LIMIT, || gate.log().contains("it was used before")));
}

#[tokio::test]
async fn a_logout_token_opens_nothing() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, &upstream);
    let claims = with(with(order("x"), "sub", "7"), "exp", now() + 600);
    let plain = signed(&json!({ "alg": "HS256" }), &claims, SECRET);
    let mut eventless = claims.clone();
    eventless.as_object_mut().unwrap().remove("events");
    for token in [logout(&claims), plain, logout(&eventless)] {
        assert_eq!(asked(&gate, &token).await, 401);
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn only_a_small_form_by_post_is_read_and_who_shows_bad_ones_is_soon_not_listened_to() {
    let app = App::everywhere("jwt");
    let upstream = Upstream::answering(OK);
    let gate = gate(&app, &upstream);
    let good = logout(&with(order("form"), "sub", "7"));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let path = ORDERS.strip_prefix("POST ").unwrap();
    let get = gate.ask(&format!("GET {path}?logout_token={good}"), "", b"").await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    let long = format!("logout_token={good}&x={}", "x".repeat(16 << 10));
    for (what, fields, body) in [
        ("no form", "Content-Type: application/json\r\n", format!("logout_token={good}")),
        ("untyped", "", format!("logout_token={good}")),
        ("two tokens", form, format!("logout_token={good}&logout_token={good}")),
        ("too long", form, long),
    ] {
        assert_eq!(gate.ask(ORDERS, fields, body.as_bytes()).await.status, 400, "{what}");
    }
    assert!(blocks(&gate).is_empty());
    let mut last = 0;
    for _ in 0..40 {
        last = send(&gate, "x").await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(send(&gate, &good).await.status, 429, "before any signature work");
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_site_that_takes_no_orders_leaves_the_path_to_its_application() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let gate = Config { app: app.path(), ..Config::default() }.start(upstream.address);
    assert_eq!(send(&gate, "x").await.status, 200);
    assert_eq!(upstream.requests().len(), 1);
}
