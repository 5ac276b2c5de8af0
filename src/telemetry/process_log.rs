//! The process log: standard error, one line each, with the time. Who says something never waits for who reads it.
//!
//! A thread of its own writes. What finds no room while nobody reads is dropped and counted
//! (`portcullis_process_log_dropped_total`), and the log says how many lines it lacks as soon as it is read again.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::audit::timestamp;

/// Bytes that may wait for a reader: some thousand lines.
const ROOM: usize = 256 * 1024;
/// How long the end of the gateway waits for a reader.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Before a pipe that does not block is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The process log; when it is dropped what waits is written, for two seconds at most.
#[derive(Debug)]
pub struct ProcessLog(Speaker);

/// Says lines, and counts those that were dropped.
#[derive(Debug, Clone, Default)]
pub struct Speaker(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    text: String,
    /// Lines lost since the text was taken last, and when the last of them was said.
    lost: u64,
    lost_at: u64,
    /// All that were ever lost.
    dropped: u64,
    /// The writer has taken text and not written it yet.
    writing: bool,
}

impl ProcessLog {
    /// Starts the writer to standard error.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start() -> io::Result<Self> {
        Self::to(io::stderr())
    }

    fn to(target: impl Write + Send + 'static) -> io::Result<Self> {
        let speaker = Speaker::default();
        let shared = Arc::clone(&speaker.0);
        std::thread::Builder::new().name("process-log".into()).spawn(move || shared.work(target))?;
        Ok(Self(speaker))
    }

    /// For those who have something to say.
    pub fn speaker(&self) -> Speaker {
        self.0.clone()
    }

    fn flush(&self, limit: Duration) {
        let waiting = self.0.0.locked();
        let busy = |waiting: &mut Waiting| waiting.writing || waiting.is_due();
        drop(self.0.0.changed.wait_timeout_while(waiting, limit, busy));
    }
}

impl Drop for ProcessLog {
    fn drop(&mut self) {
        self.flush(LAST_LINES);
    }
}

impl Speaker {
    /// Says one line. `wall` is Unix milliseconds.
    pub fn say(&self, wall: u64, line: &str) {
        let mut waiting = self.0.locked();
        // Once a line is lost the next ones are too, until the gap has been said in its place.
        if waiting.lost > 0 || waiting.text.len() + line.len() > ROOM {
            waiting.lost += 1;
            waiting.lost_at = wall;
            waiting.dropped += 1;
        } else {
            waiting.push(wall, line);
        }
        drop(waiting);
        self.0.changed.notify_all();
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.0.locked().dropped
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, mut target: impl Write) {
        loop {
            let text = self.take();
            let unwritten = write(&mut target, text.as_bytes());
            let mut waiting = self.locked();
            waiting.dropped += unwritten;
            waiting.writing = false;
            drop(waiting);
            self.changed.notify_all();
        }
    }

    /// Waits for text, and takes all of it.
    fn take(&self) -> String {
        let idle = |waiting: &mut Waiting| !waiting.is_due();
        let waiting = self.changed.wait_while(self.locked(), idle);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let (lost, wall) = (std::mem::take(&mut waiting.lost), waiting.lost_at);
        if lost > 0 {
            waiting.push(wall, &format!("{lost} lines of this log are lost: standard error was not read"));
        }
        waiting.writing = true;
        std::mem::take(&mut waiting.text)
    }
}

impl Waiting {
    fn is_due(&self) -> bool {
        !self.text.is_empty() || self.lost > 0
    }

    fn push(&mut self, wall: u64, line: &str) {
        for part in [&*timestamp(wall), " portcullis: ", line, "\n"] {
            self.text.push_str(part);
        }
    }
}

/// Writes, however long it takes; how many lines cannot be written at all.
fn write(target: &mut impl Write, mut text: &[u8]) -> u64 {
    while !text.is_empty() {
        match target.write(text) {
            Ok(taken @ 1..) => text = text.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            // Nobody can be told.
            Ok(_) | Err(_) => return text.iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Takes a piece each time it is let.
    struct Slow {
        let_through: Receiver<()>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.let_through.recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
            self.read.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (ProcessLog, SyncSender<()>, Arc<Mutex<Vec<u8>>>) {
        let (open, let_through) = sync_channel(1000);
        let read = Arc::<Mutex<Vec<u8>>>::default();
        let log = ProcessLog::to(Slow { let_through, read: Arc::clone(&read) }).unwrap();
        (log, open, read)
    }

    #[test]
    fn who_speaks_never_waits_and_each_line_is_there_or_counted() {
        let (log, open, read) = slow();
        let speaker = log.speaker();
        for number in 0..20_000 {
            speaker.say(1_700_000_000_000, &format!("line {number} {}", "x".repeat(100)));
        }
        let dropped = speaker.dropped();
        assert!(dropped > 10_000, "{dropped}");
        (0..10).for_each(|_| open.send(()).unwrap());
        log.flush(Duration::from_secs(10));
        speaker.say(1_700_000_000_000, "read again");
        log.flush(Duration::from_secs(10));
        let text = String::from_utf8(read.lock().unwrap().clone()).unwrap();
        let there = text.lines().filter(|line| line.contains(" portcullis: line ")).count() as u64;
        assert_eq!(there + dropped, 20_000);
        let lost: u64 = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("2023-11-14T22:13:20Z portcullis: ")?
                    .strip_suffix(" lines of this log are lost: standard error was not read")
            })
            .map(|lines| lines.parse::<u64>().unwrap())
            .sum();
        assert_eq!(lost, dropped, "the log says what it lacks");
        assert!(text.ends_with("portcullis: read again\n"), "{text}");
    }

    #[test]
    fn the_end_waits_for_the_last_lines_and_not_for_ever() {
        let (log, open, read) = slow();
        log.speaker().say(0, "last");
        open.send(()).unwrap();
        drop(log);
        assert!(read.lock().unwrap().ends_with(b"portcullis: last\n"));
        let (log, _open, _read) = slow();
        log.speaker().say(0, "nobody reads this");
        drop(log);
    }
}
