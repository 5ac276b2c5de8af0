//! What `check` tells of share links and of values that are bounded.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::check::span;
use crate::config::bound::{Bound, ValuePlace};
use crate::config::class::Class;
use crate::config::settings::Site;

/// Writes the lines; none for an application without share links and bounds.
pub(super) fn write(site: &Site, out: &mut dyn Write) -> io::Result<()> {
    if has_shares(site) {
        let rules = site.share_guard;
        writeln!(
            out,
            "  share guard {} links that are none in {} for a client, {} for its network; then locked out for {} to {}",
            rules.misses,
            span(rules.per),
            rules.network_misses,
            span(rules.lockout_first),
            span(rules.lockout_most)
        )?;
    }
    let routes: Vec<_> = site.app.share.one_at_a_time.iter().map(ToString::to_string).collect();
    if !routes.is_empty() {
        let ranges = if site.app.share.ranges_count { ", each range a download" } else { "" };
        writeln!(out, "  in turn     {} (one at a time for a link{ranges})", routes.join(", "))?;
    }
    for bound in &site.app.bounds {
        writeln!(out, "  values      {}: {} is {}", bound.pattern, place(bound), values(bound).join(" | "))?;
    }
    Ok(())
}

/// The same for `--json`.
pub(super) fn json(site: &Site) -> Value {
    let seconds = |time: Duration| time.as_secs_f64();
    let rules = site.share_guard;
    let share = &site.app.share;
    let routes: Vec<_> = share.one_at_a_time.iter().map(ToString::to_string).collect();
    let guard = json!({
        "misses": rules.misses,
        "network_misses": rules.network_misses,
        "per_seconds": seconds(rules.per),
        "lockout_first_seconds": seconds(rules.lockout_first),
        "lockout_most_seconds": seconds(rules.lockout_most),
        "dead": share.dead.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(),
        "one_at_a_time": routes,
        "until_end": share.until_end,
        "ranges_count": share.ranges_count,
    });
    if has_shares(site) { guard } else { Value::Null }
}

/// The bounds for `--json`.
pub(super) fn bounds_json(site: &Site) -> Value {
    let one = |bound: &Bound| json!({ "match": bound.pattern.as_str(), "value": place(bound), "to": values(bound) });
    site.app.bounds.iter().map(one).collect()
}

fn has_shares(site: &Site) -> bool {
    let of_app = site.app.routes.iter().map(|route| route.class);
    of_app
        .chain(site.routes.iter().map(|route| route.class))
        .any(|class| matches!(class, Class::Share | Class::ShareDownload))
}

/// As a person would say it: `?size` or `{size}`.
fn place(bound: &Bound) -> String {
    match &bound.place {
        ValuePlace::Query(name) => format!("?{name}"),
        ValuePlace::Segment(place) => {
            bound.pattern.as_str().split('/').skip(1).nth(*place).unwrap_or_default().to_owned()
        }
    }
}

fn values(bound: &Bound) -> Vec<String> {
    bound.to.iter().map(ToString::to_string).collect()
}
