//! The three views of a path (DESIGN 4.3): as sent, normal (what is forwarded), folded (what some router might take
//! it for). A route is chosen by all three; the strictest class wins.
//!
//! Refused are: broken escapes, control characters, bytes that are no UTF-8 once decoded, a backslash in any form,
//! what still looks encoded after one decoding, and dots that climb above the root. An encoded slash is only noted:
//! a route may allow it.

use http::uri::PathAndQuery;
use percent_encoding::percent_decode_str;

use super::facts::Malformed;

/// A path, seen three ways. Views that do not differ are kept once.
#[derive(Debug, Clone)]
pub struct PathViews {
    raw: PathAndQuery,
    normal: Option<Box<str>>,
    folded: Option<Box<str>>,
    /// It has `%2F`, which only an unguarded route with `encoded_slash = "keep"` takes.
    pub encoded_slash: bool,
}

impl PathViews {
    /// Reads the path of a request target in origin form.
    ///
    /// # Errors
    /// [`Malformed::Target`] for bytes that have no place in a target, [`Malformed::Path`] for a path that cannot be
    /// understood in one way only.
    pub fn read(target: &PathAndQuery) -> Result<Self, Malformed> {
        if !target.as_str().bytes().all(|byte| matches!(byte, 0x21..=0x7e)) {
            return Err(Malformed::Target);
        }
        let path = target.path();
        if !path.starts_with('/') {
            return Err(Malformed::Target);
        }
        if is_plain(path) {
            return Ok(Self { raw: target.clone(), normal: None, folded: None, encoded_slash: false });
        }
        let encoded_slash = check_escapes(path)?;
        let normal = resolve_dots(&decode_unreserved(path))?;
        let folded = fold(path)?;
        Ok(Self {
            raw: target.clone(),
            normal: (normal != path).then(|| normal.into()),
            folded: (folded != path).then(|| folded.into()),
            encoded_slash,
        })
    }

    /// As sent.
    pub fn raw(&self) -> &str {
        self.raw.path()
    }

    /// Unreserved characters decoded, dots resolved: what is forwarded.
    pub fn normal(&self) -> &str {
        self.normal.as_deref().unwrap_or(self.raw.path())
    }

    /// Decoded, lower case, slashes merged, dots resolved, `;params` and trailing slash, dot and blank removed.
    pub fn folded(&self) -> &str {
        self.folded.as_deref().unwrap_or(self.raw.path())
    }

    /// The query, without the question mark.
    pub fn query(&self) -> Option<&str> {
        self.raw.query()
    }

    /// What is forwarded: the normal path and the query; `None` when that is just what was sent.
    pub fn forwarded(&self) -> Option<String> {
        let normal = self.normal.as_deref()?;
        Some(match self.query() {
            Some(query) => format!("{normal}?{query}"),
            None => normal.to_owned(),
        })
    }
}

/// A path that is its own normal and folded form; most are, and cost one pass and no memory.
fn is_plain(path: &str) -> bool {
    let mut last = b'x';
    for byte in path.bytes() {
        let fine = match byte {
            b'/' => last != b'/' && last != b'.',
            b'.' => last != b'/',
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b'@' | b':' | b'+' | b',' | b'=' => true,
            _ => false,
        };
        if !fine {
            return false;
        }
        last = byte;
    }
    (last != b'/' && last != b'.') || path == "/"
}

/// Whether the path has an encoded slash; refuses escapes that are broken, dangerous, or encoded twice.
fn check_escapes(path: &str) -> Result<bool, Malformed> {
    if path.contains('\\') {
        return Err(Malformed::Path);
    }
    let mut encoded_slash = false;
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        rest = rest.get(at + 1..).unwrap_or_default();
        let byte = rest.get(..2).and_then(hex_byte).ok_or(Malformed::Path)?;
        match byte {
            0..=0x1f | 0x7f | b'\\' => return Err(Malformed::Path),
            b'/' => encoded_slash = true,
            b'%' if rest.get(2..4).and_then(hex_byte).is_some() => return Err(Malformed::Path),
            _ => {}
        }
        rest = rest.get(2..).unwrap_or_default();
    }
    Ok(encoded_slash)
}

fn hex_byte(digits: &str) -> Option<u8> {
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// Decodes escapes of unreserved characters (RFC 3986, 2.3), writes the others in upper case, and escapes what may
/// not stand in a path as it is.
fn decode_unreserved(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 8);
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let width = first.len_utf8();
        if first == '%'
            && let Some(byte) = rest.get(1..3).and_then(hex_byte)
        {
            push_byte(&mut out, byte, is_unreserved(byte));
            rest = rest.get(3..).unwrap_or_default();
            continue;
        }
        let byte = rest.bytes().next().unwrap_or_default();
        push_byte(&mut out, byte, is_unreserved(byte) || b"/:@!$&'()*+,;=".contains(&byte));
        rest = rest.get(width..).unwrap_or_default();
    }
    out
}

fn push_byte(out: &mut String, byte: u8, plain: bool) {
    if plain {
        out.push(char::from(byte));
    } else {
        out.push('%');
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase());
        }
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Resolves `.` and `..` segments (RFC 3986, 5.2.4); climbing above the root is refused rather than ignored.
fn resolve_dots(path: &str) -> Result<String, Malformed> {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." => {}
            ".." => drop(kept.pop().ok_or(Malformed::Path)?),
            other => {
                kept.push(other);
                continue;
            }
        }
        if last {
            kept.push("");
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

/// What the most forgiving router might take the path for.
fn fold(path: &str) -> Result<String, Malformed> {
    let decoded = percent_decode_str(path).decode_utf8().map_err(|_| Malformed::Path)?;
    if decoded.chars().any(char::is_control) {
        return Err(Malformed::Path);
    }
    let lower = decoded.to_lowercase();
    // A router that decodes twice would end the path at what is now a question mark.
    let path = lower.split(['?', '#']).next().unwrap_or_default();
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        let segment = segment.split(';').next().unwrap_or_default().trim();
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => {
                let trimmed = other.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
                if !trimmed.is_empty() {
                    kept.push(trimmed);
                }
            }
        }
    }
    Ok(format!("/{}", kept.join("/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(path: &str) -> Result<PathViews, Malformed> {
        PathViews::read(&path.parse().map_err(|_| Malformed::Target)?)
    }

    #[test]
    fn views_of_ordinary_and_odd_paths() {
        for (raw, normal, folded) in [
            ("/", "/", "/"),
            ("/api/assets", "/api/assets", "/api/assets"),
            ("/API/Assets", "/API/Assets", "/api/assets"),
            ("/metrics/", "/metrics/", "/metrics"),
            ("/metrics.", "/metrics.", "/metrics"),
            ("/metrics%20", "/metrics%20", "/metrics"),
            ("/%6detrics", "/metrics", "/metrics"),
            ("//metrics", "//metrics", "/metrics"),
            ("/a/../metrics", "/metrics", "/metrics"),
            ("/a/%2e%2E/metrics", "/metrics", "/metrics"),
            ("/./metrics", "/metrics", "/metrics"),
            ("/metrics/.", "/metrics/", "/metrics"),
            ("/metrics;x=1", "/metrics;x=1", "/metrics"),
            ("/x/..;/metrics", "/x/..;/metrics", "/metrics"),
            ("/metrics%3Fx", "/metrics%3Fx", "/metrics"),
            ("/caf%c3%a9", "/caf%C3%A9", "/café"),
            ("/100%25", "/100%25", "/100%"),
            ("/{x}", "/%7Bx%7D", "/{x}"),
            ("/%E2%84%AAeys", "/%E2%84%AAeys", "/keys"),
        ] {
            let views = read(raw).unwrap_or_else(|why| panic!("{raw}: {why:?}"));
            assert_eq!((views.normal(), views.folded()), (normal, folded), "{raw}");
        }
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        for raw in [
            "/%",
            "/%4",
            "/%zz",
            "/%00",
            "/%0a",
            "/metrics%0a",
            "/%7f",
            "/a%5cb",
            "/a\\b",
            "/%252e",
            "/%2541",
            "/..",
            "/a/../../b",
            "/%c0%af",
            "/%ff",
            "/%C2%85",
        ] {
            assert_eq!(read(raw).err(), Some(Malformed::Path), "{raw}");
        }
    }

    #[test]
    fn an_encoded_slash_is_noted_and_folded_to_a_slash() {
        let views = read("/metrics%2Fx").unwrap();
        assert!(views.encoded_slash);
        assert_eq!((views.normal(), views.folded()), ("/metrics%2Fx", "/metrics/x"));
    }

    #[test]
    fn the_query_goes_along_unchanged() {
        assert_eq!(read("/%61?x=%61&y").unwrap().forwarded().as_deref(), Some("/a?x=%61&y"));
        assert_eq!(read("/a?x=%61").unwrap().forwarded(), None);
    }

    proptest! {
        #[test]
        fn normal_and_folded_forms_are_idempotent(path in "/[a-zA-Z0-9%./;:~ _é-]{0,40}") {
            let path = path.replace(' ', "%20").replace('é', "%C3%A9");
            if let Ok(views) = read(&path) {
                let again = read(views.normal()).unwrap();
                prop_assert_eq!(again.normal(), views.normal());
                prop_assert_eq!(again.folded(), views.folded(), "the normal form folds as the raw one did");
                prop_assert_eq!(fold(&views.folded().replace('%', "%25")).unwrap(), views.folded());
            }
        }

        #[test]
        fn plain_paths_are_their_own_views(path in "/[a-z0-9./_-]{0,30}") {
            if is_plain(&path) {
                prop_assert_eq!(resolve_dots(&decode_unreserved(&path)).unwrap(), path.clone());
                prop_assert_eq!(fold(&path).unwrap(), path);
            }
        }

        #[test]
        fn no_path_panics(path in "\\PC{0,60}") {
            let _ = read(&path);
            let _ = fold(&path);
        }
    }
}
