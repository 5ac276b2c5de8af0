//! Refuses tokens that are forged, expired, not yet good, or not this site's (RFC 7519, RFC 8725).
//!
//! 1. Every token of a request is verified, wherever it travels; a request without one goes on, since pages and logins
//!    have none: who may do what without a token is the application's to say.
//! 2. A token that failed costs its client a budget that is looked at before any signature work.
//! 3. What was verified is remembered by the hash of the *whole* token; its times are asked each time.
//! 4. A bad *cookie* on `page`, `login` and `refresh` is left out instead, and expired in the browser, or its owner could never
//!    log in again. One that has merely ended is only left out. The refresh cookie stays: it is what helps then.
//! 5. Keys that could not be had yet verify nothing: 503, not 401, which would end everybody's session; nor is a cookie left
//!    out for it.
//! 6. What pages of other sites show has a budget of its own ([`super::rate`]): they spend none of their visitors'.
//!
//! Caveat: the key alone says which algorithms count; a shared secret is as good as its keeping on both machines.

use std::sync::Arc;

use super::blocks::Judged;
use super::rate::Rate;
use super::stripped::Stripped;
use super::{Denial, Guard as _, Reason, Verdict};
use crate::clock::Now;
use crate::config::app::TokenFormat;
use crate::config::class::Class;
use crate::config::verification::Wanted;
use crate::request::credential::{Fingerprint, Presented, TokenText};
use crate::request::facts::Facts;
use crate::request::verification::{Invalid, Times, verify};
use crate::stores::keys::KeyRing;
use crate::stores::verified::Verified;

/// Metric label and log field.
pub const NAME: &str = "verify";

/// Seconds by which the clocks of gateway and issuer may differ.
const LEEWAY: u64 = 5;

/// Verifies the tokens of one site.
#[derive(Debug)]
pub struct Verify {
    /// The site's keys.
    pub ring: Arc<KeyRing>,
    /// Made anew with each policy: what another wish has verified does not count.
    verified: Verified,
    format: TokenFormat,
    wanted: Wanted,
    failures: Rate,
    cut_at_expiry: bool,
}

impl Verify {
    /// For tokens of this format. `failures`: what bad tokens cost a client.
    pub fn new(ring: Arc<KeyRing>, format: TokenFormat, wanted: Wanted, failures: Rate) -> Self {
        Self { ring, verified: Verified::default(), format, wanted, failures, cut_at_expiry: false }
    }

    /// The same, where streams end with their token.
    #[must_use]
    pub fn cutting_at_expiry(self, cut_at_expiry: bool) -> Self {
        Self { cut_at_expiry, ..self }
    }

    /// Unix seconds at which streams of these tokens are to be cut: when the first of them will have ended. One that has ended
    /// already is refused or left out.
    pub fn end_of(&self, presented: &[Presented], now: Now) -> Option<u64> {
        let tokens = presented.iter().filter(|_| self.cut_at_expiry);
        let ends = tokens.filter_map(|token| token.expires).map(|ends| ends.saturating_add(LEEWAY));
        ends.filter(|ends| *ends > now.unix()).min()
    }

    /// Judges every token of a request.
    pub fn check(&self, cx: &Facts, presented: &[Presented]) -> Judged {
        let mut stripped = Stripped::NONE;
        for token in presented {
            let Err(denial) = self.token(&token.text, cx) else { continue };
            let cookie =
                token.cookie.filter(|_| matches!(cx.class, Class::Page | Class::Login | Class::Refresh));
            match (cookie, denial.reason) {
                (Some(place), Reason::TokenExpired) => stripped.leave_out(place, false),
                (Some(place), Reason::TokenInvalid) => stripped.leave_out(place, true),
                _ => return Judged { verdict: Verdict::Deny(denial), stripped: Stripped::NONE },
            }
        }
        Judged { verdict: Verdict::Pass, stripped }
    }

    fn token(&self, text: &TokenText, cx: &Facts) -> Result<(), Denial> {
        let keys = self.ring.current();
        let Some(keys) = &*keys else { return Err(Denial::new(NAME, Reason::KeysUnavailable)) };
        let hash = Fingerprint::of(text.bytes()).0;
        let times = match self.verified.times(&hash, keys.generation) {
            Some(times) => times,
            None => {
                let times = self.fresh(text, &keys.list, cx)?;
                self.verified.remember(hash, times, keys.generation);
                times
            }
        };
        is_now(times, cx).map_err(|reason| Denial::new(NAME, reason))
    }

    /// Asks the budget, then the signature; a failure is charged.
    fn fresh(
        &self,
        text: &TokenText,
        keys: &[crate::config::keys::VerifyKey],
        cx: &Facts,
    ) -> Result<Times, Denial> {
        if let Verdict::Deny(denial) = self.failures.ask(cx) {
            return Err(Denial { guard: NAME, ..denial });
        }
        verify(text.bytes(), self.format, keys, &self.wanted).map_err(|why| {
            if why == Invalid::UnknownKey {
                self.ring.ask();
            }
            let _spent = self.failures.check(cx);
            Denial::new(NAME, Reason::TokenInvalid)
        })
    }
}

fn is_now(times: Times, cx: &Facts) -> Result<(), Reason> {
    let now = cx.now.unix();
    if now >= times.ends.saturating_add(LEEWAY) {
        return Err(Reason::TokenExpired);
    }
    if now.saturating_add(LEEWAY) < times.begins {
        return Err(Reason::TokenInvalid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::config::keys::VerifyKey;
    use crate::config::values::Rate as RateValue;
    use crate::stores::limits::Limits;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn guard() -> Verify {
        let ring = Arc::new(KeyRing::default());
        ring.publish(vec![VerifyKey::secret(SECRET, Some("one")).unwrap()].into());
        let rate = RateValue { refill: Duration::from_secs(60), burst: NonZeroU32::new(3).unwrap() };
        let failures = Rate::new(&Limits::new(1000), "site/bad tokens", rate);
        Verify::new(ring, TokenFormat::Jwt, Wanted::default(), failures)
    }

    fn token(kid: &str, secret: &[u8], times: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"1"{times}}}"#)));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
    }

    fn facts(seconds: u64) -> Facts {
        let now = Now { mono: seconds * 1_000_000_000, wall: seconds * 1000 };
        Facts { now, ..Facts::example() }
    }

    fn presented(token: &str, in_cookie: bool) -> [Presented; 1] {
        [Presented { text: TokenText::new(token.as_bytes()), cookie: in_cookie.then_some(3), expires: None }]
    }

    fn reason(guard: &Verify, token: &str, seconds: u64) -> Option<Reason> {
        match guard.check(&facts(seconds), &presented(token, false)).verdict {
            Verdict::Deny(denial) => Some(denial.reason),
            _ => None,
        }
    }

    #[test]
    fn a_token_holds_within_its_times_also_when_it_was_verified_before() {
        let guard = guard();
        let token = token("one", SECRET, r#","nbf":1000,"exp":2000"#);
        for (now, expected) in [
            (1500, None),
            (994, Some(Reason::TokenInvalid)),
            (995, None),
            (2004, None),
            (2005, Some(Reason::TokenExpired)),
            (u64::from(u32::MAX), Some(Reason::TokenExpired)),
        ] {
            assert_eq!(reason(&guard, &token, now), expected, "at {now}");
        }
        assert_eq!(guard.verified.len(), 1);
    }

    #[test]
    fn what_was_verified_is_known_by_the_whole_token_and_by_the_keys_of_the_time() {
        let guard = guard();
        let good = token("one", SECRET, r#","exp":2000"#);
        assert_eq!(reason(&guard, &good, 1000), None);
        let (signed, _) = good.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([7; 32]));
        assert_eq!(reason(&guard, &forged, 1000), Some(Reason::TokenInvalid), "same signed part");
        guard.ring.publish(vec![VerifyKey::secret(&[b'x'; 32], None).unwrap()].into());
        assert_eq!(reason(&guard, &good, 1000), Some(Reason::TokenInvalid), "the key is gone");
    }

    #[test]
    fn who_shows_bad_tokens_is_refused_before_any_signature_work_and_known_tokens_go_on() {
        let guard = guard();
        let good = token("one", SECRET, r#","exp":2000"#);
        assert_eq!(reason(&guard, &good, 1000), None);
        for n in 0..3 {
            let forged = token("one", &[n; 32], r#","exp":2000"#);
            assert_eq!(reason(&guard, &forged, 1000), Some(Reason::TokenInvalid));
        }
        let fresh = token("one", SECRET, r#","exp":1999"#);
        assert_eq!(reason(&guard, &fresh, 1000), Some(Reason::RateLimited));
        assert_eq!(reason(&guard, &good, 1000), None, "who was in stays in");
        assert_eq!(reason(&guard, &fresh, 1061), None, "a minute later");
    }

    #[test]
    fn a_token_that_has_ended_cuts_no_stream_that_goes_on_without_it() {
        let guard = guard().cutting_at_expiry(true);
        let of = |expires| Presented { text: TokenText::new(b"x"), cookie: Some(0), expires };
        let both = [of(Some(1000)), of(None), of(Some(3000))];
        for (now, end) in [(500, Some(1005)), (1004, Some(1005)), (1005, Some(3005)), (3005, None)] {
            assert_eq!(guard.end_of(&both, facts(now).now), end, "at {now}");
        }
    }

    #[test]
    fn without_keys_nobody_is_believed_and_nobody_is_thrown_out() {
        let guard = Verify { ring: Arc::default(), ..guard() };
        let token = token("one", SECRET, r#","exp":2000"#);
        assert_eq!(reason(&guard, &token, 1000), Some(Reason::KeysUnavailable));
        assert_eq!(guard.check(&facts(1000), &[]).verdict, Verdict::Pass, "no token, no question");
    }

    #[test]
    fn a_key_that_is_not_known_is_asked_for() {
        let guard = guard();
        let unknown = token("two", SECRET, r#","exp":2000"#);
        assert_eq!(reason(&guard, &unknown, 1000), Some(Reason::TokenInvalid));
        assert!(guard.ring.was_asked() && !guard.ring.was_asked());
    }

    #[test]
    fn a_bad_cookie_is_stripped_where_its_owner_must_be_able_to_log_in_again() {
        let guard = guard();
        let cookie = presented(&token("one", SECRET, r#","exp":2000"#), true);
        let Verdict::Deny(denial) = guard.check(&facts(3000), &cookie).verdict else {
            panic!("it has ended")
        };
        assert_eq!(denial.reason, Reason::TokenExpired);
        let forged = presented(&token("one", &[7; 32], r#","exp":2000"#), true);
        let no_keys = Verify { ring: Arc::default(), ..super::tests::guard() };
        for class in [Class::Page, Class::Login, Class::Refresh] {
            for (cookie, forgotten) in [(&cookie, false), (&forged, true)] {
                let judged = guard.check(&Facts { class, ..facts(3000) }, cookie);
                let mut stripped = Stripped::NONE;
                stripped.leave_out(3, forgotten);
                assert_eq!(judged, Judged { verdict: Verdict::Pass, stripped });
                let Verdict::Deny(denial) = no_keys.check(&Facts { class, ..facts(1000) }, cookie).verdict
                else {
                    panic!("who has no keys knows nothing of a cookie")
                };
                assert_eq!(denial.reason, Reason::KeysUnavailable);
            }
        }
    }
}
