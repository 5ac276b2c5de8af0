//! The rules of ARCHITECTURE.md, held by reading the sources.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which module may import which. The order is that of `lib.rs`; a module may name only modules above its own line.
const MAY_IMPORT: [(&str, &[&str]); 17] = [
    ("clock", &[]),
    ("config", &["clock"]),
    ("telemetry", &["config"]),
    ("request", &["clock", "config"]),
    ("stores", &["clock", "config", "request"]),
    ("warnings", &["config", "request"]),
    ("guards", &["clock", "config", "request", "stores"]),
    ("policy", &["clock", "config", "telemetry", "request", "stores", "guards"]),
    ("gateway", &["clock", "config", "telemetry", "request", "stores", "guards", "policy"]),
    ("upstream", &["clock", "config", "telemetry", "request", "stores", "policy", "gateway"]),
    ("admin", &["clock", "config", "telemetry", "request", "stores", "policy"]),
    ("listener", &["clock", "config", "telemetry", "request", "stores"]),
    (
        "worker",
        &["clock", "config", "telemetry", "request", "stores", "policy", "gateway", "upstream", "listener"],
    ),
    (
        "control",
        &[
            "clock",
            "config",
            "telemetry",
            "request",
            "stores",
            "warnings",
            "policy",
            "admin",
            "listener",
            "worker",
        ],
    ),
    (
        "serve",
        &[
            "clock",
            "config",
            "telemetry",
            "request",
            "stores",
            "policy",
            "gateway",
            "upstream",
            "admin",
            "listener",
            "worker",
            "control",
        ],
    ),
    ("sample", &["clock"]),
    (
        "cli",
        &[
            "clock",
            "config",
            "telemetry",
            "request",
            "stores",
            "warnings",
            "guards",
            "policy",
            "gateway",
            "admin",
            "serve",
            "sample",
        ],
    ),
];

/// Crates that a module must do without, so that what decides stays pure.
const MUST_NOT_USE: [(&str, &[&str]); 6] = [
    ("config", &["hyper::", "tokio::"]),
    ("request", &["tokio::"]),
    ("guards", &["hyper::", "tokio::", "std::fs", "std::net::Tcp"]),
    ("policy", &["hyper::", "tokio::", "std::net::Tcp"]),
    ("gateway", &["std::fs", "std::env"]),
    ("cli", &["hyper::"]),
];

const MAX_LINES: usize = 400;

/// Words for which this code has better ones.
const BANNED: [&str; 7] = ["filter", "middleware", "plugin", "handler", "manager", "helper", "util"];

struct Source {
    path: PathBuf,
    module: String,
    /// Without the tests at its end.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join("src"), &mut paths);
    assert!(paths.len() > 20, "the sources have moved");
    paths.into_iter().filter_map(source).collect()
}

fn collect(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn source(path: PathBuf) -> Option<Source> {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    let module = first.trim_end_matches(".rs").to_owned();
    let tests = inside.components().any(|part| {
        let part = part.as_os_str().to_str().unwrap().trim_end_matches(".rs");
        part == "tests" || part.ends_with("_tests")
    });
    let text = fs::read_to_string(&path).unwrap();
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap().to_owned();
    (!tests && module != "main").then_some(Source { path, module, code })
}

/// Every top-level module that the code names as `crate::name` or inside `crate::{…}`.
fn named_modules(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n");
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        names.insert(first_word(&std::mem::take(&mut name)));
                        continue;
                    }
                    _ => {}
                }
                name.push(c);
            }
            names.insert(first_word(&name));
        } else {
            names.insert(first_word(rest));
        }
    }
    names.remove("");
    names
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
}

#[test]
fn modules_stand_in_lib_rs_from_the_bottom_to_the_top() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let order: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let table: Vec<&str> = MAY_IMPORT.iter().map(|(module, _)| *module).collect();
    assert_eq!(order, table);
    for (place, (module, allowed)) in MAY_IMPORT.iter().enumerate() {
        for name in *allowed {
            assert!(table[..place].contains(name), "{module} may not import {name}, which stands below it");
        }
    }
}

#[test]
fn each_module_imports_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = MAY_IMPORT.into();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.module != "lib") {
        let allowed =
            table.get(&*source.module).unwrap_or_else(|| panic!("{} is not in the table", source.module));
        for name in named_modules(&source.code) {
            if name != source.module && table.contains_key(&*name) && !allowed.contains(&&*name) {
                wrong.push(format!("{}: {} imports {name}", source.path.display(), source.module));
            }
        }
        if source.code.contains("super::super::") {
            wrong.push(format!("{}: say `crate::`, so that this test sees it", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_decides_does_without_sockets_files_and_runtimes() {
    let mut wrong = Vec::new();
    for source in sources() {
        let banned = MUST_NOT_USE.iter().filter(|(module, _)| *module == source.module);
        for name in banned.flat_map(|(_, names)| *names) {
            let uses = |line: &&str| {
                let start = line.trim_start().trim_start_matches("pub ");
                start.starts_with(&format!("use {name}")) || start.contains(&format!(" {name}"))
            };
            for line in source.code.lines().filter(|line| !line.trim_start().starts_with("//")).filter(uses) {
                wrong.push(format!("{}: {}", source.path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_a_person_holds_in_mind() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.code.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(long.is_empty(), "over {MAX_LINES} lines without tests:\n{}", long.join("\n"));
}

#[test]
fn each_guard_says_what_defeats_it_from_outside() {
    let guards: Vec<Source> = sources()
        .into_iter()
        .filter(|source| source.module == "guards" && !source.path.ends_with("guards/mod.rs"))
        .filter(|source| source.code.contains("impl Guard for"))
        .collect();
    for guard in guards {
        let doc: Vec<&str> = guard.code.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(
            doc.iter().any(|line| line.starts_with("//! Caveat: ")),
            "{} has no caveat",
            guard.path.display()
        );
    }
}

#[test]
fn nothing_outside_tests_unwraps() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (place, line) in source.code.lines().enumerate() {
            if line.contains(".unwrap()") && !line.trim_start().starts_with("//") {
                wrong.push(format!("{}:{}", source.path.display(), place + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_word_for_one_thing_in_the_names_of_files() {
    for source in sources() {
        let name = source.path.strip_prefix(root()).unwrap().to_str().unwrap();
        assert!(!BANNED.iter().any(|word| name.contains(word)), "{name}");
    }
}

#[test]
fn this_test_sees_imports_however_they_are_written() {
    let code = "use crate::clock::Now;\nuse crate::{config::{a, b}, stores};\nfn f() { crate::serve::run() }\n// crate::cli\n";
    let names: Vec<String> = named_modules(code).into_iter().collect();
    assert_eq!(names, ["clock", "config", "serve", "stores"]);
}
