//! The account that a login's body names, read as strictly as the most careful reader would: a body that two programs could
//! read in two ways (a key twice, or in another spelling that some framework takes for it, escapes that are none) names nobody.

use std::fmt;

use http::header::{self, HeaderMap};
use percent_encoding::percent_decode_str;
use serde::Deserializer as _;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};

use crate::request::carriers::is_called;

/// How a body says what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// `application/x-www-form-urlencoded`.
    Urlencoded,
}

impl Form {
    /// By the Content-Type; `None`: another, or several.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(one), None) = (types.next(), types.next()) else { return None };
        let one = Some(one.as_bytes()).filter(|one| one.is_ascii())?;
        let essence = one.split(|byte| *byte == b';').next()?.trim_ascii();
        match essence {
            _ if essence.eq_ignore_ascii_case(b"application/json") => Some(Self::Json),
            _ if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") => Some(Self::Urlencoded),
            _ => None,
        }
    }
}

/// Two programs could read a body in two ways, or none could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear;

/// The text under a key; `None`: there is no such key, in whatever case.
pub type Field = Result<Option<String>, Unclear>;

/// The account that a login's body names under this key. `None`: there is none, or another program could read it in
/// another way.
pub fn account_of(body: &[u8], form: Form, key: &str) -> Option<String> {
    field_of(body, form, key).ok().flatten()
}

/// The text under this key.
///
/// # Errors
/// [`Unclear`].
pub fn field_of(body: &[u8], form: Form, key: &str) -> Field {
    sound(texts(body, form, [key]).map(|[text]| text))
}

/// [`field_of`] each of these keys, in one reading where the body is plain under all of them.
pub fn fields_of<const N: usize>(body: &[u8], form: Form, keys: [&str; N]) -> [Field; N] {
    match texts(body, form, keys) {
        Ok(found) => found.map(|text| sound(Ok(text))),
        Err(Unclear) => keys.map(|key| field_of(body, form, key)),
    }
}

fn sound(text: Field) -> Field {
    let is_sound = |text: &String| !text.is_empty() && !text.chars().any(char::is_control);
    text?.map(|text| Some(text).filter(is_sound).ok_or(Unclear)).transpose()
}

fn texts<const N: usize>(body: &[u8], form: Form, keys: [&str; N]) -> Result<[Option<String>; N], Unclear> {
    match form {
        Form::Json => {
            let mut json = serde_json::Deserializer::from_slice(body);
            let texts = json.deserialize_map(Named(keys)).map_err(|_| Unclear)?;
            json.end().map_err(|_| Unclear)?;
            Ok(texts)
        }
        Form::Urlencoded => form_fields(body, keys).ok_or(Unclear),
    }
}

/// The text under this key in a query: many frameworks put that beside the body's fields, and some before them. `None`: there is
/// no such key.
///
/// # Errors
/// [`Unclear`].
pub fn named_in_query(query: &str, key: &str) -> Field {
    let mut pairs = query.split(['&', ';']).filter(|pair| means(pair, key));
    let Some(pair) = pairs.next() else { return Ok(None) };
    match pairs.next() {
        None => field_of(pair.as_bytes(), Form::Urlencoded, key),
        Some(_) => Err(Unclear),
    }
}

/// Whether a pair of a query or form could be taken for the key's, however it is written.
fn means(pair: &str, key: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
    is_near(&percent_decode_str(&name).decode_utf8_lossy(), key)
}

/// Whether some framework takes a field of this name for the key: in another case, among blanks, cut at a NUL, as a list
/// (`email[]`), with PHP's `_` for what it does not like.
fn is_near(name: &str, key: &str) -> bool {
    let bare = name.trim_matches(|one: char| one.is_ascii_whitespace() || one.is_ascii_control());
    let cut = bare.split(['[', '\0']).next().unwrap_or_default();
    is_called(bare.as_bytes(), key) || (cut.len() < bare.len() && is_called(cut.as_bytes(), key))
}

fn form_fields<const N: usize>(body: &[u8], keys: [&str; N]) -> Option<[Option<String>; N]> {
    let text = std::str::from_utf8(body).ok()?;
    let mut fields = Fields::new(keys);
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        // Some take `;` for `&`.
        let hides = |hidden| keys.iter().any(|key| means(hidden, key));
        if pair.split(';').skip(1).any(hides) {
            return None;
        }
        let (name, value) = pair.split_once('=')?;
        if let Some(text) = fields.wanted(&form_decoded(name)?)? {
            *text = Some(form_decoded(value)?);
        }
    }
    Some(fields.texts)
}

/// `None`: an escape that is none, or no UTF-8.
fn form_decoded(text: &str) -> Option<String> {
    let escapes = text.match_indices('%');
    let hex = |at: usize| {
        text.get(at + 1..at + 3).is_some_and(|two| two.bytes().all(|one| one.is_ascii_hexdigit()))
    };
    if !escapes.into_iter().all(|(at, _)| hex(at)) {
        return None;
    }
    let blanks = text.replace('+', " ");
    percent_decode_str(&blanks).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// The wanted fields of a body, each once in any spelling of its name: Go takes `Email` for `email`. Others may stand there
/// twice, as forms have it of their checkboxes.
struct Fields<'k, const N: usize> {
    keys: [&'k str; N],
    texts: [Option<String>; N],
}

impl<'k, const N: usize> Fields<'k, N> {
    fn new(keys: [&'k str; N]) -> Self {
        Self { keys, texts: [const { None }; N] }
    }

    /// Where the text of this field goes, if anywhere. The outer `None`: the body cannot be read in one way only.
    fn wanted(&mut self, name: &str) -> Option<Option<&mut Option<String>>> {
        let mut near = self.keys.iter().zip(&mut self.texts).filter(|(key, _)| is_near(name, key));
        let found = near.next();
        let once = found.as_ref().is_none_or(|(key, text)| **key == name && text.is_none());
        (once && name.is_ascii() && near.next().is_none()).then(|| found.map(|(_, text)| text))
    }
}

/// Reads some strings of an object.
struct Named<'k, const N: usize>([&'k str; N]);

impl<'de, const N: usize> Visitor<'de> for Named<'_, N> {
    type Value = [Option<String>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::new(self.0);
        while let Some(name) = map.next_key::<String>()? {
            match fields.wanted(&name) {
                Some(Some(text)) => *text = Some(map.next_value()?),
                Some(None) => drop(map.next_value::<IgnoredAny>()?),
                None => return Err(de::Error::custom("a field that can be read in two ways")),
            }
        }
        Ok(fields.texts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(body: &str) -> Option<String> {
        account_of(body.as_bytes(), Form::Json, "email")
    }

    fn form(body: &str) -> Option<String> {
        account_of(body.as_bytes(), Form::Urlencoded, "email")
    }

    #[test]
    fn the_account_is_read_from_json_and_forms() {
        for body in [
            r#"{"email":"a@b.test","password":"x"}"#,
            r#" {"password":{"email":["z"]},"em\u0061il":"a\u0040b.test"} "#,
            r#"{"remember":0,"email":"a@b.test","Remember":1,"remember":1}"#,
        ] {
            assert_eq!(json(body).as_deref(), Some("a@b.test"), "{body}");
        }
        for body in [
            "email=a%40b.test&password=x",
            "password=+&&ema%69l=a@b.test",
            "remember=0&email=a@b.test&remember=1",
        ] {
            assert_eq!(form(body).as_deref(), Some("a@b.test"), "{body}");
        }
        assert_eq!(form("email=a+b%2B").as_deref(), Some("a b+"));
    }

    #[test]
    fn a_body_that_can_be_read_in_two_ways_names_nobody() {
        for body in [
            r#"{"email":"victim","email":"me"}"#,
            r#"{"email":"victim","Email":"me"}"#,
            r#"{"EMAIL":"me"}"#,
            r#"{"email":"victim","ema\u0131l":"me"}"#,
            r#"{"email":"victim","\u017fx":1}"#,
            r#"{"email":1}"#,
            r#"{"email":null}"#,
            r#"{"email":["a"]}"#,
            r#"{"email":""}"#,
            r#"{"email":"a\u0000"}"#,
            r#"{"email":"a"}x"#,
            r#"{"email":"a"} {"email":"b"}"#,
            r#"{"email":"a""#,
            r#"["a"]"#,
            r#""email""#,
            "",
            "\u{feff}{\"email\":\"a\"}",
            "email=a",
        ] {
            assert_eq!(json(body), None, "{body}");
        }
        for body in [
            "email=a&email=b",
            "email=a&Email=b",
            "email",
            "email=%4",
            "email=%zz",
            "email=%ff",
            "mail=a",
            "",
            "email=a&+email=b",
            "email=a&%20Email%20=b",
            "email=a&email%00=b",
            "email=a&email[]=b",
            "email=a&email%5B0%5D=b",
            "email=a&em%2561il=b",
            "email=a;email=b",
            "email=a&x=1;e%6Dail=b",
        ] {
            assert_eq!(form(body), None, "{body}");
        }
        let unclear = |body: &str| field_of(body.as_bytes(), Form::Urlencoded, "user_name") == Err(Unclear);
        for body in ["user.name=a", "user+name=a", "user[name=a", "user%2Bname=a", "x=1;user.name=a"] {
            assert!(unclear(body), "{body}");
        }
        assert!(!unclear("username=a&user_names=b&list[]=c&password=a;b"));
    }

    #[test]
    fn a_query_names_an_account_plainly_once_or_is_unclear() {
        let named = |query| named_in_query(query, "email");
        assert_eq!((named("next=/&x"), named("mail=a&emails=b")), (Ok(None), Ok(None)));
        assert_eq!(named("next=/&email=a%40b.test&x"), Ok(Some("a@b.test".into())));
        for query in [
            "email=a&email=a",
            "Email=a",
            "e%6dail%20=a",
            "email[]=a",
            "x;email=a;email=b",
            "email",
            "email=",
        ] {
            assert_eq!(named(query), Err(Unclear), "{query}");
        }
    }

    #[test]
    fn a_type_that_is_not_said_plainly_is_none() {
        let of = |types: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for one in types {
                headers.append(header::CONTENT_TYPE, http::HeaderValue::from_static(one));
            }
            Form::of(&headers)
        };
        assert_eq!(of(&["Application/JSON; charset=utf-8"]), Some(Form::Json));
        assert_eq!(of(&["application/x-www-form-urlencoded"]), Some(Form::Urlencoded));
        assert_eq!(
            (of(&[]), of(&["text/json"]), of(&["application/json", "application/json"])),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn several_keys_say_what_each_says_alone(
            form_like in "(user|User|pass|us\\[|%75ser|grant|x)(=[a%;+]{0,3})?(&(user|pass|PASS|grant|;user=)=[a%+]{0,2}){0,3}",
            json_like in r#"\{"(user|User|pass|x)":("a"|""|"\\ud800"|1|\{\}|null)(,"(user|grant|PASS|pass|y)":("b"|\[1\]|"")){0,2}\}?"#,
        ) {
            for (body, form) in [(form_like, Form::Urlencoded), (json_like, Form::Json)] {
                let keys = ["user", "pass", "grant"];
                prop_assert_eq!(
                    fields_of(body.as_bytes(), form, keys),
                    keys.map(|key| field_of(body.as_bytes(), form, key)),
                    "{}", body
                );
            }
        }

        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,60}") {
            for body in [&body[..], text.as_bytes()] {
                let _ = account_of(body, Form::Json, "email");
                let _ = account_of(body, Form::Urlencoded, "email");
            }
            let _ = named_in_query(&text, "email");
        }
    }
}
