//! What a request costs before it goes upstream: its facts read from the head, and the guards' verdict, with 100,000 blocks
//! and three credentials; and one check of a rate limit. `cargo bench --bench decide`.
#![allow(missing_docs, reason = "criterion's macros")]

#[path = "../tests/common/decision.rs"]
mod decision;

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use decision::{Bench, asked};
use portcullis::clock::Now;
use portcullis::config::values::Rate;
use portcullis::stores::limits::{Limiter, Limits, Who};

fn decisions(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("decide");
    for asked in asked() {
        let reading = bench.read(&asked);
        group.bench_function(asked.name, |round| round.iter(|| bench.decide(black_box(&reading))));
    }
    group.finish();
    let asked = asked();
    if let Some(pass) = asked.first() {
        criterion.bench_function("read", |round| round.iter(|| bench.read(black_box(pass))));
    }
}

/// A million keys, then as many again that find no place: each asked at random.
fn limits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limiter");
    let rate = Rate { refill: Duration::from_secs(3600), burst: NonZeroU32::MIN.saturating_add(999) };
    for (name, keys) in [("one key", 1), ("a million keys", 1_000_000), ("no place left", 8_000_000)] {
        let limits = Limits::new(1_000_000);
        let limiter = Limiter::new(&limits, "bench", rate);
        let who = |number: u64| {
            let client = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys);
            Who { client, network: client >> 8 }
        };
        let now = Now { mono: 1_000_000_000_000, wall: 0 };
        (0..keys).for_each(|client| {
            let client = u128::from(client);
            let _ = limiter.check(Who { client, network: client >> 8 }, now, false);
        });
        let mut number = 0;
        group.bench_function(name, |round| {
            round.iter(|| {
                number += 1;
                limiter.check(black_box(who(number)), now, false)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decisions, limits);
criterion_main!(benches);
