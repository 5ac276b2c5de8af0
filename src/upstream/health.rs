//! Which upstreams serve, as all workers know it together: by connections that came about or not, and by the questions of
//! health checks.
//!
//! Only what no client can bring about counts against an upstream: that nobody takes a connection, or that its own health
//! path says no. A request that makes the application close a connection, or answer 500, must not take it from others.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::clock::Now;
use crate::config::cluster::HealthCheck;
use crate::config::upstream::Upstream;

/// Others are asked instead for so long after a failed connection, and twice as long after each further one.
const FIRST: u64 = 1000;
const LONGEST: u64 = 30_000;
/// One that lets connections hang is tried once in this time; whoever comes in between is told at once.
const SILENT: u64 = 1000;

/// What all workers know; the map is touched by new connections only.
#[derive(Debug, Default)]
pub struct Health {
    known: Mutex<HashMap<Upstream, Arc<Vitals>>>,
    unwell: ArcSwap<Unwell>,
}

/// Upstreams that say they do not serve, by what they were asked: another site may ask the same one something else.
pub type Unwell = HashMap<HealthCheck, HashSet<Upstream>>;

/// What is known of one upstream.
#[derive(Debug, Default)]
pub struct Vitals {
    usual: Vital,
    calls: Vital,
}

/// How an upstream is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As most requests want it.
    Usual,
    /// For gRPC over TLS, by a handshake that offers HTTP/2 only. Whoever says that his request is gRPC must neither make an
    /// upstream look down that speaks none, nor use up the tries of others.
    Calls,
}

/// What is known of connections of one way. Times are monotonic milliseconds.
#[derive(Debug, Default)]
pub struct Vital {
    /// 0: nobody has tried yet.
    reached: AtomicU8,
    failures: AtomicU32,
    out_until: AtomicU64,
    /// Its last connections hung: when the next may try; 0: they did not.
    silent_until: AtomicU64,
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

/// Whether a connection may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Like any other.
    Free,
    /// As the one of this second, for all: what comes of it must be told.
    Probe,
    /// Another one is under way.
    Taken,
}

const UP: u8 = 1;
const DOWN: u8 = 2;

impl Health {
    /// What is known of connections to this one.
    pub fn of(&self, upstream: &Upstream) -> Arc<Vitals> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(upstream) {
            Some(vitals) => Arc::clone(vitals),
            None => Arc::clone(known.entry(upstream.clone()).or_default()),
        }
    }

    /// Whether it can be reached, and says that it is well to who asks so; `None`: nobody has tried yet.
    pub fn get(&self, upstream: &Upstream, check: Option<&HealthCheck>) -> Option<bool> {
        if check.is_some_and(|check| self.is_unwell(upstream, check)) {
            return Some(false);
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let vitals = known.get(upstream)?;
        vitals.usual.is_up().or_else(|| vitals.calls.is_up())
    }

    /// Whether it has said that it does not serve when it was asked this.
    pub fn is_unwell(&self, upstream: &Upstream, check: &HealthCheck) -> bool {
        self.unwell.load().get(check).is_some_and(|unwell| unwell.contains(upstream))
    }

    /// These say that they do not serve, and no others.
    pub fn replace_unwell(&self, unwell: Unwell) {
        if **self.unwell.load() != unwell {
            self.unwell.store(Arc::new(unwell));
        }
    }
}

impl Vitals {
    /// Of connections of this way.
    pub fn by(&self, way: Way) -> &Vital {
        match way {
            Way::Usual => &self.usual,
            Way::Calls => &self.calls,
        }
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
    pub fn turn(&self, now: Now) -> Turn {
        let until = self.silent_until.load(Relaxed);
        let next = now.mono_ms().saturating_add(SILENT);
        if until == 0 {
            Turn::Free
        } else if now.mono_ms() >= until
            && self.silent_until.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
        {
            Turn::Probe
        } else {
            Turn::Taken
        }
    }

    /// How long others are to be asked instead, in milliseconds; 0: it serves, for all that is known.
    pub fn out_for(&self, now: Now) -> u64 {
        self.out_until.load(Relaxed).saturating_sub(now.mono_ms())
    }

    fn is_up(&self) -> Option<bool> {
        match self.reached.load(Relaxed) {
            0 => None,
            reached => Some(reached == UP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::upstream::{Address, Speaks};

    fn at(ms: u64) -> Now {
        Now { mono: (1_000_000 + ms) * 1_000_000, wall: 0 }
    }

    fn upstream(port: u16) -> Upstream {
        Upstream { address: Address::Tcp { host: "10.0.0.1".into(), port }, speaks: Speaks::Http }
    }

    #[test]
    fn a_refused_connection_takes_it_out_for_longer_each_time_and_one_success_brings_it_back() {
        let vital = Vital::default();
        assert_eq!((vital.is_up(), vital.out_for(at(0))), (None, 0));
        for length in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            vital.tried(Tried::Refused, at(0));
            assert_eq!((vital.is_up(), vital.out_for(at(0))), (Some(false), length));
            assert_eq!(vital.turn(at(0)), Turn::Free, "who refuses at once may be asked at once");
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
        let turns = |times: &[u64]| times.iter().map(|time| vital.turn(at(*time))).collect::<Vec<_>>();
        assert_eq!(turns(&[999, 1000, 1000, 1999]), [Turn::Taken, Turn::Probe, Turn::Taken, Turn::Taken]);
        assert_eq!(turns(&[2000]), [Turn::Probe]);
        vital.tried(Tried::Reached, at(2001));
        assert_eq!(turns(&[2001, 2001]), [Turn::Free, Turn::Free]);
    }

    #[test]
    fn one_that_is_unwell_to_one_question_is_well_to_another() {
        let check = |path: &'static str| HealthCheck {
            path: http::uri::PathAndQuery::from_static(path),
            host: "a.test".into(),
        };
        let (health, one) = (Health::default(), upstream(1));
        let seen = |path| health.get(&one, Some(&check(path)));
        assert_eq!((seen("/a"), health.get(&one, None)), (None, None));
        health.replace_unwell(Unwell::from([(check("/a"), HashSet::from([one.clone()]))]));
        assert_eq!((seen("/a"), seen("/b"), health.get(&one, None)), (Some(false), None, None));
        assert_eq!(health.get(&upstream(2), Some(&check("/a"))), None);
        health.of(&one).by(Way::Usual).tried(Tried::Reached, at(0));
        assert_eq!((seen("/a"), seen("/b"), health.get(&one, None)), (Some(false), Some(true), Some(true)));
        health.replace_unwell(Unwell::new());
        assert_eq!(seen("/a"), Some(true));
    }

    #[test]
    fn calls_that_fail_take_an_upstream_from_calls_only() {
        let (health, one) = (Health::default(), upstream(1));
        let vitals = health.of(&one);
        vitals.by(Way::Usual).tried(Tried::Reached, at(0));
        vitals.by(Way::Calls).tried(Tried::Silent, at(0));
        let standing = |way| (vitals.by(way).out_for(at(0)), vitals.by(way).turn(at(0)));
        assert_eq!((standing(Way::Usual), standing(Way::Calls)), ((0, Turn::Free), (1000, Turn::Taken)));
        assert_eq!(health.get(&one, None), Some(true));
    }
}
