//! Which account name is which subject, learned from logins that the application has answered with a token.
//!
//! Names are what people type at the login, subjects what tokens say (`sub`): an operator knows the one, blocks want the
//! other. At most [`MOST`] accounts are known, some 2 MiB; who has not logged in for longest is forgotten first. Workers
//! teach with a login, which is rare, so a lock is no cost; the control thread writes what is new to the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Most accounts that are known.
pub const MOST: usize = 10_000;
/// Longest name and subject, in bytes.
pub const LONGEST: usize = 256;

/// One account, as it is on disk too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The site's name.
    pub site: String,
    /// The name that was typed, byte for byte.
    pub name: String,
    /// The `sub` of its tokens.
    pub subject: String,
    /// Unix milliseconds of its last login.
    pub seen: u64,
}

/// A site and a name.
pub type Place = (String, String);

/// What is new since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// To write.
    pub learned: Vec<Account>,
    /// To remove.
    pub forgotten: Vec<Place>,
}

/// The accounts.
#[derive(Debug, Default)]
pub struct Accounts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    accounts: BTreeMap<Place, Account>,
    changed: BTreeSet<Place>,
    forgotten: BTreeSet<Place>,
    /// The longest life of a token that a login of a site has handed out, in seconds.
    lifetimes: BTreeMap<String, u64>,
    /// Sites with a login whose token made no companion cookie.
    long_tokens: BTreeSet<String>,
}

impl Accounts {
    /// Begins with what is on the disk.
    pub fn take_in(&self, accounts: impl IntoIterator<Item = Account>) {
        let mut known = self.known();
        known.accounts.extend(accounts.into_iter().map(|one| (one.place(), one)));
        known.make_room();
    }

    /// A login has taught. Too long a name or subject teaches nothing.
    pub fn learn(&self, account: Account) {
        if account.name.is_empty() || account.name.len() > LONGEST || account.subject.len() > LONGEST {
            return;
        }
        let place = account.place();
        let mut known = self.known();
        known.forgotten.remove(&place);
        known.changed.insert(place.clone());
        known.accounts.insert(place, account);
        known.make_room();
    }

    /// A login of this site has handed out a token that lives for so many seconds.
    pub fn saw_lifetime(&self, site: &str, seconds: u64) {
        let mut known = self.known();
        match known.lifetimes.get_mut(site) {
            Some(longest) => *longest = seconds.max(*longest),
            None => drop(known.lifetimes.insert(site.to_owned(), seconds)),
        }
    }

    /// The longest life of a token that logins of a site have handed out since the start.
    pub fn lifetime(&self, site: &str) -> Option<u64> {
        self.known().lifetimes.get(site).copied()
    }

    /// A login of this site has handed out a token that made no companion cookie.
    pub fn saw_long_token(&self, site: &str) {
        let mut known = self.known();
        if !known.long_tokens.contains(site) {
            known.long_tokens.insert(site.to_owned());
        }
    }

    /// Whether one has since the start.
    pub fn has_long_token(&self, site: &str) -> bool {
        self.known().long_tokens.contains(site)
    }

    /// The accounts of this name on this site, or on all: those that are called exactly so, else those that differ in
    /// the case of letters only.
    pub fn find(&self, name: &str, site: Option<&str>) -> Vec<Account> {
        let known = self.known();
        let here = known.accounts.values().filter(|one| site.is_none_or(|site| one.site == site));
        let (exact, alike): (Vec<&Account>, Vec<&Account>) = here
            .filter(|one| one.name.to_lowercase() == name.to_lowercase())
            .partition(|one| one.name == name);
        let found = if exact.is_empty() { alike } else { exact };
        found.into_iter().cloned().collect()
    }

    /// What is new since the last call, to be written.
    pub fn changes(&self) -> Changes {
        let mut known = self.known();
        let changed = std::mem::take(&mut known.changed);
        Changes {
            learned: changed.iter().filter_map(|place| known.accounts.get(place)).cloned().collect(),
            forgotten: std::mem::take(&mut known.forgotten).into_iter().collect(),
        }
    }

    /// They could not be written: they are new again.
    pub fn unwritten(&self, changes: Changes) {
        let mut known = self.known();
        for place in changes.learned.iter().map(Account::place) {
            if known.accounts.contains_key(&place) {
                known.changed.insert(place);
            }
        }
        for place in changes.forgotten {
            if !known.accounts.contains_key(&place) {
                known.forgotten.insert(place);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Account {
    fn place(&self) -> Place {
        (self.site.clone(), self.name.clone())
    }
}

impl Known {
    fn make_room(&mut self) {
        while self.accounts.len() > MOST {
            let oldest = self.accounts.iter().min_by_key(|(_, account)| account.seen);
            let Some(place) = oldest.map(|(place, _)| place.clone()) else { return };
            self.accounts.remove(&place);
            self.changed.remove(&place);
            self.forgotten.insert(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, subject: &str, seen: u64) -> Account {
        Account { site: "a.test".into(), name: name.into(), subject: subject.into(), seen }
    }

    #[test]
    fn a_name_is_found_exactly_first_and_else_in_any_case() {
        let accounts = Accounts::default();
        accounts.learn(account("alice", "1", 1));
        accounts.learn(account("Alice", "2", 2));
        accounts.learn(account("Bob", "3", 3));
        let subjects = |name: &str, site| -> Vec<String> {
            accounts.find(name, site).into_iter().map(|one| one.subject).collect()
        };
        assert_eq!(subjects("alice", None), ["1"]);
        assert_eq!(subjects("ALICE", None), ["2", "1"], "not clear: both are told");
        assert_eq!(subjects("bob", Some("a.test")), ["3"]);
        assert!(subjects("bob", Some("b.test")).is_empty() && subjects("carol", None).is_empty());
        accounts.learn(account("alice", "9", 4));
        assert_eq!(subjects("alice", None), ["9"], "the last login counts");
    }

    #[test]
    fn what_is_known_is_bounded_and_who_logged_in_longest_ago_goes_first() {
        let accounts = Accounts::default();
        for number in 0..=MOST {
            accounts.learn(account(&format!("user{number}"), "1", number as u64));
        }
        assert!(accounts.find("user0", None).is_empty() && accounts.find("user1", None).len() == 1);
        let changes = accounts.changes();
        assert_eq!((changes.learned.len(), changes.forgotten.len()), (MOST, 1));
        assert_eq!(accounts.changes(), Changes::default());
        accounts.unwritten(changes.clone());
        assert_eq!(accounts.changes(), changes, "what was not written is tried again");
        accounts.learn(account(&"x".repeat(LONGEST + 1), "1", 1));
        assert_eq!(accounts.changes(), Changes::default());
    }
}
