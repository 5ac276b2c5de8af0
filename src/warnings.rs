//! Warnings that spare people: what is not wrong in a config and yet will hurt. `check`, the start and `status` all ask
//! [`all`], so that each has one text: what is so, why it matters, what to do.

mod downloads;
pub mod machine;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::config::settings::{Settings, Site};
use crate::config::upstream::{Address, Speaks, Upstream};
use crate::request::client::{Client, is_local};

pub use machine::Machine;

/// So many requests must have come before it means something that all came from one client.
const ENOUGH: usize = 100;
/// Applications round, and a login takes a while.
const LEEWAY: Duration = Duration::from_secs(60);

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// One word, for scripts and tests.
    pub word: &'static str,
    /// What is so, and why it matters.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What only a running gateway knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Its state is new: it knows no block of earlier days.
    pub fresh: bool,
    /// The clients of the requests that are remembered, and how many requests each has sent; each client once.
    pub clients: Vec<(Client, usize)>,
    /// Sites, and the longest life in seconds of a token that one of their logins has handed out.
    pub lifetimes: Vec<(String, u64)>,
    /// Sites with a login whose token made no companion cookie.
    pub long_tokens: Vec<String>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// All that is to be said. `running`: `None` for a config that is only looked at.
pub fn all(settings: &Settings, machine: &Machine, running: Option<&Running>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for site in &settings.sites {
        let upstreams = site.upstreams();
        warnings.extend(upstreams.iter().filter_map(|upstream| exposed(site, upstream, machine)));
        warnings.extend(short_lifetime(site));
        warnings.extend(downloads::of(site, running));
    }
    warnings.extend(machine.volatile.map(|kind| volatile(settings, kind)));
    warnings.extend(machine.no_log_directory.as_deref().map(no_log_directory));
    if let Some(running) = running {
        warnings.extend(running.fresh.then(|| fresh(settings)));
        warnings.extend(one_client(&running.clients));
        warnings.extend(settings.sites.iter().filter_map(|site| longer_lived(site, &running.lifetimes)));
        warnings.extend(machine.root.then(root));
    }
    warnings
}

fn exposed(site: &Site, upstream: &Upstream, machine: &Machine) -> Option<Warning> {
    let name = site.name();
    let Address::Tcp { host, port } = &upstream.address else { return None };
    let (host, port) = (&**host, *port);
    let address: Option<IpAddr> = match host {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse().ok(),
    };
    let clear = !matches!(upstream.speaks, Speaks::Https(_));
    let address = address?.to_canonical();
    if clear && !is_local(address) {
        return Some(Warning {
            word: "upstream_public",
            what: format!(
                "the upstream of {name} is reached on a public address in plain HTTP ({host}:{port}), so that others can reach \
                 it too, past every guard, and read passwords and tokens on the way"
            ),
            remedy: "let it listen on a private network or on this machine only, and name that address as `upstream`"
                .into(),
        });
    }
    (address.is_loopback() && machine.listens_to_all(port)).then(|| Warning {
        word: "upstream_exposed",
        what: format!(
            "the upstream of {name} listens on all addresses of this machine (port {port}), not on loopback only: \
             whoever reaches that port passes every guard"
        ),
        remedy: format!("bind the application to 127.0.0.1, or close port {port} in the firewall"),
    })
}

fn short_lifetime(site: &Site) -> Option<Warning> {
    let theirs = site.app.tokens.lifetime;
    (site.token_lifetime < theirs).then(|| Warning {
        word: "lifetime_short",
        what: format!(
            "[site.tokens] lifetime of {} is {}, shorter than the {} of {}: if its tokens live longer, blocks of a person \
             end before they do",
            site.name(),
            span(site.token_lifetime),
            span(theirs),
            site.app.title
        ),
        remedy: "set it to what the application is configured to, or leave it out".into(),
    })
}

fn longer_lived(site: &Site, lifetimes: &[(String, u64)]) -> Option<Warning> {
    let name = site.name();
    let (_, seconds) = lifetimes.iter().find(|(known, _)| *known == name)?;
    let seen = Duration::from_secs(*seconds);
    (seen > site.token_lifetime + LEEWAY).then(|| Warning {
        word: "lifetime_seen",
        what: format!(
            "a login of {name} has handed out a token that lives for {}, longer than the {} that are configured: \
             blocks of a person end before it does, and sessions without a time of issue count as too young",
            span(seen),
            span(site.token_lifetime)
        ),
        remedy: format!("write lifetime = \"{}h\" in [site.tokens]", seen.as_secs().div_ceil(3600)),
    })
}

fn volatile(settings: &Settings, kind: &str) -> Warning {
    Warning {
        word: "state_volatile",
        what: format!(
            "the state directory {} is on {kind}, so emergency blocks do not survive its restart",
            settings.state_dir.display()
        ),
        remedy: "put `state.dir` on a disk or a mounted volume".into(),
    }
}

fn no_log_directory(directory: &Path) -> Warning {
    let directory = directory.display();
    Warning {
        word: "log_directory_missing",
        what: format!(
            "{directory}, where `log.access` is to be written, is not there: the gateway does not start without it"
        ),
        remedy: format!(
            "install -d -o USER -m 750 {directory} (systemd does it by LogsDirectory), or name another place"
        ),
    }
}

fn fresh(settings: &Settings) -> Warning {
    Warning {
        word: "state_fresh",
        what: format!(
            "the state in {} was new at the start, so no block of earlier days is known",
            settings.state_dir.display()
        ),
        remedy: "at a first start that is right; else look whether `state.dir` or its volume has changed, put the old \
                 one back, and give the blocks again"
            .into(),
    }
}

/// Docker's userland proxy, a tunnel, or a proxy in front that says nothing of its clients.
fn one_client(clients: &[(Client, usize)]) -> Option<Warning> {
    let [(Client::Address(address), requests)] = clients else { return None };
    (is_local(*address) && *requests >= ENOUGH).then(|| Warning {
        word: "one_client",
        what: format!(
            "all of the last {requests} requests came from one private address, {address}: if a proxy or Docker's \
             userland proxy stands there, it hides its clients, who share one budget and one place in every allowlist"
        ),
        remedy: "name a proxy that sends X-Forwarded-For in listen.trusted_proxies; for Docker use host networking or \
                 `userland-proxy: false`; if you are the only one who asks, all is well"
            .into(),
    })
}

fn root() -> Warning {
    Warning {
        word: "root",
        what: "the gateway runs as root, so a flaw in it would give away the whole machine".into(),
        remedy: "run it as a user of its own; ports below 1024 want only CAP_NET_BIND_SERVICE".into(),
    }
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds >= 7200 => format!("{:.1}h", time.as_secs_f64() / 3600.0),
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}
