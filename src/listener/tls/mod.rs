//! TLS of the public side: one `ServerConfig` for the life of the process, certificates by name, replaced hot.

mod certificates;
mod entrance;
mod self_signed;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};

pub use certificates::{Certificates, Expiry, Wanted};
pub use entrance::{Chosen, Entrance, Guarded};

/// The provider, named everywhere: two providers in one build would make rustls panic when it has to choose.
pub fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// Where handshakes find their certificate. Tickets and session cache outlive a replacement.
#[derive(Debug)]
pub struct Resolver {
    current: ArcSwap<Certificates>,
}

impl Resolver {
    /// Begins with these certificates.
    pub fn new(certificates: Certificates) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(certificates) })
    }

    /// New handshakes get these.
    pub fn replace(&self, certificates: Certificates) {
        self.current.store(Arc::new(certificates));
    }

    /// What is served now.
    pub fn current(&self) -> Arc<Certificates> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.current.load().choose(name.as_deref(), hello.signature_schemes())
    }
}

/// The TLS of all public listeners. Draws random once, so that the first handshake need not wait for the pool.
///
/// # Errors
/// When the provider does not offer what we ask; a fault of the build.
pub fn server_config(resolver: Arc<Resolver>, tls12: bool) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = agreeing(base(tls12)?.with_no_client_auth().with_cert_resolver(resolver));
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Versions and key exchanges.
fn base(tls12: bool) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(provider());
    let mut drawn = [0; 32];
    provider.secure_random.fill(&mut drawn).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
    let versions: &[&rustls::SupportedProtocolVersion] =
        if tls12 { &[&rustls::version::TLS13, &rustls::version::TLS12] } else { &[&rustls::version::TLS13] };
    ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)
}

/// What is agreed with every client.
fn agreeing(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A request of early data could be played again by anyone who saw it.
    config.max_early_data_size = 0;
    config
}

#[cfg(test)]
mod tests;
