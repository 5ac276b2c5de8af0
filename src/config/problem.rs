//! Problems of config files: place, message, help; rendered with a snippet.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde_json::{Value, json};

/// One problem.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its text, for the snippet, values of secret keys blanked; empty when it could not be read.
    pub source: Arc<str>,
    /// Where in the text, in bytes; `None`: the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

/// All problems of a config.
#[derive(Debug, Clone, Default)]
pub struct Problems(pub Vec<Problem>);

/// How a problem is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing is taken over while it stands.
    Error,
    /// Worth a word only.
    Warning,
}

impl Problem {
    /// A problem of a file as a whole.
    pub fn of_file(file: impl Into<PathBuf>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            source: Arc::from(""),
            span: None,
            message: message.into(),
            help: help.into(),
        }
    }

    /// Line and column, both from 1, the column in characters.
    pub fn position(&self) -> Option<(usize, usize)> {
        let before = self.source.get(..self.clamped_span()?.start)?;
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..)?.chars().count() + 1;
        Some((before.matches('\n').count() + 1, column))
    }

    /// `file:line:column`, or the file alone.
    pub fn place(&self) -> String {
        match self.position() {
            Some((line, column)) => format!("{}:{line}:{column}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }

    /// With snippet and help, as `check` prints it.
    pub fn render(&self, severity: Severity, coloured: bool) -> String {
        let file = self.file.display().to_string();
        let level = match severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str());
        let mut group = match self.clamped_span() {
            Some(span) => title.element(
                Snippet::source(&*self.source).path(file).annotation(AnnotationKind::Primary.span(span)),
            ),
            None => title.element(annotate_snippets::Origin::path(file)),
        };
        if !self.help.is_empty() {
            group = group.element(Level::HELP.message(self.help.as_str()));
        }
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group])
    }

    /// For `--json`; `line` and `column` are null for a file as a whole.
    pub fn to_json(&self) -> Value {
        let position = self.position();
        json!({
            "file": self.file.display().to_string(),
            "line": position.map(|(line, _)| line),
            "column": position.map(|(_, column)| column),
            "message": self.message,
            "help": self.help,
        })
    }

    /// The span, first line of it only, on character boundaries: a parser may point anywhere.
    fn clamped_span(&self) -> Option<Range<usize>> {
        let span = self.span.as_ref()?;
        let down = |mut at: usize| {
            at = at.min(self.source.len());
            while !self.source.is_char_boundary(at) {
                at = at.saturating_sub(1);
            }
            at
        };
        let start = down(span.start);
        let end = down(span.end).max(start);
        let line_end = self.source.get(start..end)?.find('\n').map_or(end, |at| start + at);
        Some(start..line_end)
    }
}

impl Problems {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, a blank line between two.
    pub fn render(&self, severity: Severity, coloured: bool) -> String {
        let parts: Vec<_> = self.0.iter().map(|problem| problem.render(severity, coloured)).collect();
        parts.join("\n\n")
    }

    /// For `--json`.
    pub fn to_json(&self) -> Vec<Value> {
        self.0.iter().map(Problem::to_json).collect()
    }

    /// By file as read, then by place: a reader goes through the file once.
    pub(super) fn sort(&mut self) {
        let mut files: Vec<PathBuf> = Vec::new();
        for problem in &self.0 {
            if !files.contains(&problem.file) {
                files.push(problem.file.clone());
            }
        }
        self.0.sort_by_key(|problem| {
            let file = files.iter().position(|file| *file == problem.file);
            (file, problem.span.as_ref().map(|span| span.start))
        });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Severity::Error, false))
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(source: &str, span: Range<usize>) -> Problem {
        Problem {
            file: "a.toml".into(),
            source: source.into(),
            span: Some(span),
            message: "wrong".into(),
            help: "right".into(),
        }
    }

    #[test]
    fn columns_count_characters_from_one() {
        assert_eq!(problem("a\nböc = 1", 5..6).place(), "a.toml:2:3");
        assert_eq!(problem("abc", 0..1).place(), "a.toml:1:1");
        assert_eq!(Problem::of_file("a.toml", "", "").place(), "a.toml");
    }

    proptest! {
        #[test]
        fn any_text_and_any_span_can_be_shown(source in any::<String>(), start in 0usize..99, len in 0usize..99) {
            let problem = problem(&source, start..start + len);
            let _ = problem.render(Severity::Error, true);
            let _ = problem.to_json();
        }
    }
}
