//! Keeps previews to those who are logged in, where the site says so, and companion cookies to the site's own pages.
//!
//! 1. `previews = "members"`: a companion cookie, or a token that `verify` has found true, or 401 as the application's own.
//! 2. A companion cookie that a page of another origin has sent is refused, whatever the class.
//!
//! Caveat: a companion cookie says that somebody has logged in and that the token is neither blocked nor over; whether the
//! application has taken the account's rights away meanwhile it does not know.

use super::{Denial, Guard, Reason, Verdict};
use crate::config::class::Class;
use crate::request::facts::{Companion, Facts};

/// Who may see the previews of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Members {
    /// Nobody else.
    pub only: bool,
    /// Tokens have been verified, and forged ones refused, before this guard is asked.
    pub verified: bool,
}

impl Guard for Members {
    const NAME: &'static str = "members";

    fn check(&self, cx: &Facts) -> Verdict {
        let refused = match cx.companion {
            Companion::Foreign => Some(Reason::CrossOrigin),
            Companion::Absent if self.only && !(self.verified && has_token(cx)) => Some(Reason::NotMember),
            Companion::Absent | Companion::Own => None,
        };
        refused.map_or(Verdict::Pass, |reason| Verdict::Deny(Denial::new(Self::NAME, reason)))
    }
}

/// Whether companion cookies count in a class: where browsers ask by themselves, and nothing changes.
pub const fn counts(class: Class) -> bool {
    matches!(class, Class::Download | Class::Preview)
}

/// One that says who it is for: words that are no tokens are nobody's to verify.
fn has_token(cx: &Facts) -> bool {
    cx.credentials.iter().any(|one| one.claims.is_some() && !one.guessed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::app::TokenFormat;
    use crate::request::credential::examine;

    fn reason(only: bool, verified: bool, facts: &Facts) -> Option<Reason> {
        match (Members { only, verified }).check(facts) {
            Verdict::Deny(denial) => Some(denial.reason),
            _ => None,
        }
    }

    #[test]
    fn previews_for_members_want_a_companion_or_a_verified_token() {
        let stranger = Facts::example();
        let text = b"eyJzdWIiOiI3In0.c2lnbmF0dXJl";
        let token = examine(text, TokenFormat::HmacPair, Duration::ZERO, false).unwrap();
        let word = examine(b"no token of this format", TokenFormat::HmacPair, Duration::ZERO, false).unwrap();
        let bearer = Facts { credentials: vec![token], ..Facts::example() };
        let odd = Facts { credentials: vec![word], ..Facts::example() };
        let own = Facts { companion: Companion::Own, ..Facts::example() };
        let foreign = Facts { companion: Companion::Foreign, ..Facts::example() };
        assert_eq!(reason(true, true, &stranger), Some(Reason::NotMember));
        assert_eq!(reason(true, true, &bearer), None);
        assert_eq!(reason(true, true, &odd), Some(Reason::NotMember));
        assert_eq!(reason(true, false, &bearer), Some(Reason::NotMember), "nobody has verified it");
        assert_eq!(reason(true, false, &own), None);
        assert_eq!(reason(false, false, &stranger), None);
        for only in [true, false] {
            assert_eq!(reason(only, true, &foreign), Some(Reason::CrossOrigin));
        }
    }
}
