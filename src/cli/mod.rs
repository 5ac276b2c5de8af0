//! What a person types: one file per verb or family; no logic of its own.

pub mod check;
pub mod init;

use std::process::ExitCode;

/// Runs the command line and answers its exit code.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
