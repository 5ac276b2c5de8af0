//! Our own throw-away CA, for trying things out and until ACME has delivered. Kept in the state directory, so that
//! it can be trusted once by hand; its leaves live in memory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use crate::clock::Now;

const CA_NAME: &str = "Portcullis throw-away CA";
const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const CA_DAYS: i64 = 3650;
/// The longest that every browser takes.
const LEAF_DAYS: i64 = 397;

/// The CA.
pub(super) struct Ca {
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Reads the CA, or makes one if there is none yet.
    pub(super) fn open(dir: &Path, now: Now) -> io::Result<Self> {
        let pem = match fs::read_to_string(dir.join(CA_KEY)) {
            Ok(pem) if dir.join(CA_CERT).exists() => pem,
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "ca-key.pem is there, ca.pem is not"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::make(dir, now),
            Err(error) => return Err(error),
        };
        let key = KeyPair::from_pem(&pem).map_err(io::Error::other)?;
        Ok(Self { issuer: Issuer::new(ca_params(now)?, key) })
    }

    fn make(dir: &Path, now: Now) -> io::Result<Self> {
        if !dir.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let params = ca_params(now)?;
        let cert = params.self_signed(&key).map_err(io::Error::other)?;
        // The key goes last: whoever finds it finds its certificate too.
        write(dir, CA_CERT, cert.pem().as_bytes(), 0o644)?;
        write(dir, CA_KEY, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// A leaf for one host, and when it ends.
    pub(super) fn issue(&self, host: &str, now: Now) -> io::Result<(Arc<CertifiedKey>, i64)> {
        let mut params = leaf_params(host, now)?;
        if host == "localhost" {
            let loopback = [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
            params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
        }
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        certified(cert, &key, params.not_after)
    }
}

/// A certificate for nobody, for clients that are to be told that they are wrong here.
pub(super) fn throw_away(now: Now) -> io::Result<(Arc<CertifiedKey>, i64)> {
    let params = leaf_params("unknown.invalid", now)?;
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let cert = params.self_signed(&key).map_err(io::Error::other)?;
    certified(cert, &key, params.not_after)
}

fn ca_params(now: Now) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, CA_NAME);
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(now, CA_DAYS)?;
    Ok(params)
}

fn leaf_params(host: &str, now: Now) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(io::Error::other)?;
    let mut name = DistinguishedName::new();
    // A common name has room for 64 characters; clients look at the alternative names anyway.
    name.push(DnType::CommonName, host.get(..64).unwrap_or(host));
    params.distinguished_name = name;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity(now, LEAF_DAYS)?;
    Ok(params)
}

/// From a day ago, for clients whose clock is late.
fn validity(now: Now, days: i64) -> io::Result<(OffsetDateTime, OffsetDateTime)> {
    let unix = i64::try_from(now.unix()).map_err(io::Error::other)?;
    let now = OffsetDateTime::from_unix_timestamp(unix).map_err(io::Error::other)?;
    Ok((now - Duration::days(1), now + Duration::days(days - 1)))
}

fn certified(
    cert: rcgen::Certificate,
    key: &KeyPair,
    not_after: OffsetDateTime,
) -> io::Result<(Arc<CertifiedKey>, i64)> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![cert.der().clone()];
    let certified = CertifiedKey::from_der(chain, key, &super::provider()).map_err(io::Error::other)?;
    Ok((Arc::new(certified), not_after.unix_timestamp()))
}

/// Aside, synced, renamed, directory synced: whatever happens, the file is whole or not there.
fn write(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = dir.join(format!(".{name}.new"));
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, dir.join(name))?;
    File::open(dir)?.sync_all()
}
