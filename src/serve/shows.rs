//! What the admin side asks of the running gateway: a scrape, an explanation.

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;

use super::Parted;
use crate::admin::api::{Refusal, RefusalKind};
use crate::admin::metrics::Scrape;
use crate::admin::socket::Explain;
use crate::config::settings::Upstream;
use crate::gateway::explain::{self, Means, Question};
use crate::policy::{Policy, Site, Snapshot};
use crate::telemetry::render::{Gauges, render};
use crate::upstream::health::Health;

/// Renders all workers' counters and the gauges.
pub fn scrape(from: &Parted) -> Scrape {
    let workers = from.metrics.clone();
    let (blocks, limits, resolver) =
        (Arc::clone(&from.blocks), Arc::clone(&from.kept.limits), Arc::clone(&from.resolver));
    let (vitals, logins, clock) = (from.control.vitals(), Arc::clone(&from.kept.logins), from.clock.clone());
    let sessions = Arc::clone(&from.kept.sessions);
    let (log, said) = (from.log.control(), from.said.speaker());
    let (policy, health) = (Arc::clone(&from.policy), Arc::clone(&from.health));
    Arc::new(move || {
        let counts = blocks.load().counts().map(|(kind, count)| (kind.word(), count as u64)).collect();
        let certificates = resolver.current().expiries();
        let gauges = Gauges {
            blocks: counts,
            reload_successful: vitals.reload_successful.load(Relaxed),
            reload_success_time: vitals.reloaded.load(Relaxed),
            state_durable: vitals.durable.load(Relaxed),
            limiter_keys: limits.keys(),
            limiter_evictions: limits.evictions(),
            limiter_shared: limits.newcomers(),
            lockouts: lockouts(&policy.load(), &logins.lockouts.counts(clock.now())),
            sessions_known: sessions.len() as u64,
            log_dropped: log.dropped(),
            process_log_dropped: said.dropped(),
            certificates: certificates.iter().map(|one| (one.host.clone(), one.for_alerts())).collect(),
            upstreams: upstreams(&policy.load(), &health),
        };
        Box::pin(ready(render(&workers, &gauges)))
    })
}

/// Of each site, also those without any: a rate wants a zero to begin with.
fn lockouts(policy: &Policy, counts: &BTreeMap<Arc<str>, (u64, u64)>) -> Vec<(String, u64, u64)> {
    let of = |site: &Site| {
        let (total, active) = counts.get(&site.name).copied().unwrap_or_default();
        (site.name.to_string(), total, active)
    };
    policy.sites.iter().map(of).collect()
}

/// Each upstream of each site that somebody has tried to reach.
fn upstreams(policy: &Policy, health: &Health) -> Vec<(String, String, bool)> {
    let of = |site: &Site| {
        let mut own: Vec<&Upstream> = site.routes.iter().flat_map(|route| route.upstream.members()).collect();
        own.sort_by_key(ToString::to_string);
        own.dedup();
        let seen = |one: &Upstream| Some((site.name.to_string(), one.to_string(), health.get(one)?));
        own.into_iter().filter_map(seen).collect::<Vec<_>>()
    };
    policy.sites.iter().flat_map(of).collect()
}

/// Explains by the policy, the blocks and the code that are at work now.
pub fn explain(from: &Parted) -> Explain {
    let (policy, blocks) = (Arc::clone(&from.policy), Arc::clone(&from.blocks));
    let (share_key, clock) = (from.share_key.clone(), from.clock.clone());
    let seal = Arc::clone(&from.kept.seal);
    let sessions = Arc::clone(&from.kept.sessions);
    Arc::new(move |asked: Value| {
        let usage = |error: String| Refusal::new(RefusalKind::Usage, error);
        let told = serde_json::from_value::<Question>(asked)
            .map_err(|error| usage(error.to_string()))
            .and_then(|question| {
                let snapshot = Snapshot::new(policy.load());
                let index = blocks.load();
                let means = Means {
                    snapshot: &snapshot,
                    index: &index,
                    share_key: &share_key,
                    seal: &seal,
                    sessions: &sessions,
                    now: clock.now(),
                };
                explain::explain(&question, means).map_err(usage)
            })
            .and_then(|told| serde_json::to_value(told).map_err(|error| usage(error.to_string())));
        Box::pin(ready(told))
    })
}
