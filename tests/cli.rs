//! What a person reads at 3 a.m.: the very words of the command line, its exit codes, and that no secret is in them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

mod common;

use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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
        (&["block", "address", "198.51.100.0/24"], ""),
        (&["unblock", "5"], ""),
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

// === papers, app files, init, check ===

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .env_remove("PORTCULLIS_CONFIG")
        .output()
        .unwrap()
}

fn stdout(told: &Output) -> String {
    String::from_utf8(told.stdout.clone()).unwrap()
}

#[test]
fn apps_are_listed_and_printed_byte_for_byte() {
    let mut all = run(&["apps"]);
    all += &run(&["apps", "coolfy"]);
    all += &run(&["apps", "--json"]);
    assert_snapshot!("apps", all);
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/apps");
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        let told = program(&["apps", names.last().unwrap()]);
        assert!(told.status.success() && told.stdout == fs::read(&path).unwrap(), "{}", path.display());
    }
    names.sort();
    assert_eq!(names, portcullis::config::builtin_apps().collect::<Vec<_>>(), "each file is built in");
}

#[test]
fn bash_completes_verbs_and_options_by_what_completions_prints() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("portcullis.bash");
    fs::write(&script, program(&["completions", "bash"]).stdout).unwrap();
    for (words, expected) in [
        ("portcullis blo", "block blocks"),
        ("portcullis check --as", "--as-user"),
        ("portcullis schema ca", "cases"),
        ("portcullis init --behind cl", "cloudflare"),
    ] {
        let ask = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _portcullis portcullis \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let told = Command::new("bash").args(["--norc", "-c", &ask]).output().expect("bash is needed");
        assert_eq!(stdout(&told).trim(), expected, "{words}: {}", String::from_utf8_lossy(&told.stderr));
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let told = program(&["completions", shell]);
        assert!(told.status.success() && stdout(&told).contains("unblock"), "{shell}");
    }
    assert_eq!(program(&["completions", "csh"]).status.code(), Some(2));
}

#[test]
fn the_manual_page_is_sound_and_names_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("portcullis.1");
    fs::write(&page, program(&["man"]).stdout).unwrap();
    let told = Command::new("groff")
        .args(["-man", "-Tutf8", "-ww", "-P-cbou", page.to_str().unwrap()])
        .output()
        .expect("groff is needed");
    assert!(told.stderr.is_empty(), "{}", String::from_utf8_lossy(&told.stderr));
    let text = stdout(&told);
    let help = stdout(&program(&["--help"]));
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs = verbs.filter(|line| !line.starts_with("   "));
    let verbs: Vec<&str> =
        verbs.map_while(|line| line.split_whitespace().next()).filter(|verb| *verb != "help").collect();
    assert!(verbs.len() > 12, "{help}");
    for verb in verbs {
        assert!(
            text.contains(&format!("PORTCULLIS {}", verb.to_uppercase())),
            "{verb} is not in the page:\n{text}"
        );
    }
    for part in ["EXIT STATUS", "PORTCULLIS BLOCK TOKEN", "--as-user", "/etc/portcullis/portcullis.toml"] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn schema_prints_the_schema_of_each_kind_of_file() {
    for (arguments, title) in [
        (&["schema"][..], "Portcullis: config"),
        (&["schema", "app"], "Portcullis: app file"),
        (&["schema", "cases"], "Portcullis: cases"),
    ] {
        let schema: serde_json::Value = serde_json::from_str(&stdout(&program(arguments))).unwrap();
        assert_eq!(schema["title"], title);
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    }
    assert_eq!(program(&["schema", "blocks"]).status.code(), Some(2));
}

#[test]
fn init_prints_a_small_config_that_check_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for behind in [None, Some("cloudflare"), Some("proxy"), Some("docker")] {
        let mut arguments = vec![
            "init",
            "--app",
            "keepstack",
            "--host",
            "files.example.com",
            "--upstream",
            "http://127.0.0.1:8000",
        ];
        arguments.extend(behind.map(|_| "--behind"));
        arguments.extend(behind);
        all += &run(&arguments);
        let path = dir.path().join("portcullis.toml");
        fs::write(&path, program(&arguments).stdout).unwrap();
        let told = program(&["check", "--offline", path.to_str().unwrap()]);
        assert!(told.status.success(), "{behind:?}: {}", stdout(&told));
        assert!(!stdout(&told).contains("warning"), "{behind:?}: {}", stdout(&told));
    }
    assert_snapshot!("init", all);
}

#[test]
fn behind_a_proxy_that_ends_tls_the_gateway_starts_without_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let [plain] = common::gate::free_addresses();
    let given = ["--app", "keepstack", "--host", "files.example.com", "--upstream", "http://127.0.0.1:1"];
    let printed = program(&[&["init"][..], &given, &["--behind", "proxy"]].concat());
    let text = stdout(&printed).replace("127.0.0.1:8080", &plain.to_string());
    let own = "\n[admin]\nsocket = \"a.sock\"\nmetrics = \"off\"\n[state]\ndir = \"state\"\n";
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, text + own).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(["run", "--config", path.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = || program(&["healthcheck", "--config", path.to_str().unwrap()]).status.success();
    for _ in 0..200 {
        if child.try_wait().unwrap().is_some() || ready() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = child.try_wait().unwrap();
    let _ = child.kill();
    let said = child.wait_with_output().unwrap().stderr;
    let said = String::from_utf8_lossy(&said);
    assert_eq!(ended, None, "{said}");
    assert!(said.contains(&format!("takes requests for files.example.com on plain {plain}")), "{said}");
}

#[test]
fn what_init_leaves_off_is_good_as_it_stands_there() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("token.key");
    common::gate::place(&key, "0123456789abcdef0123456789abcdef\n");
    let words =
        ["init", "--app", "keepstack", "--host", "files.example.com", "--upstream", "http://127.0.0.1:8000"];
    let printed = String::from_utf8(program(&words).stdout).unwrap();
    let key_of = |line: &str| line.starts_with("# [") || (line.starts_with("# ") && line.contains(" = "));
    let lines = printed.lines().map(|line| {
        match key_of(line) && !line.contains("certificates") && !line.contains("[acme]") {
            true => line.trim_start_matches("# "),
            false => line,
        }
    });
    let text =
        lines.collect::<Vec<_>>().join("\n").replace("/etc/portcullis/token.key", &key.display().to_string());
    for on in ["\ndownload_host", "\nverify", "\npreviews", "\ncompanion_cookie", "\nmetrics"] {
        assert!(text.contains(on), "{on}: {text}");
    }
    let config = dir.path().join("portcullis.toml");
    std::fs::write(&config, &text).unwrap();
    let told = program(&["check", "--offline", &config.display().to_string()]);
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success(), "{text}\n{}{said}", String::from_utf8_lossy(&told.stderr));
    for part in [
        "downloads   shown on example-downloads.com",
        "previews    members only",
        "gives a cookie that stands for it",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn init_refuses_what_makes_no_config() {
    for (arguments, part) in [
        (["keepstak", "files.example.com", "http://127.0.0.1:8000"], "did you mean `keepstack`?"),
        (["keepstack", "https://files.example.com", "http://127.0.0.1:8000"], "is no host name"),
        (["keepstack", "files.example.com", "127.0.0.1:8000"], "is no upstream"),
        (["generic\n[x]", "files.example.com", "http://127.0.0.1:8000"], "is no built-in app file"),
    ] {
        let [app, host, upstream] = arguments;
        let told = program(&["init", "--app", app, "--host", host, "--upstream", upstream]);
        let said = String::from_utf8_lossy(&told.stderr);
        assert_eq!((told.status.code(), &*told.stdout), (Some(2), &b""[..]), "{said}");
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

/// A config in a directory of its own, with certificate and log; the program's answer to `check` with these options.
fn checked(dir: &std::path::Path, options: &[&str]) -> Output {
    let text = format!(
        "[listen]\nhttps = [\"127.0.0.1:443\"]\nhttp = []\n[tls]\nself_signed = true\n[admin]\nsocket = \"{0}/run/admin.sock\"\n\
         [state]\ndir = \"{0}/state\"\n[log]\naccess = \"{0}/log/access\"\n[[site]]\nhosts = [\"files.example.com\"]\n\
         app = \"{0}/app.toml\"\nupstream = \"http://127.0.0.1:1\"\n",
        dir.display()
    );
    let path = dir.join("portcullis.toml");
    fs::write(&path, text).unwrap();
    fs::write(dir.join("app.toml"), "schema = 1\nname = \"x\"\ndefault_class = \"api\"\n").unwrap();
    let mut arguments = vec!["check", path.to_str().unwrap()];
    arguments.extend(options);
    program(&arguments)
}

fn chmod(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn check_as_a_user_tells_what_that_user_may_not_do() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["run", "state", "log"] {
        fs::create_dir(dir.path().join(name)).unwrap();
        chmod(&dir.path().join(name), 0o755);
    }
    chmod(dir.path(), 0o755);
    let _ = checked(dir.path(), &["--offline"]);
    chmod(&dir.path().join("app.toml"), 0o600);
    fs::write(dir.path().join("state/blocks.redb"), "").unwrap();
    chmod(&dir.path().join("state/blocks.redb"), 0o600);
    let stranger = ["--offline", "--as-user", "4000001:4000002"];
    let told = checked(dir.path(), &stranger);
    assert_eq!(told.status.code(), Some(3), "{}", stdout(&told));
    let said = shown(&told, None).replace(dir.path().to_str().unwrap(), "DIR");
    let owner = fs::metadata(dir.path()).map(|about| std::os::unix::fs::MetadataExt::uid(&about)).unwrap();
    assert_snapshot!(
        "check_as_user",
        said.replace(&format!("owner {owner}, group {owner}"), "owner N, group N")
    );
    for (name, mode) in
        [("app.toml", 0o644), ("run", 0o777), ("state", 0o777), ("log", 0o777), ("state/blocks.redb", 0o666)]
    {
        chmod(&dir.path().join(name), mode);
    }
    let told = checked(dir.path(), &stranger);
    assert_eq!(told.status.code(), Some(0), "{}", stdout(&told));
    assert!(stdout(&told).contains("may not listen on 127.0.0.1:443"), "a warning only: {}", stdout(&told));
    let root = checked(dir.path(), &["--offline", "--as-user", "root"]);
    assert!(root.status.success() && !stdout(&root).contains("warning"), "{}", stdout(&root));
}

#[test]
fn check_as_a_user_in_json_has_the_same_problems_beside_the_sites() {
    let dir = tempfile::tempdir().unwrap();
    chmod(dir.path(), 0o700);
    let told = checked(dir.path(), &["--offline", "--json", "--as-user", "4000001"]);
    let answer: serde_json::Value = serde_json::from_str(&stdout(&told)).unwrap();
    assert_eq!((told.status.code(), &answer["schema"]), (Some(3), &1.into()));
    let problems = answer["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1, "each obstacle once: {answer:#}");
    assert!(problems[0]["message"].as_str().unwrap().contains("may not enter"), "{answer:#}");
    assert_eq!(answer["sites"][0]["site"], "files.example.com");
}

#[test]
fn check_as_nobody_that_is_known_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    let told = checked(dir.path(), &["--offline", "--as-user", "no-such-user"]);
    assert_eq!(told.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&told.stderr).contains("there is no user `no-such-user`"));
}

#[test]
fn check_says_where_nobody_listens_unless_it_is_to_stay_offline() {
    let dir = tempfile::tempdir().unwrap();
    let told = checked(dir.path(), &[]);
    assert!(told.status.success(), "a warning only");
    assert!(
        stdout(&told).contains("nobody listens at http://127.0.0.1:1 now: Connection refused"),
        "{}",
        stdout(&told)
    );
    assert!(!stdout(&checked(dir.path(), &["--offline"])).contains("nobody listens"));
}
