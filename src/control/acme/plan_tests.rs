use super::*;

const DAY: u64 = 86_400;
const START: u64 = 1_800_000_000;

fn at(unix: u64) -> Now {
    Now { mono: 0, wall: unix * 1000 }
}

fn name(host: &str) -> HostPattern {
    host.parse().unwrap()
}

fn plan(hosts: &[&str]) -> Plan {
    let mut plan = Plan::new(7);
    let names: Vec<_> = hosts.iter().map(|host| name(host)).collect();
    plan.follow(&names, |_| Known::default());
    plan
}

fn noted(json: &str) -> Known {
    Known { record: serde_json::from_str(json).unwrap(), ..Known::default() }
}

/// A plan whose one host has had a certificate of 90 days from the start on.
fn with_certificate() -> (Plan, HostPattern) {
    let mut plan = plan(&["a.test"]);
    let host = name("a.test");
    assert_eq!(plan.begin(at(START)), [(host.clone(), Step::Order)]);
    plan.succeeded(&host, at(START), (START, START + 90 * DAY));
    // The authority is asked at once when it wants to be asked again.
    assert_eq!(plan.begin(at(START)), [(host.clone(), Step::Window)]);
    plan.told(&host, at(START), None, 6 * 3600);
    (plan, host)
}

/// The first moment, in steps of an hour, at which there is an order.
fn next_order(plan: &mut Plan, from: u64) -> u64 {
    for hour in 0..24 * 200 {
        let now = from + hour * 3600;
        for (host, step) in plan.begin(at(now)) {
            match step {
                Step::Order => return now,
                Step::Window => plan.told(&host, at(now), None, 0),
            }
        }
    }
    panic!("never");
}

#[test]
fn what_is_under_way_is_not_begun_again_and_only_so_many_are_at_once() {
    let hosts: Vec<String> = (0..10).map(|number| format!("h{number}.test")).collect();
    let mut plan = plan(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let first = plan.begin(at(START));
    assert_eq!(first.len(), AT_ONCE);
    assert!(plan.begin(at(START)).is_empty());
    plan.succeeded(&first[0].0, at(START), (START, START + 90 * DAY));
    assert_eq!(plan.begin(at(START)).len(), 1);
}

#[test]
fn renewal_comes_after_two_thirds_of_the_life_and_not_for_everyone_in_the_same_moment() {
    let (mut plan, host) = with_certificate();
    let renewed = next_order(&mut plan, START);
    let days = (renewed - START) as f64 / DAY as f64;
    assert!((57.5..60.1).contains(&days), "{days}");
    plan.succeeded(&host, at(renewed), (renewed, renewed + 90 * DAY));
    assert!(next_order(&mut plan, renewed) > renewed + 57 * DAY);
    let moments: std::collections::BTreeSet<u64> = (0..20)
        .map(|seed| {
            let mut plan = Plan::new(seed);
            let life = Some((START, START + 90 * DAY));
            plan.follow(&[name("a.test")], |_| Known { life, ..Known::default() });
            next_order(&mut plan, START)
        })
        .collect();
    assert!(moments.len() > 10, "{moments:?}");
}

#[test]
fn the_authoritys_window_counts_and_yet_nothing_is_put_off_to_the_end() {
    let (mut plan, host) = with_certificate();
    plan.told(&host, at(START), Some((START + 40 * DAY, START + 42 * DAY)), 3600);
    let renewed = next_order(&mut plan, START) - START;
    assert!((40 * DAY..=42 * DAY).contains(&renewed), "{}", renewed / DAY);
    let (mut plan, host) = with_certificate();
    plan.told(&host, at(START), Some((START + 400 * DAY, START + 500 * DAY)), 3600);
    let renewed = next_order(&mut plan, START) - START;
    assert!((74 * DAY..=76 * DAY).contains(&renewed), "{}", renewed / DAY);
}

#[test]
fn an_authority_that_says_for_ever_to_renew_now_is_followed_once_a_day() {
    let (mut plan, host) = with_certificate();
    let now = START + 3600;
    plan.told(&host, at(now), Some((START - DAY, START)), 3600);
    assert_eq!(plan.begin(at(now)), [(host.clone(), Step::Order)]);
    plan.succeeded(&host, at(now), (now, now + 90 * DAY));
    let mut orders = 0;
    for minute in 0..23 * 60 {
        let now = now + minute * 60;
        for (host, step) in plan.begin(at(now)) {
            orders += u32::from(step == Step::Order);
            plan.told(&host, at(now), Some((START - DAY, START)), 0);
        }
    }
    assert_eq!(orders, 0);
    assert_eq!(plan.begin(at(now + 25 * 3600)), [(host, Step::Order)]);
}

#[test]
fn a_revoked_certificate_whose_replacement_fails_is_tried_again_like_any_other() {
    let (mut plan, host) = with_certificate();
    plan.told(&host, at(START + 3600), Some((START - DAY, START)), 3600);
    let mut tries = Vec::new();
    for second in 3600..3600 + 600 {
        if plan.begin(at(START + second)) == [(host.clone(), Step::Order)] {
            tries.push(second - 3600);
            plan.failed(&host, at(START + second), "no".into(), None);
        }
    }
    assert!(tries.len() == 3 && tries[1] < 90, "{tries:?}");
}

#[test]
fn a_host_that_fails_is_tried_later_and_later_less_than_five_times_in_an_hour() {
    let (mut plan, host) = (plan(&["a.test"]), name("a.test"));
    let mut tries = Vec::new();
    for second in 0..3 * DAY {
        if !plan.begin(at(START + second)).is_empty() {
            tries.push(second);
            plan.failed(&host, at(START + second), "no".into(), None);
        }
    }
    assert!(tries.iter().filter(|second| **second <= 3600).count() <= 4, "{tries:?}");
    let gaps: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] >= 60 && gaps[0] <= 72, "{gaps:?}");
    assert!(gaps.last().is_some_and(|gap| (6 * 3600..=8 * 3600).contains(gap)), "{gaps:?}");
}

#[test]
fn failures_are_remembered_over_a_restart_and_a_clock_that_was_wrong_locks_nobody_out() {
    let (mut before, host) = (plan(&["a.test"]), name("a.test"));
    before.begin(at(START));
    before.failed(&host, at(START), "why".into(), Some(1800));
    let json = serde_json::to_string(&before.host(&host).unwrap().record).unwrap();
    let mut after = Plan::new(8);
    after.follow(std::slice::from_ref(&host), |_| noted(&json));
    assert_eq!(after.host(&host).unwrap().record.trouble.problem, "why");
    assert!(after.begin(at(START + 1790)).is_empty(), "the authority has asked to wait half an hour");
    assert_eq!(after.begin(at(START + 1801)).len(), 1);
    // Noted under a clock that was ten years ahead.
    let mut ahead = Plan::new(8);
    ahead.follow(&[host], |_| noted(&json));
    assert_eq!(ahead.begin(at(START - 3650 * DAY)).len(), 1);
}

#[test]
fn while_the_authority_is_down_for_an_hour_it_is_asked_by_one_host_now_and_then_and_all_go_on_after() {
    let hosts: Vec<String> = (0..50).map(|number| format!("h{number}.test")).collect();
    let mut plan = plan(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut asked = 0;
    for second in 0..3600 {
        for (host, _) in plan.begin(at(START + second)) {
            asked += 1;
            plan.unreachable(&host, at(START + second), "no connection".into(), None);
        }
    }
    assert!(asked <= 8 * AT_ONCE, "{asked}");
    assert!(plan.hosts().all(|host| host.record.trouble.failures == 0), "no host is to blame");
    // It is back: within a quarter of an hour all have what they want.
    for second in 3600..3600 + 1100 {
        for (host, _) in plan.begin(at(START + second)) {
            plan.succeeded(&host, at(START + second), (START, START + 90 * DAY));
        }
    }
    assert!(plan.hosts().all(|host| host.life.is_some()));
}

#[test]
fn after_mending_a_reload_tries_at_once_but_not_as_often_as_somebody_likes() {
    let (mut plan, host) = (plan(&["a.test"]), name("a.test"));
    let mut tries = 0;
    for second in 0..3600 {
        // A reload each second.
        plan.forgive(at(START + second));
        if !plan.begin(at(START + second)).is_empty() {
            tries += 1;
            plan.failed(&host, at(START + second), "no".into(), None);
        }
    }
    assert!((2..=5).contains(&tries), "{tries}");
}

#[test]
fn hosts_come_and_go_with_the_config_and_a_late_answer_for_one_that_has_gone_is_nothing() {
    let mut plan = plan(&["a.test", "b.test"]);
    plan.begin(at(START));
    plan.follow(&[name("b.test")], |_| panic!("b is known"));
    plan.succeeded(&name("a.test"), at(START), (START, START + DAY));
    plan.failed(&name("a.test"), at(START), "no".into(), None);
    assert!(plan.host(&name("a.test")).is_none());
    assert_eq!(plan.hosts().count(), 1);
}

#[test]
fn a_certificate_that_is_given_old_is_not_asked_for_again_and_again() {
    for (left, first) in [(20 * DAY, DAY), (3600, 1800), (10, 5)] {
        let (mut plan, host) = (plan(&["a.test"]), name("a.test"));
        // Nine tenths of its life are over when it comes, each time.
        let life = |now: u64| (now - 9 * left, now + left);
        let mut orders = Vec::new();
        for second in 0..(first * 5 / 2) {
            for (_, step) in plan.begin(at(START + second)) {
                match step {
                    Step::Order => {
                        orders.push(second);
                        plan.succeeded(&host, at(START + second), life(START + second));
                    }
                    Step::Window => plan.told(&host, at(START + second), None, 0),
                }
            }
        }
        assert!(orders == [0, first, 2 * first], "{} orders with {left} s left", orders.len());
        let next = plan.next(plan.host(&host).unwrap(), at(START + 2 * first));
        assert_eq!(next, Some(START + 3 * first), "status says so");
    }
    // Of one that has ended meanwhile there is nothing to wait for.
    let (mut plan, host) = with_certificate();
    plan.succeeded(&host, at(START), (START - 90 * DAY, START + 1));
    plan.begin(at(START));
    plan.told(&host, at(START), None, 0);
    assert_eq!(plan.begin(at(START + 1)), [(host, Step::Order)]);
}

#[test]
fn a_command_that_hangs_keeps_only_others_like_it_waiting() {
    let mut plan = Plan::new(7);
    let wild: Vec<_> = (0..9).map(|number| name(&format!("*.a{number}.test"))).collect();
    let names: Vec<_> = wild.iter().cloned().chain([name("z.test")]).collect();
    plan.follow(&names, |name| {
        let ways = if name.is_wildcard() { vec![Way::Dns01] } else { Way::ALL.to_vec() };
        Known { ways, ..Known::default() }
    });
    let begun = plan.begin(at(START));
    assert_eq!(begun.len(), AT_ONCE + 1, "{begun:?}");
    assert!(begun.contains(&(name("z.test"), Step::Order)));
    // After two failures it is its turn to be shown by the DNS.
    for second in [1, 100] {
        plan.failed(&name("z.test"), at(START + second), "no".into(), None);
        plan.host(&name("z.test")).unwrap();
    }
    assert_eq!(plan.host(&name("z.test")).unwrap().turn().first(), Some(&Way::Dns01));
    assert!(plan.begin(at(START + 3600)).is_empty(), "the places of that kind are taken");
}

#[test]
fn what_the_authority_asks_to_wait_holds_for_all_and_for_no_longer_than_a_day() {
    let (mut plan, a, b) = (plan(&["a.test", "b.test"]), name("a.test"), name("b.test"));
    assert_eq!(plan.begin(at(START)).len(), 2);
    plan.unreachable(&a, at(START), "503".into(), None);
    plan.unreachable(&b, at(START), "503".into(), Some(7200));
    assert!(plan.begin(at(START + 7199)).is_empty());
    assert_eq!(plan.begin(at(START + 7200)).len(), 2);
    plan.unreachable(&a, at(START + 7200), "503".into(), Some(30 * DAY));
    assert_eq!(plan.authority.next, START + 7200 + DAY);
}

#[test]
fn trouble_of_the_authority_outlives_a_restart_and_reloads_but_no_answer_of_its_own() {
    let (mut before, host) = (plan(&["a.test"]), name("a.test"));
    before.begin(at(START));
    before.unreachable(&host, at(START), "down".into(), Some(7200));
    let json = serde_json::to_string(&before.authority).unwrap();
    let mut after = plan(&["a.test"]);
    after.authority = serde_json::from_str(&json).unwrap();
    assert!(after.begin(at(START + 7000)).is_empty());
    // An operator's reload is believed once in an hour.
    after.forgive(at(START + 7000));
    assert_eq!(after.begin(at(START + 7000)).len(), 1);
    after.unreachable(&host, at(START + 7000), "down".into(), Some(7200));
    after.forgive(at(START + 7100));
    assert!(after.begin(at(START + 7100)).is_empty());
    assert_eq!(after.common(after.host(&host).unwrap(), at(START + 7100)).unwrap().problem, "down");
    // It answers, though nothing good: whoever looks is told that, and nothing of before.
    assert_eq!(after.begin(at(START + 15_000)).len(), 1);
    after.failed(&host, at(START + 15_000), "caa".into(), None);
    assert_eq!(after.common(after.host(&host).unwrap(), at(START + 15_000)), None);
}

#[test]
fn a_host_with_a_good_certificate_has_no_share_in_the_authoritys_trouble() {
    let (mut plan, host) = with_certificate();
    plan.unreachable(&host, at(START), "down".into(), None);
    assert_eq!(plan.common(plan.host(&host).unwrap(), at(START)), None);
    assert!(plan.common(plan.host(&host).unwrap(), at(START + 61 * DAY)).is_some());
}
