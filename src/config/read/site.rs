//! `[[site]]`.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::download_host::download_host;
use super::gateway::Bodies;
use super::hosts::Hosts;
use super::listen::Public;
use super::upstream_tls::Trust;
use super::{
    Doc, Keys, Span, Table, Value, app, client_certificates, headers, login_guard, nearest, networks, nonce,
    route, share, tokens, upstream, upstreams,
};
use crate::config::app::App;
use crate::config::class::Class;
use crate::config::cluster::Cluster;
use crate::config::defaults;
use crate::config::settings::{ClassMap, Site, SiteRoute};
use crate::config::upstream::{Address, Speaks};
use crate::config::values::{ByteSize, HostPattern, Networks, Rate, ValueError, parse_refill};

/// What a site takes over from the rest of the file.
pub(super) struct Around<'a> {
    pub public: &'a Public,
    pub bodies: Bodies,
}

/// Reads a site.
pub(super) fn site(
    mut table: Table<'_>,
    around: &Around<'_>,
    seen: &mut Hosts,
    apps: &mut app::Cache,
) -> Option<Site> {
    let hosts = hosts(&mut table, seen);
    let redirect_hosts = redirect_hosts(&mut table, &hosts, seen);
    let download_host = download_host(&mut table, seen);
    let app = app::of_site(&mut table, apps);
    let trust = Trust::read(&mut table);
    let upstream = upstream::of_site(&mut table, &trust, seen);
    let asking = upstreams::section(table.section("upstreams"));
    let modes = [("enforce", false), ("observe", true)];
    let observe = table.choice("mode", &modes).unwrap_or(false);
    let learn = table.choice("learn", &[("on", true), ("off", false)]).unwrap_or(true);
    let only_from = only_from(&table.section("only_from"));
    let own_rates = rates(&table.section("rate"));
    let share_guard = share::rules(table.section("share_guard"));
    let mut limits = table.section("limits");
    let bodies = Bodies::read(&mut limits);
    limits.finish();
    let headers = headers::headers(table.section("headers"), around.public.tls.self_signed);
    let tokens = tokens::tokens(table.section("tokens"));
    let login_guard = login_guard::login_guard(table.section("login_guard"));
    if let Some(app) = &app {
        headers::check_variant(table.section("headers"), &headers.csp, app);
        nonce::check(table.section("headers"), &headers, app);
    }
    let routes = routes(&mut table, &only_from, (&trust, &asking), seen);
    trust.finish();
    warn_of_grpc(&table, upstream.as_ref(), &routes);
    let client_certificates = client_certificates::read(&mut table);
    let (doc, span) = (table.doc, table.span.clone());
    table.finish();
    let app = app?;
    let verification = tokens.verification(&app, doc);
    tokens.check_companion(&app, doc);
    let backchannel = tokens.backchannel(&app, doc);
    let host = hosts.first().map(ToString::to_string).unwrap_or_default();
    let upstream = asking.of_site(&upstream?, &app, &host);
    add_ports(&app, &upstream, (doc, span), seen);
    Some(Site {
        rate: merged_rates(own_rates, &app),
        body: merged_bodies(bodies, around.bodies, &app),
        share_guard,
        token_lifetime: tokens.lifetime.unwrap_or(app.tokens.lifetime),
        refresh_lifetime: tokens.refresh_lifetime.unwrap_or(app.tokens.refresh_lifetime),
        hosts,
        redirect_hosts,
        download_host,
        app,
        upstream,
        maintenance: asking.maintenance,
        observe,
        learn,
        only_from,
        login_guard,
        headers,
        routes,
        verification,
        companion_cookie: tokens.companion_cookie,
        members_only: tokens.members_only,
        backchannel,
        client_certificates,
    })
}

/// The other ports that the application listens on.
fn add_ports(app: &App, cluster: &Cluster, (doc, span): (&Doc, Span), seen: &mut Hosts) {
    for port in app.routes.iter().filter_map(|route| route.port) {
        for upstream in cluster.members() {
            if matches!(upstream.address, Address::Unix(_)) {
                let name = &app.name;
                let message =
                    format!("`{name}` listens on port {port} too, which a socket file does not lead to");
                let help = "write upstream = \"http://127.0.0.1:PORT\", as the application does";
                doc.problem(span.clone(), message, help);
            }
            seen.add_upstream(&upstream.at_port(port), span.clone());
        }
    }
}

/// Not wrong: other protocols of calls are content with HTTP/1.1.
fn warn_of_grpc(table: &Table<'_>, upstream: Option<&Cluster>, routes: &[SiteRoute]) {
    let of = |route: &SiteRoute| {
        let cluster = route.upstream.as_ref().or(upstream);
        cluster.map(|cluster| cluster.members().iter().any(|upstream| upstream.speaks == Speaks::Http))
    };
    if routes.iter().any(|route| route.class == Class::Rpc && of(route) == Some(true)) {
        table.doc.warning(
            table.span.clone(),
            "a route of class `rpc` leads to an upstream of HTTP/1.1, by which gRPC cannot go",
            "name the port of its gRPC by \"h2c://…\" or \"https://…\" as the route's `upstream`",
        );
    }
}

fn hosts(table: &mut Table<'_>, seen: &mut Hosts) -> Vec<HostPattern> {
    let help = "write hosts = [\"files.example.com\"]";
    let Some(value) = table.needs("hosts") else {
        table.doc.missing(table.span.clone(), "the site names no `hosts`", help);
        return Vec::new();
    };
    let Some(items) = value.list() else { return Vec::new() };
    if items.is_empty() {
        value.wrong(ValueError { message: "the list is empty".into(), help: help.into() });
    }
    host_list(&items, seen)
}

fn redirect_hosts(table: &mut Table<'_>, hosts: &[HostPattern], seen: &mut Hosts) -> Vec<HostPattern> {
    let Some(value) = table.get("redirect_hosts") else { return Vec::new() };
    if hosts.first().is_some_and(HostPattern::is_wildcard) {
        value.wrong(ValueError {
            message: "the site's first host is a wildcard, so there is nowhere to redirect to".into(),
            help: "name an exact host first in `hosts`".into(),
        });
    }
    host_list(&value.list().unwrap_or_default(), seen)
}

fn host_list(items: &[Value<'_>], seen: &mut Hosts) -> Vec<HostPattern> {
    let mut hosts = Vec::new();
    for item in items {
        if let Some(host) = item.parse(str::parse::<HostPattern>) {
            seen.add(item.doc, &host, item.span.clone());
            hosts.push(host);
        }
    }
    hosts
}

fn only_from(table: &Table<'_>) -> Vec<(Class, Networks)> {
    let mut rules = Vec::new();
    for (word, value) in table.entries(Keys::Classes) {
        let class = class_of_key(word, &value);
        let Some(networks) = networks::of(&value) else { continue };
        let everybody = networks.iter().any(|network| network.prefix_len() == 0);
        let Some(class) = class else { continue };
        if everybody && class.restricts() {
            value.doc.warning(
                value.span.clone(),
                format!("`{class}` is open to everybody"),
                "name only the networks that need it, e.g. [\"10.0.0.0/8\"]",
            );
        }
        rules.push((class, Networks::new(networks)));
    }
    rules
}

fn rates(table: &Table<'_>) -> Vec<(Class, Rate)> {
    table.entries(Keys::Classes).filter_map(|(word, value)| rate_entry(word, &value)).collect()
}

/// Reads `CLASS = { refill = …, burst = … }`.
pub(super) fn rate_entry(word: &str, value: &Value<'_>) -> Option<(Class, Rate)> {
    class_of_key(word, value).zip(rate(value))
}

/// Reads `{ refill = …, burst = … }`.
pub(super) fn rate(value: &Value<'_>) -> Option<Rate> {
    let mut table = value.table()?;
    let refill = table.parse("refill", parse_refill);
    let burst = table.number::<u32>("burst");
    for (key, absent) in
        [("refill", table.needs("refill").is_none()), ("burst", table.needs("burst").is_none())]
    {
        if absent {
            let help = "write e.g. refill = \"20/min\" (long-run rate) and burst = 10 (most at once)";
            table.doc.missing(value.key_span.clone(), format!("`{}` names no `{key}`", value.name), help);
        }
    }
    table.finish();
    Some(Rate { refill: refill?, burst: burst.and_then(NonZeroU32::new)? })
}

/// A class as the key of an entry.
pub(super) fn class_of_key(word: &str, value: &Value<'_>) -> Option<Class> {
    parse_class(word)
        .map_err(|error| value.doc.problem(value.key_span.clone(), error.message, error.help))
        .ok()
}

/// A class as the value of a key.
pub(super) fn class_of(table: &mut Table<'_>, key: &'static str) -> Option<Class> {
    let words = Class::ALL.map(|class| (class.word(), class));
    let value = table.needs(key)?;
    value.may_be_one_of(words.iter().map(|(word, _)| *word));
    value.parse(parse_class)
}

/// Parses the word of a class.
pub(super) fn parse_class(word: &str) -> Result<Class, ValueError> {
    word.parse().map_err(|()| {
        let words = Class::ALL.map(Class::word);
        ValueError {
            message: format!("`{word}` is no class"),
            help: match nearest(word, words) {
                Some(best) => format!("did you mean `{best}`?"),
                None => format!("the classes are {}", words.join(", ")),
            },
        }
    })
}

fn routes(
    table: &mut Table<'_>,
    only_from: &[(Class, Networks)],
    (trust, asking): (&Trust<'_>, &upstreams::Section),
    seen: &mut Hosts,
) -> Vec<SiteRoute> {
    let tables = table.tables("route");
    tables.into_iter().filter_map(|table| route::route(table, only_from, (trust, asking), seen)).collect()
}

fn merged_rates(own: Vec<(Class, Rate)>, app: &Arc<App>) -> Vec<(Class, Rate)> {
    let of = |rates: &[(Class, Rate)], class| {
        rates.iter().find(|(named, _)| *named == class).map(|(_, rate)| *rate)
    };
    Class::ALL
        .into_iter()
        .filter_map(|class| {
            let rate = of(&own, class).or_else(|| of(&app.rate, class)).or_else(|| defaults::rate(class));
            rate.map(|rate| (class, rate))
        })
        .collect()
}

/// The site's `[site.limits]` before `[limits]` before the app file before the defaults; what an app file says of a
/// class is one of its own, which the general `body` does not touch.
fn merged_bodies(own: Bodies, gateway: Bodies, app: &Arc<App>) -> ClassMap<ByteSize> {
    let of_app = |class| app.body.iter().find(|(named, _)| *named == class).map(|(_, size)| *size);
    let body = own.body.or(gateway.body).unwrap_or(defaults::BODY);
    ClassMap::from_fn(|class| match class {
        // A stream of gRPC has no length of its own: hours of it are one request.
        Class::Upload | Class::Rpc => {
            own.upload.or(gateway.upload).or_else(|| of_app(class)).unwrap_or(defaults::UPLOAD_BODY)
        }
        Class::Login => of_app(class).unwrap_or(defaults::LOGIN_BODY),
        Class::Refresh => of_app(class).unwrap_or(defaults::REFRESH_BODY),
        _ => of_app(class).unwrap_or(body),
    })
}
