//! Locks out who guesses secrets other than passwords: refresh tokens, and what machines join with.
//!
//! 1. A refresh that fails counts for its token and for its client; page loads of many tabs fail together when a session has
//!    ended, so the budgets are wider than a login's, and no login pays for them. A token that the gateway has seen handed
//!    out is no guess and counts for itself only: an office whose sessions have ended is not locked out.
//! 2. A machine that is refused counts for its client.
//! 3. Charged on entry and taken back by the answer, as logins are.
//!
//! Caveat: how good a secret is, its application decides; one that lets everybody in cannot be saved here.

use std::num::NonZeroU32;
use std::time::Duration;

use super::Denial;
use super::counters::{Charged, Counter, Counters, Whose};
use crate::clock::Now;
use crate::request::client::Client;
use crate::request::credential::Fingerprint;
use crate::stores::attempts::Rule;
use crate::stores::lockouts::Of;
use crate::stores::logins::client_group;

/// Metric label and log field.
pub const NAME: &str = "secrets";

/// One refresh token.
pub const REFRESH: Rule = rule(20);
/// One client at all refresh tokens.
pub const REFRESH_CLIENT: Rule = rule(60);
/// One client that wants to join.
pub const ENROLL: Rule = rule(10);

const fn rule(failures: u32) -> Rule {
    let failures = match NonZeroU32::new(failures) {
        Some(failures) => failures,
        None => NonZeroU32::MIN,
    };
    Rule { failures, per: Duration::from_secs(15 * 60) }
}

/// A try to refresh.
#[derive(Debug, Clone, Copy)]
pub struct Refresh<'a> {
    /// The token that it carries, if one.
    pub token: Option<&'a Fingerprint>,
    /// The application has handed that out, and the request carries nothing else.
    pub handed_out: bool,
}

/// Charges a refresh.
///
/// # Errors
/// A denial with the time to come again.
pub fn refresh(counters: &Counters, tried: Refresh<'_>, client: Client, now: Now) -> Result<Charged, Denial> {
    let (attempts, scope) = (&counters.logins.attempts, counters.scope);
    let counter = |key, rule| Counter { key, rule, locks: true, of: Of::Refresh };
    let of_token = tried.token.map(|token| counter(attempts.key_of((scope, "refresh", token.0)), REFRESH));
    let of_client = counter(attempts.key_of((scope, "refresh of", client_group(client))), REFRESH_CLIENT);
    let of_client = Some(of_client).filter(|_| !tried.handed_out);
    counters.charge(NAME, of_token.into_iter().chain(of_client), Whose { client, account: None, now })
}

/// Charges a machine that wants to join.
///
/// # Errors
/// A denial with the time to come again.
pub fn enroll(counters: &Counters, client: Client, now: Now) -> Result<Charged, Denial> {
    let key = counters.logins.attempts.key_of((counters.scope, "enroll", client_group(client)));
    let counter = Counter { key, rule: ENROLL, locks: true, of: Of::Enroll };
    counters.charge(NAME, [counter], Whose { client, account: None, now })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::guards::counters::Outcome;
    use crate::stores::attempts::{Attempts, Lockout};
    use crate::stores::logins::Logins;

    const NOW: Now = Now { mono: 1_000_000_000_000, wall: 0 };

    fn counters() -> Counters {
        let lockout = Lockout { first: Duration::from_secs(30), most: Duration::from_secs(3600) };
        let logins = Arc::new(Logins::new(Arc::new(Attempts::new(1000))));
        Counters { logins, site: "a.test".into(), scope: 1, lockout }
    }

    fn client(last: u8) -> Client {
        Client::Address([192, 0, 2, last].into())
    }

    #[test]
    fn a_dead_refresh_token_is_asked_for_a_while_and_costs_no_other() {
        let counters = counters();
        let tried = |text: &[u8], last, handed_out| {
            let token = Fingerprint::of(text);
            refresh(&counters, Refresh { token: Some(&token), handed_out }, client(last), NOW)
        };
        let asked = |text: &[u8], last| tried(text, last, false);
        let failed = (0..50).filter(|_| asked(b"dead", 1).is_ok()).count();
        assert_eq!(failed, 20, "each stays charged");
        assert!(asked(b"alive", 1).is_ok());
        let guesses = (0..100).filter(|n| asked(format!("{n}").as_bytes(), 2).is_ok()).count();
        assert_eq!(guesses, 60);
        assert!(
            (0..200).all(|n| tried(format!("old{n}").as_bytes(), 3, true).is_ok()),
            "an office on Monday"
        );
        assert!(asked(b"fresh", 3).is_ok());
        let again = (0..50).filter(|_| tried(b"old", 3, true).is_ok()).count();
        assert_eq!(again, 20, "each for itself");
    }

    #[test]
    fn a_machine_that_joins_costs_nothing_and_guesses_do() {
        let counters = counters();
        for _ in 0..50 {
            counters.settle(enroll(&counters, client(1), NOW).unwrap(), Outcome::Success, NOW);
        }
        assert_eq!((0..50).filter(|_| enroll(&counters, client(1), NOW).is_ok()).count(), 10);
        assert!(enroll(&counters, client(2), NOW).is_ok());
    }
}
