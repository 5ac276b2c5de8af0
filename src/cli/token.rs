//! What a pasted token is: its fingerprints and its end, as the gateway itself will see it in a request.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::config::app::TokenFormat;
use crate::request::credential::{Fingerprint, examine, signed_part};

/// A pasted token, looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pasted {
    /// One for each format that it may have: nearly always one.
    pub fingerprints: Vec<Fingerprint>,
    /// When it says that it ends, Unix seconds.
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
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let guessed = [guess(token)];
    let formats = if formats.is_empty() { &guessed } else { formats };
    let mut pasted = Pasted::default();
    // In queries and cookies it may be escaped: the gateway looks behind that.
    let plain: Cow<'_, [u8]> = percent_decode_str(token).into();
    for text in [token.as_bytes(), &plain] {
        for format in formats {
            pasted.add(text, *format);
        }
    }
    Some(pasted)
}

impl Pasted {
    fn add(&mut self, text: &[u8], format: TokenFormat) {
        let (fingerprint, claims) = match examine(text, format, Duration::ZERO, false) {
            Ok(credential) => (credential.fingerprint, credential.claims),
            // A spelling that the gateway refuses; what was signed is in it all the same.
            Err(_) => (Fingerprint::of(signed_part(text)), None),
        };
        if !self.fingerprints.contains(&fingerprint) {
            self.fingerprints.push(fingerprint);
        }
        self.expires = self.expires.or(claims.and_then(|claims| claims.expires));
    }
}

/// What it looks like, when no config says so.
fn guess(token: &str) -> TokenFormat {
    let is_one = |format: &TokenFormat| {
        examine(token.as_bytes(), *format, Duration::ZERO, false).is_ok_and(|token| token.claims.is_some())
    };
    [TokenFormat::Jwt, TokenFormat::HmacPair].into_iter().find(is_one).unwrap_or(TokenFormat::Opaque)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
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
        let jwt = format!("{}.{payload}.sigg", B64.encode(r#"{"alg":"HS256"}"#));
        let one = look(&jwt, &[]).unwrap();
        assert_eq!(one.expires, Some(1_700_000_000));
        // The second is spelled as no application hands it out.
        for other in [".same", ".odd==", ".~odd~"] {
            let other = look(&jwt.replace(".sigg", other), &[TokenFormat::Jwt]).unwrap();
            assert_eq!(one.fingerprints, other.fingerprints);
        }
        let pair = look(&format!("{payload}.sigg"), &[]).unwrap();
        assert_eq!(pair.fingerprints, [Fingerprint::of(payload.as_bytes())]);
    }

    #[test]
    fn an_opaque_token_counts_whole_and_escaped_ones_plain_too() {
        let both = [TokenFormat::Jwt, TokenFormat::Opaque];
        assert_eq!(
            look("opaque.token.here", &both).unwrap().fingerprints,
            [Fingerprint::of(b"opaque.token.here")]
        );
        assert_eq!(
            look("s%3Aid.sig", &[TokenFormat::Jwt]).unwrap().fingerprints,
            [Fingerprint::of(b"s%3Aid.sig"), Fingerprint::of(b"s:id.sig")]
        );
        assert_eq!(look("two words", &[]), None);
    }
}
