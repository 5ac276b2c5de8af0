//! Patterns of paths in app files and `[[site.route]]`: `/s/{token}`, `/api/assets/{}/file`, `/metrics/*`.

use std::fmt;
use std::str::FromStr;

use super::values::ValueError;

/// A pattern of paths. Segments are compared whole: literal text, `{name}` for exactly one segment, and `*` as the
/// last one for the path itself and everything below it (`/metrics/*` matches `/metrics`, `/metrics/` and
/// `/metrics/x`). A `*` may also end the last literal as a suffix wildcard: `/docs*` matches `/docs` and `/docs2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Vec<Segment>,
    tail: Tail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(Box<str>),
    /// One segment of any text; the name is for people.
    Param(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// The path ends here.
    End,
    /// `/*`: here or anything below.
    Below,
    /// `text*`: the last literal is a prefix of its segment, and anything may follow.
    Prefix,
}

impl PathPattern {
    /// Whether the path (beginning with `/`, without query) is meant.
    pub fn matches(&self, path: &str) -> bool {
        let Some(mut rest) = path.strip_prefix('/') else { return false };
        let last = self.segments.len().wrapping_sub(1);
        let mut ended = false;
        for (place, segment) in self.segments.iter().enumerate() {
            if ended {
                return false;
            }
            let (text, more) = match rest.split_once('/') {
                Some((text, more)) => (text, Some(more)),
                None => (rest, None),
            };
            match segment {
                Segment::Literal(literal) if place == last && self.tail == Tail::Prefix => {
                    return text.starts_with(&**literal);
                }
                Segment::Literal(literal) if text == &**literal => {}
                Segment::Param(_) if !text.is_empty() => {}
                Segment::Literal(_) | Segment::Param(_) => return false,
            }
            match more {
                Some(more) => rest = more,
                None => ended = true,
            }
        }
        match self.tail {
            Tail::Below => true,
            Tail::End | Tail::Prefix => ended || (self.segments.is_empty() && rest.is_empty()),
        }
    }

    /// Whether it has a parameter.
    pub fn has_param(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Param(_)))
    }

    /// Which segment of a path is the first parameter, counted from 0: the share token of `/s/{token}`. Without one it is
    /// the first segment that `*` stands for.
    pub fn place_of_param(&self) -> usize {
        let is_param = |segment: &Segment| matches!(segment, Segment::Param(_));
        self.segments.iter().position(is_param).unwrap_or(self.segments.len())
    }

    /// Which segment of a path a parameter of this name stands for, counted from 0.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        let is_it = |segment: &Segment| matches!(segment, Segment::Param(known) if **known == *name);
        self.segments.iter().position(is_it)
    }

    /// Whether a path below a path of this pattern is meant: for classes that restrict, `/metrics` holds for
    /// `/metrics/x` too, since routers mount whole trees.
    pub fn matches_above(&self, path: &str) -> bool {
        path.match_indices('/').skip(1).any(|(at, _)| path.get(..at).is_some_and(|above| self.matches(above)))
    }

    /// `/*`.
    pub fn everything() -> Self {
        Self { text: "/*".into(), segments: Vec::new(), tail: Tail::Below }
    }

    /// Just this path, of plain text.
    pub fn literal(path: &str) -> Self {
        let segments = path.split('/').skip(1).map(|segment| Segment::Literal(segment.into()));
        Self { text: path.into(), segments: segments.collect(), tail: Tail::End }
    }

    /// The same pattern for paths in lower case.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(literal) => Segment::Literal(literal.to_lowercase().into()),
            Segment::Param(name) => Segment::Param(name.clone()),
        });
        Self { text: self.text.clone(), segments: segments.collect(), tail: self.tail }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The literal segments that it begins with, as text: every path that it matches, or that lies below one, begins with
    /// them and goes on with a slash or not at all.
    pub fn head(&self) -> String {
        let open = usize::from(self.tail == Tail::Prefix);
        let whole = self.segments.iter().take(self.segments.len().saturating_sub(open));
        let literals = whole.map_while(|segment| match segment {
            Segment::Literal(literal) => Some(&**literal),
            Segment::Param(_) => None,
        });
        literals.fold(String::new(), |head, literal| head + "/" + literal)
    }

    /// How specific it is, for the choice between two matches of one class: more literals first, `*` last.
    pub fn specificity(&self) -> (usize, usize, bool) {
        let literals = self.segments.iter().filter(|segment| matches!(segment, Segment::Literal(_))).count();
        // The beginning of a name is no name: `/m*` says less than `/metrics/*`.
        let part = usize::from(self.tail == Tail::Prefix);
        (literals.saturating_sub(part), self.segments.len(), self.tail == Tail::End)
    }
}

impl FromStr for PathPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = |why: &str| ValueError {
            message: format!("`{text}` is no path pattern: {why}"),
            help: "write e.g. \"/api/assets/{id}/file\", \"/metrics/*\" or \"/\"".into(),
        };
        let Some(mut rest) = text.strip_prefix('/') else {
            return Err(wrong("it must begin with `/`"));
        };
        if text.contains(['?', '#', '%', '\\']) || text.contains("//") {
            return Err(wrong("no query, no escapes, no empty segment"));
        }
        let tail = if rest == "*" || rest.ends_with("/*") {
            rest = rest.strip_suffix('*').unwrap_or(rest).trim_end_matches('/');
            Tail::Below
        } else if let Some(prefix) = rest.strip_suffix('*') {
            rest = prefix;
            Tail::Prefix
        } else {
            Tail::End
        };
        let mut segments = Vec::new();
        for part in rest.split('/').filter(|_| !rest.is_empty()) {
            segments.push(match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                Some(name) => Segment::Param(name.into()),
                None if part.contains(['{', '}', '*']) => {
                    return Err(wrong("`{}` and `*` stand for whole segments"));
                }
                None => Segment::Literal(part.into()),
            });
        }
        if tail == Tail::Prefix && !matches!(segments.last(), Some(Segment::Literal(_))) {
            return Err(wrong("text must stand before the `*`"));
        }
        Ok(Self { text: text.into(), segments, tail })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(pattern: &str, path: &str) -> bool {
        pattern.parse::<PathPattern>().unwrap().matches(path)
    }

    #[test]
    fn patterns_match_whole_segments() {
        for (pattern, path, expected) in [
            ("/", "/", true),
            ("/", "/x", false),
            ("/a/b", "/a/b", true),
            ("/a/b", "/a/b/", false),
            ("/a/b", "/a", false),
            ("/s/{token}", "/s/abc", true),
            ("/s/{token}", "/s/", false),
            ("/s/{token}", "/s/abc/file", false),
            ("/s/{token}/file", "/s/abc/file", true),
            ("/metrics/*", "/metrics", true),
            ("/metrics/*", "/metrics/", true),
            ("/metrics/*", "/metrics/x/y", true),
            ("/metrics/*", "/metricsx", false),
            ("/docs*", "/docs", true),
            ("/docs*", "/docs2/x", true),
            ("/*", "/", true),
            ("/*", "/anything/at/all", true),
        ] {
            assert_eq!(hits(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn the_place_of_the_first_parameter_is_known() {
        for (pattern, place) in [("/s/{token}/file", 1), ("/{x}", 0), ("/a/s/*", 2)] {
            assert_eq!(pattern.parse::<PathPattern>().unwrap().place_of_param(), place, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a", "/a//b", "/a?b", "/a*b", "/{a", "/%41", "/{x}*"] {
            assert!(text.parse::<PathPattern>().is_err(), "{text}");
        }
    }
}
