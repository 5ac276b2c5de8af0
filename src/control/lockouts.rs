//! Lockouts and refused default passwords: told to the operator, and lifted by him.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Control;
use crate::admin::api::{Refusal, RefusalKind, SCHEMA};
use crate::admin::unlock::{LockoutShown, UnlockOrder, Unlocked};
use crate::clock::Now;
use crate::request::client::Client;
use crate::request::facts::scope_of;
use crate::stores::lockouts::{Lockout, News, Of};
use crate::stores::logins::Whom;
use crate::telemetry::audit::Entry;

/// Default passwords that are tried are told of again after so long, in nanoseconds.
const AGAIN: u64 = 5 * 60 * 1_000_000_000;
/// So long `status` warns of them, in nanoseconds.
const WARNED: u64 = 24 * 3600 * 1_000_000_000;
/// Letters of an unknown account that are shown.
const SHOWN: usize = 2;

/// When each site was told of last, in monotonic nanoseconds, and how many tries there had been.
pub(super) type Told = BTreeMap<Arc<str>, (u64, u64)>;

impl Control {
    /// Lifts lockouts. Workers look at the counters themselves: it holds at once.
    pub(super) fn unlock(&self, order: &UnlockOrder, by: &str) -> Result<Unlocked, Refusal> {
        let whom = match order {
            UnlockOrder::All => Whom::All,
            UnlockOrder::Account(name) => Whom::Account(name.clone()),
            UnlockOrder::Client(client) => Whom::Client(client_of(client)?),
        };
        let sites: Vec<u64> = self.sites.iter().map(|site| scope_of(&site.name)).collect();
        let lifted = self.kept.logins.unlock(&whom, &sites, self.clock.now());
        let unlocked: Vec<LockoutShown> = lifted.iter().map(|lockout| self.shown_lockout(lockout)).collect();
        let outcome = format!("{} lifted", unlocked.len());
        self.audit(&Entry { action: "unlock", by, what: order, reason: "", outcome: &outcome });
        Ok(Unlocked { schema: SCHEMA, unlocked })
    }

    /// Tells of what has happened since the last time.
    pub(super) fn tell_lockouts(&mut self) {
        let News { lockouts, more } = self.kept.logins.lockouts.news(self.clock.now());
        let shown: Vec<LockoutShown> = lockouts.iter().map(|lockout| self.shown_lockout(lockout)).collect();
        let lines: Vec<_> =
            lockouts.iter().zip(&shown).map(|(lockout, shown)| entry_of(lockout.of, shown)).collect();
        if let Err(error) = self.audit.record_all(self.clock.now().wall, &lines) {
            (self.say)(&format!("the audit log was not written: {error}"));
        }
        if more > 0 {
            let what = format!("{more} lockouts more, too many to be told one by one");
            let (by, reason) = ("login guard, share guard", "too many failures");
            self.audit(&Entry { action: "lockout", by, what: &what, reason, outcome: "locked out" });
        }
        self.tell_defaults();
    }

    fn tell_defaults(&mut self) {
        for (site, tried) in self.kept.logins.lockouts.defaults() {
            let (told, count) = self.defaults_told.get(&site).copied().unwrap_or_default();
            let new = tried.count > count;
            if !new || (count > 0 && tried.last.mono.saturating_sub(told) < AGAIN) {
                continue;
            }
            let what = format!("{site}: {} from {}", tried.account, tried.client);
            let reason = "the default password of the application's documents was tried from outside";
            self.audit(&Entry {
                action: "default password",
                by: "login guard",
                what: &what,
                reason,
                outcome: "refused; change it if it is still good",
            });
            self.defaults_told.insert(site, (tried.last.mono, tried.count));
        }
    }

    /// For `status`.
    pub(super) fn default_passwords(&self, now: Now) -> Vec<String> {
        let lately = self.kept.logins.lockouts.defaults().into_iter();
        lately
            .filter(|(_, tried)| now.mono.saturating_sub(tried.last.mono) < WARNED)
            .map(|(site, tried)| {
                format!(
                    "{site}: the application's default password of `{}` was tried from outside {} times, last by {}; it was refused, but if it is still good change it: log in from this machine, or from where `portcullis allow setup` allows it",
                    tried.account, tried.count, tried.client
                )
            })
            .collect()
    }

    /// How many lockouts last, for `status`.
    pub(super) fn locked_out(&self, now: Now) -> u64 {
        self.kept.logins.lockouts.counts(now).values().map(|(_, active)| active).sum()
    }

    fn shown_lockout(&self, lockout: &Lockout) -> LockoutShown {
        LockoutShown {
            site: lockout.site.to_string(),
            of: lockout.of.word().to_owned(),
            client: lockout
                .client
                .map(|client| client.to_string())
                .or_else(|| lockout.network.map(|network| network.to_string())),
            account: lockout.account.as_deref().map(|name| self.shown_account(&lockout.site, name)),
            seconds: lockout.length.as_secs(),
        }
    }

    /// People type passwords where their name belongs: only a name that has logged in before is shown whole.
    fn shown_account(&self, site: &str, name: &str) -> String {
        if !self.kept.accounts.find(name, Some(site)).is_empty() {
            return name.to_owned();
        }
        format!("{}…", name.chars().take(SHOWN).collect::<String>())
    }
}

fn entry_of(of: Of, what: &LockoutShown) -> Entry<'_, LockoutShown> {
    let (by, reason, outcome) = match of {
        Of::Links => (
            "share guard",
            "too many share links that are none",
            "locked out, but for links that have answered lately",
        ),
        Of::LinkPassword => (
            "share guard",
            "too many wrong passwords of a share link",
            "locked out of that link, but for looking at it",
        ),
        _ => ("login guard", "too many failures", "locked out"),
    };
    Entry { action: "lockout", by, what, reason, outcome }
}

fn client_of(text: &str) -> Result<Client, Refusal> {
    let text = text.trim();
    if text == "unknown" {
        return Ok(Client::Unknown);
    }
    let address = text.parse().map(|address: std::net::IpAddr| Client::Address(address.to_canonical()));
    address.map_err(|_| {
        let message = format!("`{text}` is no address; write one as the access log shows it, or `unknown`");
        Refusal::new(RefusalKind::Usage, message)
    })
}
