//! A new config goes into service beside the old one: everything that can fail first, then the swap.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::notify;
use super::passed::Passed;
use crate::clock::Clock;
use crate::config::problem::{Problem, Problems};
use crate::config::settings::Settings;
use crate::config::values::{HostPattern, Networks};
use crate::config::watch::{Contents, Watch};
use crate::config::{self, Loaded};
use crate::control::reload::Reloader;
use crate::listener::Kind;
use crate::listener::accept::Listener;
use crate::listener::tls::{Certificates, Entrance, Expiry, Leaf, Resolver, Wanted};
use crate::policy::{PolicyCell, compile};
use crate::stores::kept::Kept;
use crate::telemetry::access_log::{self, Prepared};
use crate::upstream::health::Health;
use crate::worker::Workers;

/// What a reload swaps.
pub struct Live {
    means: Means,
    /// What the files held before they were read last.
    seen: Contents,
    files: Vec<PathBuf>,
    settings: Settings,
}

/// Where the swapped things live.
pub struct Means {
    /// The clocks.
    pub clock: Clock,
    /// The policy.
    pub policy: Arc<PolicyCell>,
    /// What goes on: budgets, fetched keys, what was learned.
    pub kept: Kept,
    /// Certificates.
    pub resolver: Arc<Resolver>,
    /// Who must show a certificate.
    pub entrance: Arc<Entrance>,
    /// What the admin side reads.
    pub shared: Shared,
    /// Told of new files.
    pub watch: Arc<Watch>,
    /// The access log.
    pub log: access_log::Control,
    /// Sockets that a supervisor has bound.
    pub passed: Arc<Passed>,
    /// Which upstreams were reached last.
    pub health: Arc<Health>,
}

/// What others read or give while the gateway runs.
#[derive(Clone)]
pub struct Shared {
    /// Who may scrape.
    pub metrics_only_from: Arc<ArcSwap<Networks>>,
    workers: Arc<Mutex<Workers>>,
}

impl Shared {
    /// Begins with these settings.
    pub fn new(settings: &Settings) -> Self {
        let only_from = settings.admin.metrics_only_from.clone();
        Self { metrics_only_from: Arc::new(ArcSwap::from_pointee(only_from)), workers: Arc::default() }
    }

    /// The workers, once they run.
    pub fn set_workers(&self, workers: Workers) {
        *self.workers.lock().unwrap_or_else(PoisonError::into_inner) = workers;
    }

    fn workers(&self) -> Workers {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sockets that a config asks for.
pub fn wanted(settings: &Settings) -> Vec<(Kind, SocketAddr)> {
    let of = |kind, addresses: &[SocketAddr]| {
        addresses.iter().map(move |address| (kind, *address)).collect::<Vec<_>>()
    };
    let listen = &settings.listen;
    [of(Kind::Https, &listen.https), of(Kind::Http, &listen.http), of(Kind::Plain, &listen.plain)].concat()
}

impl Live {
    /// What runs now.
    pub fn new(means: Means, seen: Contents, settings: &Settings) -> Self {
        Self { means, seen, files: settings.files.clone(), settings: settings.clone() }
    }

    /// Sockets that are new, one for each worker.
    fn open(&self, new: &Settings, workers: usize) -> Result<Vec<Vec<(SocketAddr, Listener)>>, Problems> {
        let old = wanted(&self.settings);
        let mut opened: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let mut problems = Problems::default();
        for (kind, address) in wanted(new).into_iter().filter(|one| !old.contains(one)) {
            for own in &mut opened {
                match self.means.passed.open(address, kind) {
                    Ok(listener) => own.push((address, listener)),
                    Err(error) => {
                        problems.0.push(Problem {
                            file: new.path.clone(),
                            source: "".into(),
                            span: None,
                            message: super::sockets::bind_error(kind, address, &error),
                            help: "ports below 1024 cannot be bound once privileges are gone: then restart"
                                .into(),
                        });
                        break;
                    }
                }
            }
        }
        if problems.0.is_empty() { Ok(opened) } else { Err(problems) }
    }

    /// The access log's target, if it has changed.
    fn open_log(&self, new: &Settings) -> Result<Option<Prepared>, Problems> {
        if self.settings.log == new.log {
            return Ok(None);
        }
        Prepared::open(&new.log).map(Some).map_err(|error| {
            Problems(vec![Problem {
                file: new.path.clone(),
                source: "".into(),
                span: None,
                message: error.to_string(),
                help: "the directory must exist and belong to the user that the gateway runs as".into(),
            }])
        })
    }

    /// What a reload cannot change.
    fn needs_restart(&self, new: &Settings) -> Vec<String> {
        let old = &self.settings;
        let changes = [
            (old.admin.socket != new.admin.socket, "admin.socket"),
            (old.admin.metrics != new.admin.metrics, "admin.metrics"),
            (old.state_dir != new.state_dir, "state.dir"),
            (old.tls.tls12 != new.tls.tls12, "tls.min_version"),
            (old.limits.limiter_keys != new.limits.limiter_keys, "limits.limiter_keys"),
        ];
        let changed = changes.into_iter().filter(|(changed, _)| *changed);
        changed.map(|(_, key)| format!("`{key}` has changed: that takes effect with a restart")).collect()
    }
}

impl Reloader for Live {
    fn load(&mut self, path: &Path) -> Result<Loaded, Problems> {
        notify::reloading();
        self.seen = Contents::of(&self.files);
        let mut named = self.files.clone();
        let loaded = config::load_naming(path, &mut named);
        if loaded.is_err() {
            // Not again before something changes again, be it a file that only the refused config names.
            self.means.watch.follow(self.seen.following(&named));
            notify::reloaded(false);
        }
        loaded
    }

    fn apply(&mut self, loaded: Loaded) -> Result<Vec<String>, Problems> {
        let applied = self.take_over(loaded);
        notify::reloaded(applied.is_ok());
        applied
    }

    fn troubles(&self) -> Vec<String> {
        let down = self.settings.sites.iter().flat_map(|site| {
            let down = site.upstreams().into_iter().filter(|one| self.means.health.get(one) == Some(false));
            down.map(|one| {
                let name = site.name();
                format!("the upstream {one} of {name} was not reached when it was tried last: its clients get 502; is the application running, and does it listen there?")
            })
        });
        let log = self.means.log.is_failing().then(|| {
            "the access log cannot be written: lines that find no room are dropped and counted; the process log says why"
                .to_owned()
        });
        down.chain(log).collect()
    }

    fn take_certificate(&mut self, host: &HostPattern, leaf: &Leaf) {
        let current = self.means.resolver.current();
        self.means.resolver.replace(current.with(host, leaf));
    }

    fn certificates(&self) -> Vec<Expiry> {
        self.means.resolver.current().expiries()
    }

    fn tend(&mut self) {
        self.means.entrance.retire_keys();
    }

    fn follow(&mut self, files: Vec<PathBuf>) {
        self.seen = self.seen.following(&files);
        self.files = files;
        self.means.watch.follow(self.seen.clone());
    }
}

impl Live {
    fn take_over(&mut self, loaded: Loaded) -> Result<Vec<String>, Problems> {
        let new = loaded.settings;
        let current = self.means.resolver.current();
        let certificates = Certificates::build(&Wanted::of(&new), self.means.clock.now(), Some(&current))?;
        let guarded = self.means.entrance.prepare(&new).map_err(|error| {
            Problems(vec![Problem::of_file(
                &new.path,
                format!("TLS cannot be had: {error}"),
                "please report this",
            )])
        })?;
        let workers = self.means.shared.workers();
        let opened = self.open(&new, workers.len())?;
        let log = self.open_log(&new)?;
        let policy = compile(&new, &self.means.kept);
        // From here on nothing fails.
        let wanted_now = wanted(&new);
        let close: Vec<_> =
            wanted(&self.settings).into_iter().filter(|one| !wanted_now.contains(one)).collect();
        let mut warnings = self.needs_restart(&new);
        warnings.extend(self.means.passed.unnamed(&wanted_now));
        self.means.resolver.replace(certificates);
        self.means.entrance.replace(guarded);
        self.means.policy.publish(policy);
        self.means.shared.metrics_only_from.store(Arc::new(new.admin.metrics_only_from.clone()));
        if let Some(log) = log {
            self.means.log.switch(log);
        }
        let moved = !close.is_empty() || opened.iter().any(|own| !own.is_empty());
        // Told also when no socket changes: a worker takes over limits of connections with it, at once.
        if !workers.listen(opened, &close) && moved {
            warnings.push("a worker is too busy to take new listeners; reload again".into());
        }
        self.settings = new;
        Ok(warnings)
    }
}
