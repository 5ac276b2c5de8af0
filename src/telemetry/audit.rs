//! The audit log: every block, unblock, lockout, reload and hole in an allowlist, with who, what, why and when.
//!
//! One JSON object a line, synced before the person who gave the order is answered. The file is opened for each line,
//! so that whoever rotates it need tell nobody.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Takes a line for the process log.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// The audit log.
pub struct Audit {
    path: PathBuf,
    say: Say,
}

/// One line of the audit log.
#[derive(Debug, Serialize)]
pub struct Entry<'a, T> {
    /// What was done: `block`, `unblock`, `reload`, `allow`, `lockout`.
    pub action: &'static str,
    /// Who gave the order.
    pub by: &'a str,
    /// To what.
    pub what: &'a T,
    /// Why, in the words of who gave the order.
    pub reason: &'a str,
    /// What came of it.
    pub outcome: &'a str,
}

impl Audit {
    /// A log appended to this file, and said to the process log too.
    pub fn new(path: PathBuf, say: Say) -> Self {
        Self { path, say }
    }

    /// Writes one line. `wall` is Unix milliseconds.
    ///
    /// # Errors
    /// When it did not reach the file; the process log has it all the same.
    pub fn record<T: Serialize>(&self, wall: u64, entry: &Entry<'_, T>) -> io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a, T> {
            time: String,
            #[serde(flatten)]
            entry: &'a Entry<'a, T>,
        }
        let line = serde_json::to_string(&Line { time: timestamp(wall), entry })?;
        let mut line = printable(&line, escape_json);
        (self.say)(&format!("audit: {line}"));
        line.push('\n');
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Unix milliseconds as RFC 3339, to the second.
pub fn timestamp(wall: u64) -> String {
    i64::try_from(wall / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{wall} ms"))
}

/// A text with which nobody can forge lines or steer a terminal: all but printable ASCII is escaped.
pub fn plain(text: &str) -> String {
    printable(text, |character, to| to.extend(character.escape_default()))
}

fn printable(text: &str, escape: fn(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            ' '..='~' => out.push(character),
            other => escape(other, &mut out),
        }
    }
    out
}

fn escape_json(character: char, to: &mut String) {
    let mut units = [0; 2];
    for unit in character.encode_utf16(&mut units) {
        to.push_str(&format!("\\u{unit:04x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cannot_be_forged_and_stays_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let audit = Audit::new(path.clone(), Arc::new(|_| {}));
        let reason = "x\n{\"action\":\"unblock\"}\u{1b}[2J\u{202e}\u{7f}ü😀";
        let entry = Entry { action: "block", by: "uid 0", what: &"subject 7", reason, outcome: "durable" };
        audit.record(1_700_000_000_000, &entry).unwrap();
        audit.record(1_700_000_001_000, &entry).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text}");
        assert_eq!(text.lines().count(), 2);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["reason"], reason);
        assert_eq!(line["time"], "2023-11-14T22:13:20Z");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_terminal_cannot_be_steered() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc"), "a\\u{1b}[2Jb\\r\\nc");
    }
}
