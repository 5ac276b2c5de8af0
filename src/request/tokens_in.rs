//! Finds the tokens that an answer hands out: in its body, its Location, its cookies.
//!
//! Where the app file says where the token is, it is looked for there; and everywhere else for whatever is a token by its
//! shape, so that one under another name does not slip by.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::header::{HeaderMap, LOCATION, SET_COOKIE};
use percent_encoding::percent_decode;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::carriers::set_cookie;
use super::credential::{Credential, examine};
use crate::config::app::{Carrier, TokenFormat, Tokens};

/// Most tokens of one answer; one with more cannot be read.
pub const MOST: usize = 64;
/// Shorter words are no tokens by their shape.
const SHORTEST: usize = 16;

/// Where tokens are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The application's tokens.
    pub tokens: &'a Tokens,
    /// The field of a JSON body, with dots between names.
    pub field: Option<&'a str>,
    /// How long its access tokens live.
    pub lifetime: Duration,
}

/// The token of the field. Who has looked for it first leaves it with the answer's extensions.
#[derive(Debug, Clone)]
pub struct Named {
    /// The token, without spaces around it.
    pub text: String,
    /// What it is.
    pub token: Credential,
}

/// An answer that could hand out what we cannot see: a token in a spelling of its own, or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

impl Places<'_> {
    /// What the field says; `None`: nothing.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn named(self, text: &str) -> Result<Option<Named>, Unreadable> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(Named { text: text.to_owned(), token: self.examined(text.as_bytes())? }))
    }

    /// The token of the field in a body; `None`: there is none.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn named_in(self, body: &[u8]) -> Result<Option<Named>, Unreadable> {
        self.field.and_then(|field| token_of(body, field)).map_or(Ok(None), |text| self.named(&text))
    }

    /// All tokens of an answer, that of the field first. `body`: decoded, empty if there is none.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn find(
        self,
        headers: &HeaderMap,
        body: &[u8],
        named: Option<&Named>,
    ) -> Result<Vec<Credential>, Unreadable> {
        let mut found: Vec<_> = named.map(|named| named.token.clone()).into_iter().collect();
        let named = named.map_or("", |named| &named.text).as_bytes();
        self.shaped(body, named, &mut found)?;
        for location in headers.get_all(LOCATION) {
            let location: Vec<u8> = percent_decode(location.as_bytes()).collect();
            self.shaped(&location, named, &mut found)?;
        }
        for carrier in &self.tokens.carriers {
            let Carrier::Cookie(name) = carrier else { continue };
            for line in headers.get_all(SET_COOKIE).iter().filter(|line| !is_deleting(line.as_bytes())) {
                let value = set_cookie(line.as_bytes(), name).unwrap_or_default();
                self.add(&value, &mut found)?;
            }
        }
        Ok(found)
    }

    /// The token, by its shape, that a redirect takes along; `None`: none, or several that differ.
    pub fn sole_in_location(self, headers: &HeaderMap) -> Option<String> {
        let mut lines = headers.get_all(LOCATION).iter();
        let (location, None) = (lines.next()?, lines.next()) else { return None };
        let location: Vec<u8> = percent_decode(location.as_bytes()).collect();
        let mut words: Vec<&[u8]> =
            dotted(&location).filter(|word| matches!(self.shape(word), Ok(Some(_)))).collect();
        words.dedup();
        let [word] = words[..] else { return None };
        String::from_utf8(word.to_vec()).ok()
    }

    /// What is a token of the site's by its shape, but for the one that is known; of opaque ones nobody can tell.
    fn shaped(self, text: &[u8], known: &[u8], found: &mut Vec<Credential>) -> Result<(), Unreadable> {
        for word in dotted(text).filter(|word| *word != known) {
            if let Some(one) = self.shape(word)? {
                push(one, found)?;
            }
        }
        Ok(())
    }

    fn shape(self, word: &[u8]) -> Result<Option<Credential>, Unreadable> {
        if self.tokens.format == TokenFormat::Opaque || word.len() < SHORTEST {
            return Ok(None);
        }
        Ok(Some(self.examined(word)?).filter(|one| one.claims.is_some()))
    }

    fn add(self, text: &[u8], found: &mut Vec<Credential>) -> Result<(), Unreadable> {
        if text.is_empty() {
            return Ok(());
        }
        push(self.examined(text)?, found)
    }

    fn examined(self, text: &[u8]) -> Result<Credential, Unreadable> {
        examine(text, self.tokens.format, self.lifetime, false).map_err(|_| Unreadable)
    }
}

/// The words of a token's letters that have a dot in them: most of a long answer has none.
fn dotted(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    std::iter::from_fn(move || {
        let (before, behind) = rest.split_at_checked(memchr::memchr(b'.', rest)?)?;
        let begin = before.iter().rposition(|byte| !is_part(byte)).map_or(0, |place| place + 1);
        let end =
            behind.iter().position(|byte| !is_part(byte)).map_or(rest.len(), |more| before.len() + more);
        let (until, after) = rest.split_at_checked(end)?;
        rest = after;
        until.get(begin..)
    })
}

fn push(one: Credential, found: &mut Vec<Credential>) -> Result<(), Unreadable> {
    if found.iter().any(|known: &Credential| known.fingerprint == one.fingerprint) {
        return Ok(());
    }
    if found.len() >= MOST {
        return Err(Unreadable);
    }
    found.push(one);
    Ok(())
}

/// The cookie is to be forgotten: whatever its value says, it is no token.
pub fn is_deleting(line: &[u8]) -> bool {
    let mut attributes = line.split(|byte| *byte == b';').skip(1).map(<[u8]>::trim_ascii);
    attributes.any(|one| {
        let one = one.to_ascii_lowercase();
        one == b"max-age=0" || one.starts_with(b"max-age=-") || one.starts_with(b"expires=thu, 01 jan 1970")
    })
}

/// A string of a JSON body, below these names with dots between them. Of a name that stands twice the last one counts.
pub fn token_of(body: &[u8], field: &str) -> Option<String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let found = Below(Some(field)).deserialize(&mut json).ok()?;
    json.end().ok()?;
    found
}

/// Looks for the string below these names; `None`: it is the value itself. All else is skipped, and kept nowhere.
struct Below<'a>(Option<&'a str>);

/// A name as it stands in the body, if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (wanted, below) = match self.0.map(|names| names.split_once('.').unwrap_or((names, ""))) {
            Some((name, below)) => (Some(name), Some(below).filter(|below| !below.is_empty())),
            None => (None, None),
        };
        let mut found = None;
        while let Some(Name(name)) = map.next_key()? {
            if wanted == Some(&*name) {
                found = map.next_value_seed(Below(below))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.0.is_none().then(|| text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn tokens(format: TokenFormat) -> Tokens {
        Tokens {
            format,
            carriers: vec![Carrier::Bearer, Carrier::Cookie("sid".into())],
            refresh_cookie: None,
            account_claim: None,
            issuer: None,
            lifetime: Duration::from_secs(60),
            refresh_lifetime: Duration::ZERO,
        }
    }

    fn jwt(subject: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!(
            "{}.{}.{}",
            part(r#"{"alg":"RS256"}"#),
            part(&format!(r#"{{"sub":"{subject}"}}"#)),
            part("sig")
        )
    }

    fn subjects(format: TokenFormat, headers: &[(&'static str, String)], body: &str) -> Option<Vec<String>> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let tokens = tokens(format);
        let places = Places { tokens: &tokens, field: Some("data.token"), lifetime: tokens.lifetime };
        let named = places.named_in(body.as_bytes()).ok()?;
        let found = places.find(&map, body.as_bytes(), named.as_ref()).ok()?;
        let subject = |one: &Credential| one.claims.as_ref()?.subject_text.as_ref().map(ToString::to_string);
        Some(found.iter().map(|one| subject(one).unwrap_or_default()).collect())
    }

    #[test]
    fn a_token_is_found_in_body_location_and_cookies() {
        let (a, b, c, d) = (jwt("a"), jwt("b"), jwt("c"), jwt("d"));
        let headers = [
            ("location", format!("/auth/callback?x=1&token={b}&expires_in=1")),
            ("location", format!("/done#access%5Ftoken={}", c.replace('.', "%2E"))),
            ("set-cookie", format!("sid={d}; Path=/; HttpOnly")),
            ("set-cookie", "other=1".to_owned()),
        ];
        let body = format!(r#"{{"data":{{"token":"{a}"}},"again":["{a}"]}}"#);
        let found = subjects(TokenFormat::Jwt, &headers, &body).unwrap();
        assert_eq!(found, ["a", "b", "c", "d"]);
        let elsewhere = format!("<script>const t='{a}';</script>");
        assert_eq!(subjects(TokenFormat::Jwt, &[], &elsewhere).unwrap(), ["a"]);
        let escaped = format!(r#"{{"data":{{"token":"\u0065{}"}}}}"#, a.strip_prefix('e').unwrap());
        assert_eq!(subjects(TokenFormat::Jwt, &[], &escaped).unwrap(), ["a"]);
    }

    #[test]
    fn a_redirect_takes_along_one_token_or_none() {
        let tokens = tokens(TokenFormat::Jwt);
        let places = Places { tokens: &tokens, field: None, lifetime: tokens.lifetime };
        let sole = |lines: &[String]| {
            let mut map = HeaderMap::new();
            for line in lines {
                map.append(LOCATION, HeaderValue::from_str(line).unwrap());
            }
            places.sole_in_location(&map)
        };
        let (a, b) = (jwt("a"), jwt("b"));
        assert_eq!(sole(&[format!("/auth/callback?token={a}&expires_in=1")]), Some(a.clone()));
        assert_eq!(sole(&[format!("/done#access%5Ftoken={}", a.replace('.', "%2E"))]), Some(a.clone()));
        assert_eq!(sole(&[format!("/x?token={a}&again={a}")]), Some(a.clone()));
        for lines in [
            &[format!("/x?token={a}&id={b}")][..],
            &[format!("/x?token={a}"), "/y".into()],
            &["/home?version=1.2.3-alpha.20260101".into()],
            &[format!("/x?token={a}.more")],
            &[],
        ] {
            assert_eq!(sole(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn an_opaque_token_is_found_only_where_the_app_file_says() {
        let body = r#"{"data":{"token":"1|abcdefabcdefabcdef"},"other":"abcdef.abcdef.abcdef"}"#;
        assert_eq!(subjects(TokenFormat::Opaque, &[], body).unwrap(), [""]);
        assert_eq!(subjects(TokenFormat::Opaque, &[("set-cookie", "sid=abc".into())], "").unwrap(), [""]);
        let gone =
            [("set-cookie", "sid=deleted; expires=Thu, 01 Jan 1970 00:00:01 GMT; Max-Age=0".to_owned())];
        assert!(subjects(TokenFormat::Opaque, &gone, "").unwrap().is_empty());
        assert!(
            subjects(TokenFormat::Opaque, &[("set-cookie", "sid=; Max-Age=0".into())], "x")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn what_could_be_a_token_for_others_or_is_too_much_cannot_be_read() {
        assert_eq!(subjects(TokenFormat::Jwt, &[], &format!("{}.more", jwt("a"))), None);
        let many: Vec<String> = (0..=MOST).map(|number| jwt(&number.to_string())).collect();
        assert_eq!(subjects(TokenFormat::Jwt, &[], &many.join(" ")), None);
        assert!(
            subjects(TokenFormat::Jwt, &[], "version 1.2.3-alpha.20260101 of example.com")
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_field_is_found_below_its_names_and_nowhere_else() {
        for (body, found) in [
            (r#"{"data":{"token":"x","more":[1,-2,3.5,true,null,{"token":"y"}]},"token":"z"}"#, Some("x")),
            (r#"{"data":{"token":"first"},"data":{"token":"last"}}"#, Some("last")),
            (r#"{"\u0064ata":{"tok\u0065n":"\u0078"}}"#, Some("x")),
            (r#"{"data":{"token":{"token":"x"}}}"#, None),
            (r#"{"data":{"token":1}}"#, None),
            (r#"{"data":"x"}"#, None),
            (r#"[{"data":{"token":"x"}}]"#, None),
            (r#"{"data":{"token":"x"}} more"#, None),
            (r#"{"data":{"token":"x"}"#, None),
            (r#""x""#, None),
        ] {
            assert_eq!(token_of(body.as_bytes(), "data.token").as_deref(), found, "{body}");
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let text = "[ab\\\\\"é]{0,3}".prop_map(Value::from);
        let leaf = prop_oneof![Just(Value::Null), any::<i32>().prop_map(Value::from), text];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let fields = proptest::collection::hash_map("[ab]", inner.clone(), 0..3);
            prop_oneof![
                proptest::collection::vec(inner, 0..3).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn words_with_a_dot_are_found_as_a_split_finds_them(text in "[a.é,_ -]{0,30}") {
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
            let text = text.as_bytes();
            let split: Vec<_> = text.split(|byte| !is_part(byte)).filter(|word| word.contains(&b'.')).collect();
            prop_assert_eq!(dotted(text).collect::<Vec<_>>(), split);
        }

        #[test]
        fn it_finds_what_a_tree_of_the_whole_body_has(names in proptest::collection::vec("[ab]", 1..4), tree in tree()) {
            let there = names.iter().try_fold(&tree, |value, name| value.get(name)).and_then(Value::as_str);
            let found = token_of(tree.to_string().as_bytes(), &names.join("."));
            prop_assert_eq!(found.as_deref(), there);
        }

        #[test]
        fn no_answer_panics(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
            let tokens = tokens(TokenFormat::HmacPair);
            let places = Places { tokens: &tokens, field: Some("a.b"), lifetime: tokens.lifetime };
            for body in [&body[..], text.as_bytes()] {
                let _ = (places.find(&HeaderMap::new(), body, None), places.named_in(body));
            }
        }
    }
}
