//! Locks out who guesses passwords, and not the owner (DESIGN 5.3).
//!
//! 1. Three counters of failures: of a client at an account, of a client at all accounts, of all clients at an account. An
//!    attempt is charged on entry and taken back when it was none, so that parallel guesses do not slip by; one without an
//!    answer stays charged.
//! 2. Who comes from a known device (its cookie, or an address with a recent success at this account) has a budget of his
//!    own and is not asked for the others: nobody locks the owner out by guessing.
//! 3. Names are folded for counting only: `Ann`, `ANN` and `ａｎｎ` are one account here, whatever they are there.
//! 4. `never_lock` accounts are counted, and not locked over all clients.
//!
//! Caveat: an application that tells by its answer or its time whether an account exists tells it to guessers still; and
//! who shares an address with the guesser (a carrier's NAT) shares that client's budget until his device is known.

use std::net::IpAddr;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization as _;

use super::{Denial, Reason};
use crate::clock::Now;
use crate::request::client::Client;
use crate::stores::attempts::{Attempts, CounterKey, Lockout, Refused, Rule};

/// Metric label and log field.
pub const NAME: &str = "login";

/// Counts and locks for one site.
#[derive(Debug)]
pub struct Login {
    attempts: Arc<Attempts>,
    /// The site's scope, so that one table serves all sites.
    site: u64,
    rules: Rules,
    never_lock: Box<[Box<str>]>,
}

/// What is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// One client at one account, and a known device.
    pub pair: Rule,
    /// One client at all accounts.
    pub client: Rule,
    /// All clients at one account.
    pub account: Rule,
    /// How long it lasts.
    pub lockout: Lockout,
}

/// One try to log in.
#[derive(Debug, Clone, Copy)]
pub struct Try<'a> {
    /// Who.
    pub client: Client,
    /// As whom, folded by [`fold`]; `None`: the application's login names nobody (a code, a key).
    pub account: Option<&'a str>,
    /// From what is known of the device.
    pub device: Device,
    /// When.
    pub now: Now,
}

/// What is known of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Nothing.
    Unknown,
    /// Its cookie is good for this account.
    Cookie([u8; 8]),
    /// Somebody has logged in as this account from this address lately.
    Address,
}

/// The charges of one try; [`Login::settle`] it, or it stays a failure.
#[derive(Debug)]
#[must_use = "a try that is never settled counts as failed"]
pub struct Charged {
    counters: [Option<(CounterKey, Rule)>; 3],
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The application let him in.
    Success,
    /// It is no verdict on the password: the application's own 429, a 5xx.
    Neutral,
    /// It did not.
    Failure,
}

impl Login {
    /// For one site over the table of all. `never_lock`: accounts that are counted only.
    pub fn new(attempts: Arc<Attempts>, site: u64, rules: Rules, never_lock: &[Box<str>]) -> Self {
        let never_lock = never_lock.iter().map(|name| fold(name).into()).collect();
        Self { attempts, site, rules, never_lock }
    }

    /// Charges a try before the application hears of it.
    ///
    /// # Errors
    /// A denial with the time to come again; nothing is charged then.
    pub fn begin(&self, attempt: Try<'_>) -> Result<Charged, Denial> {
        let mut charged = Charged { counters: [None; 3] };
        for (place, (key, rule, locks)) in charged.counters.iter_mut().zip(self.counters(attempt)) {
            match self.attempts.charge(key, rule, self.rules.lockout, attempt.now) {
                Err(Refused::Begun(wait) | Refused::Locked(wait)) if locks => {
                    self.settle(charged, Outcome::Neutral, attempt.now);
                    let reason = Reason::LockedOut;
                    return Err(Denial { guard: NAME, reason, retry_after: Some(wait) });
                }
                Err(_) => {}
                Ok(()) => *place = Some((key, rule)),
            }
        }
        Ok(charged)
    }

    /// Takes back what was no failure. A success forgives all of its own pair or device; what others have guessed at the
    /// account, and what this client has guessed elsewhere, stays.
    pub fn settle(&self, charged: Charged, outcome: Outcome, now: Now) {
        let [own, others @ ..] = charged.counters;
        match (outcome, own) {
            (Outcome::Failure, _) => return,
            (Outcome::Success, Some((key, _))) => drop(self.attempts.clear(key, now)),
            (_, Some((key, rule))) => self.attempts.refund(key, rule, now),
            (_, None) => {}
        }
        for (key, rule) in others.into_iter().flatten() {
            self.attempts.refund(key, rule, now);
        }
    }

    /// Counts a failure that only the answer has told of: 401 to Basic credentials on any route.
    pub fn failed(&self, attempt: Try<'_>) {
        for (key, rule, _) in self.counters(attempt) {
            let _counted = self.attempts.charge(key, rule, self.rules.lockout, attempt.now);
        }
    }

    /// Lifts the lockout of a client, over all accounts; whether there was one.
    pub fn unlock_client(&self, client: Client, now: Now) -> bool {
        self.attempts.clear(self.of_client(client), now)
    }

    /// Lifts the lockout of an account over all clients; whether there was one.
    pub fn unlock_account(&self, account: &str, now: Now) -> bool {
        self.attempts.clear(self.attempts.key_of((self.site, "account", fold(account))), now)
    }

    /// Key, rule, and whether it may lock; the own pair or device first.
    fn counters(&self, attempt: Try<'_>) -> impl Iterator<Item = (CounterKey, Rule, bool)> {
        let Try { client, account, device, .. } = attempt;
        let group = client_group(client);
        let own = match device {
            Device::Unknown => self.attempts.key_of((self.site, "pair", group, account)),
            Device::Cookie(id) => self.attempts.key_of((self.site, "device", id, account)),
            Device::Address => self.attempts.key_of((self.site, "address", group, account)),
        };
        let stranger = device == Device::Unknown;
        let of_client = stranger.then(|| (self.of_client(client), self.rules.client, true));
        let of_account = account.filter(|_| stranger).map(|name| {
            let locks = !self.never_lock.iter().any(|known| **known == *name);
            (self.attempts.key_of((self.site, "account", name)), self.rules.account, locks)
        });
        [Some((own, self.rules.pair, true)), of_client, of_account].into_iter().flatten()
    }

    fn of_client(&self, client: Client) -> CounterKey {
        self.attempts.key_of((self.site, "client", client_group(client)))
    }
}

/// An account's name as it is counted: compatibility forms, case and blanks around it make no other account.
pub fn fold(name: &str) -> String {
    name.trim().nfkc().flat_map(char::to_lowercase).nfkc().collect::<String>().trim().to_owned()
}

/// An IPv4 address, an IPv6 /64, or all whose address cannot be told.
fn client_group(client: Client) -> u128 {
    match client {
        Client::Unknown => u128::MAX,
        Client::Address(IpAddr::V4(address)) => u128::from(address.to_bits()),
        Client::Address(IpAddr::V6(address)) => address.to_bits() >> 64 << 64 | 1,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    const QUARTER: Duration = Duration::from_secs(900);

    fn rule(failures: u32) -> Rule {
        Rule { failures: NonZeroU32::new(failures).unwrap(), per: QUARTER }
    }

    fn guard(never_lock: &[&str]) -> Login {
        let lockout = Lockout { first: Duration::from_secs(30), most: Duration::from_secs(3600) };
        let rules = Rules { pair: rule(5), client: rule(20), account: rule(20), lockout };
        let names: Vec<Box<str>> = never_lock.iter().map(|name| (*name).into()).collect();
        Login::new(Arc::new(Attempts::new(200_000)), 7, rules, &names)
    }

    fn attempt<'a>(client: &str, account: &'a str) -> Try<'a> {
        Try {
            client: Client::Address(client.parse().unwrap()),
            account: Some(account),
            device: Device::Unknown,
            now: Now { mono: 1_000_000_000_000, wall: 0 },
        }
    }

    /// Tries and ends so; whether the application was asked.
    fn tried(guard: &Login, attempt: Try<'_>, outcome: Outcome) -> bool {
        match guard.begin(attempt) {
            Ok(charged) => {
                guard.settle(charged, outcome, attempt.now);
                true
            }
            Err(denial) => {
                assert!(denial.retry_after.is_some_and(|wait| wait >= Duration::from_secs(1)));
                false
            }
        }
    }

    fn failures(guard: &Login, clients: impl Iterator<Item = String>, account: &str) -> usize {
        clients.filter(|client| tried(guard, attempt(client, account), Outcome::Failure)).count()
    }

    #[test]
    fn a_client_has_a_few_guesses_at_an_account_and_some_more_at_all_of_them() {
        let guard = guard(&[]);
        assert_eq!(failures(&guard, (0..50).map(|_| "192.0.2.1".into()), "ann"), 5);
        let others =
            (0..50).filter(|n| tried(&guard, attempt("192.0.2.1", &format!("u{n}")), Outcome::Failure));
        assert_eq!(others.count(), 15, "20 for the client, of which 5 are spent");
        assert!(tried(&guard, attempt("192.0.2.2", "ann"), Outcome::Success), "others are others");
    }

    #[test]
    fn many_clients_together_have_no_more_guesses_at_one_account_and_the_owner_gets_in() {
        let guard = guard(&[]);
        let botnet = (0..5000).map(|n| format!("10.{}.{}.1", n / 250, n % 250));
        assert_eq!(failures(&guard, botnet, "ann"), 20);
        assert!(!tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success), "a stranger's address waits");
        for device in [Device::Cookie([1; 8]), Device::Address] {
            assert!(tried(&guard, Try { device, ..attempt("192.0.2.1", "ann") }, Outcome::Success));
        }
        assert!(
            tried(&guard, attempt("192.0.2.1", "bob"), Outcome::Success),
            "other accounts are not touched"
        );
    }

    #[test]
    fn a_known_device_has_a_budget_of_its_own_and_no_more() {
        let guard = guard(&[]);
        let known = |id: u8| Try { device: Device::Cookie([id; 8]), ..attempt("192.0.2.1", "ann") };
        assert_eq!((0..50).filter(|_| tried(&guard, known(1), Outcome::Failure)).count(), 5);
        assert!(tried(&guard, known(2), Outcome::Success));
        assert!(
            tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success),
            "the stranger's budget is another"
        );
    }

    #[test]
    fn successes_are_never_limited_and_clear_their_own_pair_only() {
        let guard = guard(&[]);
        for _ in 0..100 {
            assert!(tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success));
        }
        for _ in 0..4 {
            assert!(tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Failure));
        }
        assert!(tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success));
        for _ in 0..5 {
            assert!(tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Failure), "five again");
        }
        let others =
            (0..50).filter(|n| tried(&guard, attempt("192.0.2.1", &format!("u{n}")), Outcome::Failure));
        assert_eq!(others.count(), 11, "an account of one's own does not wash the client clean");
    }

    #[test]
    fn what_is_no_verdict_on_the_password_costs_nothing_and_silence_costs() {
        let guard = guard(&[]);
        for _ in 0..100 {
            assert!(tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Neutral));
        }
        for _ in 0..5 {
            let _never_settled = guard.begin(attempt("192.0.2.1", "ann")).unwrap();
        }
        assert!(!tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success));
    }

    #[test]
    fn a_refusal_by_one_counter_leaves_no_charge_in_the_others() {
        let guard = guard(&[]);
        let botnet = (0..20).map(|n| format!("10.0.0.{n}"));
        assert_eq!(failures(&guard, botnet, "ann"), 20);
        for _ in 0..100 {
            assert!(!tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Failure));
        }
        let others =
            (0..50).filter(|n| tried(&guard, attempt("192.0.2.1", &format!("u{n}")), Outcome::Failure));
        assert_eq!(others.count(), 20, "the client has its whole budget");
    }

    #[test]
    fn accounts_that_must_never_be_locked_are_not_and_their_guessers_are() {
        let guard = guard(&["Backup-Robot"]);
        let botnet = (0..1000).map(|n| format!("10.0.{}.{}", n / 250, n % 250));
        assert_eq!(failures(&guard, botnet, "backup-robot"), 1000);
        assert_eq!(failures(&guard, (0..50).map(|_| "192.0.2.1".into()), "backup-robot"), 5);
    }

    #[test]
    fn basic_credentials_that_were_refused_count_too() {
        let guard = guard(&[]);
        for _ in 0..5 {
            guard.failed(attempt("192.0.2.1", "ann"));
        }
        assert!(!tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success));
    }

    #[test]
    fn an_operator_unlocks_what_is_locked() {
        let guard = guard(&[]);
        let now = attempt("192.0.2.1", "ann").now;
        failures(&guard, (0..30).map(|n| format!("10.0.0.{n}")), "ann");
        assert!(guard.unlock_account("ANN ", now) && !guard.unlock_account("bob", now));
        assert!(tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success));
        let _ = (0..50)
            .filter(|n| tried(&guard, attempt("192.0.2.9", &format!("u{n}")), Outcome::Failure))
            .count();
        assert!(guard.unlock_client(Client::Address("192.0.2.9".parse().unwrap()), now));
        assert!(tried(&guard, attempt("192.0.2.9", "x"), Outcome::Success));
    }

    #[test]
    fn names_that_look_alike_to_some_application_are_one_for_counting() {
        for name in ["Ann", "ANN", " ann\t", "\u{ff21}nn", "a\u{ff4e}n", "ANN\u{a0}"] {
            assert_eq!(fold(name), "ann", "{name}");
        }
        assert_eq!(fold("STRASSE"), "strasse");
        assert_eq!(fold("\u{212a}elvin"), "kelvin");
        assert_ne!(fold("ann"), fold("anna"));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let guard = guard(&[]);
        let network = (0..50).map(|n| format!("2001:db8:1:1::{n:x}"));
        assert_eq!(failures(&guard, network, "ann"), 5);
    }
}
