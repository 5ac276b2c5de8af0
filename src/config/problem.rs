//! Problems of config files: place, message, help; rendered with a snippet.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// One problem.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its text, for the snippet; empty when it could not be read.
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

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|problem| writeln!(f, "{}: {}", problem.file.display(), problem.message))
    }
}
