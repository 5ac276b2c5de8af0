//! Judges what an answer hands out, before the client has any of it: the tokens in answers of `login`, `refresh` and `oidc`.
//!
//! 1. The answer is held back, at most [`ANSWER`] bytes. A token in its body, Location or cookies that a block means withholds
//!    all of it.
//! 2. What is refreshed is as old as what it was refreshed from: a new token of an old session is an old one.
//! 3. What cannot be read (too long, in an encoding that we do not know, a token that can be spelled in two ways) is withheld
//!    while a block of a person or of everyone stands for the site. Else it passes.
//! 4. What passes is remembered: whose the refresh cookie is, and when that session began ([`Sessions`]).
//!
//! Caveat: a token in a form that the app file does not name is not seen, nor is one in a later answer of another class.
//!
//! [`Sessions`]: crate::stores::sessions::Sessions

use std::cell::OnceCell;
use std::rc::Rc;

use http::Response;
use http::header::{self, HeaderMap, SET_COOKIE};

use super::account::{Field, Form, named_in_query};
use super::held::hold;
use super::lesson::{Aside, GRANT, Lesson};
use super::read::Reading;
use crate::clock::{Clock, Now};
use crate::config::class::Class;
use crate::guards::stripped::Stripped;
use crate::guards::{Denial, Reason, blocks};
use crate::policy::Site;
use crate::request::body::Body;
use crate::request::carriers::set_cookie;
use crate::request::credential::{Claims, Credential, Fingerprint};
use crate::request::facts::Facts;
use crate::request::tokens_in::{Named, Unreadable};
use crate::stores::cached::BlocksReader;
use crate::stores::kept::Kept;
use crate::stores::sessions::{Place, Session};

/// How OAuth says under [`GRANT`] that a long-lived credential is exchanged.
const REFRESH: &str = "refresh_token";

/// What an answer is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// The blocks.
    pub blocks: &'a BlocksReader,
    /// What is remembered.
    pub kept: &'a Kept,
    /// The time: an answer comes later than its request.
    pub clock: &'a Clock,
    /// What of the request's cookies was left out.
    pub stripped: Stripped,
}

/// A request whose answer hands out tokens.
#[derive(Debug)]
pub struct Handed<'a> {
    site: &'a Site,
    facts: Rc<Facts>,
    query: Option<&'a str>,
    form: Option<Form>,
    body: Rc<Aside>,
    /// No token comes as far as this that was not verified.
    verified: bool,
    refreshes: OnceCell<bool>,
    lesson: Option<Lesson>,
}

/// Why an answer is not given.
#[derive(Debug)]
pub enum Withheld {
    /// It hands out what is blocked, or could.
    Denied(Denial),
    /// The application broke it off while it was held.
    Broken,
}

impl<'a> Handed<'a> {
    /// Of a request; `None`: its class hands out no tokens. `body`: read beside its bytes. `lesson`: what it teaches besides.
    pub fn of(
        reading: &'a Reading<'a>,
        headers: &HeaderMap,
        body: Rc<Aside>,
        lesson: Option<Lesson>,
    ) -> Option<Self> {
        let facts = Rc::clone(&reading.facts);
        let hands = matches!(facts.class, Class::Login | Class::Refresh | Class::Oidc);
        let route = reading.found.route;
        let verified = route.guards.verify.is_some() && !route.observe.verify;
        hands.then(|| Self {
            site: reading.site,
            facts,
            query: reading.path.query(),
            form: Form::of(headers),
            body,
            verified,
            refreshes: OnceCell::new(),
            lesson,
        })
    }

    /// Holds the answer back until it is judged.
    ///
    /// # Errors
    /// [`Withheld`]: nothing of the answer may reach the client.
    pub async fn judge(&self, answer: Response<Body>, by: Means<'_>) -> Result<Response<Body>, Withheld> {
        let (mut head, body) = answer.into_parts();
        let held = hold(body).await.ok_or(Withheld::Broken)?;
        let now = by.clock.now();
        let read = held.read(&head.headers);
        let known = head.extensions.remove::<Named>();
        let named = match (known, read.as_deref()) {
            (Some(named), _) => Ok(Some(named)),
            (None, Some(read)) => self.site.handed_out().named_in(read),
            (None, None) => Err(Unreadable),
        };
        let found = named.as_ref().map_err(|_| Unreadable).and_then(|named| {
            self.tokens(&head.headers, read.as_deref().unwrap_or_default(), named.as_ref(), by.stripped)
        });
        match &found {
            // A page may be long, but what its head sets is looked at all the same.
            Err(Unreadable) if self.is_page(&head.headers) => {
                match self.site.handed_out().find(&head.headers, b"", None) {
                    Ok(found) => self.blocked(&found, by, now)?,
                    Err(Unreadable) => self.unreadable(by, now)?,
                }
            }
            Err(Unreadable) => self.unreadable(by, now)?,
            Ok(found) => self.blocked(found, by, now)?,
        }
        if head.status.is_success() || head.status.is_redirection() {
            self.remember(&head.headers, found.as_deref().unwrap_or_default(), by.kept, now);
        }
        if let (Some(lesson), Ok(Some(named))) = (&self.lesson, &named) {
            lesson.learn(&head, named);
        }
        drop(read);
        Ok(Response::from_parts(head, held.into_body()))
    }

    fn tokens(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        named: Option<&Named>,
        stripped: Stripped,
    ) -> Result<Vec<Credential>, Unreadable> {
        let mut found = self.site.handed_out().find(headers, body, named)?;
        if self.refreshes() {
            let brought = self.brought(stripped);
            for token in &mut found {
                age(token, &brought);
            }
        }
        Ok(found)
    }

    /// The page of a login form may be long; who only asks for it has not logged in.
    fn is_page(&self, headers: &HeaderMap) -> bool {
        let html = |value: &http::HeaderValue| value.as_bytes().starts_with(b"text/html");
        self.facts.class == Class::Login
            && self.facts.method.is_safe()
            && headers.get(header::CONTENT_TYPE).is_some_and(html)
    }

    /// A long-lived credential is exchanged: by its class, or as OAuth says it.
    fn refreshes(&self) -> bool {
        *self.refreshes.get_or_init(|| match self.facts.class {
            Class::Refresh => true,
            Class::Login => self.may_refresh(),
            _ => false,
        })
    }

    /// What cannot be read in one way may say so.
    fn may_refresh(&self) -> bool {
        let refreshes =
            |grant: &Field| grant.as_ref().map_or(true, |grant| grant.as_deref() == Some(REFRESH));
        if self.query.is_some_and(|query| refreshes(&named_in_query(query, GRANT))) {
            return true;
        }
        if self.body.is_empty() {
            return false;
        }
        let account = self.site.login.as_ref().and_then(|login| login.account.as_deref());
        let said = self.form.and_then(|form| self.body.said(form, account));
        said.is_none_or(|said| refreshes(&said.grant))
    }

    /// What is known to have been exchanged. A token that nobody has verified may make nothing younger: whoever has an old
    /// session could put a forged one beside it. So only these count: cookies that are remembered; tokens that the gateway
    /// verifies, unless a bad one among them was left out; and one that is alone in its request, where the app file knows of no
    /// refresh cookie.
    fn brought(&self, stripped: Stripped) -> Vec<&Claims> {
        let all = self.facts.credentials.iter();
        let alone = self.site.tokens.refresh_cookie.is_none()
            && self.facts.credentials.len() == 1
            && self.facts.body_length == Some(0);
        let counts = |one: &&Credential| match one.claims.as_ref().map(|claims| claims.remembered) {
            Some(true) => true,
            Some(false) => (self.verified || alone) && !stripped.any_bad(),
            None => false,
        };
        all.filter(counts).filter_map(|one| one.claims.as_ref()).collect()
    }

    fn unreadable(&self, by: Means<'_>, now: Now) -> Result<(), Withheld> {
        let facts = Facts { now, credentials: Vec::new(), ..(*self.facts).clone() };
        match by.blocks.current().stands_for_people(&facts) {
            true => Err(denied(Reason::AnswerUnreadable)),
            false => Ok(()),
        }
    }

    fn blocked(&self, found: &[Credential], by: Means<'_>, now: Now) -> Result<(), Withheld> {
        let facts = Facts { now, credentials: found.to_vec(), ..(*self.facts).clone() };
        let index = by.blocks.current();
        match (0..found.len()).any(|place| index.matching_credential(&facts, place).is_some()) {
            true => Err(denied(Reason::AnswerBlocked)),
            false => Ok(()),
        }
    }

    /// Whose the refresh cookie is that goes out with this answer.
    fn remember(&self, headers: &HeaderMap, found: &[Credential], kept: &Kept, now: Now) {
        let Some(name) = self.site.tokens.refresh_cookie.as_deref() else { return };
        let scope = self.site.scope();
        let old = self.exchanged(kept, scope);
        let token = found.iter().find_map(|one| Some((one, one.claims.as_ref()?.subject_text.as_deref()?)));
        let known = old.as_ref().map(|(_, old)| &*old.subject);
        let Some(subject) = token.map(|(_, subject)| subject).or(known) else { return };
        let session = Session {
            subject: subject.to_owned(),
            begun: self.begun(token.map(|(one, _)| one), old.as_ref().map(|(_, old)| old), subject),
            token: found.first().map(|one| one.fingerprint.key()),
            seen: now.wall,
            until: now.wall.saturating_add(self.site.learning.refresh_millis()),
        };
        for line in headers.get_all(SET_COOKIE) {
            let value = set_cookie(line.as_bytes(), name).filter(|value| !value.is_empty());
            let Some(value) = value else { continue };
            let place: Place = (scope, Fingerprint::of(&value).key().0);
            kept.sessions.learn(place, session.clone());
            if let Some((old, _)) = old.as_ref().filter(|(old, _)| *old != place) {
                kept.sessions.exchanged(old, now);
            }
        }
    }

    /// The session whose cookie the request has brought to be exchanged.
    fn exchanged(&self, kept: &Kept, scope: u64) -> Option<(Place, Session)> {
        let cookies = self.facts.credentials.iter().filter(|one| one.in_cookie && self.refreshes());
        let places = cookies.map(|one| (scope, one.fingerprint.key().0));
        places.into_iter().find_map(|place| Some((place, kept.sessions.find(&place)?)))
    }

    /// Not later than the request: what the application has begun before a block must not count as begun after it.
    fn begun(&self, token: Option<&Credential>, old: Option<&Session>, subject: &str) -> u64 {
        if let Some(old) = old.filter(|old| old.subject == subject) {
            return old.begun;
        }
        // Of a refresh the age is that of what it came from, which may not be known.
        let unknown = if self.refreshes() { 0 } else { self.facts.now.unix() };
        let issued = token.and_then(|one| one.claims.as_ref()?.issued);
        issued.map_or(unknown, |issued| issued.min(self.facts.now.unix()))
    }
}

/// A token that was refreshed is as old as the oldest of what it can come from; unknown is older than all.
fn age(token: &mut Credential, brought: &[&Claims]) {
    let Some(claims) = &mut token.claims else { return };
    let subject = claims.subject;
    let of_same = brought.iter().filter(|one| one.subject == subject);
    claims.issued = of_same.filter_map(|one| one.issued).min();
}

fn denied(reason: Reason) -> Withheld {
    Withheld::Denied(Denial::new(blocks::NAME, reason))
}
