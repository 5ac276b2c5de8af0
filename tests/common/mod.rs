//! What the tests of promises share: the real binary behind a builder, an upstream that records every byte, and
//! clients that send exactly what they are told.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]
#![allow(missing_docs, reason = "test code")]

pub mod authority;
pub mod chromium;
pub mod frames;
pub mod gate;
pub mod hand;
pub mod http2;
pub mod keepstack;
pub mod raw;
pub mod strict;
pub mod tokens;
pub mod upstream;

use std::time::{Duration, Instant};

/// The host of the site that [`gate::Gate`] serves.
pub const HOST: &str = "files.test";

/// Whether a process, by its status file, hears this signal itself.
pub fn catches(status: &std::path::Path, signal: u32) -> bool {
    let status = std::fs::read_to_string(status).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.is_some_and(|mask| {
        u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (signal - 1) & 1 == 1)
    })
}

/// Asks every few milliseconds until the answer is yes; whether it came in time.
pub fn wait_until(limit: Duration, mut yes: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if yes() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    yes()
}

/// The same, for what must be awaited.
pub async fn wait_until_async(limit: Duration, mut yes: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if yes().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    yes().await
}

/// As [`wait_until`], while the tasks of the test's runtime go on.
pub async fn wait_for(limit: Duration, mut yes: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if yes() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    yes()
}
