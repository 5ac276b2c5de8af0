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
    plan.follow(&names, |_| (None, Record::default()));
    plan
}

/// A plan whose one host has had a certificate of 90 days from the start on.
fn with_certificate() -> (Plan, HostPattern) {
    let mut plan = plan(&["a.test"]);
    let host = name("a.test");
    assert_eq!(plan.begin(at(START)), [(host.clone(), Step::Order)]);
    plan.succeeded(&host, (START, START + 90 * DAY));
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
    plan.succeeded(&first[0].0, (START, START + 90 * DAY));
    assert_eq!(plan.begin(at(START)).len(), 1);
}

#[test]
fn renewal_comes_after_two_thirds_of_the_life_and_not_for_everyone_in_the_same_moment() {
    let (mut plan, host) = with_certificate();
    let renewed = next_order(&mut plan, START);
    let days = (renewed - START) as f64 / DAY as f64;
    assert!((57.5..60.1).contains(&days), "{days}");
    plan.succeeded(&host, (renewed, renewed + 90 * DAY));
    assert!(next_order(&mut plan, renewed) > renewed + 57 * DAY);
    let moments: std::collections::BTreeSet<u64> = (0..20)
        .map(|seed| {
            let mut plan = Plan::new(seed);
            plan.follow(&[name("a.test")], |_| (Some((START, START + 90 * DAY)), Record::default()));
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
    plan.succeeded(&host, (now, now + 90 * DAY));
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
    after.follow(std::slice::from_ref(&host), |_| (None, serde_json::from_str(&json).unwrap()));
    assert_eq!(after.host(&host).unwrap().record.trouble.problem, "why");
    assert!(after.begin(at(START + 1790)).is_empty(), "the authority has asked to wait half an hour");
    assert_eq!(after.begin(at(START + 1801)).len(), 1);
    // Noted under a clock that was ten years ahead.
    let mut ahead = Plan::new(8);
    ahead.follow(&[host], |_| (None, serde_json::from_str(&json).unwrap()));
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
            plan.succeeded(&host, (START, START + 90 * DAY));
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
    plan.succeeded(&name("a.test"), (START, START + DAY));
    plan.failed(&name("a.test"), at(START), "no".into(), None);
    assert!(plan.host(&name("a.test")).is_none());
    assert_eq!(plan.hosts().count(), 1);
}
