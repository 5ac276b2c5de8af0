//! Promises of the durable side of blocks: what was acknowledged holds after `kill -9`, and what is not on the disk says so.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "tests wait for the real world")]

mod common;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::gate::{Config, Gate};
use common::tokens::{App, login};
use common::upstream::{OK, Upstream};
use common::wait_until;

const ROUNDS: usize = 21;

fn before(app: &App, upstream: &Upstream) -> Gate {
    let listen = "trusted_proxies = [\"127.0.0.1/32\"]".into();
    Config { app: app.path(), listen, ..Config::default() }.start(upstream.address)
}

fn text(told: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr))
}

/// What is blocked in a round: the command, what it reads, and a request that must be refused from then on.
fn round(number: usize) -> (Vec<String>, String, (String, String)) {
    let token = login(&format!("user{number}"), &format!("jti{number}"), 1);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let bearer = ("/api/x".to_owned(), format!("Authorization: Bearer {token}\r\n"));
    match number % 5 {
        0 => (words(&["block", "token", "-"]), token, bearer),
        1 => (words(&["block", "jti", &format!("jti{number}")]), String::new(), bearer),
        2 => (words(&["block", "subject", &format!("user{number}")]), String::new(), bearer),
        3 => (
            words(&["block", "share", "-"]),
            format!("Share{number}"),
            (format!("/s/Share{number}"), String::new()),
        ),
        _ => {
            let address = format!("198.51.100.{number}");
            let from = ("/api/x".to_owned(), format!("X-Forwarded-For: {address}\r\n"));
            (words(&["block", "address", &address]), String::new(), from)
        }
    }
}

async fn status(gate: &Gate, (path, fields): &(String, String)) -> u16 {
    gate.ask(&format!("GET {path}"), fields, b"").await.status
}

#[tokio::test]
async fn a_kill_right_after_the_acknowledgement_loses_no_block() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let mut gate = before(&app, &upstream);
    let mut blocked = Vec::new();
    for number in 0..ROUNDS {
        let (arguments, input, request) = round(number);
        assert_eq!(status(&gate, &request).await, 200, "before: {request:?}");
        let told = gate.cli_with(arguments.iter().map(String::as_str), &input);
        gate.kill();
        assert!(told.status.success(), "{}", text(&told));
        gate.start_again();
        blocked.push(request);
        let asked = upstream.requests().len();
        for request in &blocked {
            assert!(
                matches!(status(&gate, request).await, 401 | 403 | 404),
                "round {number} lost {request:?}"
            );
        }
        assert_eq!(upstream.requests().len(), asked);
    }
    let listed = text(&gate.cli(["blocks", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["blocks"].as_array().unwrap().len(), ROUNDS);
}

#[tokio::test]
async fn an_order_given_while_the_gateway_is_down_holds_from_its_next_start() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let mut gate = before(&app, &upstream);
    let token = login("a", "a1", 1);
    gate.kill();
    let told = gate.cli_with(["block", "token", "-"], &token);
    assert_eq!(told.status.code(), Some(4), "{}", text(&told));
    assert!(text(&told).starts_with("NOT CONFIRMED"), "{}", text(&told));
    let wide = gate.cli(["block", "everyone"]);
    assert_eq!(wide.status.code(), Some(5), "{}", text(&wide));
    let spool = gate.state().join("spool");
    let orders = || {
        fs::read_dir(&spool)
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(orders().len(), 1);
    assert!(!orders()[0].contains(&token), "the token itself lies on the disk");
    gate.start_again();
    let request = ("/api/x".to_owned(), format!("Authorization: Bearer {token}\r\n"));
    assert_eq!(status(&gate, &request).await, 401);
    assert!(orders().is_empty(), "taken in, so gone");
    gate.kill();
    gate.start_again();
    assert_eq!(status(&gate, &request).await, 401);
}

#[tokio::test]
async fn a_state_file_that_cannot_be_read_whole_refuses_the_start_and_says_the_way_out() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let mut gate = before(&app, &upstream);
    assert!(gate.cli(["block", "jti", "x"]).status.success());
    gate.kill();
    let path = gate.state().join("blocks.redb");
    let whole = fs::read(&path).unwrap();
    for broken in [&whole[..whole.len() / 2], b"not a database", b""] {
        fs::write(&path, broken).unwrap();
        let (code, said) = start_in_vain(&gate);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("is damaged") && said.contains("move it away"), "{said}");
        assert!(said.contains("blocks.redb"), "{said}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"", "nobody has put an empty list in its place");
    write_schema(&path, &whole, 2);
    let (code, said) = start_in_vain(&gate);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has form 2") && said.contains("start the version that wrote it"), "{said}");
    fs::write(&path, &whole).unwrap();
    gate.start_again();
    assert_eq!(
        status(&gate, &("/api/x".into(), format!("Authorization: Bearer {}\r\n", login("a", "x", 1)))).await,
        401
    );
}

fn start_in_vain(gate: &Gate) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["run", "--config"])
        .arg(gate.config())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = wait_until(Duration::from_secs(10), || child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    let told = child.wait_with_output().unwrap();
    assert!(ended, "it has started: {}", text(&told));
    (told.status.code(), text(&told))
}

/// A store that says that it has a later form.
fn write_schema(path: &std::path::Path, whole: &[u8], schema: u64) {
    fs::write(path, whole).unwrap();
    let database = redb::Database::open(path).unwrap();
    let write = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    write.open_table(meta).unwrap().insert("schema", schema).unwrap();
    write.commit().unwrap();
}

#[tokio::test]
async fn on_a_full_disk_a_block_holds_says_that_it_is_not_durable_and_is_written_when_there_is_room() {
    let upstream = Upstream::answering(OK);
    let app = App::everywhere("jwt");
    let mut gate = before(&app, &upstream);
    gate.kill();
    let Some(disk) = SmallDisk::over(&gate.state()) else {
        println!("no right to mount a small disk: not tried");
        return;
    };
    gate.start_again();
    disk.fill();
    let mut blocked = Vec::new();
    let mut told = None;
    // What is allocated already still takes some blocks.
    for number in 0..2000 {
        let jti = format!("full{number}-{}", "x".repeat(400));
        let answer = gate.cli(["block", "jti", &jti, "--reason", &"y".repeat(3000)]);
        blocked.push(login("a", &jti, 1));
        if !answer.status.success() {
            told = Some(answer);
            break;
        }
    }
    let told = told.expect("the disk never became full");
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told).contains("BUT NOT DURABLE"), "{}", text(&told));
    let bearer = |token: &str| ("/api/x".to_owned(), format!("Authorization: Bearer {token}\r\n"));
    assert_eq!(status(&gate, &bearer(blocked.last().unwrap())).await, 401, "it must hold all the same");
    assert_eq!(gate.metric("portcullis_state_durable"), Some(0.0));
    let shown = text(&gate.cli(["status"]));
    assert!(shown.contains("NOT ON THE DISK") && shown.contains("make room"), "{shown}");

    disk.make_room();
    assert!(
        wait_until(Duration::from_secs(20), || gate.metric("portcullis_state_durable") == Some(1.0)),
        "{}",
        gate.errors()
    );
    gate.kill();
    gate.start_again();
    for token in &blocked {
        assert_eq!(status(&gate, &bearer(token)).await, 401);
    }
    gate.kill();
    drop(disk);
}

/// A small disk where the state is; taken away when dropped.
struct SmallDisk {
    place: std::path::PathBuf,
}

impl SmallDisk {
    fn over(state: &std::path::Path) -> Option<Self> {
        let kept = tempfile::tempdir().unwrap();
        let copied = Command::new("cp").arg("-a").arg(state.join(".")).arg(kept.path()).status().unwrap();
        assert!(copied.success());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs"])
            .arg(state)
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        let disk = Self { place: state.to_owned() };
        let back = Command::new("cp").arg("-a").arg(kept.path().join(".")).arg(state).status().unwrap();
        assert!(back.success());
        Some(disk)
    }

    fn fill(&self) {
        let _ = fs::write(self.place.join("filler"), vec![0; 16 << 20]);
    }

    fn make_room(&self) {
        fs::remove_file(self.place.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.place).status();
    }
}
