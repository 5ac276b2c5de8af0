//! `[[site.route]]`, and what app files and sites share about routes.

use http::Method;

use super::hosts::Hosts;
use super::site::class_of;
use super::upstream_tls::Trust;
use super::upstreams::Section;
use super::{Table, Value, upstream};
use crate::config::class::Class;
use crate::config::path_pattern::PathPattern;
use crate::config::settings::{Observed, SiteRoute};
use crate::config::values::{Networks, ValueError};

/// Reads a route of a site.
pub(super) fn route(
    mut table: Table<'_>,
    only_from: &[(Class, Networks)],
    (trust, asking): (&Trust<'_>, &Section),
    seen: &mut Hosts,
) -> Option<SiteRoute> {
    for (key, example) in [("match", "match = \"/internal/*\""), ("class", "class = \"admin\"")] {
        if table.needs(key).is_none() {
            let message = format!("the route names no `{key}`");
            table.doc.missing(table.span.clone(), message, format!("write e.g. {example}"));
        }
    }
    let class = class_of(&mut table, "class");
    let matches = table.get("match").and_then(|value| route_match(&value, class));
    let upstream = upstream::of_route(&mut table, trust, asking.of_routes(), seen);
    let observe = observed(&mut table, class);
    let keep_encoded_slash = keeps_slash(&mut table, class, only_from);
    table.finish();
    let (method, pattern) = matches?;
    Some(SiteRoute { method, pattern, class: class?, upstream, observe, keep_encoded_slash })
}

/// Reads `/path` or `METHOD /path`. A class that restricts takes no method: a guard that POST walks round is none.
pub(super) fn route_match(value: &Value<'_>, class: Option<Class>) -> Option<(Option<Method>, PathPattern)> {
    let text = value.text()?;
    let (word, path) = match text.split_once(' ') {
        Some((word, path)) => (Some(word), path.trim_start()),
        None => (None, text),
    };
    let method = match word.map(parse_method).transpose() {
        Ok(method) => method,
        Err(error) => {
            value.wrong(error);
            return None;
        }
    };
    if let Some((word, class)) = word.zip(class.filter(|class| class.restricts())) {
        value.wrong(ValueError {
            message: format!("`{word}` narrows a route of class `{class}`, which restricts access"),
            help: format!("write \"{path}\": such a class holds for every method"),
        });
    }
    let pattern = path.parse::<PathPattern>().map_err(|error| value.wrong(error)).ok()?;
    Some((method, pattern))
}

fn parse_method(word: &str) -> Result<Method, ValueError> {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let standing = known.contains(&word).then(|| Method::from_bytes(word.as_bytes()).ok()).flatten();
    standing.ok_or_else(|| ValueError {
        message: format!("`{word}` is no method"),
        help: format!("write one of {} before the path, or none", known.join(", ")),
    })
}

/// `observe = ["rate"]`: every item is read, so that each wrong one is told.
fn observed(table: &mut Table<'_>, class: Option<Class>) -> Observed {
    let mut found = Observed::default();
    for guard in table.get("observe").and_then(|value| value.list()).unwrap_or_default() {
        let always = |why: &str| {
            guard.wrong(ValueError {
                message: format!("`{}` always enforces: {why}", guard.text().unwrap_or_default()),
                help:
                    "remove it; what may observe is verify, members, browser, size, values, rate, share, login, and the allowlist of an open class"
                        .into(),
            });
        };
        let words = [
            "allowlist",
            "verify",
            "members",
            "browser",
            "size",
            "values",
            "rate",
            "share",
            "login",
            "blocks",
            "malformed",
        ];
        let words = words.map(|word| (word, word));
        match guard.choice(&words) {
            Some("allowlist") => match class.filter(|class| class.restricts()) {
                Some(class) => always(&format!("class `{class}` is closed by default")),
                None => found.allowlist = true,
            },
            Some("verify") => found.verify = true,
            Some("members") => found.members = true,
            Some("browser") => found.browser = true,
            Some("size") => found.size = true,
            Some("values") => found.values = true,
            Some("rate") => found.rate = true,
            Some("login") => found.login = true,
            Some("share") => found.share = true,
            Some("blocks") => always("an operator's block holds everywhere"),
            Some("malformed") => always("what can be understood in two ways cannot be judged"),
            _ => {}
        }
    }
    found
}

fn keeps_slash(table: &mut Table<'_>, class: Option<Class>, only_from: &[(Class, Networks)]) -> bool {
    let Some(value) = table.get("encoded_slash") else { return false };
    let keep = value.choice(&[("keep", true), ("refuse", false)]).unwrap_or(false);
    let guarded = |class: &Class| class.restricts() || only_from.iter().any(|(named, _)| named == class);
    if let Some(class) = class.filter(|class| keep && guarded(class)) {
        value.wrong(ValueError {
            message: format!("`%2F` cannot be kept on a route of class `{class}`, which restricts access"),
            help: "remove it, or give the route a class that everybody may reach".into(),
        });
    }
    keep
}
