//! Where the lines of a log go: standard output, or a file that can be opened anew when it was moved away.

use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::audit::Say;

/// What Linux writes to a pipe in one piece (`PIPE_BUF`).
const PIECE: usize = 4096;

/// How long a file may be gone before it is made anew without being asked, in milliseconds: `logrotate` moves all files
/// first, makes new ones, and signals then.
const GONE: u64 = 10_000;

/// How often that is looked at, in milliseconds.
const LOOK: u64 = 1000;

/// Where lines go.
pub(super) trait Target: Debug + Send {
    /// Writes some of the bytes; may block.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Opens the file anew; the old one is kept if that fails.
    fn reopen(&mut self) -> io::Result<()>;
    /// Called before each batch, with the time of the last line in milliseconds since 1970.
    fn tend(&mut self, _wall: u64, _say: &Say) {}
    /// For messages.
    fn name(&self) -> String;
}

/// Standard output. What else writes to the same pipe (the process log, under `2>&1`) must not come between halves of a
/// line, so it is written in pieces of whole lines that the kernel takes at once.
#[derive(Debug)]
pub(super) struct Stdout {
    file: File,
    whole: bool,
}

impl Stdout {
    pub(super) fn open() -> io::Result<Self> {
        // Its own descriptor: `io::stdout()` would buffer, and lose track of what was written when it fails.
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let whole = file.metadata()?.is_file();
        Ok(Self { file, whole })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }
}

impl Target for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..PIECE).filter(|_| !self.whole).unwrap_or(bytes);
        let lines = piece.iter().rposition(|byte| *byte == b'\n').map_or(piece.len(), |end| end + 1);
        self.file.write(piece.get(..lines).unwrap_or(piece))
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "standard output".to_owned()
    }
}

/// A file, appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    looked: u64,
    gone: Option<u64>,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append(path)?, looked: 0, gone: None })
    }

    fn is_in_place(&self) -> bool {
        let (Ok(here), Ok(there)) = (self.file.metadata(), std::fs::metadata(&self.path)) else {
            return false;
        };
        (here.dev(), here.ino()) == (there.dev(), there.ino())
    }
}

impl Target for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append(&self.path)?;
        self.gone = None;
        Ok(())
    }

    /// Whoever moves or deletes the file and tells nobody has a new one all the same.
    fn tend(&mut self, wall: u64, say: &Say) {
        if wall.saturating_sub(self.looked) < LOOK {
            return;
        }
        self.looked = wall;
        if self.is_in_place() {
            self.gone = None;
            return;
        }
        let gone = *self.gone.get_or_insert(wall);
        if wall.saturating_sub(gone) >= GONE && self.reopen().is_ok() {
            say(&format!("the access log was moved away; it is open anew: {}", self.name()));
        }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    // A named pipe that nobody reads would hold us up; who holds both ends is not.
    let is_pipe = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    options.read(is_pipe).open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn quiet() -> Say {
        Arc::new(|_| {})
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew_after_a_while_and_at_once_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let mut file = LogFile::open(&path).unwrap();
        for (wall, text) in
            [(100_000, "one\n"), (101_000, "two\n"), (110_999, "three\n"), (112_000, "four\n")]
        {
            if wall == 101_000 {
                std::fs::rename(&path, &old).unwrap();
            }
            file.tend(wall, &quiet());
            file.write(text.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "four\n");
        std::fs::rename(&path, &old).unwrap();
        file.reopen().unwrap();
        file.write(b"five\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "five\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_stays_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let mut file = LogFile::open(&path).unwrap();
        std::fs::rename(&path, &old).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(file.reopen().is_err());
        file.write(b"on\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "on\n");
    }

    #[test]
    fn a_named_pipe_without_reader_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(LogFile::open(&path).unwrap().write(b"x\n").is_ok());
    }
}
