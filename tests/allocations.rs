//! Promises about the decision's cost: no allocation, at most two microseconds, with 100,000 blocks.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests measure real time")]
#![allow(clippy::print_stdout, reason = "measured figures are shown")]

#[path = "common/decision.rs"]
mod decision;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::time::{Duration, Instant};

use decision::{Bench, asked};
use portcullis::clock::Now;
use portcullis::config::class::Class;
use portcullis::config::values::Rate;
use portcullis::gateway::causes;
use portcullis::gateway::read::Reading;
use portcullis::gateway::recent::{Entry, Recents};
use portcullis::request::client::Client;
use portcullis::request::credential::{Claims, Credential, Fingerprint};
use portcullis::request::facts::{Facts, Malformed};
use portcullis::request::share_key::ShareKey;
use portcullis::stores::limits::{Limiter, Limits, Who};
use portcullis::telemetry::line::Verdict;

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

/// A request with so many tokens, each with texts of this length.
fn entry(number: u32, tokens: usize, length: usize, verdict: Verdict) -> Entry {
    let text = || Some("x".repeat(length).into_boxed_str());
    let claims = || Claims { jti_text: text(), subject_text: text(), ..Claims::default() };
    let credential = || Credential {
        fingerprint: Fingerprint([1; 32]),
        claims: Some(claims()),
        in_cookie: false,
        guessed: false,
    };
    let client = Client::Address(std::net::IpAddr::from(number.to_be_bytes()));
    let credentials = (0..tokens).map(|_| credential()).collect();
    Entry {
        id: "0123456789abcdef".into(),
        wall: 0,
        client,
        site: Some("files.example.com".into()),
        route: Some("/api/*".into()),
        class: Some(Class::Api),
        method: Some(http::Method::GET),
        facts: Some(Rc::new(Facts { client, credentials, ..Facts::example() })),
        verified: false,
        verdict,
        told: Some(causes::malformed(Malformed::Path)),
        status: 404,
        path: (verdict != Verdict::Permitted).then(|| "/x".repeat(8 * length).into()),
        failure: None,
    }
}

#[test]
fn what_is_remembered_of_requests_takes_bounded_memory() {
    const DENIED: Verdict = Verdict::Denied { guard: "rate", reason: "rate_limited" };
    // A token with its own number and subject; and what strangers can do at worst.
    for (tokens, length, most) in [(1, 36, 3 << 20), (16, 128, 18 << 20)] {
        let mut kept = None;
        let spent = allocation_counter::measure(|| {
            let recents = Recents::new(ShareKey::new(&[7; 32]));
            for number in 0..4000 {
                recents.note(entry(number, tokens, length, DENIED));
                recents.note(entry(number, tokens, length, Verdict::Permitted));
            }
            kept = Some(recents);
        });
        println!("{tokens} tokens of {length} bytes: {} KiB", spent.bytes_current >> 10);
        assert!(spent.bytes_current > 0 && spent.bytes_current < most, "{tokens} tokens: {spent:?}");
    }
}
