//! `upstream_tls`: whom an `https://` upstream must prove to be, and what it is shown.

use std::cell::{Cell, OnceCell};
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::certificates::{chain, check, private_key, told};
use super::{Table, Value};
use crate::config::settings::CertificateFiles;
use crate::config::upstream::UpstreamTls;
use crate::config::values::ValueError;

/// The table of a site or route, absent or not.
pub(super) struct Trust<'d> {
    given: Option<Value<'d>>,
    /// `None`: a file or key of it is wrong, which has been told.
    parts: Option<Parts>,
    used: Cell<bool>,
    built: OnceCell<Option<Built>>,
}

#[derive(Default)]
struct Parts {
    roots: Option<Vec<CertificateDer<'static>>>,
    name: Option<ServerName<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

struct Built {
    config: Arc<ClientConfig>,
    fingerprint: [u8; 32],
}

impl<'d> Trust<'d> {
    /// Reads `upstream_tls` of a site or route. End with [`Trust::finish`].
    pub fn read(table: &mut Table<'d>) -> Self {
        let given = table.get("upstream_tls");
        let parts = match &given {
            Some(value) => value.table().and_then(parts),
            None => Some(Parts::default()),
        };
        Self { given, parts, used: Cell::new(false), built: OnceCell::new() }
    }

    /// Whether there is a table.
    pub fn is_given(&self) -> bool {
        self.given.is_some()
    }

    /// For an upstream on this host; `None`: something is wrong, and told.
    pub fn of(&self, upstream: &Value<'_>, host: &str) -> Option<Arc<UpstreamTls>> {
        self.used.set(true);
        let parts = self.parts.as_ref()?;
        let name = match &parts.name {
            Some(name) => name.clone(),
            None => told(upstream, server_name(host))?,
        };
        let built = self.built.get_or_init(|| told(upstream, build(parts))).as_ref()?;
        let config = Arc::clone(&built.config);
        Some(Arc::new(UpstreamTls { name, config, fingerprint: built.fingerprint }))
    }

    /// Nothing is accepted and then ignored.
    pub fn finish(self) {
        if let (Some(value), false) = (self.given, self.used.get()) {
            value.doc.problem(
                value.key_span.clone(),
                format!("`{}` is for an `https://` upstream, and there is none here", value.name),
                "write upstream = \"https://…\", or remove the table",
            );
        }
    }
}

/// For a server of keys: by the CA of this file, or the system's.
pub(super) fn of_server(at: &Value<'_>, ca_file: Option<&Value<'_>>, host: &str) -> Option<Arc<UpstreamTls>> {
    let roots = match ca_file {
        Some(value) => Some(roots(value)?),
        None => None,
    };
    let name = told(at, server_name(host))?;
    let built = build(&Parts { roots, ..Parts::default() }).map_err(|error| ValueError {
        help: "name its CA in `ca_file`, or install ca-certificates".into(),
        ..error
    });
    let Built { config, fingerprint } = told(at, built)?;
    Some(Arc::new(UpstreamTls { name, config, fingerprint }))
}

fn parts(mut table: Table<'_>) -> Option<Parts> {
    let before = table.doc.count();
    let roots = table.get("ca_file").and_then(|value| roots(&value));
    let name = table.parse("server_name", server_name);
    let client = client(&mut table);
    let doc = table.doc;
    table.finish();
    (doc.count() == before).then_some(Parts { roots, name, client })
}

fn server_name(text: &str) -> Result<ServerName<'static>, ValueError> {
    ServerName::try_from(text.to_owned()).map_err(|_| ValueError {
        message: format!("`{text}` is no name that a certificate could have"),
        help: "write a host name or an address, e.g. \"backup.internal\"".into(),
    })
}

fn roots(value: &Value<'_>) -> Option<Vec<CertificateDer<'static>>> {
    let path = value.doc.named_file(value.text()?);
    let roots = told(value, chain(&path))?;
    let mut store = RootCertStore::empty();
    for root in &roots {
        if store.add(root.clone()).is_err() {
            value.wrong(ValueError {
                message: format!("{} holds something that is no certificate of a CA", path.display()),
                help: "name the PEM file of the CA that has signed the server's certificate".into(),
            });
            return None;
        }
    }
    Some(roots)
}

fn client(table: &mut Table<'_>) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let (cert, key) = (table.get("cert"), table.get("key"));
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return None,
        (Some(one), None) | (None, Some(one)) => {
            let help = "a client certificate is two files: cert = \"client.pem\", key = \"client-key.pem\"";
            one.doc.missing(one.key_span.clone(), "`cert` and `key` belong together", help);
            return None;
        }
    };
    let file = |value: &Value<'_>| -> Option<PathBuf> { Some(value.doc.named_file(value.text()?)) };
    let files = CertificateFiles { cert: file(&cert)?, key: file(&key)? };
    check(&cert, &key, &files)?;
    Some((chain(&files.cert).ok()?, private_key(&files.key).ok()?))
}

fn build(parts: &Parts) -> Result<Built, ValueError> {
    let roots = match &parts.roots {
        Some(roots) => roots.clone(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    if roots.is_empty() {
        return Err(ValueError {
            message: "this system has no CA certificates to know another server by".into(),
            help: "name the upstream's CA in upstream_tls.ca_file, or install ca-certificates".into(),
        });
    }
    let mut digest = Context::new(&SHA256);
    let mut store = RootCertStore::empty();
    for root in roots {
        digest.update(&root);
        // One of the system's that cannot be read proves nothing; the file's own were all read.
        let _ = store.add(root);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |error: rustls::Error| ValueError {
        message: format!("TLS to upstreams cannot be set up: {error}"),
        help: "use a certificate with an ECDSA (P-256, P-384), Ed25519 or RSA key".into(),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(store);
    let config = match &parts.client {
        Some((chain, key)) => {
            chain.iter().for_each(|one| digest.update(one));
            digest.update(key.secret_der());
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(unusable)?
        }
        None => builder.with_no_client_auth(),
    };
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.finish().as_ref());
    Ok(Built { config: Arc::new(config), fingerprint })
}
