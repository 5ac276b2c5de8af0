//! What a request will teach if its answer says that it was done: a logout ends its token, and who disables somebody or gives
//! him another password ends his sessions, whatever the application forgets.
//!
//! Nobody can make the gateway block an innocent:
//! 1. Only routes that the app file names teach, since their application verifies who asks; and only an answer of its own
//!    that says *done* ([`is_done`]).
//! 2. A logout teaches only of the one credential in the place that the app file names, well-formed and not expired, alone
//!    in its request; of the refresh cookie beside it only when that is known to be the same person's.
//! 3. What a page of another site has sent teaches nothing.
//!
//! Caveat: what the application takes for done without looking at the signature is believed here too.

use std::borrow::Cow;
use std::rc::Rc;

use http::header::{AGE, AUTHORIZATION, HeaderMap};
use http::{HeaderName, StatusCode};
use percent_encoding::percent_decode_str;

use super::changes::Changes;
use super::lesson::{Aside, BODY};
use super::read::Reading;
use crate::config::app::{Action, Carrier, TokenFormat};
use crate::config::class::Class;
use crate::policy::{Learn, Site};
use crate::request::carriers::{pieces, sole_cookie};
use crate::request::credential::{Credential, Fingerprint, examine, subject_key};
use crate::request::facts::Origin;
use crate::stores::blocks::What;
use crate::stores::kept::Kept;
use crate::stores::taught::Whose;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Verifiers forgive clocks that differ: a block outlasts its token by this, in milliseconds.
const LEEWAY: u64 = 5 * 60 * 1000;
/// Longest subject in a path, in bytes.
const LONGEST: usize = 128;

/// What a request will teach.
#[derive(Debug)]
pub struct Teaching {
    /// `logout` or `admin`: a label, and a word of the audit log.
    pub word: &'static str,
    /// What is to be blocked, and for how many milliseconds; `None`: the default of the kind.
    pub whats: Vec<(What, Option<u64>)>,
    /// Whose it is, for the quota.
    pub whose: Whose,
    /// Whoever asks changes himself: his token.
    pub own: Option<Fingerprint>,
    /// The request's body, read beside its bytes.
    pub body: Rc<Aside>,
    changes: Changes,
}

impl Teaching {
    /// Of a request; `None`: it teaches nothing.
    pub fn of(reading: &Reading<'_>, headers: &HeaderMap, kept: &Kept) -> Option<Self> {
        let site = reading.site;
        if site.learning.learn == Learn::Off || reading.facts.method.is_safe() || is_foreign(reading, headers)
        {
            return None;
        }
        match reading.facts.class {
            Class::Logout => Self::logout(reading, headers, kept),
            _ => Self::action(reading, headers),
        }
    }

    fn logout(reading: &Reading<'_>, headers: &HeaderMap, kept: &Kept) -> Option<Self> {
        let site = reading.site;
        let (text, ended) = sole(site, headers, site.learning.teaches.logout.as_ref()?)?;
        let cookie = site.tokens.refresh_cookie.as_deref().and_then(|name| sole_cookie(headers, name));
        let opaque = |value: &[u8]| examine(value, TokenFormat::Opaque, site.token_lifetime, true).ok();
        let refresh = cookie.as_deref().and_then(opaque);
        let mut others = reading.facts.credentials.iter().map(|one| one.fingerprint);
        let named = [Some(&ended), refresh.as_ref()];
        // What looks like a token within one of the two is a part of it.
        let parts = [Some(&*text), cookie.as_deref()].into_iter().flatten().flat_map(pieces);
        let parts =
            parts.filter_map(|part| examine(part, site.tokens.format, site.token_lifetime, true).ok());
        let parts: Vec<Fingerprint> = parts.map(|part| part.fingerprint).collect();
        let known =
            |one| named.into_iter().flatten().any(|known| known.fingerprint == one) || parts.contains(&one);
        if !others.all(known) {
            return None;
        }
        let (now, claims) = (reading.facts.now, ended.claims.as_ref());
        let left = match claims.map(|claims| claims.expires) {
            // What has ended was not looked at by whoever took it.
            Some(expires) => Some(expires?.checked_sub(now.unix()).filter(|left| *left > 0)? * 1000 + LEEWAY),
            None => None,
        };
        let mut whats = vec![(What::Fingerprint { fingerprint: ended.fingerprint }, left)];
        if let Some(cookie) = refresh {
            let session = kept.sessions.find(&(site.scope(), cookie.fingerprint.key().0));
            let same = session
                .map(|one| Some(subject_key(&one.subject)) == claims.and_then(|claims| claims.subject));
            match same {
                Some(true) => {
                    let what = What::Fingerprint { fingerprint: cookie.fingerprint };
                    whats.push((what, Some(site.learning.refresh_millis())));
                }
                // Two persons in one request: nobody knows who is meant.
                Some(false) => return None,
                None => {}
            }
        }
        let person = claims.and_then(|claims| claims.subject);
        Some(Self {
            word: "logout",
            whats,
            whose: person.map_or_else(|| Whose::client(reading.facts.client), Whose::Person),
            own: None,
            body: Rc::default(),
            changes: Changes::Any,
        })
    }

    fn action(reading: &Reading<'_>, headers: &HeaderMap) -> Option<Self> {
        let path = reading.path.normal();
        let actions = reading.site.learning.teaches.actions.iter();
        let meant = actions.filter(|one| one.method == reading.facts.method && one.pattern.matches(path));
        let action = meant.max_by_key(|one| one.pattern.specificity())?;
        let asks = asking(reading);
        let caller = asks.and_then(|one| one.claims.as_ref()?.subject_text.as_deref());
        let subject = match action.pattern.has_param() {
            true => subject_in(path, action)?,
            false => caller?.to_owned(),
        };
        let own = asks.filter(|_| caller == Some(&*subject)).map(|one| one.fingerprint);
        let whose = own.map_or(Whose::Admin, |_| Whose::Own(subject_key(&subject)));
        let what = What::Subject { subject, issuer: None, before: 0, and_logins: false };
        let changes = Changes::of(&action.when, headers);
        Some(Self {
            word: "admin",
            whats: vec![(what, None)],
            whose,
            own,
            body: Rc::new(Aside::up_to(BODY)),
            changes,
        })
    }

    /// The answer says that it was done, and that is what teaches.
    pub fn is_taught(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        is_done(status, headers) && self.changes.are_in(self.body.all().as_deref())
    }

    /// The request's body is worth reading.
    pub fn reads(&self) -> bool {
        self.changes != Changes::Any
    }
}

/// The application itself says now that it has done it: neither later, nor elsewhere, nor out of a cache.
fn is_done(status: StatusCode, headers: &HeaderMap) -> bool {
    let done = [StatusCode::OK, StatusCode::CREATED, StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT];
    done.contains(&status) && !headers.contains_key(AGE)
}

/// By either of what browsers say: one that is not ours is enough.
fn is_foreign(reading: &Reading<'_>, headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    reading.facts.origin == Origin::Foreign
        || sites.any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// The credential in its one place, if it is well-formed, and its text.
fn sole<'h>(site: &Site, headers: &'h HeaderMap, carrier: &Carrier) -> Option<(Cow<'h, [u8]>, Credential)> {
    let text = match carrier {
        Carrier::Bearer => sole_bearer(headers)?.into(),
        Carrier::Cookie(name) => sole_cookie(headers, name)?,
        _ => return None,
    };
    let format = site.tokens.format;
    let in_cookie = matches!(carrier, Carrier::Cookie(_));
    let one = examine(&text, format, site.token_lifetime, in_cookie).ok()?;
    let signed = one.claims.is_some() && !text.ends_with(b".");
    (format == TokenFormat::Opaque || signed).then_some((text, one))
}

fn sole_bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, token) = line.as_bytes().split_at_checked(b"bearer ".len())?;
    let plain = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    (scheme.eq_ignore_ascii_case(b"bearer ") && plain).then_some(token)
}

/// The one token of a request that says who asks.
fn asking<'r>(reading: &'r Reading<'_>) -> Option<&'r Credential> {
    let mut named =
        reading.facts.credentials.iter().filter(|one| {
            one.claims.as_ref().is_some_and(|claims| claims.expires.is_some() || !one.in_cookie)
        });
    named.next().filter(|_| named.next().is_none())
}

/// The first parameter of the path, as tokens spell it: numbers without zeros before them, UUIDs in lower case.
fn subject_in(path: &str, action: &Action) -> Option<String> {
    let segment = path.trim_start_matches('/').split('/').nth(action.pattern.place_of_param())?;
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    if text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        return None;
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let uuid = text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    Some(match text.trim_start_matches('0') {
        "" if digits => "0".to_owned(),
        number if digits => number.to_owned(),
        _ if uuid => text.to_ascii_lowercase(),
        _ => text.into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Method};

    use super::*;

    #[test]
    fn the_subject_of_a_path_is_spelled_as_tokens_spell_it() {
        let action = Action {
            method: Method::PATCH,
            pattern: "/api/v1/users/{id}".parse().unwrap(),
            when: Vec::new(),
        };
        let of = |segment: &str| subject_in(&format!("/api/v1/users/{segment}"), &action);
        for (segment, subject) in [
            ("7", "7"),
            ("007", "7"),
            ("0", "0"),
            ("00", "0"),
            ("0b5e", "0b5e"),
            ("0B5EC0DE-0000-4000-8000-00000000ABCD", "0b5ec0de-0000-4000-8000-00000000abcd"),
            ("a%40b.test", "a@b.test"),
        ] {
            assert_eq!(of(segment).as_deref(), Some(subject), "{segment}");
        }
        for segment in ["", "%ff", "a%00", &"x".repeat(LONGEST + 1)] {
            assert_eq!(of(segment), None, "{segment}");
        }
    }

    #[test]
    fn only_an_answer_of_the_application_itself_that_it_is_done_teaches() {
        let fresh = HeaderMap::new();
        for (status, done) in [
            (200, true),
            (201, true),
            (204, true),
            (205, true),
            (202, false),
            (203, false),
            (206, false),
            (302, false),
            (401, false),
        ] {
            assert_eq!(is_done(StatusCode::from_u16(status).unwrap(), &fresh), done, "{status}");
        }
        let mut cached = HeaderMap::new();
        cached.insert(AGE, HeaderValue::from_static("0"));
        assert!(!is_done(StatusCode::OK, &cached));
    }

    #[test]
    fn a_token_counts_only_if_it_stands_there_once_and_plainly() {
        let bearer = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| {
                headers.append(AUTHORIZATION, HeaderValue::from_static(line));
            });
            sole_bearer(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(bearer(&["Bearer a.b.c"]).as_deref(), Some(&b"a.b.c"[..]));
        assert_eq!(bearer(&["bEARER a.b.c"]).as_deref(), Some(&b"a.b.c"[..]));
        for lines in [
            &[][..],
            &["Bearer a", "Bearer a"],
            &["Bearer a b"],
            &["Bearer  a"],
            &["Bearer "],
            &["Token a"],
            &["a"],
        ] {
            assert_eq!(bearer(lines), None, "{lines:?}");
        }
    }
}
