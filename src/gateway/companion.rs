//! The companion cookie: applications whose tokens travel in a header only cannot show pictures of their own to those who
//! are logged in, nor give them links to download. So a login that was seen to succeed gives the browser a sealed cookie
//! that stands for its token, where the browser asks by itself: GET and HEAD of classes `download` and `preview`.
//!
//! It holds the token's text and ends with it. Whatever blocks, expires or refuses the token does the same to it, since
//! the token inside is what is judged. An `Authorization` of the request's own is stronger. The application never sees the
//! cookie; only to a download the token is added.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};

use super::account::Form;
use super::exchange::Exchange;
use super::lesson::ANSWER;
use super::read::{Reading, Surroundings};
use crate::clock::Now;
use crate::config::class::Class;
use crate::guards::members;
use crate::policy::Site;
use crate::request::body::Body;
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

/// Takes the cookie out of a request, wherever it goes: it is between the browser and us.
pub fn take_out(head: &mut Parts) {
    let named =
        |line: &HeaderValue| line.as_bytes().split(|byte| *byte == b';').any(|pair| value(pair).is_some());
    if !head.headers.get_all(header::COOKIE).iter().any(named) {
        return;
    }
    let lines: Vec<HeaderValue> = head.headers.get_all(header::COOKIE).iter().cloned().collect();
    head.headers.remove(header::COOKIE);
    let mut found: Vec<&[u8]> = Vec::new();
    for line in &lines {
        let pairs = || line.as_bytes().split(|byte| *byte == b';');
        found.extend(pairs().filter_map(value));
        let kept: Vec<&[u8]> = pairs().filter(|pair| value(pair).is_none()).collect();
        let kept = kept.join(&b';');
        if let (false, Ok(kept)) = (kept.trim_ascii().is_empty(), HeaderValue::from_bytes(kept.trim_ascii()))
        {
            head.headers.append(header::COOKIE, kept);
        }
    }
    // Of two that differ none is believed.
    let (first, same) = (found.first(), found.windows(2).all(|two| two.first() == two.last()));
    if let Some(text) = first.filter(|_| same).and_then(|text| std::str::from_utf8(text).ok()) {
        head.extensions.insert(Brought(text.into()));
    }
}

fn value(pair: &[u8]) -> Option<&[u8]> {
    pair.trim_ascii().strip_prefix(NAME.as_bytes())?.strip_prefix(b"=")
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
    match open(around.seal, site, text, around.now) {
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

fn open(seal: &Seal, site: &Site, text: &str, now: Now) -> Option<TokenText> {
    let plain = zeroize::Zeroizing::new(seal.open(Purpose::Companion, site.name.as_bytes(), text)?);
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

/// Gives the cookie with an answer that hands out a token, and takes it with a log-out; all other answers stay as they
/// are. To be asked when the answer is the one that is handed out.
pub async fn attach(
    answer: Response<Body>,
    reading: &Reading<'_>,
    kept: &Kept,
    exchange: &mut Exchange,
) -> Response<Body> {
    if !reading.site.companion || reading.entered.is_some() {
        return answer;
    }
    match reading.facts.class {
        Class::Login | Class::Refresh if hands_out(&answer) => give(answer, reading, kept, exchange).await,
        // Somebody else may have logged in: never the cookie of an earlier login beside it.
        Class::Oidc if answer.status().is_success() || answer.status().is_redirection() => {
            with(answer, NO_COOKIE)
        }
        Class::Login if answer.status().is_redirection() && !reading.facts.method.is_safe() => {
            with(answer, NO_COOKIE)
        }
        Class::Logout if answer.status().is_success() || answer.status().is_redirection() => {
            with(answer, NO_COOKIE)
        }
        _ => answer,
    }
}

/// It may: a status and a type that are a login's answer's.
fn hands_out(answer: &Response<Body>) -> bool {
    matches!(answer.status(), StatusCode::OK | StatusCode::CREATED)
        && Form::of(answer.headers()) == Some(Form::Json)
        && !answer.headers().contains_key(header::CONTENT_ENCODING)
}

async fn give(
    answer: Response<Body>,
    reading: &Reading<'_>,
    kept: &Kept,
    exchange: &mut Exchange,
) -> Response<Body> {
    let Some(path) = reading.site.login.as_ref().map(|login| &*login.token) else { return answer };
    let (head, body) = answer.into_parts();
    if body.size_hint().lower() > ANSWER as u64 {
        return with(Response::from_parts(head, body), NO_COOKIE);
    }
    let Ok(body) = Limited::new(body, ANSWER).collect().await else {
        exchange.because("the answer of a login broke off, or is longer than 64 KiB: withheld");
        return respond_broken();
    };
    let bytes = body.to_bytes();
    let token = token_of(&bytes, path);
    let answer = Response::from_parts(head, Body::Full(bytes));
    let Some(token) = token else { return answer };
    let cookie = cookie_of(&kept.seal, reading.site, &token, reading.facts.now);
    if cookie.is_none() {
        exchange.companion_not_set();
        kept.accounts.saw_long_token(&reading.site.name);
    }
    // Never the one of an earlier login beside a new token.
    with(answer, cookie.unwrap_or(NO_COOKIE))
}

fn respond_broken() -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}

fn with(mut answer: Response<Body>, cookie: HeaderValue) -> Response<Body> {
    answer.headers_mut().append(header::SET_COOKIE, cookie);
    answer
}
