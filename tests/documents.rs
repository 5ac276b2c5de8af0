//! What the documents say is there is there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_test_that_security_md_names_exists() {
    let text = read("SECURITY.md");
    let (_, promises) = text.split_once("## Promises").unwrap();
    let mut named = 0;
    for line in promises.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`")) {
        let marked: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        let (file, test) = (marked[marked.len() - 2], marked[marked.len() - 1]);
        assert!(read(file).contains(&format!("fn {test}(")), "{file} has no test {test}");
        named += 1;
    }
    assert!(named > 20, "only {named} promises name a test");
}

/// Every document of the repository, by its path.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["", "docs", "deploy"] {
        for entry in fs::read_dir(root().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    assert!(found.len() > 10, "the documents have moved: {found:?}");
    found
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, place) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                root().join(&document)
            } else {
                root().join(&document).parent().unwrap().join(path)
            };
            assert!(target.exists(), "{document} links to {link}");
            if !place.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(headings.map(anchor).any(|own| own == place), "{document} links to {link}");
            }
        }
    }
}

#[test]
fn the_configs_of_the_documents_hold() {
    let mut held = 0;
    for document in documents() {
        let text = read(&document);
        for config in text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            hold(&document, config);
            held += 1;
        }
    }
    assert!(held > 4, "only {held} configs in the documents");
}

/// Loads it; certificates belong to the reader, and a piece of a config is completed.
fn hold(document: &str, config: &str) {
    let own = config.lines().map(|line| match line.split('=').next().map(str::trim) {
        Some("certificates") => "self_signed = true",
        Some("ca_file") => "",
        _ => line,
    });
    let mut own = own.collect::<Vec<_>>().join("\n");
    if !config.contains("[tls]") && !config.contains("[acme]") {
        own.push_str("\n[tls]\nself_signed = true\n");
    }
    if !config.contains("[[site]]") {
        own.push_str(
            "\n[[site]]\nhosts = [\"a.test\"]\napp = \"generic\"\nupstream = \"http://127.0.0.1:1\"\n",
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, own).unwrap();
    portcullis::config::load(&path).unwrap_or_else(|problems| panic!("{document}:\n{config}\n{problems}"));
}

/// Verbs that documents may name and that the binary has not yet. A verb that has come must leave this list.
const COMING: [&str; 0] = [];

/// Every `portcullis VERB …` that stands in code: the words from the verb to the line's or code's end.
fn commands(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block = false;
    for line in read(document).lines() {
        if line.starts_with("```") {
            block = !block;
            continue;
        }
        let pieces: Vec<&str> = if block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for piece in pieces {
            // What a program printed may begin with its name; a command begins with it, or follows a prompt or a pipe.
            for (place, _) in piece.match_indices("portcullis ") {
                let before = piece[..place].trim_end();
                let begins = before.is_empty() || before.ends_with(['$', '|', ';']);
                let rest = &piece[place + "portcullis ".len()..];
                if begins && rest.starts_with(|c: char| c.is_ascii_lowercase()) {
                    found.push(rest.split(['|', ';', '#']).next().unwrap().trim().to_owned());
                }
            }
        }
    }
    found
}

/// What `portcullis … --help` says.
fn help(verb: &[&str]) -> Option<String> {
    let told = Command::new(env!("CARGO_BIN_EXE_portcullis")).args(verb).arg("--help").output().unwrap();
    told.status.success().then(|| String::from_utf8(told.stdout).unwrap())
}

#[test]
fn every_command_that_a_document_names_is_one_that_the_program_has() {
    let all = help(&[]).unwrap();
    let has = |verb: &str| all.lines().any(|line| line.trim_start().split(' ').next() == Some(verb));
    for coming in COMING {
        assert!(!has(coming), "`{coming}` has come: take it out of COMING");
    }
    let mut tried = 0;
    for document in documents() {
        for command in commands(&document) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let verb = words[0].trim_end_matches([':', ',', '.']);
            if COMING.contains(&verb) || words[0].ends_with(':') {
                continue;
            }
            assert!(has(verb), "{document}: `portcullis {command}`: there is no verb `{verb}`");
            let kind =
                words.get(1).filter(|_| verb == "block").map_or_else(Vec::new, |kind| vec![verb, kind]);
            let told = help(if kind.is_empty() { std::slice::from_ref(&verb) } else { &kind });
            let told = told.unwrap_or_else(|| panic!("{document}: `portcullis {command}`: no such kind"));
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let option = option.trim_end_matches([',', '.', ']']);
                assert!(told.contains(option), "{document}: `portcullis {command}`: {verb} has no {option}");
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "only {tried} commands in the documents");
}
