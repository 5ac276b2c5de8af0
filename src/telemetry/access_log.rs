//! The access log: workers write lines into [`lanes`](super::lanes) of their own, one thread carries them to their target.

use std::cell::RefCell;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::audit::Say;
use super::lanes::{Buffer, Order, Outlet, Shared, Writer, locked};
use super::line::{Entry, Form, Masks, Pen};
use super::target::{LogFile, Stdout, Target};
use crate::config::settings::{Log, LogFormat, LogTarget};

/// How long the end of the gateway waits for a target that takes nothing.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The access log; its thread ends when it is closed.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    /// Disconnected when the writer has ended.
    ended: Receiver<()>,
}

/// What one worker writes to.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    buffer: Arc<Mutex<Buffer>>,
    pen: RefCell<Pen>,
}

/// Gives the log orders while the gateway runs, and counts what was dropped.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

/// A target that is open, and not yet used.
#[derive(Debug)]
pub struct Prepared(Outlet);

impl Prepared {
    /// Opens what the config names.
    ///
    /// # Errors
    /// When a file cannot be opened for appending; the text names it.
    pub fn open(log: &Log) -> io::Result<Self> {
        let form = match log.format {
            LogFormat::Combined => Form::Combined,
            LogFormat::Json => Form::Json,
        };
        let (target, form): (Box<dyn Target>, _) = match &log.access {
            LogTarget::Off => return Ok(Self(Outlet::default())),
            LogTarget::Stdout => {
                let stdout = Stdout::open()?;
                let people = stdout.is_terminal() && form == Form::Json;
                (Box::new(stdout), if people { Form::Readable } else { form })
            }
            LogTarget::File(path) => {
                let file = LogFile::open(path).map_err(|error| {
                    let path = path.display();
                    io::Error::new(
                        error.kind(),
                        format!("cannot open log.access {path} for appending: {error}"),
                    )
                })?;
                (Box::new(file), form)
            }
        };
        Ok(Self(Outlet { target: Some(target), form: Some(form) }))
    }
}

// === impl AccessLog ===

impl AccessLog {
    /// Starts the writer. `say` is told when the target fails, and when it works again.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(prepared: Prepared, say: Say) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (alive, ended) = sync_channel(1);
        let writer = Writer::new(Arc::clone(&shared), prepared.0, say);
        std::thread::Builder::new().name("access-log".into()).spawn(move || {
            writer.work();
            drop(alive);
        })?;
        Ok(Self { shared, ended })
    }

    /// A lane for one worker.
    pub fn lane(&self) -> Lane {
        Lane { shared: Arc::clone(&self.shared), buffer: self.shared.lane(), pen: RefCell::default() }
    }

    /// For those who give orders, or ask for the count.
    pub fn control(&self) -> Control {
        Control(Arc::clone(&self.shared))
    }

    /// Writes what is there and ends the writer; a target that takes nothing is left after two seconds.
    pub fn close(self) {
        self.shared.close();
        let ended = self.ended.recv_timeout(LAST_LINES);
        debug_assert_ne!(ended, Ok(()), "the writer says nothing");
        let _: Result<(), RecvTimeoutError> = ended;
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.shared.close();
    }
}

// === impl Control ===

impl Control {
    /// Opens the file anew, for log rotation: lines that were written before stay in the old file, those after go to the
    /// new one. If that fails the old file is kept, and the process log says so.
    pub fn reopen(&self) {
        self.0.order(Order::Reopen);
    }

    /// Lines go to another target from now on.
    pub fn switch(&self, to: Prepared) {
        self.0.order(Order::Switch(to.0));
    }

    /// Whether the last try to write has failed.
    pub fn is_failing(&self) -> bool {
        self.0.is_failing()
    }

    /// Lines that were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.0.dropped()
    }
}

// === impl Lane ===

impl Lane {
    /// Whether lines go anywhere at all: for a log that is off nothing need be gathered.
    pub fn is_on(&self) -> bool {
        self.shared.form().is_some()
    }

    /// Writes one line, with the secrets that the masks know taken out. Never waits.
    pub fn write(&self, entry: &Entry<'_>, masks: Masks<'_>) {
        let Some(form) = self.shared.form() else { return };
        let mut pen = self.pen.borrow_mut();
        let mut line = pen.write(form, entry, masks);
        let buffer = locked(&self.buffer);
        match buffer.form {
            Some(own) if own == form => {}
            // The log is being switched: what counts is the form of this lane.
            Some(own) => line = pen.write(own, entry, masks),
            None => return,
        }
        self.shared.push(buffer, line, entry.wall);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::MutexGuard;

    use super::*;
    use crate::clock::Clock;
    use crate::telemetry::lanes::LANE;
    use crate::telemetry::line::Verdict;
    use crate::telemetry::mask::Mask;

    fn entry(id: &str) -> Entry<'_> {
        Entry {
            wall: 0,
            id,
            client: None,
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
            certificate: None,
        }
    }

    fn write(lane: &Lane, id: &str) {
        let mask = Mask::default();
        lane.write(&entry(id), Masks { site: &mask, all: &mask });
    }

    fn file(path: &Path, format: LogFormat) -> Prepared {
        Prepared::open(&Log { access: LogTarget::File(path.to_owned()), format }).unwrap()
    }

    fn quiet() -> Say {
        Arc::new(|_| {})
    }

    fn ids(text: &str) -> Vec<String> {
        let id = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().map(str::to_owned)
        };
        text.lines().filter_map(id).collect()
    }

    #[test]
    fn every_line_of_every_lane_is_in_exactly_one_file_whatever_is_rotated_and_switched_meanwhile() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::start(file(&path, LogFormat::Json), quiet()).unwrap();
        let control = log.control();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let lane = log.lane();
                scope.spawn(move || (0..5000).for_each(|number| write(&lane, &format!("{worker}-{number}"))));
            }
            for turn in 0..10 {
                std::fs::rename(&path, dir.path().join(format!("old.{turn}"))).unwrap();
                control.reopen();
                while !path.exists() {
                    std::thread::yield_now();
                }
                if turn == 5 {
                    control.switch(file(&dir.path().join("other.log"), LogFormat::Json));
                    control.switch(file(&path, LogFormat::Json));
                }
            }
        });
        log.close();
        // On a busy machine some are dropped, and counted.
        let dropped = usize::try_from(control.dropped()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut all: Vec<String> =
            files.flat_map(|path| ids(&std::fs::read_to_string(path).unwrap())).collect();
        assert_eq!(all.len() + dropped, 20_000);
        assert!(dropped < 10_000, "{dropped}");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() + dropped, 20_000);
    }

    #[test]
    fn a_switch_of_form_leaves_each_file_in_one_form() {
        let dir = tempfile::tempdir().unwrap();
        let (json, combined) = (dir.path().join("json"), dir.path().join("combined"));
        let log = AccessLog::start(file(&json, LogFormat::Json), quiet()).unwrap();
        std::thread::scope(|scope| {
            let (lane, control) = (log.lane(), log.control());
            scope.spawn(move || (0..20_000).for_each(|number| write(&lane, &number.to_string())));
            while std::fs::metadata(&json).unwrap().len() == 0 {
                std::thread::yield_now();
            }
            control.switch(file(&combined, LogFormat::Combined));
        });
        let dropped = log.control().dropped();
        log.close();
        let read = |path| std::fs::read_to_string(path).unwrap();
        let (json, combined) = (read(&json), read(&combined));
        let combined: Vec<&str> = combined.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(combined.iter().all(|line| line.starts_with("192.0.0.8 - - [")));
        assert_eq!(ids(&json).len() as u64 + combined.len() as u64 + dropped, 20_000);
    }

    /// A target that takes nothing, or fails in the middle of lines, until it is let go.
    #[derive(Debug)]
    struct Stuck {
        gate: Arc<Mutex<()>>,
        fails: bool,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Target for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut taken = locked(&self.taken);
            if self.fails && self.gate.try_lock().is_err() {
                // A disk that has room for some bytes more, and then for none.
                let room = 1000_usize.saturating_sub(taken.len()).min(bytes.len());
                taken.extend_from_slice(&bytes[..room]);
                return if room > 0 { Ok(room) } else { Err(io::ErrorKind::StorageFull.into()) };
            }
            drop(taken);
            let _wait = locked(&self.gate);
            locked(&self.taken).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn reopen(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn name(&self) -> String {
            "nowhere".into()
        }
    }

    fn stuck(fails: bool, gate: &Arc<Mutex<()>>) -> (AccessLog, Arc<Mutex<Vec<u8>>>) {
        let taken = Arc::<Mutex<Vec<u8>>>::default();
        let target = Stuck { gate: Arc::clone(gate), fails, taken: Arc::clone(&taken) };
        let outlet = Outlet { target: Some(Box::new(target)), form: Some(Form::Json) };
        (AccessLog::start(Prepared(outlet), quiet()).unwrap(), taken)
    }

    fn lost_and_found(fails: bool) {
        let gate = Arc::new(Mutex::new(()));
        let stuck_now: MutexGuard<'_, ()> = gate.lock().unwrap();
        let (log, taken) = stuck(fails, &gate);
        let lane = log.lane();
        let lines = 4 * LANE / 100;
        (0..lines).for_each(|number| write(&lane, &number.to_string()));
        let dropped = log.control().dropped();
        assert!(dropped > 0 && dropped < lines as u64);
        drop(stuck_now);
        let gap = || {
            let text = String::from_utf8(locked(&taken).clone()).unwrap();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.filter_map(|line| line["dropped"].as_u64()).sum::<u64>()
        };
        while gap() < dropped {
            std::thread::yield_now();
        }
        write(&lane, "last");
        log.close();
        let text = String::from_utf8(locked(&taken).clone()).unwrap();
        assert_eq!(ids(&text).len() as u64 + dropped, lines as u64 + 1, "each line is there or counted");
        // `ids` has parsed every line: there is none in halves.
        assert_eq!(ids(&text).last().map(String::as_str), Some("last"));
    }

    #[test]
    fn a_target_that_takes_nothing_stops_no_worker_and_what_is_lost_is_counted_and_said_in_the_log() {
        lost_and_found(false);
    }

    #[test]
    fn a_full_disk_stops_no_worker_leaves_no_half_line_and_the_log_goes_on_when_there_is_room() {
        lost_and_found(true);
    }

    #[test]
    fn the_end_waits_for_no_target_that_takes_nothing() {
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap();
        let (log, taken) = stuck(false, &gate);
        write(&log.lane(), "x");
        let clock = Clock::system();
        let start = clock.now().mono;
        log.close();
        let took = Duration::from_nanos(clock.now().mono - start);
        assert!((LAST_LINES..5 * LAST_LINES).contains(&took), "{took:?}");
        assert!(locked(&taken).is_empty());
        drop(held);
    }

    #[test]
    fn a_log_that_is_off_writes_and_drops_nothing() {
        let off = Log { access: LogTarget::Off, format: LogFormat::Json };
        let log = AccessLog::start(Prepared::open(&off).unwrap(), quiet()).unwrap();
        let lane = log.lane();
        assert!(!lane.is_on());
        write(&lane, "x");
        assert!(locked(&lane.buffer).form.is_none());
        assert_eq!(log.control().dropped(), 0);
    }
}
