//! Certificates by themselves, from a real authority (pebble): all ways to show that a host is ours, renewal, and what
//! becomes of an authority that fails or lies.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::authority::{Exchange, Front, Options, Pebble, text_of};
use common::gate::Gate;
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_until};
use serde_json::Value;

/// Nonces are refused now and then, as a real authority may.
const ROUGH: [(&str, &str); 2] = [("PEBBLE_WFE_NONCEREJECT", "20"), ("PEBBLE_AUTHZREUSE", "0")];
/// For what comes in seconds, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(30);

fn rough() -> Options {
    Options { environment: ROUGH.to_vec(), ..Options::default() }
}

/// `curl` that trusts nothing but the authority's root.
fn green(address: SocketAddr, host: &str, root: &Path) -> bool {
    let (resolve, url) =
        (format!("{host}:{}:127.0.0.1", address.port()), format!("https://{host}:{}/", address.port()));
    let status = Command::new("curl")
        .args(["-sSf", "--max-time", "10", "-o", "/dev/null", "--resolve", &resolve, "--cacert"])
        .arg(root)
        .arg(url)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    status.success()
}

fn becomes_green(gate: &Gate, pebble: &Pebble, hosts: &[&str]) {
    let all = || hosts.iter().all(|host| green(gate.https, host, &pebble.root()));
    assert!(wait_until(LIMIT, all), "{}\n{}", gate.errors(), pebble.log());
}

/// What `status` says of a host's certificate.
fn shown(gate: &Gate, host: &str) -> Value {
    let answer: Value = serde_json::from_slice(&gate.cli(["status", "--json"]).stdout).unwrap();
    let all = answer["status"]["certificates"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["host"] == host).unwrap_or_default()
}

#[test]
fn a_certificate_comes_by_itself_and_curl_is_content_without_a_restart() {
    let upstream = Upstream::answering(OK);
    let pebble = Pebble::start(&rough());
    let begun = Instant::now();
    let gate = pebble.config("").start(upstream.address);
    let ready = begun.elapsed();
    becomes_green(&gate, &pebble, &[HOST]);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}, ready after {ready:?}");
    println!("ready after {ready:?}, the first certificate after {took:?}");
    let one = shown(&gate, HOST);
    assert_eq!((&one["from"], &one["problem"]), (&"acme".into(), &Value::Null), "{one}");
    assert!(one["days_left"].as_i64().unwrap() > 300, "{one}");
    let text = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(text.contains("files.test by acme") && text.contains("days left"), "{text}");
    assert!(gate.errors().contains("a new certificate for files.test is in service"), "{}", gate.errors());
    assert!(pebble.log().contains("tls-alpn-01"), "{}", pebble.log());
    let series = "portcullis_certificate_expiry_timestamp_seconds{host=\"files.test\"}";
    let end = gate.metric(series).unwrap() * 1000.0;
    assert_eq!(end, one["not_after"].as_f64().unwrap());
}
