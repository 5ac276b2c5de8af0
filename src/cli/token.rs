//! What a pasted token is: its fingerprints, and what it says of itself, unverified.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::config::app::TokenFormat;
use crate::request::credential::Fingerprint;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A pasted token, looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pasted {
    /// One for each format that it may have: nearly always one.
    pub fingerprints: Vec<Fingerprint>,
    /// `sub`, a number as text.
    pub subject: Option<String>,
    /// `jti`.
    pub jti: Option<String>,
    /// `exp`, Unix seconds.
    pub expires: Option<u64>,
}

/// Takes what people paste: the token, `Bearer …`, a whole `Authorization:` line, quotes and blanks around it.
pub fn bare(pasted: &str) -> &str {
    let mut text = pasted.trim().trim_matches(['"', '\'']).trim();
    for prefix in ["authorization:", "bearer "] {
        if text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)) {
            text = text.get(prefix.len()..).unwrap_or_default().trim();
        }
    }
    text
}

/// Looks at a bare token. `None`: it is empty, or has blanks inside and so is no token.
pub fn look(token: &str, formats: &[TokenFormat]) -> Option<Pasted> {
    if token.is_empty()
        || token.contains(|character: char| character.is_whitespace() || character.is_control())
    {
        return None;
    }
    let guessed = [guess(token)];
    let formats = if formats.is_empty() { &guessed } else { formats };
    let mut pasted = Pasted::default();
    for format in formats {
        let fingerprint = Fingerprint::of(signed_part(token, *format).as_bytes());
        if !pasted.fingerprints.contains(&fingerprint) {
            pasted.fingerprints.push(fingerprint);
        }
    }
    if let Some(claims) = claims(token) {
        pasted.subject = claims.get("sub").and_then(text);
        pasted.jti = claims.get("jti").and_then(text);
        pasted.expires = claims.get("exp").and_then(seconds);
    }
    Some(pasted)
}

/// All before the last dot of a JWT or pair, the whole of an opaque one.
fn signed_part(token: &str, format: TokenFormat) -> &str {
    let dots = token.matches('.').count();
    match format {
        TokenFormat::Jwt if dots == 2 => {}
        TokenFormat::HmacPair if dots == 1 => {}
        TokenFormat::Jwt | TokenFormat::HmacPair | TokenFormat::Opaque => return token,
    }
    token.rsplit_once('.').map_or(token, |(signed, _)| signed)
}

fn guess(token: &str) -> TokenFormat {
    match (token.matches('.').count(), claims(token)) {
        (2, Some(_)) => TokenFormat::Jwt,
        (1, Some(_)) => TokenFormat::HmacPair,
        _ => TokenFormat::Opaque,
    }
}

fn claims(token: &str) -> Option<serde_json::Map<String, Value>> {
    let parts: Vec<&str> = token.split('.').collect();
    let payload = match parts.as_slice() {
        [payload, _] | [_, payload, _] => payload,
        _ => return None,
    };
    let bytes = LENIENT.decode(payload).ok()?;
    match serde_json::from_slice(&bytes).ok()? {
        Value::Object(claims) => Some(claims),
        _ => None,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|float| (0.0..1e13).contains(float))?;
        format!("{float:.0}").parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as B64;

    use super::*;

    #[test]
    fn a_token_is_taken_however_it_was_pasted() {
        for pasted in ["a.b.c", " a.b.c\n", "Bearer a.b.c", "authorization: BEARER  a.b.c", "\"a.b.c\""] {
            assert_eq!(bare(pasted), "a.b.c", "{pasted:?}");
        }
    }

    #[test]
    fn the_fingerprint_leaves_the_signature_out() {
        let payload = B64.encode(r#"{"sub":1,"jti":"x","exp":1700000000.5}"#);
        let jwt = format!("{}.{payload}.sig", B64.encode("{}"));
        let one = look(&jwt, &[]).unwrap();
        let other = look(&jwt.replace(".sig", ".other"), &[TokenFormat::Jwt]).unwrap();
        assert_eq!(one.fingerprints, other.fingerprints);
        assert_eq!((one.subject.as_deref(), one.jti.as_deref()), (Some("1"), Some("x")));
        assert_eq!(one.expires, Some(1_700_000_000));
        let pair = look(&format!("{payload}.sig"), &[]).unwrap();
        assert_eq!(pair.fingerprints, [Fingerprint::of(payload.as_bytes())]);
    }

    #[test]
    fn two_formats_give_two_fingerprints_and_an_opaque_token_its_whole() {
        let both = look("opaque.token.here", &[TokenFormat::Jwt, TokenFormat::Opaque]).unwrap();
        assert_eq!(
            both.fingerprints,
            [Fingerprint::of(b"opaque.token"), Fingerprint::of(b"opaque.token.here")]
        );
        assert_eq!(
            look("opaque.token.here", &[]).unwrap().fingerprints,
            [Fingerprint::of(b"opaque.token.here")]
        );
        assert_eq!(look("two words", &[]), None);
    }
}
