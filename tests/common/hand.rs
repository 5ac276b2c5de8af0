//! A gateway whose wall clock is set by hand.

use std::process::Command;
use std::time::Duration;

use tempfile::NamedTempFile;

/// The wall clock of a gateway; its monotonic one, and everybody else's, go on as they are.
pub struct Hand(NamedTempFile);

impl Hand {
    pub fn new() -> Self {
        let hand = Self(NamedTempFile::new().unwrap());
        hand.set(Duration::ZERO);
        hand
    }

    /// So far ahead.
    pub fn set(&self, ahead: Duration) {
        std::fs::write(self.0.path(), format!("+{}\n", ahead.as_secs())).unwrap();
    }

    /// What a gateway is started with that goes by it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let library = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let library = library.expect("faketime (Debian package faketime)").stdout;
        vec![
            ("LD_PRELOAD", String::from_utf8(library).unwrap().trim().to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.path().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}
