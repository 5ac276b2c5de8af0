//! Settings → policy. What can be wrong with settings was found by `config::load`; this cannot fail.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::routes::RouteIndex;
use super::{AppDenial, HostPlace, Policy, Route, RouteGuards, Site, SiteHost};
use crate::config::class::Class;
use crate::config::path_pattern::PathPattern;
use crate::config::settings::{self, ClassMap, Observed, Settings};
use crate::config::values::{HostPattern, Networks, Rate as RateValue};
use crate::config::verification::{KeySource, Verification};
use crate::guards::allowlist::Allowlist;
use crate::guards::browser::Browser;
use crate::guards::headers::{HeaderSet, Ingredients};
use crate::guards::rate::Rate;
use crate::guards::size::Size;
use crate::guards::verify::Verify;
use crate::request::facts::scope_of;
use crate::stores::kept::Kept;
use crate::stores::keys::KeyRing;
use crate::stores::limits::Limits;

/// Compiles a policy over the stores that outlive it.
pub fn compile(settings: &Settings, kept: &Kept) -> Policy {
    let sites: Vec<Site> = settings.sites.iter().map(|site| compile_site(settings, site, kept)).collect();
    let mut hosts = HashMap::new();
    let mut wildcards = Vec::new();
    for (place, site) in settings.sites.iter().enumerate() {
        let own = site.hosts.iter().enumerate().map(|(at, host)| (host, HostPlace::Site(place, at)));
        let redirects = site.redirect_hosts.iter().map(|host| (host, HostPlace::Redirect(place)));
        for (host, to) in own.chain(redirects) {
            if host.is_wildcard() {
                wildcards.push((host.clone(), to));
            } else {
                hosts.insert(host.name().into(), to);
            }
        }
    }
    wildcards.sort_by_key(|(host, _): &(HostPattern, _)| std::cmp::Reverse(host.name().len()));
    Policy {
        nowhere: nowhere(settings),
        settings: settings.clone(),
        trusted_proxies: settings.listen.trusted_proxies.clone(),
        sites,
        hosts,
        wildcards,
    }
}

/// The whole header set also where no site is: audits look at the address.
fn nowhere(settings: &Settings) -> HeaderSet {
    let headers = settings::Headers {
        csp: settings::CspChoice::App,
        csp_observe: false,
        hsts: settings.sites.first().and_then(|site| site.headers.hsts.clone()),
        set: Vec::new(),
    };
    HeaderSet::build(Ingredients {
        class: Class::Api,
        headers: &headers,
        app_csp: "default-src 'none'; frame-ancestors 'none'",
        origin: "",
    })
}

fn compile_site(settings: &Settings, site: &settings::Site, kept: &Kept) -> Site {
    let limits = &kept.limits;
    let verify = verify_of(site, kept);
    let guards = ClassMap::from_fn(|class| guards_of(site, class, limits, verify.as_ref()));
    let mut routes: Vec<Route> =
        site.routes.iter().map(|route| own_route(site, route, &guards, limits)).collect();
    routes.extend(site.app.routes.iter().map(|route| Route {
        method: route.method.clone(),
        pattern: route.pattern.clone(),
        folded: fold(&route.pattern),
        own: false,
        class: route.class,
        upstream: route.port.map_or_else(|| site.upstream.clone(), |port| site.upstream.at_port(port)),
        keep_encoded_slash: false,
        guards: guards.get(route.class).clone(),
        observe: Observed::of(site, route.class, None),
    }));
    routes.push(default_route(site, &guards));
    let denials = site.app.denials.iter().map(|denial| {
        let body = Bytes::copy_from_slice(denial.body.as_bytes());
        (denial.status, AppDenial { content_type: denial.content_type.clone(), body })
    });
    Site {
        name: site.name().into(),
        scopes: site.hosts.iter().map(|host| scope_of(&host.to_string())).collect(),
        tokens: site.app.tokens.clone(),
        login: site.app.login.clone(),
        token_lifetime: site.token_lifetime,
        hosts: site.hosts.iter().map(|host| compile_host(settings, site, host)).collect(),
        denials: denials.collect(),
        replace: site.app.replace.clone(),
        client_certificates: site.client_certificates.clone(),
        index: RouteIndex::new(&routes),
        routes,
    }
}

/// What bad tokens cost a client: looked at before any signature work.
const FAILURES: RateValue =
    RateValue { refill: Duration::from_secs(2), burst: NonZeroU32::MIN.saturating_add(29) };

fn verify_of(site: &settings::Site, kept: &Kept) -> Option<Arc<Verify>> {
    let Verification { source, wanted, cut_at_expiry } = site.verification.as_ref()?;
    let ring = match source {
        KeySource::File(keys) => {
            let ring = Arc::<KeyRing>::default();
            ring.publish(Arc::clone(keys));
            ring
        }
        KeySource::Address(address) => kept.rings.of(address),
    };
    let failures = Rate::new(&kept.limits, &format!("{}/bad tokens", site.name()), FAILURES);
    let verify = Verify::new(ring, site.app.tokens.format, wanted.clone(), failures);
    Some(Arc::new(verify.cutting_at_expiry(*cut_at_expiry)))
}

fn guards_of(
    site: &settings::Site,
    class: Class,
    limits: &Arc<Limits>,
    verify: Option<&Arc<Verify>>,
) -> RouteGuards {
    let listed = site.only_from.iter().find(|(of, _)| *of == class).map(|(_, networks)| networks.clone());
    let networks = listed.or_else(|| class.restricts().then(Networks::loopback));
    let rate = site.rate.iter().find(|(of, _)| *of == class).map(|(_, rate)| *rate);
    let name = format!("{}/{class}", site.name());
    RouteGuards {
        allowlist: networks.map(Allowlist::new),
        verify: verify.cloned(),
        browser: Browser::of(class),
        size: Size::new(*site.body.get(class)),
        rate: rate.map(|rate| Arc::new(Rate::new(limits, &name, rate))),
    }
}

fn own_route(
    site: &settings::Site,
    route: &settings::SiteRoute,
    guards: &ClassMap<RouteGuards>,
    limits: &Arc<Limits>,
) -> Route {
    let mut guards = guards.get(route.class).clone();
    let rate = site.rate.iter().find(|(of, _)| *of == route.class).map(|(_, rate)| *rate);
    if let (true, Some(rate)) = (route.observe.rate, rate) {
        // What is only counted here must not spend what is enforced elsewhere.
        let name = format!("{}/{}{}", site.name(), route.class, route.pattern);
        guards.rate = Some(Arc::new(Rate::new(limits, &name, rate)));
    }
    Route {
        method: route.method.clone().filter(|_| !route.class.restricts()),
        pattern: route.pattern.clone(),
        folded: fold(&route.pattern),
        own: true,
        class: route.class,
        upstream: route.upstream.clone().unwrap_or_else(|| site.upstream.clone()),
        keep_encoded_slash: route.keep_encoded_slash,
        guards,
        observe: Observed::of(site, route.class, Some(route)),
    }
}

fn default_route(site: &settings::Site, guards: &ClassMap<RouteGuards>) -> Route {
    let everything = PathPattern::everything();
    Route {
        method: None,
        folded: everything.clone(),
        pattern: everything,
        own: false,
        class: site.app.default_class,
        upstream: site.upstream.clone(),
        keep_encoded_slash: false,
        guards: guards.get(site.app.default_class).clone(),
        observe: Observed::of(site, site.app.default_class, None),
    }
}

/// Folded views are in lower case.
fn fold(pattern: &PathPattern) -> PathPattern {
    pattern.to_lowercase()
}

fn compile_host(settings: &Settings, site: &settings::Site, host: &HostPattern) -> SiteHost {
    let origin = match settings.listen.public_port {
        443 => format!("https://{host}"),
        port => format!("https://{host}:{port}"),
    };
    let headers = ClassMap::from_fn(|class| {
        HeaderSet::build(Ingredients {
            class,
            headers: &site.headers,
            app_csp: site.app_csp(class),
            origin: &origin,
        })
    });
    SiteHost { pattern: host.clone(), origin: origin.into(), headers }
}
