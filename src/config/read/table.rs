//! A table being read: remembers which keys it was asked for, so that the others can be named.

use toml::de::DeTable;

use super::{Doc, Keys, Kind, Span, Value, suggestion};
use crate::config::values::ValueError;

/// A table being read. End with [`Table::finish`], or unknown keys pass in silence.
pub(in crate::config) struct Table<'d> {
    pub doc: &'d Doc,
    /// Dotted, as in messages; empty for the file.
    pub name: String,
    pub span: Span,
    /// `None`: the section is absent, each key has its default.
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
}

impl<'d> Table<'d> {
    pub fn new(doc: &'d Doc, name: String, span: Span, table: &'d DeTable<'d>) -> Self {
        Self { doc, name, span, table: Some(table), known: Vec::new() }
    }

    /// The value of a key, if it is there.
    pub fn get(&mut self, key: &'static str) -> Option<Value<'d>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let name = self.name_of(key);
        let found = self.table.and_then(|table| table.get_key_value(key));
        self.doc.asked(&name, |asked, source| {
            if let Some((key, value)) = found {
                asked.show(source, &key.span(), &value.span(), value.get_ref());
            }
        });
        let (key, value) = found?;
        Some(Value { doc: self.doc, name, key_span: key.span(), span: value.span(), inner: value.get_ref() })
    }

    /// The value of a key without which the file is refused.
    pub fn needs(&mut self, key: &'static str) -> Option<Value<'d>> {
        self.doc.asked(&self.name_of(key), |asked, _| asked.needed = true);
        self.get(key)
    }

    /// A string that parses itself.
    pub fn parse<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.may_be(key, Kind::Text);
        self.get(key)?.parse(parse)
    }

    /// A string.
    pub fn text(&mut self, key: &'static str) -> Option<&'d str> {
        self.may_be(key, Kind::Text);
        self.get(key)?.text()
    }

    /// A list of strings that parse themselves; `None` when the key is absent or is no list.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, ValueError>,
    ) -> Option<Vec<T>> {
        self.may_be(key, Kind::List);
        self.doc.asked(&format!("{}[]", self.name_of(key)), |asked, _| asked.may_be(Kind::Text));
        Some(self.get(key)?.list()?.iter().filter_map(|item| item.parse(&parse)).collect())
    }

    /// One of some words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.may_be(key, Kind::Text);
        let known = || words.iter().map(|(word, _)| (*word).to_owned());
        self.doc.asked(&self.name_of(key), |asked, _| asked.words = known().collect());
        self.get(key)?.choice(words)
    }

    /// A boolean.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.may_be(key, Kind::Flag);
        self.get(key)?.flag()
    }

    /// A whole number from 1 that fits.
    pub fn number<T: TryFrom<u64>>(&mut self, key: &'static str) -> Option<T> {
        self.may_be(key, Kind::Number);
        self.get(key)?.number()
    }

    /// A table of this table, if it is there.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'d>> {
        self.may_be(key, Kind::Table);
        self.get(key)?.table()
    }

    /// A table of this table; an absent one has only absent keys.
    pub fn section(&mut self, key: &'static str) -> Table<'d> {
        let name = self.name_of(key);
        let absent = Table { doc: self.doc, name, span: self.span.clone(), table: None, known: Vec::new() };
        self.table(key).unwrap_or(absent)
    }

    /// A list of tables; empty when the key is absent.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'d>> {
        self.may_be(key, Kind::List);
        let items = self.get(key).and_then(|value| value.list()).unwrap_or_default();
        items.iter().filter_map(Value::table).collect()
    }

    /// Every entry of a table whose keys are free, or classes, or statuses.
    pub fn entries(&self, keys: Keys) -> impl Iterator<Item = (&'d str, Value<'d>)> + '_ {
        self.doc.asked(&self.doc.name_below(&self.name, "", "*"), |asked, _| asked.keys = keys);
        self.table.into_iter().flat_map(|table| table.iter()).map(|(key, value)| {
            let word: &'d str = key.get_ref();
            let name = self.doc.name_below(&self.name, word, "*");
            let (key_span, span, inner) = (key.span(), value.span(), value.get_ref());
            (word, Value { doc: self.doc, name, key_span, span, inner })
        })
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        for (key, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let place = if self.name.is_empty() { "the file".into() } else { format!("`{}`", self.name) };
                self.doc.problem(
                    key.span(),
                    format!("`{name}` is no key of {place}"),
                    suggestion(name, &self.known),
                );
            }
        }
    }

    fn may_be(&self, key: &str, kind: Kind) {
        self.doc.asked(&self.name_of(key), |asked, _| asked.may_be(kind));
    }

    fn name_of(&self, key: &str) -> String {
        self.doc.name_below(&self.name, key, "")
    }
}
