//! Orders of identity providers to end sessions, verified by a worker: as durable as a person's, before the provider hears
//! that it is done.

use std::time::Duration;

use tokio::sync::mpsc;

use super::defaults::{one_site, ordered};
use super::{Control, QUEUE};
use crate::clock::Now;
use crate::request::logout_token::{AHEAD, RECENT};
use crate::stores::blocks::Block;
use crate::stores::logouts::{Logout, Outcome};
use crate::stores::marks::Marks;
use crate::telemetry::audit::Entry;

/// Orders that are known again, all within [`RECENT`] of each other.
pub(super) const REMEMBERED: usize = 16 * 1024;
/// Learned blocks that stand at once; when there are so many another order is not obeyed, and that is said.
const LEARNED: usize = 100_000;

/// What a replay is told from.
pub(super) fn remembered() -> Marks {
    Marks::new(REMEMBERED)
}

/// Waits for orders; for ever, when somebody else hears them.
pub(super) async fn come(orders: &mut Option<mpsc::Receiver<Logout>>) -> Vec<Logout> {
    let mut come = Vec::new();
    if let Some(orders) = orders
        && orders.recv_many(&mut come, QUEUE).await > 0
    {
        return come;
    }
    std::future::pending().await
}

impl Control {
    /// Orders that came together share one publication, one sweep and one commit.
    pub(super) async fn log_out(&mut self, orders: Vec<Logout>) {
        let now = self.clock.now();
        let mut ids = Vec::new();
        let mut taken = Vec::new();
        for order in orders {
            match self.take_order(&order, now) {
                Ok((id, new)) => {
                    ids.extend(new.then_some(id));
                    taken.push(order);
                }
                Err(outcome) => drop(order.reply.send(outcome)),
            }
        }
        if taken.is_empty() {
            return;
        }
        self.publish(&ids);
        let swept = self.sweep(&ids).await;
        let durable = (ids.is_empty() && self.unwritten.is_empty()) || self.commit(&ids);
        self.count_cut(swept.cut);
        for order in taken {
            self.answer_order(order, swept.confirmed && durable, now);
        }
        self.settle();
    }

    /// The number of its block, and whether that is new: one order may come by several ways.
    fn take_order(&mut self, order: &Logout, now: Now) -> Result<(u64, bool), Outcome> {
        if self.spent.has(order.once, now) {
            return Err(Outcome::Replayed);
        }
        let site = one_site(Some(&order.site), &self.sites).map_err(|_| Outcome::NotDone)?;
        let wanted = Block { by: order.by.clone(), ..ordered(order.what.clone(), site, &self.sites, now) };
        let standing = || self.held.values().filter(|held| !held.is_over(now));
        let lasts = |held: &Block| held.what == wanted.what || held.until >= wanted.until;
        if let Some(held) = standing().find(|held| held.block.covers(&wanted) && lasts(&held.block)) {
            return Ok((held.block.id, false));
        }
        if standing().filter(|held| held.block.learned).count() >= LEARNED {
            (self.say)(&format!(
                "an order of {} is not obeyed: {LEARNED} learned blocks stand already",
                order.by
            ));
            return Err(Outcome::NotDone);
        }
        let reason = "OpenID Connect back-channel logout".to_owned();
        Ok((self.hold(Block { reason, ..wanted }, now), true))
    }

    fn answer_order(&self, order: Logout, done: bool, now: Now) {
        let outcome = if done { "confirmed" } else { "not confirmed or not durable" };
        let entry =
            Entry { action: "logout", by: &order.by, what: &order.what, reason: &order.site, outcome };
        self.audit(&entry);
        if done {
            // One that is not done shall be tried again.
            self.spent.mark(order.once, Duration::from_secs(RECENT + AHEAD), now);
        }
        let _ = order.reply.send(if done { Outcome::Done } else { Outcome::NotDone });
    }
}
