//! Finds every candidate token of a request, wherever the application might look, as leniently as it might (HARDENING 1.8).
//!
//! `Authorization: Bearer` is always looked at; the app file adds cookies, query keys, Basic passwords and WebSocket
//! subprotocols. Two credentials of one kind that differ are refused: proxy and application could each take another.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use percent_encoding::percent_decode;

use super::credential::{Credential, examine};
use super::facts::Malformed;
use crate::config::app::{Carrier, TokenFormat, Tokens};

/// Most credentials of one request; more are refused rather than left unexamined.
pub const MAX_CREDENTIALS: usize = 8;

/// Finds every candidate token.
///
/// # Errors
/// [`Malformed::Credentials`]: two of one kind that differ, more than [`MAX_CREDENTIALS`], or one that cannot be
/// understood in one way only.
pub fn find(
    headers: &HeaderMap,
    query: Option<&str>,
    tokens: &Tokens,
    lifetime: Duration,
) -> Result<Vec<Credential>, Malformed> {
    let mut finds = Finds { format: tokens.format, lifetime, found: Vec::new() };
    finds.authorization(headers, tokens.carriers.contains(&Carrier::Basic))?;
    let cookies = headers.contains_key(COOKIE);
    for carrier in &tokens.carriers {
        match carrier {
            Carrier::Cookie(name) if cookies => finds.cookies(headers, name, tokens.format)?,
            Carrier::Bearer | Carrier::Basic | Carrier::Cookie(_) => {}
            Carrier::Query(name) => query.map_or(Ok(()), |query| finds.query(query, name))?,
            Carrier::Subprotocol => finds.subprotocols(headers)?,
        }
    }
    if let Some(name) = tokens.refresh_cookie.as_ref().filter(|_| cookies) {
        finds.cookies(headers, name, TokenFormat::Opaque)?;
    }
    Ok(finds.found)
}

/// The values of a cookie, over all Cookie fields (HTTP/2 splits them), quotes and blanks removed.
pub fn cookie_values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = pair.split_at(at);
        (key.trim_ascii() == name.as_bytes()).then(|| unquote(value.get(1..).unwrap_or_default()))
    })
}

struct Finds {
    format: TokenFormat,
    lifetime: Duration,
    found: Vec<Credential>,
}

impl Finds {
    fn authorization(&mut self, headers: &HeaderMap, basic: bool) -> Result<(), Malformed> {
        let mut kind = Kind::default();
        for line in headers.get_all(AUTHORIZATION) {
            let line = line.as_bytes().trim_ascii();
            let at = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
            let (scheme, rest) = line.split_at(at);
            let rest = unquote(rest);
            if scheme.eq_ignore_ascii_case(b"basic") {
                let decoded = STANDARD.decode(rest).unwrap_or_default();
                let mut parts = decoded.splitn(2, |byte| *byte == b':');
                if let (true, Some(_), Some(password)) = (basic, parts.next(), parts.next()) {
                    self.add(password, self.format, false, &mut kind)?;
                }
            } else {
                // Without a scheme, or with one that we do not know, some application takes the word for the token.
                self.add(if rest.is_empty() { scheme } else { rest }, self.format, false, &mut kind)?;
            }
        }
        Ok(())
    }

    fn cookies(&mut self, headers: &HeaderMap, name: &str, format: TokenFormat) -> Result<(), Malformed> {
        let mut kind = Kind::default();
        for value in cookie_values(headers, name) {
            let decoded: Cow<'_, [u8]> = percent_decode(value).into();
            self.add(&decoded, format, true, &mut kind)?;
        }
        Ok(())
    }

    fn query(&mut self, query: &str, name: &str) -> Result<(), Malformed> {
        let mut kind = Kind::default();
        for pair in query.split(['&', ';']) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let key: Cow<'_, [u8]> = percent_decode(key.as_bytes()).into();
            if key.eq_ignore_ascii_case(name.as_bytes()) {
                let value: Cow<'_, [u8]> = percent_decode(value.as_bytes()).into();
                self.add(&value, self.format, false, &mut kind)?;
            }
        }
        Ok(())
    }

    /// `bearer, TOKEN` and `access_token.TOKEN` are the customs; every entry that is no plain word is a candidate.
    fn subprotocols(&mut self, headers: &HeaderMap) -> Result<(), Malformed> {
        let mut kind = Kind::default();
        let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
        for entry in lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')) {
            let entry = entry.trim_ascii();
            if entry.len() >= 20 {
                self.add(entry, self.format, false, &mut kind)?;
            }
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
        if self.found.len() >= MAX_CREDENTIALS {
            return Err(Malformed::Credentials);
        }
        self.found.push(credential);
        Ok(())
    }
}

/// Credentials of one kind: all must be the same.
#[derive(Default)]
struct Kind {
    first: Option<super::credential::Fingerprint>,
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
        let found = find(&headers, Some(query), &tokens(&all), Duration::from_secs(60))?;
        Ok(found.into_iter().map(|credential| credential.fingerprint).collect())
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
            assert_eq!(
                finds(&fields, query),
                Ok(vec![Fingerprint::of(long.as_bytes())]),
                "{fields:?} {query}"
            );
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
