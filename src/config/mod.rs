//! Text becomes [`settings::Settings`]: the only door is [`load`], for start, reload, `check` and tests alike.

pub mod app;
pub mod class;
pub mod defaults;
pub mod keys;
pub mod path_pattern;
pub mod problem;
mod read;
pub mod settings;
pub mod values;
pub mod verification;
pub mod watch;

use std::path::{Path, PathBuf};

use problem::{Problem, Problems};
use settings::Settings;

use crate::clock::{Clock, Now};

/// Reads and checks a config file and all that it names (app files, certificates).
///
/// # Errors
/// Every problem of every file at once, each with its place.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let unreadable = |why: String| {
        let message = format!("{} cannot be read: {why}", path.display());
        let help = "name another file, or begin with `portcullis init`";
        Problems(vec![Problem::of_file(path, message, help)])
    };
    let bytes = read::read_file(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".into()))?;
    parse(path, &text, Clock::system().now())
}

/// Reads and checks the text of a config: what [`load`] does, for a text that is in no file (`run --app …`) and for
/// tests with a clock of their own. Relative paths are relative to the directory of `path`; `now` judges certificates.
///
/// # Errors
/// Every problem of every file at once, each with its place.
pub fn parse(path: &Path, text: &str, now: Now) -> Result<Loaded, Problems> {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let (settings, mut found) = read::settings(&path, text, now);
    found.problems.sort();
    found.warnings.sort();
    match settings {
        Some(settings) if found.problems.is_empty() => {
            let mut settings = settings;
            settings.files.append(&mut found.files);
            Ok(Loaded { settings, warnings: found.warnings })
        }
        None if found.problems.is_empty() => {
            let help = "please report this file: no problem was found, yet no settings either";
            Err(Problems(vec![Problem::of_file(path, "the config cannot be used", help)]))
        }
        _ => Err(found.problems),
    }
}

/// The names of the built-in app files.
pub fn builtin_apps() -> impl Iterator<Item = &'static str> {
    read::builtin_names()
}

/// The text of a built-in app file.
pub fn builtin_app(name: &str) -> Option<&'static str> {
    read::builtin_text(name)
}

/// A config that holds, and what should be said of it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Not wrong, yet worth a word: printed by `check`, logged at start.
    pub warnings: Problems,
}
