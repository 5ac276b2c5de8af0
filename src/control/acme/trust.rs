//! Whom we believe to be the authority.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;

/// TLS that trusts these CAs, or those of this machine.
///
/// # Errors
/// When there is no CA to trust, in words.
pub(super) fn client_config(cas: Option<&[CertificateDer<'static>]>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match cas {
        Some(cas) => {
            for ca in cas {
                roots.add(ca.clone()).map_err(|error| format!("acme.ca_file: {error}"))?;
            }
        }
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    if roots.is_empty() {
        return Err("there is no CA to trust: install ca-certificates, or name `ca_file`".into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}
