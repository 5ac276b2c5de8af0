//! Tells when config files have changed: by events where there are any, by looking every few seconds where not.
//!
//! 1. Directories are watched, never files: a file's watch dies with the first rename over it.
//! 2. Contents decide, not events: Kubernetes swaps a link and never names the file.
//! 3. What changes is left to settle: a half-written file is not read.
//!
//! Caveat: on file systems without events a change is seen within [`Pace::poll`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::clock::Clock;

/// How the watch keeps time.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Contents must stay the same for this long.
    pub settle: Duration,
    /// Contents are looked at this often without any event.
    pub poll: Duration,
    /// Whether to ask the system for events.
    pub events: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { settle: Duration::from_millis(250), poll: Duration::from_secs(5), events: true }
    }
}

/// What some files held at one time, by hash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents(BTreeMap<PathBuf, Option<[u8; 32]>>);

/// A running watch: a thread that ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    wake: SyncSender<Wake>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Wake {
    Event,
    Follow(Contents),
    End,
}

impl Contents {
    /// Reads these files now. One that cannot be read differs from an empty one.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        Self(files.into_iter().map(|file| (file.clone(), hash(file))).collect())
    }

    /// The same files with what is new among `files` as it is now, and without what is not among them.
    #[must_use]
    pub fn following(&self, files: &[PathBuf]) -> Self {
        let known = |file: &PathBuf| self.0.get(file).copied().unwrap_or_else(|| hash(file));
        Self(files.iter().map(|file| (file.clone(), known(file))).collect())
    }

    fn again(&self) -> Self {
        Self::of(self.0.keys())
    }
}

impl Watch {
    /// Watches the files of `seen`, whose contents were taken *before* they were loaded; each change is told by
    /// `changed`, once when it has settled.
    pub fn start(seen: Contents, pace: Pace, changed: impl FnMut() + Send + 'static) -> Self {
        let (wake, woken) = sync_channel(64);
        let events = wake.clone();
        let thread = std::thread::Builder::new()
            .name("config-watch".to_owned())
            .spawn(move || {
                Eye { seen, pace, woken, events, armed: None, clock: Clock::system() }.run(changed)
            })
            .ok();
        Self { wake, thread }
    }

    /// Watches these files from now on.
    pub fn follow(&self, seen: Contents) {
        let _ = self.wake.send(Wake::Follow(seen));
    }

    /// Whether the thread runs; without it only SIGHUP and `reload` tell of changes.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Eye {
    seen: Contents,
    pace: Pace,
    woken: Receiver<Wake>,
    events: SyncSender<Wake>,
    armed: Option<RecommendedWatcher>,
    clock: Clock,
}

impl Eye {
    fn run(mut self, mut changed: impl FnMut()) {
        self.armed = self.arm();
        loop {
            match self.woken.recv_timeout(self.pace.poll) {
                Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Follow(seen)) => self.follow(seen),
                Ok(Wake::Event) | Err(RecvTimeoutError::Timeout) => {}
            }
            let Some(settled) = self.settle() else { return };
            if settled != self.seen {
                // Directories may be new ones under the old names.
                self.follow(settled);
                changed();
            }
        }
    }

    fn follow(&mut self, seen: Contents) {
        self.seen = seen;
        self.armed = self.arm();
        // What changed before there were events again is found by one more look; a full queue is wake-up enough.
        let _ = self.events.try_send(Wake::Event);
    }

    /// Waits until the contents stay as they are. `None`: the watch ends.
    fn settle(&mut self) -> Option<Contents> {
        let mut last = self.seen.again();
        loop {
            self.rest()?;
            let now = self.seen.again();
            if now == last {
                return Some(now);
            }
            last = now;
        }
    }

    /// Lets time go by, however many events come: a log beside the config makes them for ever.
    fn rest(&mut self) -> Option<()> {
        let start = self.clock.now().mono;
        loop {
            let gone = Duration::from_nanos(self.clock.now().mono.saturating_sub(start));
            match self.woken.recv_timeout(self.pace.settle.saturating_sub(gone)) {
                Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return None,
                Ok(Wake::Follow(seen)) => self.follow(seen),
                Ok(Wake::Event) if gone < self.pace.settle => {}
                Ok(Wake::Event) | Err(RecvTimeoutError::Timeout) => return Some(()),
            }
        }
    }

    /// Asks for events of all directories; those that cannot be watched are polled.
    fn arm(&self) -> Option<RecommendedWatcher> {
        if !self.pace.events {
            return None;
        }
        let events = self.events.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading makes access events, which would wake us for ever.
            if event.is_ok_and(|event| event.kind.is_access()) {
                return;
            }
            match events.try_send(Wake::Event) {
                // Full: there are wake-ups enough. Closed: the watch ends.
                Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
        })
        .ok()?;
        for directory in directories(self.seen.0.keys()) {
            let _ = watcher.watch(&directory, RecursiveMode::NonRecursive);
        }
        Some(watcher)
    }
}

/// Every directory in which a change may change a file: its own, those of the links that lead to it, and those of
/// links above it.
fn directories<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for file in files {
        trace(file, &mut directories, 16);
    }
    directories
}

fn trace(path: &Path, directories: &mut BTreeSet<PathBuf>, depth: usize) {
    let Some(parent) = path.parent() else { return };
    directories.insert(parent.to_owned());
    if depth == 0 {
        return;
    }
    for ancestor in path.ancestors() {
        if let (Ok(target), Some(parent)) = (fs::read_link(ancestor), ancestor.parent()) {
            directories.insert(parent.to_owned());
            let below = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            let target = parent.join(target);
            let whole = if below.as_os_str().is_empty() { target } else { target.join(below) };
            trace(&whole, directories, depth - 1);
            return;
        }
    }
}

fn hash(file: &Path) -> Option<[u8; 32]> {
    let bytes = fs::read(file).ok()?;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    digest.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::sync_channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    struct Watched {
        folder: tempfile::TempDir,
        watch: Watch,
        told: Receiver<()>,
    }

    fn pace(events: bool) -> Pace {
        let poll = if events { Duration::from_secs(3600) } else { Duration::from_millis(20) };
        Pace { settle: Duration::from_millis(60), poll, events }
    }

    fn watched(prepare: impl FnOnce(&Path) -> PathBuf, events: bool) -> Watched {
        let folder = tempfile::tempdir().unwrap();
        let file = prepare(folder.path());
        let (tell, told) = sync_channel(16);
        let watch = Watch::start(Contents::of([&file]), pace(events), move || tell.send(()).unwrap());
        // The thread answers a follow only when it is armed; sent twice, the second waits for the first.
        watch.follow(Contents::of([&file]));
        std::thread::sleep(Duration::from_millis(150));
        Watched { folder, watch, told }
    }

    fn plain(folder: &Path) -> PathBuf {
        let file = folder.join("portcullis.toml");
        fs::write(&file, "one").unwrap();
        file
    }

    impl Watched {
        fn file(&self) -> PathBuf {
            self.folder.path().join("portcullis.toml")
        }

        fn expect_one(&self) {
            self.told.recv_timeout(LONG).expect("the change was not told");
            assert!(self.told.recv_timeout(Duration::from_millis(200)).is_err(), "told twice");
        }
    }

    #[test]
    fn a_file_renamed_over_it_is_seen_each_time() {
        for events in [true, false] {
            let watched = watched(plain, events);
            for round in 0..3 {
                let aside = watched.folder.path().join("aside");
                fs::write(&aside, format!("round {round}")).unwrap();
                fs::rename(&aside, watched.file()).unwrap();
                watched.expect_one();
            }
            assert!(watched.watch.is_running());
        }
    }

    #[test]
    fn a_file_written_in_place_in_pieces_is_told_once_when_it_is_whole() {
        use std::io::Write;
        for events in [true, false] {
            let watched = watched(plain, events);
            let mut file = fs::File::create(watched.file()).unwrap();
            for _ in 0..5 {
                file.write_all(b"piece").unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
            watched.expect_one();
        }
    }

    #[test]
    fn a_kubernetes_swap_is_seen_each_time() {
        for events in [true, false] {
            let watched = watched(
                |folder| {
                    fs::create_dir(folder.join("..v0")).unwrap();
                    fs::write(folder.join("..v0/portcullis.toml"), "0").unwrap();
                    symlink("..v0", folder.join("..data")).unwrap();
                    symlink("..data/portcullis.toml", folder.join("portcullis.toml")).unwrap();
                    folder.join("portcullis.toml")
                },
                events,
            );
            let folder = watched.folder.path();
            for version in 1..4 {
                let name = format!("..v{version}");
                fs::create_dir(folder.join(&name)).unwrap();
                fs::write(folder.join(&name).join("portcullis.toml"), &name).unwrap();
                symlink(&name, folder.join("..data_tmp")).unwrap();
                fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
                fs::remove_dir_all(folder.join(format!("..v{}", version - 1))).unwrap();
                watched.expect_one();
            }
        }
    }

    #[test]
    fn a_file_deleted_and_back_is_told_both_times() {
        for events in [true, false] {
            let watched = watched(plain, events);
            fs::remove_file(watched.file()).unwrap();
            watched.expect_one();
            fs::write(watched.file(), "one").unwrap();
            watched.expect_one();
        }
    }

    #[test]
    fn reading_touching_and_rewriting_the_same_tell_nothing() {
        let watched = watched(plain, true);
        fs::write(watched.file(), "one").unwrap();
        fs::read(watched.file()).unwrap();
        fs::write(watched.folder.path().join("other"), "x").unwrap();
        assert!(watched.told.recv_timeout(Duration::from_millis(400)).is_err());
    }

    #[test]
    fn a_busy_log_beside_the_file_hides_no_change() {
        let watched = watched(plain, true);
        let log = watched.folder.path().join("access.log");
        let writing = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while writing.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::write(&log, "line").unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
            fs::write(watched.file(), "two").unwrap();
            let told = watched.told.recv_timeout(LONG);
            writing.store(false, std::sync::atomic::Ordering::Relaxed);
            told.expect("the change was not told");
        });
    }

    #[test]
    fn a_linked_directory_above_the_file_may_be_swapped() {
        let watched = watched(
            |folder| {
                for version in ["v1", "v2"] {
                    fs::create_dir(folder.join(version)).unwrap();
                    fs::write(folder.join(version).join("portcullis.toml"), version).unwrap();
                }
                symlink("v1", folder.join("current")).unwrap();
                folder.join("current/portcullis.toml")
            },
            true,
        );
        let folder = watched.folder.path();
        symlink("v2", folder.join("next")).unwrap();
        fs::rename(folder.join("next"), folder.join("current")).unwrap();
        watched.expect_one();
    }

    #[test]
    fn a_change_between_load_and_watch_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = plain(folder.path());
        let seen = Contents::of([&file]);
        fs::write(&file, "two").unwrap();
        let (tell, told) = sync_channel(16);
        let pace = Pace { poll: Duration::from_millis(20), ..pace(true) };
        let _watch = Watch::start(seen, pace, move || tell.send(()).unwrap());
        told.recv_timeout(LONG).expect("the change was not told");
    }
}
