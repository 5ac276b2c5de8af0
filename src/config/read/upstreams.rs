//! `[site.upstreams]`: how the upstreams of a site are asked, and what browsers see when none answers.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;

use super::{Table, Value};
use crate::config::app::App;
use crate::config::cluster::{Balance, Cluster, HealthCheck, Manner};
use crate::config::values::{ValueError, parse_duration};

/// Largest maintenance page, in bytes.
const PAGE: u64 = 256 << 10;
/// More often is a load of its own.
const OFTENEST: Duration = Duration::from_secs(1);

/// What the section says.
pub(super) struct Section {
    manner: Manner,
    /// `Some(None)`: off.
    path: Option<Option<PathAndQuery>>,
    /// The page for browsers while no upstream can be reached.
    pub maintenance: Option<Bytes>,
}

/// Reads the section.
pub(super) fn section(mut table: Table<'_>) -> Section {
    let usual = Manner::default();
    let mut time = |key, usual| table.parse(key, parse_timeout).unwrap_or(usual);
    let manner = Manner {
        connect_timeout: time("connect_timeout", usual.connect_timeout),
        first_byte_timeout: time("first_byte_timeout", usual.first_byte_timeout),
        progress_timeout: time("progress_timeout", usual.progress_timeout),
        balance: table.choice("balance", &Balance::ALL).unwrap_or(usual.balance),
        health: None,
        health_every: table.parse("health_every", parse_every).unwrap_or(usual.health_every),
    };
    let path = table.parse("health_path", parse_path);
    let maintenance = table.get("maintenance").and_then(|value| page(&value));
    table.finish();
    Section { manner, path, maintenance }
}

impl Section {
    /// How upstreams of routes are asked: what a route leads to may know nothing of the health path.
    pub fn of_routes(&self) -> Manner {
        self.manner.clone()
    }

    /// The site's own: asked for their health where the section names a path, and where there are several of an application
    /// whose app file names one.
    pub fn of_site(&self, upstream: &Cluster, app: &App, host: &str) -> Cluster {
        let several = upstream.members().len() > 1;
        let path = match &self.path {
            Some(own) => own.clone(),
            None => app.health_path.clone().filter(|_| several),
        };
        let check = |path| HealthCheck { path, host: host.into() };
        Cluster::new(upstream.members().to_vec(), Manner { health: path.map(check), ..self.manner.clone() })
    }
}

fn parse_timeout(text: &str) -> Result<Duration, ValueError> {
    let time = parse_duration(text)?;
    if time.is_zero() {
        return Err(ValueError {
            message: "a time of zero lets nothing pass".into(),
            help: "write e.g. \"5s\"".into(),
        });
    }
    Ok(time)
}

fn parse_every(text: &str) -> Result<Duration, ValueError> {
    let time = parse_duration(text)?;
    if time < OFTENEST {
        let message = format!("`{text}` is too often");
        return Err(ValueError { message, help: "write \"1s\" or more, e.g. \"5s\"".into() });
    }
    Ok(time)
}

/// The path of a health check; `off` is none.
pub(super) fn parse_path(text: &str) -> Result<Option<PathAndQuery>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    let path = text.parse::<PathAndQuery>().ok().filter(|_| text.starts_with('/'));
    path.map(Some).ok_or_else(|| ValueError {
        message: format!("`{text}` is no path"),
        help: "write e.g. \"/healthz\", or \"off\"".into(),
    })
}

fn page(value: &Value<'_>) -> Option<Bytes> {
    let path = value.doc.named_file(value.text()?);
    let wrong = |message: String| {
        value.wrong(ValueError { message, help: "name an HTML file of at most 256 KiB".into() });
        None
    };
    match std::fs::metadata(&path) {
        Ok(about) if about.len() > PAGE => {
            return wrong(format!("{} is larger than 256 KiB", path.display()));
        }
        Ok(_) => {}
        Err(error) => return wrong(format!("cannot read {}: {error}", path.display())),
    }
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => Some(text.into()),
        Ok(_) => wrong(format!("{} is empty", path.display())),
        Err(error) => wrong(format!("cannot read {}: {error}", path.display())),
    }
}
