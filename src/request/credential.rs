//! What a token is: its fingerprint over the signed part, and what it says of itself unverified (DESIGN 6).
//!
//! A token has many spellings: decoders forgive padding, spare bits, other alphabets, junk. The signed part cannot be
//! spelled in another way, so blocks are keyed by it, and a token whose segments are not canonical is refused.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::facts::Malformed;
use crate::config::app::TokenFormat;

/// Longest text that is looked at as a token, in bytes; longer ones are refused (a head has 32 KiB at most anyway).
pub const MAX_TOKEN: usize = 16 * 1024;

/// A key of the block index: the first half of a SHA-256 over a name and the thing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

/// SHA-256 over the signed part of a token: all before the last dot of a JWT or pair, the whole of an opaque one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// One candidate token of a request. No secret is kept in it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Names the token in the block index and, shortened and keyed, in logs.
    pub fingerprint: Fingerprint,
    /// What the token says of itself, unverified; `None` when it is opaque.
    pub claims: Option<Claims>,
    /// It came in a cookie: on `page` and `login` it is stripped and expired rather than refused.
    pub in_cookie: bool,
    /// Perhaps a token, perhaps the name of a subprotocol or a part of something else: unless it has claims, only its
    /// own fingerprint blocks it.
    pub guessed: bool,
}

/// A token that the application could take for one of the site's: as it came, to be verified. Never among the facts, which
/// are remembered longer than the request lasts.
#[derive(Debug)]
pub struct Presented {
    /// The token.
    pub text: TokenText,
    /// It came in a cookie: its place among the carriers of the app file.
    pub cookie: Option<usize>,
    /// Unix seconds of its expiry, as it says of itself.
    pub expires: Option<u64>,
}

/// A token as it came, wiped when it is dropped.
pub struct TokenText(Zeroizing<Box<[u8]>>);

/// What a token says of itself. Nobody has verified it: it may block, never allow.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Key of the token's `jti`: see [`jti_key`].
    pub jti: Option<Key>,
    /// The `jti` as text for logs, when it is short and printable.
    pub jti_text: Option<Box<str>>,
    /// Key of the token's `sub`: see [`subject_key`].
    pub subject: Option<Key>,
    /// The `sub` as text, for the CLI's reply.
    pub subject_text: Option<Box<str>>,
    /// Unix seconds of issue: `iat`, or `exp` minus the lifetime; `None` counts as oldest.
    pub issued: Option<u64>,
    /// Unix seconds of expiry.
    pub expires: Option<u64>,
    /// Key of the token's `iss`: see [`issuer_key`].
    pub issuer: Option<Key>,
    /// Not said by the token, but remembered from the answer that handed it out: these are true.
    pub remembered: bool,
    /// Key of the token's `sid`: see [`session_key`].
    pub session: Option<Key>,
}

/// Examines the text of one token.
///
/// # Errors
/// [`Malformed::Credentials`] for a token-shaped text that some decoder may read in another way than we do: segments
/// that are not canonical base64url, too many of them, claims that are no object or name a key twice, or more than
/// [`MAX_TOKEN`] bytes.
pub fn examine(
    text: &[u8],
    format: TokenFormat,
    lifetime: Duration,
    in_cookie: bool,
) -> Result<Credential, Malformed> {
    if text.len() > MAX_TOKEN {
        return Err(Malformed::Credentials);
    }
    let (signed, claims) = match payload(text, format)? {
        None => (text, None),
        Some(payload) => {
            (signed_part(text), Some(Claims::read(&payload, lifetime).ok_or(Malformed::Credentials)?))
        }
    };
    Ok(Credential { fingerprint: Fingerprint::of(signed), claims, in_cookie, guessed: false })
}

/// One more claim of a token, as text; for a token that the application itself has just handed out.
pub fn claim(text: &[u8], format: TokenFormat, name: &str) -> Option<String> {
    let payload = payload(text, format).ok()??;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    claims.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// All before the last dot.
pub fn signed_part(text: &[u8]) -> &[u8] {
    text.rsplitn(2, |byte| *byte == b'.').nth(1).unwrap_or(text)
}

/// The claims of a text that is a token of this format; `None`: for no decoder it is one.
///
/// What is signed cannot be spelled in another way. So a text that does not begin as a token does is none for anybody,
/// and one that does must be one in the only spelling, with nothing before, behind or in between. With fewer segments
/// there is no signature; the whole is then what would have been signed, and has the same fingerprint.
fn payload(text: &[u8], format: TokenFormat) -> Result<Option<Vec<u8>>, Malformed> {
    let (dots, place) = match format {
        TokenFormat::Jwt => (2, 1),
        TokenFormat::HmacPair => (1, 0),
        TokenFormat::Opaque => return Ok(None),
    };
    let segments = || text.split(|byte| *byte == b'.');
    let first = segments().next().and_then(|segment| URL_SAFE_NO_PAD.decode(segment).ok());
    let Some(first) = first.filter(|first| begins_token(first, format)) else { return Ok(None) };
    let found = segments().count() - 1;
    if found < dots || (found == ENCRYPTED_DOTS && is_encrypted(&first)) {
        return Ok(None);
    }
    if found > dots {
        return Err(Malformed::Credentials);
    }
    let mut payload = None;
    for (at, segment) in segments().enumerate() {
        // The engine refuses padding, other alphabets and spare bits: one spelling only.
        let decoded = URL_SAFE_NO_PAD.decode(segment).map_err(|_| Malformed::Credentials)?;
        if at == place {
            payload = Some(decoded);
        }
    }
    Ok(payload)
}

/// An encrypted JWT (RFC 7516) has five segments.
const ENCRYPTED_DOTS: usize = 4;

/// The header of a JWT; a session cookie of other make may have segments too.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "alg")]
    _algorithm: IgnoredAny,
    enc: Option<IgnoredAny>,
}

fn begins_token(first: &[u8], format: TokenFormat) -> bool {
    match format {
        TokenFormat::Jwt => serde_json::from_slice::<Header>(first).is_ok(),
        _ => first.trim_ascii_start().starts_with(b"{"),
    }
}

fn is_encrypted(first: &[u8]) -> bool {
    serde_json::from_slice::<Header>(first).is_ok_and(|header| header.enc.is_some())
}

/// The key of a subject. `1` and `"1"` are the same subject.
pub fn subject_key(subject: &str) -> Key {
    named_key("subject", subject.as_bytes())
}

/// The key of an issuer.
pub fn issuer_key(issuer: &str) -> Key {
    named_key("issuer", issuer.as_bytes())
}

/// The key of an identity provider's session. `1` and `"1"` are the same.
pub fn session_key(session: &str) -> Key {
    named_key("session", session.as_bytes())
}

/// The key of a token id. `1` and `"1"` are the same.
pub fn jti_key(jti: &str) -> Key {
    named_key("jti", jti.as_bytes())
}

fn named_key(name: &str, thing: &[u8]) -> Key {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(name.as_bytes());
    context.update(&[0]);
    context.update(thing);
    Key(first_bytes(context.finish().as_ref()))
}

fn first_bytes<const N: usize>(from: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    bytes
}

// === impl Fingerprint ===

impl Fingerprint {
    /// The fingerprint of a signed part.
    pub fn of(signed: &[u8]) -> Self {
        Self(first_bytes(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed).as_ref()))
    }

    /// The key of this fingerprint in the block index.
    pub fn key(&self) -> Key {
        Key(first_bytes(&self.0))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

// === impl TokenText ===

impl TokenText {
    /// Keeps a token.
    pub fn new(text: &[u8]) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The token.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText")
    }
}

// === impl Claims ===

/// The claims that matter; a key that stands twice is an error by serde's own rule.
#[derive(Deserialize)]
struct RawClaims<'a> {
    #[serde(default, borrow)]
    jti: Scalar<'a>,
    #[serde(default, borrow)]
    sub: Scalar<'a>,
    #[serde(default, borrow)]
    iss: Scalar<'a>,
    #[serde(default, borrow)]
    iat: Scalar<'a>,
    #[serde(default, borrow)]
    exp: Scalar<'a>,
    #[serde(default, borrow)]
    sid: Scalar<'a>,
}

/// A claim as applications write it: text or number; anything else is nothing.
#[derive(Default)]
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Whole(u64),
    Number(f64),
    #[default]
    Nothing,
}

impl Claims {
    fn read(json: &[u8], lifetime: Duration) -> Option<Self> {
        // serde would read a list as the struct's fields in order.
        if !json.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let RawClaims { jti, sub, iss, iat, exp, sid } = serde_json::from_slice(json).ok()?;
        let (jti, subject) = (jti.into_text(), sub.into_text());
        let expires = exp.seconds();
        let issued = iat.seconds().or_else(|| expires.map(|at| at.saturating_sub(lifetime.as_secs())));
        Some(Self {
            jti: jti.as_deref().map(jti_key),
            subject: subject.as_deref().map(subject_key),
            issuer: iss.into_text().as_deref().map(issuer_key),
            session: sid.into_text().as_deref().map(session_key),
            jti_text: jti.and_then(printable),
            subject_text: subject.and_then(printable),
            issued,
            expires,
            remembered: false,
        })
    }
}

impl<'a> Scalar<'a> {
    fn into_text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Whole(number) => Some(number.to_string().into()),
            Self::Number(number) => Some(number.to_string().into()),
            Self::Nothing => None,
        }
    }

    /// Unix seconds, rounded down; what is no number or no time is nothing.
    fn seconds(&self) -> Option<u64> {
        match self {
            Self::Whole(number) => Some(*number),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "checked to be in range"
            )]
            Self::Number(number) if (0.0..1e15).contains(number) => Some(*number as u64),
            _ => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ScalarVisitor)
    }
}

/// By hand, since serde's own way of trying one form after the other makes an error, with text, for each that it is not.
struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(text.to_owned().into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Whole(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a number below zero is no time, and an identifier by its look"
        )]
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'de>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nothing)
    }
}

fn printable(text: Cow<'_, str>) -> Option<Box<str>> {
    (text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn b64(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn pair(claims: &str, signature: &str) -> Result<Credential, Malformed> {
        examine(format!("{}.{signature}", b64(claims)).as_bytes(), TokenFormat::HmacPair, DAY, false)
    }

    #[test]
    fn the_fingerprint_covers_the_signed_part_only() {
        let one = pair(r#"{"sub":1,"exp":90000}"#, "AAAA").unwrap();
        let other = pair(r#"{"sub":1,"exp":90000}"#, "BBBB").unwrap();
        assert_eq!(one.fingerprint, other.fingerprint);
        assert_ne!(one.fingerprint, pair(r#"{"sub":2,"exp":90000}"#, "AAAA").unwrap().fingerprint);
    }

    #[test]
    fn spellings_that_some_decoder_forgives_are_refused() {
        // Keepstack (Python) takes all of these for the one token; PyJWT takes padding; Go spare bits.
        for signature in ["AAA=", "AAB", "AA+A", "A!AA", "AA~~AA", "AAAA=AAAA", "AAAA==", "A AA", "AAAAA"] {
            assert!(pair(r#"{"sub":1}"#, signature).is_err(), "{signature}");
        }
        assert!(pair(r#"{"sub":1}"#, "AAA").is_ok());
    }

    #[test]
    fn a_token_with_more_behind_it_is_no_other_token() {
        let header = b64(r#"{"alg":"HS256"}"#);
        let token = format!("{header}.{}.AAAA", b64(r#"{"sub":1}"#));
        let jwt = |text: &str| examine(text.as_bytes(), TokenFormat::Jwt, DAY, false);
        assert!(jwt(&token).is_ok_and(|token| token.claims.is_some()));
        for more in [".", ".AAAA", ".A.B", "=.", "..", ".AAAA.AAAA.AAAA"] {
            assert!(jwt(&format!("{token}{more}")).is_err(), "{more}");
        }
        let unsigned = token.rsplit_once('.').unwrap().0;
        assert_eq!(jwt(unsigned).unwrap().fingerprint, jwt(&token).unwrap().fingerprint);
        assert!(pair(r#"{"sub":1}"#, "AAAA.AAAA").is_err());
    }

    #[test]
    fn session_cookies_of_other_make_are_no_broken_jwts() {
        let flask = format!("{}.ZxYabc.c2lnbmF0dXJl_w", b64(r#"{"_fresh":false}"#));
        let encrypted = format!("{}.a.b.c.d", b64(r#"{"alg":"dir","enc":"A256GCM"}"#));
        for text in [flask.as_str(), encrypted.as_str(), ".eJw.ZxY.sig", "s:id.sig+/", "a.b.c"] {
            let credential = examine(text.as_bytes(), TokenFormat::Jwt, DAY, true).unwrap();
            assert_eq!(credential.fingerprint, Fingerprint::of(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn claims_are_read_as_number_or_text() {
        let number = pair(r#"{"sub":1,"jti":7,"exp":90000}"#, "AAAA").unwrap().claims.unwrap();
        let text = pair(r#"{"sub":"1","jti":"7","exp":90000.9}"#, "AAAA").unwrap().claims.unwrap();
        assert_eq!((number.subject, number.jti), (text.subject, text.jti));
        assert_eq!((number.expires, text.expires), (Some(90_000), Some(90_000)));
        assert_eq!(number.issued, Some(90_000 - 86_400), "no iat: expiry minus lifetime");
        let with_iat = pair(r#"{"sub":1,"iat":5,"exp":90000}"#, "AAAA").unwrap().claims.unwrap();
        assert_eq!(with_iat.issued, Some(5));
        let odd = pair(r#"{"sub":[1],"iat":"x","exp":{}}"#, "AAAA").unwrap().claims.unwrap();
        assert_eq!((odd.subject, odd.issued, odd.expires), (None, None, None));
    }

    #[test]
    fn claims_that_can_be_read_in_two_ways_are_refused() {
        for claims in [r#"{"sub":1,"sub":2}"#, r#"{"sub":1}x"#, "{nonsense"] {
            assert!(pair(claims, "AAAA").is_err(), "{claims}");
        }
    }

    #[test]
    fn other_shapes_are_opaque() {
        for text in ["abc", "a.b.c.d", "a.b.c"] {
            let credential = examine(text.as_bytes(), TokenFormat::HmacPair, DAY, true).unwrap();
            assert_eq!(credential.fingerprint, Fingerprint::of(text.as_bytes()));
            assert!(credential.claims.is_none() && credential.in_cookie);
        }
    }
}
