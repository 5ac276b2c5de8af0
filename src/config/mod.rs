//! Text becomes [`settings::Settings`]: the only door is [`load`], for start, reload, `check` and tests alike.

pub mod app;
pub mod class;
pub mod path_pattern;
pub mod problem;
pub mod settings;
pub mod values;
pub mod watch;

use std::path::Path;

use problem::Problems;
use settings::Settings;

/// Reads and checks a config file and all that it names (app files, certificates).
///
/// # Errors
/// Every problem of every file at once, each with its place.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let _ = path;
    Err(Problems::default())
}

/// A config that holds, and what should be said of it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Not wrong, yet worth a word: printed by `check`, logged at start.
    pub warnings: Problems,
}
