//! Certificate and key files: readable, whole, belonging together, in their time, and the key nobody else's to read.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Span, Value, read_file};
use crate::config::settings::CertificateFiles;
use crate::config::values::{HostPattern, ValueError};

/// For whom a certificate speaks.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<HostPattern>,
    addresses: Vec<Vec<u8>>,
    pub file: PathBuf,
    pub span: Span,
}

impl Names {
    /// Whether a client that wants this host is content.
    pub fn covers(&self, host: &HostPattern) -> bool {
        match host.name().parse::<std::net::IpAddr>() {
            Ok(std::net::IpAddr::V4(address)) => {
                self.addresses.iter().any(|known| *known == address.octets())
            }
            Ok(std::net::IpAddr::V6(address)) => {
                self.addresses.iter().any(|known| *known == address.octets())
            }
            Err(_) if host.is_wildcard() => self.names.contains(host),
            Err(_) => self.names.iter().any(|name| name.matches(host.name())),
        }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.iter().map(ToString::to_string).collect();
        if names.is_empty() { f.write_str("no DNS name") } else { f.write_str(&names.join(", ")) }
    }
}

/// Checks a pair of files; every problem is told at the key that names the file.
pub(super) fn check(cert: &Value<'_>, key: &Value<'_>, files: &CertificateFiles) -> Option<Names> {
    let chain = told(cert, chain(&files.cert));
    let private = told(key, private_key(&files.key));
    permissions(key, &files.key);
    let chain = chain?;
    let names = told(cert, leaf(&chain, cert, &files.cert));
    let signing = told(key, signing_key(&private?, &files.key))?;
    let pair = CertifiedKey::new(chain, signing);
    // An algorithm whose public half cannot be read out (`Unknown`) is no mismatch.
    if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = pair.keys_match() {
        key.wrong(ValueError {
            message: format!("the key in {} does not belong to the certificate", files.key.display()),
            help: format!("name the key that {} was made with", files.cert.display()),
        });
        return None;
    }
    names
}

pub(super) fn told<T>(value: &Value<'_>, result: Result<T, ValueError>) -> Option<T> {
    result.map_err(|error| value.wrong(error)).ok()
}

pub(super) fn bytes_of(path: &Path) -> Result<Vec<u8>, ValueError> {
    read_file(path).map_err(|why| ValueError {
        message: format!("{} cannot be read: {why}", path.display()),
        help: "name a file that exists and that this user may read".into(),
    })
}

pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, ValueError> {
    let wrong = |what: &str| ValueError {
        message: format!("{} {what}", path.display()),
        help: "name a PEM file: your own certificate first, then those that lead to the root".into(),
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes_of(path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("is damaged or cut short"))?;
    if chain.is_empty() {
        return Err(wrong("holds no certificate"));
    }
    Ok(chain)
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ValueError> {
    PrivateKeyDer::from_pem_slice(&bytes_of(path)?).map_err(|error| ValueError {
        message: match error {
            rustls_pki_types::pem::Error::NoItemsFound => {
                format!("{} holds no private key", path.display())
            }
            _ => format!("{} is damaged or cut short", path.display()),
        },
        help: "name a PEM file with one private key, without a pass phrase".into(),
    })
}

fn signing_key(
    key: &PrivateKeyDer<'static>,
    path: &Path,
) -> Result<std::sync::Arc<dyn rustls::sign::SigningKey>, ValueError> {
    rustls::crypto::aws_lc_rs::sign::any_supported_type(key).map_err(|_| ValueError {
        message: format!("{} holds a key that cannot be used", path.display()),
        help: "use ECDSA (P-256, P-384, P-521), Ed25519 or RSA from 2048 bits".into(),
    })
}

fn leaf(chain: &[CertificateDer<'_>], value: &Value<'_>, path: &Path) -> Result<Names, ValueError> {
    let wrong = |what: String, help: &str| ValueError {
        message: format!("{} {what}", path.display()),
        help: help.into(),
    };
    let renew = "renew it: `openssl x509 -noout -dates -in FILE` shows its time";
    let mut first = None;
    for der in chain {
        let (_, certificate) = X509Certificate::from_der(der.as_ref())
            .map_err(|_| wrong("holds something that is no X.509 certificate".into(), "make it anew"))?;
        let now = i64::try_from(value.doc.now.unix()).unwrap_or(i64::MAX);
        let validity = certificate.validity();
        if validity.not_after.timestamp() < now {
            return Err(wrong(format!("has expired on {}", validity.not_after), renew));
        }
        if validity.not_before.timestamp() > now {
            return Err(wrong(format!("is not valid before {}", validity.not_before), renew));
        }
        first.get_or_insert_with(|| names_of(&certificate, path, value.span.clone()));
    }
    first.ok_or_else(|| wrong("holds no certificate".into(), renew))
}

/// Only the alternative names count: clients have stopped to look at the common name.
fn names_of(certificate: &X509Certificate<'_>, file: &Path, span: Span) -> Names {
    let mut names = Names { names: Vec::new(), addresses: Vec::new(), file: file.to_owned(), span };
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.names.extend(name.parse::<HostPattern>().ok()),
                GeneralName::IPAddress(bytes) => names.addresses.push(bytes.to_vec()),
                _ => {}
            }
        }
    }
    names
}

/// A key that others can read is no secret; where an orchestrator mounts secrets it sets the mode itself.
pub(super) fn permissions(value: &Value<'_>, path: &Path) {
    let Ok(about) = std::fs::metadata(path) else { return };
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return;
    }
    let message = format!("`{}`: {} can be read by others (mode {mode:04o})", value.name, path.display());
    let help = format!("chmod 600 {}", path.display());
    if is_mounted_secret(path) {
        value.doc.warning(value.span.clone(), message, format!("{help}, or set the mode of the mount"));
    } else {
        value.doc.problem(value.span.clone(), message, help);
    }
}

fn is_mounted_secret(path: &Path) -> bool {
    path.starts_with("/run/secrets")
        || path.starts_with("/var/run/secrets")
        || path.parent().is_some_and(|dir| dir.join("..data").symlink_metadata().is_ok())
}
