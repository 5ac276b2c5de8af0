//! A new config goes into service beside the old one: everything that can fail first, then the swap.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::notify;
use super::passed::Passed;
use crate::clock::Clock;
use crate::config;
use crate::config::problem::{Problem, Problems};
use crate::config::settings::{Settings, Site, Upstream};
use crate::config::values::{HostPattern, Networks};
use crate::config::watch::{Contents, Watch};
use crate::control::reload::{Prepared, Reloader};
use crate::listener::Kind;
use crate::listener::accept::Listener;
use crate::listener::tls::{Certificates, Entrance, Expiry, Guarded, Leaf, Resolver, Wanted};
use crate::policy::{Policy, PolicyCell, compile};
use crate::stores::kept::Kept;
use crate::telemetry::access_log::{self, Prepared as Target};
use crate::upstream::health::Health;
use crate::worker::Workers;

/// What a reload swaps.
pub struct Live {
    means: Means,
    served: Mutex<Served>,
}

/// What runs now.
struct Served {
    /// The files that it was read from.
    files: Vec<PathBuf>,
    settings: Settings,
}

/// A new config with all that was made of it.
struct Built {
    settings: Settings,
    /// What the files held before they were read.
    seen: Contents,
    certificates: Certificates,
    guarded: Guarded,
    /// The access log's target, if it has changed.
    log: Option<Target>,
    policy: Policy,
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
    pub fn new(means: Means, settings: &Settings) -> Self {
        let served = Served { files: settings.files.clone(), settings: settings.clone() };
        Self { means, served: Mutex::new(served) }
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that takes time.
    fn build(&self, settings: Settings, seen: Contents) -> Result<Built, Problems> {
        let current = self.means.resolver.current();
        let wanted = Wanted::of(&settings);
        let certificates = Certificates::build(&wanted, self.means.clock.now(), Some(&current))?;
        let guarded = self.means.entrance.prepare(&settings).map_err(|error| {
            let message = format!("TLS cannot be had: {error}");
            Problems(vec![Problem::of_file(&settings.path, message, "please report this")])
        })?;
        let log = self.open_log(&settings)?;
        let policy = compile(&settings, &self.means.kept);
        Ok(Built { settings, seen, certificates, guarded, log, policy })
    }

    /// Sockets that are new, one for each worker.
    fn open(
        &self,
        old: &[(Kind, SocketAddr)],
        new: &Settings,
        workers: usize,
    ) -> Result<Vec<Vec<(SocketAddr, Listener)>>, Problems> {
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
    fn open_log(&self, new: &Settings) -> Result<Option<Target>, Problems> {
        if self.served().settings.log == new.log {
            return Ok(None);
        }
        Target::open(&new.log).map(Some).map_err(|error| {
            Problems(vec![Problem {
                file: new.path.clone(),
                source: "".into(),
                span: None,
                message: error.to_string(),
                help: "the directory must exist and belong to the user that the gateway runs as".into(),
            }])
        })
    }

    /// Upstreams of a site that are not reached, or say that they do not serve.
    fn down(&self, site: &Site) -> Vec<String> {
        let (name, health, check) = (site.name(), &self.means.health, site.upstream.manner().health.as_ref());
        let told = |one: Upstream| {
            match check.filter(|check| health.is_unwell(&one, check)) {
            Some(check) => Some(format!(
                "the upstream {one} of {name} does not say at {} that it serves: others are asked while there are any; what does it answer there, and what does its own log say?",
                check.path
            )),
            None => (health.get(&one, None) == Some(false)).then(|| {
                format!("the upstream {one} of {name} was not reached when it was tried last: its clients get 502; is the application running, and does it listen there?")
            }),
        }
        };
        site.upstreams().into_iter().filter_map(told).collect()
    }

    /// Puts it in the place of what runs.
    fn swap(&self, new: Built) -> Result<Vec<String>, Problems> {
        let Built { settings, seen, certificates, guarded, log, policy } = new;
        let mut served = self.served();
        let (before, after) = (wanted(&served.settings), wanted(&settings));
        let workers = self.means.shared.workers();
        let opened = self.open(&before, &settings, workers.len())?;
        let close: Vec<_> = before.into_iter().filter(|one| !after.contains(one)).collect();
        let moved = !close.is_empty() || opened.iter().any(|own| !own.is_empty());
        let reserved = workers.reserve();
        if reserved.is_none() && moved {
            let message = "a worker is too busy to take new listeners".to_owned();
            return Err(Problems(vec![Problem::of_file(&settings.path, message, "reload again")]));
        }
        // From here on nothing fails.
        let mut warnings = needs_restart(&served.settings, &settings);
        warnings.extend(self.means.passed.unnamed(&after));
        self.means.resolver.replace(certificates);
        self.means.entrance.replace(guarded);
        self.means.policy.publish(policy);
        self.means.shared.metrics_only_from.store(Arc::new(settings.admin.metrics_only_from.clone()));
        if let Some(log) = log {
            self.means.log.switch(log);
        }
        // Told also when no socket changes: a worker takes over limits of connections with it, at once.
        if let Some(reserved) = reserved {
            reserved.listen(opened, &close);
        }
        self.means.watch.follow(seen);
        *served = Served { files: settings.files.clone(), settings };
        notify::reloaded(true);
        Ok(warnings)
    }
}

/// What a reload cannot change.
fn needs_restart(old: &Settings, new: &Settings) -> Vec<String> {
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

impl Reloader for Live {
    fn prepare(self: Arc<Self>, path: &Path) -> Result<Prepared, Problems> {
        notify::reloading();
        let mut named = self.served().files.clone();
        let seen = Contents::of(&named);
        let built = config::load_naming(path, &mut named).and_then(|loaded| {
            // The control thread follows the list of blocks; a policy has no use for it.
            let settings = Settings { blocks: None, ..loaded.settings.clone() };
            let built = self.build(settings, seen.following(&loaded.settings.files))?;
            Ok((loaded, built))
        });
        match built {
            Ok((loaded, built)) => Ok(Prepared { loaded, swap: Box::new(move || self.swap(built)) }),
            Err(problems) => {
                // Not again before something changes again, be it a file that only the refused config names.
                self.means.watch.follow(seen.following(&named));
                Err(problems)
            }
        }
    }

    fn give_up(&self) {
        notify::reloaded(false);
    }

    fn troubles(&self) -> Vec<String> {
        let served = self.served();
        let down = served.settings.sites.iter().flat_map(|site| self.down(site));
        let log = self.means.log.is_failing().then(|| {
            "the access log cannot be written: lines that find no room are dropped and counted; the process log says why"
                .to_owned()
        });
        down.chain(log).collect()
    }

    fn take_certificate(&self, host: &HostPattern, leaf: &Leaf) {
        let current = self.means.resolver.current();
        self.means.resolver.replace(current.with(host, leaf));
    }

    fn certificates(&self) -> Vec<Expiry> {
        self.means.resolver.current().expiries()
    }

    fn tend(&self) {
        self.means.entrance.retire_keys();
    }
}
