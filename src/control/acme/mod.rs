//! Certificates by themselves: what is due is begun here and goes on beside the control loop, which waits for none of it.
//!
//! [`plan`] says when, [`order`] how, [`desk`] with which account.

mod bounds;
mod client;
mod desk;
mod failure;
mod hook;
mod order;
mod plan;
mod records;
mod shown;
mod trouble;
mod trust;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use self::desk::{Desk, Window};
use self::failure::{Blame, Failure};
use self::plan::{Host, Known, Plan, Step};
pub(super) use self::shown::{bare, endings};
use self::trouble::Trouble;
use super::endings::Told;
use super::reload::Reloader;
use crate::clock::Now;
use crate::config::acme::{Acme, CertificateFrom};
use crate::config::settings::Settings;
use crate::config::values::HostPattern;
use crate::listener::tls::Leaf;
use crate::stores::certificates::CertificateStore;
use crate::stores::challenges::Challenges;
use crate::telemetry::audit::Say;

/// All that is under way with the authority.
pub(super) struct Authority {
    challenges: Arc<Challenges>,
    say: Say,
    plan: Plan,
    /// None without `[acme]`.
    desk: Option<Arc<Desk>>,
    tasks: JoinSet<Done>,
    /// What of the authority's trouble is on the disk.
    kept: Trouble,
    /// It was said that the authority does not say when to renew.
    unasked: bool,
    /// Which certificates were told of because they end.
    pub told: Told,
}

/// What a task has come to.
pub(super) struct Done {
    host: HostPattern,
    /// Where it was asked: the config may have changed since.
    desk: Arc<Desk>,
    outcome: Outcome,
}

enum Outcome {
    Ordered(Result<String, Failure>),
    Asked(Result<Window, Failure>),
}

impl Authority {
    pub fn new(challenges: Arc<Challenges>, say: Say) -> Self {
        let mut seed = [0; 8];
        // Without random the times are everybody's; nothing else rests on it.
        let _ = aws_lc_rs::rand::fill(&mut seed);
        let plan = Plan::new(u64::from_ne_bytes(seed));
        let (kept, tasks) = (Trouble::default(), JoinSet::new());
        Self { challenges, say, plan, desk: None, tasks, kept, unasked: false, told: Told::default() }
    }

    /// Follows the config.
    pub fn follow(&mut self, settings: &Settings, now: Now) {
        let Some(acme) = &settings.acme else {
            self.stop();
            return;
        };
        if self.desk.as_ref().is_none_or(|desk| desk.acme != *acme) {
            self.open(acme, settings);
        }
        let Some(desk) = &self.desk else { return };
        let say = Arc::clone(&self.say);
        self.plan.follow(&hosts(settings), |host| known(desk, &say, host, now));
    }

    /// At the start: takes what is kept into service. The process that we took over from may have written it after our
    /// certificates were read, and the plan would believe it to be served.
    pub fn serve_kept(&self, settings: &Settings, reloader: &dyn Reloader, now: Now) {
        let Some(desk) = &self.desk else { return };
        for host in hosts(settings) {
            let Ok(Some(pem)) = desk.store.certificate(&host) else { continue };
            // Why one is of no use was said when the plan was made.
            if let Ok(leaf) = Leaf::given(&pem, &host, now) {
                reloader.take_certificate(&host, &leaf);
            }
        }
    }

    fn open(&mut self, acme: &Acme, settings: &Settings) {
        let is_mended = self.desk.is_some();
        self.stop();
        let store = CertificateStore::of(&settings.state_dir, acme);
        self.kept = noted(store.trouble(), &|why| unusable(&store, &self.say, "the authority", &why));
        self.plan.authority = self.kept.clone();
        if is_mended {
            // Asked in another way it may answer.
            self.plan.authority.next = 0;
        }
        self.desk = Some(Arc::new(Desk::new(acme.clone(), store, Arc::clone(&self.say))));
    }

    /// An operator has mended something: what waits is tried at once.
    pub fn forgive(&mut self, now: Now) {
        self.plan.forgive(now);
    }

    /// Begins what is due.
    pub fn tend(&mut self, now: Now) {
        let Some(desk) = self.desk.clone() else { return };
        for (host, step) in self.plan.begin(now) {
            let (desk, challenges) = (Arc::clone(&desk), Arc::clone(&self.challenges));
            let ways = self.plan.host(&host).map(Host::turn).unwrap_or_default();
            self.tasks.spawn(async move {
                let fault =
                    |_| Failure::host("a fault of the gateway's own: please report what the log says of it");
                let outcome = match step {
                    Step::Order => {
                        let ordered =
                            AssertUnwindSafe(desk.order(&host, ways, challenges, now)).catch_unwind();
                        Outcome::Ordered(ordered.await.unwrap_or_else(|panic| Err(fault(panic))))
                    }
                    Step::Window => {
                        let asked = AssertUnwindSafe(desk.window(&host, now)).catch_unwind();
                        Outcome::Asked(asked.await.unwrap_or_else(|panic| Err(fault(panic))))
                    }
                };
                Done { host, desk, outcome }
            });
        }
    }

    /// The next task that has come to an end; waits for ever while there is none.
    pub async fn done(&mut self) -> Done {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(done)) => return done,
                // None is cut, and none panics.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Takes over all that has come to an end: before a hand-over, after which nobody would.
    pub fn take_ended(&mut self, reloader: &dyn Reloader, now: Now) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(done) = ended {
                self.take(done, reloader, now);
            }
        }
    }

    /// Takes over what a task has come to.
    pub fn take(&mut self, done: Done, reloader: &dyn Reloader, now: Now) {
        let Done { host, desk, outcome } = done;
        let is_current = self.desk.as_ref().is_some_and(|own| Arc::ptr_eq(own, &desk));
        if !is_current || self.plan.host(&host).is_none() {
            // The config has changed meanwhile: another authority, or a certificate of the operator's own.
            return;
        }
        match outcome {
            Outcome::Ordered(Ok(pem)) => {
                if let Some(leaf) = self.keep_certificate(&desk, &host, &pem, now) {
                    reloader.take_certificate(&host, &leaf);
                    self.say_in_service(&desk, &host, &leaf, now);
                }
            }
            Outcome::Ordered(Err(failure)) => self.failed(&host, failure, now),
            Outcome::Asked(Ok(window)) => {
                self.unasked = false;
                self.plan.told(&host, now, window.window, window.again);
            }
            Outcome::Asked(Err(failure)) => self.untold(&host, &failure, now),
        }
        self.keep(&desk, &host);
    }

    /// Looks at what was given and keeps it; `None`: it is of no use.
    fn keep_certificate(&mut self, desk: &Desk, host: &HostPattern, pem: &str, now: Now) -> Option<Leaf> {
        let leaf = match Leaf::given(pem, host, now) {
            Ok(leaf) => leaf,
            Err(why) => {
                let failure = Failure::host(format!("what the authority gave is of no use: {why}"));
                self.failed(host, failure, now);
                return None;
            }
        };
        if let Err(error) = desk.store.keep_certificate(host, pem) {
            let path = desk.store.path().display();
            (self.say)(&format!("the certificate for {host} is not kept for a restart: {path}: {error}"));
        }
        self.plan.succeeded(host, now, life_of(&leaf));
        Some(leaf)
    }

    fn say_in_service(&self, desk: &Desk, host: &HostPattern, leaf: &Leaf, now: Now) {
        let days = life_of(leaf).1.saturating_sub(now.unix()) / 86_400;
        (self.say)(&format!("a new certificate for {host} is in service, for {days} days ({})", desk.name()));
    }

    fn failed(&mut self, host: &HostPattern, failure: Failure, now: Now) {
        let Failure { why, blame, wait } = failure;
        match blame {
            Blame::Host => self.plan.failed(host, now, why.clone(), wait),
            Blame::Authority | Blame::Account => self.plan.unreachable(host, now, why.clone(), wait),
        }
        let next = self.plan.host(host).and_then(|host| self.plan.next(host, now));
        let next = next.map_or_else(String::new, |next| {
            format!("; tried again {}", crate::telemetry::audit::timestamp(next.saturating_mul(1000)))
        });
        (self.say)(&format!("no certificate for {host}: {why}{next}"));
    }

    /// The lifetime says when too. Said once until the authority answers: each host asks, every hour.
    fn untold(&mut self, host: &HostPattern, failure: &Failure, now: Now) {
        self.plan.told(host, now, None, failure.wait.unwrap_or(0));
        if !std::mem::replace(&mut self.unasked, true) {
            let why = &failure.why;
            (self.say)(&format!(
                "the authority does not say when to renew {host}: {why}; asked again in an hour or later, and renewed in time all the same"
            ));
        }
    }

    fn keep(&mut self, desk: &Desk, host: &HostPattern) {
        let Some(record) = self.plan.host(host).map(|host| &host.record) else { return };
        let mut written = as_json(record).and_then(|json| desk.store.keep_record(host, &json));
        if self.plan.authority != self.kept {
            self.kept = self.plan.authority.clone();
            written = written.and(as_json(&self.kept).and_then(|json| desk.store.keep_trouble(&json)));
        }
        if let Err(error) = written {
            let path = desk.store.path().display();
            (self.say)(&format!("what is known of {host} is not kept for a restart: {path}: {error}"));
        }
    }

    /// Asks for nothing any more. What is under way is given up, and takes away what it has put somewhere.
    pub fn stop(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.close();
        }
        self.plan.clear();
    }
}

fn hosts(settings: &Settings) -> Vec<HostPattern> {
    let by_acme = settings.certificates_from.iter().filter(|(_, from)| *from == CertificateFrom::Acme);
    by_acme.map(|(host, _)| host.clone()).collect()
}

/// What is kept of a host. Garbage is said, and asked for anew.
fn known(desk: &Desk, say: &Say, host: &HostPattern, now: Now) -> Known {
    let garbage = |why: String| unusable(&desk.store, say, &host.to_string(), &why);
    let life = match desk.store.certificate(host) {
        Ok(None) => None,
        Ok(Some(pem)) => Leaf::given(&pem, host, now).map(|leaf| life_of(&leaf)).map_err(garbage).ok(),
        Err(error) => {
            garbage(error.to_string());
            None
        }
    };
    Known { life, record: noted(desk.store.record(host), &garbage), ways: desk.acme.ways(host) }
}

fn noted<T: Default + DeserializeOwned>(
    read: io::Result<Option<Zeroizing<String>>>,
    garbage: &dyn Fn(String),
) -> T {
    let json = read.map_err(|error| error.to_string());
    let noted = json.and_then(|json| match json {
        Some(json) => serde_json::from_str(&json).map_err(|error| error.to_string()),
        None => Ok(T::default()),
    });
    noted.map_err(garbage).unwrap_or_default()
}

fn unusable(store: &CertificateStore, say: &Say, whose: &str, why: &str) {
    let path = store.path().display();
    say(&format!("what is kept in {path} for {whose} is of no use: {why}; it is asked for anew"));
}

fn as_json(of: &impl Serialize) -> io::Result<String> {
    serde_json::to_string(of).map_err(io::Error::other)
}

fn life_of(leaf: &Leaf) -> (u64, u64) {
    let unix = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    (unix(leaf.not_before), unix(leaf.not_after))
}

/// The first certificate of a PEM with its key.
fn leaf_der(pem: &str) -> Option<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

#[cfg(test)]
#[path = "acme_tests.rs"]
mod tests;
