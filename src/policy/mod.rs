//! Settings become an immutable snapshot that requests are judged by; reload swaps it, requests never see two.

mod compile;
pub mod proposal;
mod routes;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};

pub use compile::compile;
pub use routes::Found;

use crate::config::app::{Login, Teaches, Tokens};
use crate::config::bound::Bound;
use crate::config::class::Class;
use crate::config::client_certificates::ClientCertificates;
use crate::config::cluster::Cluster;
use crate::config::path_pattern::PathPattern;
use crate::config::settings::{ClassMap, Observed, Settings};
use crate::config::values::{HostPattern, Networks};
use crate::guards::allowlist::Allowlist;
use crate::guards::backchannel::Backchannel;
use crate::guards::browser::Browser;
use crate::guards::headers::HeaderSet;
use crate::guards::members::Members;
use crate::guards::rate::Rate;
use crate::guards::share::Share;
use crate::guards::size::Size;
use crate::guards::tries::Tries;
use crate::guards::values::Values;
use crate::guards::verify::Verify;
use crate::request::path::PathViews;
use crate::request::target::Host;
use crate::request::tokens_in::Places;

/// The snapshot. Everything a request needs, nothing that changes.
#[derive(Debug)]
pub struct Policy {
    /// The settings it was compiled from, for those who show them.
    pub settings: Settings,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Networks,
    /// The sites.
    pub sites: Vec<Site>,
    /// Exact host names.
    hosts: HashMap<Box<str>, HostPlace>,
    /// Wildcards, longest name first.
    wildcards: Vec<(HostPattern, HostPlace)>,
    /// Headers of answers that belong to no site.
    pub nowhere: HeaderSet,
}

/// Where a host leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPlace {
    /// To a site; the second number is the place in [`Site::hosts`].
    Site(usize, usize),
    /// Redirected to the first host of a site.
    Redirect(usize),
    /// The download host of a site: nothing without a ticket.
    Download(usize),
}

/// One site.
#[derive(Debug)]
pub struct Site {
    /// Its first host: metrics, logs.
    pub name: Arc<str>,
    /// The names under which blocks may be scoped to it.
    pub scopes: Box<[u64]>,
    /// Where its tokens travel.
    pub tokens: Tokens,
    /// How its logins name accounts and hand out tokens.
    pub login: Option<Login>,
    /// Browsers keep a cookie by which a device is known.
    pub devices: bool,
    /// What else its answers teach.
    pub learning: Learning,
    /// Judges its identity provider's orders to log out, if it takes them.
    pub backchannel: Option<Backchannel>,
    /// How long its access tokens live.
    pub token_lifetime: Duration,
    /// Its hosts with their origins and headers.
    pub hosts: Vec<SiteHost>,
    /// Where browsers are sent for what users uploaded.
    pub download: Option<SiteHost>,
    /// A seen login gets a companion cookie.
    pub companion: bool,
    /// Denial bodies in the application's shape.
    pub denials: HashMap<StatusCode, AppDenial>,
    /// Answers of the application that are replaced, by class and status.
    pub replace: Vec<(Class, StatusCode)>,
    /// What browsers see while no upstream can be reached.
    pub maintenance: Option<Bytes>,
    /// Which values pass, and the same for folded paths.
    pub bounds: Vec<[Bound; 2]>,
    /// Its policies name the collector of reports.
    pub takes_reports: bool,
    /// Its routes; the first is the collector of reports, the last one matches everything.
    pub routes: Vec<Route>,
    /// Who must show a certificate in the handshake.
    pub client_certificates: Option<ClientCertificates>,
    index: routes::RouteIndex,
}

/// What the answers of a site teach.
#[derive(Debug)]
pub struct Learning {
    /// By what.
    pub teaches: Teaches,
    /// Whether it becomes blocks.
    pub learn: Learn,
    /// How long refresh tokens live; zero: not said.
    pub refresh_lifetime: Duration,
}

/// Whether what answers teach becomes blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learn {
    /// It does.
    On,
    /// It is counted only: the site observes.
    Observe,
    /// Nothing is learned.
    Off,
}

impl Learning {
    /// How long a refresh token is remembered, in milliseconds.
    pub fn refresh_millis(&self) -> u64 {
        const UNSAID: Duration = Duration::from_secs(30 * 86_400);
        let life = if self.refresh_lifetime.is_zero() { UNSAID } else { self.refresh_lifetime };
        u64::try_from(life.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Site {
    /// Its own name among [`Site::scopes`].
    pub fn scope(&self) -> u64 {
        self.scopes.first().copied().unwrap_or_default()
    }

    /// Where its answers hand out tokens.
    pub fn handed_out(&self) -> Places<'_> {
        let field = self.login.as_ref().map(|login| &*login.token);
        Places { tokens: &self.tokens, field, lifetime: self.token_lifetime }
    }

    /// Whether the application's own answer of this status is kept from the client.
    pub fn replaces(&self, class: Class, status: StatusCode) -> bool {
        self.replace.contains(&(class, status))
    }

    /// Whether a value of the request is none of those that the app file lets pass, in the path that is forwarded or in any
    /// that a forgiving router may take it for.
    pub fn has_odd_value(&self, path: &PathViews) -> bool {
        self.bounds.iter().any(|[plain, folded]| {
            !plain.lets_pass(path.normal(), path.query()) || !folded.lets_pass(path.folded(), path.query())
        })
    }
}

/// One host of a site.
#[derive(Debug)]
pub struct SiteHost {
    /// The name or wildcard.
    pub pattern: HostPattern,
    /// As browsers write it: `https://files.example.com:8443`.
    pub origin: Box<str>,
    /// Headers of answers by class.
    pub headers: ClassMap<HeaderSet>,
}

/// A denial in the application's shape.
#[derive(Debug, Clone)]
pub struct AppDenial {
    /// Content-Type.
    pub content_type: HeaderValue,
    /// The body.
    pub body: Bytes,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Only this method.
    pub method: Option<http::Method>,
    /// Which paths.
    pub pattern: PathPattern,
    /// The same in lower case, for the folded view.
    folded: PathPattern,
    /// From `[[site.route]]`: stronger than the app file's.
    own: bool,
    /// What it is.
    pub class: Class,
    /// Where it leads.
    pub upstream: Cluster,
    /// `%2F` passes.
    pub keep_encoded_slash: bool,
    /// How requests for one link take turns, where the app file says that they do.
    pub turns: Option<Turning>,
    /// Who judges.
    pub guards: RouteGuards,
    /// Which of them only observe.
    pub observe: Observed,
    /// The gateway answers it itself; nothing of it goes upstream.
    pub endpoint: Option<Endpoint>,
}

/// What the gateway answers itself, below `/.well-known/portcullis/` of every site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Takes reports of violations of the Content-Security-Policy.
    CspReports,
}

/// How requests for one link take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turning {
    /// The turn ends with the last byte of the answer, not with its head.
    pub until_end: bool,
    /// Each request for a range counts as a download.
    pub ranges_count: bool,
}

/// The guards of a route; their order is in `gateway::decide`. (Blocks outlive policies and are not among them.)
#[derive(Debug, Clone)]
pub struct RouteGuards {
    /// Who may reach it.
    pub allowlist: Option<Allowlist>,
    /// Whether tokens are true, where the site verifies them.
    pub verify: Option<Arc<Verify>>,
    /// Who may see it, where it is a preview or a companion cookie counts.
    pub members: Option<Members>,
    /// What browsers may do with it.
    pub browser: Browser,
    /// How large a body may be.
    pub size: Size,
    /// Which values pass.
    pub values: Values,
    /// How often.
    pub rate: Option<Arc<Rate>>,
    /// Tries at secrets: the one of them that waits for a body.
    pub tries: Option<Tries>,
    /// How often a share link may be none; of classes `share` and `share_download`.
    pub share: Option<Arc<Share>>,
}

impl Policy {
    /// Where a host leads; `None`: nowhere, which denies. A single site is also reached by address.
    pub fn place(&self, host: &Host) -> Option<HostPlace> {
        if let Some(place) = self.hosts.get(host.as_str()) {
            return Some(*place);
        }
        if let Some((_, place)) = self.wildcards.iter().find(|(pattern, _)| pattern.matches(host.as_str())) {
            return Some(*place);
        }
        (self.sites.len() == 1 && host.is_address()).then_some(HostPlace::Site(0, 0))
    }

    /// A site by its place.
    pub fn site(&self, site: usize) -> Option<&Site> {
        self.sites.get(site)
    }
}

/// Where the policy is published: one writer (reload), readers that cache per thread by generation.
#[derive(Debug)]
pub struct PolicyCell {
    policy: ArcSwap<Policy>,
    generation: AtomicU64,
}

impl PolicyCell {
    /// A cell that begins with this policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy: ArcSwap::from_pointee(policy), generation: AtomicU64::new(0) }
    }

    /// Replaces the policy; requests that have begun keep theirs.
    pub fn publish(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The current policy.
    pub fn load(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Changes with every publication.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// One worker's view of the policy: reference counts of its own, so that workers share no cache line on the way.
#[derive(Debug)]
pub struct PolicyReader {
    cell: Arc<PolicyCell>,
    cached: RefCell<(u64, Rc<Snapshot>)>,
}

/// A policy as one worker holds it.
#[derive(Debug)]
pub struct Snapshot {
    policy: Arc<Policy>,
    /// Each site's block scopes.
    scopes: Vec<Rc<[u64]>>,
}

impl PolicyReader {
    /// A reader for one thread.
    pub fn new(cell: Arc<PolicyCell>) -> Self {
        let cached = RefCell::new((cell.generation(), Rc::new(Snapshot::new(cell.load()))));
        Self { cell, cached }
    }

    /// The snapshot for a request: called once, at its beginning.
    pub fn current(&self) -> Rc<Snapshot> {
        let generation = self.cell.generation();
        let mut cached = self.cached.borrow_mut();
        if cached.0 != generation {
            *cached = (generation, Rc::new(Snapshot::new(self.cell.load())));
        }
        Rc::clone(&cached.1)
    }
}

impl Snapshot {
    /// A snapshot of a policy for one thread.
    pub fn new(policy: Arc<Policy>) -> Self {
        let scopes = policy.sites.iter().map(|site| Rc::from(&*site.scopes)).collect();
        Self { policy, scopes }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The block scopes of a site.
    pub fn scopes(&self, site: usize) -> Rc<[u64]> {
        self.scopes.get(site).cloned().unwrap_or_else(|| Rc::new([]))
    }
}
