//! `portcullis check`: from where each host gets its certificate.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::config::acme::{Acme, CertificateFrom};
use crate::config::settings::{Settings, Site};
use crate::config::values::HostPattern;

/// Hosts that are named in a line.
const SHOWN: usize = 5;

/// One line for each way that hosts of a site have.
pub(super) fn write(site: &Site, settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for host in site.hosts.iter().chain(&site.redirect_hosts).chain(&site.download_host) {
        let found = settings.certificates_from.iter().find(|(known, _)| known == host);
        let Some(how) = found.and_then(|(host, from)| how(host, from, settings)) else { continue };
        match rows.iter_mut().find(|(known, _)| *known == how) {
            Some((_, hosts)) => hosts.push(host.to_string()),
            None => rows.push((how, vec![host.to_string()])),
        }
    }
    for (how, hosts) in rows {
        let more = hosts.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let shown = hosts.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        writeln!(out, "  certificate {how}: {shown}{more}")?;
    }
    Ok(())
}

/// The same for scripts: a list of all hosts.
pub(super) fn json(settings: &Settings) -> Value {
    let one = |(host, from): &(HostPattern, CertificateFrom)| {
        let (word, file) = match from {
            CertificateFrom::File(path) => ("file", Some(path.display().to_string())),
            CertificateFrom::Acme => ("acme", None),
            CertificateFrom::OwnCa => ("throw-away", None),
            CertificateFrom::Nowhere => ("none", None),
        };
        let ways = settings.acme.as_ref().filter(|_| word == "acme").map(|acme| words(acme, host));
        json!({ "host": host.to_string(), "from": word, "file": file, "challenges": ways })
    };
    settings.certificates_from.iter().map(one).collect()
}

fn how(host: &HostPattern, from: &CertificateFrom, settings: &Settings) -> Option<String> {
    Some(match (from, &settings.acme) {
        (CertificateFrom::File(path), _) => format!("from {}", path.display()),
        (CertificateFrom::Acme, Some(acme)) => {
            format!("by ACME, {} ({})", acme.directory, words(acme, host).join(" or "))
        }
        (CertificateFrom::OwnCa, _) => "of our own CA, thrown away, browsers will warn".into(),
        (CertificateFrom::Acme | CertificateFrom::Nowhere, _) => return None,
    })
}

fn words(acme: &Acme, host: &HostPattern) -> Vec<&'static str> {
    acme.ways(host).into_iter().map(|way| way.word()).collect()
}
