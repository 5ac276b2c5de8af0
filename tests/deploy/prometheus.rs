//! A real Prometheus on the files of `deploy/prometheus`.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpSocket;

use crate::common::gate::{Config, Gate, free_addresses};
use crate::common::upstream::Upstream;
use crate::common::{raw, wait_until};
use crate::{read, repository, succeeds};

/// An application that counts.
const COUNTS: &str = "# TYPE application_jobs_total counter\napplication_jobs_total 42\n";
/// A name that Prometheus finds without a name server, and who may scrape there: one address of this machine.
const SITE: &str = "[[site]]\nhosts = [\"localhost\"]\napp = \"keepstack\"\nupstream = \"http://UPSTREAM\"\n\
    [site.only_from]\nmetrics = [\"127.0.0.1/32\"]\n";
/// Prometheus starts, scrapes, and its store answers.
const PATIENCE: Duration = Duration::from_secs(40);

fn counts() -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n";
    format!("{head}Content-Length: {}\r\n\r\n{COUNTS}", COUNTS.len()).into_bytes()
}

struct Prometheus {
    child: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    /// Runs it on the shipped files, with the addresses of the test.
    fn start(gate: &Gate) -> Self {
        let [address] = free_addresses();
        let dir = tempfile::tempdir().unwrap();
        let shipped = read("deploy/prometheus/prometheus.yml");
        let own = [
            ("127.0.0.1:9180", gate.metrics.to_string()),
            ("files.example.com:443", format!("localhost:{}", gate.https.port())),
            ("    # tls_config:", "    tls_config:".into()),
            ("    #   ca_file: /etc/prometheus/ca.pem", format!("      ca_file: {}", gate.ca().display())),
            ("15s", "1s".into()),
        ];
        let text = own.iter().fold(shipped, |text, (from, to)| {
            assert!(text.contains(from), "the shipped file has no `{from}`");
            text.replace(from, to)
        });
        fs::write(dir.path().join("prometheus.yml"), text).unwrap();
        let rules = "portcullis.rules.yml";
        fs::copy(repository("deploy/prometheus").join(rules), dir.path().join(rules)).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("tsdb").display()))
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("stderr")).unwrap())
            .spawn()
            .expect("prometheus: `make test-deps` installs it");
        Self { child, address, _dir: dir }
    }

    /// The values of an instant query.
    fn query(&self, query: &str) -> Vec<f64> {
        let url = format!("http://{}/api/v1/query", self.address);
        let asked = Command::new("curl")
            .args(["-sS", "--max-time", "5", "-G", &url, "--data-urlencode", &format!("query={query}")])
            .output()
            .unwrap();
        let answer: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        results.iter().map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect()
    }

    fn comes_to(&self, query: &str, value: f64) {
        let came = wait_until(PATIENCE, || {
            let values = self.query(query);
            values.len() == 1 && (values[0] - value).abs() < 0.5
        });
        assert!(came, "{query} is {:?}, not {value}", self.query(query));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks for the application's metrics from another address of this machine.
async fn as_a_stranger(gate: &Gate) -> u16 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = socket.connect(gate.https).await.unwrap();
    let config = std::sync::Arc::new(raw::trusting(&gate.ca(), &["http/1.1"]));
    let name = "localhost".try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let head = format!("GET /metrics HTTP/1.1\r\nHost: localhost:{}\r\n\r\n", gate.https.port());
    raw::ask(&mut stream, head.as_bytes()).await.status
}

#[tokio::test]
async fn prometheus_scrapes_the_gateway_and_the_application_and_a_stranger_gets_404() {
    let upstream = Upstream::by_request(|_| counts());
    let site = SITE.replace("UPSTREAM", &upstream.address.to_string());
    let gate = Config { site, ..Config::default() }.start(upstream.address);
    let prometheus = Prometheus::start(&gate);
    prometheus.comes_to("up{job=\"portcullis\"}", 1.0);
    prometheus.comes_to("up{job=\"application\"}", 1.0);
    prometheus.comes_to("application_jobs_total", 42.0);
    prometheus.comes_to("portcullis_config_last_reload_successful", 1.0);

    assert_eq!(as_a_stranger(&gate).await, 404);
    assert_eq!(as_a_stranger(&gate).await, 404);
    let refused = "sum(portcullis_denials_total{site=\"localhost\", class=\"metrics\", guard=\"allowlist\"})";
    prometheus.comes_to(refused, 2.0);
    assert!(
        upstream.requests().iter().all(|request| request.header("user-agent").is_some()),
        "a stranger got through"
    );

    // The rules run on what is really there: none fires at a healthy gateway.
    prometheus.comes_to("count(portcullis_build_info)", 1.0);
    assert_eq!(prometheus.query("ALERTS{alertstate=\"firing\"}"), Vec::<f64>::new());
}

#[test]
fn the_scrape_config_and_the_rules_are_sound() {
    let file = repository("deploy/prometheus/prometheus.yml");
    let said = succeeds(Command::new("promtool").args(["check", "config"]).arg(file));
    assert!(said.contains("rules found"), "{said}");
}

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let dir = repository("deploy/prometheus");
    succeeds(Command::new("promtool").args(["test", "rules", "portcullis.rules.test.yml"]).current_dir(&dir));
    let tests = fs::read_to_string(dir.join("portcullis.rules.test.yml")).unwrap();
    for alert in alerts() {
        let of_it: Vec<&str> =
            tests.split("\n  - name: ").filter(|case| case.contains(&format!("\"{alert}: "))).collect();
        let cases = of_it.join("\n");
        assert!(cases.contains("exp_labels"), "no test shows that {alert} fires");
        assert!(cases.contains("exp_alerts: []"), "no test shows that {alert} keeps quiet");
    }
}

fn alerts() -> Vec<String> {
    let rules = read("deploy/prometheus/portcullis.rules.yml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<String> = names.map(str::to_owned).collect();
    assert!(names.len() > 10, "the rules have moved");
    names
}

#[test]
fn each_alert_leads_to_its_section_of_the_runbook() {
    let rules = read("deploy/prometheus/portcullis.rules.yml");
    let runbook = read("docs/runbook.md");
    for alert in alerts() {
        let url = format!("runbook_url: \"docs/runbook.md#{}\"", alert.to_lowercase());
        assert_eq!(rules.matches(&url).count(), 1, "{alert} has no `{url}`");
        let (_, section) =
            runbook.split_once(&format!("\n## {alert}\n")).unwrap_or_else(|| panic!("no section on {alert}"));
        let section = section.split("\n## ").next().unwrap();
        for part in ["**Means.**", "**First.**", "```", "**Then.**"] {
            assert!(section.contains(part), "the section on {alert} has no {part}");
        }
    }
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## Portcullis"));
    for section in sections {
        assert!(alerts().contains(&format!("Portcullis{section}")), "no alert leads to {section}");
    }
}
