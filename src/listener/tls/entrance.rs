//! Which handshake a name gets: one way for all sites that ask for no client certificate, and one for each set of rules
//! about them. Ways share nothing by which a session could be resumed.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;

use super::{Resolver, agreeing, base, server_config};
use crate::config::settings::Settings;
use crate::config::values::HostPattern;
use crate::request::certificate::PolicyId;

/// The TLS of all public listeners.
#[derive(Debug)]
pub struct Entrance {
    resolver: Arc<Resolver>,
    tls12: bool,
    open: Arc<ServerConfig>,
    guarded: ArcSwap<Guarded>,
}

/// The handshakes of sites that ask for client certificates.
#[derive(Debug, Default)]
pub struct Guarded {
    ways: HashMap<PolicyId, Arc<ServerConfig>>,
    /// Every host of every site: an open one below a guarded wildcard stays open, and the reverse.
    hosts: HashMap<HostPattern, Option<PolicyId>>,
    /// The one site's, which is also reached without a name.
    nameless: Option<PolicyId>,
}

/// What a handshake goes on with.
#[derive(Debug)]
pub struct Chosen {
    /// Keys, versions, and who must show a certificate.
    pub config: Arc<ServerConfig>,
    /// The rules about client certificates that it is made under.
    pub policy: Option<PolicyId>,
}

impl Entrance {
    /// The entrance of these settings.
    ///
    /// # Errors
    /// As [`server_config`].
    pub fn new(resolver: Arc<Resolver>, settings: &Settings) -> Result<Arc<Self>, rustls::Error> {
        let entrance = Self::open_to_all(resolver, settings.tls.tls12)?;
        entrance.replace(entrance.prepare(settings)?);
        Ok(entrance)
    }

    /// One that asks nobody for a certificate.
    ///
    /// # Errors
    /// As [`server_config`].
    pub fn open_to_all(resolver: Arc<Resolver>, tls12: bool) -> Result<Arc<Self>, rustls::Error> {
        let open = server_config(Arc::clone(&resolver), tls12)?;
        Ok(Arc::new(Self { resolver, tls12, open, guarded: ArcSwap::default() }))
    }

    /// What these settings ask for; ways whose rules have not changed are taken over.
    ///
    /// # Errors
    /// When the provider does not offer what we ask; a fault of the build.
    pub fn prepare(&self, settings: &Settings) -> Result<Guarded, rustls::Error> {
        let before = self.guarded.load();
        let mut guarded = Guarded::default();
        for site in &settings.sites {
            let hosts = site.hosts.iter().chain(&site.redirect_hosts).chain(&site.download_host);
            let id = site.client_certificates.as_ref().map(|rules| rules.id);
            guarded.hosts.extend(hosts.map(|host| (host.clone(), id)));
            let Some(rules) = &site.client_certificates else { continue };
            let way = match guarded.ways.get(&rules.id).or_else(|| before.ways.get(&rules.id)) {
                Some(way) => Arc::clone(way),
                None => self.way(Arc::clone(&rules.verifier))?,
            };
            guarded.ways.insert(rules.id, way);
            if settings.sites.len() == 1 {
                guarded.nameless = Some(rules.id);
            }
        }
        Ok(guarded)
    }

    /// New handshakes go by these.
    pub fn replace(&self, guarded: Guarded) {
        self.guarded.store(Arc::new(guarded));
    }

    /// Lets keys of session tickets go whose time is over. They change with handshakes only: where nobody comes an old one
    /// would stay for days.
    pub fn retire_keys(&self) {
        // Whatever is opened, time is looked at first.
        let _ = self.open.ticketer.decrypt(&[]);
    }

    /// The way of all names, if there is only one.
    pub fn only(&self) -> Option<Arc<ServerConfig>> {
        self.guarded.load().ways.is_empty().then(|| Arc::clone(&self.open))
    }

    /// The way that asks nobody for a certificate.
    pub fn open_way(&self) -> Chosen {
        Chosen { config: Arc::clone(&self.open), policy: None }
    }

    /// The way of a name (lower case, without a trailing dot).
    pub fn choose(&self, name: Option<&str>) -> Chosen {
        let guarded = self.guarded.load();
        let policy = match name {
            Some(name) => guarded.policy_of(name),
            None => guarded.nameless,
        };
        let way = policy.and_then(|policy| Some((policy, guarded.ways.get(&policy)?)));
        match way {
            Some((policy, way)) => Chosen { config: Arc::clone(way), policy: Some(policy) },
            None => Chosen { config: Arc::clone(&self.open), policy: None },
        }
    }

    /// Without resumption: a session would carry a certificate past its end or its revocation.
    fn way(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = base(self.tls12)?.with_client_cert_verifier(verifier);
        let mut config = agreeing(builder.with_cert_resolver(Arc::clone(&self.resolver) as _));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl Guarded {
    fn policy_of(&self, name: &str) -> Option<PolicyId> {
        let exact = name.parse::<HostPattern>().ok().and_then(|host| self.hosts.get(&host));
        let found = exact.or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.hosts.get(&format!("*.{parent}").parse().ok()?)
        });
        found.copied().flatten()
    }
}
