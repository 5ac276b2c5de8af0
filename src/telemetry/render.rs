//! All workers' counters and the gateway's gauges, as Prometheus text 0.0.4.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::metrics::Metrics;
use super::process;

/// The media type of what [`render`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the gateway as a whole knows when it is asked.
#[derive(Debug, Clone, Default)]
pub struct Gauges {
    /// Blocks that stand, by the kind's word.
    pub blocks: Vec<(&'static str, u64)>,
    /// The last load of the config was taken over.
    pub reload_successful: bool,
    /// Unix seconds of the last load that was taken over.
    pub reload_success_time: u64,
    /// Blocks reach the disk.
    pub state_durable: bool,
    /// Keys that the rate limits hold.
    pub limiter_keys: u64,
    /// Keys that the rate limits have let go early.
    pub limiter_evictions: u64,
    /// Requests that the rate limits judged by a budget that newcomers share.
    pub limiter_shared: u64,
    /// Site, lockouts since the start, and lockouts that last.
    pub lockouts: Vec<(String, u64, u64)>,
    /// Refresh cookies of which it is known whose they are.
    pub sessions_known: u64,
    /// Access log lines that were dropped.
    pub log_dropped: u64,
    /// Lines of the process log that were dropped.
    pub process_log_dropped: u64,
    /// Host and Unix seconds at which its certificate ends; 0: it has none but a throw-away one in place of a real one.
    pub certificates: Vec<(String, i64)>,
    /// Site, upstream, and whether it can be reached.
    pub upstreams: Vec<(String, String, bool)>,
}

/// The text of a scrape: families of all workers summed by label set, then what holds for the process.
pub fn render(workers: &[Arc<Metrics>], gauges: &Gauges) -> String {
    let mut families: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for family in workers.iter().flat_map(|worker| worker.gather()) {
        match families.get_mut(family.name()) {
            Some(sum) => add(sum, &family),
            None => {
                families.insert(family.name().to_owned(), family);
            }
        }
    }
    for family in gateway_families(gauges).into_iter().chain(process::families()) {
        families.insert(family.name().to_owned(), family);
    }
    let families: Vec<_> = families.into_values().filter(|family| !family.get_metric().is_empty()).collect();
    TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| format!("# error: {error}\n"))
}

fn add(sum: &mut MetricFamily, family: &MetricFamily) {
    let kind = family.get_field_type();
    for metric in family.get_metric() {
        match sum.mut_metric().iter_mut().find(|known| known.get_label() == metric.get_label()) {
            Some(known) => add_metric(known, metric, kind),
            None => sum.mut_metric().push(metric.clone()),
        }
    }
}

fn add_metric(sum: &mut Metric, metric: &Metric, kind: MetricType) {
    match kind {
        MetricType::COUNTER => {
            sum.set_counter(counter_of(sum.get_counter().get_value() + metric.get_counter().get_value()));
        }
        MetricType::GAUGE => {
            sum.set_gauge(gauge_of(sum.get_gauge().get_value() + metric.get_gauge().get_value()));
        }
        MetricType::HISTOGRAM => sum.set_histogram(added(sum.get_histogram(), metric.get_histogram())),
        _ => {}
    }
}

fn added(one: &Histogram, other: &Histogram) -> Histogram {
    let mut sum = Histogram::default();
    sum.set_sample_count(one.get_sample_count() + other.get_sample_count());
    sum.set_sample_sum(one.get_sample_sum() + other.get_sample_sum());
    let buckets = one.get_bucket().iter().zip(other.get_bucket()).map(|(one, other)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(one.upper_bound());
        bucket.set_cumulative_count(one.cumulative_count() + other.cumulative_count());
        bucket
    });
    sum.set_bucket(buckets.collect());
    sum
}

#[expect(clippy::too_many_lines, reason = "a table: an entry for each family")]
fn gateway_families(gauges: &Gauges) -> Vec<MetricFamily> {
    vec![
        gauge_family(
            "portcullis_blocks",
            "Emergency blocks that stand.",
            gauges.blocks.iter().map(|(kind, count)| (vec![("kind", *kind)], *count as f64)),
        ),
        single(
            "portcullis_config_last_reload_successful",
            "Whether the last load of the config was taken over.",
            f64::from(u8::from(gauges.reload_successful)),
        ),
        single(
            "portcullis_config_last_reload_success_timestamp_seconds",
            "When a config was last taken over.",
            gauges.reload_success_time as f64,
        ),
        single(
            "portcullis_state_durable",
            "Whether blocks reach the disk.",
            f64::from(u8::from(gauges.state_durable)),
        ),
        single(
            "portcullis_sessions_known",
            "Refresh cookies of which it is remembered whose they are.",
            gauges.sessions_known as f64,
        ),
        single("portcullis_limiter_keys", "Keys that the rate limits hold.", gauges.limiter_keys as f64),
        total(
            "portcullis_limiter_evictions_total",
            "Keys let go early for want of room.",
            gauges.limiter_evictions,
        ),
        total(
            "portcullis_limiter_shared_total",
            "Requests judged by a budget that newcomers of a network share, since no key was free.",
            gauges.limiter_shared,
        ),
        lockouts_total(&gauges.lockouts),
        gauge_family(
            "portcullis_lockouts_active",
            "Lockouts that last: of clients, accounts and devices.",
            gauges.lockouts.iter().map(|(site, _, active)| (vec![("site", site.as_str())], *active as f64)),
        ),
        total(
            "portcullis_log_dropped_total",
            "Access log lines dropped because they could not be written in time.",
            gauges.log_dropped,
        ),
        total(
            "portcullis_process_log_dropped_total",
            "Process log lines dropped because standard error was not read.",
            gauges.process_log_dropped,
        ),
        gauge_family(
            "portcullis_certificate_expiry_timestamp_seconds",
            "When the certificate of a host ends; 0 while the authority has given none.",
            gauges.certificates.iter().map(|(host, end)| (vec![("host", host.as_str())], *end as f64)),
        ),
        gauge_family(
            "portcullis_upstream_up",
            "Whether an upstream can be reached.",
            gauges.upstreams.iter().map(|(site, upstream, up)| {
                (vec![("site", site.as_str()), ("upstream", upstream.as_str())], f64::from(u8::from(*up)))
            }),
        ),
        gauge_family(
            "portcullis_build_info",
            "Always 1; the version is the label.",
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)].into_iter(),
        ),
    ]
}

fn lockouts_total(lockouts: &[(String, u64, u64)]) -> MetricFamily {
    let of = |(site, total, _): &(String, u64, u64)| {
        let mut metric = Metric::from_label(vec![label(("site", site.as_str()))]);
        metric.set_counter(counter_of(*total as f64));
        metric
    };
    let metrics = lockouts.iter().map(of).collect();
    let help = "Lockouts of clients, accounts, devices and guessers of share links after too many failures.";
    family("portcullis_lockouts_total", help, MetricType::COUNTER, metrics)
}

/// A gauge without labels.
pub(super) fn single(name: &str, help: &str, value: f64) -> MetricFamily {
    gauge_family(name, help, std::iter::once((Vec::new(), value)))
}

/// A counter without labels.
pub(super) fn total(name: &str, help: &str, value: u64) -> MetricFamily {
    total_float(name, help, value as f64)
}

/// A counter without labels whose value is no whole number.
pub(super) fn total_float(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut metric = Metric::from_label(Vec::new());
    metric.set_counter(counter_of(value));
    family(name, help, MetricType::COUNTER, vec![metric])
}

fn gauge_family<'a>(
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
) -> MetricFamily {
    let metrics = values.map(|(labels, value)| {
        let mut metric = Metric::from_label(labels.into_iter().map(label).collect());
        metric.set_gauge(gauge_of(value));
        metric
    });
    family(name, help, MetricType::GAUGE, metrics.collect())
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn counter_of(value: f64) -> Counter {
    let mut counter = Counter::default();
    counter.set_value(value);
    counter
}

fn gauge_of(value: f64) -> Gauge {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    gauge
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::class::Class;
    use crate::telemetry::metrics::SiteMetrics;

    fn busy_worker() -> Arc<Metrics> {
        let metrics = Metrics::new().unwrap();
        let site = SiteMetrics::new(&metrics, "files.example.com");
        site.request(Some(Class::Login), 401, Duration::from_millis(3));
        site.upstream(Duration::from_millis(2));
        site.denial(Some(Class::Login), "rate", "rate_limited");
        site.would_deny(Some(Class::Api), "rate", "rate_limited");
        metrics.malformed("host");
        metrics.connection_opened("https");
        metrics.connection_opened("https");
        metrics.connection_closed("https");
        metrics.connection_refused("https", "connections");
        metrics.handshake_failed("no_certificate");
        metrics.client_address_unknown();
        metrics.streams_cut(2);
        metrics
    }

    fn gauges() -> Gauges {
        Gauges {
            blocks: vec![("fingerprint", 2), ("subject", 0)],
            reload_successful: true,
            reload_success_time: 1_700_000_000,
            state_durable: true,
            lockouts: vec![("files.example.com".into(), 3, 1)],
            certificates: vec![("files.example.com".into(), 1_800_000_000)],
            upstreams: vec![("files.example.com".into(), "http://127.0.0.1:8000".into(), true)],
            ..Gauges::default()
        }
    }

    #[test]
    fn a_scrape_sums_all_workers_by_label_set() {
        let text = render(&[busy_worker(), busy_worker(), Metrics::new().unwrap()], &gauges());
        for line in [
            r#"portcullis_requests_total{class="login",site="files.example.com",status="401"} 2"#,
            r#"portcullis_denials_total{class="login",guard="rate",reason="rate_limited",site="files.example.com"} 2"#,
            r#"portcullis_connections{listener="https"} 2"#,
            r#"portcullis_request_duration_seconds_count{class="login",site="files.example.com"} 2"#,
            r#"portcullis_request_duration_seconds_bucket{class="login",site="files.example.com",le="0.005"} 2"#,
            r#"portcullis_upstream_duration_seconds_bucket{site="files.example.com",le="0.001"} 0"#,
            "portcullis_streams_cut_total 4",
            "portcullis_client_address_unknown_total 2",
            r#"portcullis_blocks{kind="fingerprint"} 2"#,
            r#"portcullis_upstream_up{site="files.example.com",upstream="http://127.0.0.1:8000"} 1"#,
            "portcullis_state_durable 1",
            r#"portcullis_lockouts_total{site="files.example.com"} 3"#,
            r#"portcullis_lockouts_active{site="files.example.com"} 1"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\nis not in\n{text}");
        }
    }
}
