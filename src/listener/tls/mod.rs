//! TLS of the public side: one `ServerConfig` for the life of the process, certificates by name, replaced hot.

mod certificates;
mod entrance;
mod leaf;
pub mod own;
mod self_signed;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};

use crate::stores::challenges::Challenges;

pub use certificates::{Certificates, Expiry, Source, Wanted};
pub use entrance::{Chosen, Entrance, Guarded};
pub use leaf::Leaf;

/// What an authority speaks that tries whether a host is ours (RFC 8737), and nobody else.
pub const CHALLENGE: &[u8] = b"acme-tls/1";

/// What is spoken over TLS, the dearest first.
const SPOKEN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The provider, named everywhere: two providers in one build would make rustls panic when it has to choose.
pub fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// Where handshakes find their certificate. Tickets and session cache outlive a replacement.
#[derive(Debug)]
pub struct Resolver {
    current: ArcSwap<Certificates>,
    challenges: Arc<Challenges>,
}

impl Resolver {
    /// Begins with these certificates, and shows the open challenges to whoever asks for nothing else.
    pub fn new(certificates: Certificates, challenges: Arc<Challenges>) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(certificates), challenges })
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
        if is_challenge(&hello) {
            return self.challenges.certificate(&name?);
        }
        let current = self.current.load();
        // One that does not fit lets rustls say what is wrong: without any it would say that access is denied.
        current.choose(name.as_deref(), hello.signature_schemes()).or_else(|| current.any(name.as_deref()))
    }
}

/// Whether a client wants nothing but to see a challenge's certificate. It must get no other, and no service; nor may it be
/// asked for a certificate of its own.
pub fn is_challenge(hello: &ClientHello<'_>) -> bool {
    let Some(offered) = hello.alpn() else { return false };
    let mut challenge = false;
    for protocol in offered {
        if SPOKEN.contains(&protocol) {
            return false;
        }
        challenge |= protocol == CHALLENGE;
    }
    challenge
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
    // Last: it is settled only with a client that offers nothing else, which gets no more than the handshake.
    config.alpn_protocols = SPOKEN.into_iter().chain([CHALLENGE]).map(<[u8]>::to_vec).collect();
    // A request of early data could be played again by anyone who saw it.
    config.max_early_data_size = 0;
    config
}

#[cfg(test)]
mod tests;
