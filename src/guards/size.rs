//! Refuses bodies over the class's limit.
//!
//! 1. A body that announces more is refused with 413 before a byte of it is read.
//! 2. A body that announces nothing is counted while it passes (`request::body`) and cut off at the limit, with 413 when
//!    the answer has not begun.
//!
//! Caveat: the limit is of one request; many small ones are the rate's and the application's affair.

use super::{Denial, Guard, Reason, Verdict};
use crate::config::values::ByteSize;
use crate::request::facts::Facts;

/// The largest body of a class.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    limit: u64,
}

impl Size {
    /// A guard with this limit.
    pub fn new(limit: ByteSize) -> Self {
        Self { limit: limit.0 }
    }

    /// The limit in bytes, for the counting of bodies without length.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl Guard for Size {
    const NAME: &'static str = "size";

    fn check(&self, cx: &Facts) -> Verdict {
        match cx.body_length {
            Some(length) if length > self.limit => {
                Verdict::Deny(Denial::new(Self::NAME, Reason::BodyTooLarge))
            }
            _ => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_bodies_over_the_limit_are_refused() {
        let guard = Size::new(ByteSize(100));
        for (length, passes) in
            [(None, true), (Some(0), true), (Some(100), true), (Some(101), false), (Some(u64::MAX), false)]
        {
            let facts = Facts { body_length: length, ..Facts::example() };
            assert_eq!(guard.check(&facts) == Verdict::Pass, passes, "{length:?}");
        }
    }
}
