//! How long an answer waits, so that its time tells nothing of what was done for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Answers go out at full steps from the request's begin. An application looks a link up in a few milliseconds.
pub const STEP: Duration = Duration::from_millis(25);
/// A blocked link waits no more of them, however slow the application is: ten seconds.
const MOST: u64 = 400;

/// The steps that the latest link took which was none.
#[derive(Debug)]
pub struct Pace(AtomicU64);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Pace {
    /// The wait for the answer to a link that is none; `taken`: how long the application took to say so.
    pub fn of_dead(&self, taken: Duration) -> Duration {
        let steps = steps(taken);
        self.0.store(steps.min(MOST), Ordering::Relaxed);
        rest(steps, taken)
    }

    /// The wait for the answer to a blocked link, of which the application is not asked.
    pub fn of_blocked(&self, taken: Duration) -> Duration {
        rest(self.0.load(Ordering::Relaxed).max(steps(taken)), taken)
    }
}

/// At least one.
fn steps(taken: Duration) -> u64 {
    let steps = taken.as_nanos().div_ceil(STEP.as_nanos()).max(1);
    u64::try_from(steps).unwrap_or(u64::MAX)
}

fn rest(steps: u64, taken: Duration) -> Duration {
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    STEP.saturating_mul(steps).saturating_sub(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_blocked_link_waits_as_many_steps_as_the_latest_that_was_none() {
        let pace = Pace::default();
        assert_eq!(pace.of_blocked(millis(0)), STEP);
        for (taken, steps) in [(3, 1), (24, 1), (25, 1), (26, 2), (130, 6), (4, 1)] {
            assert_eq!(pace.of_dead(millis(taken)), STEP * steps - millis(taken));
            assert_eq!(pace.of_blocked(millis(1)), STEP * steps - millis(1));
        }
        pace.of_dead(Duration::from_secs(60));
        assert_eq!(pace.of_blocked(Duration::ZERO), Duration::from_secs(10), "and never longer");
    }
}
