//! Keys that tokens are verified with, from PEM, a key set (RFC 7517) or a shared secret.
//!
//! The key alone says which algorithms a token may name: a header that could choose would let a public key be taken for
//! a shared secret.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde::Deserialize;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

/// More keys of one site are refused: each one may cost a signature check per token.
pub const MAX_KEYS: usize = 16;
/// Larger key sets are refused.
pub const MAX_SET: usize = 256 * 1024;
/// A shared secret as long as the hash of HS256 (RFC 7518, 3.2), in bytes.
const MIN_SECRET: usize = 32;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: &[Algorithm] = &[Algorithm::ES256];
const P384: &[Algorithm] = &[Algorithm::ES384];
const ED: &[Algorithm] = &[Algorithm::EdDSA];
const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];

/// A key and what it may be used for.
#[derive(Clone)]
pub struct VerifyKey {
    /// The name by which tokens ask for it (`kid`).
    id: Option<Box<str>>,
    /// What its kind allows, narrowed by what the key set says.
    algorithms: &'static [Algorithm],
    only: Option<Algorithm>,
    key: DecodingKey,
}

impl PartialEq for VerifyKey {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |key: &Self| match key.key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => (bytes.clone(), Vec::new()),
            DecodingKeyKind::RsaModulusExponent { n, e } => (n.clone(), e.clone()),
        };
        (&self.id, self.algorithms, self.only) == (&other.id, other.algorithms, other.only)
            && bytes(self) == bytes(other)
    }
}

/// Where keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A file of the operator's: it may hold a shared secret.
    File,
    /// An address: what anybody can fetch is no secret.
    Address,
}

/// Why there is no key, in words, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: &'static str,
}

impl KeyError {
    fn new(message: impl Into<String>, help: &'static str) -> Self {
        Self { message: message.into(), help }
    }
}

/// Reads a key file: PEM (public keys or certificates), a key set in JSON, or else one line that is a shared secret.
///
/// # Errors
/// [`KeyError`]: no key, a private one, a weak one, too many.
pub fn read_file(bytes: &[u8]) -> Result<Vec<VerifyKey>, KeyError> {
    let text = bytes.trim_ascii();
    if text.starts_with(b"-----BEGIN") {
        return read_pem(text);
    }
    if text.starts_with(b"{") {
        return read_set(text, Origin::File);
    }
    VerifyKey::secret(text, None).map(|key| vec![key])
}

/// Reads a key set. Keys for encryption and of unknown kinds are left out.
///
/// # Errors
/// [`KeyError`]: no key set, none or too many usable keys, a weak or damaged one.
pub fn read_set(json: &[u8], origin: Origin) -> Result<Vec<VerifyKey>, KeyError> {
    let help = "a key set is {\"keys\": [{\"kty\": …}]} (RFC 7517)";
    if json.len() > MAX_SET {
        return Err(KeyError::new(format!("the key set is larger than {} KiB", MAX_SET >> 10), help));
    }
    let set: RawSet = serde_json::from_slice(json)
        .map_err(|error| KeyError::new(format!("it is no key set: {error}"), help))?;
    let mut keys = Vec::new();
    for raw in &set.keys {
        keys.extend(raw.read(origin)?);
    }
    counted(keys)
}

fn read_pem(text: &[u8]) -> Result<Vec<VerifyKey>, KeyError> {
    let help = "name a PEM file with the public keys: `openssl pkey -in private.pem -pubout`";
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|_| KeyError::new("the PEM file is damaged or cut short", help))?;
        match kind {
            SectionKind::PublicKey => keys.push(VerifyKey::public(&der)?),
            SectionKind::Certificate => {
                let (_, certificate) = X509Certificate::from_der(&der)
                    .map_err(|_| KeyError::new("a certificate in it cannot be read", help))?;
                keys.push(VerifyKey::public(certificate.public_key().raw)?);
            }
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                return Err(KeyError::new("it holds a private key, which has no business here", help));
            }
            _ => {}
        }
    }
    counted(keys)
}

fn counted(keys: Vec<VerifyKey>) -> Result<Vec<VerifyKey>, KeyError> {
    match keys.len() {
        0 => Err(KeyError::new(
            "it holds no key that verifies signatures",
            "public keys are RSA from 2048 bits, P-256, P-384 or Ed25519",
        )),
        1..=MAX_KEYS => Ok(keys),
        many => Err(KeyError::new(
            format!("it holds {many} keys; at most {MAX_KEYS} are tried"),
            "name only those in use",
        )),
    }
}

// === impl VerifyKey ===

impl VerifyKey {
    /// A shared secret.
    ///
    /// # Errors
    /// [`KeyError`] when it is shorter than the hash.
    pub fn secret(secret: &[u8], id: Option<&str>) -> Result<Self, KeyError> {
        if secret.len() < MIN_SECRET {
            return Err(KeyError::new(
                format!("a shared secret of {} bytes can be guessed; {MIN_SECRET} are needed", secret.len()),
                "make one anew: `openssl rand -hex 32`, here and in the application",
            ));
        }
        Ok(Self::new(id, HMAC, DecodingKey::from_secret(secret)))
    }

    /// Whether a token signed with it may name this algorithm.
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.only.map_or_else(|| self.algorithms.contains(&algorithm), |only| only == algorithm)
    }

    /// The algorithms that a token signed with it may name.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.algorithms.iter().copied().filter(|one| self.allows(*one))
    }

    /// Whether a token that asks for `id`, or for none, means this key.
    pub fn is_called(&self, id: Option<&str>) -> bool {
        match (&self.id, id) {
            (Some(own), Some(asked)) => **own == *asked,
            // A key without a name may be meant by any, and a token without one may mean any.
            _ => true,
        }
    }

    /// Whether the signature, in base64url, is this key's over the message.
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        self.allows(algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }

    fn new(id: Option<&str>, algorithms: &'static [Algorithm], key: DecodingKey) -> Self {
        Self { id: id.map(Into::into), algorithms, only: None, key }
    }

    /// From a SubjectPublicKeyInfo (RFC 5280).
    fn public(der: &[u8]) -> Result<Self, KeyError> {
        let unusable = || {
            KeyError::new(
                "it holds a public key that cannot be used",
                "use RSA from 2048 bits, P-256, P-384 or Ed25519",
            )
        };
        let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|_| unusable())?;
        let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
        let curve = curve.map(|oid| oid.to_id_string());
        let (algorithms, key) = match (info.parsed(), curve.as_deref()) {
            (Ok(PublicKey::RSA(rsa)), _) => {
                checked_modulus(rsa.modulus)?;
                (RSA, DecodingKey::from_rsa_der(der))
            }
            (Ok(PublicKey::EC(_)), Some("1.2.840.10045.3.1.7")) => (P256, DecodingKey::from_ec_der(der)),
            (Ok(PublicKey::EC(_)), Some("1.3.132.0.34")) => (P384, DecodingKey::from_ec_der(der)),
            _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
                (ED, DecodingKey::from_ed_der(&info.subject_public_key.data))
            }
            _ => return Err(unusable()),
        };
        let bytes = key.try_get_as_bytes().map_err(|_| unusable())?;
        ParsedPublicKey::new(verifier(algorithms), bytes).map_err(|_| unusable())?;
        Ok(Self::new(None, algorithms, key))
    }
}

fn checked_modulus(modulus: &[u8]) -> Result<(), KeyError> {
    let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
    if (256..=1024).contains(&bytes) {
        return Ok(());
    }
    let help = "RSA keys are used from 2048 to 8192 bits";
    Err(KeyError::new(format!("an RSA key in it has {} bits", bytes * 8), help))
}

/// Refuses, by parsing, points off the curve.
fn verifier(algorithms: &'static [Algorithm]) -> &'static dyn VerificationAlgorithm {
    match algorithms.first() {
        Some(Algorithm::ES256) => &ECDSA_P256_SHA256_FIXED,
        Some(Algorithm::ES384) => &ECDSA_P384_SHA384_FIXED,
        Some(Algorithm::EdDSA) => &ED25519,
        _ => &RSA_PKCS1_2048_8192_SHA256,
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyKey").field("id", &self.id).finish_non_exhaustive()
    }
}

// === key sets ===

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<RawKey>,
}

/// What a key of a set says; what we do not use is passed over.
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    k: Option<String>,
    /// Only a private key has it.
    d: Option<serde::de::IgnoredAny>,
}

impl RawKey {
    fn read(&self, origin: Origin) -> Result<Option<VerifyKey>, KeyError> {
        let verifies = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !verifies {
            return Ok(None);
        }
        if self.d.is_some() {
            let help = "publish and name the public half only, and make the key anew";
            return Err(KeyError::new("it holds a private key, which has no business here", help));
        }
        let Some(key) = self.key(origin)? else { return Ok(None) };
        let Some(word) = &self.alg else { return Ok(Some(key)) };
        // An algorithm that we do not know, or of another kind of key, makes it no key for us.
        let only = word.parse().ok().filter(|only| key.algorithms.contains(only));
        Ok(only.map(|only| VerifyKey { only: Some(only), ..key }))
    }

    fn key(&self, origin: Origin) -> Result<Option<VerifyKey>, KeyError> {
        let id = self.kid.as_deref();
        let key = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => return self.rsa().map(Some),
            ("EC", Some("P-256")) => (P256, self.point(32)?),
            ("EC", Some("P-384")) => (P384, self.point(48)?),
            ("OKP", Some("Ed25519")) => (ED, coordinate(self.x.as_deref(), 32)?),
            ("oct", _) if origin == Origin::File => {
                let secret = decoded(self.k.as_deref())?;
                return VerifyKey::secret(&secret, id).map(Some);
            }
            _ => return Ok(None),
        };
        let (algorithms, bytes) = key;
        ParsedPublicKey::new(verifier(algorithms), &bytes).map_err(|_| damaged())?;
        let key = if algorithms == ED {
            DecodingKey::from_ed_der(&bytes)
        } else {
            DecodingKey::from_ec_der(&bytes)
        };
        Ok(Some(VerifyKey::new(id, algorithms, key)))
    }

    fn rsa(&self) -> Result<VerifyKey, KeyError> {
        let (modulus, exponent) = (decoded(self.n.as_deref())?, decoded(self.e.as_deref())?);
        checked_modulus(&modulus)?;
        if exponent.len() > 8 {
            return Err(damaged());
        }
        Ok(VerifyKey::new(
            self.kid.as_deref(),
            RSA,
            DecodingKey::from_rsa_raw_components(&modulus, &exponent),
        ))
    }

    /// An uncompressed point (SEC 1, 2.3.3).
    fn point(&self, size: usize) -> Result<Vec<u8>, KeyError> {
        let (x, y) = (coordinate(self.x.as_deref(), size)?, coordinate(self.y.as_deref(), size)?);
        Ok([&[4], x.as_slice(), y.as_slice()].concat())
    }
}

fn coordinate(text: Option<&str>, size: usize) -> Result<Vec<u8>, KeyError> {
    decoded(text).and_then(|bytes| if bytes.len() == size { Ok(bytes) } else { Err(damaged()) })
}

fn decoded(text: Option<&str>) -> Result<Vec<u8>, KeyError> {
    URL_SAFE_NO_PAD.decode(text.unwrap_or_default()).map_err(|_| damaged())
}

fn damaged() -> KeyError {
    KeyError::new("a key in it is damaged", "fetch the key set anew")
}
