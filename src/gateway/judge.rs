//! Whether a request may go on: the gateway's own cap, then the guards.

use std::time::Duration;

use super::exchange::Exchange;
use super::read::Reading;
use super::{Decision, Gateway, Link, decide};
use crate::guards::{Denial, Reason, Verdict};

/// When a client that has too much in flight may come again: as soon as something of it has ended.
pub(super) const SOON: Duration = Duration::from_secs(1);

impl<U> Gateway<U> {
    /// Whether the request may go on: the gateway's own cap, then the guards.
    pub(super) fn judge(
        &self,
        exchange: &mut Exchange,
        link: &dyn Link,
        reading: &Reading<'_>,
    ) -> Result<Decision, Denial> {
        self.admit(exchange, link)?;
        let index = self.blocks.current();
        let on = &mut |guard, verdict: &Verdict| exchange.heard(guard, verdict);
        decide(reading.found.route, &index, &reading.facts, &reading.presented, on)
    }

    /// A trusted proxy's connections are not capped per client: its clients' requests in flight are. Not a guard, since it
    /// is no fact of the request, and what is explained or rehearsed is not in flight.
    pub(super) fn admit(&self, exchange: &mut Exchange, link: &dyn Link) -> Result<(), Denial> {
        let policy = exchange.policy();
        if !policy.trusted_proxies.contains(link.peer().to_canonical()) {
            return Ok(());
        }
        let most = policy.settings.limits.connections_per_client;
        let place = self.in_flight.take(exchange.client, most);
        exchange.place = Some(place.ok_or(Denial {
            guard: "listener",
            reason: Reason::ClientFull,
            retry_after: Some(SOON),
        })?);
        Ok(())
    }
}
