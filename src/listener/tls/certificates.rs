//! Which certificate answers to which name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use super::self_signed::{Ca, throw_away};
use crate::clock::Now;
use crate::config::problem::{Problem, Problems};
use crate::config::settings::{CertificateFiles, Settings, UnknownSni};
use crate::config::values::HostPattern;

/// An own certificate is made anew when it would end within this many seconds.
const RENEW_BEFORE: i64 = 30 * 86_400;

/// All certificates of the public side, by the hosts of the sites.
#[derive(Debug, Default)]
pub struct Certificates {
    hosts: HashMap<HostPattern, Vec<Served>>,
    /// For clients that name no host, where there is only one site.
    nameless: Vec<Served>,
    /// For clients that name no host of ours, if they are to be told so.
    stranger: Option<Arc<CertifiedKey>>,
}

#[derive(Debug, Clone)]
struct Served {
    key: Arc<CertifiedKey>,
    not_after: i64,
    /// Made by our own throw-away CA.
    own: bool,
}

/// What of the config decides over certificates.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The config file, for problems.
    pub config: PathBuf,
    /// Certificate files.
    pub files: Vec<CertificateFiles>,
    /// Every host of every site.
    pub hosts: Vec<HostPattern>,
    /// The one site's host, if there is one site only: reached without a name too.
    pub nameless: Option<HostPattern>,
    /// Where there is no file our own CA makes one.
    pub own: bool,
    /// Clients that name no host of ours get a throw-away certificate rather than an alert.
    pub stranger: bool,
    /// Where our own CA is kept.
    pub state_dir: PathBuf,
}

/// When a host's certificate ends, for the metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The host, as in the config.
    pub host: String,
    /// Unix seconds.
    pub not_after: i64,
    /// Made by our own throw-away CA.
    pub own: bool,
}

/// A certificate file, read.
struct FromFile {
    served: Served,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Wanted {
    /// Under `[acme]` our own CA stands in until the real certificate is there.
    pub fn of(settings: &Settings) -> Self {
        // Where no TLS is served no host needs one.
        let sites = if settings.listen.https.is_empty() { &[] } else { settings.sites.as_slice() };
        let hosts = sites
            .iter()
            .flat_map(|site| site.hosts.iter().chain(&site.redirect_hosts).chain(&site.download_host));
        let nameless = match sites {
            [site] => site.hosts.first().cloned(),
            _ => None,
        };
        Self {
            config: settings.path.clone(),
            files: settings.tls.certificates.clone(),
            hosts: hosts.cloned().collect(),
            nameless,
            own: settings.tls.self_signed || settings.acme.is_some(),
            stranger: settings.listen.unknown_sni == UnknownSni::Misdirected,
            state_dir: settings.state_dir.clone(),
        }
    }
}

impl Certificates {
    /// Reads every certificate file and makes what is missing, where the config lets us. Own certificates of
    /// `previous` are kept while they last, so that a reload does not change them.
    ///
    /// # Errors
    /// Every file that does not hold, and every host that has no certificate.
    pub fn build(wanted: &Wanted, now: Now, previous: Option<&Self>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut note = |problem| problems.0.push(problem);
        let files: Vec<FromFile> =
            wanted.files.iter().filter_map(|pair| read(pair).map_err(&mut note).ok()).collect();
        let mut maker = Maker { wanted, now, previous, ca: None };
        let mut built = Self::default();
        for host in &wanted.hosts {
            let covers = files.iter().filter(|file| file.covers(host));
            let mut served: Vec<Served> = covers.map(|file| file.served.clone()).collect();
            if served.is_empty() {
                served.extend(maker.make(host).map_err(&mut note).ok());
            }
            built.hosts.insert(host.clone(), served);
        }
        let nameless = wanted.nameless.as_ref().and_then(|host| built.hosts.get(host));
        built.nameless = nameless.cloned().unwrap_or_default();
        if wanted.stranger {
            let made = throw_away(now).map_err(|error| note(maker.problem(&error)));
            built.stranger = made.ok().map(|(key, _)| key);
        }
        if problems.0.is_empty() { Ok(built) } else { Err(problems) }
    }

    /// The certificate for a name (lower case); `None` ends the handshake.
    pub fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let served = match name {
            Some(name) => self.named(name),
            None => Some(self.nameless.as_slice()),
        };
        let fits = |served: &&Served| served.key.key.choose_scheme(schemes).is_some();
        let found = served.unwrap_or_default().iter().find(fits).map(|served| Arc::clone(&served.key));
        found.or_else(|| self.stranger.clone())
    }

    fn named(&self, name: &str) -> Option<&[Served]> {
        let exact = name.parse::<HostPattern>().ok().and_then(|host| self.hosts.get(&host));
        let found = exact.or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.hosts.get(&format!("*.{parent}").parse().ok()?)
        })?;
        Some(found)
    }

    /// When each host's certificates end, the earliest per host.
    pub fn expiries(&self) -> Vec<Expiry> {
        let earliest = |(host, served): (&HostPattern, &Vec<Served>)| {
            let first = served.iter().min_by_key(|served| served.not_after)?;
            Some(Expiry { host: host.to_string(), not_after: first.not_after, own: first.own })
        };
        self.hosts.iter().filter_map(earliest).collect()
    }
}

/// Makes certificates of our own CA, which is opened when first needed.
struct Maker<'a> {
    wanted: &'a Wanted,
    now: Now,
    previous: Option<&'a Certificates>,
    ca: Option<Ca>,
}

impl Maker<'_> {
    fn make(&mut self, host: &HostPattern) -> Result<Served, Problem> {
        if !self.wanted.own {
            return Err(Problem {
                file: self.wanted.config.clone(),
                source: "".into(),
                span: None,
                message: format!("no certificate for `{host}`"),
                help: "name one in `tls.certificates`, or add `[acme]` with your e-mail address; to try things out: \
                       `tls.self_signed = true`"
                    .into(),
            });
        }
        let kept =
            self.previous.and_then(|previous| previous.hosts.get(host)).and_then(|served| served.first());
        let soon = i64::try_from(self.now.unix()).unwrap_or(i64::MAX).saturating_add(RENEW_BEFORE);
        if let Some(kept) = kept.filter(|kept| kept.own && kept.not_after > soon) {
            return Ok(kept.clone());
        }
        let made = self.issue(host);
        let (key, not_after) = made.map_err(|error| self.problem(&error))?;
        Ok(Served { key, not_after, own: true })
    }

    fn issue(&mut self, host: &HostPattern) -> std::io::Result<(Arc<CertifiedKey>, i64)> {
        let ca = match self.ca.take() {
            Some(ca) => ca,
            None => Ca::open(&self.wanted.state_dir, self.now)?,
        };
        self.ca.insert(ca).issue(&host.to_string(), self.now)
    }

    fn problem(&self, error: &std::io::Error) -> Problem {
        Problem {
            file: self.wanted.state_dir.clone(),
            source: "".into(),
            span: None,
            message: format!("cannot make a certificate of our own: {error}"),
            help: "`state.dir` must be a directory that we may write to; remove a damaged `ca.pem` and `ca-key.pem`"
                .into(),
        }
    }
}

impl FromFile {
    /// A name of the certificate is the host, or is a wildcard for exactly one label of it.
    fn covers(&self, host: &HostPattern) -> bool {
        if let Ok(address) = host.name().parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let host = host.to_string();
        self.names.iter().any(|name| {
            let parent = host.split_once('.').map(|(_, parent)| parent);
            *name == host || (parent.is_some() && name.strip_prefix("*.") == parent)
        })
    }
}

fn read(pair: &CertificateFiles) -> Result<FromFile, Problem> {
    let problem = |file: &Path, message: String, help: &str| Problem {
        file: file.to_owned(),
        source: "".into(),
        span: None,
        message,
        help: help.into(),
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(&pair.cert).and_then(Iterator::collect).map_err(|error| {
            problem(
                &pair.cert,
                format!("no certificate in PEM: {error}"),
                "write the leaf first, then the chain",
            )
        })?;
    let leaf = chain.first().ok_or_else(|| {
        problem(&pair.cert, "no certificate in it".into(), "write the leaf first, then the chain")
    })?;
    let parsed = parse(leaf).ok_or_else(|| {
        problem(&pair.cert, "the first certificate cannot be read".into(), "ask for it anew")
    })?;
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| {
        problem(&pair.key, format!("no private key in PEM: {error}"), "PKCS#8, SEC1 or PKCS#1")
    })?;
    let key = CertifiedKey::from_der(chain, key, &super::provider()).map_err(|error| {
        problem(
            &pair.key,
            format!("does not go with {}: {error}", pair.cert.display()),
            "name the key of this very certificate",
        )
    })?;
    let (names, addresses, not_after) = parsed;
    Ok(FromFile { served: Served { key: Arc::new(key), not_after, own: false }, names, addresses })
}

/// Names, addresses and end of a certificate.
fn parse(leaf: &CertificateDer<'_>) -> Option<(Vec<String>, Vec<IpAddr>, i64)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let mut names = Vec::new();
    let mut addresses = Vec::new();
    for name in parsed.subject_alternative_name().ok()?.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => names.push(name.trim_end_matches('.').to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
            _ => {}
        }
    }
    Some((names, addresses, parsed.validity().not_after.timestamp()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
