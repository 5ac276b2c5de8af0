//! `[[passthrough]]`: connections whose TLS goes on, byte for byte, to who ends it. They are judged by address only, and cut
//! live like any stream.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use http::Method;
use tokio::io::AsyncWriteExt;

use super::pump::{self, Counts};
use crate::clock::Now;
use crate::config::class::Class;
use crate::config::cluster::Manner;
use crate::config::passthrough::Passthrough;
use crate::config::upstream::{Speaks, Upstream};
use crate::gateway::{ForwardError, Gateway, Reason};
use crate::listener::passage::{Carry, Passages, Passing};
use crate::listener::proxy;
use crate::policy::PolicyReader;
use crate::request::client::Client;
use crate::request::facts::{Companion, Facts, Origin, scope_of};
use crate::stores::streams::Kill;
use crate::telemetry::line::{Entry, Masks, Verdict};
use crate::telemetry::mask::Mask;
use crate::telemetry::metrics::{Metrics, SiteMetrics};
use crate::upstream::Upstreams;
use crate::upstream::connect::{self, Means};

/// The label of these connections in `portcullis_connections{listener}`.
const LISTENER: &str = "passthrough";
/// TLS's own word for "not you" (`access_denied`), which names that are nobody's get too.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What passing through needs of its worker.
pub struct Ways {
    /// Blocks, live streams, log and clock.
    pub gateway: Rc<Gateway<Upstreams>>,
    /// The policy, for its `[[passthrough]]`.
    pub policy: Rc<PolicyReader>,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// How to connect.
    pub means: Means,
}

/// All of it, as the listeners see it.
pub struct Doors(pub Rc<Ways>);

impl Passages for Doors {
    fn any(&self) -> bool {
        !self.0.policy.current().policy().settings.passthroughs.is_empty()
    }

    fn lead(&self, name: &str) -> Option<Carry> {
        let snapshot = self.0.policy.current();
        let settings = &snapshot.policy().settings;
        let exact = |to: &&Passthrough| to.hosts.iter().any(|host| !host.is_wildcard() && host.matches(name));
        let wide = |to: &&Passthrough| to.hosts.iter().any(|host| host.matches(name));
        let found = settings.passthroughs.iter().find(exact).or_else(|| {
            // A site that has this very name is nearer than a wildcard.
            let ours = settings.sites.iter().any(|site| {
                let hosts = site.hosts.iter().chain(&site.redirect_hosts).chain(&site.download_host);
                hosts.into_iter().any(|host| !host.is_wildcard() && host.matches(name))
            });
            settings.passthroughs.iter().filter(|_| !ours).find(wide)
        })?;
        let (ways, to, name) = (Rc::clone(&self.0), found.clone(), Box::from(name));
        Some(Box::new(move |passing| Box::pin(async move { ways.carry(&to, name, passing).await })))
    }
}

/// One connection, for metrics and log; told of when dropped, however it ended.
struct Passage {
    ways: Rc<Ways>,
    site: String,
    name: Box<str>,
    client: Client,
    begun: Now,
    id: Rc<str>,
    counts: Counts,
    outcome: Cell<(u16, Verdict)>,
    cause: Cell<Option<Box<str>>>,
    metrics: SiteMetrics,
    kill: Rc<Kill>,
}

impl Ways {
    async fn carry(self: Rc<Self>, to: &Passthrough, name: Box<str>, mut passing: Passing) {
        let facts = Rc::new(self.facts(to, &passing));
        // Registered before the index is read: a block is seen here, or its sweep sees this connection.
        let _live = self.gateway.streams.register(Rc::clone(&facts), Rc::clone(&passing.kill));
        let passage = Passage::begin(Rc::clone(&self), to, name, &passing);
        if let Some((guard, reason)) = self.refusal(to, &facts) {
            passage.refused(guard, reason);
            // Whoever is refused may be gone already.
            let _ = passing.socket.write_all(&ALERT).await;
            let _ = passing.socket.shutdown().await;
            return;
        }
        let upstream = Upstream { address: to.upstream.clone(), speaks: Speaks::Http };
        match connect::for_bytes(&upstream, &self.means, Manner::default().connect_timeout).await {
            Ok(wire) => {
                let before = if to.proxy_protocol { header(&passing) } else { Vec::new() };
                let Passing { socket, hello, .. } = passing;
                passage.counts.up(hello.len() as u64);
                let first = [before, hello].concat();
                let idle = to.idle_timeout;
                let ended =
                    pump::both_ways(socket, wire, &first, &passage.counts, (&self.gateway.clock, idle)).await;
                passage.cause.set(ended.map(Into::into));
            }
            Err(error) => {
                let late = matches!(error, ForwardError::Timeout(_));
                passage.outcome.set((if late { 504 } else { 502 }, Verdict::Permitted));
                passage.cause.set(Some(error.to_string().into()));
            }
        }
    }

    /// What blocks may know of it: its address and the names that it is blocked under.
    fn facts(&self, to: &Passthrough, passing: &Passing) -> Facts {
        Facts {
            client: passing.client,
            scopes: to.hosts.iter().map(|host| scope_of(&host.to_string())).collect(),
            class: Class::Rpc,
            method: Method::CONNECT,
            credentials: Vec::new(),
            share: None,
            body_length: None,
            basic: false,
            websocket: false,
            origin: Origin::Absent,
            companion: Companion::Absent,
            runs_as_code: false,
            embedded: false,
            odd_value: false,
            ends: None,
            now: self.gateway.clock.now(),
            rehearsal: false,
        }
    }

    fn refusal(&self, to: &Passthrough, facts: &Facts) -> Option<(&'static str, Reason)> {
        let Client::Address(client) = facts.client else {
            return Some(("allowlist", Reason::NotAllowlisted));
        };
        if to.only_from.as_ref().is_some_and(|networks| !networks.contains(client)) {
            return Some(("allowlist", Reason::NotAllowlisted));
        }
        self.gateway.blocks.current().matching(facts).map(|_| ("blocks", Reason::AddressBlocked))
    }
}

fn header(passing: &Passing) -> Vec<u8> {
    // Both ends of a connection that lives are known.
    passing.socket.local_address().map(|local| proxy::encode(passing.peer, local)).unwrap_or_default()
}

impl Passage {
    fn begin(ways: Rc<Ways>, to: &Passthrough, name: Box<str>, passing: &Passing) -> Self {
        ways.metrics.connection_opened(LISTENER);
        let site = to.name();
        Self {
            metrics: SiteMetrics::new(&ways.metrics, &site),
            name,
            client: passing.client,
            begun: ways.gateway.clock.now(),
            id: ways.gateway.next_id(),
            counts: Counts::new(ways.metrics.passed(&site)),
            outcome: Cell::new((200, Verdict::Permitted)),
            cause: Cell::new(None),
            kill: Rc::clone(&passing.kill),
            site,
            ways,
        }
    }

    fn refused(&self, guard: &'static str, reason: Reason) {
        self.outcome.set((403, Verdict::Denied { guard, reason: reason.word() }));
        self.metrics.denial(None, guard, reason.word());
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let ways = &self.ways;
        ways.metrics.connection_closed(LISTENER);
        if !ways.gateway.lane.is_on() {
            return;
        }
        let (status, verdict) = self.outcome.get();
        let cause = self.cause.take();
        let mask = Mask::default();
        let client = match self.client {
            Client::Address(client) => Some(client),
            Client::Unknown => None,
        };
        let lasted = ways.gateway.clock.now().mono.saturating_sub(self.begun.mono);
        let entry = Entry {
            wall: self.begun.wall,
            id: &self.id,
            client,
            site: &self.site,
            class: None,
            method: "CONNECT",
            target: &self.name,
            version: "TLS",
            referer: None,
            agent: None,
            location: None,
            status,
            verdict,
            received: self.counts.sent_up(),
            sent: self.counts.sent_down(),
            duration: std::time::Duration::from_nanos(lasted),
            upstream: None,
            cause: self.kill.cause().or(cause.as_deref()),
            token: None,
            certificate: None,
        };
        ways.gateway.lane.write(&entry, Masks { site: &mask, all: &mask });
    }
}
