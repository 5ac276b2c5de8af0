//! What one worker derives from a policy for its own use: counters and masks per site.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::app::Carrier;
use crate::config::class::Class;
use crate::policy::{PolicyReader, Site, Snapshot};
use crate::telemetry::mask::Mask;
use crate::telemetry::metrics::{Metrics, SiteMetrics};

/// A policy, and beside each of its sites what this worker needs to count and log.
#[derive(Debug)]
pub struct View {
    /// The policy.
    pub snapshot: Rc<Snapshot>,
    /// In the order of the policy's sites.
    pub sites: Vec<SiteView>,
    /// For requests that belong to no site.
    pub nowhere: SiteView,
}

/// One site's counters and mask.
#[derive(Debug)]
pub struct SiteView {
    /// The site's name; `-` for none.
    pub name: Rc<str>,
    /// The patterns of its routes, in the order of the policy's.
    patterns: Vec<Rc<str>>,
    /// Counters.
    pub metrics: SiteMetrics,
    /// What is secret in its URLs.
    pub mask: Mask,
}

/// Keeps the view of the current policy.
#[derive(Debug)]
pub struct Views {
    policy: PolicyReader,
    metrics: Arc<Metrics>,
    current: RefCell<Rc<View>>,
}

impl Views {
    /// Views of one worker.
    pub fn new(policy: PolicyReader, metrics: Arc<Metrics>) -> Self {
        let view = Rc::new(View::new(policy.current(), &metrics));
        Self { policy, metrics, current: RefCell::new(view) }
    }

    /// The worker's counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The view for a request: called once, at its beginning.
    pub fn current(&self) -> Rc<View> {
        let snapshot = self.policy.current();
        let mut current = self.current.borrow_mut();
        if !Rc::ptr_eq(&current.snapshot, &snapshot) {
            *current = Rc::new(View::new(snapshot, &self.metrics));
        }
        Rc::clone(&current)
    }
}

impl View {
    fn new(snapshot: Rc<Snapshot>, metrics: &Arc<Metrics>) -> Self {
        let policy = snapshot.policy();
        let view = |site: &Site| SiteView {
            name: Rc::from(&*site.name),
            patterns: site.routes.iter().map(|route| Rc::from(route.pattern.as_str())).collect(),
            metrics: SiteMetrics::new(metrics, &site.name),
            mask: mask(std::slice::from_ref(site)),
        };
        let sites = policy.sites.iter().map(view).collect();
        // What was refused before its site was known may hold any site's secrets.
        let nowhere = SiteView {
            name: Rc::from("-"),
            patterns: Vec::new(),
            metrics: SiteMetrics::new(metrics, "-"),
            mask: mask(&policy.sites),
        };
        Self { snapshot, sites, nowhere }
    }

    /// A site's part; what belongs to no site has one too.
    pub fn site(&self, site: Option<usize>) -> &SiteView {
        site.and_then(|site| self.sites.get(site)).unwrap_or(&self.nowhere)
    }
}

impl SiteView {
    /// The pattern of a route.
    pub fn pattern(&self, route: usize) -> Option<Rc<str>> {
        self.patterns.get(route).cloned()
    }
}

fn mask(sites: &[Site]) -> Mask {
    let carriers = sites.iter().flat_map(|site| site.tokens.carriers.iter());
    let keys = carriers.filter_map(|carrier| match carrier {
        Carrier::Query(name) => Some(&**name),
        _ => None,
    });
    let routes = sites.iter().flat_map(|site| site.routes.iter());
    let is_share = |class| matches!(class, Class::Share | Class::ShareDownload);
    Mask::new(keys, routes.map(|route| (&route.pattern, is_share(route.class))))
}
