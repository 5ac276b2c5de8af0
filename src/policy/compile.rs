//! Settings → policy. What can be wrong with settings was found by `config::load`; this cannot fail.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, REFERRER_POLICY};

use super::routes::RouteIndex;
use super::{
    AppDenial, Endpoint, HostPlace, Learn, Learning, Policy, Route, RouteGuards, Site, SiteHost, Turning,
};
use crate::config::class::Class;
use crate::config::csp::COLLECTOR;
use crate::config::defaults;
use crate::config::path_pattern::PathPattern;
use crate::config::settings::{self, ClassMap, Observed, Settings};
use crate::config::values::{ByteSize, HostPattern, Networks, Rate as RateValue};
use crate::config::verification::{KeySource, Verification};
use crate::guards::allowlist::Allowlist;
use crate::guards::backchannel::Backchannel;
use crate::guards::browser::Browser;
use crate::guards::counters::Counters;
use crate::guards::headers::{HeaderSet, Ingredients};
use crate::guards::login::{self, Login};
use crate::guards::members::{self, Members};
use crate::guards::rate::Rate;
use crate::guards::share::Share;
use crate::guards::size::Size;
use crate::guards::tries::Tries;
use crate::guards::values::Values;
use crate::guards::verify::Verify;
use crate::request::facts::scope_of;
use crate::stores::attempts::{Lockout, Rule};
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
        let download = site.download_host.iter().map(|host| (host, HostPlace::Download(place)));
        for (host, to) in own.chain(redirects).chain(download) {
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
        csp_report: false,
        nonce: None,
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
    let tries = tries_of(site, kept);
    let share = Arc::new(Share::new(kept, &site.name(), &site.share_guard, &site.app.share.dead));
    let guards = ClassMap::from_fn(|class| RouteGuards {
        tries: Some(tries.clone()),
        share: matches!(class, Class::Share | Class::ShareDownload).then(|| Arc::clone(&share)),
        ..guards_of(site, class, limits, verify.as_ref())
    });
    let mut routes = vec![collector(site, &guards, limits)];
    routes.extend(site.routes.iter().map(|route| own_route(site, route, &guards, limits)));
    routes.extend(site.app.routes.iter().map(|route| Route {
        method: route.method.clone(),
        pattern: route.pattern.clone(),
        folded: fold(&route.pattern),
        own: false,
        class: route.class,
        upstream: route.port.map_or_else(|| site.upstream.clone(), |port| site.upstream.at_port(port)),
        keep_encoded_slash: false,
        turns: turning(site, &route.pattern),
        guards: with_rate(guards.get(route.class), site, &route.pattern, limits),
        observe: Observed::of(site, route.class, None),
        endpoint: None,
    }));
    routes.push(default_route(site, &guards));
    let denials = site.app.denials.iter().map(|denial| {
        let body = Bytes::copy_from_slice(denial.body.as_bytes());
        (denial.status, AppDenial { content_type: denial.content_type.clone(), body })
    });
    Site {
        name: site.name().into(),
        scopes: site
            .hosts
            .iter()
            .chain(&site.download_host)
            .map(|host| scope_of(&host.to_string()))
            .collect(),
        tokens: site.app.tokens.clone(),
        login: site.app.login.clone(),
        devices: site.login_guard.devices,
        learning: learning_of(site),
        backchannel: backchannel_of(site, kept),
        token_lifetime: site.token_lifetime,
        hosts: site.hosts.iter().map(|host| compile_host(settings, site, host)).collect(),
        download: site.download_host.as_ref().map(|host| download_host(settings, site, host)),
        companion: site.companion_cookie,
        denials: denials.collect(),
        replace: site.app.replace.clone(),
        maintenance: site.maintenance.clone(),
        bounds: site.app.bounds.iter().map(|bound| [bound.clone(), bound.to_lowercase()]).collect(),
        takes_reports: site.takes_reports(),
        client_certificates: site.client_certificates.clone(),
        index: RouteIndex::new(&routes),
        routes,
    }
}

fn learning_of(site: &settings::Site) -> Learning {
    let learn = match (site.learn, site.observe) {
        (false, _) => Learn::Off,
        (true, true) => Learn::Observe,
        (true, false) => Learn::On,
    };
    Learning { teaches: site.app.teaches.clone(), learn, refresh_lifetime: site.refresh_lifetime }
}

/// What bad tokens cost a client: looked at before any signature work.
const FAILURES: RateValue =
    RateValue { refill: Duration::from_secs(2), burst: NonZeroU32::MIN.saturating_add(29) };

fn verify_of(site: &settings::Site, kept: &Kept) -> Option<Arc<Verify>> {
    let Verification { source, wanted, cut_at_expiry } = site.verification.as_ref()?;
    let ring = ring_of(source, kept);
    let failures = Rate::new(&kept.limits, &format!("{}/bad tokens", site.name()), FAILURES);
    let verify = Verify::new(ring, site.app.tokens.format, wanted.clone(), failures);
    Some(Arc::new(verify.cutting_at_expiry(*cut_at_expiry)))
}

fn ring_of(source: &KeySource, kept: &Kept) -> Arc<KeyRing> {
    match source {
        KeySource::File(_, keys) => {
            let ring = Arc::<KeyRing>::default();
            ring.publish(Arc::clone(keys));
            ring
        }
        KeySource::Address(address) => kept.rings.of(address),
    }
}

fn backchannel_of(site: &settings::Site, kept: &Kept) -> Option<Backchannel> {
    let Verification { source, wanted, cut_at_expiry: _ } = site.backchannel.as_ref()?;
    let failures = Rate::new(&kept.limits, &format!("{}/bad logout tokens", site.name()), FAILURES);
    Some(Backchannel::new(ring_of(source, kept), wanted.clone(), failures))
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
        members: members_of(site, class),
        browser: Browser::of(class),
        size: Size::new(*site.body.get(class)),
        values: Values,
        rate: rate.map(|rate| Arc::new(Rate::new(limits, &name, rate))),
        share: None,
        tries: None,
    }
}

/// What guards passwords and other secrets: one for all routes of a site.
fn tries_of(site: &settings::Site, kept: &Kept) -> Tries {
    let guard = &site.login_guard;
    let rule = |failures| Rule { failures, per: guard.per };
    let rules = login::Rules {
        pair: rule(guard.failures),
        client: rule(guard.client_failures),
        account: rule(guard.account_failures),
    };
    let counters = Counters {
        logins: Arc::clone(&kept.logins),
        site: site.name().into(),
        scope: scope_of(&site.name()),
        lockout: Lockout { first: guard.lockout_first, most: guard.lockout_most },
    };
    let pairs = site.app.login.as_ref().map(|login| login.default_passwords.clone()).unwrap_or_default();
    let defaults = login::Defaults { pairs, from: site.allowed(Class::Setup) };
    let known = login::Known { logins: Arc::clone(&kept.logged_in), basic: Arc::clone(&kept.let_in) };
    Tries::new(Login::new(counters, known, rules, &guard.never_lock, defaults))
}

fn members_of(site: &settings::Site, class: Class) -> Option<Members> {
    let only = site.members_only && class == Class::Preview;
    let counts = site.companion_cookie && members::counts(class);
    // Where `verify` only observes a forged token has passed it.
    let verified = site.verification.is_some() && !Observed::of(site, class, None).verify;
    (only || counts).then_some(Members { only, verified })
}

/// How requests for one link take turns on a route: what the app file says of its pattern, also where the site has a route
/// of its own for it.
fn turning(site: &settings::Site, pattern: &PathPattern) -> Option<Turning> {
    let share = &site.app.share;
    let named = share.one_at_a_time.contains(pattern);
    named.then_some(Turning { until_end: share.until_end, ranges_count: share.ranges_count })
}

/// The guards of a class, with the rate that the app file gives this pattern.
fn with_rate(
    guards: &RouteGuards,
    site: &settings::Site,
    pattern: &PathPattern,
    limits: &Arc<Limits>,
) -> RouteGuards {
    let mut guards = guards.clone();
    let of_app = site.app.routes.iter().find(|route| route.pattern == *pattern);
    if let Some(rate) = of_app.and_then(|route| route.rate) {
        let name = format!("{}{pattern}", site.name());
        guards.rate = Some(Arc::new(Rate::new(limits, &name, rate)));
    }
    guards
}

fn own_route(
    site: &settings::Site,
    route: &settings::SiteRoute,
    guards: &ClassMap<RouteGuards>,
    limits: &Arc<Limits>,
) -> Route {
    let mut guards = with_rate(guards.get(route.class), site, &route.pattern, limits);
    let rate = site.rate.iter().find(|(of, _)| *of == route.class).map(|(_, rate)| *rate);
    if let (true, Some(rate)) = (route.observe.rate, rate) {
        // What is only counted here must not spend what is enforced elsewhere.
        let name = format!("{}/{}{}", site.name(), route.class, route.pattern);
        guards.rate = Some(Arc::new(Rate::new(limits, &name, rate)));
    }
    if let (Some(members), true) = (&mut guards.members, route.observe.verify) {
        members.verified = false;
    }
    Route {
        method: route.method.clone().filter(|_| !route.class.restricts()),
        pattern: route.pattern.clone(),
        folded: fold(&route.pattern),
        own: true,
        class: route.class,
        upstream: route.upstream.clone().unwrap_or_else(|| site.upstream.clone()),
        keep_encoded_slash: route.keep_encoded_slash,
        turns: turning(site, &route.pattern),
        guards,
        observe: Observed::of(site, route.class, Some(route)),
        endpoint: None,
    }
}

/// Where browsers send reports of violations: for whoever may see the pages.
fn collector(site: &settings::Site, guards: &ClassMap<RouteGuards>, limits: &Arc<Limits>) -> Route {
    let pattern = PathPattern::literal(COLLECTOR);
    let rate = Rate::new(limits, &format!("{}/csp reports", site.name()), REPORTS);
    Route {
        method: None,
        folded: pattern.clone(),
        pattern,
        own: true,
        class: Class::Api,
        upstream: site.upstream.clone(),
        keep_encoded_slash: false,
        turns: None,
        guards: RouteGuards {
            allowlist: guards.get(Class::Page).allowlist.clone(),
            verify: None,
            members: None,
            browser: Browser::of(Class::Api),
            size: Size::new(ByteSize(REPORT_BODY)),
            values: Values,
            rate: Some(Arc::new(rate)),
            share: None,
            tries: None,
        },
        observe: Observed::default(),
        endpoint: Some(Endpoint::CspReports),
    }
}

/// A page may break its policy in a hundred places, and say each by itself.
const REPORTS: RateValue =
    RateValue { refill: Duration::from_secs(1), burst: NonZeroU32::MIN.saturating_add(99) };
/// Largest body of reports.
const REPORT_BODY: u64 = 64 << 10;

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
        turns: None,
        guards: guards.get(site.app.default_class).clone(),
        observe: Observed::of(site, site.app.default_class, None),
        endpoint: None,
    }
}

/// Folded views are in lower case.
fn fold(pattern: &PathPattern) -> PathPattern {
    pattern.to_lowercase()
}

/// The download host: what is shown there runs nothing, keeps nothing and belongs to nobody, whatever the site's own
/// policy.
fn download_host(settings: &Settings, site: &settings::Site, host: &HostPattern) -> SiteHost {
    let mut headers = settings::Headers {
        csp: settings::CspChoice::Own(defaults::DOWNLOAD_CSP.into()),
        csp_observe: false,
        ..site.headers.clone()
    };
    headers.set.extend([
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ]);
    compile_host(settings, &settings::Site { headers, ..site.clone() }, host)
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
