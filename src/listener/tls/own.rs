//! The gateway as a client of itself: believes nobody but this process's own certificates.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Resolver, provider};

/// For a connection to a listener of this process: its certificate must be the one that is served for the name.
///
/// # Errors
/// When the provider does not offer what we ask; a fault of the build.
pub fn client_config(resolver: Arc<Resolver>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(provider());
    let own = Arc::new(Own { resolver, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(own)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Own {
    resolver: Arc<Resolver>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = match server_name {
            ServerName::DnsName(name) => Some(name.as_ref().to_ascii_lowercase()),
            _ => None,
        };
        let served = self.resolver.current().choose(name.as_deref(), &self.supported_verify_schemes());
        let own = served.and_then(|key| key.cert.first().map(|own| own == end_entity));
        match own {
            Some(true) => Ok(ServerCertVerified::assertion()),
            _ => Err(Error::General("somebody else than this gateway answers there".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
