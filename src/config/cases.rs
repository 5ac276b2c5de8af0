//! Cases: requests, and what is expected to become of them (`portcullis test`).

use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::problem::{Problem, Problems};
use super::read;

/// A file of cases.
#[derive(Debug, Clone)]
pub struct Cases {
    /// The file, absolute.
    pub file: PathBuf,
    /// Its text, for snippets.
    pub source: Arc<str>,
    /// What is judged by; `None`: what the command line says.
    pub judged_by: Option<JudgedBy>,
    /// In the order of the file, at least one.
    pub cases: Vec<Case>,
}

/// What the cases are judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JudgedBy {
    /// An app file, by its name or absolute path, with all else at its defaults.
    App(Box<str>),
    /// A config, absolute.
    Config(PathBuf),
}

/// One case.
#[derive(Debug, Clone)]
pub struct Case {
    /// For people; each once.
    pub name: Box<str>,
    /// Each of them must meet every expectation, by itself.
    pub requests: Vec<Box<str>>,
    /// The peer's address.
    pub from: IpAddr,
    /// `Name: value`.
    pub headers: Vec<Box<str>>,
    /// How often it is asked, at one instant; the last answer counts.
    pub repeat: u32,
    /// At least one.
    pub expected: Vec<Expected>,
    /// Where its table stands.
    pub span: Range<usize>,
}

/// One expectation.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Of what.
    pub what: What,
    /// As it must be.
    pub value: Box<str>,
    /// Where it stands.
    pub span: Range<usize>,
}

/// What can be expected of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// `permit`, `would_deny`, `deny`, `malformed` or `redirect`.
    Verdict,
    /// The status of a refusal.
    Status,
    /// The route's class.
    Class,
    /// The pattern of the route.
    Route,
    /// The guard that refused.
    Guard,
    /// Why it refused.
    Reason,
    /// Where the request goes; of a redirect, where that leads.
    Upstream,
    /// A whole directive of the Content-Security-Policy.
    Csp,
    /// The value of a header that the gateway puts on the answer.
    Header(Box<str>),
}

impl What {
    /// Its key in the file.
    pub fn key(&self) -> String {
        match self {
            Self::Verdict => "verdict".into(),
            Self::Status => "status".into(),
            Self::Class => "class".into(),
            Self::Route => "route".into(),
            Self::Guard => "guard".into(),
            Self::Reason => "reason".into(),
            Self::Upstream => "upstream".into(),
            Self::Csp => "csp".into(),
            Self::Header(name) => format!("headers.{name}"),
        }
    }
}

/// Reads a file of cases.
///
/// # Errors
/// Every problem at once, each with its place.
pub fn load(path: &Path) -> Result<Cases, Problems> {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let unreadable = |why: String| {
        let message = format!("{} cannot be read: {why}", path.display());
        Problems(vec![Problem::of_file(
            &path,
            message,
            "name a file of cases: docs/cases.md says what is in it",
        )])
    };
    let bytes = read::read_file(&path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".into()))?;
    parse(&path, &text)
}

/// Reads the text of a file of cases, as [`load`] does.
///
/// # Errors
/// Every problem at once, each with its place.
pub fn parse(path: &Path, text: &str) -> Result<Cases, Problems> {
    let (cases, found) = read::cases(path, text);
    let mut problems = found.problems;
    problems.sort();
    cases.filter(|_| problems.is_empty()).ok_or(problems)
}
