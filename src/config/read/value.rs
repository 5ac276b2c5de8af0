//! One value being read: what it is, or a problem that says what it should be.

use toml::de::{DeInteger, DeValue};

use super::{Doc, Kind, Span, Table, suggestion};
use crate::config::values::ValueError;

/// A value and where it stands.
pub(in crate::config) struct Value<'d> {
    pub doc: &'d Doc,
    /// Dotted, as in messages.
    pub name: String,
    pub key_span: Span,
    pub span: Span,
    pub inner: &'d DeValue<'d>,
}

impl<'d> Value<'d> {
    /// Notes that the value is wrong.
    pub fn wrong(&self, error: ValueError) {
        self.doc.problem(self.span.clone(), format!("`{}`: {}", self.name, error.message), error.help);
    }

    /// A string.
    pub fn text(&self) -> Option<&'d str> {
        self.may_be(Kind::Text);
        match self.inner {
            DeValue::String(text) => Some(text),
            _ => self.expected("a string in quotes"),
        }
    }

    /// A string that parses itself.
    pub fn parse<T>(&self, parse: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<T> {
        parse(self.text()?).map_err(|error| self.wrong(error)).ok()
    }

    /// One of some words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let known = || words.iter().map(|(word, _)| (*word).to_owned());
        self.doc.asked(&self.name, |asked, _| asked.words = known().collect());
        let text = self.text()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(ValueError {
                message: format!("`{text}` is not known"),
                help: suggestion(text, &known),
            });
        }
        found
    }

    /// The words that a string here may be; what else it is, its own parser says.
    pub fn may_be_one_of<'w>(&self, words: impl Iterator<Item = &'w str>) {
        self.doc.asked(&self.name, |asked, _| asked.words = words.map(str::to_owned).collect());
    }

    /// A boolean.
    pub fn flag(&self) -> Option<bool> {
        self.may_be(Kind::Flag);
        match self.inner {
            DeValue::Boolean(flag) => Some(*flag),
            _ => self.expected("true or false, without quotes"),
        }
    }

    /// A whole number from 1 that fits.
    pub fn number<T: TryFrom<u64>>(&self) -> Option<T> {
        self.may_be(Kind::Number);
        let DeValue::Integer(number) = self.inner else {
            return self.expected("a whole number");
        };
        let found = whole(number).filter(|number| *number > 0).and_then(|number| T::try_from(number).ok());
        if found.is_none() {
            self.wrong(ValueError {
                message: format!("{number} is out of range"),
                help: "write a whole number from 1".into(),
            });
        }
        found
    }

    /// The items of a list.
    pub fn list(&self) -> Option<Vec<Value<'d>>> {
        self.may_be(Kind::List);
        let DeValue::Array(items) = self.inner else {
            return self.expected("a list in brackets");
        };
        Some(
            items
                .iter()
                .map(|item| Value {
                    doc: self.doc,
                    name: self.doc.name_below(&self.name, "", "[]"),
                    key_span: self.key_span.clone(),
                    span: item.span(),
                    inner: item.get_ref(),
                })
                .collect(),
        )
    }

    /// Whether it is a list, where both a string and a list of strings may stand.
    pub fn is_list(&self) -> bool {
        self.may_be(Kind::List);
        self.doc.asked(&self.doc.name_below(&self.name, "", "[]"), |asked, _| asked.may_be(Kind::Text));
        self.inner.is_array()
    }

    /// Whether it is a table, where both a string and a table may stand.
    pub fn is_table(&self) -> bool {
        self.may_be(Kind::Table);
        matches!(self.inner, DeValue::Table(_))
    }

    /// A table.
    pub fn table(&self) -> Option<Table<'d>> {
        self.may_be(Kind::Table);
        match self.inner {
            DeValue::Table(table) => Some(Table::new(self.doc, self.name.clone(), self.span.clone(), table)),
            _ => self.expected("a table"),
        }
    }

    fn may_be(&self, kind: Kind) {
        self.doc.asked(&self.name, |asked, _| asked.may_be(kind));
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        self.wrong(ValueError {
            message: format!("{} stands where {what} is wanted", article(self.inner.type_str())),
            help: match self.inner {
                DeValue::String(text) if what.starts_with("a list") => format!("write [\"{text}\"]"),
                _ if what.starts_with("a string") => "put it in quotes".into(),
                _ => format!("write {what}"),
            },
        });
        None
    }
}

/// The number, where it is one that counts something.
pub(super) fn whole(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn article(word: &str) -> String {
    let an = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {word}", if an { "an" } else { "a" })
}
