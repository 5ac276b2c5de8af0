//! Finds every candidate token of a request, wherever the application might look, as leniently as it might (HARDENING 1.8).
//!
//! `Authorization: Bearer` is always looked at; the app file adds cookies, query keys, Basic passwords and WebSocket
//! subprotocols. Two credentials of one kind that differ are refused: proxy and application could each take another.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use percent_encoding::percent_decode;

use super::credential::{Credential, Presented, TokenText, examine};
use super::facts::Malformed;
use crate::config::app::{Carrier, TokenFormat, Tokens};

/// Most credentials of one request; more are refused rather than left unexamined.
pub const MAX_CREDENTIALS: usize = 16;

/// Shorter words are no guess worth looking at.
const SHORTEST: usize = 8;

/// What is found.
#[derive(Debug, Default)]
pub struct Finding {
    /// Every candidate; no secret is in them.
    pub credentials: Vec<Credential>,
    /// Tokens of the site's format, to be verified.
    pub presented: Vec<Presented>,
}

/// Finds every candidate token; `keep`: also as it came, to be verified.
///
/// # Errors
/// [`Malformed::Credentials`]: two of one kind that differ, more than [`MAX_CREDENTIALS`], or one that cannot be
/// understood in one way only.
pub fn find(
    headers: &HeaderMap,
    query: Option<&str>,
    tokens: &Tokens,
    lifetime: Duration,
    keep: bool,
) -> Result<Finding, Malformed> {
    let mut finds = Finds { format: tokens.format, lifetime, keep, carrier: 0, found: Finding::default() };
    finds.authorization(headers, tokens.carriers.contains(&Carrier::Basic))?;
    let cookies = headers.contains_key(COOKIE);
    for (place, carrier) in tokens.carriers.iter().enumerate() {
        finds.carrier = place;
        match carrier {
            Carrier::Cookie(name) if cookies => finds.cookies(headers, name, tokens.format)?,
            Carrier::Bearer | Carrier::Basic | Carrier::Cookie(_) => {}
            Carrier::Query(name) => query.map_or(Ok(()), |query| finds.query(query, name))?,
            Carrier::Subprotocol => finds.subprotocols(headers)?,
        }
    }
    if let Some(name) = tokens.refresh_cookie.as_ref().filter(|_| cookies) {
        // It is the application's to verify, also where it looks like an access token.
        finds.keep = false;
        finds.cookies(headers, name, TokenFormat::Opaque)?;
    }
    Ok(finds.found)
}

/// Whether `sent` is this cookie or query key for any framework: in any case, escaped, with PHP's `_` for `.`, `+`, blank
/// and `[`.
pub fn is_called(sent: &[u8], name: &str) -> bool {
    let sent: Cow<'_, [u8]> = percent_decode(sent).into();
    let sent = sent.trim_ascii();
    let same = |(sent, name): (&u8, u8)| {
        sent.eq_ignore_ascii_case(&name) || (name == b'_' && b". +[".contains(sent))
    };
    sent.len() == name.len() && sent.iter().zip(name.bytes()).all(same)
}

/// The value that a `Set-Cookie` line gives this cookie, as [`find`] reads it when it comes back.
pub fn set_cookie<'l>(line: &'l [u8], name: &str) -> Option<Cow<'l, [u8]>> {
    let pair = line.split(|byte| *byte == b';').next()?;
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = pair.split_at(at);
    is_called(key, name).then(|| trimmed(percent_decode(unquote(value.get(1..).unwrap_or_default())).into()))
}

/// The one value of a cookie that a request carries exactly once, as [`find`] reads it.
pub fn sole_cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<Cow<'h, [u8]>> {
    let mut named = pairs(headers).filter(|(key, _)| is_called(key, name)).map(|(_, value)| value);
    match (named.next(), named.next()) {
        (Some(value), None) => {
            Some(trimmed(percent_decode(unquote(value)).into())).filter(|value| !value.is_empty())
        }
        _ => None,
    }
}

/// What else than the whole of it an application could take for the token of a text: its first and its last word, without the
/// key before it. Some are the text itself.
pub fn pieces(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut words = text.split(|byte| is_separator(*byte)).filter(|word| !word.is_empty());
    [words.next(), words.next_back()].into_iter().flatten().flat_map(|word| {
        let word = bare(word);
        let after_key = word.iter().position(|byte| *byte == b'=').and_then(|at| word.get(at + 1..));
        [word, bare(after_key.unwrap_or_default())]
    })
}

/// The cookies of a request, each as its name and value, as sent.
pub fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = headers.get_all(COOKIE).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')).map(named)
}

/// Leaves those cookies out of a request whose name, as sent, is meant.
pub fn leave_out(headers: &mut HeaderMap, meant: impl Fn(&[u8]) -> bool) {
    if !pairs(headers).any(|(name, _)| meant(name)) {
        return;
    }
    let without = |line: &HeaderValue| {
        let pairs = line.as_bytes().split(|byte| *byte == b';');
        let kept: Vec<&[u8]> = pairs.filter(|pair| !meant(named(pair).0)).collect();
        HeaderValue::from_bytes(kept.join(&b';').trim_ascii()).ok().filter(|line| !line.is_empty())
    };
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().filter_map(without).collect();
    headers.remove(COOKIE);
    for line in lines {
        headers.append(COOKIE, line);
    }
}

fn named(pair: &[u8]) -> (&[u8], &[u8]) {
    let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    let (name, value) = pair.split_at(at);
    (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii())
}

fn trimmed(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.trim_ascii().into(),
        Cow::Owned(text) => text.trim_ascii().to_vec().into(),
    }
}

struct Finds {
    format: TokenFormat,
    lifetime: Duration,
    keep: bool,
    /// The place of the carrier that is looked at.
    carrier: usize,
    found: Finding,
}

impl Finds {
    fn authorization(&mut self, headers: &HeaderMap, basic: bool) -> Result<(), Malformed> {
        let mut kind = Kind::default();
        for line in headers.get_all(AUTHORIZATION) {
            let line = line.as_bytes().trim_ascii();
            // Python takes 0xA0 and others for blanks.
            if !line.is_ascii() {
                return Err(Malformed::Credentials);
            }
            let at = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
            let (scheme, rest) = line.split_at(at);
            let rest = unquote(rest);
            // Without a scheme, or with one that we do not know, some application takes the word for the token.
            let text = if rest.is_empty() { scheme } else { rest };
            if scheme.eq_ignore_ascii_case(b"basic") {
                if basic {
                    self.basic(text, &mut kind)?;
                }
                self.guess(text, false)?;
                continue;
            }
            // `split(" ")[1]` and `split(" ")[-1]` are both customs.
            if scheme.eq_ignore_ascii_case(b"bearer") && text.iter().any(|byte| is_separator(*byte)) {
                return Err(Malformed::Credentials);
            }
            self.add(text, self.format, false, &mut kind)?;
            self.words(text, self.format, false)?;
        }
        Ok(())
    }

    /// The password; the name too, where some applications take a token.
    fn basic(&mut self, encoded: &[u8], kind: &mut Kind) -> Result<(), Malformed> {
        // Some decoders forgive padding, other alphabets and junk: what we cannot read they perhaps can.
        let decoded = STANDARD.decode(encoded).map_err(|_| Malformed::Credentials)?;
        let mut parts = decoded.splitn(2, |byte| *byte == b':');
        let (name, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        self.guess(name, false)?;
        self.add(password, self.format, false, kind)
    }

    /// `Token token="…", …`, `Bearer …` in a cookie, blanks that only some language trims: see [`pieces`]. The whole has been
    /// examined as `format`.
    fn words(&mut self, text: &[u8], format: TokenFormat, cookie: bool) -> Result<(), Malformed> {
        let whole = format == self.format;
        let mut others = pieces(text).filter(|piece| !whole || *piece != text);
        others.try_for_each(|piece| self.guess(piece, cookie))
    }

    fn cookies(&mut self, headers: &HeaderMap, name: &str, format: TokenFormat) -> Result<(), Malformed> {
        let mut kind = Kind::default();
        let lines = headers.get_all(COOKIE).into_iter();
        for pair in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';')) {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (key, value) = pair.split_at(at);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            // Some parsers begin a new cookie behind a blank or comma.
            let mut behind = value.split(|byte| is_separator(*byte)).skip(1);
            if behind
                .any(|piece| is_called(piece.split(|byte| *byte == b'=').next().unwrap_or_default(), name))
            {
                return Err(Malformed::Credentials);
            }
            if is_called(key, name) {
                // In a quoted one some know escapes of their own.
                if value.starts_with(b"\"") && value.contains(&b'\\') {
                    return Err(Malformed::Credentials);
                }
                let decoded: Cow<'_, [u8]> = percent_decode(unquote(value)).into();
                self.add(&decoded, format, true, &mut kind)?;
                self.words(&decoded, format, true)?;
            }
        }
        Ok(())
    }

    fn query(&mut self, query: &str, name: &str) -> Result<(), Malformed> {
        let mut kind = Kind::default();
        for pair in query.split(['&', ';']) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if is_called(key.trim_matches('+').as_bytes(), name) {
                // In a form `+` is a blank.
                let value: Cow<'_, [u8]> = percent_decode(value.trim_matches('+').as_bytes()).into();
                self.add(&value, self.format, false, &mut kind)?;
                self.words(&value, self.format, false)?;
            }
        }
        Ok(())
    }

    /// `bearer, TOKEN`, `access_token.TOKEN` and `base64url.bearer.….BASE64` are the customs; names of protocols stand
    /// beside them.
    fn subprotocols(&mut self, headers: &HeaderMap) -> Result<(), Malformed> {
        let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
        for entry in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
            let entry: Cow<'_, [u8]> = percent_decode(entry.trim_ascii()).into();
            if entry.len() < SHORTEST {
                continue;
            }
            self.guess(&entry, false)?;
            let dots = entry.iter().enumerate().filter(|(_, byte)| **byte == b'.');
            for (number, (at, _)) in dots.enumerate() {
                let tail = entry.get(at + 1..).unwrap_or_default();
                if number == 0 {
                    self.guess(tail, false)?;
                } else {
                    self.guess_shaped(tail)?;
                }
            }
            let last = entry.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
            self.guess(last, false)?;
            self.guess(&URL_SAFE_NO_PAD.decode(last).unwrap_or_default(), false)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        text: &[u8],
        format: TokenFormat,
        cookie: bool,
        kind: &mut Kind,
    ) -> Result<(), Malformed> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        let credential = examine(text, format, self.lifetime, cookie)?;
        match &kind.first {
            Some(first) if *first == credential.fingerprint => return Ok(()),
            Some(_) => return Err(Malformed::Credentials),
            None => kind.first = Some(credential.fingerprint),
        }
        self.push(text, credential, format == self.format)
    }

    /// What an application may take for a token; there may be several that differ.
    fn guess(&mut self, text: &[u8], cookie: bool) -> Result<(), Malformed> {
        if text.len() < SHORTEST {
            return Ok(());
        }
        let credential = examine(text, self.format, self.lifetime, cookie)?;
        let same =
            |known: &Credential| known.fingerprint == credential.fingerprint && known.in_cookie == cookie;
        if self.found.credentials.iter().any(same) {
            return Ok(());
        }
        // Where nothing says what a token looks like, every word is one.
        let guessed = self.format != TokenFormat::Opaque;
        // A guessed word without claims is no token of this format for anybody.
        let token = !guessed || credential.claims.is_some();
        self.push(text, Credential { guessed, ..credential }, token)
    }

    /// Only what is a token by its shape.
    fn guess_shaped(&mut self, text: &[u8]) -> Result<(), Malformed> {
        match examine(text, self.format, self.lifetime, false)?.claims {
            Some(_) => self.guess(text, false),
            None => Ok(()),
        }
    }

    /// `token`: it could be taken for one of the site's format.
    fn push(&mut self, text: &[u8], credential: Credential, token: bool) -> Result<(), Malformed> {
        if self.found.credentials.len() >= MAX_CREDENTIALS {
            return Err(Malformed::Credentials);
        }
        if self.keep && token {
            let expires = credential.claims.as_ref().and_then(|claims| claims.expires);
            let cookie = credential.in_cookie.then_some(self.carrier);
            let presented = Presented { text: TokenText::new(text), cookie, expires };
            self.found.presented.push(presented);
        }
        self.found.credentials.push(credential);
        Ok(())
    }
}

/// Credentials of one kind: all must be the same.
#[derive(Default)]
struct Kind {
    first: Option<super::credential::Fingerprint>,
}

fn is_separator(byte: u8) -> bool {
    !byte.is_ascii_graphic() || byte == b','
}

/// Without the quotes around it, paired or not.
fn bare(word: &[u8]) -> &[u8] {
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\'');
    let first = word.iter().position(is_plain).unwrap_or(word.len());
    let end = word.iter().rposition(is_plain).map_or(first, |last| last + 1);
    word.get(first..end).unwrap_or_default()
}

fn unquote(text: &[u8]) -> &[u8] {
    let text = text.trim_ascii();
    text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::credential::Fingerprint;
    use super::*;

    fn tokens(carriers: &[Carrier]) -> Tokens {
        Tokens {
            format: TokenFormat::Opaque,
            carriers: carriers.to_vec(),
            refresh_cookie: Some("refresh".into()),
            account_claim: None,
            issuer: None,
            lifetime: Duration::from_secs(60),
            refresh_lifetime: Duration::ZERO,
        }
    }

    fn finds(fields: &[(&'static str, &str)], query: &str) -> Result<Vec<Fingerprint>, Malformed> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let all = [
            Carrier::Basic,
            Carrier::Cookie("sid".into()),
            Carrier::Query("token".into()),
            Carrier::Subprotocol,
        ];
        let found = find(&headers, Some(query), &tokens(&all), Duration::from_secs(60), false)?;
        Ok(found.credentials.into_iter().map(|credential| credential.fingerprint).collect())
    }

    #[test]
    fn a_token_is_found_wherever_an_application_might_look() {
        let long = "abcdefghijklmnopqrstuvwxyz";
        let basic = format!("Basic {}", STANDARD.encode(format!("me:{long}")));
        let both = format!("chat, {long}");
        for (fields, query) in [
            (vec![("authorization", format!("Bearer {long}"))], ""),
            (vec![("authorization", format!("bEARER \t {long} "))], ""),
            (vec![("authorization", format!("Token {long}"))], ""),
            (vec![("authorization", long.to_owned())], ""),
            (
                vec![
                    ("authorization", format!("Bearer {long}")),
                    ("authorization", format!("bearer {long}")),
                ],
                "",
            ),
            (vec![("authorization", basic)], ""),
            (vec![("cookie", format!("a=b; sid={long}"))], ""),
            (vec![("cookie", format!("sid=\"{long}\"")), ("cookie", "x=y".to_owned())], ""),
            (vec![("cookie", format!("x=y;sid = %61{}", long.get(1..).unwrap()))], ""),
            (vec![("sec-websocket-protocol", both)], ""),
            (vec![], "a=b&token=abcdefghijklmnopqrstuvwxyz"),
            (vec![], "t%6Fken=%61bcdefghijklmnopqrstuvwxyz"),
            (vec![], "TOKEN=abcdefghijklmnopqrstuvwxyz"),
        ] {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let found = finds(&fields, query).unwrap();
            assert!(found.contains(&Fingerprint::of(long.as_bytes())), "{fields:?} {query}");
        }
    }

    #[test]
    fn every_kind_is_examined_and_not_only_the_first() {
        let found =
            finds(&[("authorization", "Bearer a"), ("cookie", "sid=b; refresh=c")], "token=d").unwrap();
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn two_of_one_kind_that_differ_are_refused() {
        for fields in [
            [("authorization", "Bearer a"), ("authorization", "Bearer b")],
            [("cookie", "sid=a"), ("cookie", "sid=b")],
            [("cookie", "refresh=a; refresh=b"), ("x-other", "1")],
        ] {
            assert_eq!(finds(&fields, ""), Err(Malformed::Credentials), "{fields:?}");
        }
        assert_eq!(finds(&[], "token=a&token=b"), Err(Malformed::Credentials));
    }
}
