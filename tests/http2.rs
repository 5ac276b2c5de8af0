//! Floods over HTTP/2: the connection is closed or the flood is harmless, the application sees little of it, memory stays,
//! and a polite client is served all the while.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their tables"
)]

mod common;

use std::time::Duration;

use common::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, headers, request,
};
use common::gate::{Config, Gate};
use common::upstream::{OK, Upstream};

/// What one attack may cost in memory.
const GROWTH: u64 = 16 * 1024;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn ids() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

async fn assert_polite(gate: &Gate) {
    for _ in 0..5 {
        assert_eq!(gate.ask("GET /polite", "", b"").await.status, 200);
    }
}

/// Whole or begun requests that are not the polite client's.
fn reached(upstream: &Upstream) -> usize {
    let count = |bytes: &[u8]| bytes.windows(7).filter(|window| window == b"GET /a ").count();
    upstream.connections().iter().map(|record| count(&record.bytes())).sum()
}

fn assert_grew_little(gate: &Gate, before: u64) {
    let after = gate.resident();
    assert!(after.saturating_sub(before) <= GROWTH, "{before} KiB became {after} KiB");
}

#[tokio::test]
async fn rapid_reset_ends_the_connection_within_a_thousand_and_reaches_few() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    assert_polite(&gate).await;
    let before = gate.resident();
    for together in [1, 10, 50] {
        let mut client = Frames::open(&gate, &[]).await;
        let all: Vec<u32> = ids().take(1000).collect();
        let mut taken = true;
        for batch in all.chunks(together) {
            let bytes: Vec<u8> = batch
                .iter()
                .flat_map(|id| {
                    [headers(*id, &request(b"GET", b"/a"), END_STREAM), frame(RST_STREAM, 0, *id, &CANCEL)]
                        .concat()
                })
                .collect();
            taken = taken && client.send(&bytes).await;
        }
        assert!(
            !taken || client.ends_within(Duration::from_secs(5)).await,
            "{together} at a time are not enough"
        );
    }
    assert!(
        reached(&upstream) <= 600,
        "{} reached the upstream, 200 for each connection are the most",
        reached(&upstream)
    );
    assert_polite(&gate).await;
    assert_grew_little(&gate, before);
}

/// Each request is begun, and has reached the upstream, before it is reset: what counts resets in a queue does not see these.
#[tokio::test]
async fn resets_of_requests_that_run_end_the_connection_too() {
    let upstream = Upstream::scripted(|mut session| session.until_closed());
    let gate = Gate::start("", upstream.address);
    let mut client = Frames::open(&gate, &[]).await;
    let mut sent = 0;
    for id in ids().take(1000) {
        let mut taken = client.send(&headers(id, &request(b"GET", b"/a"), END_STREAM)).await;
        // The answer to a ping says that the request has been looked at.
        taken = taken && client.send(&frame(PING, 0, 0, &[0; 8])).await;
        let answered = async {
            while let Some(frame) = client.next(Duration::from_secs(5)).await {
                if frame.kind == PING {
                    return true;
                }
            }
            false
        };
        if !taken || !answered.await || !client.send(&frame(RST_STREAM, 0, id, &CANCEL)).await {
            break;
        }
        sent += 1;
    }
    assert!(sent <= 200, "{sent} requests were begun and broken off");
    assert!(reached(&upstream) <= 200, "{}", reached(&upstream));
}

#[tokio::test]
async fn resets_that_the_client_provokes_end_the_connection() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let before = gate.resident();
    for wrong in [vec![0, 0, 0, 0], 0x7fff_ffff_u32.to_be_bytes().to_vec()] {
        let mut client = Frames::open(&gate, &[]).await;
        let mut taken = true;
        for id in ids().take(1000) {
            let bytes =
                [headers(id, &request(b"GET", b"/a"), END_STREAM), frame(WINDOW_UPDATE, 0, id, &wrong)]
                    .concat();
            taken = taken && client.send(&bytes).await;
        }
        assert!(!taken || client.ends_within(Duration::from_secs(5)).await, "{wrong:?}");
    }
    assert!(reached(&upstream) <= 400, "{}", reached(&upstream));
    assert_polite(&gate).await;
    assert_grew_little(&gate, before);
}

#[tokio::test]
async fn a_head_without_end_closes_the_connection_within_256_kib() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let before = gate.resident();
    let field = frames::block(&[(b"a", &[b'x'; 900])]);
    for piece in [Vec::new(), frames::block(&[(b"a", b"b")]), field] {
        let mut client = Frames::open(&gate, &[]).await;
        client.send(&frame(HEADERS, 0, 1, &frames::block(&request(b"GET", b"/a")))).await;
        let mut taken = true;
        let (mut sent, mut count) = (0, 0);
        while taken && sent < 256 * 1024 && count < 20_000 {
            let bytes = frame(CONTINUATION, 0, 1, &piece);
            sent += bytes.len();
            count += 1;
            taken = client.send(&bytes).await;
        }
        assert!(!taken || client.ends_within(Duration::from_secs(5)).await, "{} bytes a piece", piece.len());
    }
    assert_eq!(reached(&upstream), 0);
    assert_polite(&gate).await;
    assert_grew_little(&gate, before);
}

/// One large field in the table, a thousand references of one byte to it.
#[tokio::test]
async fn a_header_bomb_is_refused_and_costs_nothing() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let before = gate.resident();
    let mut client = Frames::open(&gate, &[]).await;
    // Literal with incremental indexing, new name `x`, 3,000 bytes; then index 62 again and again.
    let mut bomb = frames::block(&request(b"GET", b"/a"));
    bomb.extend_from_slice(&[0x40, 1, b'x', 127]);
    bomb.extend_from_slice(&[57 | 128, 22]);
    bomb.extend(std::iter::repeat_n(b'y', 3000));
    bomb.extend(std::iter::repeat_n(0xbe, 8000));
    let mut outcome = Outcome::Nothing;
    for id in ids().take(50) {
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, id, &bomb)).await;
        outcome = client.outcome(id).await;
        assert_ne!(outcome, Outcome::Status(200));
        if outcome == Outcome::Closed {
            break;
        }
    }
    assert_ne!(outcome, Outcome::Nothing);
    assert_eq!(reached(&upstream), 0);
    assert_polite(&gate).await;
    assert_grew_little(&gate, before);
}

#[tokio::test]
async fn clients_that_open_no_window_take_no_memory() {
    let body = vec![b'x'; 2 << 20];
    let upstream = Upstream::by_request(move |_| {
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
    });
    let gate = Gate::start("", upstream.address);
    let before = gate.resident();
    let mut clients = Vec::new();
    for _ in 0..10 {
        // SETTINGS_INITIAL_WINDOW_SIZE = 0.
        let mut client = Frames::open(&gate, &[(4, 0)]).await;
        for id in ids().take(10) {
            assert!(client.send(&headers(id, &request(b"GET", b"/a"), END_STREAM)).await);
        }
        clients.push(client);
    }
    for client in &mut clients {
        while client.next(Duration::from_millis(200)).await.is_some() {}
    }
    assert_eq!(gate.ask("GET /polite", "", b"").await.body.len(), 2 << 20);
    let after = gate.resident();
    // A hundred answers of 2 MiB are 200 MiB.
    assert!(after.saturating_sub(before) <= 64 * 1024, "{before} KiB became {after} KiB");
}

#[tokio::test]
async fn floods_of_settings_and_pings_are_harmless() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let before = gate.resident();
    let floods = [
        frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        frame(PING, 0, 0, &[0; 8]),
        frame(PING, 1, 0, &[0; 8]),
        frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        frame(2, 0, 1, &[0, 0, 0, 0, 1]),
        frame(0x77, 0, 0, b"unknown"),
    ];
    for flood in floods {
        let mut client = Frames::open(&gate, &[]).await;
        let thousand = flood.repeat(1000);
        for _ in 0..20 {
            let sent = tokio::time::timeout(Duration::from_millis(300), client.send(&thousand)).await;
            if sent != Ok(true) {
                break;
            }
        }
        assert_polite(&gate).await;
    }
    assert_grew_little(&gate, before);
}

#[tokio::test]
async fn empty_frames_without_end_are_no_upload() {
    let upstream = Upstream::answering(OK);
    let limits = "min_rate = { bytes = \"16KiB\", per = \"1s\" }\n".into();
    let gate = Config { limits, ..Config::default() }.start(upstream.address);
    let mut client = Frames::open(&gate, &[]).await;
    client.send(&headers(1, &request(b"POST", b"/api/a"), 0)).await;
    for _ in 0..100 {
        if !client.send(&frame(DATA, 0, 1, &[])).await {
            break;
        }
    }
    let outcome = client.outcome(1).await;
    assert!(matches!(outcome, Outcome::Reset(_) | Outcome::Closed), "{outcome:?}");
    assert_polite(&gate).await;
}

#[tokio::test]
async fn a_stalled_upload_is_reset_by_itself_and_the_streams_beside_it_go_on() {
    let upstream = Upstream::answering(OK);
    let limits = "min_rate = { bytes = \"16KiB\", per = \"1s\" }\n".into();
    let site = "[[site.route]]\nmatch = \"/live\"\nclass = \"live\"".into();
    let gate = Config { limits, site, ..Config::default() }.start(upstream.address);
    let mut client = Frames::open(&gate, &[]).await;
    for (stream, path) in [(1, &b"/api/assets"[..]), (3, b"/api/assets"), (5, b"/live")] {
        client.send(&headers(stream, &request(b"POST", path), 0)).await;
        client.send(&frame(DATA, 0, stream, b"a")).await;
    }
    let mut reset = Vec::new();
    for turn in 0..80 {
        assert!(client.send(&frame(DATA, 0, 3, &[b'x'; 8000])).await);
        if turn % 10 == 0 && reset.is_empty() {
            client.send(&frame(DATA, 0, 1, b"b")).await;
        }
        while let Some(frame) = client.next(Duration::from_millis(50)).await {
            assert_ne!(frame.kind, frames::GOAWAY);
            if frame.kind == RST_STREAM {
                reset.push(frame.id);
            }
        }
        if turn > 30 && !reset.is_empty() {
            break;
        }
    }
    assert_eq!(reset, [1], "a byte now and then is no upload; class `live` need not be one");
    for stream in [3, 5] {
        client.send(&frame(DATA, END_STREAM, stream, b"z")).await;
        assert_eq!(client.outcome(stream).await, Outcome::Status(200), "{stream}");
    }
    let told = || gate.log().contains("the client sent its body too slowly (limits.min_rate)");
    assert!(common::wait_for(Duration::from_secs(5), told).await, "{}", gate.log());
}

#[tokio::test]
async fn idle_connections_are_closed_and_pings_do_not_keep_them() {
    let upstream = Upstream::answering(OK);
    let limits = "idle_timeout = \"1s\"\n".into();
    let gate = Config { limits, ..Config::default() }.start(upstream.address);
    let mut quiet = Frames::open(&gate, &[]).await;
    let mut pinging = Frames::open(&gate, &[]).await;
    for client in [&mut quiet, &mut pinging] {
        assert_eq!(client.ask(1, &request(b"GET", b"/a")).await, Outcome::Status(200));
    }
    let mut open = true;
    for _ in 0..100 {
        open = open && pinging.send(&frame(PING, 0, 0, &[1; 8])).await;
        while let Some(frame) = pinging.next(Duration::from_millis(50)).await {
            open = open && frame.kind != frames::GOAWAY;
        }
        if !open {
            break;
        }
    }
    assert!(!open, "pings keep a connection for ever");
    assert!(quiet.ends_within(Duration::from_secs(15)).await);
}
