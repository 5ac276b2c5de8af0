//! What a request costs before it goes upstream: its facts read from the head, and the guards' verdict, with 100,000 blocks
//! and three credentials. `cargo bench --bench decide`.
#![allow(missing_docs, reason = "criterion's macros")]

#[path = "../tests/common/decision.rs"]
mod decision;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use decision::{Bench, asked};

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

criterion_group!(benches, decisions);
criterion_main!(benches);
