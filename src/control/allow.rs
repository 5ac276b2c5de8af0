//! `allow`: a timed hole in an allowlist, on every worker before the command returns. In memory only: a restart closes it,
//! so that a door which somebody opened does not come back open.

use std::time::Duration;

use super::Control;
use super::defaults::one_site;
use crate::admin::allow::{AllowOrder, Allowed, HoleShown};
use crate::admin::api::{Refusal, RefusalKind, SCHEMA};
use crate::clock::Now;
use crate::config::class::Class;
use crate::request::facts::scope_of;
use crate::stores::blocks::What;
use crate::stores::blocks::order::width;
use crate::stores::holes::{Hole, MOST};
use crate::telemetry::audit::Entry;

/// Longest life of a hole: whoever needs longer writes it into the config.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Control {
    /// Opens a hole; when the answer says `confirmed`, every worker has it.
    pub(super) async fn allow(&mut self, order: AllowOrder, by: &str) -> Result<Allowed, Refusal> {
        let now = self.clock.now();
        let class = judged(&order)?;
        let site = one_site(order.site.as_deref(), &self.sites)?;
        let hole = Hole {
            scope: scope_of(&site),
            site,
            class,
            network: order.from.trunc(),
            until: Now {
                mono: now.mono.saturating_add(order.lasting.saturating_mul(1_000_000)),
                wall: now.wall.saturating_add(order.lasting),
            },
            by: by.to_owned(),
            reason: order.reason,
        };
        // The same network again: the new end counts, so that a short one closes it.
        self.holes.retain(|old| {
            !old.is_over(now) && (&old.site, old.class, old.network) != (&hole.site, hole.class, hole.network)
        });
        if self.holes.len() >= MOST {
            let message = format!(
                "{MOST} holes are open already; wait until one ends, or write the network into [site.only_from]"
            );
            return Err(Refusal::new(RefusalKind::Refused, message));
        }
        self.holes.push(hole.clone());
        self.publish_holes();
        let confirmed = self.sweep(&[]).await.confirmed;
        let shown = HoleShown::from(&hole);
        let outcome = if confirmed { "confirmed" } else { "not confirmed" };
        self.audit(&Entry { action: "allow", by, what: &shown, reason: &shown.reason, outcome });
        let warnings = self.about(&hole);
        Ok(Allowed { schema: SCHEMA, hole: shown, confirmed, warnings })
    }

    /// The holes that are open, for `status`.
    pub(super) fn open_holes(&self, now: Now) -> Vec<HoleShown> {
        self.holes.iter().filter(|hole| !hole.is_over(now)).map(HoleShown::from).collect()
    }

    /// Requests ask each hole for its end: this only forgets those that have ended, and says so.
    pub(super) fn close_holes(&mut self) {
        let now = self.clock.now();
        self.close_holes_for("time", |hole| hole.is_over(now));
    }

    /// Closes those that are meant, whatever their end; `by` is for the audit log.
    pub(super) fn close_holes_for(&mut self, by: &str, meant: impl Fn(&Hole) -> bool) {
        let (over, open): (Vec<Hole>, Vec<Hole>) =
            std::mem::take(&mut self.holes).into_iter().partition(meant);
        self.holes = open;
        if over.is_empty() {
            return;
        }
        self.publish_holes();
        for hole in over {
            let what = HoleShown::from(&hole);
            self.audit(&Entry { action: "allow ended", by, what: &what, reason: "", outcome: "closed" });
        }
    }

    fn publish_holes(&self) {
        let index = (*self.blocks.load()).clone();
        self.blocks.publish(index.with_holes(self.holes.clone().into()));
    }

    fn about(&self, hole: &Hole) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.sites.iter().any(|facts| facts.name == hole.site && !facts.sets_up) {
            warnings
                .push(format!("no route of {} is of class {}: this opens nothing", hole.site, hole.class));
        }
        if hole.network.addr().is_loopback() {
            warnings.push("this machine may reach it anyway".to_owned());
        }
        warnings
    }
}

fn judged(order: &AllowOrder) -> Result<Class, Refusal> {
    let usage = |message: String| Err(Refusal::new(RefusalKind::Usage, message));
    if order.class != Class::Setup.word() {
        return usage(format!(
            "`{}` cannot be opened for a while, only `setup` can; for other classes write the network into [site.only_from]",
            order.class
        ));
    }
    if order.lasting == 0 || u128::from(order.lasting) > LONGEST.as_millis() {
        return usage("a hole lasts longer than nothing and at most 24h: say e.g. --for 15m".to_owned());
    }
    if let Some(width) = width(&What::Address { network: order.from }).filter(|_| !order.yes) {
        let message = format!("{width}; if that is meant, say it again with --yes");
        return Err(Refusal::new(RefusalKind::Refused, message));
    }
    Ok(Class::Setup)
}
