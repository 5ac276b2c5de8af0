//! Refuses what an emergency block names: tokens, subjects, share links, addresses.
//!
//! 1. A blocked address gets 403, a blocked token 401 in the application's shape, a blocked share link 404.
//! 2. Every credential of a request is examined; one that is blocked refuses the request.
//! 3. A blocked *cookie* on `page` and `login` is stripped and expired instead, or its owner could never log in again.
//!
//! Caveat: as good as the app file's list of places where tokens travel; what is not named there is not looked at
//! (`Authorization` always is).

use super::stripped::Stripped;
use super::{Denial, Reason, Verdict};
use crate::config::class::Class;
use crate::request::facts::Facts;
use crate::stores::blocks::{Index, Kind};

/// Metric label and log field.
pub const NAME: &str = "blocks";

/// What the blocks say of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Which of the application's cookies are to be left out of the request.
    pub stripped: Stripped,
}

impl Judged {
    /// Nothing against it.
    pub const fn pass() -> Self {
        Self { verdict: Verdict::Pass, stripped: Stripped::NONE }
    }
}

/// Judges by the index: not a [`super::Guard`] of a policy, since blocks outlive policies.
pub fn check(index: &Index, cx: &Facts) -> Judged {
    let Some(hit) = index.matching(cx) else {
        return Judged::pass();
    };
    // The index answers with a blocked cookie only when nothing else is blocked.
    let in_cookie =
        hit.credential.and_then(|place| cx.credentials.get(place)).is_some_and(|one| one.in_cookie);
    if in_cookie && matches!(cx.class, Class::Page | Class::Login) {
        return Judged { verdict: Verdict::Pass, stripped: Stripped::ALL };
    }
    let reason = match hit.kind {
        Kind::Fingerprint | Kind::Jti | Kind::Subject | Kind::Session | Kind::Everyone if hit.learned => {
            Reason::SessionEnded
        }
        Kind::Fingerprint | Kind::Jti | Kind::Subject | Kind::Session | Kind::Everyone => {
            Reason::TokenBlocked
        }
        Kind::Share => Reason::ShareBlocked,
        Kind::Address => Reason::AddressBlocked,
    };
    Judged { verdict: Verdict::Deny(Denial::new(NAME, reason)), stripped: Stripped::NONE }
}
