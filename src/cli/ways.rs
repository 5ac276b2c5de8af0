//! What `check` says of client certificates and of TLS that is passed through.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::check::span;
use crate::config::client_certificates::ClientCertificates;
use crate::config::passthrough::Passthrough;
use crate::config::settings::Site;
use crate::config::values::Networks;
use crate::telemetry::audit::timestamp;

/// Nothing, where nobody is asked for a certificate.
pub(super) fn write_client_certificates(site: &Site, out: &mut dyn Write) -> io::Result<()> {
    let Some(rules) = &site.client_certificates else { return Ok(()) };
    let ClientCertificates { allowed, authorities, crl_file, crl_until, .. } = rules;
    let word = if rules.required { "required" } else { "optional" };
    writeln!(out, "  certificate {word} of clients, signed by {}", authorities.join("; "))?;
    if !allowed.is_empty() {
        writeln!(out, "    allowed   {}", allowed.join(", "))?;
    }
    let until = crl_until.map(|until| format!(", until {}", timestamp(until))).unwrap_or_default();
    match crl_file {
        Some(path) => writeln!(out, "    revoked   by {}{until}", path.display()),
        None => writeln!(out, "    revoked   none: no crl_file"),
    }
}

pub(super) fn client_certificates_json(site: &Site) -> Value {
    let Some(rules) = &site.client_certificates else { return Value::Null };
    json!({
        "mode": if rules.required { "required" } else { "optional" },
        "authorities": rules.authorities,
        "allowed": rules.allowed,
        "ca_file": rules.ca_file,
        "crl_file": rules.crl_file,
        "crl_until": rules.crl_until,
    })
}

pub(super) fn write_passthrough(to: &Passthrough, out: &mut dyn Write) -> io::Result<()> {
    let hosts: Vec<_> = to.hosts.iter().map(ToString::to_string).collect();
    writeln!(out, "\npassthrough {}", hosts.join(", "))?;
    let told = if to.proxy_protocol { ", told of the client by a PROXY header" } else { "" };
    writeln!(out, "  upstream    {}{told}", to.upstream)?;
    writeln!(out, "  reachable   from {}", from(to.only_from.as_ref()))?;
    writeln!(out, "  idle        {}", span(to.idle_timeout))
}

fn from(networks: Option<&Networks>) -> String {
    match networks {
        None => "everybody".into(),
        Some(networks) if networks.is_empty() => "nobody".into(),
        Some(networks) => networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

pub(super) fn passthrough_json(to: &Passthrough) -> Value {
    let networks = to.only_from.as_ref();
    json!({
        "passthrough": to.name(),
        "hosts": to.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "upstream": to.upstream.to_string(),
        "proxy_protocol": if to.proxy_protocol { "v2" } else { "off" },
        "only_from": networks.map(|networks| networks.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "idle_timeout_seconds": to.idle_timeout.as_secs(),
    })
}
