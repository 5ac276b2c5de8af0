#![allow(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "test code; what was measured is said"
)]

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::shared::COUNT;
use super::*;

fn rate(refill: Duration, burst: u32) -> Rate {
    Rate { refill, burst: NonZeroU32::new(burst).unwrap() }
}

fn seconds(refill: u64, burst: u32) -> Rate {
    rate(Duration::from_secs(refill), burst)
}

fn at(seconds: u64) -> Now {
    Now { mono: 1_000_000_000 * (1000 + seconds), wall: 0 }
}

/// An address whose last byte is the host within its network.
fn who(address: u128) -> Who {
    Who { client: address, network: address >> 8 << 8 }
}

/// How many of `tries` pass.
fn passed(limiter: &Limiter, address: u128, now: Now, tries: usize) -> usize {
    (0..tries).filter(|_| limiter.check(who(address), now, false).is_ok()).count()
}

#[test]
fn the_burst_passes_then_one_for_each_refill() {
    let limits = Limits::new(1000);
    let limiter = Limiter::new(&limits, "a", seconds(12, 5));
    assert_eq!(passed(&limiter, 7, at(0), 5), 5);
    assert_eq!(limiter.check(who(7), at(0), false), Err(Duration::from_secs(12)));
    assert_eq!(limiter.check(who(8), at(0), false), Ok(()), "another key has a budget of its own");
    assert_eq!(limiter.check(who(7), at(11), false), Err(Duration::from_secs(1)));
    assert_eq!(limiter.check(who(7), at(12), false), Ok(()));
    assert!(limiter.check(who(7), at(12), false).is_err());
}

#[test]
fn a_rehearsal_charges_nothing_and_takes_no_place() {
    let limits = Limits::new(1000);
    let limiter = Limiter::new(&limits, "a", seconds(10, 1));
    assert_eq!(limiter.check(who(7), at(0), true), Ok(()));
    assert_eq!(limits.keys(), 0);
    assert_eq!(limiter.check(who(7), at(0), false), Ok(()));
    assert!(limiter.check(who(7), at(0), true).is_err());
}

#[test]
fn jumps_of_the_wall_clock_change_nothing() {
    let limits = Limits::new(1000);
    let limiter = Limiter::new(&limits, "a", seconds(10, 1));
    assert_eq!(limiter.check(who(7), at(0), false), Ok(()));
    for wall in [0, 86_400_000, u64::MAX] {
        let wait = limiter.check(who(7), Now { wall, ..at(1) }, false);
        assert_eq!(wait, Err(Duration::from_secs(9)));
    }
}

#[test]
fn a_limiter_of_the_same_name_goes_on_where_the_last_one_stood() {
    let limits = Limits::new(1000);
    assert_eq!(Limiter::new(&limits, "site/login", seconds(10, 1)).check(who(7), at(0), false), Ok(()));
    assert!(Limiter::new(&limits, "site/login", seconds(10, 1)).check(who(7), at(1), false).is_err());
    assert_eq!(Limiter::new(&limits, "site/share", seconds(10, 1)).check(who(7), at(1), false), Ok(()));
}

#[test]
fn with_a_new_rate_the_same_share_of_the_new_budget_is_used() {
    let limits = Limits::new(1000);
    // An hour to fill; all, half and nothing of it is used.
    let slow = Limiter::new(&limits, "site/login", seconds(600, 6));
    assert_eq!((passed(&slow, 1, at(0), 9), passed(&slow, 2, at(0), 3)), (6, 3));
    let quick = Limiter::new(&limits, "site/login", seconds(1, 60));
    assert_eq!(quick.check(who(1), at(0), false), Err(Duration::from_secs(1)), "all: nobody starts afresh");
    assert_eq!(passed(&quick, 2, at(0), 99), 30, "half");
    assert_eq!(passed(&quick, 3, at(0), 99), 60);
    assert_eq!(passed(&quick, 1, at(60), 99), 60, "nor waits longer than the new rate says");
    let slow = Limiter::new(&limits, "site/login", seconds(600, 6));
    assert_eq!(slow.check(who(1), at(60), false), Err(Duration::from_secs(600)));
}

#[test]
fn rates_of_any_size_do_not_overflow() {
    let limits = Limits::new(1000);
    for (refill, burst) in [(Duration::from_nanos(1), u32::MAX), (Duration::from_secs(86_400), u32::MAX)] {
        let limiter = Limiter::new(&limits, &format!("{refill:?}"), rate(refill, burst));
        assert_eq!(passed(&limiter, 1, at(0), 1000), 1000);
    }
    let never = Limiter::new(&limits, "never", rate(Duration::MAX, u32::MAX));
    assert_eq!(passed(&never, 1, at(0), 1000), 1, "a budget of 146 years is the largest");
}

#[test]
fn as_many_keys_as_asked_for_all_have_a_place_of_their_own() {
    for keys in [100, 5_000, 300_000] {
        let limits = Limits::new(keys);
        let limiter = Limiter::new(&limits, "a", seconds(60, 3));
        for address in 0..keys as u128 {
            assert_eq!(limiter.check(who(address), at(0), false), Ok(()));
        }
        assert_eq!((limits.keys(), limits.newcomers()), (keys as u64, 0), "{keys}");
        assert!((0..keys as u128).all(|address| passed(&limiter, address, at(1), 3) == 2), "{keys}");
    }
}

#[test]
fn a_place_is_free_again_when_its_budget_is_full_again() {
    let limits = Limits::new(1);
    let limiter = Limiter::new(&limits, "a", seconds(1, 3));
    for second in 0..100 {
        for address in 0..500 {
            assert_eq!(limiter.check(who(1000 * u128::from(second) + address), at(second), false), Ok(()));
        }
    }
    assert_eq!((limits.newcomers(), limits.evictions()), (0, 0));
}

/// The table is full of keys that have used one of ten.
fn flooded() -> (Arc<Limits>, Limiter) {
    let limits = Limits::new(1000);
    let limiter = Limiter::new(&limits, "a", seconds(60, 10));
    for network in 0..20_000_u128 {
        let _ = limiter.check(who(1 << 40 | network << 8), at(0), false);
    }
    (limits, limiter)
}

#[test]
fn a_flood_resets_no_offender_and_passes_no_more_than_places_and_shared_buckets_hold() {
    let limits = Limits::new(1000);
    let limiter = Limiter::new(&limits, "a", seconds(60, 10));
    let offenders: Vec<u128> = (0..100).map(|number| 1 << 60 | number << 8).collect();
    for offender in &offenders {
        assert_eq!(passed(&limiter, *offender, at(0), 99), 10);
    }
    // The same addresses again and again, many more than there is room for.
    let mut through = 0;
    for round in 0..30 {
        for network in 0..20_000_u128 {
            through += passed(&limiter, 1 << 40 | network << 8, at(round), 1);
        }
        // After half a minute half a request of ten has come back.
        assert!(offenders.iter().all(|one| passed(&limiter, *one, at(round), 1) == 0), "round {round}");
    }
    let places = limits.keys() as usize;
    assert!(places <= 64 * 2 * 16, "{places}");
    assert!(through <= (places + COUNT) * 10, "{through} of 600000 have passed");
    assert!(limits.newcomers() > 500_000);
}

#[test]
fn who_is_known_keeps_his_budget_in_a_flood_and_who_is_new_has_that_of_his_network() {
    let (limits, _) = flooded();
    let known = Limiter::new(&limits, "b", seconds(60, 10));
    // One that was there before the flood came, in another class.
    let before = limits.newcomers();
    let (own, other) = (1 << 80 | 1, 1 << 80 | 2);
    assert_eq!(passed(&known, own, at(1), 1), 1, "the first of his network");
    assert_eq!(limits.newcomers(), before + 1);
    // His network's bucket has had one request; whoever of them has got a place has nine more of his own.
    let both = passed(&known, own, at(1), 20) + passed(&known, other, at(1), 20);
    assert!((9..=19).contains(&both), "{both}");
}

#[test]
fn the_fullest_budget_gives_way_and_one_that_is_used_up_does_not() {
    let (limits, limiter) = flooded();
    assert_eq!(limits.evictions(), 0, "none has used less than a newcomer would");
    for network in 0..5_000_u128 {
        let _ = limiter.check(who(1 << 50 | network << 8), at(59), false);
    }
    assert!(limits.evictions() > 500, "a minute later they have: {}", limits.evictions());
}

/// GCRA as it is told, without bound: when each key's budget is full again.
#[derive(Default)]
struct Naive(HashMap<(usize, u128), u64>);

impl Naive {
    fn check(&mut self, limiter: usize, rate: Rate, address: u128, now: u64) -> Result<(), Duration> {
        let refill = rate.refill.as_nanos() as u64;
        let due = self.0.entry((limiter, address)).or_insert(now);
        let free = (*due).saturating_sub(refill * u64::from(rate.burst.get() - 1));
        if now < free {
            return Err(Duration::from_nanos(free - now));
        }
        *due = (*due).max(now) + refill;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn below_its_bound_the_table_answers_as_one_without_bound(
        rates in proptest::collection::vec((1..20_000_u64, 1..8_u32), 3),
        asked in proptest::collection::vec((0..3_usize, 0..60_u128, 0..4_000_u64), 1..600),
    ) {
        let limits = Limits::new(200);
        let rates: Vec<_> = rates.iter().map(|(millis, burst)| rate(Duration::from_millis(*millis), *burst)).collect();
        let limiters: Vec<_> =
            rates.iter().enumerate().map(|(name, rate)| Limiter::new(&limits, &name.to_string(), *rate)).collect();
        let mut naive = Naive::default();
        let mut now = 1_000_000_000;
        for (which, address, later) in asked {
            // Many at one moment, then a jump.
            now += later.saturating_sub(2_000) * 1_000_000;
            let told = limiters[which].check(who(address), Now { mono: now, wall: 0 }, false);
            prop_assert_eq!(told, naive.check(which, rates[which], address, now));
        }
        prop_assert_eq!(limits.newcomers(), 0);
    }
}

/// Runs `work` on eight threads at once.
fn together(work: impl Fn(usize) + Sync) {
    let ready = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (work, ready) = (&work, &ready);
            scope.spawn(move || {
                ready.wait();
                work(thread);
            });
        }
    });
}

#[test]
fn all_workers_together_let_no_more_through_than_the_quota_and_no_less() {
    let limits = Limits::new(1000);
    let limiter = Limiter::new(&limits, "a", seconds(1, 50));
    let counts: Vec<AtomicUsize> = (0..20).map(|_| AtomicUsize::new(0)).collect();
    let clock = AtomicU64::new(1000);
    together(|_| {
        for _ in 0..2_000 {
            // Each worker's own idea of the time, none ahead of what all together have reached.
            let now = Now { mono: 1_000_000_000 * clock.load(Ordering::Relaxed), wall: 0 };
            for (address, count) in counts.iter().enumerate() {
                let pass = limiter.check(who(address as u128), now, false).is_ok();
                count.fetch_add(usize::from(pass), Ordering::Relaxed);
            }
            if now.mono < 1_010_000_000_000 {
                let seen = now.mono / 1_000_000_000;
                let _ = clock.compare_exchange(seen, seen + 1, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    });
    for count in &counts {
        assert_eq!(count.load(Ordering::Relaxed), 60, "50 at once and one for each of ten seconds");
    }
}

#[test]
fn a_shared_bucket_too_is_exact_over_workers() {
    let limits = Limits::new(1);
    let fill = Limiter::new(&limits, "fill", seconds(3600, 1));
    for address in 0..100_000 {
        let _ = fill.check(who(address << 8), at(0), false);
    }
    let limiter = Limiter::new(&limits, "a", seconds(60, 50));
    let passed = AtomicUsize::new(0);
    // All places are held by budgets that are used up; every address is new each time.
    together(|thread| {
        for host in 0..32 {
            for _ in 0..100 {
                let address = 1 << 90 | (thread * 32 + host) as u128;
                let pass = limiter.check(who(address), at(1), false).is_ok();
                passed.fetch_add(usize::from(pass), Ordering::Relaxed);
            }
        }
    });
    assert_eq!(passed.load(Ordering::Relaxed), 50, "the whole /24 has the budget of one");
}

#[test]
fn a_flood_from_all_workers_holds_the_bound_and_the_offender() {
    let limits = Limits::new(1000);
    let limiter = Limiter::new(&limits, "a", seconds(60, 10));
    assert_eq!(passed(&limiter, 1 << 100, at(0), 10), 10);
    let through = AtomicUsize::new(0);
    together(|thread| {
        for network in 0..60_000 {
            let address = 1 << 50 | ((network * 8 + thread) as u128) << 8;
            through.fetch_add(super::tests::passed(&limiter, address, at(1), 1), Ordering::Relaxed);
        }
    });
    assert!(limiter.check(who(1 << 100), at(1), false).is_err());
    assert!(through.into_inner() <= (64 * 2 * 16 + COUNT) * 10);
    assert!(limits.keys() <= 64 * 2 * 16);
}

/// Resident memory of this process in bytes, without the pages of its program: how many of those are there is the page cache's affair.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_million_clients_cost_at_most_100_mib_and_a_table_without_clients_next_to_nothing() {
    let before = resident();
    let limits = Limits::new(1_000_000);
    let empty = resident().saturating_sub(before);
    let limiter = Limiter::new(&limits, "a", seconds(3600, 3));
    for address in 0..1_000_000_u128 {
        limiter.check(who(address << 8), at(0), false).unwrap();
    }
    let full = resident().saturating_sub(before);
    for address in 1_000_000..2_000_000_u128 {
        let _ = limiter.check(who(address << 8), at(0), false);
    }
    let flooded = resident().saturating_sub(before);
    println!("empty {empty}, a million {full}, two million {flooded} bytes: {} a key", full / 1_000_000);
    assert!(empty <= 4 << 20, "{empty}");
    assert!(full <= 100 << 20 && flooded <= 100 << 20, "{full} {flooded}");
}
