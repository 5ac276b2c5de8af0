//! What the reader asks of a file, written down while it reads a specimen that holds every key: the schema for editors is
//! made of it (`config::schema`), so that no key can be read and not be in the schema, nor the reverse.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::Span;

/// Every place of a file by its dotted name; `[]` stands for the items of a list, `*` for a free key.
pub(in crate::config) type Sketch = BTreeMap<String, Asked>;

/// What is asked of one place.
#[derive(Debug, Default, Clone)]
pub(in crate::config) struct Asked {
    /// What may stand there; more than one where the reader takes either.
    pub kinds: Vec<Kind>,
    /// The words that a string there may be; empty: any.
    pub words: Vec<String>,
    /// The file is refused without it.
    pub needed: bool,
    /// The keys that may stand in place of `*`.
    pub keys: Keys,
    /// What the specimen has there.
    pub shown: Option<Json>,
    /// What the specimen says of it.
    pub comment: Option<String>,
    /// The line of the specimen, from 1.
    pub line: usize,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Kind {
    Text,
    Flag,
    /// A whole number from 1.
    Number,
    List,
    Table,
}

/// The free keys of a table.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Keys {
    /// Any.
    #[default]
    Any,
    /// Words of classes.
    Classes,
    /// Statuses of errors.
    Statuses,
}

impl Asked {
    /// Something of this kind may stand there.
    pub fn may_be(&mut self, kind: Kind) {
        if !self.kinds.contains(&kind) {
            self.kinds.push(kind);
        }
    }

    /// The specimen has this there.
    pub fn show(&mut self, source: &str, key: &Span, value: &Span, inner: &DeValue<'_>) {
        if self.shown.is_none() {
            self.shown = Some(plain(inner));
            self.comment = comment(source, key, value);
            self.line = source.get(..key.start).map_or(0, |before| before.matches('\n').count() + 1);
        }
    }
}

/// The comment behind a value, or the lines of comment right above its key.
fn comment(source: &str, key: &Span, value: &Span) -> Option<String> {
    let rest_of_line = source.get(value.end.max(key.end)..)?.lines().next().unwrap_or_default();
    if let Some((_, behind)) = rest_of_line.split_once("# ") {
        return Some(behind.trim().to_owned());
    }
    let above = source.get(..key.start)?.lines().rev().skip(1);
    let mut lines: Vec<&str> = above.map_while(|line| line.strip_prefix("# ")).collect();
    lines.reverse();
    (!lines.is_empty()).then(|| lines.join(" "))
}

fn plain(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Integer(number) => json!(super::value::whole(number)),
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Array(items) => items.iter().map(|item| plain(item.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries =
                table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())));
            Json::Object(entries.collect())
        }
        DeValue::Float(_) | DeValue::Datetime(_) => Json::Null,
    }
}
