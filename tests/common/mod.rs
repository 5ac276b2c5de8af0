//! What the tests of promises share: the real binary behind a builder, an upstream that records every byte, and
//! clients that send exactly what they are told.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]
#![allow(missing_docs, reason = "test code")]

pub mod frames;
pub mod gate;
pub mod http2;
pub mod raw;
pub mod strict;
pub mod tokens;
pub mod upstream;

use std::time::{Duration, Instant};

/// The host of the site that [`gate::Gate`] serves.
pub const HOST: &str = "files.test";

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
