//! From an order to a block: on which site, until when, and what the person should know of it.

use crate::admin::api::{Refusal, RefusalKind};
use crate::clock::Now;
use crate::config::app::TokenFormat;
use crate::config::class::Class;
use crate::config::passthrough::Passthrough;
use crate::config::settings::{Settings, Site};
use crate::stores::blocks::order::width;
use crate::stores::blocks::{Block, Order, What};
use crate::telemetry::audit::timestamp;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;
/// A token that does not say its end, and a share link.
const NO_EXPIRY: u64 = 30 * DAY;
/// An address belongs to somebody else tomorrow.
const ADDRESS: u64 = HOUR;
/// Verifiers forgive clocks that differ: a block outlasts its token by this.
const LEEWAY: u64 = 5 * 60 * SECOND;
/// Longest block that is taken.
const LONGEST: u64 = 10 * 365 * DAY;

/// What a block of sessions leaves possible.
const LOGINS: &str =
    "sessions begun until now are ended; logging in again is possible (--and-logins refuses that too)";

/// What the control thread knows of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteFacts {
    /// Its first host.
    pub name: String,
    /// All its hosts, as patterns.
    hosts: Vec<crate::config::values::HostPattern>,
    token_lifetime: u64,
    refresh_lifetime: u64,
    refreshes: bool,
    /// It has routes of class `setup`, or passwords that are for who may set it up.
    pub(super) sets_up: bool,
    /// What its tokens can say of themselves.
    says: Says,
    /// A `[[passthrough]]`: only blocks of addresses mean something there, and only who names it means it.
    pub(super) passed: bool,
}

impl SiteFacts {
    /// The facts of every site.
    pub fn of(settings: &Settings) -> Vec<Self> {
        let passed = settings.passthroughs.iter().map(Self::of_passthrough);
        settings.sites.iter().map(Self::of_site).chain(passed).collect()
    }

    fn of_passthrough(to: &Passthrough) -> Self {
        Self {
            name: to.name(),
            hosts: to.hosts.clone(),
            token_lifetime: 0,
            refresh_lifetime: 0,
            refreshes: false,
            sets_up: false,
            says: Says::Nothing,
            passed: true,
        }
    }

    fn of_site(site: &Site) -> Self {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            name: site.name(),
            hosts: site.hosts.iter().chain(&site.download_host).cloned().collect(),
            token_lifetime: millis(site.token_lifetime),
            refresh_lifetime: millis(site.refresh_lifetime),
            refreshes: site.app.tokens.refresh_cookie.is_some(),
            sets_up: site
                .routes
                .iter()
                .map(|route| route.class)
                .chain(site.app.routes.iter().map(|route| route.class))
                .any(|class| class == Class::Setup)
                || site.app.login.as_ref().is_some_and(|login| !login.default_passwords.is_empty()),
            says: match site.app.tokens.format {
                TokenFormat::Jwt => Says::Number,
                TokenFormat::HmacPair => Says::Subject,
                TokenFormat::Opaque => Says::Nothing,
            },
            passed: false,
        }
    }

    pub(super) fn is_called(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.name == name || self.hosts.iter().any(|host| host.matches(&name))
    }
}

/// What tokens can say of themselves; who says more says the less too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Says {
    /// They are opaque.
    Nothing,
    /// A subject.
    Subject,
    /// A `jti`.
    Number,
}

/// An order that holds: the block (still without a number) and what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The block, numbered 0.
    pub block: Block,
    /// What the person should know.
    pub warnings: Vec<String>,
}

/// Lines an order into a block.
///
/// # Errors
/// When it is too wide without `yes`, or its site is not known or not clear.
pub fn resolve(order: Order, by: &str, sites: &[SiteFacts], now: Now) -> Result<Resolved, Refusal> {
    if let Some(width) = width(&order.what).filter(|_| !order.yes) {
        let message = format!("{width}; if that is meant, say it again with --yes");
        return Err(Refusal::new(RefusalKind::Refused, message));
    }
    let able = able(&order.what, order.site.as_deref(), sites)?;
    let site = site_of(&order, if order.site.is_some() { sites } else { &able })?;
    let mut resolved = on(order, site, by, sites, now);
    resolved.warnings.extend(not_elsewhere(&resolved.block, &able, sites));
    Ok(resolved)
}

/// The block of an order that nobody can be asked about: on its site, or, where that is not clear, on all.
///
/// # Errors
/// With the block: why it holds on all sites.
pub fn unasked(
    order: Order,
    by: &str,
    sites: &[SiteFacts],
    now: Now,
) -> Result<Block, (Box<Block>, Refusal)> {
    match site_of(&order, sites) {
        Ok(site) => Ok(on(order, site, by, sites, now).block),
        Err(refusal) => Err((Box::new(on(order, None, by, &[], now).block), refusal)),
    }
}

/// The sites on which this could meet a token: of opaque ones nobody can tell whose they are.
///
/// # Errors
/// When there is none, or the one that is meant is none of them: the block would hold nowhere, and say that it does.
pub(super) fn able(
    what: &What,
    wanted: Option<&str>,
    sites: &[SiteFacts],
) -> Result<Vec<SiteFacts>, Refusal> {
    let (least, claim) = match what {
        What::Subject { .. } => (Says::Subject, "subject"),
        What::Jti { .. } => (Says::Number, "jti"),
        _ => return Ok(sites.to_vec()),
    };
    let meant = |facts: &&SiteFacts| wanted.is_none_or(|wanted| facts.is_called(wanted));
    let able: Vec<SiteFacts> = sites.iter().filter(|facts| facts.says >= least).cloned().collect();
    if sites.iter().filter(meant).count() == 0 || able.iter().any(|facts| meant(&facts)) {
        return Ok(able);
    }
    let named =
        |facts: Vec<&SiteFacts>| facts.iter().map(|facts| facts.name.as_str()).collect::<Vec<_>>().join(", ");
    let (where_not, elsewhere) = (named(sites.iter().filter(meant).collect()), named(able.iter().collect()));
    let elsewhere = match elsewhere.is_empty() {
        true => String::new(),
        false => format!("; it could hold on {elsewhere}"),
    };
    let message = format!(
        "nothing would be blocked: the tokens of {where_not} have no {claim} that the gateway could read. Block the token itself (`portcullis block token -`, or by what the access log shows: `portcullis block request ID`), or all of them: `portcullis block everyone`{elsewhere}"
    );
    Err(Refusal::new(RefusalKind::Refused, message))
}

/// Where a block of a claim holds nothing, of those sites that its order could have meant.
fn not_elsewhere(block: &Block, able: &[SiteFacts], sites: &[SiteFacts]) -> Option<String> {
    let site = block.site.as_deref()?;
    let not = sites.iter().filter(|facts| !facts.passed && !able.iter().any(|able| able.name == facts.name));
    let not: Vec<&str> = not.map(|facts| facts.name.as_str()).collect();
    let claim = block.what.kind().word();
    (!not.is_empty()).then(|| {
        format!(
            "it holds on {site}; tokens of {} have no {claim}, so that it could hold nothing there",
            not.join(", ")
        )
    })
}

/// The block that an answer has taught: on its own site, and no longer than what it blocks lives.
pub(super) fn learned(what: What, site: &str, lasting: Option<u64>, sites: &[SiteFacts], now: Now) -> Block {
    let order = Order { what, site: None, lasting, expires: None, reason: String::new(), yes: true };
    Block { learned: true, ..on(order, Some(site.to_owned()), "the gateway", sites, now).block }
}

/// A block that somebody else than a person orders for one site: `before` is his.
pub(super) fn ordered(what: What, site: String, sites: &[SiteFacts], now: Now) -> Block {
    let begun = what.clone();
    let order = Order { what, site: None, lasting: None, expires: None, reason: String::new(), yes: true };
    Block { what: begun, learned: true, ..on(order, Some(site), "", sites, now).block }
}

fn on(order: Order, site: Option<String>, by: &str, sites: &[SiteFacts], now: Now) -> Resolved {
    let meant: Vec<&SiteFacts> =
        sites.iter().filter(|facts| site.as_ref().is_none_or(|site| facts.name == *site)).collect();
    let lasting = order.lasting.map(|lasting| lasting.clamp(SECOND, LONGEST));
    let until = lasting.map_or_else(|| default_until(&order, &meant, now), |lasting| now.wall + lasting);
    let warnings = warnings(&order, &meant, until, now);
    let block = Block {
        id: 0,
        site,
        what: begun_until(order.what, now.unix()),
        reason: order.reason,
        by: by.to_owned(),
        created: now.wall,
        until,
        learned: false,
        spares: None,
        ended: None,
    };
    Resolved { block, warnings }
}

/// The site's own name. What names a person or a token only within one application wants a site when there are several.
fn site_of(order: &Order, sites: &[SiteFacts]) -> Result<Option<String>, Refusal> {
    match (&order.what, &order.site, sites) {
        (What::Fingerprint { .. } | What::Share { .. } | What::Address { .. }, None, _) | (_, None, []) => {
            Ok(None)
        }
        _ => one_site(order.site.as_deref(), sites).map(Some),
    }
}

/// The name of the site that is meant: the one that is called so, or the only one.
///
/// # Errors
/// When none is called so, or there are several and none is named.
pub(super) fn one_site(wanted: Option<&str>, sites: &[SiteFacts]) -> Result<String, Refusal> {
    let names = || sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>().join(", ");
    let usage = |message| Err(Refusal::new(RefusalKind::Usage, message));
    let ended: Vec<_> = sites.iter().filter(|site| !site.passed).collect();
    match (wanted, ended.as_slice()) {
        (Some(wanted), _) => match sites.iter().find(|site| site.is_called(wanted)) {
            Some(site) => Ok(site.name.clone()),
            None => usage(format!("there is no site `{wanted}`; the sites are: {}", names())),
        },
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => usage(format!("there are several sites; say which with --site: {}", names())),
    }
}

fn begun_until(what: What, now: u64) -> What {
    match what {
        What::Subject { subject, issuer, and_logins, .. } => {
            What::Subject { subject, issuer, and_logins, before: now }
        }
        What::Everyone { and_logins, .. } => What::Everyone { and_logins, before: now },
        other => other,
    }
}

fn default_until(order: &Order, sites: &[&SiteFacts], now: Now) -> u64 {
    match &order.what {
        What::Address { .. } => now.wall + ADDRESS,
        What::Share { .. } => now.wall + NO_EXPIRY,
        What::Fingerprint { .. } | What::Jti { .. } => match order.expires {
            // A token that says it has ended may still be honoured by an application that does not look.
            Some(expires) => expires
                .saturating_mul(SECOND)
                .saturating_add(LEEWAY)
                .clamp(now.wall + HOUR, now.wall + LONGEST),
            None => now.wall + NO_EXPIRY,
        },
        What::Subject { .. } | What::Session { .. } | What::Everyone { .. } => {
            let longest = sites.iter().map(|site| site.token_lifetime.max(site.refresh_lifetime)).max();
            let longest = longest.filter(|longest| *longest > 0).unwrap_or(NO_EXPIRY);
            now.wall + longest.saturating_add(LEEWAY).min(LONGEST)
        }
    }
}

fn warnings(order: &Order, sites: &[&SiteFacts], until: u64, now: Now) -> Vec<String> {
    let mut warnings = Vec::new();
    if let (What::Fingerprint { .. } | What::Jti { .. }, Some(expires)) = (&order.what, order.expires) {
        let expires = expires.saturating_mul(SECOND);
        if expires > until {
            warnings.push(format!(
                "the token says it lives until {}: after the block ends it works again",
                timestamp(expires)
            ));
        }
        if expires < now.wall {
            warnings.push(format!("the token says it ended at {}", timestamp(expires)));
        }
    }
    let named = |is: fn(&SiteFacts) -> bool| {
        let named: Vec<_> = sites.iter().filter(|site| is(site)).map(|site| site.name.as_str()).collect();
        named.join(", ")
    };
    let refreshing = named(|site| site.refreshes && site.says >= Says::Subject);
    let opaque = named(|site| site.says == Says::Nothing && !site.passed);
    match &order.what {
        What::Fingerprint { .. } | What::Jti { .. } if !refreshing.is_empty() => warnings.push(format!(
            "{refreshing} hands out refresh tokens: whoever holds one gets a new token; \
             `portcullis block subject SUBJECT` refuses that too"
        )),
        What::Everyone { and_logins: false, .. } if !opaque.is_empty() => warnings.push(format!(
            "tokens of {opaque} are opaque, they do not say how old they are: all count as old, so that logging in again is \
             REFUSED TOO, until the block ends or is lifted"
        )),
        What::Subject { and_logins: false, .. } => warnings.push(LOGINS.to_owned()),
        What::Everyone { and_logins: false, .. } => {
            warnings.push(format!("{LOGINS}, unless its token says nothing of its age"));
        }
        _ => {}
    }
    warnings
}
