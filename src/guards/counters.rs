//! What guards of secrets share: a try is charged to its counters before anybody hears of it, and settled by what became of
//! it. One that is never settled stays a failure.

use std::sync::Arc;

use super::{Denial, Reason};
use crate::clock::Now;
use crate::request::client::Client;
use crate::stores::attempts::{CounterKey, Lockout, Refused, Rule};
use crate::stores::lockouts::{self, Of};
use crate::stores::logins::Logins;

/// Most counters of one try.
pub(super) const MOST: usize = 3;

/// The counters of one site.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Of all sites.
    pub logins: Arc<Logins>,
    /// The site's name.
    pub site: Arc<str>,
    /// The site's scope, so that one table serves all sites.
    pub scope: u64,
    /// How long who has failed too often waits.
    pub lockout: Lockout,
}

/// One counter that a try is charged to; the own one, which a success clears, comes first.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    /// Which.
    pub key: CounterKey,
    /// What it forgives.
    pub rule: Rule,
    /// It refuses; else it only counts.
    pub locks: bool,
    /// What is locked with it.
    pub of: Of,
}

/// Whose try it is, for the list of lockouts.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// Who.
    pub client: Client,
    /// As whom, folded.
    pub account: Option<&'a str>,
    /// When.
    pub now: Now,
}

/// The charges of one try; [`Counters::settle`] it, or it stays a failure.
#[derive(Debug)]
#[must_use = "a try that is never settled counts as failed"]
pub struct Charged {
    counters: [Option<(CounterKey, Rule)>; MOST],
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The application let him in.
    Success,
    /// It is no verdict on the secret: the application's own 429, a 5xx.
    Neutral,
    /// It may have: nobody can tell. It stays charged but for its own counter, which is the smallest, so that guesses end and good
    /// logins have room.
    Unclear,
    /// It did not.
    Failure,
}

impl Charged {
    /// Of a try that is not counted.
    pub(super) fn none() -> Self {
        Self { counters: [None; MOST] }
    }
}

impl Counters {
    /// Charges a try.
    ///
    /// # Errors
    /// A denial of `guard` with the time to come again; nothing is charged then.
    pub fn charge(
        &self,
        guard: &'static str,
        counters: impl IntoIterator<Item = Counter>,
        whose: Whose<'_>,
    ) -> Result<Charged, Denial> {
        let mut charged = Charged::none();
        for (place, counter) in charged.counters.iter_mut().zip(counters) {
            let Counter { key, rule, locks, .. } = counter;
            match self.logins.attempts.charge(key, rule, self.lockout, whose.now) {
                Ok(()) => *place = Some((key, rule)),
                Err(refused) if locks => {
                    if let Refused::Begun(length) = refused {
                        self.begun(counter, whose, length);
                    }
                    self.settle(charged, Outcome::Neutral, whose.now);
                    let (Refused::Begun(wait) | Refused::Locked(wait)) = refused;
                    return Err(Denial { guard, reason: Reason::LockedOut, retry_after: Some(wait) });
                }
                Err(_) => {}
            }
        }
        Ok(charged)
    }

    /// Counts a failure of which only its answer has told, to each counter: there may have been many at once.
    pub fn failed(&self, counters: impl IntoIterator<Item = Counter>, whose: Whose<'_>) {
        for counter in counters {
            let charged = self.logins.attempts.charge(counter.key, counter.rule, self.lockout, whose.now);
            if let Err(Refused::Begun(length)) = charged
                && counter.locks
            {
                self.begun(counter, whose, length);
            }
        }
    }

    /// Takes back what was no failure. A success forgives all of its own counter; the others are given back this one charge, unless
    /// nobody can tell.
    pub fn settle(&self, charged: Charged, outcome: Outcome, now: Now) {
        let [own, others @ ..] = charged.counters;
        match (outcome, own) {
            (Outcome::Failure, _) => return,
            (Outcome::Success, Some((key, _))) => self.logins.clear(key, now),
            (_, Some((key, rule))) => self.logins.attempts.refund(key, rule, now),
            (_, None) => {}
        }
        if outcome == Outcome::Unclear {
            return;
        }
        for (key, rule) in others.into_iter().flatten() {
            self.logins.attempts.refund(key, rule, now);
        }
    }

    /// A denial if this counter is locked now; nothing is charged.
    ///
    /// # Errors
    /// The denial.
    pub fn ask(&self, guard: &'static str, key: CounterKey, now: Now) -> Result<(), Denial> {
        self.logins.attempts.ask(key, now).map_err(|refused| {
            let (Refused::Begun(wait) | Refused::Locked(wait)) = refused;
            Denial { guard, reason: Reason::LockedOut, retry_after: Some(wait) }
        })
    }

    fn begun(&self, counter: Counter, whose: Whose<'_>, length: std::time::Duration) {
        let of_all = matches!(counter.of, Of::Account);
        let of_any = matches!(counter.of, Of::Client | Of::Refresh | Of::Enroll);
        let lockout = lockouts::Lockout {
            site: Arc::clone(&self.site),
            of: counter.of,
            client: (!of_all).then_some(whose.client),
            network: None,
            account: whose.account.filter(|_| !of_any).map(Box::from),
            length,
            since: whose.now,
        };
        self.logins.lockouts.begun(counter.key, lockout);
    }
}
