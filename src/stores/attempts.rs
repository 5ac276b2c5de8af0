//! Failed attempts, by whoever makes them and whomever they are made at: one bounded table for all sites and workers; it
//! survives reloads, not restarts.
//!
//! A counter is a budget of failures that fills up again with time (GCRA). Who has spent it is locked out, for thirty
//! seconds first and for twice as long each time after, up to an hour. After a lockout one attempt is free: a person who
//! remembers the password gets in, a list of passwords gets one try an hour.
//!
//! The table is made of sets of 16 places, each of which comes into being with its first counter; in a full set the counter
//! that is nearest to forgotten goes first, and those that are locked last, so that a flood of new names frees nobody.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Now;

const WAYS: usize = 16;
const SHARDS: usize = 64;

/// How many failures are forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// So many at once.
    pub failures: NonZeroU32,
    /// After this time all are forgiven.
    pub per: Duration,
}

/// How long a lockout lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockout {
    /// The first one.
    pub first: Duration,
    /// Each is twice as long as the one before, up to this.
    pub most: Duration,
}

/// What an attempt was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Locked out; this is the first refusal of a new lockout.
    Begun(Duration),
    /// Locked out still.
    Locked(Duration),
}

/// The table.
#[derive(Debug)]
pub struct Attempts {
    shards: Vec<Mutex<Sets>>,
    hasher: RandomState,
    lockouts: AtomicU64,
    evictions: AtomicU64,
}

/// One shard's sets.
type Sets = Vec<Option<Box<[Counter; WAYS]>>>;

/// The place of a counter; made from anything, and not to be guessed from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CounterKey(u64);

/// Times are monotonic nanoseconds. An empty place has key 0.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    key: u64,
    /// When all is forgiven.
    due: u64,
    /// Until when nobody gets in; zero: never was.
    locked: u64,
    /// Lockouts since all was forgiven last.
    lockouts: u32,
}

impl Attempts {
    /// A table for at least so many counters, 32 bytes each; it takes memory as it fills.
    pub fn new(counters: usize) -> Self {
        let sets = counters.div_ceil(WAYS * SHARDS).max(1);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(vec![None; sets])).collect(),
            hasher: RandomState::new(),
            lockouts: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// The key of a counter.
    pub fn key_of(&self, what: impl Hash) -> CounterKey {
        // Zero marks an empty place.
        CounterKey(self.hasher.hash_one(what).max(1))
    }

    /// Charges one failure in advance: of a thousand attempts at once no more than the budget get through.
    ///
    /// # Errors
    /// [`Refused`], with the time until it ends.
    pub fn charge(&self, key: CounterKey, rule: Rule, lockout: Lockout, now: Now) -> Result<(), Refused> {
        self.with(key, now, |counter| {
            let outcome = counter.charge(rule, lockout, now.mono);
            if let Err(Refused::Begun(_)) = outcome {
                self.lockouts.fetch_add(1, Ordering::Relaxed);
            }
            outcome
        })
    }

    /// What [`Attempts::charge`] would say, without a charge.
    pub fn ask(&self, key: CounterKey, now: Now) -> Result<(), Refused> {
        let place = self.find(key);
        let locked = place.map_or(0, |counter| counter.locked).saturating_sub(now.mono);
        if locked > 0 { Err(Refused::Locked(Duration::from_nanos(locked))) } else { Ok(()) }
    }

    /// How many failures are left of a budget of which some are spent; `None`: none is. Of one that is locked: zero.
    pub fn left(&self, key: CounterKey, rule: Rule, now: Now) -> Option<usize> {
        let counter = self.find(key).filter(|counter| counter.due.max(counter.locked) > now.mono)?;
        let spent = counter.due.saturating_sub(now.mono);
        let left = match counter.locked {
            0 => nanos(rule.per).saturating_sub(spent) / rule.interval().max(1),
            locked => u64::from(locked <= now.mono),
        };
        Some(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Takes one charge back: it was no failure.
    pub fn refund(&self, key: CounterKey, rule: Rule, now: Now) {
        if self.find(key).is_some() {
            self.with(key, now, |counter| counter.due = counter.due.saturating_sub(rule.interval()));
        }
    }

    /// Forgets all: a success, or an operator's `unlock`. Answers whether it was locked.
    pub fn clear(&self, key: CounterKey, now: Now) -> bool {
        let Some(known) = self.find(key) else { return false };
        self.with(key, now, |counter| *counter = Counter { key: counter.key, ..Counter::default() });
        known.locked > now.mono
    }

    /// Forgets everything of everybody; answers how many were locked.
    pub fn clear_all(&self, now: Now) -> usize {
        let locked = self.locked(now);
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).fill(None);
        }
        locked
    }

    /// How many counters are locked now; walks the table.
    pub fn locked(&self, now: Now) -> usize {
        let of = |shard: &Mutex<Sets>| {
            let sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
            sets.iter()
                .flatten()
                .flat_map(|set| set.iter())
                .filter(|counter| counter.locked > now.mono)
                .count()
        };
        self.shards.iter().map(of).sum()
    }

    /// Lockouts since the start.
    pub fn lockouts(&self) -> u64 {
        self.lockouts.load(Ordering::Relaxed)
    }

    /// Counters forgotten before all was forgiven.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    fn find(&self, key: CounterKey) -> Option<Counter> {
        let (shard, set) = self.place(key);
        let sets = shard?.lock().unwrap_or_else(PoisonError::into_inner);
        let set = sets.get(set % sets.len().max(1))?.as_deref()?;
        set.iter().find(|counter| counter.key == key.0).copied()
    }

    fn place(&self, key: CounterKey) -> (Option<&Mutex<Sets>>, usize) {
        let place = usize::try_from(key.0 >> 8).unwrap_or_default();
        (self.shards.get(place % SHARDS), place / SHARDS)
    }

    /// Runs `f` on the counter, in a place of another's if the set is full.
    fn with<T>(&self, key: CounterKey, now: Now, f: impl FnOnce(&mut Counter) -> T) -> T {
        let (shard, set) = self.place(key);
        let Some(shard) = shard else { unreachable!("a remainder of {SHARDS}") };
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sets.len().max(1);
        let Some(set) = sets.get_mut(set % count) else { unreachable!("a remainder of the length") };
        let set = set.get_or_insert_with(|| Box::new([Counter::default(); WAYS]));
        let known = set.iter().position(|counter| counter.key == key.0);
        let chosen = match known {
            Some(place) => set.get_mut(place),
            None => set.iter_mut().min_by_key(|counter| counter.worth(now.mono)),
        };
        let Some(counter) = chosen else { unreachable!("a set has places") };
        if known.is_none() {
            if counter.worth(now.mono) > (0, 0) {
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
            *counter = Counter { key: key.0, ..Counter::default() };
        }
        f(counter)
    }
}

impl Counter {
    /// Those that are worth least go first: what is empty or forgiven, then what is soonest forgiven, and what is locked
    /// last.
    fn worth(&self, now: u64) -> (u64, u64) {
        let locked = self.locked.saturating_sub(now);
        (locked, if self.key == 0 { 0 } else { self.due.saturating_sub(now) })
    }

    fn charge(&mut self, rule: Rule, lockout: Lockout, now: u64) -> Result<(), Refused> {
        if self.locked > now {
            return Err(Refused::Locked(Duration::from_nanos(self.locked - now)));
        }
        if self.due <= now {
            *self = Self { key: self.key, due: now, locked: 0, lockouts: 0 };
        }
        let (interval, per) = (rule.interval(), nanos(rule.per));
        if self.locked > 0 {
            // A lockout is over: one attempt is free.
            self.due = self.due.min(now.saturating_add(per.saturating_sub(interval)));
            self.locked = 0;
        }
        let due = self.due.saturating_add(interval);
        if due.saturating_sub(now) <= per {
            self.due = due;
            return Ok(());
        }
        let length = nanos(lockout.first).saturating_mul(1 << self.lockouts.min(20)).min(nanos(lockout.most));
        self.lockouts = self.lockouts.saturating_add(1);
        self.locked = now.saturating_add(length);
        // Remembered beyond the lockout, so that the next one is longer.
        self.due = self.due.max(self.locked.saturating_add(per));
        Err(Refused::Begun(Duration::from_nanos(length)))
    }
}

impl Rule {
    /// How long it takes until one failure is forgiven.
    fn interval(self) -> u64 {
        nanos(self.per) / u64::from(self.failures.get())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const RULE: Rule = Rule { failures: NonZeroU32::new(5).unwrap(), per: Duration::from_secs(900) };
    const LOCKOUT: Lockout = Lockout { first: Duration::from_secs(30), most: Duration::from_secs(3600) };

    fn at(seconds: u64) -> Now {
        Now { mono: (10_000 + seconds) * 1_000_000_000, wall: 0 }
    }

    fn charge(attempts: &Attempts, who: &str, seconds: u64) -> Result<(), Refused> {
        attempts.charge(attempts.key_of(who), RULE, LOCKOUT, at(seconds))
    }

    #[test]
    fn lockouts_double_up_to_an_hour_with_one_attempt_free_after_each() {
        let attempts = Attempts::new(1000);
        for _ in 0..5 {
            assert_eq!(charge(&attempts, "a", 0), Ok(()));
        }
        let mut now = 0;
        for length in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let length = Duration::from_secs(length);
            assert_eq!(charge(&attempts, "a", now), Err(Refused::Begun(length)));
            now += length.as_secs();
            assert!(matches!(charge(&attempts, "a", now - 1), Err(Refused::Locked(_))));
            assert_eq!(charge(&attempts, "a", now), Ok(()), "one is free after {length:?}");
        }
        assert_eq!(attempts.lockouts(), 9);
    }

    #[test]
    fn failures_are_forgiven_with_time_and_lockouts_too() {
        let attempts = Attempts::new(1000);
        for n in 0..40 {
            assert_eq!(charge(&attempts, "slow", n * 180), Ok(()), "one in three minutes is a person");
        }
        for _ in 0..5 {
            charge(&attempts, "a", 0).unwrap();
        }
        assert!(charge(&attempts, "a", 0).is_err());
        for _ in 0..5 {
            assert_eq!(
                charge(&attempts, "a", 930),
                Ok(()),
                "fifteen minutes after the lockout all is forgiven"
            );
        }
        assert_eq!(
            charge(&attempts, "a", 930),
            Err(Refused::Begun(LOCKOUT.first)),
            "and the next is a first one"
        );
    }

    #[test]
    fn what_was_no_failure_costs_nothing() {
        let attempts = Attempts::new(1000);
        let key = attempts.key_of("a");
        for _ in 0..1000 {
            assert_eq!(charge(&attempts, "a", 0), Ok(()));
            attempts.refund(key, RULE, at(0));
        }
        for _ in 0..5 {
            charge(&attempts, "a", 0).unwrap();
        }
        assert!(charge(&attempts, "a", 0).is_err());
        assert!(attempts.clear(key, at(0)));
        assert_eq!(charge(&attempts, "a", 0), Ok(()));
        attempts.refund(attempts.key_of("nobody"), RULE, at(0));
        assert!(!attempts.clear(attempts.key_of("nobody"), at(0)));
    }

    #[test]
    fn of_a_thousand_attempts_at_once_no_more_than_the_budget_get_through() {
        let (attempts, passed) = (Arc::new(Attempts::new(1000)), Arc::new(AtomicUsize::new(0)));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let through = (0..125).filter(|_| charge(&attempts, "a", 0).is_ok()).count();
                    passed.fetch_add(through, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(passed.load(Ordering::Relaxed), 5);
        assert_eq!(attempts.lockouts(), 1);
    }

    #[test]
    fn a_flood_of_names_frees_nobody_and_is_bounded() {
        let attempts = Attempts::new(20_000);
        for offender in 0..50 {
            let who = format!("offender {offender}");
            while charge(&attempts, &who, 0).is_ok() {}
        }
        for name in 0..500_000 {
            let _ = charge(&attempts, &format!("name {name}"), 1);
        }
        let freed = (0..50).filter(|n| charge(&attempts, &format!("offender {n}"), 2).is_ok()).count();
        assert_eq!(freed, 0);
        assert!(attempts.evictions() > 400_000);
    }

    #[test]
    fn everything_can_be_forgotten() {
        let attempts = Attempts::new(1000);
        for who in ["a", "b"] {
            while charge(&attempts, who, 0).is_ok() {}
        }
        assert_eq!((attempts.locked(at(1)), attempts.locked(at(31))), (2, 0));
        assert_eq!(attempts.clear_all(at(1)), 2);
        assert_eq!(charge(&attempts, "a", 1), Ok(()));
        assert!(attempts.ask(attempts.key_of("a"), at(1)).is_ok());
    }
}
