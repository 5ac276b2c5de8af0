use std::time::Duration;

use super::*;
use crate::config::settings::MinRate;
use crate::config::values::ByteSize;
use crate::listener::Stream;

fn limits() -> Limits {
    Limits {
        connections: 100,
        connections_per_client: 10,
        request_head: ByteSize(32 << 10),
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        min_rate: MinRate { bytes: ByteSize(16 << 10), per: Duration::from_secs(10) },
        drain_timeout: Duration::from_secs(30),
        limiter_keys: 1000,
    }
}

const DAY: u64 = 24 * 3_600_000;
const QUIET: Look =
    Look { phase: Phase::First, begun: 0, owing: false, received: 0, stalled: false, taken: 0 };

/// When, in milliseconds of a day, a connection that shows `look(t)` at each quarter second is judged other than `Keep`.
fn ends(look: impl Fn(u64) -> Look) -> Option<(u64, Verdict)> {
    let mut memory = Memory::new(0);
    (0..=DAY).step_by(250).find_map(|now| match memory.judge(&look(now), &limits(), now) {
        Verdict::Keep => None,
        verdict => Some((now, verdict)),
    })
}

/// A connection whose first request began at once.
fn after_first(look: Look) -> Option<(u64, Verdict)> {
    ends(|now| if now == 0 { QUIET } else { Look { begun: 1, ..look } })
}

#[test]
fn who_sends_no_whole_head_is_cut_at_the_deadline_however_it_dribbles() {
    assert_eq!(ends(|_| QUIET), Some((10_000, Verdict::Kill(NO_HEAD))));
    assert_eq!(ends(|now| Look { received: now, ..QUIET }), Some((10_000, Verdict::Kill(NO_HEAD))));
    let later = |now| Look { phase: Phase::Head, begun: 1, received: now, ..QUIET };
    assert_eq!(ends(later), Some((10_000, Verdict::Kill(NO_HEAD))));
}

#[test]
fn an_idle_connection_is_closed_politely() {
    assert_eq!(after_first(Look { phase: Phase::Idle, ..QUIET }), Some((75_250, Verdict::Close)));
    // A request every minute keeps it.
    assert_eq!(ends(|now| Look { phase: Phase::Idle, begun: 1 + now / 60_000, ..QUIET }), None);
}

#[test]
fn a_request_may_last_as_long_as_it_likes() {
    assert_eq!(after_first(Look { phase: Phase::Active, ..QUIET }), None);
    assert_eq!(after_first(Look { phase: Phase::Tunnel, ..QUIET }), None);
}

#[test]
fn an_upload_below_the_rate_is_cut_one_above_goes_on_for_a_day() {
    let at = |rate: u64| {
        ends(move |now| Look {
            phase: Phase::Active,
            begun: 1,
            owing: true,
            received: now * rate / 1000,
            ..QUIET
        })
    };
    assert_eq!(at(0), Some((10_000, Verdict::Kill(TOO_SLOW))));
    assert_eq!(at(1600), Some((10_000, Verdict::Kill(TOO_SLOW))));
    assert_eq!(at(1700), None);
    // It pauses only where we do not wait for it: upstream is slow.
    let ours = |_| Look { phase: Phase::Active, begun: 1, owing: false, ..QUIET };
    assert_eq!(ends(ours), None);
    // A good start does not pay for a stop.
    let stops = |now: u64| Look {
        phase: Phase::Active,
        begun: 1,
        owing: true,
        received: now.min(15_000) * 1000,
        ..QUIET
    };
    assert_eq!(ends(stops), Some((30_000, Verdict::Kill(TOO_SLOW))));
}

#[test]
fn a_download_may_pause_for_minutes_not_for_ever() {
    let two_minutes =
        |now: u64| Look { phase: Phase::Active, begun: 1, stalled: true, taken: now / 120_000, ..QUIET };
    assert_eq!(ends(two_minutes), None);
    let paused = Look { phase: Phase::Active, stalled: true, ..QUIET };
    assert_eq!(after_first(paused), Some((300_250, Verdict::Kill(TAKES_NOTHING))));
    let slow = |now| Look { phase: Phase::Active, begun: 1, stalled: true, taken: now / 240_000, ..QUIET };
    assert_eq!(ends(slow), None);
}

#[test]
fn goodbyes_are_short() {
    assert_eq!(
        after_first(Look { phase: Phase::Closing, ..QUIET }),
        Some((10_250, Verdict::Kill(NO_GOODBYE)))
    );
    assert_eq!(
        after_first(Look { phase: Phase::Lingering, ..QUIET }),
        Some((2_250, Verdict::Kill(NO_GOODBYE)))
    );
}

#[test]
fn the_sweep_kills_closes_and_forgets() {
    let deadlines = Deadlines::default();
    let now = |ms: u64| Now { mono: ms * 1_000_000, wall: 0 };
    let open = || {
        let peer = "192.0.2.1:1".parse().unwrap();
        Rc::new(Connection::new(peer, super::super::Kind::Plain, Rc::default()))
    };
    let (silent, idle, gone) = (open(), open(), open());
    for connection in [&silent, &idle, &gone] {
        deadlines.watch(connection, now(0));
    }
    idle.watch.begun.set(1);
    drop(gone);
    assert_eq!(deadlines.len(), 2);
    assert_eq!(deadlines.tick(&limits(), now(0)), 0);
    assert_eq!(deadlines.tick(&limits(), now(10_000)), 1);
    assert!(silent.kill.is_killed() && !idle.kill.is_killed());
    assert_eq!(deadlines.tick(&limits(), now(75_000)), 0);
    assert!(idle.watch.closing.get() && !idle.kill.is_killed());
    assert_eq!(deadlines.len(), 1);
}

/// What the sweep makes of one stream of a connection within a day: `show` sets its marks at each quarter second.
fn stream_ends(show: impl Fn(&Stream, u64)) -> Option<(u64, Option<&'static str>)> {
    let peer = "192.0.2.1:1".parse().unwrap();
    let connection = Rc::new(Connection::new(peer, super::super::Kind::Https, Rc::default()));
    let [stream, neighbour] = [(); 2].map(|()| Stream::new(Rc::clone(&connection)));
    connection.streams.enter(&neighbour);
    let place = connection.streams.enter(&stream);
    let end = (0..=DAY).step_by(250).find(|now| {
        show(&stream, *now);
        connection.streams.tick(&limits(), *now) > 0
    });
    assert!(!neighbour.kill.is_killed() && !connection.kill.is_killed());
    let end = end?;
    assert_eq!(connection.streams.tick(&limits(), 2 * DAY), 0, "one that is cut is not counted again");
    connection.streams.leave(place);
    Some((end, stream.kill.cause()))
}

#[test]
fn a_stream_is_cut_by_itself_for_what_it_owes_or_does_not_take() {
    let owes = |rate: u64| {
        move |stream: &Stream, now: u64| {
            stream.owing.set(true);
            stream.received.set(now * rate / 1000);
        }
    };
    assert_eq!(stream_ends(owes(0)), Some((10_000, Some(TOO_SLOW))));
    assert_eq!(stream_ends(owes(1600)), Some((10_000, Some(TOO_SLOW))));
    assert_eq!(stream_ends(owes(1700)), None);
    assert_eq!(stream_ends(|_, _| {}), None, "it waits for upstream");
    let takes = |every: u64| {
        move |stream: &Stream, now: u64| {
            stream.feeding.set(false);
            stream.taken.set(now / every);
        }
    };
    assert_eq!(stream_ends(takes(DAY + 1)), Some((300_000, Some(TAKES_NOTHING))));
    assert_eq!(stream_ends(takes(120_000)), None, "two minutes are a pause");
}
