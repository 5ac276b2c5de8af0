//! What the demo prints works when pasted.

#![allow(clippy::unwrap_used, reason = "a test's own functions are test code")]

mod common;

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{gate, wait_until};

/// Ends the demo with the test.
struct Demo(std::process::Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_line_that_the_demo_prints_does_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let [address] = gate::free_addresses();
    let said = dir.path().join("said");
    let demo = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["demo", "--port", &address.port().to_string(), "--state"])
        .arg(dir.path().join("state"))
        .stdout(std::fs::File::create(&said).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _demo = Demo(demo);
    let text = || std::fs::read_to_string(&said).unwrap();
    assert!(wait_until(Duration::from_secs(20), || text().contains("Ctrl-C")), "{}", text());
    let lines: Vec<String> =
        text().lines().filter_map(|line| line.strip_prefix("  ").map(str::to_owned)).collect();
    let mut shell =
        Command::new("bash").arg("-c").arg(lines.join("\n")).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = Vec::new();
    shell.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    shell.wait().unwrap();
    let output = String::from_utf8_lossy(&output);
    for expected in [
        r#""username":"demo""#,
        // One of the five was the login itself.
        "401\n401\n401\n401\n429\n429\n429\n",
        "404\n404\n404\n",
        "allowlist: not_allowlisted",
        "content-security-policy: default-src 'none'; script-src https://localhost",
        "content-security-policy: default-src 'none'; frame-ancestors 'none'; sandbox",
        "tick 1",
        "cut after ",
        r#"{"detail":"Authentication required"}401"#,
        "trying it out",
        "sample_up 1",
    ] {
        assert!(output.contains(expected), "{expected:?} is not in\n{output}");
    }
}
