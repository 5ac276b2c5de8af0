//! serve

use crate::config::settings::Settings;

/// Placeholder for the composition root on this branch.
///
/// # Errors
/// Always.
pub fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let _ = settings;
    Err("this branch has no composition root".into())
}
