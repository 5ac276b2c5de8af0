//! `portcullis test`: requests in, expected verdicts out, for a user's own CI. The gateway's own deciding code judges; no
//! gateway runs, and no block is known.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::{DEFAULT_CONFIG, exit};
use crate::clock::{Clock, Now};
use crate::config::cases::{self, Case, Cases, Expected, JudgedBy, What};
use crate::config::problem::{Problem, Problems, Severity};
use crate::config::settings::Settings;
use crate::config::{self, Loaded};
use crate::gateway::explain::{Explanation, Means, Question, charge};
use crate::policy::{Snapshot, compile};
use crate::request::share_key::ShareKey;
use crate::stores::blocks::Index;
use crate::stores::kept::Kept;
use crate::stores::seal::Seal;
use crate::stores::sessions::Sessions;

/// A case has one client; a few budgets are all it needs.
const KEYS: usize = 1024;

/// Arguments of `test`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file of cases: docs/cases.md says what is in it.
    #[arg(value_name = "CASES.toml")]
    file: PathBuf,
    /// The config to judge by, in place of what the file names; where neither does, PORTCULLIS_CONFIG or the usual place.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What became of one case.
struct Outcome<'a> {
    case: &'a Case,
    failures: Vec<Failure<'a>>,
}

/// An expectation that was not met.
struct Failure<'a> {
    request: &'a str,
    expected: &'a Expected,
    got: String,
}

impl Args {
    pub(super) fn run(&self, out: &mut dyn Write) -> u8 {
        let (written, code) = match self.judged() {
            Err(problems) => (self.write_problems(&problems, out), exit::CONFIG),
            Ok((cases, settings)) => {
                let now = Clock::system().now();
                let outcomes: Vec<_> = cases.cases.iter().map(|case| judge(case, &settings, now)).collect();
                let good = outcomes.iter().all(|outcome| outcome.failures.is_empty());
                (self.write(&cases, &outcomes, out), if good { exit::OK } else { exit::ERROR })
            }
        };
        if written.is_ok() { code } else { exit::ERROR }
    }

    fn judged(&self) -> Result<(Cases, Settings), Problems> {
        let cases = cases::load(&self.file)?;
        let loaded = match (&self.config, &cases.judged_by) {
            (Some(path), _) | (None, Some(JudgedBy::Config(path))) => config::load(path),
            (None, Some(JudgedBy::App(app))) => of_app(&cases.file, app),
            (None, None) => config::load(
                &std::env::var_os("PORTCULLIS_CONFIG").map_or(DEFAULT_CONFIG.into(), PathBuf::from),
            ),
        };
        loaded.map(|Loaded { settings, .. }| (cases, settings))
    }

    fn write_problems(&self, problems: &Problems, out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            let answer = json!({ "schema": 1, "problems": problems.to_json(), "cases": [] });
            return writeln!(out, "{answer:#}");
        }
        let text = problems.render(Severity::Error, io::stdout().is_terminal());
        let count = problems.0.len();
        writeln!(out, "{text}\n\n{count} problem{}; no case was tried", if count == 1 { "" } else { "s" })
    }

    fn write(&self, cases: &Cases, outcomes: &[Outcome<'_>], out: &mut dyn Write) -> io::Result<()> {
        if self.json {
            let list: Vec<_> = outcomes.iter().map(|outcome| to_json(cases, outcome)).collect();
            return writeln!(out, "{:#}", json!({ "schema": 1, "problems": [], "cases": list }));
        }
        let coloured = io::stdout().is_terminal();
        let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty());
        for failure in
            failed.clone().flat_map(|outcome| outcome.failures.iter().map(move |one| (outcome, one)))
        {
            let (outcome, failure) = failure;
            writeln!(out, "{}\n", problem(cases, outcome.case, failure).render(Severity::Error, coloured))?;
        }
        match failed.count() {
            0 => writeln!(out, "{} cases as expected", outcomes.len()),
            failed => writeln!(out, "{failed} of {} cases failed", outcomes.len()),
        }
    }
}

/// A site with this app file, and all else at its defaults.
fn of_app(cases: &Path, app: &str) -> Result<Loaded, Problems> {
    let app = toml::Value::from(app);
    let text = format!(
        "[tls]\nself_signed = true\n[[site]]\nhosts = [\"files.example.com\"]\nupstream = \"http://127.0.0.1:8000\"\n\
         app = {app}\n"
    );
    config::parse(&cases.with_file_name("<app>"), &text, Clock::system().now())
}

/// Each request of a case begins with full budgets.
fn judge<'a>(case: &'a Case, settings: &Settings, now: Now) -> Outcome<'a> {
    let mut failures = Vec::new();
    for request in &case.requests {
        let headers = case.headers.iter().map(ToString::to_string).collect();
        let question = Question {
            request: request.to_string(),
            from: case.from,
            proxy: None,
            headers,
            certificates: Vec::new(),
        };
        let told = last_of(case.repeat, &question, settings, now);
        failures.extend(case.expected.iter().filter_map(|expected| {
            let got = match &told {
                Ok(told) => unmet(expected, told)?,
                Err(error) => error.clone(),
            };
            Some(Failure { request, expected, got })
        }));
    }
    Outcome { case, failures }
}

fn last_of(repeat: u32, question: &Question, settings: &Settings, now: Now) -> Result<Explanation, String> {
    let snapshot = Snapshot::new(Arc::new(compile(settings, &Kept::new(KEYS))));
    let (index, share_key, seal) = (Index::default(), ShareKey::new(&[0; 32]), Seal::new(&[]));
    let sessions = Sessions::default();
    let means = Means {
        snapshot: &snapshot,
        index: &index,
        share_key: &share_key,
        seal: &seal,
        sessions: &sessions,
        now,
    };
    let mut told = charge(question, means);
    for _ in 1..repeat {
        told = charge(question, means);
    }
    told
}

/// What there is in place of what is expected.
fn unmet(expected: &Expected, told: &Explanation) -> Option<String> {
    let none = || "none".to_owned();
    let text = |value: &Option<String>| value.clone().unwrap_or_else(none);
    let header = |wanted: &str| {
        let found = told.headers.iter().find(|(name, _)| name == wanted);
        found.map_or_else(none, |(_, value)| value.clone())
    };
    let got = match &expected.what {
        What::Verdict => told.verdict.clone(),
        What::Status => told.status.map_or("the application's".into(), |status| status.to_string()),
        What::Class => text(&told.class),
        What::Route => text(&told.route),
        What::Guard => text(&told.guard),
        What::Reason => text(&told.reason),
        What::Upstream => text(&told.upstream),
        What::Csp => {
            let policy = header("content-security-policy");
            if policy.split(';').any(|directive| directive.trim() == expected.value.trim()) {
                return None;
            }
            policy
        }
        What::Header(name) => header(name),
    };
    (got != *expected.value).then_some(got)
}

fn problem(cases: &Cases, case: &Case, failure: &Failure<'_>) -> Problem {
    let Failure { request, expected, got } = failure;
    let (name, key, wanted) = (&case.name, expected.what.key(), &expected.value);
    let message = match expected.what {
        What::Csp => format!("{name}: no directive `{wanted}` in the policy `{got}`"),
        _ => format!("{name}: `{key}` is `{got}`, expected `{wanted}`"),
    };
    let times = if case.repeat > 1 { format!(", {} times", case.repeat) } else { String::new() };
    Problem {
        file: cases.file.clone(),
        source: Arc::clone(&cases.source),
        span: Some(expected.span.clone()),
        message,
        help: format!(
            "asked `{request}` from {}{times}; `portcullis explain` tells each guard's verdict",
            case.from
        ),
    }
}

fn to_json(cases: &Cases, outcome: &Outcome<'_>) -> Value {
    let failures: Vec<_> = outcome
        .failures
        .iter()
        .map(|failure| {
            let position = problem(cases, outcome.case, failure).position();
            json!({
                "request": failure.request,
                "key": failure.expected.what.key(),
                "expected": &*failure.expected.value,
                "got": failure.got,
                "line": position.map(|(line, _)| line),
                "column": position.map(|(_, column)| column),
            })
        })
        .collect();
    json!({ "case": &*outcome.case.name, "passed": failures.is_empty(), "failures": failures })
}
