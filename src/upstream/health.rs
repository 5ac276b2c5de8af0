//! Which upstreams serve, as all workers know it together: by connections that came about or not, and by the questions of
//! health checks.
//!
//! Only what no client can bring about counts against an upstream: that nobody takes a connection, or that its own health
//! path says no. A request that makes the application close a connection, or answer 500, must not take it from others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Now;
use crate::config::upstream::Upstream;

/// Others are asked instead for so long after a failed connection, and twice as long after each further one.
const FIRST: u64 = 1000;
const LONGEST: u64 = 30_000;
/// One that lets connections hang is tried once in this time; whoever comes in between is told at once.
const SILENT: u64 = 1000;
/// Questions in a row that change what is believed.
const CHECKS: u32 = 2;

/// What all workers know; the map is touched by new connections only.
#[derive(Debug, Default)]
pub struct Health {
    known: Mutex<HashMap<Upstream, Arc<Vital>>>,
}

/// What is known of one upstream. Times are monotonic milliseconds.
#[derive(Debug, Default)]
pub struct Vital {
    /// 0: nobody has tried yet.
    reached: AtomicU8,
    failures: AtomicU32,
    out_until: AtomicU64,
    /// Its last connections hung: when the next may try; 0: they did not.
    silent_until: AtomicU64,
    /// Answers of the health check in a row that say otherwise than `unwell`.
    doubts: AtomicU32,
    unwell: AtomicU8,
}

/// How a try to connect went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It was taken.
    Reached,
    /// It was refused.
    Refused,
    /// Nobody said anything.
    Silent,
}

const UP: u8 = 1;
const DOWN: u8 = 2;

impl Health {
    /// What is known of this one.
    pub fn of(&self, upstream: &Upstream) -> Arc<Vital> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(upstream) {
            Some(vital) => Arc::clone(vital),
            None => Arc::clone(known.entry(upstream.clone()).or_default()),
        }
    }

    /// Whether it can be reached and is well; `None`: nobody has tried yet.
    pub fn get(&self, upstream: &Upstream) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(upstream)?.is_up()
    }
}

impl Vital {
    /// A connection came about, or not.
    pub fn tried(&self, how: Tried, now: Now) {
        if how == Tried::Reached {
            self.reached.store(UP, Relaxed);
            self.failures.store(0, Relaxed);
            self.out_until.store(0, Relaxed);
            self.silent_until.store(0, Relaxed);
            return;
        }
        self.reached.store(DOWN, Relaxed);
        let failures = self.failures.fetch_add(1, Relaxed).min(16);
        self.out_until.store(now.mono_ms().saturating_add((FIRST << failures).min(LONGEST)), Relaxed);
        let silent_until = if how == Tried::Silent { now.mono_ms().saturating_add(SILENT) } else { 0 };
        self.silent_until.store(silent_until, Relaxed);
    }

    /// Whether a connection may be tried now: while they hang one a second may, so that a dead host costs a client its
    /// patience once and not each time.
    pub fn may_try(&self, now: Now) -> bool {
        let until = self.silent_until.load(Relaxed);
        let next = now.mono_ms().saturating_add(SILENT);
        until == 0
            || (now.mono_ms() >= until
                && self.silent_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok())
    }

    /// The health path has answered well, or not; two in a row count.
    pub fn checked(&self, well: bool) {
        let said = if well { UP } else { DOWN };
        if self.unwell.load(Relaxed) == said {
            self.doubts.store(0, Relaxed);
        } else if self.doubts.fetch_add(1, Relaxed) + 1 >= CHECKS || self.unwell.load(Relaxed) == 0 {
            self.unwell.store(said, Relaxed);
            self.doubts.store(0, Relaxed);
        }
    }

    /// How long others are to be asked instead, in milliseconds; 0: it serves, for all that is known.
    pub fn out_for(&self, now: Now) -> u64 {
        match self.unwell.load(Relaxed) {
            DOWN => u64::MAX,
            _ => self.out_until.load(Relaxed).saturating_sub(now.mono_ms()),
        }
    }

    fn is_up(&self) -> Option<bool> {
        match (self.reached.load(Relaxed), self.unwell.load(Relaxed)) {
            (0, 0) => None,
            (reached, unwell) => Some(reached != DOWN && unwell != DOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: (1_000_000 + ms) * 1_000_000, wall: 0 }
    }

    #[test]
    fn a_refused_connection_takes_it_out_for_longer_each_time_and_one_success_brings_it_back() {
        let vital = Vital::default();
        assert_eq!((vital.is_up(), vital.out_for(at(0))), (None, 0));
        for length in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            vital.tried(Tried::Refused, at(0));
            assert_eq!((vital.is_up(), vital.out_for(at(0))), (Some(false), length));
            assert!(vital.may_try(at(0)), "who refuses at once may be asked at once");
        }
        vital.tried(Tried::Reached, at(5));
        assert_eq!((vital.is_up(), vital.out_for(at(5))), (Some(true), 0));
        vital.tried(Tried::Refused, at(6));
        assert_eq!(vital.out_for(at(6)), 1000);
    }

    #[test]
    fn one_that_lets_connections_hang_is_tried_once_a_second() {
        let vital = Vital::default();
        vital.tried(Tried::Silent, at(0));
        assert!(!vital.may_try(at(999)));
        assert!(vital.may_try(at(1000)) && !vital.may_try(at(1000)) && !vital.may_try(at(1999)));
        assert!(vital.may_try(at(2000)));
        vital.tried(Tried::Reached, at(2001));
        assert!(vital.may_try(at(2001)) && vital.may_try(at(2001)));
    }

    #[test]
    fn the_first_answer_of_a_health_check_counts_and_then_two_in_a_row() {
        let vital = Vital::default();
        vital.checked(false);
        assert_eq!((vital.is_up(), vital.out_for(at(0))), (Some(false), u64::MAX));
        vital.checked(true);
        vital.checked(false);
        vital.checked(true);
        assert_eq!(vital.is_up(), Some(false), "one good answer is a chance");
        vital.checked(true);
        assert_eq!((vital.is_up(), vital.out_for(at(0))), (Some(true), 0));
        vital.checked(false);
        assert_eq!(vital.is_up(), Some(true));
    }
}
