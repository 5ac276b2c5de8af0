//! `portcullis test`: the cases of every app file hold, a broken expectation fails, and what is wrong in a file of cases is
//! told at its place.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use portcullis::config::cases;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn told(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("test").args(arguments).env_remove("PORTCULLIS_CONFIG").output().unwrap()
}

/// What it says of a file with this text, and its exit code.
fn said(text: &str, more: &[&str]) -> (String, i32) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cases.toml");
    fs::write(&path, text).unwrap();
    let mut arguments = vec![path.to_str().unwrap()];
    arguments.extend(more);
    let told = told(&arguments);
    let text = format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    (text.replace(dir.path().to_str().unwrap(), "DIR"), told.status.code().unwrap())
}

fn of_the_repository() -> Vec<PathBuf> {
    let dir = fs::read_dir(root().join("config/cases")).unwrap();
    let mut files: Vec<PathBuf> = dir.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_documented_cases_of_every_app_file_hold() {
    let names: Vec<String> = of_the_repository()
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let apps: Vec<&str> = portcullis::config::builtin_apps().collect();
    assert_eq!(names, apps, "one file of cases per app file");
    for file in of_the_repository().iter().chain([&root().join("config/cases.toml")]) {
        let told = told(&[file.to_str().unwrap()]);
        assert!(told.status.success(), "{}\n{}", file.display(), String::from_utf8_lossy(&told.stdout));
    }
}

#[test]
fn every_single_expectation_of_every_app_file_can_fail() {
    for file in of_the_repository() {
        let text = fs::read_to_string(&file).unwrap();
        let whole = cases::load(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let expectations = whole.cases.iter().flat_map(|case| &case.expected);
        let mut broken = text.clone();
        let mut spans: Vec<_> =
            expectations.map(|expected| (expected.span.clone(), expected.what.key())).collect();
        spans.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
        let count = spans.len();
        // From the end, so that places before stay right.
        for (span, key) in spans {
            let other = match (&*key, &text[span.clone()]) {
                ("verdict", "\"redirect\"") => "\"permit\"",
                ("verdict", _) => "\"redirect\"",
                ("status", _) => "599",
                ("class", "\"rpc\"") => "\"page\"",
                ("class", _) => "\"rpc\"",
                _ => "\"elsewhere\"",
            };
            broken.replace_range(span, other);
        }
        let (said, code) = said(&broken, &["--json"]);
        let answer: Value = serde_json::from_str(&said).unwrap();
        let cases = answer["cases"].as_array().unwrap();
        assert_eq!(code, 1);
        assert!(cases.iter().all(|case| case["passed"] == false), "{}\n{said}", file.display());
        let places: std::collections::BTreeSet<String> = cases
            .iter()
            .flat_map(|case| case["failures"].as_array().unwrap())
            .map(|failure| format!("{}:{}", failure["line"], failure["column"]))
            .collect();
        assert_eq!(places.len(), count, "each expectation of {} is judged", file.display());
    }
}

const HEAD: &str = "schema = 1\napp = \"keepstack\"\n[[case]]\n";
const CASE: &str = "name = \"a\"\nrequest = \"https://files.example.com/metrics\"\n";

#[test]
fn a_failed_case_is_told_with_its_place_what_was_expected_and_what_came() {
    let text = format!(
        "{HEAD}{CASE}repeat = 2\nexpect = {{ verdict = \"permit\", status = 404, csp = [\"script-src *\"] }}\n"
    );
    let (said, code) = said(&text, &[]);
    assert_eq!(code, 1);
    insta::assert_snapshot!(said);
}

#[test]
fn the_answer_in_json_is_one_object_with_a_schema() {
    let (text, code) = said(&format!("{HEAD}{CASE}expect.status = 403\n"), &["--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["schema"]), (1, &1.into()));
    let failure = &answer["cases"][0]["failures"][0];
    assert_eq!(
        (&failure["expected"], &failure["got"], &failure["line"]),
        (&"403".into(), &"404".into(), &6.into())
    );
    let (text, code) = said("schema = 1\n", &["--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 3);
    assert_eq!(answer["problems"].as_array().unwrap().len(), 1);
}

#[test]
fn each_request_of_a_list_must_meet_every_expectation() {
    let list =
        "name = \"a\"\nrequest = [\"https://files.example.com/metrics\", \"https://files.example.com/\"]\n";
    let (text, code) = said(&format!("{HEAD}{list}expect.verdict = \"deny\"\n"), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("asked `https://files.example.com/`")
            && !text.contains("asked `https://files.example.com/metrics`"),
        "{text}"
    );
}

#[test]
fn cases_are_judged_by_the_config_that_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let config = |name: &str, only_from: &str| {
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"files.example.com\"]\napp = \"keepstack\"\nmode = \"observe\"\n\
             upstream = \"http://127.0.0.1:8000\"\n[site.only_from]\nmetrics = [\"{only_from}\"]\n"
        );
        fs::write(dir.path().join(name), text).unwrap();
    };
    config("open.toml", "203.0.113.0/24");
    config("closed.toml", "10.0.0.0/8");
    let cases = dir.path().join("cases.toml");
    fs::write(
        &cases,
        format!("schema = 1\nconfig = \"open.toml\"\n[[case]]\n{CASE}expect.verdict = \"permit\"\n"),
    )
    .unwrap();
    let cases = cases.to_str().unwrap();
    assert!(told(&[cases]).status.success(), "the file's own, beside it");
    let closed = dir.path().join("closed.toml");
    assert_eq!(
        told(&[cases, "--config", closed.to_str().unwrap()]).status.code(),
        Some(1),
        "the command line is stronger"
    );
    let observed = "schema = 1\nconfig = \"open.toml\"\n[[case]]\nname = \"a\"\nrequest = \"POST https://files.example.com/api/auth/login\"\n\
         repeat = 11\nexpect.verdict = \"would_deny\"\n";
    fs::write(cases, observed).unwrap();
    let observed = told(&[cases]);
    assert!(observed.status.success(), "{}", String::from_utf8_lossy(&observed.stdout));
    fs::write(dir.path().join("open.toml"), "[[site]]\nhost = 1\n").unwrap();
    let broken = told(&[cases]);
    assert_eq!(broken.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&broken.stdout).contains("`host` is no key of `site`"));
}

#[test]
fn each_mistake_of_a_file_of_cases_is_told_at_its_place() {
    let expect = "expect.verdict = \"deny\"\n";
    for (text, part, place) in [
        (
            "[[case]]\nname = \"a\"\nrequest = \"https://a/\"\nexpect.status = 404\n".to_owned(),
            "names no `schema`",
            (1, 1),
        ),
        (
            "schema = 2\n[[case]]\nname = \"a\"\nrequest = \"https://a/\"\nexpect.status = 404\n".to_owned(),
            "reads schema 1, not 2",
            (1, 10),
        ),
        ("schema = 1\n".to_owned(), "there is no case", (1, 1)),
        (format!("{HEAD}{CASE}{expect}[[cases]]\n"), "`cases` is no key of the file", (7, 3)),
        (format!("config = \"c.toml\"\n{HEAD}{CASE}{expect}"), "by `app` or by `config`", (1, 1)),
        (format!("{HEAD}{CASE}"), "names no `expect`", (3, 1)),
        (format!("{HEAD}request = \"https://a/\"\n{expect}"), "names no `name`", (3, 1)),
        (format!("{HEAD}{CASE}expect = {{}}\n"), "expects nothing", (6, 10)),
        (format!("{HEAD}{CASE}expect.verdct = \"deny\"\n"), "`verdct` is no key of `case.expect`", (6, 8)),
        (format!("{HEAD}{CASE}expect.verdict = \"denied\"\n"), "`denied` is not known", (6, 18)),
        (format!("{HEAD}{CASE}expect.status = \"404\"\n"), "a string stands where a whole number", (6, 17)),
        (format!("{HEAD}{CASE}expect.class = \"metric\"\n"), "`metric` is not known", (6, 16)),
        (format!("{HEAD}{CASE}expect.csp = \"default-src\"\n"), "a string stands where a list", (6, 14)),
        (format!("{HEAD}{CASE}{expect}from = \"everywhere\"\n"), "`everywhere` is no address", (7, 8)),
        (format!("{HEAD}{CASE}{expect}headers = [\"Accept\"]\n"), "`Accept` is no header", (7, 12)),
        (format!("{HEAD}{CASE}{expect}repeat = 0\n"), "0 is out of range", (7, 10)),
        (format!("{HEAD}{CASE}{expect}repeat = 1000000\n"), "1000000 is out of range", (7, 10)),
        (format!("{HEAD}name = \"a\"\nrequest = []\n{expect}"), "the list is empty", (5, 11)),
        (
            format!("{HEAD}name = \"a\"\nrequest = \"/metrics\"\n{expect}"),
            "`/metrics` is no request",
            (5, 11),
        ),
        (format!("{HEAD}{CASE}{expect}[[case]]\n{CASE}{expect}"), "two cases are called `a`", (8, 8)),
    ] {
        let problems = cases::parse(Path::new("/etc/cases.toml"), &text).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{text}\n{problems}");
        assert!(problems.0[0].message.contains(part), "{part:?} is not in\n{problems}");
        assert_eq!(problems.0[0].position(), Some(place), "{problems}");
        assert!(!problems.0[0].help.is_empty(), "{problems}");
    }
    let (said, code) = said(&format!("{HEAD}{CASE}{expect}[[case]]\nname = 7\nrepaet = 2\n"), &[]);
    assert_eq!(code, 3);
    assert!(
        said.contains("did you mean `repeat`?") && said.contains("4 problems; no case was tried"),
        "{said}"
    );
}

#[test]
fn an_app_file_of_ones_own_is_proved_like_a_built_in_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(root().join("config/app.toml"), dir.path().join("mine.toml")).unwrap();
    let cases = dir.path().join("cases.toml");
    let text = "schema = 1\napp = \"./mine.toml\"\n[[case]]\nname = \"a\"\nrequest = \"https://files.example.com/realtime/x\"\n\
                expect = { class = \"live\", upstream = \"http://127.0.0.1:6001\" }\n";
    fs::write(&cases, text).unwrap();
    let good = told(&[cases.to_str().unwrap()]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stdout));
    fs::write(&cases, text.replace("./mine.toml", "minne")).unwrap();
    let unknown = told(&[cases.to_str().unwrap()]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&unknown.stdout).contains("`minne` is no built-in app file"));
}

/// The blocks of a document that are marked as this kind.
fn blocks<'d>(document: &'d str, kind: &str) -> Vec<&'d str> {
    let mark = format!("```toml {kind}\n");
    document.split(&*mark).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn the_examples_of_the_documents_do_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let document = fs::read_to_string(root().join("docs/app-files.md")).unwrap();
    place("notes.toml", blocks(&document, "app")[0]);
    place("notes-cases.toml", blocks(&document, "cases")[0]);
    place("cases.toml", blocks(&fs::read_to_string(root().join("docs/cases.md")).unwrap(), "cases")[0]);
    place(
        "portcullis.toml",
        "[listen]\ntrusted_proxies = [\"192.0.2.10\"]\n[tls]\nself_signed = true\n[[site]]\nhosts = [\"files.example.com\"]\n\
         app = \"keepstack\"\nupstream = \"http://127.0.0.1:8000\"\n[site.only_from]\nmetrics = [\"10.0.0.0/8\"]\n",
    );
    for name in ["notes-cases.toml", "cases.toml"] {
        let told = told(&[dir.path().join(name).to_str().unwrap()]);
        assert!(told.status.success(), "{name}\n{}", String::from_utf8_lossy(&told.stdout));
    }
}

proptest::proptest! {
    #[test]
    fn no_broken_file_of_cases_makes_it_panic(at in 0usize..3000, len in 0usize..40, with in "[\\[\\]{}=\"'\n#a0.,*/ -]{0,6}") {
        let mut text = include_str!("../config/cases.toml").to_owned();
        let down = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let range = down(at)..down(at + len);
        text.replace_range(range, &with);
        let _ = cases::parse(Path::new("/etc/cases.toml"), &text).map_err(|problems| problems.to_string());
    }
}
