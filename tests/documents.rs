//! What the documents say is there is there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

use std::fs;
use std::path::Path;

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

#[test]
fn links_between_documents_lead_somewhere() {
    let mut documents: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"]
            .map(Into::into)
            .into();
    let docs = fs::read_dir(root().join("docs")).unwrap();
    documents.extend(docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap())));
    for document in documents.iter().filter(|document| document.ends_with(".md")) {
        let text = read(document);
        let folder = root().join(document).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            assert!(
                path.is_empty() || path.contains("://") || folder.join(path).exists(),
                "{document} links to {link}"
            );
        }
    }
}

#[test]
fn the_configs_of_the_readme_hold() {
    let readme = read("README.md");
    let configs: Vec<&str> =
        readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!configs.is_empty());
    for config in configs {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portcullis.toml");
        // Certificates belong to the reader; all else is as written.
        let own = config
            .lines()
            .map(|line| if line.starts_with("certificates") { "self_signed = true" } else { line });
        fs::write(&path, own.collect::<Vec<_>>().join("\n")).unwrap();
        portcullis::config::load(&path).unwrap_or_else(|problems| panic!("{config}\n{problems}"));
    }
}
