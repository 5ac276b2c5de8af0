//! Which values of a request pass: `[[limit]]` of an app file.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use super::path_pattern::PathPattern;
use super::values::ValueError;

/// One `[[limit]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Which paths.
    pub pattern: PathPattern,
    /// Where the value is.
    pub place: ValuePlace,
    /// What it may be.
    pub to: Vec<ValuePattern>,
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePlace {
    /// In every query parameter of this name.
    Query(Box<str>),
    /// In this segment of the path, counted from 0.
    Segment(usize),
}

/// A value: text in which `{1..4000}` stands for a whole number from 1 to 4000, in digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValuePattern(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Number { least: u32, most: u32 },
}

impl Bound {
    /// The same for paths in lower case.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        let lower = |piece: &Piece| match piece {
            Piece::Text(text) => Piece::Text(text.to_lowercase().into()),
            number @ Piece::Number { .. } => number.clone(),
        };
        let to = self.to.iter().map(|value| ValuePattern(value.0.iter().map(lower).collect()));
        // A query has no folded form.
        let to = if matches!(self.place, ValuePlace::Query(_)) { self.to.clone() } else { to.collect() };
        Self { pattern: self.pattern.to_lowercase(), place: self.place.clone(), to }
    }

    /// Whether a request may have what it has: `path` is one of its views. A value that is not there passes.
    pub fn lets_pass(&self, path: &str, query: Option<&str>) -> bool {
        if !self.pattern.matches(path) {
            return true;
        }
        let passes = |value: &str| self.to.iter().any(|pattern| pattern.matches(value));
        match &self.place {
            ValuePlace::Segment(place) => {
                let segment = path.split('/').skip(1).nth(*place).unwrap_or_default();
                passes(&decoded(segment, false))
            }
            // Some applications read the first of several, others the last; some take `;` for `&`.
            ValuePlace::Query(name) => query.unwrap_or_default().split(['&', ';']).all(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                decoded(key, true) != **name || passes(&decoded(value, true))
            }),
        }
    }
}

fn decoded(text: &str, form: bool) -> Cow<'_, str> {
    if form && text.contains('+') {
        return percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned().into();
    }
    percent_decode_str(text).decode_utf8_lossy()
}

impl ValuePattern {
    /// Whether the value is one of these.
    pub fn matches(&self, value: &str) -> bool {
        let mut rest = value;
        for piece in &self.0 {
            let after = match piece {
                Piece::Text(text) => rest.strip_prefix(&**text),
                Piece::Number { least, most } => number(rest, *least, *most),
            };
            let Some(after) = after else { return false };
            rest = after;
        }
        rest.is_empty()
    }
}

/// What follows the number that a text begins with.
fn number(text: &str, least: u32, most: u32) -> Option<&str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at_checked(digits)?;
    // No leading zeros: each spelling would be another file of the application's.
    let plain = !number.starts_with('0') || number == "0";
    number.parse::<u32>().is_ok_and(|number| plain && (least..=most).contains(&number)).then_some(rest)
}

impl fmt::Display for ValuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Number { least, most } => write!(f, "{{{least}..{most}}}"),
        })
    }
}

impl FromStr for ValuePattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = |why: &str| ValueError {
            message: format!("`{text}` is no value: {why}"),
            help: "write text in which `{1..4000}` stands for a whole number, e.g. \"{1..4000},{1..4000}\""
                .into(),
        };
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (range, behind) = after.split_once('}').ok_or_else(|| wrong("a `{` is not closed"))?;
            let ends = range.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let (least, most) = ends
                .filter(|(least, most)| least <= most)
                .ok_or_else(|| wrong("in braces stands a range"))?;
            if behind.starts_with(|c: char| c.is_ascii_digit() || c == '{') {
                return Err(wrong("where the number ends cannot be told"));
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(Piece::Number { least, most });
            rest = behind;
        }
        if rest.contains('}') {
            return Err(wrong("a `}` closes nothing"));
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self(pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(pattern: &str, place: ValuePlace, to: &[&str]) -> Bound {
        let to = to.iter().map(|text| text.parse().unwrap()).collect();
        Bound { pattern: pattern.parse().unwrap(), place, to }
    }

    #[test]
    fn a_number_is_one_in_its_range_and_in_one_spelling() {
        for (pattern, value, passes) in [
            ("{1..4000},{1..4000}", "4000,4000", true),
            ("{1..4000},{1..4000}", "12000,12000", false),
            ("{1..4000},{1..4000}", "400,", false),
            ("{1..4000},{1..4000}", "0400,400", false),
            ("{1..4000},{1..4000}", "0,400", false),
            ("{1..4000},{1..4000}", " 400,400", false),
            ("{1..4000},{1..4000}", "4_00,400", false),
            ("{1..4000},{1..4000}", "\u{ff14}00,400", false),
            ("{1..4000},{1..4000}", "99999999999999999999,1", false),
            ("!{1..4000},{1..4000}", "!1,4000", true),
            ("max", "max", true),
            ("max", "Max", false),
            ("{0..9}x", "0x", true),
            ("", "", true),
        ] {
            let parsed: ValuePattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(value), passes, "{pattern} on {value}");
            assert_eq!(parsed.to_string(), pattern);
        }
        for text in ["{", "{1}", "{2..1}", "{a..b}", "x}", "{1..2}{1..2}", "{1..2}3", "{-1..2}"] {
            assert!(text.parse::<ValuePattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_spelling_of_a_query_value_is_seen() {
        let bound = bound("/p", ValuePlace::Query("size".into()), &["400", "800"]);
        for (query, passes) in [
            (None, true),
            (Some(""), true),
            (Some("size=400"), true),
            (Some("x=1&size=800&y"), true),
            (Some("size=%34%30%30"), true),
            (Some("size=401"), false),
            (Some("size"), false),
            (Some("size=400&size=12000"), false),
            (Some("size=12000&size=400"), false),
            (Some("%73ize=12000"), false),
            (Some("x;size=12000"), false),
            (Some("size=+400"), false),
            (Some("size=400%20"), false),
        ] {
            assert_eq!(bound.lets_pass("/p", query), passes, "{query:?}");
        }
        assert!(bound.lets_pass("/other", Some("size=12000")));
    }

    #[test]
    fn a_segment_is_compared_as_the_application_decodes_it() {
        let bound = bound("/i/{id}/{size}/x", ValuePlace::Segment(2), &["max", "{1..9},{1..9}"]);
        for (path, passes) in [
            ("/i/7/max/x", true),
            ("/i/7/m%61x/x", true),
            ("/i/7/9%2C9/x", true),
            ("/i/7/99%2C9/x", false),
            ("/i/7/10,1/x", false),
            ("/i/7/10,1/y", true),
        ] {
            assert_eq!(bound.lets_pass(path, None), passes, "{path}");
        }
    }
}
