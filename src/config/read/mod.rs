//! Text → settings, one file per section. A small reader walks the spanned table, so that every problem of a file is
//! found at once and each has its place; serde would stop at the first.

mod acme;
mod app;
mod blocks_file;
mod cases;
mod certificates;
mod client_certificates;
mod download_host;
mod gateway;
mod headers;
mod hosts;
mod key_source;
mod listen;
mod learn;
mod login;
mod login_guard;
mod networks;
mod nonce;
mod passthrough;
mod route;
mod share;
mod site;
mod sketch;
mod table;
mod tokens;
mod upstream;
mod upstream_tls;
mod upstreams;
mod value;

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::cases::Cases;
use super::problem::{Problem, Problems};
use super::settings::Settings;
use crate::clock::Now;

pub(super) use app::{builtin, builtin_names, builtin_text};
pub(super) use sketch::{Asked, Keys, Kind, Sketch};
pub(super) use table::Table;
pub(super) use value::Value;

/// A place in a text, in bytes.
pub(super) type Span = Range<usize>;

/// No config, app file or certificate chain is larger; a device file would be endless.
const LARGEST_FILE: u64 = 1 << 20;

/// What reading found, besides the settings.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub problems: Problems,
    pub warnings: Problems,
    /// What is wrong with the block file: apart, because a start may do without it.
    pub block_file: Problems,
    pub files: Vec<PathBuf>,
}

/// One file being read.
#[derive(Debug)]
pub(super) struct Doc {
    pub file: PathBuf,
    /// What snippets show.
    source: Arc<str>,
    /// The text had syntax errors: what is missing may only be unread.
    broken: bool,
    pub now: Now,
    found: RefCell<Found>,
    /// What is asked is written down: no message counts, only names.
    sketch: Option<RefCell<Sketch>>,
}

impl Doc {
    /// Parses a text and walks its table. The walk sees every key that could be read, whatever is wrong elsewhere.
    pub fn walk<T>(
        file: &Path,
        text: &str,
        now: Now,
        walk: impl FnOnce(&Self, Table<'_>) -> T,
    ) -> (T, Found) {
        let (result, doc) = Self::read(file, text, now, None, walk);
        (result, doc.found.into_inner())
    }

    /// Writes down what a walk asks of a file, on a specimen that has every table and list at least once.
    pub fn sketch<T>(text: &str, walk: impl FnOnce(&Self, Table<'_>) -> T) -> Sketch {
        let now = Now { mono: 0, wall: 0 };
        let (_, doc) = Self::read(Path::new("/"), text, now, Some(RefCell::default()), walk);
        doc.sketch.map(RefCell::into_inner).unwrap_or_default()
    }

    fn read<T>(
        file: &Path,
        text: &str,
        now: Now,
        sketch: Option<RefCell<Sketch>>,
        walk: impl FnOnce(&Self, Table<'_>) -> T,
    ) -> (T, Self) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let source = blank_secrets(text, root.get_ref()).into();
        let broken = !errors.is_empty();
        let doc = Self { file: file.into(), source, broken, now, found: RefCell::default(), sketch };
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            doc.problem(at, error.message(), "the file is TOML: see https://toml.io for its grammar");
        }
        let result = walk(&doc, Table::new(&doc, String::new(), 0..0, root.get_ref()));
        (result, doc)
    }

    /// Writes down what is asked of a place, where that is wanted.
    pub fn asked(&self, name: &str, note: impl FnOnce(&mut Asked, &str)) {
        if let Some(sketch) = &self.sketch {
            note(sketch.borrow_mut().entry(name.to_owned()).or_default(), &self.source);
        }
    }

    /// The name of a place below: in a sketch all items of a list, and all free keys of a table, are one place.
    pub fn name_below(&self, name: &str, key: &str, any: &str) -> String {
        match (self.sketch.is_some(), any, name) {
            (true, "[]", _) => format!("{name}[]"),
            (true, "*", _) => format!("{name}.*"),
            (_, "[]", _) => name.to_owned(),
            (_, _, "") => key.to_owned(),
            _ => format!("{name}.{key}"),
        }
    }

    /// Notes what is wrong at a place.
    pub fn problem(&self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let problem = self.at(span, message, help);
        self.found.borrow_mut().problems.0.push(problem);
    }

    /// Notes something that is missing, unless it may only be unread.
    pub fn missing(&self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        if !self.broken {
            self.problem(span, message, help);
        }
    }

    /// Notes what is worth a word.
    pub fn warning(&self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let warning = self.at(span, message, help);
        self.found.borrow_mut().warnings.0.push(warning);
    }

    /// Takes over what was found in another file.
    pub fn absorb(&self, other: Found) {
        let mut found = self.found.borrow_mut();
        found.problems.0.extend(other.problems.0);
        found.warnings.0.extend(other.warnings.0);
        found.block_file.0.extend(other.block_file.0);
        found.files.extend(other.files);
    }

    /// What snippets show.
    pub fn source(&self) -> Arc<str> {
        Arc::clone(&self.source)
    }

    /// The line of a place, from 1.
    pub fn line_of(&self, span: &Span) -> usize {
        self.source.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1)
    }

    /// How many problems there are by now.
    pub fn count(&self) -> usize {
        self.found.borrow().problems.0.len()
    }

    /// A path of this file: relative ones are relative to its directory. It is watched from now on.
    pub fn named_file(&self, path: &str) -> PathBuf {
        let path = self.resolve(path);
        let mut found = self.found.borrow_mut();
        if !found.files.contains(&path) {
            found.files.push(path.clone());
        }
        path
    }

    /// A path of this file, absolute.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("/")).join(path)
    }

    fn at(&self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            source: Arc::clone(&self.source),
            span: Some(span),
            message: message.into(),
            help: help.into(),
        }
    }
}

/// What is asked of a config, an app file and a file of cases, by specimens of them.
pub(super) fn sketches(config: &str, app: &str, cases: &str) -> [Sketch; 3] {
    [Doc::sketch(config, gateway::read), app::sketch(app), cases::sketch(cases)]
}

/// The cases of a text.
pub(super) fn cases(path: &Path, text: &str) -> (Option<Cases>, Found) {
    Doc::walk(path, text, Now { mono: 0, wall: 0 }, cases::read)
}

/// The settings of a text.
pub(super) fn settings(path: &Path, text: &str, now: Now) -> (Option<Settings>, Found) {
    Doc::walk(path, text, now, gateway::read)
}

/// Reads a whole file, if it is a plain one of sane size.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    read_file_up_to(path, LARGEST_FILE)
}

/// The same with another idea of what is sane.
pub(super) fn read_file_up_to(path: &Path, largest: u64) -> Result<Vec<u8>, String> {
    let about = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is no plain file".into());
    }
    if about.len() > largest {
        return Err(format!("it is larger than {} KiB", largest >> 10));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

/// The known word that was most likely meant.
pub(super) fn nearest<'w>(word: &str, known: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let (distance, best) = known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= best.len().max(3) / 3).then_some(best)
}

/// "did you mean …", or all that there is.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(best) => format!("did you mean `{best}`?"),
        None if known.is_empty() => "remove it".into(),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The text with the values of secret keys blanked, byte for byte, so that places stay right.
fn blank_secrets(text: &str, root: &DeTable<'_>) -> String {
    let mut spans = Vec::new();
    secret_values(root, &mut spans);
    let mut bytes = text.as_bytes().to_vec();
    for span in spans {
        for byte in bytes.get_mut(span).into_iter().flatten().filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn secret_values(table: &DeTable<'_>, spans: &mut Vec<Span>) {
    const WORDS: [&str; 7] = ["secret", "password", "passwd", "token", "private", "api_key", "eab_key"];
    for (key, value) in table.iter() {
        let name = key.get_ref().to_ascii_lowercase();
        let secret = WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_file");
        match value.get_ref() {
            DeValue::String(_) if secret => spans.push(value.span()),
            DeValue::Table(inner) => secret_values(inner, spans),
            DeValue::Array(items) => {
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::Table(inner) => secret_values(inner, spans),
                        DeValue::String(_) if secret => spans.push(item.span()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}
