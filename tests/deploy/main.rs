//! What `deploy/` holds does what its comments say, tried with the programs that read it: systemd, Prometheus, Fail2Ban,
//! logrotate, the image's own file system. `make test-deps` installs them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

#[path = "../common/mod.rs"]
mod common;
mod image;
mod logs;
mod metrics;
mod prometheus;
mod sandbox;
mod systemd;
mod yaml;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A file or directory of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a program that the tests need.
fn tried(command: &mut Command) -> Output {
    let program = command.get_program().to_string_lossy().into_owned();
    command.output().unwrap_or_else(|error| panic!("{program}: {error}; `make test-deps` installs it"))
}

/// Runs it, and wants success; what it said, on both outputs.
fn succeeds(command: &mut Command) -> String {
    let output = tried(command);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

/// A program of the virtual environment that `make test-deps` fills from PyPI.
fn from_pypi(program: &str) -> Command {
    Command::new(repository("target/test-tools/bin").join(program))
}
