//! The dashboard and the alerts ask for nothing that the gateway does not show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio::net::TcpStream;

use crate::common::gate::{Config, Gate};
use crate::common::upstream::{OK, Upstream};
use crate::common::{HOST, raw, wait_until};
use crate::read;

const TOKEN: &str = "eyJzdWIiOiI3In0.c2lnbmF0dXJl";
const SITE: &str = "[site.rate.login]\nrefill = \"1/h\"\nburst = 1\n\
    [[site.route]]\nmatch = \"/watched\"\nclass = \"login\"\nobserve = [\"rate\"]\n";

/// Something of everything that has labels, so that each metric is in the scrape.
async fn everything() -> (Gate, Upstream) {
    let upstream = Upstream::answering(OK);
    let config =
        Config { site: SITE.into(), limits: "connections_per_client = 3".into(), ..Config::default() };
    let gate = config.start(upstream.address);
    for line in ["GET /", "GET /metrics", "POST /api/auth/login", "POST /api/auth/login"] {
        gate.ask(line, "", b"").await;
    }
    for line in ["GET /watched", "GET /watched", "GET /%00"] {
        gate.ask(line, "", b"").await;
    }
    assert!(gate.cli_with(["block", "token", "-"], TOKEN).status.success());
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(gate.ask("GET /api/me", &bearer, b"").await.status, 401);
    let strange = raw::trusting(&gate.ca(), &["http/1.1"]);
    assert!(raw::tls(gate.https, "other.test", strange).await.is_err());
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(TcpStream::connect(gate.https).await.unwrap());
    }
    assert!(wait_until(raw::LIMIT, || gate
        .admin("/metrics")
        .unwrap()
        .contains("connections_refused_total{")));
    (gate, upstream)
}

/// Names of series and the labels that each has.
fn shown(scrape: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut shown = BTreeMap::<String, BTreeSet<String>>::new();
    for line in scrape.lines().filter(|line| !line.starts_with('#') && line.contains(' ')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let known = shown.entry(name.to_owned()).or_default();
        known.extend(labels.split("=\"").map(last_word).filter(|word| !word.is_empty()));
    }
    shown
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The word that the text ends with.
fn last_word(text: &str) -> String {
    let end: Vec<char> = text.chars().rev().take_while(|c| is_of_a_word(*c)).collect();
    end.into_iter().rev().collect()
}

/// Each metric of ours that an expression names, with the labels that it selects or groups by.
fn asked(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    // Prometheus adds these itself, or they are made of others.
    let added = ["job", "instance", "le"];
    let mut groups = BTreeSet::new();
    for rest in expression.split("by (").skip(1) {
        groups.extend(rest.split(')').next().unwrap().split(',').map(|label| label.trim().to_owned()));
    }
    let mut asked = Vec::new();
    for (place, _) in expression.match_indices("portcullis_").chain(expression.match_indices("process_")) {
        if expression[..place].ends_with(is_of_a_word) {
            continue;
        }
        let name: String = expression[place..].chars().take_while(|c| is_of_a_word(*c)).collect();
        let rest = &expression[place + name.len()..];
        let mut labels = groups.clone();
        if let Some(selector) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) {
            labels.extend(selector.split(['=', '!']).map(last_word).filter(|word| !word.is_empty()));
        }
        labels.retain(|label| !added.contains(&&**label));
        asked.push((name, labels));
    }
    asked
}

fn assert_shown(expression: &str, scrape: &str) -> usize {
    let shown = shown(scrape);
    let asked = asked(expression);
    for (name, labels) in &asked {
        let has = shown.get(name).unwrap_or_else(|| panic!("`{expression}`: no {name} in\n{scrape}"));
        // A quoted value may hold a `=`; what is no label of anything is a part of one.
        assert!(labels.is_subset(has), "`{expression}`: {name} has the labels {has:?}, not {labels:?}");
    }
    asked.len()
}

#[tokio::test]
async fn every_metric_and_label_of_the_dashboard_and_the_alerts_is_in_a_scrape() {
    let (gate, _upstream) = everything().await;
    let scrape = gate.admin("/metrics").unwrap();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/portcullis.json")).unwrap();
    let mut found = 0;
    for target in dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
    {
        found += assert_shown(target["expr"].as_str().unwrap(), &scrape);
    }
    assert!(found > 30, "only {found} metrics in the dashboard");

    let rules = read("deploy/prometheus/portcullis.rules.yml");
    let found: usize = rules
        .split("\n      - alert: ")
        .skip(1)
        .map(|alert| alert.split("expr: ").nth(1).unwrap().split("\n        for:").next().unwrap())
        .map(|expression| expression.split("\n        labels:").next().unwrap())
        .map(|expression| assert_shown(expression, &scrape))
        .sum();
    assert!(found > 15, "only {found} metrics in the alerts");
}

#[test]
fn the_panels_of_the_dashboard_lie_beside_each_other() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/portcullis.json")).unwrap();
    let mut cells = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id");
        assert!(!panel["title"].as_str().unwrap().is_empty());
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "{} covers another", panel["title"]);
            }
        }
    }
}

#[test]
fn what_is_not_shown_would_be_found() {
    let scrape = format!("portcullis_requests_total{{site=\"{HOST}\",status=\"200\"}} 3\n");
    assert_eq!(
        assert_shown("sum by (site) (rate(portcullis_requests_total{status=~\"5..\"}[5m]))", &scrape),
        1
    );
    for wrong in [
        "portcullis_request_total",
        "sum by (klass) (portcullis_requests_total)",
        "portcullis_requests_total{stat=\"1\"}",
    ] {
        assert!(std::panic::catch_unwind(|| assert_shown(wrong, &scrape)).is_err(), "{wrong}");
    }
}
