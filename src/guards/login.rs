//! Locks out who guesses passwords, and not the owner (DESIGN 5.3).
//!
//! 1. Three counters of failures: of a client at an account, of a client at all accounts, of all clients at an account. An
//!    attempt is charged on entry and taken back when it was none, so that parallel guesses do not slip by; one without an
//!    answer stays charged.
//! 2. Who comes from a known device (its cookie, or an address with a recent success at this account) has a budget of his
//!    own and is not asked for the others: nobody locks the owner out by guessing. All cookies of one account together have
//!    no more than the account's budget, so that nobody gains by collecting them.
//! 3. Names are folded for counting only: `Ann`, `ANN` and `ａｎｎ` are one account here, whatever they are there.
//! 4. `never_lock` accounts are counted, and not locked over all clients.
//! 5. A password that the application's own documents name is refused from outside, right or wrong.
//!
//! Caveat: an application that tells by its answer or its time whether an account exists tells it to guessers still; and
//! who shares an address with the guesser (a carrier's NAT) shares that client's budget until his device is known.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::allowlist::{self, Allowlist};
use super::counters::{Charged, Counter, Counters, MOST, Outcome, Whose};
use super::{Denial, Reason, Verdict};
use crate::clock::Now;
use crate::config::class::Class;
use crate::config::values::Networks;
use crate::request::client::Client;
use crate::request::facts::Facts;
use crate::stores::attempts::Rule;
use crate::stores::blocks::Index;
use crate::stores::lockouts::Of;
use crate::stores::logins::{client_group, fold};
use crate::stores::marks::Marks;
use crate::stores::places::Place;

/// Metric label and log field.
pub const NAME: &str = "login";
/// When who finds as many under way may come again.
const SOON: Duration = Duration::from_secs(1);
/// So long an address is known after a success.
const ADDRESS: Duration = Duration::from_secs(7 * 24 * 3600);

/// Counts and locks for one site.
#[derive(Debug)]
pub struct Login {
    counters: Counters,
    known: Known,
    rules: Rules,
    never_lock: Box<[Box<str>]>,
    defaults: Defaults,
}

/// Addresses that are known.
#[derive(Debug, Clone)]
pub struct Known {
    /// By a login.
    pub logins: Arc<Marks>,
    /// By Basic credentials, apart: what anybody may be let in with pushes no address of a login out.
    pub basic: Arc<Marks>,
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
}

/// Passwords that everybody knows.
#[derive(Debug)]
pub struct Defaults {
    /// Account and password, as documented.
    pub pairs: Vec<(Box<str>, Box<str>)>,
    /// Who may use them: those who may set the application up; `None`: everybody.
    pub from: Option<Networks>,
}

/// The passwords that a try brings: in its body, its query, its Basic credentials.
#[derive(Debug, Default)]
pub struct Passwords {
    /// Each of them; wiped when dropped.
    pub words: Vec<Zeroizing<String>>,
    /// There may be others that another program would read.
    pub unclear: bool,
}

/// One try to log in.
#[derive(Debug, Clone, Copy)]
pub struct Try<'a> {
    /// Who.
    pub client: Client,
    /// As whom, folded by [`fold`]; `None`: nobody is named (a code, a key).
    pub account: Option<&'a str>,
    /// The same as it was typed: devices are known for just that.
    pub typed: Option<&'a str>,
    /// From what is known of the device.
    pub device: Device,
    /// When.
    pub now: Now,
}

/// Places of one try, given back when dropped.
#[derive(Debug)]
pub struct Seats {
    _held: [Option<Place>; MOST],
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
    /// Basic credentials of this account were let in from this address lately: the account's lockout is not asked for. All such
    /// addresses together have no more than the account's budget, so that nobody gains by collecting them.
    Heard,
}

impl Passwords {
    /// One more, or what could be one.
    pub fn add<E>(&mut self, found: Result<Option<String>, E>) {
        match found {
            Ok(word) => self.words.extend(word.map(Zeroizing::new)),
            Err(_) => self.unclear = true,
        }
    }
}

impl Login {
    /// For one site. `never_lock`: accounts that are counted only.
    pub fn new(
        counters: Counters,
        known: Known,
        rules: Rules,
        never_lock: &[Box<str>],
        defaults: Defaults,
    ) -> Self {
        let never_lock = never_lock.iter().map(|name| fold(name).into()).collect();
        Self { counters, known, rules, never_lock, defaults }
    }

    /// The site's name.
    pub fn site(&self) -> &Arc<str> {
        &self.counters.site
    }

    /// The site's counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Charges a try before the application hears of it.
    ///
    /// # Errors
    /// A denial with the time to come again; nothing is charged then.
    pub fn begin(&self, attempt: Try<'_>) -> Result<Charged, Denial> {
        let Try { client, account, now, .. } = attempt;
        self.counters.charge(NAME, self.of(attempt), Whose { client, account, now })
    }

    /// What became of it: see [`Counters::settle`]. What others have guessed at the account, and what this client has
    /// guessed elsewhere, stays.
    pub fn settle(&self, charged: Charged, outcome: Outcome, now: Now) {
        self.counters.settle(charged, outcome, now);
    }

    /// What [`Login::begin`] would say of those that are locked already; nothing is charged. Without an account: of the
    /// client.
    ///
    /// # Errors
    /// The denial.
    pub fn ask(&self, attempt: Try<'_>) -> Result<(), Denial> {
        let locking = self.of(attempt).filter(|counter| counter.locks);
        locking.into_iter().try_for_each(|counter| self.counters.ask(NAME, counter.key, attempt.now))
    }

    /// Whether a client is locked out for all accounts, asked before any is named.
    ///
    /// # Errors
    /// The denial.
    pub fn ask_of(&self, cx: &Facts) -> Result<(), Denial> {
        self.ask(Try { client: cx.client, account: None, typed: None, device: Device::Unknown, now: cx.now })
    }

    /// Places for a try that is charged only when its answer says that it has failed: see [`Logins::seat`].
    ///
    /// [`Logins::seat`]: crate::stores::logins::Logins::seat
    ///
    /// # Errors
    /// A denial: the failures leave none, which locks out; or as many are under way.
    pub fn seats(&self, attempt: Try<'_>) -> Result<Seats, Denial> {
        let logins = &self.counters.logins;
        let mut seats = [const { None }; MOST];
        for (seat, counter) in seats.iter_mut().zip(self.of(attempt).filter(|counter| counter.locks)) {
            if logins.attempts.left(counter.key, counter.rule, attempt.now) == Some(0) {
                let unlocked_meanwhile = self.begin(attempt)?;
                self.settle(unlocked_meanwhile, Outcome::Neutral, attempt.now);
            }
            *seat = logins.seat(counter.key, counter.rule, attempt.now);
            if seat.is_none() {
                return Err(Denial { guard: NAME, reason: Reason::LoginsFull, retry_after: Some(SOON) });
            }
        }
        Ok(Seats { _held: seats })
    }

    /// Counts a failure that only the answer has told of: 401 to Basic credentials.
    pub fn failed(&self, attempt: Try<'_>) {
        let Try { client, account, now, .. } = attempt;
        self.counters.failed(self.of(attempt), Whose { client, account, now });
    }

    /// Whether Basic credentials of this account, typed exactly so, have been let in from this address lately.
    pub fn heard_address(&self, client: Client, account: &str, now: Now) -> bool {
        client != Client::Unknown && self.known.basic.has(self.heard(client, account), now)
    }

    /// They have. This proves less than a login: an application may answer anybody there, whatever the credentials say.
    pub fn hear_address(&self, client: Client, account: &str, now: Now) {
        if client != Client::Unknown {
            self.known.basic.mark(self.heard(client, account), ADDRESS, now);
        }
    }

    /// Whether somebody has logged in as this account, typed exactly so, from this address lately.
    pub fn knows_address(&self, client: Client, account: &str, now: Now) -> bool {
        client != Client::Unknown && self.known.logins.has(self.address(client, account), now)
    }

    /// Somebody has.
    pub fn remember_address(&self, client: Client, account: &str, now: Now) {
        if client != Client::Unknown {
            self.known.logins.mark(self.address(client, account), ADDRESS, now);
        }
    }

    /// The account of a default password that this client may not use. `account` is folded.
    pub fn refuses_default(&self, account: &str, password: &str, index: &Index, cx: &Facts) -> Option<&str> {
        self.refused(account, |word| word == password, index, cx)
    }

    /// Whether an account has a default password that this client may not use. `account` is folded.
    pub fn has_default(&self, account: &str, index: &Index, cx: &Facts) -> bool {
        self.refused(account, |_| true, index, cx).is_some()
    }

    fn refused(&self, account: &str, is: impl Fn(&str) -> bool, index: &Index, cx: &Facts) -> Option<&str> {
        let known = |(name, word): &&(Box<str>, Box<str>)| fold(name) == account && is(word);
        let (name, _) = self.defaults.pairs.iter().find(known)?;
        let networks = self.defaults.from.clone()?;
        let cx = Facts { class: Class::Setup, ..cx.clone() };
        let reached = allowlist::check(Some(&Allowlist::new(networks)), index, &cx);
        (reached != Verdict::Pass).then_some(&**name)
    }

    /// Tells the operator of a default password that was tried from outside.
    pub fn tried_default(&self, account: &str, attempt: Try<'_>) {
        let lockouts = &self.counters.logins.lockouts;
        lockouts.tried_default(&self.counters.site, account, attempt.client, attempt.now);
    }

    /// Whether the application has default passwords at all.
    pub fn has_defaults(&self) -> bool {
        !self.defaults.pairs.is_empty() && self.defaults.from.is_some()
    }

    fn address(&self, client: Client, account: &str) -> impl std::hash::Hash {
        (self.counters.scope, "address", client_group(client), account.to_owned())
    }

    fn heard(&self, client: Client, account: &str) -> impl std::hash::Hash {
        (self.counters.scope, "heard", client_group(client), account.to_owned())
    }

    /// The counters of a try; the own pair or device first.
    fn of(&self, attempt: Try<'_>) -> impl Iterator<Item = Counter> {
        let Try { client, account, typed, device, .. } = attempt;
        let (logins, scope, rules) = (&self.counters.logins, self.counters.scope, self.rules);
        let group = client_group(client);
        let locks = !account.is_some_and(|name| self.never_lock.iter().any(|known| **known == *name));
        let (key, of) = match device {
            Device::Unknown | Device::Heard => {
                (logins.attempts.key_of((scope, "pair", group, account)), Of::Pair)
            }
            Device::Cookie(id) => (logins.attempts.key_of((scope, "device", id, account)), Of::Device),
            Device::Address => (logins.attempts.key_of((scope, "address", group, account)), Of::Pair),
        };
        let own = Counter { key, rule: rules.pair, locks: true, of };
        let others = match (device, typed) {
            (Device::Address, _) | (Device::Cookie(_), None) => [None, None],
            // Not folded: who owns a name that looks alike must not use up the budget of its owner's devices.
            (Device::Cookie(_), Some(name)) => {
                let key = logins.of_devices(scope, name);
                [Some(Counter { key, rule: rules.account, locks, of: Of::Device }), None]
            }
            (Device::Unknown | Device::Heard, _) => {
                let key = logins.of_client(scope, client);
                let of_client = Counter { key, rule: rules.client, locks: true, of: Of::Client };
                let of_account = account.map(|name| match device {
                    Device::Heard => (logins.of_heard(scope, name), Of::Device),
                    _ => (logins.of_account(scope, name), Of::Account),
                });
                let of_account = of_account.map(|(key, of)| Counter { key, rule: rules.account, locks, of });
                [Some(of_client), of_account]
            }
        };
        [Some(own)].into_iter().chain(others).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::stores::attempts::{Attempts, Lockout};
    use crate::stores::lockouts;
    use crate::stores::logins::{Logins, Whom};

    const QUARTER: Duration = Duration::from_secs(900);

    fn rule(failures: u32) -> Rule {
        Rule { failures: NonZeroU32::new(failures).unwrap(), per: QUARTER }
    }

    fn guard(never_lock: &[&str]) -> Login {
        guard_of(200_000, never_lock)
    }

    fn guard_of(places: usize, never_lock: &[&str]) -> Login {
        let lockout = Lockout { first: Duration::from_secs(30), most: Duration::from_secs(3600) };
        let rules = Rules { pair: rule(5), client: rule(20), account: rule(20) };
        let logins = Arc::new(Logins::new(Arc::new(Attempts::new(places))));
        let counters = Counters { logins, site: "a.test".into(), scope: 7, lockout };
        let names: Vec<Box<str>> = never_lock.iter().map(|name| (*name).into()).collect();
        let defaults =
            Defaults { pairs: vec![("admin".into(), "admin".into())], from: Some(Networks::loopback()) };
        let known = Known { logins: Arc::new(Marks::new(1000)), basic: Arc::new(Marks::new(1000)) };
        Login::new(counters, known, rules, &names, defaults)
    }

    fn attempt<'a>(client: &str, account: &'a str) -> Try<'a> {
        Try {
            client: Client::Address(client.parse().unwrap()),
            account: Some(account),
            typed: Some(account),
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
    fn who_is_let_in_by_basic_credentials_pushes_no_address_of_a_login_out() {
        let guard = guard(&[]);
        let Try { client, now, .. } = attempt("192.0.2.1", "ann");
        guard.remember_address(client, "ann", now);
        let stranger = attempt("203.0.113.7", "ann").client;
        for number in 0..50_000 {
            guard.hear_address(stranger, &number.to_string(), Now { mono: now.mono + 1_000_000, ..now });
        }
        assert!(guard.knows_address(client, "ann", now));
        assert!(guard.heard_address(stranger, "49999", now));
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
    fn who_owns_a_name_that_looks_alike_does_not_use_up_the_budget_of_the_owners_devices() {
        let guard = guard(&[]);
        let of = |typed: &'static str, id: u8| Try {
            typed: Some(typed),
            device: Device::Cookie([id; 8]),
            ..attempt("192.0.2.1", "ann")
        };
        let wrong = (0..50).filter(|n| tried(&guard, of("\u{c1}nn", n % 10), Outcome::Failure));
        assert_eq!(wrong.count(), 20, "all devices of one name together");
        assert!(tried(&guard, of("Ann", 99), Outcome::Success));
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
            assert!(guard.seats(attempt("192.0.2.1", "ann")).is_ok());
            guard.failed(attempt("192.0.2.1", "ann"));
        }
        assert_eq!(guard.seats(attempt("192.0.2.1", "ann")).unwrap_err().reason, Reason::LockedOut);
        assert!(guard.ask(attempt("192.0.2.1", "ann")).is_err());
        assert!(!tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success));
        assert!(guard.ask(attempt("192.0.2.2", "ann")).is_ok());
    }

    #[test]
    fn while_a_failure_stands_no_more_basic_credentials_are_under_way_than_the_failures_leave() {
        let guard = guard(&[]);
        let burst = |client: &str, account| -> Vec<Seats> {
            (0..200).map_while(|_| guard.seats(attempt(client, account)).ok()).collect()
        };
        assert_eq!(burst("192.0.2.1", "ann").len(), 64, "who knows the password sends many at once");
        guard.failed(attempt("192.0.2.1", "ann"));
        assert_eq!(burst("192.0.2.1", "ann").len(), 4);
        assert_eq!(burst("192.0.2.1", "bob").len(), 19, "of this client");
        assert_eq!(burst("192.0.2.2", "ann").len(), 19, "at this account");
        assert_eq!(burst("192.0.2.2", "bob").len(), 64);
        let mut held = Vec::new();
        for client in 2..100 {
            held.extend(burst(&format!("192.0.2.{client}"), "ann"));
        }
        assert_eq!(held.len(), 19, "from however many clients");
        let own = Try { device: Device::Heard, ..attempt("192.0.2.200", "ann") };
        let program: Vec<_> = (0..200).map_while(|_| guard.seats(own).ok()).collect();
        assert_eq!(program.len(), 64, "who was let in lately has no part in it");
        drop(held);
        assert_eq!(burst("192.0.2.2", "ann").len(), 19, "places are given back");
    }

    #[test]
    fn addresses_known_by_basic_credentials_are_not_locked_out_and_gain_nothing_by_being_many() {
        let guard = guard(&[]);
        let botnet = |from: u32| (from..from + 40).map(|n| format!("10.0.0.{n}"));
        assert_eq!(failures(&guard, botnet(0), "ann"), 20);
        let heard = |client: &str| Try { device: Device::Heard, ..attempt(client, "ann") };
        assert!(guard.ask(heard("192.0.2.1")).is_ok() && guard.ask(attempt("192.0.2.1", "ann")).is_err());
        let more = botnet(100).filter(|client| tried(&guard, heard(client), Outcome::Failure));
        assert_eq!(more.count(), 20, "all such addresses together");
        let device = Try { device: Device::Address, ..attempt("192.0.2.1", "ann") };
        assert!(guard.ask(device).is_ok(), "who has logged in there has his own");
    }

    #[test]
    fn an_operator_unlocks_what_is_locked() {
        let guard = guard(&[]);
        let now = attempt("192.0.2.1", "ann").now;
        let unlock = |whom| guard.counters.logins.unlock(&whom, &[7], now);
        failures(&guard, (0..30).map(|n| format!("10.0.0.{n}")), "ann");
        assert_eq!(unlock(Whom::Account("bob".into())), []);
        let lifted = unlock(Whom::Account("ANN ".into()));
        assert_eq!(lifted.iter().map(|one| one.of).collect::<Vec<_>>(), [Of::Account]);
        assert!(tried(&guard, attempt("192.0.2.1", "ann"), Outcome::Success));
        let client = Client::Address("192.0.2.9".parse().unwrap());
        for n in 0..50 {
            let _ = tried(&guard, attempt("192.0.2.9", &format!("u{n}")), Outcome::Failure);
        }
        failures(&guard, (0..9).map(|_| "192.0.2.9".to_owned()), "u1");
        assert!(guard.ask(attempt("192.0.2.9", "x")).is_err());
        assert_eq!(unlock(Whom::Client(client)).len(), 1);
        assert!(guard.ask(attempt("192.0.2.9", "x")).is_ok());
        assert!(tried(&guard, attempt("192.0.2.9", "x"), Outcome::Success));
        failures(&guard, (0..9).map(|_| "192.0.2.8".to_owned()), "ann");
        assert_eq!(unlock(Whom::All).len(), 1);
        assert!(tried(&guard, attempt("192.0.2.8", "ann"), Outcome::Success));
    }

    #[test]
    fn an_account_with_a_long_name_is_unlocked_too_and_all_means_those_that_no_list_holds() {
        let guard = guard(&[]);
        let now = attempt("192.0.2.1", "ann").now;
        let unlock = |whom| guard.counters.logins.unlock(&whom, &[7], now).len();
        let long = format!("{}@long-company.example", "a".repeat(60));
        assert_eq!(failures(&guard, (0..9).map(|_| "192.0.2.1".to_owned()), &long), 5);
        assert!(!tried(&guard, attempt("192.0.2.1", &long), Outcome::Success));
        assert_eq!(unlock(Whom::Account(long.to_uppercase())), 1);
        assert!(tried(&guard, attempt("192.0.2.1", &long), Outcome::Success));
        let guard = Login { rules: Rules { pair: rule(1), ..guard.rules }, ..self::guard(&[]) };
        let unlock = |whom| guard.counters.logins.unlock(&whom, &[7], now).len();
        let client = |n: usize| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
        for n in 0..lockouts::MOST + 10 {
            let account = format!("u{n}");
            failures(&guard, [client(n), client(n)].into_iter(), &account);
        }
        let last = lockouts::MOST + 9;
        let (client, account) = (client(last), format!("u{last}"));
        assert!(!tried(&guard, attempt(&client, &account), Outcome::Success));
        assert_eq!(unlock(Whom::All), lockouts::MOST, "those that are listed are told");
        assert!(tried(&guard, attempt(&client, &account), Outcome::Success), "and all are lifted");
    }

    #[test]
    fn all_cookies_of_an_account_together_have_no_more_than_its_budget() {
        let guard = guard(&[]);
        let known = |id: u8| Try { device: Device::Cookie([id; 8]), ..attempt("192.0.2.1", "ann") };
        let guesses = (0..50).filter(|id| tried(&guard, known(*id), Outcome::Failure));
        assert_eq!(guesses.count(), 20, "one each, of fifty");
        assert!(tried(&guard, attempt("192.0.2.2", "ann"), Outcome::Success), "strangers have their own");
    }

    #[test]
    #[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "what was measured is said")]
    fn a_million_clients_and_accounts_take_bounded_room_free_nobody_and_the_owner_gets_in() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        let before = resident();
        let guard = guard_of(1_000_000, &[]);
        let empty = resident() - before;
        assert_eq!(failures(&guard, (0..30).map(|n| format!("192.0.2.{n}")), "ann"), 20);
        let begun = std::time::Instant::now();
        for n in 0..1_000_000_u32 {
            let client = Client::Address(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into());
            let account = format!("user{n}@example.com");
            let _ = tried(&guard, Try { client, ..attempt("10.0.0.1", &account) }, Outcome::Failure);
        }
        let (each, grown) = (begun.elapsed() / 1_000_000, resident() - before);
        println!("empty {empty} KiB, a million clients and accounts {grown} KiB, {each:?} a try");
        assert!(empty < 10 << 10 && grown < 100 << 10, "{empty} {grown}");
        assert!(!tried(&guard, attempt("198.51.100.1", "ann"), Outcome::Success), "locked still");
        let own = Try { device: Device::Cookie([1; 8]), ..attempt("198.51.100.1", "ann") };
        assert!(tried(&guard, own, Outcome::Success));
    }

    #[test]
    fn default_passwords_are_refused_from_outside_only() {
        let guard = guard(&[]);
        let refused = |client: &str, account, password| {
            let facts = Facts { client: Client::Address(client.parse().unwrap()), ..Facts::example() };
            guard.refuses_default(account, password, &Index::default(), &facts).is_some()
        };
        assert!(refused("203.0.113.7", "admin", "admin") && guard.has_defaults());
        assert!(!refused("127.0.0.1", "admin", "admin"), "who may set it up");
        assert!(!refused("203.0.113.7", "admin", "Admin") && !refused("203.0.113.7", "ann", "admin"));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let guard = guard(&[]);
        let network = (0..50).map(|n| format!("2001:db8:1:1::{n:x}"));
        assert_eq!(failures(&guard, network, "ann"), 5);
    }
}
