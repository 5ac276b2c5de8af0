//! What a person reads at 3 a.m.: the very words of the command line, its exit codes, and that no secret is in them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

mod common;

use std::fs;
use std::process::{Command, Output};

use common::gate::{Config, Gate};
use common::tokens::session;
use common::upstream::{OK, Upstream};
use insta::assert_snapshot;

const ADMIN_ONLY: &str = "[site.only_from]\nhealth = [\"10.0.0.0/8\"]";

/// Output and exit code, with what differs from run to run replaced.
fn shown(told: &Output, gate: Option<&Gate>) -> String {
    let mut text = format!(
        "{}{}exit {}\n",
        String::from_utf8_lossy(&told.stdout),
        String::from_utf8_lossy(&told.stderr),
        told.status.code().unwrap_or(-1)
    );
    if let Some(gate) = gate {
        let dir = gate.config().parent().unwrap().display().to_string();
        text = text.replace(&dir, "DIR");
        for (address, name) in
            [(gate.https, "HTTPS"), (gate.http, "HTTP"), (gate.plain, "PLAIN"), (gate.metrics, "METRICS")]
        {
            text = text
                .replace(&address.to_string(), name)
                .replace(&format!(":{}", address.port()), &format!(":{name}"));
        }
    }
    let words = text.split_inclusive([' ', '\n', '"', '(', ')', ',', ':', '-', '.', '/']);
    words.map(masked).collect::<String>().replace("N-N-N:N:N.N", "TIME")
}

/// Digits of times and ports, and hex of fingerprints.
fn masked(word: &str) -> String {
    let (body, end) =
        word.split_at(word.trim_end_matches([' ', '\n', '"', '(', ')', ',', ':', '-', '.', '/']).len());
    let is_hex = body.len() >= 8 && body.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = body.len() >= 5 && body.bytes().all(|byte| byte.is_ascii_digit());
    if is_hex || is_number { format!("REDACTED{end}") } else { word.to_owned() }
}

/// Replaces RFC 3339 times, durations and process numbers.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        // As the machine is on which the test runs.
        if line.contains("runs as root") || line.contains("do not survive its restart") {
            continue;
        }
        if line.trim_start().starts_with("workers ") {
            out.push_str("  workers  N\n");
            continue;
        }
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 0..words.len() {
            let word = words[at].clone();
            let is_time =
                word.len() >= 20 && word.as_bytes()[4] == b'-' && word.contains('T') && word.contains('Z');
            if is_time {
                let rest = word.split_once('Z').map_or("", |(_, rest)| rest);
                words[at] = format!("TIME{rest}");
            }
            let next = words.get(at + 1).cloned().unwrap_or_default();
            if (next.starts_with("ms") || next == "s") && word.bytes().all(|byte| byte.is_ascii_digit()) {
                words[at] = "N".into();
            }
            if at > 0 && (words[at - 1] == "process" || words[at - 1] == "uid") {
                words[at] = "N".into();
            }
        }
        out.push_str(words.join(" ").trim_end());
        out.push('\n');
    }
    out
}

fn say(gate: &Gate, arguments: &[&str], input: &str) -> String {
    let told = gate.cli_with(arguments.iter().copied(), input);
    let input_shown = if input.is_empty() { "" } else { " < (secret)" };
    let text = timeless(&shown(&told, Some(gate)));
    format!("$ portcullis {}{input_shown}\n{text}\n", arguments.join(" "))
}

fn started() -> (Gate, Upstream) {
    let upstream = Upstream::answering(OK);
    let gate = Config { site: ADMIN_ONLY.into(), ..Config::default() }.start(upstream.address);
    (gate, upstream)
}

fn hide(text: &str, upstream: &Upstream) -> String {
    text.replace(&upstream.address.to_string(), "UPSTREAM")
}

#[test]
fn block_and_its_kin_say_what_was_done_and_what_was_not() {
    let (mut gate, upstream) = started();
    let token = session(1);
    let mut all = String::new();
    for (arguments, input) in [
        (&["block", "token", "-", "--reason", "laptop stolen"][..], token.as_str()),
        (&["block", "token", "eyJ.argument"], ""),
        (&["block", "token", "-"], "two words"),
        (&["block", "fingerprint", "abc"], ""),
        (&["block", "subject", "7"], ""),
        (&["block", "subject", "8", "--and-logins", "--for", "15m"], ""),
        (&["block", "everyone"], ""),
        (&["block", "share", "-"], "https://files.test/s/Sh4reT0ken/file"),
        (&["block", "share", "-"], " "),
        (&["block", "address", "0.0.0.0/0"], ""),
        (&["block", "address", "198.51.100.7"], ""),
        (&["block", "address", "198.51.100"], ""),
        (&["block", "jti", "x", "--site", "other.test"], ""),
        (&["block", "jti", "x", "--for", "soon"], ""),
        (&["blocks"], ""),
        (&["unblock", "3"], ""),
        (&["unblock", "3"], ""),
        (&["status"], ""),
    ] {
        all += &say(&gate, arguments, input);
    }
    gate.kill();
    all += &say(&gate, &["block", "token", "-"], &token);
    all += &say(&gate, &["block", "everyone"], "");
    all += &say(&gate, &["blocks"], "");
    all += &say(&gate, &["status"], "");
    assert!(
        !all.contains(&token)
            && !all.contains("Sh4reT0ken")
            && !all.contains(token.split_once('.').unwrap().1)
    );
    assert_snapshot!("block", hide(&all, &upstream));
}

#[test]
fn explain_says_who_refuses_and_why() {
    let (gate, upstream) = started();
    let mut all = String::new();
    gate.cli(["block", "address", "198.51.100.7"]);
    for arguments in [
        &["explain", "https://files.test/api/assets"][..],
        &["explain", "GET https://files.test/healthz", "--from", "203.0.113.9"],
        &["explain", "GET https://files.test/healthz", "--from", "10.1.2.3"],
        &["explain", "https://files.test/", "--from", "198.51.100.7"],
        &["explain", "https://files.test/a%00b"],
        &["explain", "https://elsewhere.test/"],
        &["explain", "/no/host"],
        &["explain", "https://files.test/", "--from", "nowhere"],
    ] {
        all += &say(&gate, arguments, "");
    }
    assert_snapshot!("explain", hide(&all, &upstream));
}

#[test]
fn check_and_reload_say_every_mistake_and_reload_keeps_the_old_config() {
    let (gate, upstream) = started();
    let mut all = say(&gate, &["reload"], "");
    let path = gate.config();
    let good = fs::read_to_string(&path).unwrap();
    let file = path.display().to_string();
    all += &say(&gate, &["check", &file], "").replace(&file, "FILE");
    fs::write(&path, good.replace("[limits]", "[limits]\nbody = \"1 apple\"\nconections = 5")).unwrap();
    all += &say(&gate, &["check", &file], "").replace(&file, "FILE");
    all += &say(&gate, &["check", "--json", &file], "").replace(&file, "FILE");
    all += &say(&gate, &["reload"], "");
    all += &say(&gate, &["status"], "");
    // At 3 a.m. the config may be broken: the block must go through all the same.
    all += &say(&gate, &["block", "subject", "7"], "");
    assert_snapshot!("check", hide(&all, &upstream));
}

#[tokio::test]
async fn denials_say_who_was_refused_and_allow_what_is_open() {
    let (gate, upstream) = started();
    let mut all = say(&gate, &["denials"], "");
    gate.ask("GET /healthz?token=secret", "", b"").await;
    let odd = gate.ask("GET /a%00b", "", b"").await;
    let token = format!("Authorization: Bearer {}\r\n", session(7));
    let fine = gate.ask("GET /api/assets", &token, b"").await;
    all += &say(&gate, &["denials"], "");
    for answer in [&odd, &fine] {
        let id = answer.header("x-request-id").unwrap();
        all += &say(&gate, &["explain", "--id", id], "").replace(id, "REDACTED");
    }
    let id = fine.header("x-request-id").unwrap();
    for (arguments, input) in [
        (&["block", "request", id][..], ""),
        (&["block", "request", "0123456789abcdef"], ""),
        (&["block", "log", "0123456789ab"], ""),
        (&["block", "account", "alice"], ""),
        (&["explain", "--id", "0123456789abcdef"], ""),
        (&["denials", "--client", "nobody"], ""),
        (&["allow", "setup", "--from", "203.0.113.9"], ""),
        (&["allow", "setup", "--from", "0.0.0.0/0"], ""),
        (&["allow", "metrics", "--from", "203.0.113.9"], ""),
        (&["status"], ""),
    ] {
        all += &say(&gate, arguments, input).replace(id, "REDACTED");
    }
    assert_snapshot!("denials", hide(&all, &upstream));
}

fn run(arguments: &[&str]) -> String {
    let told = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .env_remove("PORTCULLIS_CONFIG")
        .output()
        .unwrap();
    format!("$ portcullis {}\n{}\n", arguments.join(" "), shown(&told, None))
}

#[test]
fn help_tells_each_verb_and_nonsense_is_a_usage_error() {
    let all: String = [
        &["--help"][..],
        &["block", "--help"],
        &["block", "token", "--help"],
        &["explain", "--help"],
        &["denials", "--help"],
        &["allow", "--help"],
        &["blcok", "token", "-"],
        &["block", "token"],
        &["check", "/nowhere/portcullis.toml"],
        &["status", "--config", "/nowhere/portcullis.toml"],
    ]
    .iter()
    .map(|arguments| run(arguments))
    .collect();
    assert_snapshot!("help", all);
}
