//! Takes secrets out of what is logged: share tokens and other secrets in paths, values of token keys in queries, user-info in
//! URLs, and what looks like a secret wherever it stands.
//!
//! 1. In paths: the token of a share route, and each `{…}` of any route that is called as a secret is (`/reset/{token}`).
//! 2. In queries: values of the app file's keys and of [`SECRET_KEYS`].
//! 3. Everywhere: JSON tokens, and what is long and random. A UUID is an id and stays.
//!
//! What comes out is printable ASCII without quote or backslash, and bounded, whatever went in.
//! Caveat: a short secret in a place that neither the app file nor the built-in list names is not known to be one.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::looks::{holds_token, looks_like_token, looks_random, looks_secret};
use crate::config::path_pattern::PathPattern;

/// What stands in place of a secret.
pub const MASKED: &str = "***";

/// Longest text that is written for one field.
pub const MAX_FIELD: usize = 1024;

/// Query keys whose values are secrets in some application that one meets, and names of parameters of routes that are.
const SECRET_KEYS: [&str; 27] = [
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "id_token_hint",
    "auth",
    "authorization",
    "bearer",
    "jwt",
    "code",
    "state",
    "nonce",
    "password",
    "passwd",
    "pass",
    "pwd",
    "secret",
    "client_secret",
    "api_key",
    "apikey",
    "key",
    "sig",
    "signature",
    "session",
    "sessionid",
    "ticket",
    "x-amz-signature",
];

/// What is secret in the URLs of one site.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    keys: Vec<Box<str>>,
    /// The segments before each secret of a route, beginning with a literal one: `["s"]` of `/s/{token}/file`.
    secrets: Vec<Vec<Before>>,
}

/// A segment before a secret, in lower case; `None`: any, it is a parameter.
type Before = Option<Box<str>>;

impl Mask {
    /// A mask for the query keys that carry tokens, beside the built-in list, and for the patterns of routes; `true`: of a
    /// share route, whose first parameter is secret whatever it is called.
    pub fn new<'a>(
        keys: impl IntoIterator<Item = &'a str>,
        routes: impl IntoIterator<Item = (&'a PathPattern, bool)>,
    ) -> Self {
        let of = |(pattern, share): (&'a PathPattern, bool)| secrets_of(pattern.as_str(), share);
        let mut secrets: Vec<Vec<Before>> = routes.into_iter().flat_map(of).collect();
        secrets.sort_unstable();
        secrets.dedup();
        Self { keys: keys.into_iter().map(|key| key.to_ascii_lowercase().into()).collect(), secrets }
    }

    /// Appends a path, query and fragment as sent, masked.
    pub fn target(&self, target: &str, out: &mut String) {
        if is_plain(target) {
            let start = out.len();
            let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
            self.plain_path(path, out);
            self.query(query, out);
            bound(out, start);
        } else {
            self.odd_target(target, out);
        }
    }

    fn odd_target(&self, target: &str, out: &mut String) {
        let mut masked = String::with_capacity(target.len().min(MAX_FIELD));
        let end = target.find(['?', '#']).unwrap_or(target.len());
        let (path, query) = target.split_at(end);
        self.path(path, &mut masked);
        self.query(query, &mut masked);
        push_printable(masked.as_bytes(), out);
    }

    /// What [`Mask::path`] does, of a path that has one spelling only: nearly all have, and this allocates nothing.
    fn plain_path(&self, path: &str, out: &mut String) {
        let mut end = 0;
        for (place, segment) in path.split('/').enumerate() {
            let before = path.get(..end).unwrap_or_default();
            end += segment.len() + 1;
            if place > 0 {
                out.push('/');
            }
            let named = || self.secrets.iter().any(|secret| plainly_ends_with(before, secret));
            if !segment.is_empty() && (looks_random(segment) || named()) {
                out.push_str(MASKED);
            } else {
                out.push_str(segment);
            }
        }
    }

    /// Appends the value of `Referer` or `Location`, masked: as a target, and without user-info.
    pub fn url(&self, url: &[u8], out: &mut String) {
        let start = out.len();
        let url = String::from_utf8_lossy(url);
        let Some((scheme, rest)) =
            url.split_once("//").filter(|(scheme, _)| !scheme.contains(['/', '?', '#']))
        else {
            return self.target(&url, out);
        };
        let end = rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        push_printable(scheme.as_bytes(), out);
        out.push_str("//");
        if authority.contains('@') {
            out.push_str(MASKED);
            out.push('@');
        }
        push_printable(authority.rsplit('@').next().unwrap_or_default().as_bytes(), out);
        self.target(target, out);
        bound(out, start);
    }

    fn path(&self, path: &str, out: &mut String) {
        // What stands before a token may be spelled in any way that some router understands; so segments are
        // compared decoded, and blanks, `.` and empty segments between them do not count.
        let mut before: Vec<String> = Vec::new();
        for piece in Pieces(path) {
            match piece {
                Piece::Separator(text) => out.push_str(text),
                Piece::Segment(text) => {
                    let plain = plain_segment(text);
                    let named = || self.secrets.iter().any(|secret| ends_with(&before, secret));
                    if looks_like_token(&plain) || looks_random(&plain) || named() {
                        out.push_str(MASKED);
                    } else {
                        out.push_str(text);
                    }
                    if !plain.is_empty() && plain != "." {
                        before.push(plain.to_ascii_lowercase());
                    }
                }
            }
        }
    }

    fn query(&self, query: &str, out: &mut String) {
        for piece in query.split_inclusive(['?', '#', '&', ';']) {
            let (pair, end) = match piece.char_indices().next_back() {
                Some((at, '?' | '#' | '&' | ';')) => piece.split_at(at),
                _ => (piece, ""),
            };
            match pair.split_once('=') {
                Some((key, value)) if self.is_secret(key) || self.hides(value) => {
                    out.push_str(key);
                    out.push('=');
                    out.push_str(MASKED);
                }
                None if looks_secret(&decoded(pair)) => out.push_str(MASKED),
                _ => out.push_str(pair),
            }
            out.push_str(end);
        }
    }

    /// A value may be a target itself: `?next=%2Fs%2FTOKEN`.
    fn hides(&self, value: &str) -> bool {
        let value = decoded(value);
        if looks_secret(&value) {
            return true;
        }
        if value.contains(['/', '\\']) {
            let mut masked = String::with_capacity(value.len());
            self.path(value.split(['?', '#']).next().unwrap_or_default(), &mut masked);
            if !value.starts_with(&masked) {
                return true;
            }
        }
        let mut pairs = value.split(['?', '#', '&', ';']).filter_map(|pair| pair.split_once('='));
        pairs.any(|(key, _)| self.is_secret(key))
    }

    fn is_secret(&self, key: &str) -> bool {
        let key = decoded(key);
        let named = |part: &str, names: &[Box<str>]| names.iter().any(|name| name.eq_ignore_ascii_case(part));
        // `user[token]`, `token[]`, `oauth.token`: any part that names a secret makes the value one.
        key.split(['[', ']', '.', '+', '\0'])
            .flat_map(str::split_whitespace)
            .any(|part| is_secret_name(part) || named(part, &self.keys))
            || named(key.trim(), &self.keys)
    }
}

/// Appends text as printable ASCII: other characters, blanks, quotes and backslashes as `%XX`; cut off at [`MAX_FIELD`].
pub fn push_printable(text: &[u8], out: &mut String) {
    push_escaped(text, is_printable, out);
}

/// As [`push_printable`], but blanks stay, and a word that looks like a token is masked.
pub fn push_words(text: &[u8], out: &mut String) {
    let start = out.len();
    let is_plain = |byte| byte == b' ' || is_printable(byte);
    if !holds_token(text) {
        return push_escaped(text, is_plain, out);
    }
    for word in text.split_inclusive(|byte| *byte == b' ') {
        match holds_token(word) {
            true => out.push_str(MASKED),
            false => push_escaped(word, is_plain, out),
        }
    }
    bound(out, start);
}

fn push_escaped(text: &[u8], is_plain: impl Fn(u8) -> bool, out: &mut String) {
    let start = out.len();
    let mut rest = text;
    loop {
        let room = MAX_FIELD.saturating_sub(out.len() - start);
        let run = rest.iter().take(room).take_while(|byte| is_plain(**byte)).count();
        let Some((plain, odd)) = rest.split_at_checked(run) else { return };
        out.push_str(std::str::from_utf8(plain).unwrap_or_default());
        let Some((byte, after)) = odd.split_first() else { return };
        if out.len() - start >= MAX_FIELD {
            return out.push_str("...");
        }
        out.push('%');
        out.push(hex_digit(byte >> 4));
        out.push(hex_digit(byte & 0xf));
        rest = after;
    }
}

const fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'\\'
}

/// Has one spelling only, is short, and holds nothing that looks like a token.
fn is_plain(target: &str) -> bool {
    let bytes = target.as_bytes();
    let odd = |byte: &u8| !is_printable(*byte) || matches!(byte, b'%' | b';' | b'#');
    bytes.len() <= MAX_FIELD && !bytes.iter().any(odd) && !holds_token(bytes)
}

/// Cuts what was appended since `start`, which is ASCII, off at [`MAX_FIELD`].
fn bound(out: &mut String, start: usize) {
    if out.len() - start > MAX_FIELD + 3 {
        out.truncate(start + MAX_FIELD);
        out.push_str("...");
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

/// What stands before each secret of a pattern.
fn secrets_of(pattern: &str, share: bool) -> Vec<Vec<Before>> {
    let segments: Vec<&str> = pattern.split('/').filter(|segment| !segment.is_empty()).collect();
    let name =
        |segment: &&str| segment.strip_prefix('{').and_then(|text| text.strip_suffix('}')).map(str::to_owned);
    let first = segments.iter().position(|segment| name(segment).is_some());
    let secret = |(at, segment): &(usize, &&str)| {
        (share && Some(*at) == first) || name(segment).is_some_and(|name| is_secret_name(&name))
    };
    let before = |(at, _): (usize, &&str)| -> Vec<Before> {
        let before = segments.iter().take(at);
        let of = |segment: &&str| name(segment).is_none().then(|| segment.to_ascii_lowercase().into());
        before.map(of).skip_while(Option::is_none).collect()
    };
    // A pattern that begins with its parameter would mask every path whole.
    let found = segments.iter().enumerate().filter(secret).map(before);
    found.filter(|before| !before.is_empty()).collect()
}

fn is_secret_name(name: &str) -> bool {
    SECRET_KEYS.iter().any(|secret| secret.eq_ignore_ascii_case(name))
}

fn ends_with(before: &[String], secret: &[Before]) -> bool {
    let same = |(known, wanted): (&String, &Before)| wanted.as_ref().is_none_or(|wanted| **known == **wanted);
    before.len() >= secret.len() && before.iter().rev().zip(secret.iter().rev()).all(same)
}

fn plainly_ends_with(before: &str, secret: &[Before]) -> bool {
    let mut known = before.rsplit('/').filter(|segment| !segment.is_empty() && *segment != ".");
    let same = |segment: &str, wanted: &Before| {
        wanted.as_ref().is_none_or(|wanted| segment.eq_ignore_ascii_case(wanted))
    };
    secret.iter().rev().all(|wanted| known.next().is_some_and(|segment| same(segment, wanted)))
}

fn plain_segment(text: &str) -> String {
    let decoded = decoded(text);
    let plain = decoded.split(';').next().unwrap_or_default();
    plain.trim_matches(|c: char| c.is_whitespace() || c.is_control()).to_owned()
}

/// Decodes until nothing changes, a few times: what is encoded twice is refused, but it is logged too.
fn decoded(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..3 {
        if !text.contains('%') {
            break;
        }
        text = Cow::Owned(percent_decode_str(&text).decode_utf8_lossy().into_owned());
    }
    text
}

/// The pieces of a path: segments, and what some router takes for a separator between them.
struct Pieces<'a>(&'a str);

enum Piece<'a> {
    Separator(&'a str),
    Segment(&'a str),
}

const SEPARATORS: [&str; 7] = ["/", "\\", "%2f", "%5c", "%252f", "%255c", "%25252f"];

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        if self.0.is_empty() {
            return None;
        }
        if let Some(length) = separator_at(self.0) {
            let (separator, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            return Some(Piece::Separator(separator));
        }
        let end = self
            .0
            .char_indices()
            .find(|(at, _)| self.0.get(*at..).is_some_and(|rest| separator_at(rest).is_some()))
            .map_or(self.0.len(), |(at, _)| at);
        let (segment, rest) = self.0.split_at_checked(end)?;
        self.0 = rest;
        Some(Piece::Segment(segment))
    }
}

fn separator_at(text: &str) -> Option<usize> {
    let starts = |separator: &&str| {
        text.as_bytes()
            .get(..separator.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(separator.as_bytes()))
    };
    SEPARATORS.iter().find(|separator| starts(separator)).map(|separator| separator.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask() -> Mask {
        let shares: Vec<PathPattern> =
            ["/s/{token}", "/s/{token}/file", "/public/link/{id}/*"].map(|text| text.parse().unwrap()).into();
        let routes: Vec<PathPattern> =
            ["/reset/{token}", "/api/{id}/hooks/{secret}", "/{id}/{token}", "/users/{id}"]
                .map(|text| text.parse().unwrap())
                .into();
        let shares = shares.iter().map(|pattern| (pattern, true));
        Mask::new(["Ws_Auth"], shares.chain(routes.iter().map(|pattern| (pattern, false))))
    }

    fn masked(target: &str) -> String {
        let mut out = String::new();
        mask().target(target, &mut out);
        out
    }

    fn masked_url(url: &str) -> String {
        let mut out = String::new();
        mask().url(url.as_bytes(), &mut out);
        out
    }

    #[test]
    fn share_tokens_are_masked_however_the_path_is_spelled() {
        for (target, expected) in [
            ("/s/SECRET", "/s/***"),
            ("/s/SECRET/file", "/s/***/file"),
            ("/S//./SECRET", "/S//***/***"),
            ("/%73/SECRET", "/%73/***"),
            ("/s%2fSECRET", "/s%2f***"),
            ("/s%252FSECRET", "/s%252F***"),
            ("/s\\SECRET", "/s%5C***"),
            ("/s;x=1/SECRET", "/s;x=1/***"),
            ("/a/../s/SECRET", "/a/../s/***"),
            ("/public/link/SECRET/x", "/public/link/***/x"),
            ("/public/SECRET", "/public/SECRET"),
            ("/api/assets/7/file?size=3", "/api/assets/7/file?size=3"),
        ] {
            assert_eq!(masked(target), expected, "{target}");
        }
    }

    #[test]
    fn segments_that_the_app_file_calls_as_a_secret_are_masked() {
        for (target, expected) in [
            ("/reset/SECRET", "/reset/***"),
            ("/Reset//SECRET?x=1", "/Reset//***?x=1"),
            ("/reset%2FSECRET", "/reset%2F***"),
            ("/api/7/hooks/SECRET", "/api/7/hooks/***"),
            ("/api/7/hooks/SECRET/x", "/api/7/hooks/***/x"),
            ("/api/7/hook/x", "/api/7/hook/x"),
            ("/users/7", "/users/7"),
            ("/7/x", "/7/x"),
        ] {
            assert_eq!(masked(target), expected, "{target}");
        }
    }

    #[test]
    fn what_is_long_and_random_is_masked_wherever_it_stands_and_what_people_read_is_not() {
        for secret in [
            "3f2a9c0d5e7b18463f2a9c0d5e7b1846",
            "3f2a9c0d5e7b18463f2a9c0d5e7b18463f2a9c0d5e7b18463f2a9c0d5e7b1846",
            "q8Zt-0xPv_4LmN2sRb7YcWdKeHfGjU1aTqXoI6VnB3k",
            "C1zq5d-a81f9e0b7c6d5e4f3a2b1c0d9e8f7a6b",
        ] {
            assert_eq!(masked(&format!("/a/{secret}/b")), "/a/***/b", "{secret}");
            assert_eq!(masked(&format!("/a?b={secret}&c={secret}")), "/a?b=***&c=***", "{secret}");
            assert_eq!(masked(&format!("/a%20/{secret}?{secret}")), "/a%20/***?***", "{secret}");
            assert_eq!(masked_url(&format!("https://h/{secret}")), "https://h/***", "{secret}");
        }
        for plain in [
            "/a/123e4567-e89b-12d3-a456-426614174000",
            "/a/index-3f2a9c0d5e7b18463f2a9c0d5e7b1846.js",
            "/a/2024-11-22-how-to-restore-the-backups-of-2023",
            "/a/getUserAccountSettingsForOrganization",
            "/a/12345678901234567890123456789012345",
            "/a/INTERNATIONALIZATION_GUIDE_OF_2024_V2",
        ] {
            assert_eq!(masked(plain), plain);
        }
    }

    #[test]
    fn values_of_token_keys_are_masked() {
        for (target, expected) in [
            ("/ws?token=SECRET&x=1", "/ws?token=***&x=1"),
            ("/ws?x=1;TOKEN=SECRET", "/ws?x=1;TOKEN=***"),
            ("/ws?%74oken=SECRET", "/ws?%74oken=***"),
            ("/ws?user[token]=SECRET", "/ws?user[token]=***"),
            ("/ws?ws_auth=SECRET", "/ws?ws_auth=***"),
            ("/cb#access_token=SECRET&y", "/cb#access_token=***&y"),
            ("/cb?q=eyJzdWIiOjEsInJv.SECRET", "/cb?q=***"),
            ("/login?next=/s/SECRET", "/login?next=***"),
            ("/login?next=%2Fs%2FSECRET%2Ffile&x", "/login?next=***&x"),
            ("/login?next=https%253A%252F%252Fa%252Fs%252FSECRET", "/login?next=***"),
            ("/login?next=%2Fa%3Fb%3D1%26token%3DSECRET", "/login?next=***"),
            ("/login?next=/dash/board?x=a=b", "/login?next=/dash/board?x=a=b"),
            ("/x/eyJzdWIiOjEsInJv.SECRET", "/x/***"),
        ] {
            assert_eq!(masked(target), expected, "{target}");
        }
    }

    #[test]
    fn referer_and_location_are_masked_too() {
        assert_eq!(masked_url("https://files.example.com/s/SECRET"), "https://files.example.com/s/***");
        assert_eq!(masked_url("https://u:SECRET@h/?code=SECRET"), "https://***@h/?code=***");
        assert_eq!(masked_url("/login#token=SECRET"), "/login#token=***");
        assert_eq!(masked_url("/go?to=https://x/&state=SECRET"), "/go?to=https://x/&state=***");
    }

    #[test]
    fn a_token_in_free_text_is_masked() {
        for (text, expected) in [
            ("curl/8 (eyJzdWIiOjEsInJv.SECRET) x", "curl/8 ***x"),
            ("a \u{1b}[31mred\u{9b}\u{202e}", "a %1B[31mred%C2%9B%E2%80%AE"),
            ("", ""),
        ] {
            let mut out = String::new();
            push_words(text.as_bytes(), &mut out);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_length_is_bounded() {
        assert!(masked(&"/a".repeat(100_000)).len() <= MAX_FIELD + 6);
    }

    const SECRET: &str = "Zq7SECRETxV";

    proptest! {
        #[test]
        fn no_planted_secret_survives_and_what_comes_out_is_printable(
            before in "(/[a-z.%]{0,4}){0,3}",
            separator in prop::sample::select(vec!["/", "//", "/./", "%2F", "\\", "/%20/"]),
            word in prop::sample::select(vec!["s", "S", "%73", "s;a=b", "%2573"]),
            after in "(/\\PC{0,6}){0,2}",
            key in prop::sample::select(vec!["token", "Code", "%73ig", "a[password]", "ws_auth", "api_key"]),
            noise in "\\PC{0,12}",
        ) {
            let noise = noise.replace(['&', ';', '=', '#', '?'], "-");
            let target = format!("{before}/{word}{separator}{SECRET}{after}?q={noise}&{key}={SECRET}&z");
            let out = masked(&target);
            prop_assert!(!out.contains(SECRET), "{target} -> {out}");
            prop_assert!(out.bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{out:?}");
        }

        #[test]
        fn the_short_way_of_plain_paths_says_what_the_long_one_says(
            target in "(/(s|S|public|link|file|\\.|[a-z]{0,3})){0,6}(\\?((token|ws_auth|x|a\\[code\\])=?[a-z]{0,3}&?){0,4})?",
        ) {
            let (mut short, mut long) = (String::new(), String::new());
            prop_assert!(is_plain(&target));
            mask().target(&target, &mut short);
            mask().odd_target(&target, &mut long);
            prop_assert_eq!(short, long);
        }

        #[test]
        fn anything_at_all_comes_out_printable(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = String::new();
            mask().url(&bytes, &mut out);
            prop_assert!(out.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'));
        }
    }
}
