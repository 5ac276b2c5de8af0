//! Whether a request's body changes what ends sessions: a flag, a password. What cannot be read is taken to do so.

use http::header::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::account::Form;
use crate::config::app::Changed;

/// What is looked for in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Nothing: the request alone says it.
    Any,
    /// One of these fields.
    Of(Vec<(Box<str>, Changed)>, Option<Form>),
}

impl Changes {
    /// Of an action's fields.
    pub fn of(when: &[(Box<str>, Changed)], headers: &HeaderMap) -> Self {
        match when {
            [] => Self::Any,
            fields => Self::Of(fields.to_vec(), Form::of(headers)),
        }
    }

    /// Whether a body has them; `None`: it could not be read.
    pub fn are_in(&self, body: Option<&[u8]>) -> bool {
        let Self::Of(wanted, form) = self else { return true };
        let Some(body) = body else { return true };
        let fields = match form {
            // Some frameworks read JSON under any name.
            Some(Form::Json) | None => json_fields(body),
            Some(Form::Urlencoded) => form_fields(body),
        };
        let Some(fields) = fields else { return true };
        let is_wanted = |(name, value): &(String, Value)| {
            wanted.iter().any(|(known, changed)| **known == **name && is_so(*changed, value))
        };
        fields.iter().any(is_wanted)
    }
}

fn is_so(changed: Changed, value: &Value) -> bool {
    match changed {
        Changed::Given => !matches!(value, Value::Null) && value.as_str() != Some(""),
        Changed::Flag(flag) => flag_of(value).is_none_or(|given| given == flag),
    }
}

/// As forgiving as any framework; `None`: who knows.
fn flag_of(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => Some(number.as_f64() != Some(0.0)),
        Value::Null => Some(false),
        Value::String(text) => match &*text.to_ascii_lowercase() {
            "true" | "1" | "on" | "yes" | "t" | "y" => Some(true),
            "false" | "0" | "off" | "no" | "f" | "n" | "" => Some(false),
            _ => None,
        },
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Every field, also one that stands twice, its name in lower case: which of them counts differs.
fn json_fields(body: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let fields = json.deserialize_map(Fields).ok()?;
    json.end().ok()?;
    Some(fields)
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            fields.push((name.to_ascii_lowercase(), value));
        }
        Ok(fields)
    }
}

fn form_fields(body: &[u8]) -> Option<Vec<(String, Value)>> {
    let text = std::str::from_utf8(body).ok()?;
    let decoded = |text: &str| {
        let blanks = text.replace('+', " ");
        percent_decode_str(&blanks).decode_utf8().ok().map(std::borrow::Cow::into_owned)
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?.to_ascii_lowercase(), Value::String(decoded(value)?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(form: Form) -> Changes {
        let when = vec![("is_active".into(), Changed::Flag(false)), ("password".into(), Changed::Given)];
        Changes::Of(when, Some(form))
    }

    #[test]
    fn a_body_that_disables_or_gives_another_password_is_seen_however_it_is_written() {
        for body in [
            r#"{"is_active":false}"#,
            r#"{"is_active":0,"x":{"y":1}}"#,
            r#"{"IS_ACTIVE":"False"}"#,
            r#"{"is_active":true,"is_active":false}"#,
            r#"{"is_active":null}"#,
            r#"{"is_\u0061ctive":false}"#,
            r#"{"password":"new"}"#,
            r#"{"is_active":true,"Password":1}"#,
            r#"{"is_active":[]}"#,
            "",
            "not json",
            r#"["password"]"#,
            r#"{"name":"x"} {"password":"y"}"#,
        ] {
            assert!(wanted(Form::Json).are_in(Some(body.as_bytes())), "{body}");
        }
        for body in ["is_active=0", "a=b&pass%77ord=x", "is_active=false", "%ff"] {
            assert!(wanted(Form::Urlencoded).are_in(Some(body.as_bytes())), "{body}");
        }
        assert!(wanted(Form::Json).are_in(None) && Changes::Any.are_in(None));
    }

    #[test]
    fn a_body_that_changes_something_else_is_not() {
        for body in [
            r#"{"display_name":"x","role":"user","is_active":true}"#,
            r#"{"password":""}"#,
            r#"{"password":null}"#,
            r#"{"nested":{"is_active":false}}"#,
            "{}",
        ] {
            assert!(!wanted(Form::Json).are_in(Some(body.as_bytes())), "{body}");
        }
        for body in ["name=x&is_active=1", "password=", ""] {
            assert!(!wanted(Form::Urlencoded).are_in(Some(body.as_bytes())), "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (wanted(Form::Json).are_in(Some(&body)), wanted(Form::Urlencoded).are_in(Some(&body)));
        }
    }
}
