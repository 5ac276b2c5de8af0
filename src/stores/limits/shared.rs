//! The budgets that newcomers share when the table is full: a fixed number for each limiter, without keys. Networks that
//! meet in one share it too, so it is never more than either would have had.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::nanos::Nanos;

/// 128 KiB for each limiter that has needed them.
pub(super) const COUNT: usize = 16_384;

/// Each is the time at which its budget is full again, in monotonic nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Shared {
    dues: OnceLock<Vec<AtomicU64>>,
}

impl Shared {
    /// Lets `f` judge and charge the bucket of this hash, at once or not at all.
    pub(super) fn measure<T, E>(
        &self,
        hash: u64,
        rehearsal: bool,
        f: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    ) -> Result<T, E> {
        let dues = self.dues.get_or_init(|| (0..COUNT).map(|_| AtomicU64::new(0)).collect());
        let place = usize::try_from(hash % COUNT as u64).ok();
        let Some(bucket) = place.and_then(|place| dues.get(place)) else {
            unreachable!("a remainder of {COUNT}")
        };
        let mut due = bucket.load(Ordering::Acquire);
        loop {
            let (answer, next) = f(Some(Nanos::new(due)))?;
            if rehearsal {
                return Ok(answer);
            }
            match bucket.compare_exchange_weak(due, next.as_u64(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(answer),
                Err(other) => due = other,
            }
        }
    }
}
