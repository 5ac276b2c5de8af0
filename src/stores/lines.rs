//! Whose turn it is at a link: over all workers one request at a time goes to the application, the others stand in line.
//!
//! A line exists only while somebody stands in it or still downloads. At most [`LINES`] lines, [`WAITING`] requests that
//! wait in one of them, and [`OF_CLIENT`] of one client: who comes then is sent away, those who stand in line keep their places.
//! A stranger who would fill the table needs as many requests in flight for links that he does not have, and each of them
//! costs him a miss.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::request::credential::Key;

/// Most links that have a line.
pub const LINES: usize = 16_384;
/// Most requests that wait at one link.
pub const WAITING: usize = 64;

/// Most of them that are one client's: nobody alone keeps others from a link.
pub const OF_CLIENT: usize = 8;

/// A link of a site.
pub type At = (u64, Key);

/// All lines.
#[derive(Debug, Default)]
pub struct Lines(Mutex<HashMap<At, Line>>);

#[derive(Debug)]
struct Line {
    turn: Arc<Semaphore>,
    /// Who waits, or has the turn; a client as often as it does.
    waiting: Vec<u128>,
    /// Who waits or downloads; likewise.
    clients: Vec<u128>,
}

/// A place in a line, later that of a download that runs; given back when dropped.
#[derive(Debug)]
pub struct Place {
    lines: Arc<Lines>,
    at: At,
    client: u128,
    waits: bool,
}

/// The turn; the next one has it when it is dropped or given on.
#[derive(Debug)]
pub struct Turn {
    turn: OwnedSemaphorePermit,
    place: Place,
}

impl Lines {
    /// Stands in line. `None`: there are too many lines, this one is too long, or the client stands in it too often already;
    /// with `only_once` once is enough.
    pub fn stand(self: &Arc<Self>, at: At, client: u128, only_once: bool) -> Option<Place> {
        let mut lines = self.lines();
        let room = lines.len() < LINES;
        if let Some(line) = lines.get_mut(&at) {
            let his = line.waiting.iter().filter(|other| **other == client).count();
            let full = line.waiting.len() >= WAITING || his >= OF_CLIENT;
            if full || (only_once && line.clients.contains(&client)) {
                return None;
            }
            line.waiting.push(client);
            line.clients.push(client);
        } else if room {
            let turn = Arc::new(Semaphore::new(1));
            lines.insert(at, Line { turn, waiting: vec![client], clients: vec![client] });
        } else {
            return None;
        }
        drop(lines);
        Some(Place { lines: Arc::clone(self), at, client, waits: true })
    }

    /// How many links have a line.
    pub fn len(&self) -> usize {
        self.lines().len()
    }

    /// Whether nobody stands anywhere.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<At, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits for the turn, first come first served. Who stops waiting loses the place.
    pub async fn turn(self) -> Option<Turn> {
        let turn = self.lines.lines().get(&self.at).map(|line| Arc::clone(&line.turn))?;
        let turn = turn.acquire_owned().await.ok()?;
        Some(Turn { turn, place: self })
    }
}

impl Turn {
    /// Gives the turn to the next one; what is left is a download that runs.
    pub fn give_on(self) -> Place {
        let Self { turn, mut place } = self;
        place.stop_waiting();
        drop(turn);
        place
    }
}

impl Place {
    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.waits)
            && let Some(line) = self.lines.lines().get_mut(&self.at)
        {
            leave(&mut line.waiting, self.client);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop_waiting();
        let mut lines = self.lines.lines();
        let Some(line) = lines.get_mut(&self.at) else { return };
        leave(&mut line.clients, self.client);
        if line.clients.is_empty() {
            lines.remove(&self.at);
        }
    }
}

fn leave(clients: &mut Vec<u128>, client: u128) {
    if let Some(found) = clients.iter().position(|other| *other == client) {
        clients.swap_remove(found);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const AT: At = (7, Key([1; 16]));

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn over_all_threads_one_at_a_time_has_the_turn() {
        let (lines, inside) = (Arc::<Lines>::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4_u128 {
                let (lines, inside) = (&lines, &inside);
                scope.spawn(move || {
                    runtime().block_on(async {
                        for _ in 0..2000 {
                            let turn = lines.stand(AT, thread, false).unwrap().turn().await.unwrap();
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            tokio::task::yield_now().await;
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(turn);
                        }
                    });
                });
            }
        });
        assert!(lines.is_empty(), "nothing is left behind");
    }

    #[test]
    fn who_gives_the_turn_on_or_goes_away_frees_it_and_a_running_download_keeps_its_place() {
        let lines = Arc::<Lines>::default();
        runtime().block_on(async {
            let first = lines.stand(AT, 1, true).unwrap().turn().await.unwrap();
            assert!(lines.stand(AT, 1, true).is_none(), "a second range of the same client");
            let waiting =
                tokio::time::timeout(std::time::Duration::ZERO, lines.stand(AT, 2, true).unwrap().turn());
            assert!(waiting.await.is_err(), "it is not its turn");
            let running = first.give_on();
            let second = lines.stand(AT, 2, true).unwrap().turn().await.unwrap();
            assert!(lines.stand(AT, 1, true).is_none(), "its download runs still");
            assert!(lines.stand(AT, 1, false).is_some(), "which is no second range");
            drop(running);
            assert!(lines.stand(AT, 1, true).is_some());
            drop(second);
            assert!(lines.is_empty());
        });
    }

    #[test]
    fn nobody_alone_fills_a_line() {
        let lines = Arc::<Lines>::default();
        let mut his: Vec<_> = (0..200).filter_map(|_| lines.stand(AT, 1, false)).collect();
        assert_eq!(his.len(), OF_CLIENT);
        assert!(lines.stand(AT, 2, false).is_some());
        his.pop();
        assert!(lines.stand(AT, 1, false).is_some(), "who leaves has room again");
    }

    #[test]
    fn lines_and_their_number_are_bounded_and_who_stands_in_one_keeps_the_place() {
        let lines = Arc::<Lines>::default();
        let line: Vec<_> = (0..200).filter_map(|client| lines.stand(AT, client, false)).collect();
        assert_eq!(line.len(), WAITING);
        let others: Vec<_> = (0..20_000_u32)
            .filter_map(|link| {
                let mut key = [0; 16];
                key[..4].copy_from_slice(&link.to_be_bytes());
                lines.stand((8, Key(key)), 1, false)
            })
            .collect();
        assert_eq!((others.len(), lines.len()), (LINES - 1, LINES));
        drop(line);
        assert_eq!(lines.len(), LINES - 1);
        drop(others);
        assert!(lines.is_empty());
    }
}
