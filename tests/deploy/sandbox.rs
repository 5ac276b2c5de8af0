//! What the unit lets the gateway ask of the kernel is what the gateway asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use crate::common::gate::free_addresses;
use crate::common::upstream::{OK, Upstream};
use crate::common::{HOST, raw, wait_until};
use crate::systemd::{config_for, is_ready};
use crate::{read, succeeds};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// The groups of system calls that systemd knows.
fn groups() -> BTreeMap<String, Vec<String>> {
    let said = succeeds(Command::new("systemd-analyze").arg("syscall-filter"));
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    let mut current = String::new();
    for line in said.lines() {
        if line.starts_with('@') {
            current = line.trim().to_owned();
        } else if line.starts_with("    ") && !line.trim_start().starts_with('#') {
            groups.entry(current.clone()).or_default().push(line.trim().to_owned());
        }
    }
    groups
}

fn members(name: &str, groups: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    match groups.get(name) {
        Some(names) => names.iter().flat_map(|name| members(name, groups)).collect(),
        None => BTreeSet::from([name.to_owned()]),
    }
}

/// What the lines `SystemCallFilter=` of the unit leave, as systemd.exec(5) says: the first one lists what is allowed, each
/// further one adds, or with `~` takes away.
fn permitted() -> BTreeSet<String> {
    let groups = groups();
    let mut permitted = members("@default", &groups);
    for line in read("deploy/systemd/portcullis.service").lines() {
        let Some(filter) = line.strip_prefix("SystemCallFilter=") else { continue };
        let (without, names) = filter.strip_prefix('~').map_or((false, filter), |names| (true, names));
        let named = names.split(' ').flat_map(|name| members(name, &groups));
        if without {
            named.for_each(|name| {
                permitted.remove(&name);
            });
        } else {
            permitted.extend(named);
        }
    }
    assert!(permitted.contains("accept4") && !permitted.contains("mount"), "{permitted:?}");
    permitted
}

/// Everything that the gateway asked of the kernel, one line each, from start to end with some of everything between.
async fn asked() -> String {
    let upstream = Upstream::answering(OK);
    let [https] = free_addresses();
    let dir = tempfile::tempdir().unwrap();
    let config = config_for(dir.path(), https, upstream.address);
    let trace = dir.path().join("trace");
    let mut traced = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .args([PROGRAM, "run", "--config"])
        .arg(&config)
        .stdout(fs::File::create(dir.path().join("stdout")).unwrap())
        .stderr(fs::File::create(dir.path().join("stderr")).unwrap())
        .spawn()
        .expect("strace: `make test-deps` installs it");
    assert!(wait_until(raw::LIMIT, || is_ready(&config)));
    let trusting = raw::trusting(&dir.path().join("state/ca.pem"), &["http/1.1"]);
    let mut stream = raw::tls(https, HOST, trusting).await.unwrap();
    assert_eq!(
        raw::ask(&mut stream, format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.status,
        200
    );
    drop(stream);
    for verb in [&["block", "jti", "a"][..], &["reload"], &["status"]] {
        succeeds(Command::new(PROGRAM).args(verb).env("PORTCULLIS_CONFIG", &config));
    }
    let status = succeeds(Command::new(PROGRAM).args(["status", "--json"]).env("PORTCULLIS_CONFIG", &config));
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let pid = status.pointer("/status/pid").or_else(|| status.get("pid")).expect("a pid").to_string();
    succeeds(Command::new("kill").args(["-TERM", &pid]));
    traced.wait().unwrap();
    fs::read_to_string(trace).unwrap()
}

#[tokio::test]
async fn the_sandbox_of_the_unit_permits_what_the_gateway_does() {
    let asked = asked().await;
    let permitted = permitted();
    let mut seen = BTreeSet::new();
    for line in asked.lines() {
        // "1234 openat(AT_FDCWD, …", or "1234 <... read resumed>", or "+++ exited"
        let call = line.split_whitespace().nth(1).unwrap_or_default();
        let Some((name, _)) = call.split_once('(') else { continue };
        // A thread that ended before strace could ask what it called.
        if name == "???" {
            continue;
        }
        seen.insert(name.to_owned());
        assert!(permitted.contains(name), "the unit forbids {line}");
        // MemoryDenyWriteExecute=
        assert!(!(line.contains("PROT_WRITE|PROT_EXEC")), "the unit forbids {line}");
        // RestrictAddressFamilies=
        let family = line.contains("AF_INET") || line.contains("AF_UNIX");
        assert!(name != "socket" || family, "the unit forbids {line}");
    }
    for sure in ["accept4", "epoll_wait", "fsync", "inotify_add_watch", "prlimit64"] {
        assert!(seen.contains(sure), "{sure} is not among {seen:?}: is this the gateway?");
    }
}
