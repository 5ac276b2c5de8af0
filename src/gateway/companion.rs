//! The companion cookie: applications whose tokens travel in a header only cannot show pictures of their own to those who
//! are logged in, nor give them links to download. So a login that was seen to succeed gives the browser a sealed cookie
//! that stands for its token, where the browser asks by itself: GET and HEAD of classes `download` and `preview`.
//!
//! It holds the token's text and ends with it. Whatever blocks, expires or refuses the token does the same to it, since
//! the token inside is what is judged. An `Authorization` of the request's own is stronger. The application never sees the
//! cookie; only to a download the token is added.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::account::Form;
use super::exchange::Exchange;
use super::held::hold;
use super::read::{Reading, Surroundings};
use crate::clock::Now;
use crate::config::class::Class;
use crate::guards::members;
use crate::policy::Site;
use crate::request::body::Body;
use crate::request::carriers::{is_called, leave_out, pairs};
use crate::request::credential::{Credential, Presented, TokenText, examine};
use crate::request::facts::{Companion, Origin};
use crate::request::tokens_in::token_of;
use crate::stores::kept::Kept;
use crate::stores::seal::{LONGEST, Purpose, Seal};

const NAME: &str = "__Host-portcullis-companion";
/// Browsers take no cookie whose name, value and attributes are longer than this, or than a little more.
const LONGEST_COOKIE: usize = LONGEST;
/// Of the attributes, with the longest time.
const ATTRIBUTES: usize = 80;
/// Seconds of a token that does not say when it ends are the site's; no cookie is kept longer than its key.
const LONGEST_LIFE: u64 = 89 * 24 * 3600;

/// The cookie as it came, taken out of the request; among the extensions of its head.
#[derive(Debug, Clone)]
pub struct Brought(Box<str>);

/// What a request's companion cookie is good for.
#[derive(Debug)]
pub struct Found {
    /// For the guards.
    pub companion: Companion,
    /// Its token.
    pub token: Option<TokenText>,
}

// === the way in ===

/// Takes the cookie out of a request, wherever it goes: it is between the browser and us. In other spellings, which some
/// framework takes for it, it is nobody's.
pub fn take_out(head: &mut Parts) {
    let brought = sole(&head.headers).map(|text| Brought(text.into()));
    leave_out(&mut head.headers, |sent| is_called(sent, NAME));
    if let Some(brought) = brought {
        head.extensions.insert(brought);
    }
}

/// As a browser spells it; of two that differ none is believed.
fn sole(headers: &HeaderMap) -> Option<&str> {
    let own = pairs(headers).filter(|(name, _)| *name == NAME.as_bytes());
    let mut values = own.map(|(_, value)| value);
    let first = values.next()?;
    values.all(|other| other == first).then(|| std::str::from_utf8(first).ok()).flatten()
}

/// What came with the request, or with its ticket, and counts for this class.
pub fn find(around: &Surroundings<'_>, head: &Parts, site: &Site, class: Class, origin: Origin) -> Found {
    let none = Found { companion: Companion::Absent, token: None };
    let asks = head.method == Method::GET || head.method == Method::HEAD;
    let counts = site.companion && members::counts(class) && asks;
    if !counts || head.headers.contains_key(header::AUTHORIZATION) {
        return none;
    }
    if let Some(entered) = head.extensions.get::<super::download::Entered>() {
        let token = entered.companion.as_ref().map(|token| TokenText::new(token.bytes()));
        return token.map_or(none, |token| Found { companion: Companion::Own, token: Some(token) });
    }
    let Some(Brought(text)) = head.extensions.get() else { return none };
    match open(around.seal, &site.name, text, around.now) {
        None => none,
        // Not even its token counts then: nobody is served because of it.
        Some(_) if origin == Origin::Foreign => Found { companion: Companion::Foreign, token: None },
        token => Found { companion: Companion::Own, token },
    }
}

impl Found {
    /// Puts the token among those that are judged.
    pub fn judge(
        self,
        site: &Site,
        credentials: &mut Vec<Credential>,
        presented: Option<&mut Vec<Presented>>,
    ) -> Self {
        let Some(token) = &self.token else { return self };
        let Ok(credential) = examine(token.bytes(), site.tokens.format, site.token_lifetime, false) else {
            return Self { companion: Companion::Absent, token: None };
        };
        if let Some(presented) = presented {
            let expires = credential.claims.as_ref().and_then(|claims| claims.expires);
            presented.push(Presented { text: TokenText::new(token.bytes()), cookie: None, expires });
        }
        credentials.push(credential);
        self
    }
}

/// The `Authorization` that goes to the application.
pub fn bearer(reading: &Reading<'_>) -> Option<HeaderValue> {
    let token = reading.companion.as_ref().filter(|_| reading.facts.class == Class::Download)?;
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.bytes()].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

// === the cookie ===

fn open(seal: &Seal, site: &str, text: &str, now: Now) -> Option<TokenText> {
    let plain = zeroize::Zeroizing::new(seal.open(Purpose::Companion, site.as_bytes(), text)?);
    let (ends, token) = plain.split_first_chunk()?;
    (now.unix() < u64::from_be_bytes(*ends)).then(|| TokenText::new(token))
}

/// The cookie for a token; `None`: it is no cookie that a browser would take.
fn cookie_of(seal: &Seal, site: &Site, token: &str, now: Now) -> Option<HeaderValue> {
    let claims = examine(token.as_bytes(), site.tokens.format, site.token_lifetime, false).ok()?.claims;
    let length = NAME.len() + Seal::sealed_len(token.len() + 8) + ATTRIBUTES;
    let plain_text = token.bytes().all(|byte| byte.is_ascii_graphic());
    if length > LONGEST_COOKIE || !plain_text || token.is_empty() {
        return None;
    }
    let ends = claims.and_then(|claims| claims.expires);
    let life = ends.map_or(site.token_lifetime.as_secs(), |ends| ends.saturating_sub(now.unix()));
    let life = life.min(LONGEST_LIFE);
    let plain = [&now.unix().saturating_add(life).to_be_bytes()[..], token.as_bytes()].concat();
    let sealed = seal.seal(Purpose::Companion, site.name.as_bytes(), &plain)?;
    let cookie = format!("{NAME}={sealed}; Path=/; Max-Age={life}; Secure; HttpOnly; SameSite=Strict");
    HeaderValue::from_str(&cookie).ok()
}

const NO_COOKIE: HeaderValue = HeaderValue::from_static(
    "__Host-portcullis-companion=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict",
);

/// Gives the cookie with an answer that hands out a token, in its body or where it redirects to, and takes it with a log-out;
/// all other answers stay as they are. To be asked when the answer is the one that is handed out.
pub async fn attach(
    answer: Response<Body>,
    reading: &Reading<'_>,
    kept: &Kept,
    exchange: &mut Exchange,
) -> Response<Body> {
    if !reading.site.companion || reading.entered.is_some() {
        return answer;
    }
    let (class, status) = (reading.facts.class, answer.status());
    match class {
        Class::Login | Class::Refresh | Class::Oidc if hands_out(&answer) => {
            Box::pin(give(answer, reading, kept, exchange)).await
        }
        Class::Oidc | Class::Login if status.is_redirection() => {
            if class == Class::Login && reading.facts.method.is_safe() {
                return answer;
            }
            match reading.site.handed_out().sole_in_location(answer.headers()) {
                Some(token) => stand_for(&token, answer, reading, kept, exchange),
                // Somebody else may have logged in: never the cookie of an earlier login beside it.
                None => with(answer, NO_COOKIE),
            }
        }
        Class::Oidc if status.is_success() => with(answer, NO_COOKIE),
        Class::Logout if status.is_success() || status.is_redirection() => with(answer, NO_COOKIE),
        _ => answer,
    }
}

/// It may: a status and a type that are a login's answer's.
fn hands_out(answer: &Response<Body>) -> bool {
    matches!(answer.status(), StatusCode::OK | StatusCode::CREATED)
        && Form::of(answer.headers()) == Some(Form::Json)
}

async fn give(
    answer: Response<Body>,
    reading: &Reading<'_>,
    kept: &Kept,
    exchange: &mut Exchange,
) -> Response<Body> {
    let Some(path) = reading.site.login.as_ref().map(|login| &*login.token) else { return answer };
    let (head, body) = answer.into_parts();
    let Some(held) = hold(body).await else {
        exchange.because("the answer of a login broke off: withheld");
        return broken();
    };
    let read = held.read(&head.headers).map(|text| token_of(&text, path));
    let answer = Response::from_parts(head, held.into_body());
    match read {
        // Never the one of an earlier login beside a token that nobody has seen.
        None => with(answer, NO_COOKIE),
        Some(None) if reading.facts.class == Class::Oidc => with(answer, NO_COOKIE),
        Some(None) => answer,
        Some(Some(token)) => stand_for(&token, answer, reading, kept, exchange),
    }
}

/// The token's cookie; of one that no cookie can hold that is said, and the one of an earlier login taken.
fn stand_for(
    token: &str,
    answer: Response<Body>,
    reading: &Reading<'_>,
    kept: &Kept,
    exchange: &mut Exchange,
) -> Response<Body> {
    let cookie = cookie_of(&kept.seal, reading.site, token, reading.facts.now);
    if cookie.is_none() {
        exchange.companion_not_set();
        kept.accounts.saw_long_token(&reading.site.name);
    }
    with(answer, cookie.unwrap_or(NO_COOKIE))
}

fn broken() -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}

fn with(mut answer: Response<Body>, cookie: HeaderValue) -> Response<Body> {
    answer.headers_mut().append(header::SET_COOKIE, cookie);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::seal::KEY_LEN;

    #[test]
    fn it_ends_with_its_token_and_opens_on_its_site_and_for_its_purpose_only() {
        let seal = Seal::new(&[[1; KEY_LEN]]);
        let at = |seconds: u64| Now { mono: 0, wall: (1_790_000_000 + seconds) * 1000 };
        let plain = [&1_790_000_100_u64.to_be_bytes()[..], b"a.token"].concat();
        let sealed = |purpose, plain: &[u8]| seal.seal(purpose, b"a.test", plain).unwrap();
        let good = sealed(Purpose::Companion, &plain);
        let opened = |text: &str, site, seconds| {
            open(&seal, site, text, at(seconds)).map(|token| token.bytes().to_vec())
        };
        assert_eq!(opened(&good, "a.test", 99).as_deref(), Some(&b"a.token"[..]));
        assert_eq!((opened(&good, "a.test", 100), opened(&good, "b.test", 0)), (None, None));
        assert_eq!(opened(&sealed(Purpose::Device, &plain), "a.test", 0), None);
        assert_eq!(opened(&sealed(Purpose::Companion, b"short"), "a.test", 0), None);
    }
}
