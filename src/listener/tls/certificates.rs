//! Which certificate answers to which name.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::leaf::Leaf;
use super::self_signed::{Ca, throw_away};
use crate::clock::Now;
use crate::config::acme::CertificateFrom;
use crate::config::problem::{Problem, Problems};
use crate::config::settings::{CertificateFiles, Settings, UnknownSni};
use crate::config::values::HostPattern;
use crate::stores::certificates::CertificateStore;

/// An own certificate is made anew when it would end within this many seconds.
const RENEW_BEFORE: i64 = 30 * 86_400;

/// All certificates of the public side, by the hosts of the sites.
#[derive(Debug, Default, Clone)]
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
    not_before: i64,
    not_after: i64,
    source: Source,
}

/// Who has made a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Whoever made the operator's files.
    File,
    /// The authority of `[acme]`.
    Authority,
    /// Our own throw-away CA.
    OwnCa,
    /// The same, until the authority of `[acme]` has given one.
    StandIn,
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
    /// What an authority has given, and for which hosts that counts.
    pub given: Option<(CertificateStore, HashSet<HostPattern>)>,
}

/// When a host's certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The host, as in the config.
    pub host: String,
    /// Unix seconds of its begin.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// Who has made it.
    pub source: Source,
}

impl Expiry {
    /// What alerts go by: a throw-away certificate is none to be content with where an authority is to give one.
    pub fn for_alerts(&self) -> i64 {
        if self.source == Source::StandIn { 0 } else { self.not_after }
    }
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
            given: settings.acme.as_ref().map(|acme| {
                let from = settings.certificates_from.iter();
                let hosts = from.filter(|(_, from)| *from == CertificateFrom::Acme);
                let store = CertificateStore::of(&settings.state_dir, acme);
                (store, hosts.map(|(host, _)| host.clone()).collect())
            }),
        }
    }
}

impl Certificates {
    /// Reads every certificate file, takes what an authority has given, and makes what is missing, where the config lets
    /// us. Own and given certificates of `previous` are kept while they last, so that a reload does not change them.
    ///
    /// # Errors
    /// Every file that does not hold, and every host that has no certificate.
    pub fn build(wanted: &Wanted, now: Now, previous: Option<&Self>) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut note = |problem| problems.0.push(problem);
        let files: Vec<Leaf> =
            wanted.files.iter().filter_map(|pair| read(pair).map_err(&mut note).ok()).collect();
        let mut maker = Maker { wanted, now, previous, ca: None };
        let mut built = Self::default();
        for host in &wanted.hosts {
            let covers = files.iter().filter(|file| file.covers(host));
            let mut served: Vec<Served> = covers.map(|file| Served::of(file, Source::File)).collect();
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

    /// The same with what an authority has just given for one of the hosts; of another host it changes nothing.
    pub fn with(&self, host: &HostPattern, leaf: &Leaf) -> Self {
        let mut new = self.clone();
        let Some(served) = new.hosts.get_mut(host) else { return new };
        // All that one site alone is reached by without a name is its first host's.
        let nameless = match (self.nameless.first(), served.first()) {
            (Some(nameless), Some(first)) => Arc::ptr_eq(&nameless.key, &first.key),
            _ => false,
        };
        *served = vec![Served::of(leaf, Source::Authority)];
        if nameless {
            new.nameless.clone_from(served);
        }
        new
    }

    /// The certificate for a name (lower case); `None` ends the handshake.
    pub fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |served: &&Served| served.key.key.choose_scheme(schemes).is_some();
        let found = self.of(name).iter().find(fits).map(|served| Arc::clone(&served.key));
        found.or_else(|| self.stranger.clone())
    }

    /// The first certificate for a name, whatever the client can.
    pub fn any(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.of(name).first().map(|served| Arc::clone(&served.key))
    }

    fn of(&self, name: Option<&str>) -> &[Served] {
        match name {
            Some(name) => self.named(name).unwrap_or_default(),
            None => &self.nameless,
        }
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
            Some(Expiry {
                host: host.to_string(),
                not_before: first.not_before,
                not_after: first.not_after,
                source: first.source,
            })
        };
        self.hosts.iter().filter_map(earliest).collect()
    }
}

impl Served {
    fn of(leaf: &Leaf, source: Source) -> Self {
        let Leaf { key, not_before, not_after, .. } = leaf;
        Self { key: Arc::clone(key), not_before: *not_before, not_after: *not_after, source }
    }
}

/// Finds what no file has: given by an authority, else of our own CA, which is opened when first needed.
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
        if let Some(given) = self.given(host, kept) {
            return Ok(given);
        }
        let is_awaited = self.wanted.given.as_ref().is_some_and(|(_, hosts)| hosts.contains(host));
        let source = if is_awaited { Source::StandIn } else { Source::OwnCa };
        let soon = i64::try_from(self.now.unix()).unwrap_or(i64::MAX).saturating_add(RENEW_BEFORE);
        let is_own = |kept: &&Served| matches!(kept.source, Source::OwnCa | Source::StandIn);
        if let Some(kept) = kept.filter(is_own).filter(|kept| kept.not_after > soon) {
            return Ok(Served { source, ..kept.clone() });
        }
        let made = self.issue(host);
        let (key, not_after) = made.map_err(|error| self.problem(&error))?;
        let not_before = i64::try_from(self.now.unix()).unwrap_or(i64::MAX);
        Ok(Served { key, not_before, not_after, source })
    }

    /// What cannot be read of it is said by the control thread, which asks for another.
    fn given(&self, host: &HostPattern, kept: Option<&Served>) -> Option<Served> {
        let (store, hosts) = self.wanted.given.as_ref()?;
        if !hosts.contains(host) {
            return None;
        }
        let unix = i64::try_from(self.now.unix()).unwrap_or(i64::MAX);
        if let Some(kept) = kept.filter(|kept| kept.source == Source::Authority && kept.not_after > unix) {
            return Some(kept.clone());
        }
        let pem = store.certificate(host).ok()??;
        let leaf = Leaf::given(&pem, host, self.now).ok()?;
        Some(Served::of(&leaf, Source::Authority))
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

fn read(pair: &CertificateFiles) -> Result<Leaf, Problem> {
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
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| {
        problem(&pair.key, format!("no private key in PEM: {error}"), "PKCS#8, SEC1 or PKCS#1")
    })?;
    Leaf::new(chain, key).map_err(|why| {
        let message = format!("{why} (the key is {})", pair.key.display());
        problem(
            &pair.cert,
            message,
            "name the leaf first, then the chain, and the key of this very certificate",
        )
    })
}
