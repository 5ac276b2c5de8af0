//! Who is locked out now, of logins and of share links, and what an operator is to hear of: lockouts, and default passwords that somebody has tried.
//! In memory only; counters are in [`super::attempts`], this is their list for people.
//!
//! Bounded: at most [`MOST`] lockouts are listed and counted as active, at most [`NEWS`] a minute are told one by one; the rest
//! is told as a number, once a minute, so that no flood fills the disk that the audit log is on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use super::attempts::CounterKey;
use super::logins::client_group;
use crate::clock::Now;
use crate::request::client::Client;

/// Most lockouts that are listed.
pub const MOST: usize = 65_536;
/// Most that are told one by one in a minute.
pub const NEWS: usize = 60;
/// In monotonic nanoseconds.
const MINUTE: u64 = 60 * 1_000_000_000;
/// Longest beginning of an account's name that is kept, in characters.
const NAME: usize = 64;

/// One lockout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockout {
    /// The site's name.
    pub site: Arc<str>,
    /// Of what.
    pub of: Of,
    /// Who; `None`: all who are no known devices, or of a network.
    pub client: Option<Client>,
    /// All of whom, where it is of a network.
    pub network: Option<IpNet>,
    /// As whom, folded; `None`: as anybody. A stranger's word.
    pub account: Option<Box<str>>,
    /// How long it lasts.
    pub length: Duration,
    /// When it began.
    pub since: Now,
}

/// What is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A client at one account.
    Pair,
    /// A known device, or all known devices of an account.
    Device,
    /// A client at all accounts.
    Client,
    /// An account for all who are no known devices.
    Account,
    /// A refresh token, or a client at refresh tokens.
    Refresh,
    /// A client at secrets of machines that join.
    Enroll,
    /// A client at share links that are none, or its network.
    Links,
    /// A client at the password of one share link, or its network.
    LinkPassword,
}

/// What the control thread is to tell.
#[derive(Debug, Default)]
pub struct News {
    /// One by one.
    pub lockouts: Vec<Lockout>,
    /// Lockouts that were too many to be told one by one.
    pub more: u64,
}

/// Default passwords that were tried at one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// How often since the start.
    pub count: u64,
    /// The account of the last try: one of the app file's.
    pub account: Box<str>,
    /// Who tried last.
    pub client: Client,
    /// When.
    pub last: Now,
}

/// The list.
#[derive(Debug, Default)]
pub struct Lockouts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    active: HashMap<CounterKey, Lockout>,
    totals: BTreeMap<Arc<str>, u64>,
    news: Vec<Lockout>,
    /// How many there were of them in the minute that began then.
    minute: (u64, usize),
    more: u64,
    /// When that was told last.
    more_told: Option<u64>,
    defaults: BTreeMap<Arc<str>, Defaults>,
}

/// An account's name as the list keeps it: its beginning.
pub fn listed(name: &str) -> Box<str> {
    name.chars().take(NAME).collect::<String>().into()
}

impl Of {
    /// The word in audit log and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pair => "client at account",
            Self::Device => "device",
            Self::Client => "client",
            Self::Account => "account",
            Self::Refresh => "refresh",
            Self::Enroll => "enroll",
            Self::Links => "share links",
            Self::LinkPassword => "password of a share link",
        }
    }
}

impl Lockout {
    /// Whether it is of this client: of its address or /64, or of a network that it is in.
    pub fn is_of(&self, client: Client) -> bool {
        let same = |other| client_group(other) == client_group(client);
        let inside =
            |network: IpNet| matches!(client, Client::Address(address) if network.contains(&address));
        self.client.is_some_and(same) || self.network.is_some_and(inside)
    }

    /// Whether it is over.
    pub fn is_over(&self, now: Now) -> bool {
        let length = u64::try_from(self.length.as_nanos()).unwrap_or(u64::MAX);
        now.mono >= self.since.mono.saturating_add(length)
    }
}

impl Lockouts {
    /// One has begun.
    pub fn begun(&self, key: CounterKey, mut lockout: Lockout) {
        lockout.account = lockout.account.map(|name| listed(&name));
        let now = lockout.since;
        let mut state = self.state();
        *state.totals.entry(Arc::clone(&lockout.site)).or_default() += 1;
        if now.mono.saturating_sub(state.minute.0) >= MINUTE {
            state.minute = (now.mono, 0);
        }
        // News that nobody fetches do not pile up either.
        if state.minute.1 < NEWS && state.news.len() < NEWS {
            state.minute.1 += 1;
            state.news.push(lockout.clone());
        } else {
            state.more += 1;
        }
        if state.active.len() >= MOST && !state.active.contains_key(&key) {
            state.active.retain(|_, known| !known.is_over(now));
        }
        if state.active.len() < MOST || state.active.contains_key(&key) {
            state.active.insert(key, lockout);
        }
    }

    /// It is lifted before its time.
    pub fn lifted(&self, key: CounterKey) {
        self.state().active.remove(&key);
    }

    /// Those that last and that are meant, with their counters.
    pub fn active(&self, now: Now, meant: impl Fn(&Lockout) -> bool) -> Vec<(CounterKey, Lockout)> {
        let mut state = self.state();
        state.active.retain(|_, lockout| !lockout.is_over(now));
        let found = state.active.iter().filter(|(_, lockout)| meant(lockout));
        found.map(|(key, lockout)| (*key, lockout.clone())).collect()
    }

    /// Lists none any more.
    pub fn clear(&self) {
        self.state().active.clear();
    }

    /// For each site: lockouts since the start, and those that last.
    pub fn counts(&self, now: Now) -> BTreeMap<Arc<str>, (u64, u64)> {
        let mut state = self.state();
        state.active.retain(|_, lockout| !lockout.is_over(now));
        let mut counts: BTreeMap<_, _> =
            state.totals.iter().map(|(site, total)| (Arc::clone(site), (*total, 0))).collect();
        for lockout in state.active.values() {
            if let Some((_, active)) = counts.get_mut(&lockout.site) {
                *active += 1;
            }
        }
        counts
    }

    /// Somebody has tried a default password.
    pub fn tried_default(&self, site: &Arc<str>, account: &str, client: Client, now: Now) {
        let mut state = self.state();
        let count = state.defaults.get(site).map_or(0, |known| known.count);
        let tried = Defaults { count: count + 1, account: account.into(), client, last: now };
        state.defaults.insert(Arc::clone(site), tried);
    }

    /// Default passwords that were tried, by site.
    pub fn defaults(&self) -> Vec<(Arc<str>, Defaults)> {
        self.state().defaults.iter().map(|(site, tried)| (Arc::clone(site), tried.clone())).collect()
    }

    /// What is to be told since the last call.
    pub fn news(&self, now: Now) -> News {
        let mut state = self.state();
        let lockouts = std::mem::take(&mut state.news);
        let told_lately = state.more_told.is_some_and(|told| now.mono.saturating_sub(told) < MINUTE);
        if state.more == 0 || told_lately {
            return News { lockouts, more: 0 };
        }
        state.more_told = Some(now.mono);
        News { lockouts, more: std::mem::take(&mut state.more) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::attempts::Attempts;

    fn lockout(site: &str, seconds: u64) -> Lockout {
        Lockout {
            site: site.into(),
            of: Of::Pair,
            client: Some(Client::Unknown),
            network: None,
            account: Some("x".repeat(1000).into()),
            length: Duration::from_secs(seconds),
            since: Now { mono: 1, wall: 1 },
        }
    }

    fn after(seconds: u64) -> Now {
        Now { mono: 1 + seconds * 1_000_000_000, wall: 1 }
    }

    #[test]
    fn lockouts_are_counted_by_site_and_end() {
        let (list, keys) = (Lockouts::default(), Attempts::new(16));
        list.begun(keys.key_of(1), lockout("a", 30));
        list.begun(keys.key_of(2), lockout("a", 60));
        list.begun(keys.key_of(3), lockout("b", 60));
        let counts = |seconds| list.counts(after(seconds)).into_values().collect::<Vec<_>>();
        assert_eq!(counts(29), [(2, 2), (1, 1)]);
        assert_eq!(counts(30), [(2, 1), (1, 1)]);
        list.lifted(keys.key_of(2));
        assert_eq!(counts(30), [(2, 0), (1, 1)]);
        let news = list.news(after(1));
        assert_eq!((news.lockouts.len(), news.more), (3, 0));
        assert_eq!(news.lockouts[0].account.as_ref().unwrap().len(), NAME);
    }

    #[test]
    fn a_flood_of_lockouts_is_told_as_a_number_and_takes_bounded_room() {
        let (list, keys) = (Lockouts::default(), Attempts::new(16));
        for number in 0..MOST + 1000 {
            list.begun(keys.key_of(number), lockout("a", 30));
        }
        assert_eq!(list.counts(after(1)).values().next(), Some(&(66_536, 65_536)));
        let news = list.news(after(1));
        assert_eq!((news.lockouts.len(), news.more), (NEWS, 66_536 - 60));
        assert_eq!(list.news(after(1)).lockouts.len(), 0);
        list.begun(keys.key_of("later"), Lockout { since: after(31), ..lockout("a", 30) });
        assert_eq!(list.counts(after(32)).values().next(), Some(&(66_537, 1)), "room is made");
        let told = |seconds| {
            let news = list.news(after(seconds));
            (news.lockouts.len(), news.more)
        };
        assert_eq!(told(59), (0, 0), "the minute has had its lines");
        assert_eq!(told(61), (0, 1), "and its number");
        list.begun(keys.key_of("much later"), Lockout { since: after(62), ..lockout("a", 30) });
        assert_eq!(told(63), (1, 0), "another minute has lines of its own");
    }
}
