//! `[acme]`, and from where each host gets its certificate.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::certificates::{chain, permissions, told};
use super::listen::Public;
use super::{Doc, Table, Value, read_file};
use crate::config::acme::{Acme, CertificateFrom, Challenge, ExternalAccount};
use crate::config::defaults;
use crate::config::settings::{Listen, Site};
use crate::config::values::{HostPattern, ValueError, parse_duration};

/// A hook that hangs for longer holds up nothing, and yet helps nobody.
const LONGEST_HOOK: Duration = Duration::from_secs(1800);

/// Reads the section.
pub(super) fn acme(mut table: Table<'_>, listen: &Listen) -> Option<Acme> {
    let email = table.parse("email", |text| match text.split_once('@') {
        Some((user, host)) if !user.is_empty() && !host.is_empty() => Ok(text.into()),
        _ => Err(wrong(format!("`{text}` is no mail address"), "write e.g. \"me@example.com\"")),
    });
    if table.needs("email").is_none() {
        let help = "add email = \"me@example.com\": the authority writes there when something is wrong";
        table.doc.missing(table.span.clone(), "`acme` names no email", help);
    }
    let directory = table.parse("directory", directory);
    let trusted = table.get("ca_file").map(|value| authorities(&value));
    let profile = table.text("profile").map(Into::into);
    let dns_command = dns_command(&mut table);
    let dns_timeout = table.parse("dns_timeout", hook_time).unwrap_or(defaults::ACME_DNS_TIMEOUT);
    let challenges = challenges(&mut table, listen, !dns_command.is_empty());
    let external_account = external_account(&mut table);
    table.finish();
    let (ca_file, ca) = match trusted {
        Some(trusted) => trusted.map(|(path, ca)| (Some(path), Some(ca)))?,
        None => (None, None),
    };
    let directory = directory.unwrap_or_else(|| defaults::ACME_DIRECTORY.into());
    Some(Acme {
        email: email?,
        directory,
        ca_file,
        ca,
        profile,
        challenges,
        dns_command,
        dns_timeout,
        external_account: external_account?,
    })
}

/// The CAs of a private directory; read here, so that another content is another config.
fn authorities(value: &Value<'_>) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let path = value.doc.named_file(value.text()?);
    let help = "name the PEM file of the CA that the authority's own server is certified by";
    let refused = |message: String| wrong(format!("{} {message}", path.display()), help);
    let chain = told(value, chain(&path).map_err(|error| wrong(error.message, help)))?;
    let mut roots = RootCertStore::empty();
    let added = chain.iter().try_for_each(|ca| roots.add(ca.clone()));
    told(value, added.map_err(|error| refused(format!("holds something that cannot be a CA: {error}"))))?;
    Some((path, chain))
}

fn directory(text: &str) -> Result<Box<str>, ValueError> {
    if matches!(text, "letsencrypt" | "letsencrypt-staging") || text.starts_with("https://") {
        return Ok(text.into());
    }
    let help = "write \"letsencrypt\", \"letsencrypt-staging\" or an https:// URL";
    Err(wrong(format!("`{text}` is no ACME directory"), help))
}

/// A program by its whole path: no shell and no search path decides what runs.
fn dns_command(table: &mut Table<'_>) -> Vec<Box<str>> {
    let Some(value) = table.get("dns_command") else { return Vec::new() };
    let items = value.list().unwrap_or_default();
    let words: Vec<Box<str>> = items.iter().filter_map(Value::text).map(Into::into).collect();
    if words.first().is_none_or(|program| !program.starts_with('/')) {
        value.wrong(wrong(
            "it begins with no program by its whole path".into(),
            "write e.g. [\"/usr/local/bin/dns-record\"]; it is run without a shell",
        ));
    }
    words
}

fn hook_time(text: &str) -> Result<Duration, ValueError> {
    let time = parse_duration(text)?;
    if time.is_zero() || time > LONGEST_HOOK {
        return Err(wrong(format!("`{text}` is out of range"), "write something between \"1s\" and \"30m\""));
    }
    Ok(time)
}

/// Those that were asked for, or all that can be: each wants something that the authority can reach.
fn challenges(table: &mut Table<'_>, listen: &Listen, hook: bool) -> Vec<Challenge> {
    let possible = |way: Challenge| match way {
        Challenge::TlsAlpn01 => !listen.https.is_empty(),
        Challenge::Http01 => !listen.http.is_empty(),
        Challenge::Dns01 => hook,
    };
    let Some(value) = table.get("challenges") else {
        return Challenge::ALL.into_iter().filter(|way| possible(*way)).collect();
    };
    let mut asked = Vec::new();
    for item in value.list().unwrap_or_default() {
        let words = Challenge::ALL.map(|way| (way.word(), way));
        let Some(way) = item.choice(&words) else { continue };
        if possible(way) {
            asked.push(way);
            continue;
        }
        item.wrong(match way {
            Challenge::TlsAlpn01 => wrong("nothing listens for it".into(), "name an address in listen.https"),
            Challenge::Http01 => wrong("nothing listens for it".into(), "name an address in listen.http"),
            Challenge::Dns01 => wrong(
                "nothing puts records into the DNS".into(),
                "name dns_command = [\"/usr/local/bin/dns-record\"]",
            ),
        });
    }
    if asked.is_empty() {
        value.wrong(wrong("no way is left to show that a host is ours".into(), "leave the key out for all"));
    }
    asked
}

/// The outer `None`: it is there, and wrong.
fn external_account(table: &mut Table<'_>) -> Option<Option<ExternalAccount>> {
    let kid = table.text("eab_kid");
    let _texts = (table.text("eab_key"), table.text("eab_key_file"));
    let (here, file) = (table.get("eab_key"), table.get("eab_key_file"));
    let key = match (kid, here, file) {
        (None, None, None) => return Some(None),
        (Some(_), Some(value), None) => value.parse(hmac_key),
        (Some(_), None, Some(value)) => key_from_file(&value),
        _ => {
            let help = "write eab_kid and one of eab_key_file and eab_key, as the authority gave them to you";
            let message = "external account binding wants `eab_kid` and one key";
            table.doc.problem(table.span.clone(), message, help);
            None
        }
    };
    Some(Some(ExternalAccount { kid: kid?.into(), key: key? }))
}

fn key_from_file(value: &Value<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let path = value.doc.named_file(value.text()?);
    permissions(value, &path);
    let read = read_file(&path).map_err(|why| {
        let help = "name a file that exists and that this user may read";
        wrong(format!("{} cannot be read: {why}", path.display()), help)
    });
    let text = Zeroizing::new(told(value, read)?);
    told(value, hmac_key(&String::from_utf8_lossy(&text)))
}

fn hmac_key(text: &str) -> Result<Zeroizing<Vec<u8>>, ValueError> {
    let text = text.trim();
    let bytes = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text));
    match bytes {
        Ok(bytes) if bytes.len() >= 16 => Ok(Zeroizing::new(bytes)),
        _ => {
            let help = "copy the HMAC key as the authority shows it: base64url, at least 16 bytes";
            Err(wrong("the key is no HMAC key".into(), help))
        }
    }
}

/// From where each host of the sites gets its certificate; says what no authority gives.
pub(super) fn sources(doc: &Doc, public: &Public, sites: &[Site]) -> Vec<(HostPattern, CertificateFrom)> {
    let hosts = sites
        .iter()
        .flat_map(|site| site.hosts.iter().chain(&site.redirect_hosts).chain(&site.download_host));
    hosts.map(|host| (host.clone(), source(doc, public, host))).collect()
}

fn source(doc: &Doc, public: &Public, host: &HostPattern) -> CertificateFrom {
    if public.listen.https.is_empty() {
        return CertificateFrom::Nowhere;
    }
    if let Some(names) = public.names.iter().find(|names| names.covers(host)) {
        return CertificateFrom::File(names.file.clone());
    }
    let Some(acme) = &public.acme else { return CertificateFrom::OwnCa };
    let here = public.acme_span.clone().unwrap_or_default();
    if host.name().parse::<IpAddr>().is_ok() || !host.name().contains('.') {
        let message =
            format!("`{host}` gets a throw-away certificate: authorities certify names of the public DNS");
        doc.warning(here, message, "name a certificate of your own in tls.certificates");
        return CertificateFrom::OwnCa;
    }
    if acme.ways(host).is_empty() {
        let message = format!("no authority certifies the wildcard `{host}` but by a record in the DNS");
        doc.problem(here, message, "name acme.dns_command, or name each host by itself");
    }
    CertificateFrom::Acme
}

fn wrong(message: String, help: &str) -> ValueError {
    ValueError { message, help: help.into() }
}
