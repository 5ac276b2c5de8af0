//! What reads the access log: Fail2Ban, logrotate.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::gate::{Config, Gate};
use crate::common::upstream::{Session, Upstream};
use crate::common::{raw, wait_until};
use crate::{read, repository, succeeds};

/// Fail2Ban is a program in Python, and looks once a second.
const PATIENCE: Duration = Duration::from_secs(60);
const SITE: &str = "[site.rate.login]\nrefill = \"1/h\"\nburst = 2\n";

/// An application that knows no password.
fn application() -> Upstream {
    Upstream::scripted(|mut session: Session| {
        while let Some(request) = session.request() {
            let status = if request.method == "POST" { "401 Unauthorized" } else { "200 OK" };
            session.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").as_bytes());
        }
    })
}

/// Two that are fine, and what a guesser and a scanner do; also a client that wants to write a line of another's.
async fn traffic(gate: &Gate) -> usize {
    let forged = "User-Agent: x\",\"client\":\"192.0.2.66\",\"class\":\"login\",\"verdict\":\"deny\"\r\n\
                  Referer: https://a/\"}{\"time\":\"2026-01-01T00:00:00Z\",\"client\":\"192.0.2.66\"\r\n";
    let requests = [
        ("GET /", forged),
        ("GET /%22,%22client%22:%22192.0.2.66%22", forged),
        ("POST /api/auth/login", ""),
        ("POST /api/auth/login", ""),
        ("POST /api/auth/login", ""),
        ("POST /api/auth/login", forged),
        ("GET /openapi.json", ""),
        ("GET /%00", ""),
    ];
    for (line, headers) in requests {
        gate.ask(line, headers, b"").await;
    }
    let written = || gate.log().lines().count() >= requests.len();
    assert!(wait_until(raw::LIMIT, written), "{}", gate.log());
    requests.len()
}

/// The addresses that the filter finds in the log, one for each line that is a failure.
fn found(log: &str, filter: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("access.log");
    fs::write(&file, log).unwrap();
    let filter = repository(&format!("deploy/fail2ban/{filter}"));
    let said = succeeds(Command::new("fail2ban-regex").args(["--out", "ip"]).arg(&file).arg(&filter));
    let all = succeeds(Command::new("fail2ban-regex").arg(&file).arg(&filter));
    assert!(!all.contains("without a valid date"), "{all}");
    said.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn fail2ban_finds_the_guesser_and_the_scanner_in_the_json_log_and_nobody_else() {
    let upstream = application();
    // A page that is closed to this machine too.
    let site = format!("{SITE}[site.only_from]\ndocs = [\"192.0.2.0/24\"]\n");
    let gate = Config { site, ..Config::default() }.start(upstream.address);
    traffic(&gate).await;
    // Two logins over the limit, one closed page, one that is no path.
    assert_eq!(found(&gate.log(), "portcullis.conf"), ["127.0.0.1"; 4], "{}", gate.log());
}

#[tokio::test]
async fn fail2ban_finds_failed_logins_and_refusals_in_the_combined_log() {
    let upstream = application();
    let site = format!("{SITE}[log]\nformat = \"combined\"\n");
    let gate = Config { site, ..Config::default() }.start(upstream.address);
    traffic(&gate).await;
    // Two failed logins, two over the limit, one that is no path; a closed page looks like any 404.
    assert_eq!(found(&gate.log(), "portcullis-combined.conf"), ["127.0.0.1"; 5], "{}", gate.log());
}

/// A Fail2Ban of the test's own, on the files of `deploy/fail2ban`.
struct Fail2Ban {
    child: Child,
    dir: tempfile::TempDir,
}

impl Fail2Ban {
    /// Watches this gateway's access log.
    fn start(gate: &Gate) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        succeeds(Command::new("cp").args(["-a", "/etc/fail2ban"]).arg(&etc));
        // What Debian switches on watches logs that are not ours.
        let _ = fs::remove_file(etc.join("jail.d/defaults-debian.conf"));
        for (from, to) in [("portcullis.conf", "filter.d"), ("action.conf", "action.d")] {
            let file = repository("deploy/fail2ban").join(from);
            fs::copy(file, etc.join(to).join("portcullis.conf")).unwrap();
        }
        let log = gate.config().with_file_name("stdout");
        let jail = read("deploy/fail2ban/jail.conf")
            .replace("/var/log/portcullis/access.log", log.to_str().unwrap())
            .replace("maxretry = 20", "maxretry = 3\nbackend = polling\nignoreself = false")
            .replace("ignoreip = 127.0.0.0/8 ::1", "ignoreip = ::1");
        assert!(jail.contains("maxretry = 3\n") && !jail.contains("127.0.0.0/8"));
        fs::write(etc.join("jail.d/portcullis.conf"), jail).unwrap();
        let own = "[Definition]\nlogtarget = STDERR\ndbfile = None\n";
        fs::write(etc.join("fail2ban.local"), own).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let child = Command::new("fail2ban-server")
            .args(["-f", "-c"])
            .arg(&etc)
            .arg("-s")
            .arg(dir.path().join("socket"))
            .arg("-p")
            .arg(dir.path().join("pid"))
            .env("PATH", path)
            .env("PORTCULLIS_CONFIG", gate.config())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .expect("fail2ban-server: `make test-deps` installs it");
        Self { child, dir }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }
}

impl Drop for Fail2Ban {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn who_is_refused_often_is_blocked_in_the_gateway_by_fail2ban() {
    let upstream = application();
    let gate = Gate::start(SITE, upstream.address);
    let fail2ban = Fail2Ban::start(&gate);
    let started = wait_until(PATIENCE, || fail2ban.said().contains("Jail 'portcullis' started"));
    assert!(started, "{}", fail2ban.said());
    for _ in 0..6 {
        gate.ask("POST /api/auth/login", "", b"").await;
    }
    let blocks = || String::from_utf8(gate.cli(["blocks"]).stdout).unwrap();
    let blocked = wait_until(PATIENCE, || blocks().contains("127.0.0.1/32"));
    assert!(blocked, "{}\n{}\n{}", blocks(), fail2ban.said(), gate.log());
    assert!(blocks().contains("fail2ban portcullis: "), "{}", blocks());
    assert_eq!(gate.ask("GET /", "", b"").await.status, 403);
}

#[test]
fn logrotate_reads_its_file_and_asks_for_a_new_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    fs::write(&log, "a line\n").unwrap();
    let shipped = read("deploy/logrotate/portcullis");
    let own = shipped
        .replace("/var/log/portcullis/access.log", log.to_str().unwrap())
        .replace("portcullis portcullis", "root root");
    let file = dir.path().join("portcullis");
    fs::write(&file, own).unwrap();
    let state = dir.path().join("state");
    let said =
        succeeds(Command::new("logrotate").args(["--debug", "--force", "--state"]).arg(&state).arg(&file));
    assert!(!said.contains("error:"), "{said}");
    assert!(said.contains("rotating log") && said.contains("--signal=USR1"), "{said}");
}
