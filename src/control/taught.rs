//! Blocks that answers have taught: made like an operator's, but with a quota, and never in place of one.
//!
//! Each person may teach [`OF_ONE`] logouts an hour, each client [`OF_CLIENT`] of which nobody can tell whose they are, and
//! each site [`OF_SITE`]; at most [`STANDING`] blocks stand for a site, and the logout that ends first makes room. So
//! whoever logs in and out all day fills nothing and pushes out nobody. What people do to their own account, and what
//! administrators do, has quotas of its own, so that nobody makes the gateway deaf to what is done to him. Operators' blocks
//! are not counted and not touched.

use std::collections::{BTreeMap, BTreeSet};

use super::Control;
use super::defaults::learned;
use crate::clock::Now;
use crate::request::facts::scope_of;
use crate::stores::blocks::{Block, Held, What};
use crate::stores::taught::{Outcome, Taught, Whose};

/// Most logouts of one person in an hour, and most changes of his own account.
const OF_ONE: u32 = 60;
/// Most logouts of one client in an hour by tokens that say no person.
const OF_CLIENT: u32 = 600;
/// Most logouts of one site in an hour; as many changes of their own accounts, and as many of an administrator.
const OF_SITE: u32 = 5_000;
/// Most learned blocks that stand for one site.
pub(super) const STANDING: usize = 20_000;
/// Nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

/// What was taught this hour.
#[derive(Debug, Default)]
pub(super) struct Quota {
    hour: u64,
    /// Of all logouts, of all who changed their own account, of all administrators.
    sites: BTreeMap<String, [u32; 3]>,
    each: BTreeMap<(String, Whose), u32>,
    /// Sites of which it was said that they teach too much.
    told: BTreeSet<String>,
}

impl Quota {
    /// Counts a lesson; `false`: it is one too many. At most as many persons and clients as lessons are remembered.
    fn takes(&mut self, site: &str, whose: Whose, now: Now) -> bool {
        let hour = now.mono / HOUR;
        if self.hour != hour {
            *self = Self { hour, ..Self::default() };
        }
        let [logouts, own, admin] = self.sites.entry(site.to_owned()).or_default();
        let (of_site, most) = match whose {
            Whose::Person(_) => (logouts, OF_ONE),
            Whose::Client(_) => (logouts, OF_CLIENT),
            Whose::Own(_) => (own, OF_ONE),
            Whose::Admin => (admin, OF_SITE),
        };
        if *of_site >= OF_SITE {
            return false;
        }
        let of_one = self.each.entry((site.to_owned(), whose)).or_default();
        if *of_one >= most {
            return false;
        }
        *of_one += 1;
        *of_site += 1;
        true
    }
}

impl Control {
    /// Lessons that came together share one publication, one sweep and one commit.
    pub(super) async fn learn(&mut self, lessons: Vec<Taught>) {
        let now = self.clock.now();
        let mut taken = Vec::new();
        for taught in lessons {
            match self.judged(&taught, now) {
                Some(outcome) => _ = taught.done.send(outcome),
                None => {
                    self.make_room(&taught.site, now);
                    let Taught { site, what, spares, lasting, reason, done, .. } = taught;
                    let mut block = learned(what, &site, lasting, &self.sites, now);
                    block.spares = spares;
                    block.reason = format!("learned: {reason}");
                    self.renew(&block);
                    taken.push((self.hold(block, now), done));
                }
            }
        }
        if taken.is_empty() {
            return;
        }
        let ids: Vec<u64> = taken.iter().map(|(id, _)| *id).collect();
        self.publish(&ids);
        let swept = self.sweep(&ids).await;
        let sure = self.commit(&ids) && swept.confirmed;
        self.count_cut(swept.cut);
        self.write_down("block", &ids, sure);
        let outcome = if sure { Outcome::Learned } else { Outcome::Unconfirmed };
        // Whoever waited may have gone; the blocks stand all the same.
        for (_, done) in taken {
            let _ = done.send(outcome);
        }
        self.settle();
    }

    /// Whoever has changed his own password keeps the session in which he did: it begins just behind the block.
    fn renew(&self, block: &Block) {
        if let (Some(token), What::Subject { subject, before, .. }) = (block.spares, &block.what) {
            let scope = block.site.as_deref().map(scope_of).unwrap_or_default();
            self.kept.sessions.renew(scope, subject, token.key(), before.saturating_add(1));
        }
    }

    /// Why a lesson is not taken.
    fn judged(&mut self, taught: &Taught, now: Now) -> Option<Outcome> {
        let same = |held: &Held| {
            let block = &held.block;
            let token = matches!(block.what, What::Fingerprint { .. });
            token && block.what == taught.what && block.site.as_ref().is_none_or(|site| *site == taught.site)
        };
        if self.held.values().any(|held| same(held) && !held.is_over(now)) {
            return Some(Outcome::Known);
        }
        if self.quota.takes(&taught.site, taught.whose, now) {
            return None;
        }
        if self.quota.told.insert(taught.site.clone()) {
            (self.say)(&over_quota(&taught.site));
        }
        Some(Outcome::OverQuota)
    }

    /// Lifts the learned block of a site that ends first, if there are as many as there may be; none of a person while there
    /// is another.
    fn make_room(&mut self, site: &str, now: Now) {
        let learned = |held: &&Held| {
            held.block.learned && held.block.site.as_deref() == Some(site) && !held.is_over(now)
        };
        if self.held.values().filter(learned).count() < STANDING {
            return;
        }
        let of_person = |held: &Held| matches!(held.block.what, What::Subject { .. });
        let learned = self.held.values().filter(learned);
        let first = learned.min_by_key(|held| (of_person(held), held.block.until)).cloned();
        let Some(first) = first else { return };
        self.blocks.publish(self.blocks.load().without(&first));
        let id = first.block.id;
        if let Some(held) = self.held.get_mut(&id) {
            held.block.ended = Some(now.wall);
            self.unwritten.insert(id);
        }
    }

    /// At the start.
    pub(super) fn take_in_sessions(&self) {
        match self.store.sessions() {
            Ok(sessions) => self.kept.sessions.take_in(sessions),
            Err(error) => (self.say)(&format!(
                "whose refresh cookies are whose is not known: {error}; while a person is blocked they count as his of old"
            )),
        }
    }

    /// Writes what is new of the sessions.
    pub(super) fn keep_sessions(&mut self) {
        self.kept.sessions.tidy(self.clock.now());
        let changes = self.kept.sessions.changes();
        if changes.learned.is_empty() && changes.forgotten.is_empty() {
            return;
        }
        if let Err(error) = self.store.keep_sessions(&changes) {
            (self.say)(&format!("whose refresh cookies are whose is not written yet: {error}"));
            self.kept.sessions.unwritten(changes);
        }
    }
}

fn over_quota(site: &str) -> String {
    format!(
        "{site} teaches more than the quota of an hour: what its answers say of logouts and changed accounts is not all \
         taken. If that is somebody's game, `portcullis blocks` shows whose tokens; `learn = \"off\"` in the [[site]] ends it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::credential::Key;

    const MALLORY: Key = Key([1; 16]);

    #[test]
    fn one_person_cannot_use_up_what_the_others_of_a_site_may_teach() {
        let (mut quota, now) = (Quota::default(), Now { mono: HOUR * 7, wall: 0 });
        let (mallory, alice) = (Whose::Person(MALLORY), Whose::Person(Key([2; 16])));
        let taken = (0..1000).filter(|_| quota.takes("a", mallory, now)).count();
        assert_eq!(taken, OF_ONE as usize);
        assert!(quota.takes("a", alice, now) && quota.takes("b", mallory, now));
        let of = |quota: &mut Quota, client| (0..2000).filter(|_| quota.takes("a", client, now)).count();
        assert_eq!(of(&mut quota, Whose::Client(0)), OF_CLIENT as usize);
        let rest: usize = (1..100).map(|client| of(&mut quota, Whose::Client(client))).sum();
        assert_eq!(rest, (OF_SITE - OF_ONE - 1 - OF_CLIENT) as usize);
        assert!(!quota.takes("a", alice, now));
        assert!(quota.takes("a", alice, Now { mono: HOUR * 8, wall: 0 }), "the next hour");
    }

    #[test]
    fn no_number_of_logouts_or_own_changes_makes_deaf_to_an_administrator() {
        let (mut quota, now) = (Quota::default(), Now { mono: HOUR * 7, wall: 0 });
        for client in 0..100 {
            let taken = |whose, quota: &mut Quota| (0..1000).filter(|_| quota.takes("a", whose, now)).count();
            taken(Whose::Client(client), &mut quota);
            taken(Whose::Own(Key([u8::try_from(client).unwrap(); 16])), &mut quota);
        }
        assert!(!quota.takes("a", Whose::Client(1000), now), "the site's logouts are spent");
        assert!(!quota.takes("a", Whose::Own(MALLORY), now), "and his own");
        let taken = (0..2 * OF_SITE).filter(|_| quota.takes("a", Whose::Admin, now)).count();
        assert_eq!(taken, OF_SITE as usize, "bounded all the same");
    }
}
