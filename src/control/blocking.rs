//! The emergency block: published, swept, committed, answered, in this order (DESIGN 6).

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::defaults::{Resolved, able, resolve, unasked};
use super::{Control, StateError};
use crate::admin::api::{Blocked, Refusal, RefusalKind, Reply, SCHEMA, Unblocked};
use crate::clock::Now;
use crate::stores::blocks::order::Spooled;
use crate::stores::blocks::{Block, Held, Order};
use crate::stores::durable::spool;
use crate::telemetry::audit::Entry;
use crate::worker::Swept;

/// Within the 500 ms of the promise this leaves room for the commit.
pub(super) const SWEEP: Duration = Duration::from_millis(400);
/// So long an ended block stays on disk, to be looked at.
const KEPT: u64 = 30 * 86_400_000;
/// And one that nobody ordered, since there may be many; the audit log has it.
const KEPT_LEARNED: u64 = 3_600_000;

/// An order, who gave it, and who waits for the answer.
pub(super) type Waiting = (Order, String, Reply<Blocked>);

impl Control {
    /// THE PROMISE. When an answer says `confirmed` and `durable`, the block is in memory on every worker, its live
    /// streams are cut, and it is on the disk.
    pub(super) async fn block(&mut self, orders: Vec<Waiting>) {
        let taken = self.take(orders);
        if taken.is_empty() {
            return;
        }
        let ids: Vec<u64> = taken.iter().map(|(id, ..)| *id).collect();
        self.publish(&ids); //                                    1. in memory, seen by every new request
        let swept = self.sweep(&ids).await; //                    2. every worker has cut what it means
        let durable = self.commit(&ids); //                       3. on the disk
        self.write_down("block", &ids, swept.confirmed && durable); // 4. in the audit log
        self.reply(taken, swept, durable); //                     5. only now the person hears of it
    }

    /// Committed first, published then: a block that is gone from memory must not come back with a restart.
    pub(super) fn unblock(&mut self, id: u64, by: &str) -> Result<Unblocked, Refusal> {
        let now = self.clock.now();
        let unknown = || Refusal::new(RefusalKind::Unknown, format!("there is no standing block {id}"));
        let held = self.held.get(&id).filter(|held| !held.is_over(now)).ok_or_else(unknown)?.clone();
        let mut lifted = held.block.clone();
        lifted.ended = Some(now.wall);
        let durable = match self.store.write(&[&lifted]) {
            Ok(()) => {
                self.unwritten.remove(&id);
                true
            }
            // It was never on disk, so lifting it need not be either; the end is written with the next try.
            Err(_) if self.unwritten.contains(&id) => false,
            Err(error) => {
                let message =
                    format!("block {id} still holds, because its end could not be written: {error}");
                return Err(Refusal::new(RefusalKind::NotWritten, message));
            }
        };
        self.blocks.publish(self.blocks.load().without(&held));
        self.held.insert(id, Held { block: lifted.clone(), ..held });
        self.audit_unblock(&lifted, by, durable);
        self.settle();
        let standing = self.held.values().filter(|held| !held.is_over(now) && held.block.covers(&lifted));
        let still = standing.map(|held| held.block.id).collect();
        Ok(Unblocked { schema: SCHEMA, block: lifted, durable, still })
    }

    /// Gives each order a number, or a refusal.
    fn take(&mut self, orders: Vec<Waiting>) -> Vec<(u64, Vec<String>, Reply<Blocked>)> {
        let now = self.clock.now();
        let mut taken = Vec::new();
        for (order, by, reply) in orders {
            match resolve(order, &by, &self.sites, now) {
                Ok(Resolved { block, warnings }) => taken.push((self.hold(block, now), warnings, reply)),
                Err(refusal) => drop(reply.send(Err(refusal))),
            }
        }
        taken
    }

    pub(super) fn hold(&mut self, mut block: Block, now: Now) -> u64 {
        // The highest number is never forgotten, so none is used twice.
        let id = self.held.last_key_value().map_or(1, |(last, _)| last.saturating_add(1));
        block.id = id;
        self.held.insert(id, block.held(now));
        self.unwritten.insert(id);
        id
    }

    pub(super) fn publish(&self, ids: &[u64]) {
        let index = self.blocks.load().with(ids.iter().filter_map(|id| self.held.get(id)));
        self.blocks.publish(index);
    }

    /// Writes these and whatever is still unwritten, in one commit.
    pub(super) fn commit(&mut self, ids: &[u64]) -> bool {
        let wanted = self.unwritten.iter().chain(ids).copied().collect::<std::collections::BTreeSet<_>>();
        let blocks: Vec<&Block> =
            wanted.iter().filter_map(|id| self.held.get(id)).map(|held| &held.block).collect();
        let outcome = self.store.write(&blocks);
        match &outcome {
            Ok(()) => {
                self.unwritten.clear();
                self.clear_spool();
            }
            Err(error) => (self.say)(&format!("{error}; the blocks hold in memory")),
        }
        self.show();
        outcome.is_ok()
    }

    pub(super) fn count_cut(&self, cut: usize) {
        self.shown.streams_cut.fetch_add(u64::try_from(cut).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn reply(&mut self, taken: Vec<(u64, Vec<String>, Reply<Blocked>)>, swept: Swept, durable: bool) {
        let Swept { cut, confirmed } = swept;
        self.count_cut(cut);
        for (id, warnings, reply) in taken {
            let Some(held) = self.held.get(&id) else { continue };
            let block = held.block.clone();
            let answer = Blocked { schema: SCHEMA, block, confirmed, durable, cut, warnings };
            // Who asked may have gone away; the block stands all the same.
            drop(reply.send(Ok(answer)));
        }
        self.settle();
    }

    /// Merges a full delta; after the answers, because it takes a while.
    pub(super) fn settle(&self) {
        if self.blocks.load().is_full() {
            self.rebuild();
        }
    }

    /// Takes in what a CLI left while the gateway was down. Committed before anything listens.
    pub(super) fn take_in_spool(&mut self) -> Result<(), StateError> {
        let ids = self.read_spool()?;
        if !ids.is_empty() {
            let durable = self.commit(&ids);
            self.write_down("block", &ids, durable);
        }
        Ok(())
    }

    /// The numbers that the orders there have got.
    fn read_spool(&mut self) -> Result<Vec<u64>, StateError> {
        let path = self.state.spool();
        let found = spool::read(&path).map_err(|cause| StateError::Spool { path, cause })?;
        for (path, wrong) in &found.broken {
            (self.say)(&format!(
                "AN ORDER TO BLOCK WAS NOT TAKEN: {} is no order ({wrong}); give it again, then remove the file",
                path.display()
            ));
        }
        let now = self.clock.now();
        let (paths, orders): (Vec<_>, Vec<_>) = found.orders.into_iter().unzip();
        self.taken_in.extend(paths);
        Ok(orders.into_iter().map(|spooled| self.hold_spooled(spooled, now)).collect())
    }

    /// Nobody is there to be asked again: a site that is not clear means all sites, so that the block holds.
    fn hold_spooled(&mut self, spooled: Spooled, now: Now) -> u64 {
        let Spooled { schema: _, order, by, created } = spooled;
        if let Err(refusal) = able(&order.what, order.site.as_deref(), &self.sites) {
            (self.say)(&format!("of an order from the spool: {}", refusal.message));
        }
        let block = unasked(order, &by, &self.sites, now).unwrap_or_else(|(block, refusal)| {
            (self.say)(&format!("an order from the spool now holds on all sites: {}", refusal.message));
            *block
        });
        self.hold(Block { created: created.min(now.wall), ..block }, now)
    }

    /// What was taken in is on the disk.
    fn clear_spool(&mut self) {
        let paths = std::mem::take(&mut self.taken_in);
        if let Err(error) = spool::clear(&self.state.spool(), &paths) {
            (self.say)(&format!("cannot clear the spool ({error}): its orders will be taken in once more"));
        }
    }

    /// What is done now and then: unwritten blocks are tried again, the spool is looked into, what is over leaves
    /// the index, and what ended long ago the disk.
    pub(super) async fn tend(&mut self) {
        self.come_back().await;
        self.reloader.tend();
        self.key_sets.tend(self.clock.now());
        self.authority.tend(self.clock.now());
        self.tend_spool().await;
        if !self.unwritten.is_empty() && self.commit(&[]) {
            (self.say)("the block store is written again: all blocks are durable");
        }
        self.close_holes();
        self.keep_accounts();
        self.tell_lockouts();
        self.keep_sessions();
        let now = self.clock.now();
        self.tell_endings(now);
        self.rotate_seal_keys(now);
        let standing = self.held.values().filter(|held| !held.is_over(now)).count();
        let indexed: usize = self.blocks.load().counts().map(|(_, count)| count).sum();
        if standing != indexed {
            self.rebuild();
        }
        self.forget(now);
    }

    /// A CLI that could not reach the socket of a running gateway has left its order there.
    async fn tend_spool(&mut self) {
        if !self.unwritten.is_empty() {
            return;
        }
        // What was lifted meanwhile has been written one by one.
        self.clear_spool();
        match self.read_spool() {
            Ok(ids) if ids.is_empty() => {}
            Ok(ids) => {
                self.publish(&ids);
                let swept = self.sweep(&ids).await;
                let durable = self.commit(&ids);
                self.write_down("block", &ids, swept.confirmed && durable);
            }
            Err(error) => (self.say)(&error.to_string()),
        }
    }

    fn forget(&mut self, now: Now) {
        let last = self.held.last_key_value().map_or(0, |(last, _)| *last);
        let long_over = |held: &Held| {
            let end = held.block.ended.unwrap_or(held.block.until);
            let kept = if held.block.learned { KEPT_LEARNED } else { KEPT };
            held.is_over(now) && end.saturating_add(kept) <= now.wall
        };
        let ids: Vec<u64> = self
            .held
            .iter()
            .filter(|(id, held)| **id != last && !self.unwritten.contains(id) && long_over(held))
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() || self.store.forget(&ids).is_err() {
            return;
        }
        ids.iter().for_each(|id| drop(self.held.remove(id)));
    }

    pub(super) fn write_down(&self, action: &'static str, ids: &[u64], done: bool) {
        let outcome = if done { "confirmed" } else { "not confirmed or not durable" };
        for held in ids.iter().filter_map(|id| self.held.get(id)) {
            let Held { block, .. } = held;
            self.audit(&Entry { action, by: &block.by, what: block, reason: &block.reason, outcome });
        }
    }

    fn audit_unblock(&self, block: &Block, by: &str, durable: bool) {
        let outcome = if durable { "durable" } else { "not durable" };
        self.audit(&Entry { action: "unblock", by, what: block, reason: "", outcome });
    }

    pub(super) fn audit<T: serde::Serialize>(&self, entry: &Entry<'_, T>) {
        if let Err(error) = self.audit.record(self.clock.now().wall, entry) {
            (self.say)(&format!("the audit log was not written: {error}"));
        }
    }
}
