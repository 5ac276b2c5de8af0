//! Ends the guessing of share links without locking out those who have one (DESIGN 5.4).
//!
//! 1. A miss costs, a hit is taken back. A client has a budget, and its network (/24, /48) a wider one. It is charged before
//!    the application hears of the request, and what nobody waits for an answer to stays charged.
//! 2. The same link costs a client and a network once an hour: a dead link in an office's chat locks nobody out, and an album
//!    is one link; guesses are always others.
//! 3. A link that has answered lately stays open, also to a network that is locked.
//! 4. What a page of another site asks for as an image or a frame is refused and not counted, unless the link has answered
//!    lately: a forum full of `<img src="https://files.example.com/s/guess">` spends nobody's budget, and a share page in a
//!    sandbox, which is foreign to its own pictures, shows them. [`Share::embedded`] is asked before all that counts.
//! 5. A password of a link is guessed by what is no GET, and answered with 401 or 403: that counts for this link, of a client
//!    and of its network, by the same numbers, also while the link is alive. Other links stay open to both. While a wrong one
//!    stands no more are tried at once than are left. Forms that pages of other sites post are counted apart; what they post
//!    otherwise is refused.
//!
//! Caveat: it slows guessing down; what ends it is the length of the links, which is the application's to choose. Browsers
//! that do not say who asks (`Sec-Fetch-Site`) are counted, whoever's page it was. Who says of himself that he is such a page
//! has both budgets of a link's password.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use super::pace::Pace;
use super::{Denial, Reason, Verdict};
use crate::clock::Now;
use crate::config::share::ShareRules;
use crate::request::client::Client;
use crate::request::credential::Key;
use crate::request::facts::{Facts, Origin, scope_of};
use crate::stores::attempts::{CounterKey, Lockout, Refused, Rule};
use crate::stores::kept::Kept;
use crate::stores::lockouts::{self, Of};
use crate::stores::logins::Logins;
use crate::stores::places::Place;
use crate::stores::shares::{self, Group, Shares};

/// Metric label and log field.
pub const NAME: &str = "share";

/// So long a link that has answered stays open to everybody.
const ALIVE: Duration = Duration::from_secs(3600);
/// When who finds as many passwords being tried may come again.
const SOON: Duration = Duration::from_secs(1);
/// So long a link that was tried costs the same client nothing more.
const TRIED: Duration = Duration::from_secs(3600);

/// Counts misses of one site.
#[derive(Debug)]
pub struct Share {
    logins: Arc<Logins>,
    shares: Arc<Shares>,
    name: Arc<str>,
    /// The site, as a part of keys.
    site: u64,
    client: Rule,
    network: Rule,
    lockout: Lockout,
    /// Statuses by which the application says that there is no such link.
    dead: Box<[StatusCode]>,
    /// How long answers for links that are none take.
    pub pace: Pace,
}

/// What the guard says, and what it has charged.
#[derive(Debug)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// To be settled when the answer has come.
    pub charged: Option<Charged>,
}

/// The charges of a request for a link; [`Charged::settle`] it, or it stays a miss.
#[derive(Debug)]
#[must_use = "what is never settled counts as a miss"]
pub struct Charged {
    share: Arc<Share>,
    link: Key,
    does: Does,
    who: Who,
    counters: [Option<Counter>; 2],
    /// Of what may bring a password, while the application looks at it.
    seats: [Option<Place>; 2],
}

/// Whose password it would be.
#[derive(Debug, Clone, Copy)]
struct Who {
    client: Client,
    /// A page of another site has him send it.
    foreign: bool,
}

/// What a request does with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// GET or HEAD.
    Reads,
    /// OPTIONS: any application with CORS says yes to those of anything.
    Asks,
    /// Everything else: it may bring a password.
    Sends,
}

/// A budget: of a client, or of its network.
#[derive(Debug, Clone, Copy)]
struct Counter {
    key: CounterKey,
    rule: Rule,
    group: Group,
    of: Of,
}

impl Share {
    /// For one site, by its name, over the tables of all. `dead`: the statuses by which the application says that there is no
    /// such link.
    pub fn new(kept: &Kept, name: &str, rules: &ShareRules, dead: &[StatusCode]) -> Self {
        Self {
            logins: Arc::clone(&kept.logins),
            shares: Arc::clone(&kept.shares),
            name: name.into(),
            site: scope_of(name),
            client: Rule { failures: rules.misses, per: rules.per },
            network: Rule { failures: rules.network_misses, per: rules.per },
            lockout: Lockout { first: rules.lockout_first, most: rules.lockout_most },
            dead: dead.into(),
            pace: Pace::default(),
        }
    }

    /// Judges a request, and charges it unless it is a rehearsal. Nothing is charged for what is refused.
    pub fn check(self: &Arc<Self>, cx: &Facts) -> Judged {
        let passes = |charged| Judged { verdict: Verdict::Pass, charged };
        let Some(link) = cx.share else { return passes(None) };
        let (does, who) = (Does::of(cx), Who { client: cx.client, foreign: cx.origin == Origin::Foreign });
        let mut charged =
            Charged { share: Arc::clone(self), link, does, who, counters: [None; 2], seats: [None, None] };
        if does == Does::Sends {
            match self.seats(link, who, cx.now) {
                Ok(seats) => charged.seats = seats,
                Err(denial) => return refused(denial),
            }
        }
        if self.shares.alive.has((self.site, link), cx.now) {
            return passes(Some(charged));
        }
        if cx.embedded {
            // Where it is enforced it has not come as far as this.
            return passes(None);
        }
        for (place, counter) in charged.counters.iter_mut().zip(self.counters(cx.client)) {
            match self.charge(link, counter, cx) {
                Ok(charged) => *place = charged.then_some(counter),
                Err(wait) => {
                    charged.refund(cx.now);
                    return refused(locked(wait));
                }
            }
        }
        passes(Some(charged))
    }

    /// Whether another site's page has a link as an image, a frame or the like, and nobody has opened that lately; or sends
    /// something to one, other than by a form that its visitor sees.
    pub fn embedded(&self, cx: &Facts) -> Option<Denial> {
        let link = cx.share.filter(|_| cx.embedded)?;
        let alive = Does::of(cx) != Does::Sends && self.shares.alive.has((self.site, link), cx.now);
        (!alive).then(|| Denial::new(NAME, Reason::LinkEmbedded))
    }

    /// Places for what may bring a password, unless too many have been wrong, or as many are being tried.
    fn seats(&self, link: Key, who: Who, now: Now) -> Result<[Option<Place>; 2], Denial> {
        let mut seats = [None, None];
        for (seat, counter) in seats.iter_mut().zip(self.password_counters(link, who)) {
            let asked = self.logins.attempts.ask(counter.key, now);
            asked.map_err(|why| locked(self.wait(why, counter, (who.client, now))))?;
            *seat = Some(self.logins.seat(counter.key, counter.rule, now).ok_or_else(|| locked(SOON))?);
        }
        Ok(seats)
    }

    /// Whether the application says by this status that there is no such link.
    pub fn is_dead(&self, status: StatusCode) -> bool {
        self.dead.contains(&status)
    }

    /// Whether the budget was charged; who tries the same link again only has to be let in.
    fn charge(&self, link: Key, counter: Counter, cx: &Facts) -> Result<bool, Duration> {
        let tried = (self.site, link, counter.group.key);
        let again = self.shares.tried.has(tried, cx.now);
        if again || cx.rehearsal {
            let asked = self.logins.attempts.ask(counter.key, cx.now);
            return asked.map(|()| false).map_err(|refused| self.wait(refused, counter, (cx.client, cx.now)));
        }
        let charged = self.logins.attempts.charge(counter.key, counter.rule, self.lockout, cx.now);
        charged.map_err(|refused| self.wait(refused, counter, (cx.client, cx.now)))?;
        // Before the answer has come: a page of a hundred pictures asks for them at once.
        self.shares.tried.mark(tried, TRIED, cx.now);
        Ok(true)
    }

    fn wait(&self, refused: Refused, counter: Counter, (client, now): (Client, Now)) -> Duration {
        match refused {
            Refused::Locked(wait) => wait,
            Refused::Begun(length) => {
                let network = counter.group.network;
                let lockout = lockouts::Lockout {
                    site: Arc::clone(&self.name),
                    of: counter.of,
                    client: network.is_none().then_some(client),
                    network,
                    account: None,
                    length,
                    since: now,
                };
                self.logins.lockouts.begun(counter.key, lockout);
                length
            }
        }
    }

    fn counters(&self, client: Client) -> [Counter; 2] {
        let [narrow, wide] = shares::groups(client);
        let counter = |rule, group| {
            let key = self.logins.of_links(self.site, &group);
            Counter { key, rule, group, of: Of::Links }
        };
        [counter(self.client, narrow), counter(self.network, wide)]
    }

    fn password_counters(&self, link: Key, who: Who) -> [Counter; 2] {
        let attempts = &self.logins.attempts;
        self.counters(who.client).map(|counter| {
            let key = attempts.key_of((self.site, "password", link.0, counter.group.key, who.foreign));
            Counter { key, of: Of::LinkPassword, ..counter }
        })
    }

    /// A password was wrong: the application has said so.
    fn wrong_password(&self, link: Key, who: Who, now: Now) {
        for counter in self.password_counters(link, who) {
            if let Err(refused) = self.logins.attempts.charge(counter.key, counter.rule, self.lockout, now) {
                self.wait(refused, counter, (who.client, now));
            }
        }
    }
}

impl Charged {
    /// Takes the charge back unless it was a miss. Anything else than "no such link" is no news to one who guesses: the
    /// application's own refusal of a link that there is (403), or no answer because it is down.
    pub fn settle(self, status: StatusCode, now: Now) {
        let Self { ref share, link, does, who, .. } = self;
        if share.is_dead(status) {
            return;
        }
        self.refund(now);
        if does == Does::Sends && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            share.wrong_password(link, who, now);
        }
        if does == Does::Reads && (status.is_success() || status == StatusCode::NOT_MODIFIED) {
            share.shares.alive.mark((share.site, link), ALIVE, now);
        }
    }

    /// Takes the charge back: the application was not asked.
    pub fn take_back(self, now: Now) {
        self.refund(now);
    }

    fn refund(&self, now: Now) {
        for counter in self.counters.into_iter().flatten() {
            self.share.logins.attempts.refund(counter.key, counter.rule, now);
            self.share.shares.tried.forget((self.share.site, self.link, counter.group.key));
        }
    }
}

impl Does {
    fn of(cx: &Facts) -> Self {
        match cx.method {
            Method::GET | Method::HEAD => Self::Reads,
            Method::OPTIONS => Self::Asks,
            _ => Self::Sends,
        }
    }
}

fn locked(wait: Duration) -> Denial {
    Denial { guard: NAME, reason: Reason::LinksLocked, retry_after: Some(wait) }
}

fn refused(denial: Denial) -> Judged {
    Judged { verdict: Verdict::Deny(denial), charged: None }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::stores::logins::Whom;

    fn kept() -> Kept {
        Kept::new(100_000)
    }

    fn guard_over(kept: &Kept) -> Arc<Share> {
        let dead = [StatusCode::NOT_FOUND, StatusCode::GONE];
        Arc::new(Share::new(kept, "files.example.com", &ShareRules::default(), &dead))
    }

    fn guard() -> Arc<Share> {
        guard_over(&kept())
    }

    fn visit(client: &str, link: u32) -> Facts {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&link.to_be_bytes());
        let client = Client::Address(client.parse().unwrap());
        Facts { client, share: Some(Key(key)), ..Facts::example() }
    }

    /// Whether the application was asked; it answers so.
    fn asked(guard: &Arc<Share>, visit: &Facts, status: StatusCode) -> bool {
        if let Some(denial) = guard.embedded(visit) {
            assert_eq!(denial.reason, Reason::LinkEmbedded);
            return false;
        }
        let judged = guard.check(visit);
        let charged = judged.charged.map(|charged| charged.settle(status, visit.now));
        assert_eq!(charged.is_some(), judged.verdict == Verdict::Pass);
        charged.is_some()
    }

    fn misses(guard: &Arc<Share>, client: &str, links: std::ops::Range<u32>) -> usize {
        links.filter(|link| asked(guard, &visit(client, *link), StatusCode::NOT_FOUND)).count()
    }

    #[test]
    fn guessing_ends_after_a_few_misses_and_a_network_has_a_few_more() {
        for (client, other, neighbour) in [
            ("192.0.2.1", "198.51.100.1", "192.0.2.%"),
            ("2001:db8:1:1::1", "2001:db8:2:1::1", "2001:db8:1:%::1"),
        ] {
            let guard = guard();
            assert_eq!(misses(&guard, client, 0..1000), 20);
            let others = (2..200_u32)
                .map(|n| misses(&guard, &neighbour.replace('%', &n.to_string()), n * 1000..n * 1000 + 50));
            assert_eq!(others.sum::<usize>(), 80);
            assert_eq!(misses(&guard, other, 0..10), 10, "another network is another");
        }
    }

    #[test]
    fn hits_cost_nothing() {
        let guard = guard();
        assert!((0..1000).all(|link| asked(&guard, &visit("192.0.2.1", link), StatusCode::OK)));
        for status in [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED, StatusCode::BAD_GATEWAY] {
            assert!((5000..5100).all(|link| asked(&guard, &visit("192.0.2.1", link), status)), "{status}");
        }
    }

    #[test]
    fn only_who_reads_a_link_finds_it_alive() {
        let guard = guard();
        let ask = Facts { method: Method::OPTIONS, ..visit("192.0.2.1", 1) };
        assert!(asked(&guard, &ask, StatusCode::NO_CONTENT));
        let embedded = Facts { embedded: true, ..visit("192.0.2.1", 1) };
        assert!(!asked(&guard, &embedded, StatusCode::OK), "an answer to OPTIONS says nothing of it");
        assert!(asked(&guard, &visit("192.0.2.1", 1), StatusCode::OK));
        assert!(asked(&guard, &embedded, StatusCode::OK));
    }

    #[test]
    fn one_dead_link_opened_by_a_whole_office_locks_nobody_out() {
        let guard = guard();
        for desk in 1..=250 {
            let client = format!("192.0.2.{desk}");
            assert!((0..4).all(|_| asked(&guard, &visit(&client, 1), StatusCode::NOT_FOUND)), "{client}");
        }
        assert_eq!(misses(&guard, "192.0.2.1", 2..100), 19, "it has cost one");
        assert_eq!(misses(&guard, "192.0.2.2", 200..300), 19);
    }

    #[test]
    fn a_link_that_answered_lately_stays_open_to_a_locked_network() {
        let guard = guard();
        assert!(asked(&guard, &visit("198.51.100.1", 7), StatusCode::OK));
        misses(&guard, "192.0.2.1", 100..200);
        assert!(!asked(&guard, &visit("192.0.2.1", 8), StatusCode::OK));
        assert!(asked(&guard, &visit("192.0.2.1", 7), StatusCode::OK));
        let mut later = visit("192.0.2.1", 7);
        later.now.mono += 3601 * 1_000_000_000;
        misses(&guard, "192.0.2.1", 1000..1100);
        assert!(asked(&guard, &later, StatusCode::GONE), "by then the lockout is over too");
    }

    #[test]
    fn guesses_at_once_do_not_slip_by_and_a_page_of_pictures_is_one_link() {
        let guard = guard();
        let album: Vec<_> = (0..1000).map(|_| guard.check(&visit("192.0.2.1", 1))).collect();
        assert!(album.iter().all(|judged| judged.verdict == Verdict::Pass));
        let pending: Vec<_> =
            (2..1000).map_while(|link| guard.check(&visit("192.0.2.1", link)).charged).collect();
        assert_eq!(pending.len(), 19);
        drop(pending);
        assert_eq!(misses(&guard, "192.0.2.1", 5000..5100), 0, "what was never answered stays charged");
    }

    #[test]
    fn what_another_sites_page_embeds_costs_nobody_and_shows_links_that_are_alive() {
        let guard = guard();
        let embedded = |link| Facts { embedded: true, ..visit("192.0.2.1", link) };
        for link in 0..1000 {
            assert!(!asked(&guard, &embedded(link), StatusCode::OK), "{link}");
            assert!(guard.check(&embedded(link)).charged.is_none(), "nor where the guard observes");
        }
        assert_eq!(misses(&guard, "192.0.2.1", 2000..2020), 20, "all of the budget is there");
        assert!(asked(&guard, &visit("198.51.100.1", 7), StatusCode::OK), "somebody opens the page");
        assert!(asked(&guard, &embedded(7), StatusCode::OK), "and its picture is shown");
    }

    #[test]
    fn passwords_of_a_link_are_not_guessed_for_long_and_other_links_stay_open() {
        let guard = guard();
        let send = |client: &str, link: u32| Facts { method: Method::POST, ..visit(client, link) };
        assert!(asked(&guard, &visit("192.0.2.1", 1), StatusCode::OK), "the page that asks for it");
        let wrong = |client: &str, link: u32| {
            (0..40).filter(|_| asked(&guard, &send(client, link), StatusCode::FORBIDDEN)).count()
        };
        assert_eq!(wrong("192.0.2.1", 1), 21, "twenty, and the one that locks");
        assert!(asked(&guard, &visit("192.0.2.1", 1), StatusCode::OK), "looking at it is no guess");
        assert_eq!(wrong("192.0.2.1", 2), 21, "another link has a budget of its own");
        assert_eq!((2..9).map(|n| wrong(&format!("192.0.2.{n}"), 1)).sum::<usize>(), 80, "so has a network");
        assert!(asked(&guard, &send("198.51.100.1", 1), StatusCode::OK), "others go on");
        for _ in 0..100 {
            assert!(asked(&guard, &send("198.51.100.1", 1), StatusCode::CREATED), "a drop box takes files");
        }
        assert_eq!(misses(&guard, "192.0.2.1", 5000..5100), 20, "no guess at links");
        let page = |embedded| Facts { origin: Origin::Foreign, embedded, ..send("203.0.113.1", 1) };
        assert!(!asked(&guard, &page(true), StatusCode::FORBIDDEN), "a foreign page posts nothing unseen");
        while asked(&guard, &page(false), StatusCode::FORBIDDEN) {}
        assert!(asked(&guard, &send("203.0.113.1", 1), StatusCode::OK), "nor locks its visitor out by forms");
    }

    #[test]
    fn a_rehearsal_charges_nothing() {
        let guard = guard();
        let rehearsal = |link| Facts { rehearsal: true, ..visit("192.0.2.1", link) };
        assert!((0..1000).all(|link| guard.check(&rehearsal(link)).verdict == Verdict::Pass));
        assert_eq!(misses(&guard, "192.0.2.1", 0..100), 20);
        assert_ne!(guard.check(&rehearsal(2000)).verdict, Verdict::Pass, "it says that it is locked");
    }

    #[test]
    fn a_lockout_is_told_once_with_the_client_or_its_network_and_can_be_lifted() {
        let kept = kept();
        let guard = guard_over(&kept);
        misses(&guard, "192.0.2.1", 0..100);
        for n in 2..10 {
            misses(&guard, &format!("192.0.2.{n}"), n * 1000..n * 1000 + 19);
        }
        let told = kept.logins.lockouts.news(visit("192.0.2.1", 0).now).lockouts;
        let who: Vec<_> =
            told.iter().map(|one| (one.client, one.network.map(|one| one.to_string()))).collect();
        let client = Client::Address("192.0.2.1".parse().unwrap());
        assert_eq!(who, [(Some(client), None), (None, Some("192.0.2.0/24".to_owned()))]);
        assert!(told.iter().all(|one| &*one.site == "files.example.com" && one.length.as_secs() == 30));
        assert!(!asked(&guard, &visit("192.0.2.1", 500), StatusCode::NOT_FOUND));
        let now = visit("192.0.2.1", 0).now;
        let lifted = kept.logins.unlock(&Whom::Client(client), &[guard.site], now);
        assert_eq!(lifted.len(), 2, "the network's too, or it would not help");
        assert_eq!(misses(&guard, "192.0.2.1", 600..700), 20);
        assert_eq!(kept.logins.lockouts.counts(now)["files.example.com"], (3, 1));
    }

    #[test]
    fn who_guesses_from_everywhere_closes_no_link_that_is_alive() {
        let kept = kept();
        let guard = guard_over(&kept);
        for link in 0..1000 {
            assert!(asked(&guard, &visit("198.51.100.1", link), StatusCode::OK));
        }
        for n in 0..300_000_u32 {
            let client = IpAddr::from((0x0b00_0000 + n * 256).to_be_bytes());
            assert!(asked(&guard, &visit(&client.to_string(), 10_000 + n), StatusCode::NOT_FOUND));
        }
        misses(&guard, "192.0.2.1", 2_000_000..2_000_100);
        let open = (0..1000).filter(|link| asked(&guard, &visit("192.0.2.1", *link), StatusCode::OK));
        assert_eq!(open.count(), 1000, "to a locked network");
    }
}
