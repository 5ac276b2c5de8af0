//! `[listen]`, `[tls]` and `[acme]`: the public side, and which hosts it can answer for.

use std::net::SocketAddr;

use super::certificates::{self, Names};
use super::{Span, Table, acme, networks};
use crate::config::acme::Acme;
use crate::config::defaults;
use crate::config::settings::{CertificateFiles, Listen, Tls, UnknownSni};
use crate::config::values::{Networks, parse_socket};

/// The public side.
pub(super) struct Public {
    pub listen: Listen,
    pub tls: Tls,
    pub acme: Option<Acme>,
    /// Where `[acme]` stands, sound or not.
    pub acme_span: Option<Span>,
    /// The names of each certificate.
    pub names: Vec<Names>,
}

/// Reads the public side.
pub(super) fn public(root: &mut Table<'_>) -> Public {
    let listen = listen(root.section("listen"));
    let (tls, names) = tls(root.section("tls"));
    let table = root.table("acme");
    let acme_span = table.as_ref().map(|table| table.span.clone());
    let acme = table.and_then(|table| acme::acme(table, &listen));
    Public { listen, tls, acme, acme_span, names }
}

fn listen(mut table: Table<'_>) -> Listen {
    let mut seen = Vec::new();
    let https = sockets(&mut table, "https", &mut seen).unwrap_or_else(|| parsed(defaults::HTTPS));
    let http = sockets(&mut table, "http", &mut seen).unwrap_or_else(|| parsed(defaults::HTTP));
    let plain_value = table.get("plain");
    let plain = sockets(&mut table, "plain", &mut seen).unwrap_or_default();
    let trusted_proxies = trusted_proxies(&mut table);
    if let Some(value) = plain_value.filter(|_| !plain.is_empty() && trusted_proxies.is_empty()) {
        table.doc.problem(
            value.span,
            "`listen.plain` serves only `listen.trusted_proxies`, and there are none",
            "add the address of the proxy before this one, e.g. trusted_proxies = [\"127.0.0.1\"]",
        );
    }
    if https.is_empty() && http.is_empty() && plain.is_empty() {
        let help = "name an address in https or plain, or remove the keys for the defaults";
        table.doc.missing(table.span.clone(), "nothing listens", help);
    }
    let public_port = public_port(&mut table, &https);
    let proxy_protocol = proxy_protocol(&mut table, &trusted_proxies);
    let choices = [("refuse", UnknownSni::Refuse), ("421", UnknownSni::Misdirected)];
    let unknown_sni = table.choice("unknown_sni", &choices).unwrap_or(UnknownSni::Refuse);
    table.finish();
    Listen { https, http, plain, public_port, trusted_proxies, proxy_protocol, unknown_sni }
}

fn public_port(table: &mut Table<'_>, https: &[SocketAddr]) -> u16 {
    if let Some(port) = table.number("public_port") {
        return port;
    }
    if let Some(odd) = https.first().filter(|_| https.iter().all(|socket| socket.port() != 443)) {
        table.doc.warning(
            table.span.clone(),
            format!("`listen.https` is on port {}, yet redirects and policies will say 443", odd.port()),
            format!("set public_port = {}, or 443 where that port is mapped", odd.port()),
        );
    }
    defaults::PUBLIC_PORT
}

fn trusted_proxies(table: &mut Table<'_>) -> Networks {
    let trusted = networks::of_key(table, "trusted_proxies").unwrap_or_default();
    if trusted.iter().any(|network| network.prefix_len() == 0) {
        table.doc.warning(
            table.span.clone(),
            "`listen.trusted_proxies` holds everybody: any client may choose its own address",
            "name only the proxies before this one, e.g. [\"10.0.0.5\"]",
        );
    }
    trusted
}

fn proxy_protocol(table: &mut Table<'_>, trusted: &Networks) -> bool {
    let Some(value) = table.get("proxy_protocol") else { return false };
    let required = value.choice(&[("off", false), ("require-from-trusted", true)]) == Some(true);
    if required && trusted.is_empty() {
        table.doc.problem(
            value.span,
            "PROXY headers are taken from `listen.trusted_proxies` only, and there are none",
            "add the address of the balancer before this one, e.g. trusted_proxies = [\"10.0.0.5\"]",
        );
    }
    required
}

fn sockets(table: &mut Table<'_>, key: &'static str, seen: &mut Vec<SocketAddr>) -> Option<Vec<SocketAddr>> {
    let items = table.get(key)?.list()?;
    let mut sockets = Vec::new();
    for item in items {
        let Some(socket) = item.parse(parse_socket) else { continue };
        // Port 0 is any free port: two of them are two.
        if socket.port() != 0 && seen.contains(&socket) {
            table.doc.problem(
                item.span,
                format!("`{socket}` is listened on twice"),
                "keep one: TLS, the redirect and plain HTTP each need an address of their own",
            );
            continue;
        }
        seen.push(socket);
        sockets.push(socket);
    }
    Some(sockets)
}

fn parsed(sockets: &[&str]) -> Vec<SocketAddr> {
    sockets.iter().filter_map(|socket| socket.parse().ok()).collect()
}

fn tls(mut table: Table<'_>) -> (Tls, Vec<Names>) {
    let tls12 = table.choice("min_version", &[("1.2", true), ("1.3", false)]).unwrap_or(true);
    let self_signed = table.flag("self_signed").unwrap_or(false);
    let mut files = Vec::new();
    let mut names = Vec::new();
    for mut entry in table.tables("certificates") {
        let (cert, key) = (entry.needs("cert"), entry.needs("key"));
        for (word, absent) in [("cert", cert.is_none()), ("key", key.is_none())] {
            if absent {
                let help = "write { cert = \"full.pem\", key = \"key.pem\" }";
                entry.doc.missing(entry.span.clone(), format!("the certificate names no `{word}`"), help);
            }
        }
        let found = cert.zip(key).and_then(|(cert, key)| pair(&cert, &key));
        if let Some((pair, found)) = found {
            files.push(pair);
            names.push(found);
        }
        entry.finish();
    }
    table.finish();
    (Tls { tls12, certificates: files, self_signed }, names)
}

fn pair(cert: &super::Value<'_>, key: &super::Value<'_>) -> Option<(CertificateFiles, Names)> {
    let (cert_text, key_text) = (cert.text(), key.text());
    let files =
        CertificateFiles { cert: cert.doc.named_file(cert_text?), key: cert.doc.named_file(key_text?) };
    let names = certificates::check(cert, key, &files)?;
    Some((files, names))
}
