//! What went wrong in a row, of a host or of the authority itself, and how long is waited after it.

use serde::{Deserialize, Serialize};

use crate::clock::Now;

/// No wait is longer, whatever an authority or a clock that was wrong says, in seconds.
const LONGEST_WAIT: u64 = 24 * 3600;
/// So often an operator's reload begins the waiting anew, in seconds.
const FORGIVE: u64 = 3600;

/// What went wrong in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Trouble {
    pub failures: u32,
    pub problem: String,
    /// Not before, in Unix seconds.
    pub next: u64,
    /// When a reload last began the waiting anew.
    forgiven: u64,
}

impl Trouble {
    /// A wait that is longer than any is that of a clock which was wrong.
    pub fn waits(&self, unix: u64) -> bool {
        self.next > unix && self.next - unix <= LONGEST_WAIT
    }

    /// One more failure; `after`: seconds that the authority asks to wait. `share` of 1024 is jitter.
    pub fn note(&mut self, now: Now, why: String, waits: &[u64], (share, after): (u64, Option<u64>)) {
        let place = usize::try_from(self.failures).unwrap_or(usize::MAX).min(waits.len().saturating_sub(1));
        let wait = waits.get(place).copied().unwrap_or(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.problem = why;
        self.next = 0;
        self.put_off(now, wait.saturating_add(part(wait / 5, share)).max(after.unwrap_or(0)));
    }

    /// Not before so many seconds from now.
    pub fn put_off(&mut self, now: Now, seconds: u64) {
        self.next = self.next.max(now.unix().saturating_add(seconds.min(LONGEST_WAIT)));
    }

    /// An operator has mended something: tried at once, now and then.
    pub fn forgive(&mut self, now: Now) {
        let since = now.unix().checked_sub(self.forgiven);
        if self.failures > 0 && since.is_none_or(|since| since >= FORGIVE) {
            (self.forgiven, self.next) = (now.unix(), 0);
        }
    }

    /// It went well. Whoever reloads is not believed more often for that.
    pub fn end(&mut self) {
        *self = Self { forgiven: self.forgiven, ..Self::default() };
    }
}

/// A number from 0 to 1023 that differs between hosts and processes (FNV-1a).
pub(super) fn share(seed: u64, word: &str) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for byte in word.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 20) & 1023
}

/// So many 1024ths.
pub(super) fn part(whole: u64, share: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(share) / 1024).unwrap_or(0)
}
