//! Text becomes [`settings::Settings`]: the only door is [`load`], for start, reload, `check` and tests alike.

pub mod acme;
pub mod app;
pub mod bound;
pub mod cases;
pub mod class;
mod class_map;
pub mod client_certificates;
pub mod cluster;
pub mod csp;
pub mod defaults;
mod file_block;
mod header_settings;
pub mod keys;
mod login_guard;
mod networks;
pub mod passthrough;
pub mod path_pattern;
pub mod problem;
mod read;
pub mod schema;
pub mod settings;
pub mod share;
pub mod upstream;
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
    parse(path, &text_of(path)?, Clock::system().now())
}

/// As [`load`]; `named` gets every file that the config names, also when it is refused, so that one who mends it is seen.
///
/// # Errors
/// As [`load`].
pub fn load_naming(path: &Path, named: &mut Vec<PathBuf>) -> Result<Loaded, Problems> {
    let (settings, found) = read(path, &text_of(path)?, Clock::system().now());
    named.extend(found.files.iter().cloned());
    judged(path, settings, found)
}

/// As [`load`], for a start. A block file with mistakes keeps no gateway from starting when the blocks of its last good
/// copy are in the state, as `known` says of a state directory: they are then [`Loaded::unread`], and the file says nothing.
///
/// # Errors
/// As [`load`].
pub fn load_to_start(path: &Path, known: impl FnOnce(&Path) -> bool) -> Result<Loaded, Problems> {
    let (settings, found) = read(path, &text_of(path)?, Clock::system().now());
    match settings {
        Some(mut settings) if found.problems.is_empty() && known(&settings.state_dir) => {
            settings.files.extend(found.files);
            Ok(Loaded { settings, warnings: found.warnings, unread: found.block_file })
        }
        settings => judged(path, settings, found),
    }
}

fn text_of(path: &Path) -> Result<String, Problems> {
    let unreadable = |why: String| {
        let message = format!("{} cannot be read: {why}", path.display());
        let help = "name another file, or begin with `portcullis init`";
        Problems(vec![Problem::of_file(path, message, help)])
    };
    let bytes = read::read_file(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|_| unreadable("it is not UTF-8 text".into()))
}

/// Reads and checks the text of a config: what [`load`] does, for a text that is in no file (`run --app …`) and for
/// tests with a clock of their own. Relative paths are relative to the directory of `path`; `now` judges certificates.
///
/// # Errors
/// Every problem of every file at once, each with its place.
pub fn parse(path: &Path, text: &str, now: Now) -> Result<Loaded, Problems> {
    let (settings, found) = read(path, text, now);
    judged(path, settings, found)
}

fn read(path: &Path, text: &str, now: Now) -> (Option<Settings>, read::Found) {
    let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let (settings, mut found) = read::settings(&path, text, now);
    found.problems.sort();
    found.warnings.sort();
    (settings, found)
}

fn judged(path: &Path, settings: Option<Settings>, mut found: read::Found) -> Result<Loaded, Problems> {
    if !found.block_file.is_empty() {
        found.problems.0.append(&mut found.block_file.0);
        found.problems.sort();
    }
    match settings {
        Some(mut settings) if found.problems.is_empty() => {
            settings.files.append(&mut found.files);
            Ok(Loaded { settings, warnings: found.warnings, unread: Problems::default() })
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

/// The built-in app files, read.
pub fn described_apps() -> impl Iterator<Item = app::App> {
    builtin_apps().filter_map(|name| read::builtin(name, Now { mono: 0, wall: 0 }))
}

/// What to say to somebody who asked for an app file that is not built in.
pub fn nearest_app(name: &str) -> String {
    let names: Vec<_> = builtin_apps().collect();
    read::suggestion(name, &names)
}

/// A config that holds, and what should be said of it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Not wrong, yet worth a word: printed by `check`, logged at start.
    pub warnings: Problems,
    /// What is wrong with a block file whose last good copy holds; only of [`load_to_start`].
    pub unread: Problems,
}
