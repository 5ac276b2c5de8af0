//! Things remembered for a while: a link that answered lately, an address from which somebody logged in. One bounded table
//! without values, which takes memory as it fills; in a full set the mark that ends first goes first.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Now;

const WAYS: usize = 16;
const SHARDS: usize = 64;

/// The table: 16 bytes a mark.
#[derive(Debug)]
pub struct Marks {
    shards: Vec<Mutex<Sets>>,
    hasher: RandomState,
}

/// One shard's sets.
type Sets = Vec<Option<Box<[Mark; WAYS]>>>;

/// Monotonic nanoseconds; an empty place ended at 0.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    key: u64,
    ends: u64,
}

impl Marks {
    /// A table for at least so many marks.
    pub fn new(marks: usize) -> Self {
        let sets = marks.div_ceil(WAYS * SHARDS).max(1);
        let shard = || Mutex::new(vec![None; sets]);
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: RandomState::new() }
    }

    /// Remembers `what` for so long from now.
    pub fn mark(&self, what: impl Hash, length: Duration, now: Now) {
        let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let ends = now.mono.saturating_add(length);
        self.with(what, |set, key| {
            let known = set.iter().position(|mark| mark.key == key);
            let place = known.and_then(|place| set.get_mut(place));
            if let Some(mark) = place {
                mark.ends = mark.ends.max(ends);
            } else if let Some(mark) = set.iter_mut().min_by_key(|mark| mark.ends) {
                *mark = Mark { key, ends };
            }
        });
    }

    /// Whether it is remembered.
    pub fn has(&self, what: impl Hash, now: Now) -> bool {
        self.with(what, |set, key| set.iter().any(|mark| mark.key == key && mark.ends > now.mono))
    }

    /// Forgets it.
    pub fn forget(&self, what: impl Hash) {
        self.with(what, |set, key| {
            set.iter_mut().filter(|mark| mark.key == key).for_each(|mark| *mark = Mark::default());
        });
    }

    fn with<T>(&self, what: impl Hash, f: impl FnOnce(&mut [Mark; WAYS], u64) -> T) -> T {
        let key = self.hasher.hash_one(what);
        let place = usize::try_from(key >> 8).unwrap_or_default();
        let Some(shard) = self.shards.get(place % SHARDS) else { unreachable!("a remainder of {SHARDS}") };
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sets.len().max(1);
        let Some(set) = sets.get_mut(place / SHARDS % count) else {
            unreachable!("a remainder of the length")
        };
        f(set.get_or_insert_with(|| Box::new([Mark::default(); WAYS])), key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now { mono: seconds * 1_000_000_000, wall: 0 }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_mark_holds_for_its_time_and_is_never_shortened() {
        let marks = Marks::new(1000);
        marks.mark("a", MINUTE, at(0));
        marks.mark("a", Duration::from_secs(1), at(10));
        assert!(marks.has("a", at(59)) && !marks.has("a", at(60)) && !marks.has("b", at(0)));
        marks.forget("a");
        assert!(!marks.has("a", at(1)));
    }

    #[test]
    fn a_flood_is_bounded_and_what_ends_first_goes_first() {
        let marks = Marks::new(10_000);
        for n in 0..100 {
            marks.mark(("long", n), MINUTE * 60, at(0));
        }
        for n in 0..200_000 {
            marks.mark(("flood", n), MINUTE, at(1));
        }
        assert_eq!((0..100).filter(|n| marks.has(("long", n), at(2))).count(), 100);
    }
}
