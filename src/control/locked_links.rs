//! Lockouts of share links go to the audit log, a few seconds after they have begun.

use super::Control;
use crate::telemetry::audit::Entry;

/// Who has given the order.
const BY: &str = "share guard";
const REASON: &str = "too many share links that are none";

impl Control {
    /// Writes those that wait.
    pub(super) fn write_lockouts(&self) {
        let (lockouts, more) = self.kept.shares.take_lockouts();
        for lockout in &lockouts {
            let outcome = "locked out, but for links that have answered lately";
            self.audit(&Entry { action: "lockout", by: BY, what: lockout, reason: REASON, outcome });
        }
        if more > 0 {
            let outcome = "only their number is known: too many began at once";
            self.audit(&Entry { action: "lockout", by: BY, what: &more, reason: REASON, outcome });
        }
    }
}
