//! Whether a token is what it says: signature, issuer, audience and other claims that a site asks for (RFC 7519, RFC 8725).
//!
//! Pure: keys and wishes in, times out. Whether it is *now* within those times is the guard's to say, which remembers
//! what was verified.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::credential::signed_part;
use crate::config::app::TokenFormat;
use crate::config::keys::VerifyKey;
use crate::config::verification::Wanted;

/// When a verified token holds, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Not before (`nbf`); zero if it does not say.
    pub begins: u64,
    /// Until (`exp`), exclusive.
    pub ends: u64,
}

/// Why a token is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has no form that could be verified.
    #[error("not a token of this site's format")]
    Form,
    /// `crit`, compression or encryption, none of which we understand.
    #[error("its header asks for what is not understood here")]
    Header,
    /// An algorithm that none of the keys allows.
    #[error("its algorithm is not one of the keys'")]
    Algorithm,
    /// It names a key that is not known.
    #[error("it names a key that is not known")]
    UnknownKey,
    /// Signed by somebody else, or changed.
    #[error("its signature is wrong")]
    Signature,
    /// It never ends, or its times are no numbers.
    #[error("its times are missing or no numbers")]
    Time,
    /// It is a logout token (OpenID Connect Back-Channel Logout), which opens nothing.
    #[error("it is a logout token, which opens nothing")]
    Purpose,
    /// Issuer, audience or another claim is not the one asked for.
    #[error("its issuer, audience or another claim is not what this site asks for")]
    Claim,
}

/// What a token says, and its signature is one of the keys'.
#[derive(Debug)]
pub struct Signed {
    /// The header's `typ`, in lower case and without `application/`.
    pub purpose: Option<String>,
    /// The claims.
    pub claims: Map<String, Value>,
}

impl Signed {
    /// It says that it orders a logout, by its type or its event.
    pub fn is_logout(&self) -> bool {
        let event = self.claims.get("events").and_then(|events| events.get(LOGOUT_EVENT));
        event.is_some() || self.purpose.as_deref() == Some(LOGOUT_TYPE)
    }
}

/// The type of a logout token (OpenID Connect Back-Channel Logout 1.0, 2.4).
pub const LOGOUT_TYPE: &str = "logout+jwt";
/// The event that it must name.
pub const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Verifies a token's signature and all its claims but the time.
///
/// # Errors
/// [`Invalid`], for the operator; strangers hear nothing of it.
pub fn verify(
    text: &[u8],
    format: TokenFormat,
    keys: &[VerifyKey],
    wanted: &Wanted,
) -> Result<Times, Invalid> {
    let signed = signed(text, format, keys)?;
    if signed.is_logout() {
        return Err(Invalid::Purpose);
    }
    if !wanted.holds(&signed.claims) {
        return Err(Invalid::Claim);
    }
    times(&signed.claims)
}

/// Verifies the signature alone.
///
/// # Errors
/// [`Invalid`], likewise.
pub fn signed(text: &[u8], format: TokenFormat, keys: &[VerifyKey]) -> Result<Signed, Invalid> {
    let (header, claims, signature) = segments(text, format)?;
    let header = header.map_or(Ok(Header::pair()), Header::read)?;
    let named = || keys.iter().filter(|key| key.is_called(header.kid.as_deref()));
    if named().next().is_none() {
        return Err(Invalid::UnknownKey);
    }
    let mut fitting = named().filter(|key| key.allows(header.algorithm)).peekable();
    fitting.peek().ok_or(Invalid::Algorithm)?;
    if !fitting.any(|key| key.verify(header.algorithm, signed_part(text), signature)) {
        return Err(Invalid::Signature);
    }
    Ok(Signed { purpose: header.purpose, claims: decoded(claims)? })
}

/// Header, claims and signature; a pair has no header.
fn segments(text: &[u8], format: TokenFormat) -> Result<(Option<&str>, &str, &str), Invalid> {
    let text = std::str::from_utf8(text).map_err(|_| Invalid::Form)?;
    let mut parts = text.split('.');
    let header = match format {
        TokenFormat::Jwt => Some(parts.next().ok_or(Invalid::Form)?),
        TokenFormat::HmacPair => None,
        TokenFormat::Opaque => return Err(Invalid::Form),
    };
    match (parts.next(), parts.next(), parts.next()) {
        (Some(claims), Some(signature), None) => Ok((header, claims, signature)),
        _ => Err(Invalid::Form),
    }
}

fn decoded<T: for<'de> Deserialize<'de>>(segment: &str) -> Result<T, Invalid> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| Invalid::Form)?;
    serde_json::from_slice(&bytes).map_err(|_| Invalid::Form)
}

fn times(claims: &Map<String, Value>) -> Result<Times, Invalid> {
    let begins = claims.get("nbf").map_or(Ok(0), |claim| seconds(claim).ok_or(Invalid::Time))?;
    let ends = claims.get("exp").and_then(seconds).ok_or(Invalid::Time)?;
    Ok(Times { begins, ends })
}

/// Unix seconds, rounded down; the standard allows fractions.
pub(super) fn seconds(claim: &Value) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    claim.as_u64().or_else(|| claim.as_f64().filter(|at| (0.0..1e15).contains(at)).map(|at| at as u64))
}

/// What counts of a header. `jku`, `jwk`, `x5u` and `x5c` are a stranger's text: never looked at.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
    purpose: Option<String>,
}

#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
    zip: Option<IgnoredAny>,
    enc: Option<IgnoredAny>,
    /// Detached or unencoded payloads (RFC 7797).
    b64: Option<IgnoredAny>,
}

impl Header {
    fn read(segment: &str) -> Result<Self, Invalid> {
        let raw: RawHeader = decoded(segment)?;
        if raw.crit.is_some() || raw.zip.is_some() || raw.enc.is_some() || raw.b64.is_some() {
            return Err(Invalid::Header);
        }
        let algorithm = raw.alg.parse().map_err(|_| Invalid::Algorithm)?;
        let purpose = raw.typ.map(|typ| typ.to_ascii_lowercase());
        let purpose = purpose.map(|typ| typ.strip_prefix("application/").unwrap_or(&typ).to_owned());
        Ok(Self { algorithm, kid: raw.kid, purpose })
    }

    /// Keepstack's pairs are HMAC-SHA256 by custom.
    const fn pair() -> Self {
        Self { algorithm: Algorithm::HS256, kid: None, purpose: None }
    }
}

#[cfg(test)]
#[path = "verification_tests.rs"]
mod tests;
