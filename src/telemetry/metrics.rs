//! The counters of one worker (DESIGN 8). Each worker counts for itself, without contention; [`super::render`] sums
//! them up when somebody asks.
//!
//! Labels come from the configuration and from closed lists of our own, never from strangers: a series lives until the
//! process ends.

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::config::class::Class;
use crate::config::settings::ClassMap;

/// Seconds. From what a local application answers in to where people have gone away.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What one worker counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    denials: IntCounterVec,
    would_deny: IntCounterVec,
    learned: IntCounterVec,
    malformed: IntCounterVec,
    csp_reports: IntCounterVec,
    request_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    connections: IntGaugeVec,
    connections_refused: IntCounterVec,
    handshake_failures: IntCounterVec,
    client_unknown: IntCounter,
    streams_cut: IntCounter,
    companions_not_set: IntCounterVec,
    passed: IntCounterVec,
}

/// The counters of one connection that is passed through.
#[derive(Debug)]
pub struct Passed {
    up: Option<IntCounter>,
    down: Option<IntCounter>,
}

/// The counters of one site on one worker, found once for each policy: a request then hashes no label.
#[derive(Debug)]
pub struct SiteMetrics {
    metrics: Arc<Metrics>,
    site: Box<str>,
    classes: ClassMap<OnceCell<ClassMetrics>>,
    /// Of requests that have no route.
    unrouted: OnceCell<ClassMetrics>,
    upstream: OnceCell<Option<Histogram>>,
}

#[derive(Debug)]
struct ClassMetrics {
    duration: Option<Histogram>,
    /// By status; an application answers with a handful, so a list is faster than a map.
    statuses: RefCell<Vec<(u16, IntCounter)>>,
}

// === impl Metrics ===

impl Metrics {
    /// The counters of one worker, in a registry of their own.
    ///
    /// # Errors
    /// Only if two families have one name: a mistake in this file, which its tests find.
    #[expect(clippy::too_many_lines, reason = "a table: an entry for each family")]
    pub fn new() -> Result<Arc<Self>, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            requests: counters(
                r,
                "requests_total",
                "Requests answered; those that belong to no site or route have `-` for it.",
                &["site", "class", "status"],
            )?,
            denials: counters(
                r,
                "denials_total",
                "Requests refused, by the guard that refused.",
                &DENIAL_LABELS,
            )?,
            would_deny: counters(
                r,
                "would_deny_total",
                "What guards that only observe would have refused; one request may count for several guards.",
                &DENIAL_LABELS,
            )?,
            learned: counters(
                r,
                "learned_total",
                "What answers of the application have taught: a logout, a change by an administrator; and what came of it.",
                &["site", "lesson", "outcome"],
            )?,
            malformed: counters(r, "malformed_total", "Requests refused as malformed.", &["reason"])?,
            csp_reports: counters(
                r,
                "csp_reports_total",
                "Reported violations of a Content-Security-Policy, by the page's class, as anybody may claim them.",
                &["site", "class", "kind"],
            )?,
            request_seconds: histograms(
                r,
                "request_duration_seconds",
                "From the request's head to the answer's head.",
                &["site", "class"],
            )?,
            upstream_seconds: histograms(
                r,
                "upstream_duration_seconds",
                "From handing a request to the upstream, connecting and sending included, to the head of its answer.",
                &["site"],
            )?,
            connections: gauges(r, "connections", "Open connections.", &["listener"])?,
            connections_refused: counters(
                r,
                "connections_refused_total",
                "Connections closed before their first request, by cap.",
                &["listener", "reason"],
            )?,
            handshake_failures: counters(
                r,
                "tls_handshake_failures_total",
                "TLS handshakes that failed.",
                &["reason"],
            )?,
            client_unknown: counter(
                r,
                "client_address_unknown_total",
                "Requests whose client cannot be told: see listen.trusted_proxies.",
            )?,
            streams_cut: counter(r, "streams_cut_total", "Live streams cut by a block.")?,
            companions_not_set: counters(
                r,
                "companion_cookies_not_set_total",
                "Logins whose token is no companion cookie that a browser would take: too long, or odd.",
                &["site"],
            )?,
            passed: counters(
                r,
                "passthrough_bytes_total",
                "Bytes passed through without ending TLS, by the name of the passthrough.",
                &["site", "direction"],
            )?,
            registry,
        };
        Ok(Arc::new(metrics))
    }

    /// A request was malformed; `reason` is a word of the closed list.
    pub fn malformed(&self, reason: &'static str) {
        count(&self.malformed, &[reason]);
    }

    /// A connection was accepted; `listener` is the listener's word.
    pub fn connection_opened(&self, listener: &'static str) {
        if let Ok(gauge) = self.connections.get_metric_with_label_values(&[listener]) {
            gauge.inc();
        }
    }

    /// A connection has ended, on the same worker that opened it.
    pub fn connection_closed(&self, listener: &'static str) {
        if let Ok(gauge) = self.connections.get_metric_with_label_values(&[listener]) {
            gauge.dec();
        }
    }

    /// A connection was closed unserved, because of the cap that `reason` names.
    pub fn connection_refused(&self, listener: &'static str, reason: &'static str) {
        count(&self.connections_refused, &[listener, reason]);
    }

    /// A TLS handshake failed.
    pub fn handshake_failed(&self, reason: &'static str) {
        count(&self.handshake_failures, &[reason]);
    }

    /// A request came whose client cannot be told.
    pub fn client_address_unknown(&self) {
        self.client_unknown.inc();
    }

    /// A block cut live streams of this worker.
    pub fn streams_cut(&self, streams: usize) {
        self.streams_cut.inc_by(streams as u64);
    }

    /// The counters of a connection that is passed through; `site` is the name of its `[[passthrough]]`.
    pub fn passed(&self, site: &str) -> Passed {
        let of = |direction| self.passed.get_metric_with_label_values(&[site, direction]).ok();
        Passed { up: of("up"), down: of("down") }
    }

    pub(super) fn gather(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry.gather()
    }
}

// === impl Passed ===

impl Passed {
    /// Bytes from the client.
    pub fn up(&self, bytes: u64) {
        self.up.iter().for_each(|counter| counter.inc_by(bytes));
    }

    /// Bytes to the client.
    pub fn down(&self, bytes: u64) {
        self.down.iter().for_each(|counter| counter.inc_by(bytes));
    }
}

// === impl SiteMetrics ===

impl SiteMetrics {
    /// The counters of a site; `site` is its name in the configuration.
    pub fn new(metrics: &Arc<Metrics>, site: &str) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            site: site.into(),
            classes: ClassMap::from_fn(|_| OnceCell::new()),
            unrouted: OnceCell::new(),
            upstream: OnceCell::new(),
        }
    }

    /// A request was answered: with a status, in the time from its head to the head of the answer. One without a route
    /// has no class.
    pub fn request(&self, class: Option<Class>, status: u16, duration: Duration) {
        let counters = class.map_or(&self.unrouted, |class| self.classes.get(class));
        let counters = counters.get_or_init(|| ClassMetrics {
            duration: self
                .metrics
                .request_seconds
                .get_metric_with_label_values(&[&*self.site, word(class)])
                .ok(),
            statuses: RefCell::default(),
        });
        if let Some(histogram) = &counters.duration {
            histogram.observe(duration.as_secs_f64());
        }
        let mut statuses = counters.statuses.borrow_mut();
        if let Some((_, counter)) = statuses.iter().find(|(known, _)| *known == status) {
            return counter.inc();
        }
        if let Some(counter) = self.status_counter(class, status) {
            counter.inc();
            statuses.push((status, counter));
        }
    }

    /// A login's token made no companion cookie.
    pub fn companion_not_set(&self) {
        count(&self.metrics.companions_not_set, &[&*self.site]);
    }

    /// The upstream answered with a head, in this time.
    pub fn upstream(&self, duration: Duration) {
        let histogram = self
            .upstream
            .get_or_init(|| self.metrics.upstream_seconds.get_metric_with_label_values(&[&*self.site]).ok());
        if let Some(histogram) = histogram {
            histogram.observe(duration.as_secs_f64());
        }
    }

    /// A guard refused a request; guard and reason are words of closed lists.
    pub fn denial(&self, class: Option<Class>, guard: &'static str, reason: &'static str) {
        count(&self.metrics.denials, &[&*self.site, word(class), guard, reason]);
    }

    /// A guard that only observes would have refused a request.
    pub fn would_deny(&self, class: Option<Class>, guard: &'static str, reason: &'static str) {
        count(&self.metrics.would_deny, &[&*self.site, word(class), guard, reason]);
    }

    /// An answer has taught something; both are words of closed lists.
    pub fn learned(&self, lesson: &'static str, outcome: &'static str) {
        count(&self.metrics.learned, &[&*self.site, lesson, outcome]);
    }

    /// A violation of a policy was reported; `kind` is a word of a closed list.
    pub fn csp_report(&self, class: Option<Class>, kind: &'static str) {
        count(&self.metrics.csp_reports, &[&*self.site, word(class), kind]);
    }

    /// The counters of the worker that this site's belong to.
    pub fn worker(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    fn status_counter(&self, class: Option<Class>, status: u16) -> Option<IntCounter> {
        let mut text = [0; 3];
        let status = status_text(status, &mut text);
        self.metrics.requests.get_metric_with_label_values(&[&*self.site, word(class), status]).ok()
    }
}

fn word(class: Option<Class>) -> &'static str {
    class.map_or("-", Class::word)
}

/// An application may answer any number; what is no status of HTTP shares a series.
fn status_text(status: u16, text: &mut [u8; 3]) -> &str {
    if !(100..600).contains(&status) {
        return "other";
    }
    let mut rest = status;
    for place in text.iter_mut().rev() {
        *place = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    std::str::from_utf8(text).unwrap_or("other")
}

const DENIAL_LABELS: [&str; 4] = ["site", "class", "guard", "reason"];

fn count(counters: &IntCounterVec, labels: &[&str]) {
    if let Ok(counter) = counters.get_metric_with_label_values(labels) {
        counter.inc();
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::with_opts(opts(name, help))?)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(opts(name, help), labels)?)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(opts(name, help), labels)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts { common_opts: opts(name, help), buckets: BUCKETS.to_vec() };
    registered(registry, HistogramVec::new(options, labels)?)
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("portcullis")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_its_three_digits_and_nonsense_shares_a_series() {
        for (status, text) in [(100, "100"), (204, "204"), (599, "599"), (0, "other"), (999, "other")] {
            assert_eq!(status_text(status, &mut [0; 3]), text);
        }
    }

    #[test]
    fn the_second_request_finds_the_counter_of_the_first() {
        let metrics = Metrics::new().unwrap();
        let site = SiteMetrics::new(&metrics, "files.example.com");
        for _ in 0..3 {
            site.request(Some(Class::Api), 200, Duration::from_millis(2));
        }
        site.request(Some(Class::Api), 404, Duration::from_millis(2));
        let count = |status| {
            metrics
                .requests
                .get_metric_with_label_values(&["files.example.com", "api", status])
                .unwrap()
                .get()
        };
        assert_eq!((count("200"), count("404")), (3, 1));
    }
}
