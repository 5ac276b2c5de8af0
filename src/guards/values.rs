//! Refuses values in path and query that the app file does not let pass: the size of a picture that would cost the
//! application seconds of work, and a file for each number.
//!
//! Caveat: it knows what the app file names. A value that the application reads elsewhere (a header, a body) passes.

use super::{Denial, Guard, Reason, Verdict};
use crate::request::facts::Facts;

/// The guard; which values pass is the site's, and was asked while the request was read.
#[derive(Debug, Clone, Copy)]
pub struct Values;

impl Guard for Values {
    const NAME: &'static str = "values";

    fn check(&self, cx: &Facts) -> Verdict {
        match cx.odd_value {
            true => Verdict::Deny(Denial::new(Self::NAME, Reason::ValueNotAllowed)),
            false => Verdict::Pass,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_not_allowed_is_refused() {
        let facts = Facts { odd_value: true, ..Facts::example() };
        assert!(
            matches!(Values.check(&facts), Verdict::Deny(denial) if denial.reason == Reason::ValueNotAllowed)
        );
        assert_eq!(Values.check(&Facts::example()), Verdict::Pass);
    }
}
