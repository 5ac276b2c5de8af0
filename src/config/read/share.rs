//! `[site.share_guard]`, and what app files say of share links: `[share]` and `[[limit]]`.

use std::num::NonZeroU32;

use http::StatusCode;

use super::app::error_status;
use super::{Table, Value, suggestion};
use crate::config::app::AppRoute;
use crate::config::bound::{Bound, ValuePlace};
use crate::config::class::Class;
use crate::config::path_pattern::PathPattern;
use crate::config::share::{AppShare, ShareRules};
use crate::config::values::{ValueError, parse_duration};

/// Reads `[site.share_guard]`.
pub(super) fn rules(mut table: Table<'_>) -> ShareRules {
    let default = ShareRules::default();
    let rules = ShareRules {
        misses: table.number("misses").and_then(NonZeroU32::new).unwrap_or(default.misses),
        network_misses: table
            .number("network_misses")
            .and_then(NonZeroU32::new)
            .unwrap_or(default.network_misses),
        per: table.parse("per", parse_duration).unwrap_or(default.per),
        lockout_first: table.parse("lockout_first", parse_duration).unwrap_or(default.lockout_first),
        lockout_most: table.parse("lockout_most", parse_duration).unwrap_or(default.lockout_most),
    };
    let mut wrong = |key, why: &str, help: &str| {
        if let Some(value) = table.get(key) {
            value.wrong(ValueError { message: why.into(), help: help.into() });
        }
    };
    if rules.per.is_zero() {
        wrong("per", "no time at all forgives everything at once", "write e.g. per = \"1m\"");
    }
    if rules.lockout_first.is_zero() {
        wrong("lockout_first", "a lockout of no time is none", "write e.g. lockout_first = \"30s\"");
    }
    if rules.lockout_most < rules.lockout_first {
        wrong(
            "lockout_most",
            "it is shorter than `lockout_first`, the first one",
            "write e.g. lockout_most = \"1h\"",
        );
    }
    table.finish();
    rules
}

/// Reads `[share]` of an app file, whose routes are these.
pub(super) fn share(mut table: Table<'_>, routes: &[AppRoute]) -> AppShare {
    let default = AppShare::default();
    let listed = table.get("dead").and_then(|value| value.list());
    let dead = listed.map(|items| items.iter().filter_map(status).collect());
    let listed = table.get("one_at_a_time").and_then(|value| value.list()).unwrap_or_default();
    let one_at_a_time = listed.iter().filter_map(|item| counted(item, routes)).collect();
    let ends = [("answer", false), ("end", true)];
    let until_end = table.choice("until", &ends).unwrap_or(default.until_end);
    let ranges_count = table.flag("ranges_count").unwrap_or(default.ranges_count);
    table.finish();
    AppShare { dead: dead.unwrap_or(default.dead), one_at_a_time, until_end, ranges_count }
}

fn status(item: &Value<'_>) -> Option<StatusCode> {
    let number = item.number::<u16>()?;
    let found = error_status(number).filter(StatusCode::is_client_error);
    if found.is_none() {
        item.wrong(ValueError {
            message: format!("{number} is no status by which an application says that there is no such link"),
            help: "name statuses from 400 to 499, e.g. dead = [404, 410]".into(),
        });
    }
    found
}

/// A route of class `share_download`, as `[routes]` has it.
fn counted(item: &Value<'_>, routes: &[AppRoute]) -> Option<PathPattern> {
    let text = item.text()?;
    let downloads = routes.iter().filter(|route| route.class == Class::ShareDownload);
    let names: Vec<&str> = downloads.map(|route| route.pattern.as_str()).collect();
    if !names.contains(&text) {
        item.wrong(ValueError {
            message: format!("`{text}` is no route of class `share_download` of this file"),
            help: suggestion(text, &names),
        });
        return None;
    }
    item.parse(str::parse)
}

/// Reads every `[[limit]]`.
pub(super) fn bounds(root: &mut Table<'_>) -> Vec<Bound> {
    root.tables("limit").into_iter().filter_map(bound).collect()
}

fn bound(mut table: Table<'_>) -> Option<Bound> {
    let pattern: Option<PathPattern> = table.needs("match").and_then(|value| value.parse(str::parse));
    if table.get("match").is_none() {
        let help = "write e.g. match = \"/api/files/{id}/thumb\"";
        table.doc.missing(table.span.clone(), "the limit names no `match`", help);
    }
    let query = table.text("query").map(|name| ValuePlace::Query(name.into()));
    let segment = table.get("segment").and_then(|value| segment(&value, pattern.as_ref()?));
    if table.get("query").is_some() == table.get("segment").is_some() {
        let help = "write query = \"size\" for a parameter of the query, or segment = \"size\" for `{size}` of its `match`";
        table.doc.missing(table.span.clone(), "the limit names no place of the value, or two", help);
    }
    let to = table.list("to", str::parse);
    if table.needs("to").is_none() || to.as_ref().is_some_and(Vec::is_empty) {
        let help = "write what may pass, e.g. to = [\"400\", \"{1..4000},{1..4000}\"]";
        table.doc.missing(table.span.clone(), "the limit names no values", help);
    }
    table.finish();
    Some(Bound { pattern: pattern?, place: query.or(segment)?, to: to? })
}

fn segment(value: &Value<'_>, pattern: &PathPattern) -> Option<ValuePlace> {
    let name = value.text()?;
    let place = pattern.place_of(name);
    if place.is_none() {
        let message = format!("`{pattern}` has no segment `{{{name}}}`");
        value.wrong(ValueError { message, help: "name one that stands in braces in `match`".into() });
    }
    place.map(ValuePlace::Segment)
}
