//! The keys of [`crate::stores::seal`] in the state directory: made when there are none, rotated, dropped when nothing that
//! they sealed is good any longer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use super::directory::replace_private;
use crate::clock::Now;
use crate::stores::seal::KEY_LEN;

/// A key seals for so long.
const SEALS: Duration = Duration::from_secs(30 * 24 * 3600);
/// Longest life of anything sealed: a key opens for so long after it was the newest.
pub const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);

const RECORD: usize = KEY_LEN + 8;

/// The keys, the newest first.
#[derive(Debug)]
pub struct SealKeys {
    state_dir: PathBuf,
    made: Vec<Made>,
}

/// A key and when it was made, in Unix seconds.
#[derive(Debug, Clone)]
struct Made {
    secret: Zeroizing<[u8; KEY_LEN]>,
    at: u64,
}

impl SealKeys {
    /// Reads them, or makes the first.
    ///
    /// # Errors
    /// When they cannot be read or written, or the file is no such file.
    pub fn open(state_dir: &Path, now: Now) -> io::Result<Self> {
        let mut keys = Self { state_dir: state_dir.into(), made: Vec::new() };
        let path = keys.path();
        match std::fs::read(&path) {
            Ok(bytes) => keys.made = read(&Zeroizing::new(bytes)).ok_or_else(|| unreadable(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        keys.rotate(now)?;
        Ok(keys)
    }

    /// Makes a new key when the newest is old, and drops those that open nothing that is still good. Answers whether
    /// anything changed. A key of a day that has not come was made while the clock was wrong: it seals from now on as if made
    /// now, or there were no other until that day.
    ///
    /// # Errors
    /// When they cannot be written; the old ones stay then.
    pub fn rotate(&mut self, now: Now) -> io::Result<bool> {
        let now = now.unix();
        if self.made.iter().any(|made| made.at > now) {
            let at = |made: &Made| Made { at: made.at.min(now), ..made.clone() };
            self.replace(self.made.iter().map(at).collect())?;
        }
        let fresh = self.made.first().is_some_and(|newest| now.saturating_sub(newest.at) < SEALS.as_secs());
        if fresh {
            return Ok(false);
        }
        let mut secret = Zeroizing::new([0; KEY_LEN]);
        aws_lc_rs::rand::fill(&mut *secret)
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let mut made = vec![Made { secret, at: now }];
        // What the key before one was made ended its sealing.
        let mut until = now;
        for old in &self.made {
            let ended = std::mem::replace(&mut until, old.at);
            if now.saturating_sub(ended) < LIFE.as_secs() {
                made.push(old.clone());
            }
        }
        self.replace(made)?;
        Ok(true)
    }

    /// On disk first: what is not there, nobody seals with.
    fn replace(&mut self, made: Vec<Made>) -> io::Result<()> {
        replace_private(&self.state_dir, &self.path(), &bytes(&made))?;
        self.made = made;
        Ok(())
    }

    /// The keys, the newest first.
    pub fn secrets(&self) -> Zeroizing<Vec<[u8; KEY_LEN]>> {
        Zeroizing::new(self.made.iter().map(|made| *made.secret).collect())
    }

    fn path(&self) -> PathBuf {
        self.state_dir.join("seal.keys")
    }
}

fn bytes(made: &[Made]) -> Zeroizing<Vec<u8>> {
    let record = |made: &Made| [&made.secret[..], &made.at.to_be_bytes()].concat();
    Zeroizing::new(made.iter().flat_map(record).collect())
}

fn read(bytes: &[u8]) -> Option<Vec<Made>> {
    let (records, rest) = bytes.as_chunks::<RECORD>();
    let record = |record: &[u8; RECORD]| {
        let (secret, at) = record.split_first_chunk::<KEY_LEN>()?;
        Some(Made { secret: Zeroizing::new(*secret), at: u64::from_be_bytes(at.try_into().ok()?) })
    };
    rest.is_empty().then(|| records.iter().map(record).collect())?
}

fn unreadable(path: &Path) -> io::Error {
    let what = format!(
        "{} is cut or not ours: put the old file back, or remove it (browsers then have to log in once more to be known)",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DAY: u64 = 24 * 3600;

    fn on_day(day: u64) -> Now {
        Now { mono: 0, wall: (10_000 + day) * DAY * 1000 }
    }

    #[test]
    fn keys_outlive_a_restart_and_are_rotated_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let first = SealKeys::open(dir.path(), on_day(0)).unwrap().secrets().clone();
        assert_eq!(*SealKeys::open(dir.path(), on_day(29)).unwrap().secrets(), *first);
        let mut keys = SealKeys::open(dir.path(), on_day(31)).unwrap();
        assert_eq!((keys.secrets().len(), keys.secrets()[1]), (2, first[0]));
        assert!(!keys.rotate(on_day(40)).unwrap());
        assert!(keys.rotate(on_day(62)).unwrap() && keys.rotate(on_day(93)).unwrap());
        assert!(keys.secrets().contains(&first[0]), "what it sealed on day 30 is good until day 120");
        assert!(keys.rotate(on_day(124)).unwrap());
        assert!(!keys.secrets().contains(&first[0]) && keys.secrets().len() == 4);
        let mode = std::fs::metadata(dir.path().join("seal.keys")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_cannot_be_written_is_not_used_and_is_made_when_there_is_room_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let mut keys = SealKeys::open(&state, on_day(0)).unwrap();
        let before = keys.secrets().clone();
        std::fs::rename(&state, dir.path().join("away")).unwrap();
        assert!(keys.rotate(on_day(31)).is_err());
        assert_eq!(*keys.secrets(), *before);
        std::fs::rename(dir.path().join("away"), &state).unwrap();
        assert!(keys.rotate(on_day(31)).unwrap(), "so that it is published");
        assert_eq!(keys.secrets().len(), 2);
    }

    #[test]
    fn a_clock_that_goes_back_costs_nothing_and_a_cut_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = SealKeys::open(dir.path(), on_day(100)).unwrap();
        let secrets = keys.secrets().clone();
        assert!(!keys.rotate(on_day(0)).unwrap());
        assert!(!keys.rotate(on_day(29)).unwrap(), "nor is it older than it is");
        assert_eq!(*keys.secrets(), *secrets);
        assert!(keys.rotate(on_day(31)).unwrap(), "it does not seal until the day of its making comes again");
        assert!(keys.secrets().contains(&secrets[0]));
        std::fs::write(dir.path().join("seal.keys"), [0; 41]).unwrap();
        let error = SealKeys::open(dir.path(), on_day(0)).unwrap_err();
        assert!(error.to_string().contains("is cut or not ours"), "{error}");
    }
}
