//! Promises of `block --verify`: a probe through the gateway's own listener says whether a block holds, and never reaches
//! the application.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

mod common;

use std::process::Output;

use common::gate::{Config, Gate};
use common::raw::LIMIT;
use common::tokens::{App, jwt, login, now};
use common::upstream::{OK, Upstream};
use common::wait_until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn text(told: &Output) -> String {
    String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr)
}

fn gate(upstream: &Upstream, site: &str) -> (Gate, App) {
    let app = App::everywhere("jwt");
    let gate = Config { app: app.path(), site: site.into(), ..Config::default() }.start(upstream.address);
    (gate, app)
}

#[tokio::test]
async fn a_blocked_token_is_seen_to_be_refused_and_its_streams_to_be_cut() {
    let upstream = Upstream::scripted(|mut session| {
        if session.head().is_some() {
            session.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
            session.until_closed();
        }
    });
    let (gate, _app) = gate(&upstream, "");
    let token = login("7", "one", now());
    let mut stream = gate.connect().await;
    let head =
        format!("GET /live/events HTTP/1.1\r\nhost: files.test\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();

    let told = gate.cli_with(["block", "token", "-", "--verify", "--json"], &format!("Bearer {token}\n"));
    assert!(told.status.success(), "{}", text(&told));
    let answer: Value = serde_json::from_slice(&told.stdout).unwrap();
    let (block, proof) = (&answer["block"], &answer["verify"]);
    assert_eq!((&block["id"], &answer["cut"], &proof["cut"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!(proof["proved"], true, "{proof}");
    let probe = &proof["probes"][0];
    assert_eq!(
        (&probe["with"], &probe["status"], &probe["guard"], &probe["reason"]),
        (&json!("token"), &json!(401), &json!("blocks"), &json!("token_blocked"))
    );
    assert!(probe["through"].as_str().unwrap().starts_with("https 127.0.0.1:"), "{probe}");
    assert!(proof["after_ms"].as_u64().unwrap() * 1000 >= probe["took_us"].as_u64().unwrap());
    let mut rest = Vec::new();
    assert!(tokio::time::timeout(LIMIT, stream.read_to_end(&mut rest)).await.is_ok());

    assert_eq!(upstream.requests().len(), 1, "the probe has reached the application");
    assert!(wait_until(LIMIT, || gate.log().contains("/.well-known/portcullis/probe")));
    assert!(!gate.log().contains(&token));
    let listed = gate.cli(["denials"]);
    assert!(text(&listed).contains("token_blocked"), "what the probe met is remembered as any refusal");
}

#[test]
fn each_kind_of_block_can_be_proved() {
    let upstream = Upstream::answering(OK);
    let (gate, _app) = gate(&upstream, "");
    let fingerprint = "ab".repeat(32);
    for (arguments, input, word) in [
        (vec!["fingerprint", &fingerprint], "", "fingerprint"),
        (vec!["jti", "9"], "", "jti"),
        (vec!["subject", "7"], "", "subject"),
        (vec!["subject", "8", "--issuer", "us", "--and-logins"], "", "subject"),
        (vec!["share", "-"], "https://files.test/s/tok", "share"),
        (vec!["address", "192.0.2.0/24"], "", "address"),
        (vec!["everyone", "--yes"], "", "everyone"),
    ] {
        let arguments = ["block"].into_iter().chain(arguments).chain(["--verify"]);
        let told = gate.cli_with(arguments, input);
        let text = text(&told);
        assert!(told.status.success() && text.contains("\nPROVED: refused "), "{text}");
        assert!(text.contains("  files.test: refused with 4") && text.contains(" by blocks: "), "{text}");
        assert!(text.contains(&format!("given the probe the blocked {word}")), "{text}");
    }
    assert!(upstream.requests().is_empty());
}

#[test]
fn what_is_not_seen_to_be_refused_is_not_proved_and_does_not_reach_the_application() {
    let upstream = Upstream::answering(OK);
    let (gate, _app) = gate(&upstream, "");
    // Nothing is blocked: the probe is let through by every guard, and answered by the gateway itself.
    let socket = gate.config().with_file_name("admin.sock");
    for what in
        [json!({ "kind": "jti", "jti": "1" }), json!({ "kind": "address", "network": "192.0.2.1/32" })]
    {
        let order = json!({ "what": what, "token": login("7", "one", now()) }).to_string().into_bytes();
        let limit = std::time::Duration::from_secs(5);
        let path = "/v1/probe";
        let told = portcullis::admin::client::call(&socket, http::Method::POST, path, Some(order), limit);
        let probe = serde_json::from_slice::<Value>(&told.unwrap().1).unwrap()["probes"][0].clone();
        assert_eq!((&probe["refused"], &probe["status"]), (&json!(false), &json!(204)), "{probe}");
        assert!(probe["failure"].as_str().unwrap().contains("does not hold"), "{probe}");
    }
    // A spelling that is refused as malformed says nothing of the block.
    let token = jwt(r#"{"sub":"7"}"#);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let odd = format!("{signed}=.{signature}");
    let told = gate.cli_with(["block", "token", "-", "--verify"], &odd);
    let said = text(&told);
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("NOT PROVED") && said.contains("before any guard was asked"), "{said}");
    assert!(upstream.requests().is_empty());
}

#[test]
fn who_cannot_be_found_on_a_site_is_not_said_to_be_blocked_there() {
    let upstream = Upstream::answering(OK);
    let second = |app: &str| {
        format!(
            "\n[[site]]\nhosts = [\"second.test\"]\napp = \"{app}\"\nupstream = \"http://{}\"\n",
            upstream.address
        )
    };
    let gate = Config { app: "coolify".into(), site: second("keepstack"), ..Config::default() }
        .start(upstream.address);
    let refused = |words: &[&str], says: &[&str]| {
        let told = gate.cli(["block"].into_iter().chain(words.iter().copied()).chain(["--verify"]));
        let said = text(&told);
        assert_eq!(told.status.code(), Some(5), "{words:?} {said}");
        assert!(
            says.iter().all(|part| said.contains(part)) && !said.contains("BLOCKED:"),
            "{words:?} {said}"
        );
    };
    let opaque = "the tokens of files.test have no subject";
    refused(
        &["subject", "6", "--site", "files.test"],
        &[opaque, "block token -", "block everyone", "second.test"],
    );
    refused(&["account", "ann", "--site", "files.test"], &[opaque]);
    refused(&["jti", "9", "--site", "second.test"], &["the tokens of second.test have no jti"]);
    refused(&["jti", "9"], &["the tokens of files.test, second.test have no jti"]);
    let listed = text(&gate.cli(["blocks"]));
    assert!(!listed.contains("subject") && !listed.contains("jti"), "{listed}");
    // The only site that is left is the one that is meant.
    let told = gate.cli(["block", "subject", "6", "--verify"]);
    let said = text(&told);
    assert!(told.status.success() && said.contains("\nPROVED: refused "), "{said}");
    assert!(said.contains("it holds on second.test; tokens of files.test have no subject"), "{said}");
}

#[tokio::test]
async fn a_stranger_cannot_pose_as_a_probe() {
    let upstream = Upstream::answering(OK);
    let (gate, _app) = gate(&upstream, "");
    for number in ["", "x", &"ab".repeat(16)] {
        let fields = format!("x-portcullis-probe: {number}\r\n");
        let answer = gate.ask("GET /api/x", &fields, b"").await;
        assert_eq!((answer.status, answer.header("x-portcullis-verdict")), (400, None));
    }
    assert!(upstream.requests().is_empty());
    assert!(wait_until(LIMIT, || gate.log().contains("probe_unknown")));
}

#[test]
fn a_block_on_all_sites_is_proved_on_each_of_them() {
    let upstream = Upstream::answering(OK);
    let second =
        format!("\n[[site]]\nhosts = [\"*.second.test\"]\nupstream = \"http://{}\"\n", upstream.address);
    let (gate, _app) = gate(&upstream, &second);
    let told = gate.cli_with(["block", "token", "-", "--verify"], &login("7", "one", now()));
    let said = text(&told);
    assert!(told.status.success(), "{said}");
    assert!(
        said.contains("  files.test: refused with 401") && said.contains("  *.second.test: refused with 401")
    );
    assert!(!said.contains("given the probe"), "{said}");
}
