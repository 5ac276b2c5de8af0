//! The state of rate limits: one bounded table for all limiters and all workers; it survives reloads.
//!
//! A key has a place of its own as long as there is one free: exact over all workers. When there is none (see [`table`]),
//! who is new shares a budget with the other newcomers of its network (IPv4 /24, IPv6 /48), as large as that of one
//! client, so that nobody has more than before; and takes the place of whoever has used less of his budget than one
//! request takes. What is used up by more than half is never forgotten: a flood of new addresses neither resets an
//! offender's budget nor passes more than one budget for each place and each shared bucket.
//!
//! Times are monotonic: jumps of the wall clock change nothing. A reload keeps what each key has used: where the rate
//! has changed, the same share of the new budget.

mod shared;
mod table;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use self::shared::Shared;
use self::table::{Found, Shard, Slot};
use crate::clock::Now;
use crate::config::values::Rate;

const SHARDS: usize = 64;
/// No budget takes longer than this to fill, in nanoseconds: sums with it do not overflow. Some 146 years.
const LONGEST: u64 = u64::MAX / 4;

/// The table behind all limiters: at most 40 bytes a key, taken from the system as keys come.
#[derive(Debug)]
pub struct Limits {
    shards: Vec<Mutex<Shard>>,
    /// What newcomers share, of each limiter that is in use.
    shared: Mutex<HashMap<(u64, Rate), Weak<Shared>>>,
    hasher: RandomState,
    keys: AtomicU64,
    evictions: AtomicU64,
    newcomers: AtomicU64,
}

/// One rate for one class of one site.
#[derive(Debug)]
pub struct Limiter {
    name: u64,
    span: u64,
    hasher: RandomState,
    gcra: RateLimiter<Key, Table, GivenClock, NoOpMiddleware<Moment>>,
}

/// Who is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Whose budget it is.
    pub client: u128,
    /// With whom the budget is shared when there is no place for another.
    pub network: u128,
}

// === impl Limits ===

impl Limits {
    /// A table for at least `keys` keys.
    pub fn new(keys: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::new(keys.div_ceil(SHARDS)))).collect(),
            shared: Mutex::default(),
            hasher: RandomState::new(),
            keys: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            newcomers: AtomicU64::new(0),
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

    /// Requests judged by a shared bucket, because there was no place for another key.
    pub fn newcomers(&self) -> u64 {
        self.newcomers.load(Ordering::Relaxed)
    }

    /// `newcomer` judges where there is no place for the key.
    fn measure<T, E>(
        &self,
        key: &Key,
        newcomer: impl FnOnce(Given) -> Result<T, E>,
        f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        let given = GIVEN.get();
        let mut shard = self.shard(key.own).lock().unwrap_or_else(PoisonError::into_inner);
        let found = shard.seek(key.own, given.now);
        let (answer, due) = match &found {
            Found::Known(seat, slot) => {
                let current = slot.under(key.span, given.now);
                if current != *slot && !given.rehearsal {
                    // Also where it is refused now: the new rate's time begins.
                    shard.put(*seat, current);
                }
                f(Some(Nanos::new(current.due)))?
            }
            Found::Free(..) => f(None)?,
            Found::Full(..) => {
                self.newcomers.fetch_add(u64::from(!given.rehearsal), Ordering::Relaxed);
                (newcomer(given)?, f(None)?.1)
            }
        };
        if given.rehearsal {
            return Ok(answer);
        }
        let new = Slot { key: key.own, due: due.as_u64(), span: key.span };
        let seat = match found {
            Found::Known(seat, _) => seat,
            Found::Free(seat, empty) => {
                self.keys.fetch_add(u64::from(empty), Ordering::Relaxed);
                seat
            }
            Found::Full(_, fullest) if !fullest.gives_way_to(&new, given.now) => return Ok(answer),
            Found::Full(seat, _) => {
                self.evictions.fetch_add(1, Ordering::Relaxed);
                seat
            }
        };
        shard.put(seat, new);
        Ok(answer)
    }

    /// One that has the same name and rate goes on.
    fn shared(&self, name: u64, rate: Rate) -> Arc<Shared> {
        let mut all = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, shared| shared.strong_count() > 0);
        let known = all.get(&(name, rate)).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let new = Arc::<Shared>::default();
            all.insert((name, rate), Arc::downgrade(&new));
            new
        })
    }

    fn shard(&self, key: u64) -> &Mutex<Shard> {
        let place = usize::try_from(key % SHARDS as u64).ok();
        let Some(shard) = place.and_then(|place| self.shards.get(place)) else {
            unreachable!("a remainder of {SHARDS}")
        };
        shard
    }
}

// === impl Limiter ===

impl Limiter {
    /// A limiter over the table. One of the same name goes on where the last one stood, whatever its rate was.
    pub fn new(limits: &Arc<Limits>, name: &str, rate: Rate) -> Self {
        let refill = u64::try_from(rate.refill.as_nanos()).unwrap_or(u64::MAX).clamp(1, LONGEST);
        let burst = u32::try_from(LONGEST / refill).unwrap_or(u32::MAX).min(rate.burst.get());
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Duration::from_nanos(refill))
            .unwrap_or_else(|| Quota::per_second(burst))
            .allow_burst(burst);
        GIVEN.set(Given { now: 0, rehearsal: false });
        let name = limits.hasher.hash_one(name);
        let table = Table { limits: Arc::clone(limits), shared: limits.shared(name, rate) };
        Self {
            name,
            span: refill.saturating_mul(u64::from(burst.get())),
            hasher: limits.hasher.clone(),
            gcra: RateLimiter::new(quota, table, GivenClock),
        }
    }

    /// Charges one request. A rehearsal charges nothing.
    ///
    /// # Errors
    /// How long to wait, when the budget is used up.
    pub fn check(&self, who: Who, now: Now, rehearsal: bool) -> Result<(), Duration> {
        GIVEN.set(Given { now: now.mono, rehearsal });
        // Key 0 marks an empty place.
        let own = self.hasher.hash_one((self.name, who.client)).max(1);
        let key = Key { own, network: who.network, span: self.span };
        self.gcra.check_key(&key).map(drop).map_err(|refused| refused.wait_time_from(Moment(now.mono)))
    }
}

// === governor's parts ===

/// Whose budget, and what becomes of it where there is no place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    own: u64,
    network: u128,
    span: u64,
}

/// The table as governor sees it.
#[derive(Debug)]
struct Table {
    limits: Arc<Limits>,
    shared: Arc<Shared>,
}

impl StateStore for Table {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let newcomer =
            |given: Given| self.shared.measure(self.limits.hasher.hash_one(key.network), given.rehearsal, &f);
        self.limits.measure(key, newcomer, &f)
    }
}

/// governor asks a clock by itself; this one answers with the time that [`Limiter::check`] was given on this thread.
/// Every limiter counts from moment 0, so their states have one meaning in the one table.
#[derive(Debug, Clone, Copy, Default)]
struct GivenClock;

#[derive(Debug, Clone, Copy)]
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
