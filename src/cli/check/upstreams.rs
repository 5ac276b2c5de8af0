//! How the upstreams of a site are asked, as `check` shows it.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::span;
use crate::config::cluster::{Cluster, Manner};
use crate::config::settings::Site;

/// What differs from one upstream that is asked as usual.
pub(super) fn write(site: &Site, out: &mut dyn Write) -> io::Result<()> {
    let (manner, usual) = (site.upstream.manner(), Manner::default());
    let mut told = Vec::new();
    if site.upstream.members().len() > 1 {
        told.push(manner.balance.word().to_owned());
    }
    if let Some(check) = &manner.health {
        told.push(format!("asked for {} every {}", check.path, span(manner.health_every)));
    }
    for (what, own, usual) in [
        ("a connection", manner.connect_timeout, usual.connect_timeout),
        ("an answer", manner.first_byte_timeout, usual.first_byte_timeout),
        ("a pause in it", manner.progress_timeout, usual.progress_timeout),
    ] {
        if own != usual {
            told.push(format!("{what} may take {}", span(own)));
        }
    }
    if site.maintenance.is_some() {
        told.push("browsers see the maintenance page while none is reached".to_owned());
    }
    if told.is_empty() { Ok(()) } else { writeln!(out, "              {}", told.join("; ")) }
}

/// The same for programs.
pub(super) fn json(cluster: &Cluster) -> Value {
    let manner = cluster.manner();
    json!({
        "members": cluster.members().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "balance": manner.balance.word(),
        "connect_timeout_seconds": manner.connect_timeout.as_secs_f64(),
        "first_byte_timeout_seconds": manner.first_byte_timeout.as_secs_f64(),
        "progress_timeout_seconds": manner.progress_timeout.as_secs_f64(),
        "health": manner.health.as_ref().map(|check| json!({
            "path": check.path.as_str(), "every_seconds": manner.health_every.as_secs_f64()
        })),
    })
}
