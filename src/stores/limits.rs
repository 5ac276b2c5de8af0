//! The state of rate limits: one bounded table for all limiters and all workers; it survives reloads.
//!
//! The table is made of sets of 16 places. A key has its place in one set; when the set is full, the place whose budget
//! is nearest to full goes first: a budget that is full again is forgotten for free, and who has used up most stays
//! longest, so that a flood of new addresses does not wash out the offenders. What was lost is counted.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Now;
use crate::config::values::Rate;

const WAYS: usize = 16;
const SHARDS: usize = 64;

/// The table behind all limiters: 16 bytes a key.
#[derive(Debug)]
pub struct Limits {
    shards: Vec<Mutex<Vec<[Slot; WAYS]>>>,
    hasher: RandomState,
    keys: AtomicU64,
    evictions: AtomicU64,
}

/// One rate for one class of one site.
#[derive(Debug)]
pub struct Limiter {
    name: u64,
    hasher: RandomState,
    gcra: RateLimiter<u64, Table, GivenClock, NoOpMiddleware<Moment>>,
}

/// `due` is GCRA's theoretical arrival time: the later, the more of the budget is used up. An empty place has key 0.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    due: u64,
}

// === impl Limits ===

impl Limits {
    /// A table for at least `keys` keys.
    pub fn new(keys: usize) -> Arc<Self> {
        let sets = keys.div_ceil(WAYS * SHARDS).max(1);
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::new(vec![[Slot::default(); WAYS]; sets])).collect(),
            hasher: RandomState::new(),
            keys: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        })
    }

    /// Keys held.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    /// Budgets forgotten before they were full again.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    fn measure<T, E>(&self, key: u64, f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>) -> Result<T, E> {
        let given = GIVEN.get();
        let place = usize::try_from(key >> 8).unwrap_or_default();
        let shard = self.shards.get(place % SHARDS);
        let Some(shard) = shard else { unreachable!("a remainder of {SHARDS}") };
        let mut sets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sets.len().max(1);
        let Some(set) = sets.get_mut(place / SHARDS % count) else {
            unreachable!("a remainder of the length")
        };
        if let Some(slot) = set.iter_mut().find(|slot| slot.key == key) {
            let (answer, due) = f(Some(Nanos::new(slot.due)))?;
            if !given.rehearsal {
                slot.due = due.as_u64();
            }
            return Ok(answer);
        }
        let (answer, due) = f(None)?;
        if !given.rehearsal
            && let Some(slot) = set.iter_mut().min_by_key(|slot| (slot.key != 0, slot.due))
        {
            if slot.key == 0 {
                self.keys.fetch_add(1, Ordering::Relaxed);
            } else if slot.due > given.now {
                self.evictions.fetch_add(1, Ordering::Relaxed);
            }
            *slot = Slot { key, due: due.as_u64() };
        }
        Ok(answer)
    }
}

// === impl Limiter ===

impl Limiter {
    /// A limiter over the table. One of the same name goes on where the last one stood, whatever its rate was.
    pub fn new(limits: &Arc<Limits>, name: &str, rate: Rate) -> Self {
        let quota = Quota::with_period(rate.refill)
            .unwrap_or_else(|| Quota::per_second(rate.burst))
            .allow_burst(rate.burst);
        GIVEN.set(Given { now: 0, rehearsal: false });
        Self {
            name: limits.hasher.hash_one(name),
            hasher: limits.hasher.clone(),
            gcra: RateLimiter::new(quota, Table(Arc::clone(limits)), GivenClock),
        }
    }

    /// Charges one request to a key.
    ///
    /// # Errors
    /// How long to wait, when the budget is used up. A rehearsal charges nothing.
    pub fn check(&self, key: u128, now: Now, rehearsal: bool) -> Result<(), Duration> {
        GIVEN.set(Given { now: now.mono, rehearsal });
        // Key 0 marks an empty place.
        let key = self.gcra_key(key).max(1);
        self.gcra.check_key(&key).map(drop).map_err(|refused| refused.wait_time_from(Moment(now.mono)))
    }

    fn gcra_key(&self, key: u128) -> u64 {
        self.hasher.hash_one((self.name, key))
    }
}

// === governor's parts ===

/// The table as governor sees it.
#[derive(Debug)]
struct Table(Arc<Limits>);

impl StateStore for Table {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure(*key, f)
    }
}

/// governor asks a clock by itself; this one answers with the time that [`Limiter::check`] was given on this thread.
/// Every limiter counts from moment 0, so their states have one meaning in the one table.
#[derive(Debug, Clone, Copy, Default)]
struct GivenClock;

#[derive(Clone, Copy)]
struct Given {
    now: u64,
    rehearsal: bool,
}

thread_local! {
    static GIVEN: Cell<Given> = const { Cell::new(Given { now: 0, rehearsal: false }) };
}

impl Clock for GivenClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(GIVEN.get().now)
    }
}

/// Monotonic nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Moment(u64);

impl Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, more: Nanos) -> Self {
        Self(self.0.saturating_add(more.as_u64()))
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        Nanos::new(self.0.saturating_sub(earlier.0))
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.saturating_sub(duration.as_u64()))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(seconds: u64, burst: u32) -> Rate {
        Rate { refill: Duration::from_secs(seconds), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn at(seconds: u64) -> Now {
        Now { mono: 1_000_000_000 * (1000 + seconds), wall: 0 }
    }

    #[test]
    fn the_burst_passes_then_one_for_each_refill() {
        let limits = Limits::new(1000);
        let limiter = Limiter::new(&limits, "a", rate(12, 5));
        for _ in 0..5 {
            assert_eq!(limiter.check(7, at(0), false), Ok(()));
        }
        assert_eq!(limiter.check(7, at(0), false), Err(Duration::from_secs(12)));
        assert_eq!(limiter.check(8, at(0), false), Ok(()), "another key has a budget of its own");
        assert_eq!(limiter.check(7, at(11), false), Err(Duration::from_secs(1)));
        assert_eq!(limiter.check(7, at(12), false), Ok(()));
        assert!(limiter.check(7, at(12), false).is_err());
    }

    #[test]
    fn a_rehearsal_charges_nothing() {
        let limits = Limits::new(1000);
        let limiter = Limiter::new(&limits, "a", rate(10, 1));
        assert_eq!(limiter.check(7, at(0), true), Ok(()));
        assert_eq!(limiter.check(7, at(0), false), Ok(()));
        assert!(limiter.check(7, at(0), true).is_err());
    }

    #[test]
    fn a_limiter_of_the_same_name_goes_on_where_the_last_one_stood() {
        let limits = Limits::new(1000);
        assert_eq!(Limiter::new(&limits, "site/login", rate(10, 1)).check(7, at(0), false), Ok(()));
        assert!(Limiter::new(&limits, "site/login", rate(10, 1)).check(7, at(1), false).is_err());
        assert!(Limiter::new(&limits, "site/login", rate(20, 1)).check(7, at(1), false).is_err());
        assert_eq!(Limiter::new(&limits, "site/share", rate(10, 1)).check(7, at(1), false), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_offenders_outlive_newcomers() {
        let limits = Limits::new(WAYS * SHARDS);
        let limiter = Limiter::new(&limits, "a", rate(60, 3));
        for _ in 0..3 {
            assert_eq!(limiter.check(1, at(0), false), Ok(()));
        }
        for key in 2..100_000 {
            let _ = limiter.check(key, at(0), false);
        }
        assert!(limits.keys() <= (WAYS * SHARDS) as u64, "{}", limits.keys());
        assert!(limits.evictions() > 90_000);
        assert!(limiter.check(1, at(0), false).is_err(), "the offender is still known");
    }
}
