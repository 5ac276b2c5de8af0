//! Certificates by themselves: what is due is begun here and goes on beside the control loop, which waits for none of it.
//!
//! [`plan`] says when, [`order`] how, [`desk`] with which account.

mod client;
mod desk;
mod hook;
mod order;
mod plan;
mod shown;
mod trust;

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::task::JoinSet;

use self::desk::{Desk, Window};
use self::order::{Blame, Failure};
use self::plan::{Plan, Record, Step};
pub(super) use self::shown::warnings;
use super::reload::Reloader;
use crate::clock::Now;
use crate::config::acme::CertificateFrom;
use crate::config::settings::Settings;
use crate::config::values::HostPattern;
use crate::listener::tls::Leaf;
use crate::stores::certificates::CertificateStore;
use crate::stores::challenges::Challenges;
use crate::telemetry::audit::Say;

/// For an order as a whole, beside what the hook may take.
const ORDER: Duration = Duration::from_secs(300);

/// All that is under way with the authority.
pub(super) struct Authority {
    challenges: Arc<Challenges>,
    say: Say,
    plan: Plan,
    /// None without `[acme]`.
    desk: Option<Arc<Desk>>,
    tasks: JoinSet<Done>,
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
        Self { challenges, say, plan, desk: None, tasks: JoinSet::new() }
    }

    /// Follows the config.
    pub fn follow(&mut self, settings: &Settings, now: Now) {
        let Some(acme) = &settings.acme else {
            self.stop();
            return;
        };
        if self.desk.as_ref().is_none_or(|desk| desk.acme != *acme) {
            self.stop();
            let store = CertificateStore::of(&settings.state_dir, acme);
            self.desk = Some(Arc::new(Desk::new(acme.clone(), store, Arc::clone(&self.say))));
        }
        let Some(desk) = &self.desk else { return };
        let (store, say) = (desk.store.clone(), Arc::clone(&self.say));
        self.plan.follow(&hosts(settings), |host| load(&store, &say, host, now));
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
            let failures = self.plan.host(&host).map_or(0, |host| host.record.trouble.failures);
            self.tasks.spawn(async move {
                let outcome = match step {
                    Step::Order => Outcome::Ordered(ordered(&desk, &host, failures, challenges, now).await),
                    Step::Window => Outcome::Asked(desk.window(&host, now).await),
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
                // Cut by a change of the config; a panic has ended the process.
                Some(Err(_)) => {}
                None => std::future::pending().await,
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
        let wait = desk.take_wait();
        match outcome {
            Outcome::Ordered(Ok(pem)) => {
                if let Some(leaf) = self.keep_certificate(&desk, &host, &pem, now) {
                    reloader.take_certificate(&host, &leaf);
                    self.say_in_service(&desk, &host, &leaf, now);
                }
            }
            Outcome::Ordered(Err(failure)) => self.failed(&host, failure, wait, now),
            Outcome::Asked(Ok(window)) => self.plan.told(&host, now, window.window, window.again),
            // The lifetime says when too.
            Outcome::Asked(Err(_)) => self.plan.told(&host, now, None, 0),
        }
        self.keep(&desk, &host);
    }

    /// Looks at what was given and keeps it; `None`: it is of no use.
    fn keep_certificate(&mut self, desk: &Desk, host: &HostPattern, pem: &str, now: Now) -> Option<Leaf> {
        let leaf = match Leaf::given(pem, host, now) {
            Ok(leaf) => leaf,
            Err(why) => {
                let failure = Failure::host(format!("what the authority gave is of no use: {why}"));
                self.failed(host, failure, None, now);
                return None;
            }
        };
        if let Err(error) = desk.store.keep_certificate(host, pem) {
            let path = desk.store.path().display();
            (self.say)(&format!("the certificate for {host} is not kept for a restart: {path}: {error}"));
        }
        let life = life_of(&leaf);
        self.plan.succeeded(host, life);
        Some(leaf)
    }

    fn say_in_service(&self, desk: &Desk, host: &HostPattern, leaf: &Leaf, now: Now) {
        let days = life_of(leaf).1.saturating_sub(now.unix()) / 86_400;
        (self.say)(&format!("a new certificate for {host} is in service, for {days} days ({})", desk.name()));
    }

    fn failed(&mut self, host: &HostPattern, failure: Failure, wait: Option<u64>, now: Now) {
        let Failure { why, blame } = failure;
        match blame {
            Blame::Host => self.plan.failed(host, now, why.clone(), wait),
            Blame::Authority | Blame::Account => self.plan.unreachable(host, now, why.clone(), wait),
        }
        let next = self.plan.host(host).and_then(|host| self.plan.next(host));
        let next = next.map_or_else(String::new, |next| {
            format!("; tried again {}", crate::telemetry::audit::timestamp(next.saturating_mul(1000)))
        });
        (self.say)(&format!("no certificate for {host}: {why}{next}"));
    }

    fn keep(&self, desk: &Desk, host: &HostPattern) {
        let Some(record) = self.plan.host(host).map(|host| &host.record) else { return };
        let written = serde_json::to_string(record).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|json| desk.store.keep_record(host, &json)) {
            let path = desk.store.path().display();
            (self.say)(&format!("what is known of {host} is not kept for a restart: {path}: {error}"));
        }
    }

    fn stop(&mut self) {
        self.desk = None;
        self.tasks.abort_all();
        self.plan.clear();
    }
}

async fn ordered(
    desk: &Desk,
    host: &HostPattern,
    failures: u32,
    challenges: Arc<Challenges>,
    now: Now,
) -> Result<String, Failure> {
    let mut ways = desk.acme.ways(host);
    // What has failed may work in another way.
    let turn = usize::try_from(failures).unwrap_or(0).checked_rem(ways.len()).unwrap_or(0);
    ways.rotate_left(turn);
    let limit = ORDER + desk.acme.dns_timeout * 2;
    let ordered = desk.order(host, ways, challenges, now);
    let outcome = tokio::time::timeout(limit, ordered).await;
    outcome.unwrap_or_else(|_| Err(Failure::host(format!("the order had not ended after {limit:?}"))))
}

fn hosts(settings: &Settings) -> Vec<HostPattern> {
    let by_acme = settings.certificates_from.iter().filter(|(_, from)| *from == CertificateFrom::Acme);
    by_acme.map(|(host, _)| host.clone()).collect()
}

/// What is kept of a host. Garbage is said, and asked for anew.
fn load(store: &CertificateStore, say: &Say, host: &HostPattern, now: Now) -> (Option<(u64, u64)>, Record) {
    let unusable = |why: String| {
        say(&format!(
            "what is kept in {} for {host} is of no use: {why}; it is asked for anew",
            store.path().display()
        ));
    };
    let life = match store.certificate(host) {
        Ok(None) => None,
        Ok(Some(pem)) => Leaf::given(&pem, host, now).map(|leaf| life_of(&leaf)).map_err(&unusable).ok(),
        Err(error) => {
            unusable(error.to_string());
            None
        }
    };
    let record = match store.record(host) {
        Ok(None) => Record::default(),
        Ok(Some(json)) => {
            serde_json::from_str(&json).map_err(|error| unusable(error.to_string())).unwrap_or_default()
        }
        Err(error) => {
            unusable(error.to_string());
            Record::default()
        }
    };
    (life, record)
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
