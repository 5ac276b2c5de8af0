//! One at a time, for each site: while somebody sets an application up, nobody else does. Outlives a policy, so that a
//! reload lets no second one in.
//!
//! Who goes away before the application has answered leaves his turn taken for [`LEFT`]: the application may still be at it,
//! and twelve who ask and hang up must not become twelve administrators.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Now;

/// So long after its beginning a turn is over that nobody has ended.
pub const LEFT: Duration = Duration::from_secs(30);

/// Whose turn it is; at most one entry for each site.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<u64, State>>);

#[derive(Debug)]
enum State {
    Held,
    /// Left at this monotonic time, without an answer.
    Left(u64),
}

/// A turn.
#[derive(Debug)]
#[must_use]
pub struct Turn {
    turns: Arc<Turns>,
    site: u64,
    began: u64,
    answered: bool,
}

impl Turns {
    /// The turn at this site, by its scope; `None`: somebody has it.
    pub fn take(self: &Arc<Self>, site: u64, now: Now) -> Option<Turn> {
        let left = u64::try_from(LEFT.as_nanos()).unwrap_or(u64::MAX);
        let mut turns = self.turns();
        match turns.get(&site) {
            Some(State::Held) => return None,
            Some(State::Left(began)) if now.mono < began.saturating_add(left) => return None,
            _ => turns.insert(site, State::Held),
        };
        Some(Turn { turns: Arc::clone(self), site, began: now.mono, answered: false })
    }

    fn turns(&self) -> MutexGuard<'_, BTreeMap<u64, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// The application has answered: the turn is over at once.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.turns();
        if self.answered {
            turns.remove(&self.site);
        } else {
            turns.insert(self.site, State::Left(self.began));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Now = Now { mono: 1_000_000_000, wall: 0 };

    #[test]
    fn there_is_one_turn_for_each_site_until_it_is_answered() {
        let turns = Arc::<Turns>::default();
        let first = turns.take(1, START).unwrap();
        assert!(turns.take(1, START).is_none());
        turns.take(2, START).unwrap().answered();
        first.answered();
        assert!(turns.take(1, START).is_some());
    }

    #[test]
    fn who_hangs_up_keeps_the_turn_for_a_while() {
        let turns = Arc::<Turns>::default();
        drop(turns.take(1, START));
        assert!(turns.take(1, START).is_none());
        let later = Now { mono: START.mono + 30_000_000_000, wall: 0 };
        assert!(turns.take(1, later).is_some());
    }
}
