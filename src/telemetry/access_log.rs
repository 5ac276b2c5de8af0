//! The access log: workers write lines into lanes of their own, one thread carries them to their target.
//!
//! A worker never waits: a lane that is full drops lines and counts them.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::line::{self, Entry, Form};
use super::mask::Mask;
use crate::config::settings::{Log, LogFormat, LogTarget};

/// Bytes that a lane holds at most: seconds of a busy worker, and then something is wrong with the target.
const LANE: usize = 1 << 20;

/// How long the writer gathers before it writes, so that a busy gateway makes few system calls.
const GATHER: Duration = Duration::from_millis(5);

/// The access log; ends its thread when closed.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    form: Form,
    writer: Option<JoinHandle<()>>,
}

/// What one worker writes to.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    buffer: Option<Arc<Mutex<Vec<u8>>>>,
    form: Form,
    line: RefCell<String>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Arc<Mutex<Vec<u8>>>>,
    pending: bool,
    closed: bool,
}

/// Counts dropped lines.
#[derive(Debug, Clone)]
pub struct Drops(Arc<Shared>);

impl Drops {
    /// Since the start.
    pub fn count(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

// === impl AccessLog ===

impl AccessLog {
    /// Opens the target and starts the writer.
    ///
    /// # Errors
    /// When a file cannot be opened for appending, or no thread started.
    pub fn open(log: &Log) -> io::Result<Self> {
        let target: Option<Box<dyn Target>> = match &log.access {
            LogTarget::Off => None,
            LogTarget::Stdout => Some(Box::new(io::stdout())),
            LogTarget::File(path) => Some(Box::new(LogFile::open(path)?)),
        };
        let terminal = log.access == LogTarget::Stdout && io::stdout().is_terminal();
        let form = match log.format {
            LogFormat::Combined => Form::Combined,
            LogFormat::Json if terminal => Form::Readable,
            LogFormat::Json => Form::Json,
        };
        Self::start(target, form)
    }

    fn start(target: Option<Box<dyn Target>>, form: Form) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let writer = match target {
            Some(target) => {
                let shared = Arc::clone(&shared);
                Some(
                    std::thread::Builder::new()
                        .name("access-log".into())
                        .spawn(move || carry(&shared, target))?,
                )
            }
            None => None,
        };
        Ok(Self { shared, form, writer })
    }

    /// A lane for one worker.
    pub fn lane(&self) -> Lane {
        let buffer = self.writer.is_some().then(|| {
            let buffer = Arc::<Mutex<Vec<u8>>>::default();
            locked(&self.shared.state).lanes.push(Arc::clone(&buffer));
            buffer
        });
        Lane { shared: Arc::clone(&self.shared), buffer, form: self.form, line: RefCell::default() }
    }

    /// The count of dropped lines, for who asks later.
    pub fn drops(&self) -> Drops {
        Drops(Arc::clone(&self.shared))
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Writes what is there and ends the writer; lines that come later are dropped.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        locked(&self.shared.state).closed = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.end();
    }
}

// === impl Lane ===

impl Lane {
    /// Whether lines go anywhere at all: for a log that is off nothing need be gathered.
    pub fn is_on(&self) -> bool {
        self.buffer.is_some()
    }

    /// Writes one line, with the secrets that `mask` knows taken out. Never waits.
    pub fn write(&self, entry: &Entry<'_>, mask: &Mask) {
        let Some(buffer) = &self.buffer else { return };
        let mut line = self.line.borrow_mut();
        line.clear();
        line::write(self.form, entry, mask, &mut line);
        let mut buffer = locked(buffer);
        if buffer.len() + line.len() > LANE {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = buffer.is_empty();
        buffer.extend_from_slice(line.as_bytes());
        drop(buffer);
        if first {
            locked(&self.shared.state).pending = true;
            self.shared.wake.notify_one();
        }
    }
}

// === the writer ===

/// Where lines go.
trait Target: Write + Send {
    /// Called before each batch.
    fn renew(&mut self) {}
}

impl Target for io::Stdout {}

fn carry(shared: &Shared, mut target: Box<dyn Target>) {
    let mut batch = Vec::new();
    loop {
        let (lanes, closed) = wait(shared);
        target.renew();
        for lane in &lanes {
            batch.clear();
            std::mem::swap(&mut *locked(lane), &mut batch);
            let lost = target.write_all(&batch).and_then(|()| target.flush()).is_err();
            if lost {
                let lines = batch.iter().filter(|byte| **byte == b'\n').count();
                shared.dropped.fetch_add(lines as u64, Ordering::Relaxed);
            }
        }
        if closed {
            return;
        }
    }
}

/// Waits until something is there, then a moment longer.
fn wait(shared: &Shared) -> (Vec<Arc<Mutex<Vec<u8>>>>, bool) {
    let state = locked(&shared.state);
    let ready = shared.wake.wait_while(state, |state| !state.pending && !state.closed);
    let state = ready.unwrap_or_else(PoisonError::into_inner);
    let gathered = shared.wake.wait_timeout_while(state, GATHER, |state| !state.closed);
    let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
    state.pending = false;
    // A lane whose worker has ended stays only until it is empty.
    state.lanes.retain(|lane| Arc::strong_count(lane) > 1 || !locked(lane).is_empty());
    (state.lanes.clone(), state.closed)
}

/// A file that is opened anew when it was moved away: log rotation needs no signal.
struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    fn is_in_place(&self) -> bool {
        let (Ok(here), Ok(there)) = (self.file.metadata(), std::fs::metadata(&self.path)) else {
            return false;
        };
        (here.dev(), here.ino()) == (there.dev(), there.ino())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Target for LogFile {
    fn renew(&mut self) {
        if !self.is_in_place()
            && let Ok(fresh) = Self::open(&self.path)
        {
            *self = fresh;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::telemetry::line::Verdict;

    fn entry(id: &str) -> Entry<'_> {
        Entry {
            wall: 0,
            id,
            client: &"203.0.113.7",
            site: "-",
            class: None,
            method: "GET",
            target: "/",
            version: "HTTP/1.1",
            referer: None,
            agent: None,
            location: None,
            status: 200,
            verdict: Verdict::Permitted,
            received: 0,
            sent: 0,
            duration: Duration::ZERO,
            upstream: None,
            cause: None,
            token: None,
        }
    }

    fn file_log(path: &Path) -> Log {
        Log { access: LogTarget::File(path.to_owned()), format: LogFormat::Json }
    }

    #[test]
    fn every_line_of_every_lane_is_in_the_file_when_the_log_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&file_log(&path)).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let lane = log.lane();
                scope.spawn(move || {
                    (0..500).for_each(|number| {
                        lane.write(&entry(&format!("{worker}-{number}")), &Mask::default())
                    });
                });
            }
        });
        assert_eq!(log.dropped(), 0);
        log.close();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: std::collections::HashSet<String> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(ids.len(), 2000);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let mut file = LogFile::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        file.renew();
        file.write_all(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }

    /// A target that takes nothing until it is let go.
    struct Stuck(Arc<Mutex<()>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _wait = locked(&self.0);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Target for Stuck {}

    #[test]
    fn a_target_that_takes_nothing_stops_no_worker_and_what_is_lost_is_counted() {
        let gate = Arc::new(Mutex::new(()));
        let stuck = gate.lock().unwrap();
        let log = AccessLog::start(Some(Box::new(Stuck(Arc::clone(&gate)))), Form::Json).unwrap();
        let lane = log.lane();
        let lines = 4 * LANE / 100;
        (0..lines).for_each(|_| lane.write(&entry("x"), &Mask::default()));
        assert!(log.dropped() > 0 && log.dropped() < lines as u64);
        drop(stuck);
    }

    #[test]
    fn a_log_that_is_off_writes_and_drops_nothing() {
        let log = AccessLog::open(&Log { access: LogTarget::Off, format: LogFormat::Json }).unwrap();
        log.lane().write(&entry("x"), &Mask::default());
        assert_eq!(log.dropped(), 0);
    }
}
