//! Promises about the decision's cost: no allocation, at most two microseconds, with 100,000 blocks.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests measure real time")]

#[path = "common/decision.rs"]
mod decision;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use decision::{Bench, asked};
use portcullis::clock::Now;
use portcullis::config::values::Rate;
use portcullis::gateway::read::Reading;
use portcullis::stores::limits::{Limiter, Limits, Who};

/// Rounds of which the fastest counts: other programs may disturb all but one of them.
const ROUNDS: usize = 200;
const DECISIONS: u32 = 200;

fn fastest(bench: &Bench, reading: &Reading<'_>) -> Duration {
    let round = || {
        let start = Instant::now();
        (0..DECISIONS).for_each(|_| drop(black_box(bench.decide(black_box(reading)))));
        start.elapsed() / DECISIONS
    };
    (0..ROUNDS).map(|_| round()).min().unwrap()
}

#[test]
fn each_request_of_the_measurement_is_refused_by_the_guard_that_it_is_for() {
    let bench = Bench::new();
    for asked in asked() {
        let reading = bench.read(&asked);
        assert_eq!(reading.facts.credentials.len(), 3, "{}", asked.name);
        // The first one may use the budget up.
        let _ = bench.decide(&reading);
        assert_eq!(
            bench.decide(&reading).err().map(|denial| denial.guard),
            asked.refused_by,
            "{}",
            asked.name
        );
    }
}

#[test]
fn a_decision_allocates_nothing_whether_it_permits_or_denies() {
    let bench = Bench::new();
    for asked in asked() {
        let reading = bench.read(&asked);
        // What a thread sets up for itself with its first request is not a request's cost.
        let _ = bench.decide(&reading);
        let spent = allocation_counter::measure(|| drop(black_box(bench.decide(black_box(&reading)))));
        assert_eq!(spent.count_total, 0, "{}: {spent:?}", asked.name);
    }
    let spent = allocation_counter::measure(|| drop(black_box(vec![1])));
    assert_eq!(spent.count_total, 1, "the counter counts");
}

#[test]
fn a_rate_limit_allocates_nothing_also_for_newcomers_of_a_full_table() {
    let limits = Limits::new(1);
    let rate = Rate { refill: Duration::from_secs(60), burst: NonZeroU32::new(10).unwrap() };
    let limiter = Limiter::new(&limits, "class", rate);
    let now = Now { mono: 1_000_000_000, wall: 0 };
    let ask = |client: u128| {
        let _ = black_box(limiter.check(Who { client, network: client >> 8 }, now, false));
    };
    (0..100_000).for_each(ask);
    let spent = allocation_counter::measure(|| {
        (0..200_000).for_each(ask);
    });
    assert_eq!(spent.count_total, 0, "{spent:?}");
    assert!(limits.newcomers() > 100_000);
}

#[test]
fn a_decision_takes_at_most_two_microseconds() {
    let bench = Bench::new();
    for asked in asked() {
        let reading = bench.read(&asked);
        let took = fastest(&bench, &reading);
        assert!(took <= Duration::from_micros(2), "{}: {took:?}", asked.name);
    }
}
