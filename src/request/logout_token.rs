//! An identity provider's order to end sessions: the logout token of OpenID Connect Back-Channel Logout 1.0 (2.4, 2.6).
//!
//! Pure: token, keys, wishes and time in. Whether it was used before is not asked here.

use serde_json::{Map, Value};

use super::credential::{Key, issuer_key, jti_key};
use super::verification::{Invalid, LOGOUT_EVENT, LOGOUT_TYPE, Signed, seconds, signed};
use crate::config::app::TokenFormat;
use crate::config::keys::VerifyKey;
use crate::config::verification::Wanted;

/// How old an order may be, in seconds; so long it is remembered against a replay. (2.4 recommends an end after two minutes
/// at most; a provider that retries gets some more.)
pub const RECENT: u64 = 300;
/// By how much the provider's clock may be ahead, in seconds.
pub const AHEAD: u64 = 60;
/// Longest name of a person, a session or a token, in bytes.
const NAME: usize = 1024;

/// What an identity provider orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutToken {
    /// Who orders it.
    pub issuer: String,
    /// Whose sessions end.
    pub whose: Whose,
    /// Sessions begun at or before this Unix second are meant.
    pub issued: u64,
    /// The order's own name.
    pub jti: String,
}

/// Whose sessions end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// All of a person.
    Person(String),
    /// One (`sid`), and the person whose it is, if the order says so; others of the person go on.
    Session(String, Option<String>),
}

/// Why an order is not obeyed: for the operator; the provider hears one text for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not signed by one of the keys, or not as a logout token may be.
    #[error("logout token refused: {0}")]
    Invalid(#[from] Invalid),
    /// A token for another purpose.
    #[error("logout token refused: it is a token for another purpose (typ, events, or a nonce)")]
    Purpose,
    /// Stale, ended, or from the future.
    #[error("logout token refused: it is stale, has ended, or is from the future (iat, exp)")]
    Time,
    /// Neither a person nor a session is named, or the order has no name itself.
    #[error("logout token refused: sub and sid are both missing, or iss or jti is, or one is no plain text")]
    Nobody,
}

/// Reads and verifies an order.
///
/// # Errors
/// [`Refused`].
pub fn read(text: &[u8], keys: &[VerifyKey], wanted: &Wanted, now: u64) -> Result<LogoutToken, Refused> {
    let signed = signed(text, TokenFormat::Jwt, keys)?;
    for_logout(&signed)?;
    let claims = &signed.claims;
    if !wanted.holds(claims) {
        return Err(Invalid::Claim.into());
    }
    let issued = times(claims, now)?;
    let name = |key| named(claims, key);
    let (issuer, jti) = (name("iss")?, name("jti")?);
    let whose = match (name("sid")?, name("sub")?) {
        (Some(session), person) => Whose::Session(session, person),
        (None, Some(person)) => Whose::Person(person),
        (None, None) => return Err(Refused::Nobody),
    };
    let (issuer, jti) = issuer.zip(jti).ok_or(Refused::Nobody)?;
    Ok(LogoutToken { issuer, whose, issued, jti })
}

/// A token that is good for anything else is no order: what one may show to an application must not end sessions.
fn for_logout(signed: &Signed) -> Result<(), Refused> {
    let typed = signed.purpose.as_deref().is_none_or(|typ| typ == LOGOUT_TYPE || typ == "jwt");
    let event = signed.claims.get("events").and_then(|events| events.get(LOGOUT_EVENT));
    let ordered = event.is_some_and(Value::is_object);
    if typed && ordered && !signed.claims.contains_key("nonce") { Ok(()) } else { Err(Refused::Purpose) }
}

fn times(claims: &Map<String, Value>, now: u64) -> Result<u64, Refused> {
    let time = |key| match claims.get(key) {
        Some(claim) => seconds(claim).map(Some).ok_or(Refused::Time),
        None => Ok(None),
    };
    let issued = time("iat")?.ok_or(Refused::Time)?;
    let recent = issued.saturating_add(RECENT) > now && issued <= now.saturating_add(AHEAD);
    let ended = time("exp")?.is_some_and(|ends| now >= ends);
    if recent && !ended { Ok(issued) } else { Err(Refused::Time) }
}

/// A claim as text, as blocks know it: a number is written as text.
fn named(claims: &Map<String, Value>, key: &str) -> Result<Option<String>, Refused> {
    let text = match claims.get(key) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(_) => return Err(Refused::Nobody),
    };
    if text.is_empty() || text.len() > NAME { Err(Refused::Nobody) } else { Ok(Some(text)) }
}

impl LogoutToken {
    /// By which it is known again.
    pub fn keys(&self) -> (Key, Key) {
        (issuer_key(&self.issuer), jti_key(&self.jti))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_790_000_000;

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(header), part(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes())))
    }

    fn claims() -> Value {
        json!({ "iss": "https://id", "aud": "client", "iat": NOW, "exp": NOW + 120, "jti": "j", "sub": "7",
            "sid": "s", "events": { LOGOUT_EVENT: {} } })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[key] = value;
        claims
    }

    fn without(keys: &[&str]) -> Value {
        let mut claims = claims();
        keys.iter().for_each(|key| drop(claims.as_object_mut().unwrap().remove(*key)));
        claims
    }

    fn said(header: &Value, claims: &Value) -> Result<LogoutToken, Refused> {
        let keys = [VerifyKey::secret(SECRET, None).unwrap()];
        let wanted =
            Wanted { issuers: vec!["https://id".into()], audiences: vec!["client".into()], claims: vec![] };
        read(token(header, claims).as_bytes(), &keys, &wanted, NOW)
    }

    fn plain(claims: &Value) -> Result<LogoutToken, Refused> {
        said(&json!({ "alg": "HS256" }), claims)
    }

    #[test]
    fn an_order_of_the_provider_is_read_whole() {
        let order = plain(&claims()).unwrap();
        assert_eq!(order.whose, Whose::Session("s".into(), Some("7".into())));
        assert_eq!((order.issued, &*order.jti, &*order.issuer), (NOW, "j", "https://id"));
        assert_eq!(plain(&with("sub", json!(7))).unwrap(), order, "1 and \"1\" are equal");
        assert_eq!(plain(&without(&["sid"])).unwrap().whose, Whose::Person("7".into()));
        assert_eq!(plain(&without(&["sub"])).unwrap().whose, Whose::Session("s".into(), None));
        assert!(plain(&without(&["exp"])).is_ok(), "not every provider gives it an end");
        for typ in ["logout+jwt", "Logout+JWT", "application/logout+jwt", "JWT"] {
            assert!(said(&json!({ "alg": "HS256", "typ": typ }), &claims()).is_ok(), "{typ}");
        }
    }

    #[test]
    fn what_is_for_others_or_another_purpose_or_time_is_refused() {
        for (what, claims, why) in [
            ("no event", without(&["events"]), Refused::Purpose),
            ("another event", with("events", json!({ "x": {} })), Refused::Purpose),
            ("an event that is no object", with("events", json!({ LOGOUT_EVENT: 1 })), Refused::Purpose),
            ("a nonce", with("nonce", json!("n")), Refused::Purpose),
            ("an empty nonce", with("nonce", Value::Null), Refused::Purpose),
            ("another issuer", with("iss", json!("https://evil")), Refused::Invalid(Invalid::Claim)),
            ("another audience", with("aud", json!(["other"])), Refused::Invalid(Invalid::Claim)),
            ("no time", without(&["iat"]), Refused::Time),
            ("a time in words", with("iat", json!("now")), Refused::Time),
            ("stale", with("iat", json!(NOW - RECENT)), Refused::Time),
            ("from the future", with("iat", json!(NOW + AHEAD + 1)), Refused::Time),
            ("ended", with("exp", json!(NOW)), Refused::Time),
            ("nobody", without(&["sub", "sid"]), Refused::Nobody),
            ("no name", without(&["jti"]), Refused::Nobody),
            ("an empty session", with("sid", json!("")), Refused::Nobody),
            ("a person that is a list", with("sub", json!(["7"])), Refused::Nobody),
            ("an endless name", with("sub", json!("x".repeat(NAME + 1))), Refused::Nobody),
        ] {
            assert_eq!(plain(&claims), Err(why), "{what}");
        }
        for typ in ["at+jwt", "id_token", ""] {
            let header = json!({ "alg": "HS256", "typ": typ });
            assert_eq!(said(&header, &claims()), Err(Refused::Purpose), "{typ}");
        }
        let unsigned = said(&json!({ "alg": "none" }), &claims());
        assert_eq!(unsigned, Err(Refused::Invalid(Invalid::Algorithm)));
    }
}
