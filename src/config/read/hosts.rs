//! What holds between sites: each host once, a certificate for each, no upstream that is ourselves.

use std::net::{IpAddr, SocketAddr};

use super::listen::Public;
use super::{Doc, Span};
use crate::config::settings::{Listen, Upstream};
use crate::config::upstream::Address;
use crate::config::values::HostPattern;

/// Every host and upstream of the file, with its place.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: Vec<(HostPattern, Span)>,
    /// Of `[[passthrough]]`: they want no certificate here.
    passed: Vec<(HostPattern, Span)>,
    upstreams: Vec<(Upstream, Span)>,
}

impl Hosts {
    /// Notes a host; the same one twice is a problem: which site would answer?
    pub fn add(&mut self, doc: &Doc, host: &HostPattern, span: Span) {
        if self.is_new(doc, host, &span) {
            self.hosts.push((host.clone(), span));
        }
    }

    /// Notes a host whose TLS is passed through.
    pub fn add_passed(&mut self, doc: &Doc, host: &HostPattern, span: Span) {
        if self.is_new(doc, host, &span) {
            self.passed.push((host.clone(), span));
        }
    }

    fn is_new(&self, doc: &Doc, host: &HostPattern, span: &Span) -> bool {
        let first = self.hosts.iter().chain(&self.passed).find(|(known, _)| known == host);
        if let Some((_, first)) = first {
            let line = doc.line_of(first);
            doc.problem(
                span.clone(),
                format!("`{host}` is named twice"),
                format!("keep it in one place: it stands in line {line} already"),
            );
        }
        first.is_none()
    }

    /// Notes an upstream.
    pub fn add_upstream(&mut self, upstream: &Upstream, span: Span) {
        self.upstreams.push((upstream.clone(), span));
    }

    /// An upstream that leads back here would go round until something breaks.
    pub fn refuse_ourselves(&self, doc: &Doc, listen: &Listen) {
        for (upstream, span) in &self.upstreams {
            if self.is_ourselves(upstream, listen) {
                doc.problem(
                    span.clone(),
                    format!("upstream `{upstream}` is the gateway itself"),
                    "name the address that the application listens on, e.g. \"http://127.0.0.1:8000\"",
                );
            }
        }
    }

    /// Where TLS is served each host needs a certificate.
    pub fn want_certificates(&self, doc: &Doc, public: &Public) {
        for names in &public.names {
            if !self.hosts.iter().any(|(host, _)| names.covers(host)) {
                doc.warning(
                    names.span.clone(),
                    format!("no host of any site is named in this certificate, which has {names}"),
                    "remove it, or add the host to a site",
                );
            }
        }
        if public.listen.https.is_empty() || public.tls.self_signed || public.acme_span.is_some() {
            return;
        }
        for (host, span) in &self.hosts {
            if !public.names.iter().any(|names| names.covers(host)) {
                let others: String = public
                    .names
                    .iter()
                    .map(|names| format!("; {} has {names}", names.file.display()))
                    .collect();
                doc.missing(
                    span.clone(),
                    format!("`{host}` has no certificate{others}"),
                    "name one for it in tls.certificates, or set tls.self_signed = true to try things out",
                );
            }
        }
    }

    fn is_ourselves(&self, upstream: &Upstream, listen: &Listen) -> bool {
        let mut sockets = listen.https.iter().chain(&listen.http).chain(&listen.plain);
        let Address::Tcp { host: name, port } = &upstream.address else { return false };
        let port = *port;
        match name.parse::<IpAddr>() {
            Ok(address) => sockets.any(|socket| reaches(address, port, *socket)),
            Err(_) if &**name == "localhost" => {
                sockets.any(|socket| reaches(IpAddr::from([127, 0, 0, 1]), port, *socket))
            }
            Err(_) => {
                let ours = port == listen.public_port || sockets.any(|socket| socket.port() == port);
                ours && self.hosts.iter().chain(&self.passed).any(|(host, _)| host.matches(name))
            }
        }
    }
}

/// Whether a connection to the address ends at the socket, as far as addresses tell.
fn reaches(address: IpAddr, port: u16, socket: SocketAddr) -> bool {
    let here = address.is_loopback() || address.is_unspecified();
    port == socket.port() && (socket.ip() == address || (socket.ip().is_unspecified() && here))
}
