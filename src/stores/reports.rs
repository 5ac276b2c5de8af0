//! What browsers, and whoever says that he is one, have reported of violations of a Content-Security-Policy.
//!
//! Kept is how often each kind of violation was reported, when, and by how many clients: no address of a page, no sample, no
//! client. A site has [`MOST`] kinds. When there are more the kind goes that one client alone has reported, of the client
//! with most of those: who floods pushes out his own. What several clients have reported goes last.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::class::Class;
use crate::request::client::Client;

/// Most kinds of violations that are kept of a site.
pub const MOST: usize = 256;
/// Clients that are told apart for each kind; more are as good as many.
pub const CLIENTS: usize = 4;

/// One kind of violation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The class of the page.
    pub class: Class,
    /// The directive that was broken, of a closed list.
    pub directive: &'static str,
    /// What it did not allow.
    pub what: What,
}

/// What a policy did not allow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// `inline`, `eval` and the like, of a closed list.
    Word(&'static str),
    /// `data` or `blob`.
    Scheme(&'static str),
    /// Something of the site itself: its class and the pattern of its route.
    Own(Class, Arc<str>),
    /// Another origin.
    Origin(Box<str>),
    /// A browser's extension.
    Extension,
}

/// What is known of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// How often.
    pub count: u64,
    /// Unix milliseconds of the first and the last time.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// A browser has enforced the policy, so that something did not work.
    pub enforced: bool,
    /// Keyed hashes of the first clients that reported it, at most [`CLIENTS`].
    clients: Vec<u64>,
}

/// What is known of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The kinds.
    pub violations: BTreeMap<Violation, Counted>,
    /// Reports that could not be read, or were of no page of the site.
    pub malformed: u64,
    /// Kinds that had to go.
    pub pushed_out: u64,
}

/// The reports of all sites, shared by the workers.
#[derive(Debug, Default)]
pub struct Reports {
    sites: Mutex<HashMap<Box<str>, Known>>,
    hasher: RandomState,
}

/// One report, for [`Reports::note`].
#[derive(Debug, Clone)]
pub struct Noted {
    /// Its kind.
    pub violation: Violation,
    /// The policy was enforced.
    pub enforced: bool,
}

/// Who has sent reports, and when.
#[derive(Debug, Clone, Copy)]
pub struct Sender {
    /// The client.
    pub client: Client,
    /// Unix milliseconds.
    pub now: u64,
}

impl Reports {
    /// Somebody has sent these reports, and so many others that are none. `site` is a name of the configuration.
    pub fn note(&self, site: &str, sender: Sender, noted: Vec<Noted>, malformed: usize) {
        let (client, now) = (self.hasher.hash_one(network(sender.client)), sender.now);
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match sites.get_mut(site) {
            Some(known) => known,
            None => sites.entry(site.into()).or_default(),
        };
        known.malformed = known.malformed.saturating_add(malformed as u64);
        for one in noted {
            known.note(one, client, now);
        }
    }

    /// What is known of a site.
    pub fn of(&self, site: &str) -> Known {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.get(site).cloned().unwrap_or_default()
    }
}

impl Known {
    fn note(&mut self, noted: Noted, client: u64, now: u64) {
        let Noted { violation, enforced } = noted;
        if !self.violations.contains_key(&violation) && self.violations.len() >= MOST {
            self.make_room();
        }
        let fresh = || Counted { count: 0, first: now, last: now, enforced: false, clients: Vec::new() };
        let counted = self.violations.entry(violation).or_insert_with(fresh);
        counted.count = counted.count.saturating_add(1);
        counted.last = now.max(counted.last);
        counted.enforced |= enforced;
        if counted.clients.len() < CLIENTS && !counted.clients.contains(&client) {
            counted.clients.push(client);
        }
    }

    fn make_room(&mut self) {
        let mut alone: HashMap<u64, usize> = HashMap::new();
        for counted in self.violations.values() {
            if let [only] = counted.clients[..] {
                *alone.entry(only).or_default() += 1;
            }
        }
        let worth = |counted: &Counted| {
            let [only] = counted.clients[..] else { return (1, 0, counted.count, counted.last) };
            let others = alone.get(&only).copied().unwrap_or_default();
            (0, usize::MAX - others, counted.count, counted.last)
        };
        let least = self.violations.iter().min_by_key(|(_, counted)| worth(counted));
        if let Some(violation) = least.map(|(violation, _)| violation.clone()) {
            self.violations.remove(&violation);
            self.pushed_out = self.pushed_out.saturating_add(1);
        }
    }
}

impl Counted {
    /// How many clients have reported it; [`CLIENTS`] means so many or more.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }
}

/// A client as limits know it: an IPv6 client is its /64.
fn network(client: Client) -> [u64; 2] {
    match client {
        Client::Unknown => [0, 0],
        Client::Address(IpAddr::V4(address)) => [4, u64::from(address.to_bits())],
        Client::Address(IpAddr::V6(address)) => {
            [6, u64::try_from(address.to_bits() >> 64).unwrap_or_default()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(number: u32, now: u64) -> Sender {
        Sender { client: Client::Address(IpAddr::from(number.to_be_bytes())), now }
    }

    fn foreign(name: &str) -> Noted {
        let what = What::Origin(name.into());
        Noted { violation: Violation { class: Class::Page, directive: "img-src", what }, enforced: true }
    }

    #[test]
    fn a_kind_is_counted_once_with_its_clients_and_times() {
        let reports = Reports::default();
        for (number, now) in [(1, 5), (1, 9), (2, 7), (3, 8), (4, 8), (5, 8), (6, 8)] {
            reports.note("a.test", sender(number, now), vec![foreign("https://x.test")], 1);
        }
        let known = reports.of("a.test");
        let counted = known.violations.values().next().unwrap();
        assert_eq!((known.violations.len(), known.malformed), (1, 7));
        assert_eq!((counted.count, counted.first, counted.last), (7, 5, 9));
        assert_eq!((counted.clients(), counted.enforced), (CLIENTS, true));
        assert_eq!(reports.of("b.test"), Known::default());
    }

    #[test]
    fn a_flood_pushes_out_its_own_and_what_several_have_reported_stays() {
        let reports = Reports::default();
        for number in 0..10 {
            let name = format!("https://both{number}.test");
            reports.note("a.test", sender(1, 1), vec![foreign(&name)], 0);
            reports.note("a.test", sender(2, 1), vec![foreign(&name)], 0);
            reports.note("a.test", sender(3, 1), vec![foreign(&format!("https://one{number}.test"))], 0);
        }
        for number in 0..10_000 {
            let name = format!("https://flood{number}.test");
            reports.note("a.test", sender(9, 2), vec![foreign(&name)], 0);
        }
        let known = reports.of("a.test");
        let starting = |start: &str| {
            let of =
                |known: &&Violation| matches!(&known.what, What::Origin(name) if name.starts_with(start));
            known.violations.keys().filter(of).count()
        };
        assert_eq!(known.violations.len(), MOST);
        assert_eq!((starting("https://both"), starting("https://one")), (10, 10));
        assert_eq!(known.pushed_out, 10_020 - MOST as u64);
    }
}
