//! What a person types: one file per verb or family; no logic of its own.

pub mod block;
pub mod blocks;
pub mod client;
pub mod reload;
pub mod status;
pub mod token;

use std::process::ExitCode;

/// Runs the command line and answers its exit code.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
