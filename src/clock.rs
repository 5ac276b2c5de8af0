//! The only place that reads a clock. Everything that decides takes a [`Now`] instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
///
/// `mono` counts nanoseconds since an arbitrary start of this process and never goes back; `wall` is Unix time in
/// milliseconds and may jump. Blocks end only when both agree (DESIGN 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds since the clock was made; monotonic.
    pub mono: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub wall: u64,
}

impl Now {
    /// Unix seconds.
    pub fn unix(self) -> u64 {
        self.wall / 1000
    }

    /// Monotonic milliseconds.
    pub fn mono_ms(self) -> u64 {
        self.mono / 1_000_000
    }
}

/// Where [`Now`] comes from: the system, or a test's hand.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's clocks; the instant is the start of `mono`.
    System(Instant),
    /// Moved by hand.
    Test(Arc<TestClock>),
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct TestClock {
    mono: AtomicU64,
    wall: AtomicU64,
}

impl Clock {
    /// The system's clock.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn system() -> Self {
        Self::System(Instant::now())
    }

    /// A clock for tests that begins at `wall` milliseconds since 1970.
    pub fn test(wall: u64) -> (Self, Arc<TestClock>) {
        let hand = Arc::new(TestClock { mono: AtomicU64::new(1), wall: AtomicU64::new(wall) });
        (Self::Test(Arc::clone(&hand)), hand)
    }

    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn now(&self) -> Now {
        match self {
            Self::System(start) => Now {
                mono: u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
                wall: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            },
            Self::Test(hand) => {
                Now { mono: hand.mono.load(Ordering::Relaxed), wall: hand.wall.load(Ordering::Relaxed) }
            }
        }
    }
}

impl TestClock {
    /// Lets both clocks go on by `by`.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.mono.fetch_add(nanos, Ordering::Relaxed);
        self.wall.fetch_add(nanos / 1_000_000, Ordering::Relaxed);
    }

    /// Sets only the wall clock, as an administrator or NTP may.
    pub fn jump_wall(&self, wall: u64) {
        self.wall.store(wall, Ordering::Relaxed);
    }
}
