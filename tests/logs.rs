//! The logs: read by the programs that people have, rotated, never in the way, and documented key by key.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]
#![allow(clippy::cast_possible_truncation, reason = "counters are small")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::gate::{Config, Gate};
use common::http2::Client;
use common::strict::Request;
use common::upstream::{OK, Session, Upstream};
use common::{HOST, raw, wait_for, wait_until};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

/// Answers most with a page, some oddly, one never.
fn application() -> Upstream {
    Upstream::scripted(|mut session: Session| {
        while let Some(request) = session.request() {
            let path = path(&request);
            let answer = match path {
                _ if path.starts_with("/slow") => return session.until_closed(),
                _ if path.contains("wp-login") => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                "/odd" => b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n".as_slice(),
                "/go" => b"HTTP/1.1 302 Found\r\nLocation: /s/abc?token=x\r\nContent-Length: 0\r\n\r\n",
                _ => OK,
            };
            if !session.send(answer) {
                return;
            }
        }
    })
}

fn path(request: &Request) -> &str {
    request.target.split('?').next().unwrap()
}

fn with_log(log: &str, upstream: &Upstream) -> Gate {
    let site = format!("[log]\n{log}\n");
    Config { listen: "trusted_proxies = [\"127.0.0.1\"]\n".into(), site, ..Config::default() }
        .start(upstream.address)
}

fn beside(gate: &Gate, name: &str) -> PathBuf {
    gate.config().parent().unwrap().join(name)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn program(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}: `make test-deps` installs it"));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Every kind of line that a reader might stumble over; how many there are.
async fn odd_lines(gate: &Gate) -> usize {
    let from = "X-Forwarded-For: 203.0.113.7\r\n";
    let long = format!("GET /{}?{}", "a/%C3%A9".repeat(1000), "x=y&".repeat(500));
    let referer = format!(
        "{from}Referer: https://a.test/{}\r\nUser-Agent: {}\r\n",
        "r".repeat(5000),
        "u\u{e9}\"".repeat(1500)
    );
    let rounds: [(&str, String); 20] = [
        ("GET /", from.into()),
        ("GET /a?b=c&token=d", format!("{from}User-Agent: a\"b\\c\u{e9}\td\u{1F980} [x] - - \"GET\"\r\n")),
        ("GET /", format!("{from}User-Agent: \r\nReferer: \r\n")),
        ("GET /", "X-Forwarded-For: 2001:db8::7\r\nReferer: https://u:p@a.test/\"x\r\n".into()),
        ("GET /", String::new()),
        (&long, referer),
        ("GET /%E2%80%AE%1B[31m%9B", from.into()),
        ("GET /\"q\"?\"=\"", from.into()),
        ("M-SEARCH /", from.into()),
        ("PROPFIND /dav", from.into()),
        ("OPTIONS *", from.into()),
        ("HEAD /", from.into()),
        ("GET /odd", from.into()),
        ("GET /go", from.into()),
        ("GET /%00", from.into()),
        ("GET /s/abcdef/file", from.into()),
        ("POST /wp-login.php", from.into()),
        ("GET /wp-login.php", format!("{from}User-Agent: TrackBack/1.02\r\n")),
        ("GET /x?y=http://evil.test/", from.into()),
        ("GET / HTTP/1.1\r\nBad Header: x\r\nX: y", from.into()),
    ];
    for (line, headers) in &rounds {
        gate.ask(line, headers, b"").await;
    }
    let client = Client::connect(gate).await;
    let (answer, _) = client
        .open(client.head("GET", "/over-h2?q=%22").header("x-forwarded-for", "203.0.113.8"), true)
        .await;
    common::http2::read(answer).await.unwrap();
    let mut leaver = gate.connect().await;
    leaver.write_all(format!("GET /slow HTTP/1.1\r\nHost: {HOST}\r\n{from}\r\n").as_bytes()).await.unwrap();
    assert!(wait_for(raw::LIMIT, || !gate.log().is_empty()).await);
    leaver.flush().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    drop(leaver);
    let count = rounds.len() + 2;
    let all = || gate.log().lines().count() >= count;
    assert!(
        wait_for(raw::LIMIT, all).await,
        "{} of {count} lines:\n{}",
        gate.log().lines().count(),
        gate.log()
    );
    assert_eq!(gate.log().lines().count(), count, "{}", gate.log());
    count
}

#[tokio::test]
async fn goaccess_fail2ban_and_crowdsec_read_every_combined_line_however_odd() {
    let upstream = application();
    let gate = with_log("format = \"combined\"", &upstream);
    let count = odd_lines(&gate).await;
    let log = beside(&gate, "stdout");
    let text = gate.log();
    assert!(text.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)), "{text}");
    for part in [
        "192.0.0.8 - - [",
        "2001:db8::7 - - [",
        "\"M_SEARCH / HTTP/1.1\"",
        " HTTP/2.0\" 200 2 ",
        "\"GET /slow HTTP/1.1\" 499 0 ",
        "\"GET /odd HTTP/1.1\" 502 ",
        "\"NONE - HTTP/1.1\" 400 ",
        "\"GET /s/***/file HTTP/1.1\"",
        "\"GET /a?b=c&token=*** HTTP/1.1\" 200 2 \"-\" \"a%22b%5Cc",
        "\"https://***@a.test/%22x\" \"-\"",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    goaccess(&log, &beside(&gate, "report.json"), count);
    fail2ban(&log, count);
    crowdsec(&log, count);
}

fn goaccess(log: &Path, report: &Path, count: usize) {
    let (log, out) = (log.to_str().unwrap(), report.to_str().unwrap());
    let said = program(
        "goaccess",
        &[log, "--log-format=COMBINED", "--no-global-config", "--no-progress", "-o", out],
    );
    // It decodes `%9B` and the like again, so its report is no UTF-8.
    let text = String::from_utf8_lossy(&fs::read(report).unwrap_or_default()).into_owned();
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {said}\n{text}"));
    let number = |key: &str| told["general"][key].as_u64().unwrap();
    assert_eq!(number("failed_requests"), 0, "{said}\n{}", read(Path::new(log)));
    assert_eq!(number("total_requests"), count as u64);
}

/// The stock filters for access logs, and every line by one of our own that fixes each field.
fn fail2ban(log: &Path, count: usize) {
    let every = r#"^<HOST> - - \[\] "\w+ \S+ HTTP/\d\.\d" [1-5]\d\d \d+ "[^"]+" "[^"]+"$"#;
    for (filter, matched) in [
        (every, count),
        ("nginx-botsearch", 2),
        ("nginx-bad-request", 5),
        ("apache-badbots", 1),
        ("php-url-fopen", 1),
    ] {
        let said = program("fail2ban-regex", &[log.to_str().unwrap(), filter]);
        let missed = count - matched;
        let wanted = format!("Lines: {count} lines, 0 ignored, {matched} matched, {missed} missed");
        assert!(said.contains(&wanted), "{filter}: {said}\n{}", read(log));
    }
}

/// CrowdSec's own parser and its hub's files, as Debian ships them, asked by `cscli explain`. It wants to log in at its
/// local API before it says anything, so one that agrees with everything stands in.
#[expect(clippy::too_many_lines, reason = "its config stands here in one piece")]
fn crowdsec(log: &Path, count: usize) {
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("crowdsec");
    let hub = unpacked.join("usr/share/crowdsec/hub");
    assert!(hub.is_dir(), "{} is missing: `make test-deps` unpacks Debian's crowdsec there", hub.display());
    let api = Upstream::answering(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 56\r\n\r\n\
          {\"code\":200,\"expire\":\"2099-01-01T00:00:00Z\",\"token\":\"x\"}",
    );
    let dir = tempfile::tempdir().unwrap();
    let own = |path: &str| dir.path().join(path).display().to_string();
    symlink(unpacked.join("etc/crowdsec/patterns"), own("patterns")).unwrap();
    fs::write(own("simulation.yaml"), "simulation: off\n").unwrap();
    fs::write(own("none.yaml"), "").unwrap();
    fs::write(own("credentials.yaml"), format!("url: http://{}\nlogin: x\npassword: x\n", api.address))
        .unwrap();
    for parser in [
        "s00-raw/crowdsecurity/syslog-logs",
        "s01-parse/crowdsecurity/nginx-logs",
        "s02-enrich/crowdsecurity/dateparse-enrich",
        "s02-enrich/crowdsecurity/http-logs",
    ] {
        let (stage, name) = (parser.split('/').next().unwrap(), parser.rsplit('/').next().unwrap());
        fs::create_dir_all(own(&format!("parsers/{stage}"))).unwrap();
        symlink(hub.join(format!("parsers/{parser}.yaml")), own(&format!("parsers/{stage}/{name}.yaml")))
            .unwrap();
    }
    fs::create_dir_all(own("scenarios")).unwrap();
    symlink(hub.join("scenarios/crowdsecurity/http-probing.yaml"), own("scenarios/http-probing.yaml"))
        .unwrap();
    let config = format!(
        "common: {{ daemonize: false, log_media: stdout, log_level: error }}\n\
         config_paths: {{ config_dir: {own}, data_dir: {own}, simulation_path: {own}/simulation.yaml, hub_dir: {hub}, \
         index_path: {hub}/.index.json }}\n\
         crowdsec_service: {{ acquisition_path: {own}/none.yaml, parser_routines: 1 }}\n\
         cscli: {{ output: raw }}\n\
         db_config: {{ type: sqlite, db_path: {own}/x.db }}\n\
         api: {{ client: {{ credentials_path: {own}/credentials.yaml }} }}\n",
        own = dir.path().display(),
        hub = hub.display(),
    );
    fs::write(own("config.yaml"), config).unwrap();
    let programs = unpacked.join("usr/bin");
    let output = Command::new(programs.join("cscli"))
        .args([
            "-c",
            &own("config.yaml"),
            "explain",
            "--type",
            "nginx",
            "-v",
            "--file",
            log.to_str().unwrap(),
        ])
        // It calls the daemon's program by its name.
        .env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH").unwrap()))
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (said.matches("parser success").count(), said.matches("parser failure").count()),
        (count, 0),
        "{said}"
    );
    for fact in [
        "source_ip : 2001:db8::7",
        "source_ip : 192.0.0.8",
        "http_status : 404",
        "http_verb : PROPFIND",
        "log_type : http_access-log",
    ] {
        assert!(said.contains(fact), "{fact}: {said}");
    }
}

/// Requests over one connection, one after the other; their ids.
async fn many(gate: &Gate, count: usize, line: &str, headers: &str) -> Vec<String> {
    let mut stream = gate.connect().await;
    let head = format!("{line} HTTP/1.1\r\nHost: {HOST}\r\n{headers}\r\n");
    let mut ids = Vec::new();
    for _ in 0..count {
        let answer = raw::ask(&mut stream, head.as_bytes()).await;
        ids.push(answer.header("x-request-id").unwrap().to_owned());
    }
    ids
}

fn id_of(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    line["id"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn a_rotation_under_load_loses_no_line_and_writes_none_twice() {
    let upstream = Upstream::answering(OK);
    let gate = Arc::new(with_log("access = \"access.log\"", &upstream));
    let path = beside(&gate, "access.log");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { many(&gate, 250, "GET /x", "").await })
        })
        .collect();
    let mut files = vec![path.clone()];
    let mut turn = 0;
    while turn < 3 || clients.iter().any(|client| !client.is_finished()) {
        let old = path.with_extension(turn.to_string());
        fs::rename(&path, &old).unwrap();
        files.push(old);
        gate.signal("USR1");
        assert!(wait_for(raw::LIMIT, || path.exists()).await, "{}", gate.errors());
        turn += 1;
    }
    let mut asked = BTreeSet::new();
    for client in clients {
        asked.extend(client.await.unwrap());
    }
    let written = || {
        files
            .iter()
            .flat_map(|file| read(file).lines().map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert!(wait_for(raw::LIMIT, || written().len() >= 1000).await, "{} lines", written().len());
    let mut times = BTreeMap::new();
    for id in written().iter().filter_map(|line| id_of(line)) {
        *times.entry(id).or_insert(0) += 1;
    }
    assert!(times.values().all(|times| *times == 1));
    assert_eq!(times.into_keys().collect::<BTreeSet<_>>(), asked);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(gate.errors().contains("the access log is open anew: "), "{}", gate.errors());
    assert_eq!(gate.metric("portcullis_log_dropped_total"), Some(0.0));
}

#[tokio::test]
async fn the_audit_log_can_be_rotated_at_any_time_with_or_without_the_signal() {
    let upstream = Upstream::answering(OK);
    let gate = with_log("access = \"off\"", &upstream);
    let path = gate.state().join("audit.log");
    let block = |subject: &str| assert!(gate.cli(["block", "subject", subject]).status.success());
    block("first");
    for (turn, signal) in [true, false].into_iter().enumerate() {
        fs::rename(&path, path.with_extension(turn.to_string())).unwrap();
        if signal {
            gate.signal("USR1");
        }
        block(&format!("after-{turn}"));
        assert!(read(&path).contains(&format!("after-{turn}")));
        assert_eq!(read(&path).lines().count(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert!(read(&path.with_extension("0")).contains("first"));
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_anew_goes_on_in_the_old_file_and_says_so() {
    let upstream = Upstream::answering(OK);
    let gate = with_log("access = \"access.log\"", &upstream);
    let (path, old) = (beside(&gate, "access.log"), beside(&gate, "access.log.1"));
    fs::rename(&path, &old).unwrap();
    fs::create_dir(&path).unwrap();
    gate.signal("USR1");
    let said = || gate.errors().contains("the access log cannot be opened anew");
    assert!(wait_until(raw::LIMIT, said), "{}", gate.errors());
    assert!(
        gate.errors().contains(path.to_str().unwrap())
            && gate.errors().contains("lines go on into the old file")
    );
    let id = many(&gate, 1, "GET /", "").await.remove(0);
    assert!(wait_until(raw::LIMIT, || read(&old).contains(&id)));
    fs::remove_dir(&path).unwrap();
    gate.signal("USR1");
    assert!(wait_until(raw::LIMIT, || path.exists()));
    let id = many(&gate, 1, "GET /", "").await.remove(0);
    assert!(wait_until(raw::LIMIT, || read(&path).contains(&id)));
}

#[tokio::test]
async fn a_reload_moves_the_log_changes_its_form_turns_it_off_and_refuses_a_place_that_cannot_be_had() {
    let upstream = Upstream::answering(OK);
    let gate = with_log("access = \"one.log\"", &upstream);
    let config = read(&gate.config());
    let reload = |log: &str| {
        fs::write(gate.config(), config.replace("access = \"one.log\"", log)).unwrap();
        gate.cli(["reload"])
    };
    let (one, two) = (beside(&gate, "one.log"), beside(&gate, "two.log"));
    let first = many(&gate, 1, "GET /first", "").await.remove(0);
    assert!(reload("access = \"two.log\"\nformat = \"combined\"").status.success());
    let second = many(&gate, 1, "GET /second", "").await;
    assert!(
        wait_until(raw::LIMIT, || read(&two).contains("\"GET /second HTTP/1.1\" 200 2")),
        "{}",
        gate.errors()
    );
    assert!(
        read(&one).contains(&first) && !read(&one).contains(&second[0]) && !read(&two).contains("/first")
    );
    let refused = reload("access = \"no/such/directory/x.log\"");
    let told =
        String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("cannot open log.access") && told.contains("no/such/directory/x.log"), "{told}");
    many(&gate, 1, "GET /third", "").await;
    assert!(wait_until(raw::LIMIT, || read(&two).contains("/third")), "the old one goes on");
    assert!(reload("access = \"off\"").status.success());
    many(&gate, 1, "GET /unheard", "").await;
    assert!(reload("access = \"one.log\"").status.success());
    let last = many(&gate, 1, "GET /last", "").await.remove(0);
    assert!(wait_until(raw::LIMIT, || read(&one).contains(&last)));
    assert!(!read(&one).contains("unheard") && !read(&two).contains("unheard"));
}

#[test]
fn a_log_that_cannot_be_opened_refuses_the_start_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("portcullis.toml");
    let text = format!(
        "[listen]\nhttps = [\"127.0.0.1:0\"]\nhttp = []\n[tls]\nself_signed = true\n[admin]\nsocket = \"a.sock\"\nmetrics = \"off\"\n\
         [state]\ndir = \"state\"\n[log]\naccess = \"gone/access.log\"\n[[site]]\nhosts = [\"{HOST}\"]\n\
         upstream = \"http://127.0.0.1:1\"\n"
    );
    fs::write(&config, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("run")
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot open log.access"), "{said}");
    assert!(said.contains("gone/access.log") && said.contains("No such file or directory"), "{said}");
}

/// The gateway anew, with its standard output somewhere else.
struct Anew(Child);

impl Anew {
    fn start(gate: &mut Gate, mut command: Command) -> Self {
        gate.kill();
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let ready = || gate.admin("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"));
        assert!(wait_until(raw::LIMIT, ready), "not ready");
        Self(child)
    }

    /// Whatever it writes, as it comes, once `go` is true.
    fn output(&mut self, go: Arc<AtomicBool>) -> Arc<Mutex<Vec<u8>>> {
        let text = Arc::<Mutex<Vec<u8>>>::default();
        let (mut pipe, heard) = (self.0.stdout.take().unwrap(), Arc::clone(&text));
        std::thread::spawn(move || {
            let mut piece = [0; 65536];
            while wait_until(raw::LIMIT * 6, || go.load(Ordering::SeqCst)) {
                match pipe.read(&mut piece) {
                    Ok(length) if length > 0 => heard.lock().unwrap().extend_from_slice(&piece[..length]),
                    _ => return,
                }
            }
        });
        text
    }
}

impl Drop for Anew {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(gate: &Gate) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("run").arg("--config").arg(gate.config());
    command
}

/// Asks until lines are dropped, as long ones as there can be; the ids of what was asked.
async fn until_dropped(gate: &Gate) -> Vec<String> {
    let line = format!("GET /{}", "p".repeat(1000));
    let headers =
        format!("Referer: https://a.test/{}\r\nUser-Agent: {}\r\n", "r".repeat(1000), "u".repeat(1000));
    let mut ids = Vec::new();
    while gate.metric("portcullis_log_dropped_total").unwrap() < 50.0 {
        assert!(ids.len() < 20_000, "nothing is ever dropped");
        ids.extend(many(gate, 200, &line, &headers).await);
    }
    ids
}

/// Every line is whole, every request is there or counted, and the log says itself how many are not.
fn assert_whole(text: &str, ids: &[String], dropped: u64) {
    let known: BTreeSet<String> = text.lines().filter_map(id_of).collect();
    let said = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said: u64 = said.filter_map(|line| line["dropped"].as_u64()).sum();
    assert_eq!(said, dropped, "the log says how many it lacks");
    let missing = ids.iter().filter(|id| !known.contains(*id)).count() as u64;
    assert_eq!(missing, dropped);
}

#[tokio::test]
async fn a_reader_that_stops_slows_no_request_and_the_log_says_what_it_lacks() {
    let upstream = Upstream::answering(OK);
    let mut gate = with_log("access = \"stdout\"", &upstream);
    let command = run(&gate);
    let mut anew = Anew::start(&mut gate, command);
    let go = Arc::<AtomicBool>::default();
    let text = anew.output(Arc::clone(&go));
    let mut ids = until_dropped(&gate).await;
    assert!(text.lock().unwrap().is_empty(), "nobody has read yet");
    go.store(true, Ordering::SeqCst);
    let heard = || String::from_utf8(text.lock().unwrap().clone()).unwrap();
    assert!(wait_for(raw::LIMIT, || heard().contains("\"dropped\":")).await);
    ids.extend(many(&gate, 1, "GET /after", "").await);
    let dropped = gate.metric("portcullis_log_dropped_total").unwrap();
    assert!(wait_for(raw::LIMIT, || heard().contains("/after") && heard().ends_with('\n')).await);
    assert_whole(&heard(), &ids, dropped as u64);
}

#[tokio::test]
async fn a_full_disk_slows_no_request_and_the_log_goes_on_when_there_is_room() {
    let upstream = Upstream::answering(OK);
    // Linux's device that is always full.
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("access.log");
    symlink("/dev/full", &path).unwrap();
    let gate = with_log(&format!("access = \"{}\"", path.display()), &upstream);
    let mut ids = until_dropped(&gate).await;
    let said = gate.errors();
    assert!(
        said.contains("the access log cannot be written to") && said.contains("No space left on device"),
        "{said}"
    );
    assert_eq!(said.matches("cannot be written to").count(), 1, "said once: {said}");
    fs::remove_file(&path).unwrap();
    gate.signal("USR1");
    assert!(wait_for(raw::LIMIT, || read(&path).contains("\"dropped\":")).await, "{}", gate.errors());
    ids.extend(many(&gate, 1, "GET /after", "").await);
    assert!(wait_for(raw::LIMIT, || read(&path).contains("/after")).await);
    assert_whole(&read(&path), &ids, gate.metric("portcullis_log_dropped_total").unwrap() as u64);
    assert!(gate.errors().contains("can be written again"), "{}", gate.errors());
}

#[tokio::test]
async fn on_a_terminal_people_read_a_line_of_words() {
    let upstream = application();
    let mut gate = with_log("access = \"stdout\"", &upstream);
    let mut command = Command::new("script");
    let line = format!("{} run --config {}", env!("CARGO_BIN_EXE_portcullis"), gate.config().display());
    command.args(["-qefc", &line, "/dev/null"]);
    let mut anew = Anew::start(&mut gate, command);
    let status: Value = serde_json::from_slice(&gate.cli(["status", "--json"]).stdout).unwrap();
    let text = anew.output(Arc::new(AtomicBool::new(true)));
    gate.ask("GET /hello?token=abc", "X-Forwarded-For: 203.0.113.7\r\n", b"").await;
    gate.ask("GET /metrics", "X-Forwarded-For: 203.0.113.7\r\n", b"").await;
    let heard = || String::from_utf8_lossy(&text.lock().unwrap()).into_owned();
    let there = || heard().contains("refused by allowlist: not_allowlisted");
    let came = wait_for(raw::LIMIT, there).await;
    // Who ends `script` only hangs up on the gateway, which takes that for an order to reload.
    program("kill", &["-TERM", &status["status"]["pid"].to_string()]);
    assert!(came, "{}", heard());
    assert!(heard().contains(" 203.0.113.7     200 page           GET /hello?token=***  "), "{}", heard());
    assert!(!heard().contains('{') && !heard().contains('\u{1b}'), "{}", heard());
}

/// The keys of the table in `docs/logs.md` below this heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md"));
    let (_, after) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading} in docs/logs.md"));
    let rows =
        after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next().map(str::to_owned)).collect()
}

fn keys(lines: impl IntoIterator<Item = Value>) -> BTreeSet<String> {
    lines.into_iter().flat_map(|line| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn each_key_of_a_json_line_is_documented_and_each_documented_key_is_written() {
    let upstream = application();
    let gate = with_log("format = \"json\"", &upstream);
    odd_lines(&gate).await;
    let bearer = "Authorization: Bearer eyJzdWIiOiI3In0.c2lnbmF0dXJl\r\nX-Forwarded-For: 203.0.113.7\r\n";
    gate.ask("GET /metrics", bearer, b"").await;
    assert!(wait_for(raw::LIMIT, || gate.log().contains("\"guard\":")).await);
    let lines: Vec<Value> = gate.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // Who shows a certificate is in `tests/client_certificates.rs`.
    let mut rows = documented("## One line a request");
    assert!(rows.remove("certificate"));
    assert_eq!(keys(lines.clone()), rows);
    for line in &lines {
        for key in ["time", "id", "client", "site", "class", "method", "path", "protocol", "verdict"] {
            assert!(line[key].is_string(), "{key} in {line}");
        }
        for key in ["status", "bytes_in", "bytes_out", "duration_ms"] {
            assert!(line[key].is_number(), "{key} in {line}");
        }
    }
    let mut gap = String::new();
    let lost = portcullis::telemetry::line::Gap { lines: 37, from: 0, until: 1 };
    lost.write(portcullis::telemetry::line::Form::Json, &mut gap);
    assert_eq!(keys([serde_json::from_str(&gap).unwrap()]), documented("## Lines that are missing"));
    assert!(gate.cli(["block", "subject", "x"]).status.success());
    let audit = read(&gate.state().join("audit.log"));
    assert_eq!(
        keys(audit.lines().map(|line| serde_json::from_str(line).unwrap())),
        documented("## The audit log")
    );
}

#[tokio::test]
async fn links_to_reset_a_password_and_secrets_of_webhooks_are_in_no_line() {
    let upstream = application();
    let random = "3f2a9c0d5e7b18463f2a9c0d5e7b18463f2a9c0d5e7b18463f2a9c0d5e7b1846";
    for (app, links) in [
        ("coolify", ["/reset-password/SECRET", "/invitations/SECRET", "/verify-email/7/SECRET"]),
        ("dokploy", ["/api/deploy/SECRET", "/api/deploy/compose/SECRET", "/api/auth/reset-password/SECRET"]),
        ("generic", ["/reset-password/SECRET", "/password/reset/SECRET", "/invite/SECRET"]),
    ] {
        let gate = Config { app: app.into(), ..Config::default() }.start(upstream.address);
        for link in links {
            gate.ask(&format!("GET {link}"), &format!("Referer: https://files.test{link}\r\n"), b"").await;
        }
        gate.ask(&format!("GET /somewhere/{random}?x={random}"), "", b"").await;
        assert!(wait_for(raw::LIMIT, || gate.log().lines().count() == 4).await, "{}", gate.log());
        assert!(!gate.log().contains("SECRET") && !gate.log().contains(random), "{}", gate.log());
        assert!(gate.log().contains("/somewhere/***?x=***"), "{}", gate.log());
    }
}

/// A pipe with a name, and nobody who reads it.
fn fill(pipe: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut pipe = fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(pipe).unwrap();
    while std::io::Write::write(&mut pipe, b"x").is_ok() {}
}

#[tokio::test]
async fn a_standard_error_that_nobody_reads_holds_up_no_block_no_request_and_no_end() {
    let upstream = application();
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("stderr");
    let script = "mkfifo \"$PIPE\"; exec \"$@\" 2<>\"$PIPE\"";
    let config = Config {
        under: vec!["sh", "-c", script, "sh"],
        environment: vec![("PIPE", pipe.to_str().unwrap().to_owned())],
        ..Config::default()
    };
    let mut gate = config.start(upstream.address);
    let mut reader = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    fill(&pipe);
    for number in 0..5 {
        let begun = std::time::Instant::now();
        let answer = gate.cli(["block", "subject", &format!("j{number}"), "--reason", "stolen"]);
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    assert_eq!(gate.ask("GET /", "", b"").await.status, 200);
    assert_eq!(gate.metric("portcullis_process_log_dropped_total"), Some(0.0), "there was room");
    // Somebody reads again: what was said meanwhile is there.
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while !text.contains("j4") {
        let length = reader.read(&mut piece).unwrap();
        text.push_str(&String::from_utf8_lossy(&piece[..length]));
    }
    assert_eq!(text.matches(" portcullis: audit: {").count(), 5, "{text}");
    fill(&pipe);
    gate.cli(["block", "subject", "last"]);
    gate.signal("TERM");
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0), "it ends, although nobody reads its last lines");
}
