//! What all tries at secrets and links share and what outlives a policy: the counters by their names, the list of lockouts, room for
//! bodies that are read, and turns at setting up. Guards charge, an operator unlocks.

use std::net::IpAddr;
use std::sync::Arc;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::attempts::{Attempts, CounterKey, Rule};
use super::held::Room;
use super::lockouts::{Lockout, Lockouts, listed};
use super::places::{Place, Places};
use super::shares::{self, Group};
use super::turns::Turns;
use crate::clock::Now;
use crate::request::client::Client;

/// Tries at one counter that may be under way at once before any has failed.
const AT_ONCE: usize = 64;

/// The store.
#[derive(Debug)]
pub struct Logins {
    /// The counters.
    pub attempts: Arc<Attempts>,
    /// Who is locked out.
    pub lockouts: Lockouts,
    /// Room for bodies that are read.
    pub room: Arc<Room>,
    /// Turns at setting up.
    pub turns: Arc<Turns>,
    /// Tries under way of which only the answer says whether they failed, by the counters that they would be charged to.
    pub under_way: Arc<Places>,
}

/// Whom an operator unlocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// A client (IPv6: its /64), at all accounts and share links; with it its network at share links.
    Client(Client),
    /// An account, for all clients.
    Account(String),
    /// Everybody.
    All,
}

impl Logins {
    /// Over these counters.
    pub fn new(attempts: Arc<Attempts>) -> Self {
        let (room, turns, under_way) = Default::default();
        Self { attempts, lockouts: Lockouts::default(), room, turns, under_way }
    }

    /// A place for a try that is charged only when its answer says that it has failed. While failures stand, no more go on at
    /// once than those leave, and one at least, so that parallel guesses do not slip by; till then as many as programs send.
    /// `None`: as many are under way.
    pub fn seat(&self, key: CounterKey, rule: Rule, now: Now) -> Option<Place> {
        let left = self.attempts.left(key, rule, now);
        self.under_way.take_of(key, left.map_or(AT_ONCE, |left| left.clamp(1, AT_ONCE)))
    }

    /// The counter of a client at all accounts of a site, by the site's scope.
    pub fn of_client(&self, site: u64, client: Client) -> CounterKey {
        self.attempts.key_of((site, "client", client_group(client)))
    }

    /// The counter of all strangers at an account, whose name is folded.
    pub fn of_account(&self, site: u64, account: &str) -> CounterKey {
        self.attempts.key_of((site, "account", account))
    }

    /// The counter of all known devices of an account, by its name as it is typed.
    pub fn of_devices(&self, site: u64, account: &str) -> CounterKey {
        self.attempts.key_of((site, "devices", account))
    }

    /// The counter of all addresses that are known by Basic credentials of an account, whose name is folded.
    pub fn of_heard(&self, site: u64, account: &str) -> CounterKey {
        self.attempts.key_of((site, "heard of", account))
    }

    /// The counter of a client, or of its network, at share links.
    pub fn of_links(&self, site: u64, group: &Group) -> CounterKey {
        self.attempts.key_of((site, "links", group.key))
    }

    /// Forgets what was counted; with it its lockout.
    pub fn clear(&self, key: CounterKey, now: Now) {
        if self.attempts.clear(key, now) {
            self.lockouts.lifted(key);
        }
    }

    /// Lifts lockouts on these sites, by their scopes, and forgets what was counted of whom they meant. Answers which.
    pub fn unlock(&self, whom: &Whom, sites: &[u64], now: Now) -> Vec<Lockout> {
        let lifted = match whom {
            Whom::All => {
                let lifted = self.lockouts.active(now, |_| true);
                self.attempts.clear_all(now);
                self.lockouts.clear();
                return lifted.into_iter().map(|(_, lockout)| lockout).collect();
            }
            Whom::Client(client) => {
                let lifted = self.lockouts.active(now, |lockout| lockout.is_of(*client));
                for site in sites {
                    self.clear(self.of_client(*site, *client), now);
                    shares::groups(*client)
                        .iter()
                        .for_each(|group| self.clear(self.of_links(*site, group), now));
                }
                lifted
            }
            Whom::Account(typed) => {
                let name = fold(typed);
                let listed = listed(&name);
                let lifted = self.lockouts.active(now, |lockout| lockout.account.as_ref() == Some(&listed));
                for site in sites {
                    self.clear(self.of_account(*site, &name), now);
                    self.clear(self.of_heard(*site, &name), now);
                    self.clear(self.of_devices(*site, typed), now);
                }
                lifted
            }
        };
        lifted
            .into_iter()
            .map(|(key, lockout)| {
                self.clear(key, now);
                lockout
            })
            .collect()
    }
}

/// An account's name as it is counted: compatibility forms, case, accents, what cannot be seen, and blanks around it make no
/// other account, as to many a database.
pub fn fold(name: &str) -> String {
    if name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return name.to_ascii_lowercase();
    }
    let seen = |one: &char| !is_combining_mark(*one) && !is_invisible(*one);
    // `ß` and `ſ` have one case only the other way.
    let plain = name.nfkd().filter(seen).flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    plain.nfkd().filter(seen).collect::<String>().trim().to_owned()
}

/// What databases and applications leave out: soft hyphens, joiners, marks of direction.
fn is_invisible(one: char) -> bool {
    matches!(one, '\u{ad}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// An IPv4 address, an IPv6 /64, or all whose address cannot be told.
pub fn client_group(client: Client) -> u128 {
    match client {
        Client::Unknown => u128::MAX,
        Client::Address(IpAddr::V4(address)) => u128::from(address.to_bits()),
        Client::Address(IpAddr::V6(address)) => address.to_bits() >> 64 << 64 | 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_to_some_application_are_one_for_counting() {
        for name in ["Ann", "ANN", " ann\t", "\u{ff21}nn", "a\u{ff4e}n", "ANN\u{a0}"] {
            assert_eq!(fold(name), "ann", "{name}");
        }
        for name in
            ["\u{e4}nn", "a\u{200b}nn", "a\u{308}n\u{ad}n", "\u{feff}ann", "\u{1d41a}nn", "\u{c4}NN\u{301}"]
        {
            assert_eq!(fold(name), "ann", "{name}");
        }
        assert_eq!(
            (fold("STRASSE"), fold("stra\u{df}e"), fold("\u{17f}trasse")),
            ("strasse".into(), "strasse".into(), "strasse".into())
        );
        assert_eq!(fold("\u{212a}elvin"), "kelvin");
        assert_ne!(fold("ann"), fold("anna"));
    }
}
