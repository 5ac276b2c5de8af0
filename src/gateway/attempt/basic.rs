//! `Authorization: Basic` (RFC 7617): a name and a password with every request.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::header::{AUTHORIZATION, HeaderMap};
use zeroize::Zeroizing;

/// What it says.
#[derive(Debug)]
pub struct Basic {
    /// The name; `None`: it is empty, as where the password is a token.
    pub account: Option<String>,
    /// The password, wiped when it is dropped.
    pub password: Zeroizing<String>,
}

/// Whether a request carries it.
pub fn is_sent(headers: &HeaderMap) -> bool {
    encoded(headers).next().is_some()
}

/// Reads it; `None`: decoders could read it in several ways, or there are several that differ.
pub fn read(headers: &HeaderMap) -> Option<Basic> {
    let mut lines = encoded(headers);
    let first = lines.next()?;
    if lines.any(|line| line != first) {
        return None;
    }
    let decoded =
        STANDARD.decode(first).or_else(|_| STANDARD_NO_PAD.decode(first)).ok().map(Zeroizing::new)?;
    let text = Zeroizing::new(String::from_utf8_lossy(&decoded).into_owned());
    let (account, password) = text.split_once(':')?;
    let account = Some(account.to_owned()).filter(|name| !name.is_empty());
    Some(Basic { account, password: Zeroizing::new(password.to_owned()) })
}

fn encoded(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(AUTHORIZATION).iter().filter_map(|line| {
        let line = line.as_bytes().trim_ascii();
        let (scheme, rest) = line.split_at_checked(5)?;
        let begins =
            scheme.eq_ignore_ascii_case(b"basic") && rest.first().is_none_or(u8::is_ascii_whitespace);
        begins.then(|| rest.trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&'static str]) -> (bool, Option<(Option<String>, String)>) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(AUTHORIZATION, http::HeaderValue::from_static(line));
        }
        let read = read(&headers).map(|basic| (basic.account.clone(), basic.password.to_string()));
        (is_sent(&headers), read)
    }

    #[test]
    fn name_and_password_are_read_in_one_way_or_not_at_all() {
        let ann = Some((Some("ann".into()), "a:b".into()));
        assert_eq!(said(&["Basic YW5uOmE6Yg=="]), (true, ann.clone()));
        assert_eq!(said(&["bAsIc  YW5uOmE6Yg"]), (true, ann.clone()));
        assert_eq!(said(&["Basic YW5uOmE6Yg==", "Basic YW5uOmE6Yg=="]), (true, ann));
        assert_eq!(said(&["Basic OnRva2Vu"]), (true, Some((None, "token".into()))));
        for lines in [
            &["Basic"][..],
            &["Basic !!!!"],
            &["Basic YW5u"],
            &["Basic YW5uOmE6Yh=="],
            &["Basic YW5uOmE6Yg==", "Basic OnRva2Vu"],
        ] {
            assert_eq!(said(lines), (true, None), "{lines:?}");
        }
        assert_eq!((said(&["Bearer abc"]).0, said(&["Basics abc"]).0, said(&[]).0), (false, false, false));
    }
}
