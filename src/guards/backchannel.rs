//! Judges orders of a site's identity provider to end sessions (OpenID Connect Back-Channel Logout 1.0).
//!
//! 1. The order is a logout token that one of the provider's keys has signed, for this site, and recent; nothing else about
//!    the request is believed.
//! 2. One that is refused costs its client a budget, which is looked at before any signature work. Good ones cost nothing:
//!    a provider that ends a thousand sessions at once is heard a thousand times.
//! 3. Without keys nothing is obeyed.
//!
//! Caveat: ends what carries the provider's own `sub` or `sid`. Sessions that an application makes itself after a login, with
//! ids of its own, are the application's to end.

use std::sync::Arc;

use super::rate::Rate;
use super::{Denial, Guard as _, Reason, Verdict};
use crate::config::verification::Wanted;
use crate::request::facts::Facts;
use crate::request::logout_token::{LogoutToken, Refused, Whose, read};
use crate::request::verification::Invalid;
use crate::stores::blocks::What;
use crate::stores::keys::KeyRing;

/// Metric label and log field.
pub const NAME: &str = "backchannel";

/// Judges the orders of one site's provider.
#[derive(Debug)]
pub struct Backchannel {
    ring: Arc<KeyRing>,
    wanted: Wanted,
    failures: Rate,
}

impl Backchannel {
    /// For orders signed with these keys. `failures`: what bad ones cost a client.
    pub fn new(ring: Arc<KeyRing>, wanted: Wanted, failures: Rate) -> Self {
        Self { ring, wanted, failures }
    }

    /// Whether the client may try at all.
    ///
    /// # Errors
    /// It has shown too many bad ones.
    pub fn admit(&self, cx: &Facts) -> Result<(), Denial> {
        match self.failures.ask(cx) {
            Verdict::Deny(denial) => Err(Denial { guard: NAME, ..denial }),
            _ => Ok(()),
        }
    }

    /// Verifies an order. A bad one is charged by [`Backchannel::refuse`].
    ///
    /// # Errors
    /// Why it is none, in the operator's words.
    pub fn check(&self, cx: &Facts, token: &[u8]) -> Result<LogoutToken, String> {
        let keys = self.ring.current();
        let Some(keys) = &*keys else {
            return Err("logout token refused: the keys could not be had yet".into());
        };
        read(token, &keys.list, &self.wanted, cx.now.unix()).map_err(|why| {
            if why == Refused::Invalid(Invalid::UnknownKey) {
                self.ring.ask();
            }
            why.to_string()
        })
    }

    /// Charges the client for a bad order.
    pub fn refuse(&self, cx: &Facts) -> Denial {
        let _spent = self.failures.check(cx);
        Denial::new(NAME, Reason::LogoutRefused)
    }
}

/// Which sessions an order means.
pub fn meant(order: &LogoutToken) -> What {
    let LogoutToken { issuer, whose, issued, jti: _ } = order.clone();
    let (issuer, before) = (Some(issuer), issued);
    match whose {
        Whose::Session(session, subject) => What::Session { session, subject, issuer, before },
        Whose::Person(subject) => What::Subject { subject, issuer, before, and_logins: false },
    }
}
