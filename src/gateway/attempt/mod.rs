//! Tries at secrets on their way: what the guard of a try is to know is read, the permit is taken out of the decision by what
//! the guard says, and what the answer meant settles the try. A try whose client leaves, or that gets no answer, is never
//! settled and counts as failed.

pub mod basic;
mod body;
pub mod device;
mod outcome;
mod typed;
mod who;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use self::basic::Basic;
use self::body::Holding;
use self::device::{Devices, Known};
pub use self::outcome::Broken;
use self::typed::Typed;
use self::who::Who;
use super::account::Unclear;
use super::answer::{self, Asked};
use super::exchange::Exchange;
use super::read::Reading;
use super::upload::{self, Upload};
use super::{Decision, ForwardError, Gateway, Link, Permit, Withheld, respond, share};
use crate::clock::Now;
use crate::config::class::Class;
use crate::guards::counters::{Charged, Outcome};
use crate::guards::login::{self, Seats};
use crate::guards::tries::{Kind, Passed, Tries};
use crate::guards::{Denial, Reason, Verdict};
use crate::policy::Site;
use crate::request::body::Body;
use crate::request::facts::Facts;
use crate::request::path::PathViews;
use crate::request::tokens_in::Named;
use crate::stores::blocks::Index;
use crate::stores::held::Held;
use crate::stores::turns::Turn;

/// Bytes of a login's body that are held where its class has no limit of its own that enforces.
const HELD: u64 = 16 << 10;

/// What a try is read by.
#[derive(Clone, Copy)]
pub struct Means<'a> {
    /// The request, read.
    pub reading: &'a Reading<'a>,
    /// Its head.
    pub headers: &'a HeaderMap,
    /// Its body's way.
    pub upload: &'a Upload,
}

/// A try that has passed its guard and waits for its answer.
pub struct Attempt {
    kind: Kind,
    tries: Tries,
    charged: Charged,
    turn: Option<Turn>,
    who: Who,
    /// The Basic credentials of a try at something else than a login.
    basic: Option<Presented>,
    _held: Option<Held>,
}

/// Basic credentials that have passed.
pub(super) struct Presented {
    who: Who,
    _seats: Seats,
}

/// Why there is nothing to forward.
pub enum Refused {
    /// By the guard; with what of the body is to be read away.
    Denied(Denial, Option<Incoming>),
    /// The body broke off, or broke the rules.
    Body,
}

/// What goes on.
pub type Admitted = (Permit, Body, Option<Attempt>);

impl Refused {
    /// The answer.
    pub async fn answer(
        self,
        means: Means<'_>,
        link: &dyn Link,
        exchange: &mut Exchange,
        asked: &Asked,
    ) -> Response<Body> {
        match self {
            Self::Denied(denial, unread) => {
                exchange.denied(&denial);
                if let Some(unread) = unread {
                    upload::drain(unread, asked.first || asked.is_rpc()).await;
                }
                share::blocked(&denial, means.reading, exchange).await;
                respond::denied(&denial, Some(means.reading.site), asked.shape)
            }
            Self::Body => answer::failed(&ForwardError::BrokenRequest, means.upload, link, exchange, asked),
        }
    }
}

impl<U> Gateway<U> {
    /// Takes the permit out of the decision; of a try, by what its guard says.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) async fn attempt(
        &self,
        decision: Decision,
        incoming: Incoming,
        means: Means<'_>,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Refused> {
        let withheld = match decision {
            Decision::Permit(permit) => return Ok((permit, means.upload.body(incoming), None)),
            Decision::Withheld(withheld) => withheld,
        };
        let tries = guard_of(means.reading);
        if withheld.kind() == Kind::Login {
            return self.log_in(withheld, means, incoming, exchange).await;
        }
        let (facts, kind) = (&means.reading.facts, withheld.kind());
        let tried = || match kind {
            Kind::Refresh => tries.refresh(facts),
            Kind::Enroll => tries.enroll(facts),
            Kind::Setup => tries.set_up(facts.now),
            Kind::Basic | Kind::Login => Ok(Passed::uncounted()),
        };
        let (said, basic) = match self.basic(&tries, means) {
            Ok(basic) => (tried(), basic),
            Err(denial) => (Err(denial), None),
        };
        match settle(withheld, said, exchange) {
            Ok((permit, passed)) => {
                let attempt = Attempt { basic, ..Attempt::new(kind, tries, passed, Who::default(), None) };
                Ok((permit, means.upload.body(incoming), Some(attempt)))
            }
            Err(denial) => Err(Refused::Denied(denial, Some(incoming))),
        }
    }

    async fn log_in(
        &self,
        withheld: Withheld,
        means: Means<'_>,
        incoming: Incoming,
        exchange: &mut Exchange,
    ) -> Result<Admitted, Refused> {
        let (facts, route) = (&means.reading.facts, means.reading.found.route);
        let most = if route.observe.size { HELD } else { route.guards.size.limit() };
        let tries = guard_of(means.reading);
        let room = &tries.counters().logins.room;
        let held = body::hold(means.upload.body(incoming), most, room, facts.client).await;
        let mut holding = held.map_err(|_| Refused::Body)?;
        let (said, who) = match holding.unread {
            Some(reason) => {
                let retry_after = (reason == Reason::LoginsFull).then_some(super::judge::SOON);
                (Err(Denial { guard: login::NAME, reason, retry_after }), Who::default())
            }
            None => self.judge_login(&tries, &holding, means),
        };
        match settle(withheld, said, exchange) {
            Ok((permit, passed)) => {
                let held = holding.room();
                let attempt = Attempt::new(Kind::Login, tries, passed, who, held);
                Ok((permit, holding.into_body(), Some(attempt)))
            }
            Err(denial) => Err(Refused::Denied(denial, None)),
        }
    }

    fn judge_login(
        &self,
        tries: &Tries,
        holding: &Holding,
        means: Means<'_>,
    ) -> (Result<Passed, Denial>, Who) {
        let facts = &means.reading.facts;
        let (typed, basic) = match Typed::read(&holding.bytes, means, tries.login().has_defaults()) {
            Ok(typed) => (typed, basic::read(means.headers)),
            Err(Unclear) => return (Err(Denial::new(login::NAME, Reason::LoginUnreadable)), Who::default()),
        };
        if basic.is_none() && facts.basic {
            return (Err(Denial::new(login::NAME, Reason::LoginUnreadable)), Who::default());
        }
        // Not earlier: a block that came while the body was read counts.
        let index = self.blocks.current();
        let (typed, beside) = match basic {
            Some(basic) => typed.and(basic),
            None => (typed, None),
        };
        let beside = match beside.map(|basic| presented(basic, tries, &index, facts)).transpose() {
            Ok(beside) => beside,
            Err(denial) => return (Err(denial), Who::default()),
        };
        let devices = Devices::of(&self.kept.seal, &means.reading.site.name, means.headers);
        let account = typed.account.as_deref().filter(|_| means.reading.site.devices);
        let device = account.and_then(|name| devices.find(name, &index, facts)).map(|known| known.id);
        let mut who = Who::of(typed.account, device, tries, facts);
        who.others = devices.into_known();
        if means.reading.site.login.is_none() {
            who.from = outcome::came_from(means.headers, &means.reading.authority);
        }
        who.beside = beside.map(Box::new);
        (tries.log_in(who.attempt(facts), &typed.passwords, &index, facts), who)
    }

    /// Basic credentials of a request that is no login, if it carries some.
    fn basic(&self, tries: &Tries, means: Means<'_>) -> Result<Option<Presented>, Denial> {
        let facts = &means.reading.facts;
        if !facts.basic {
            return Ok(None);
        }
        let unreadable = || Denial::new(login::NAME, Reason::LoginUnreadable);
        let basic = basic::read(means.headers).ok_or_else(unreadable)?;
        presented(basic, tries, &self.blocks.current(), facts).map(Some)
    }

    /// The application has answered: settles the try by what that meant.
    ///
    /// # Errors
    /// [`Broken`]: the answer broke off, and the try stays charged.
    pub(super) async fn settle(
        &self,
        attempt: Attempt,
        answer: Response<Body>,
        reading: &Reading<'_>,
    ) -> Result<Response<Body>, Broken> {
        if attempt.kind != Kind::Login {
            attempt.end(answer.status(), self.clock.now(), &reading.facts);
            return Ok(answer);
        }
        let site = reading.site;
        let asked = outcome::Asked {
            token: site.login.as_ref().map(|login| &*login.token),
            carriers: &site.tokens.carriers,
            is_login: &|path| is_login(site, path),
            authority: &reading.authority,
            path: reading.path.normal(),
            from: attempt.who.from.as_deref(),
            brings: reading.facts.credentials.iter().any(|one| one.in_cookie),
        };
        let (mut answer, meant) = outcome::of_login(answer, asked).await?;
        let now = self.clock.now();
        // What cannot be read in one way is left to the judge of the answer, and nobody's device.
        let named = meant.token.as_deref().and_then(|text| site.handed_out().named(text).ok()?);
        if let Some(account) = attempt.who.account.as_deref().filter(|_| meant.token.is_some()) {
            attempt.tries.login().remember_address(reading.facts.client, account, now);
            let cookie = self.device_cookie(&attempt.who, account, named.as_ref(), reading);
            cookie.into_iter().for_each(|cookie| {
                answer.headers_mut().append(header::SET_COOKIE, cookie);
            });
        }
        named.into_iter().for_each(|named| {
            answer.extensions_mut().insert(named);
        });
        if let Some(beside) = &attempt.who.beside {
            beside.after_login(answer.status(), meant.outcome, now, (&attempt.tries, &reading.facts));
        }
        attempt.tries.login().settle(attempt.charged, meant.outcome, now);
        Ok(answer)
    }

    /// There is no answer. What never reached the application was no try.
    pub(super) fn unanswered(&self, attempt: Attempt, error: &ForwardError) {
        if error.is_unreached() {
            attempt.tries.counters().settle(attempt.charged, Outcome::Neutral, self.clock.now());
            attempt.turn.into_iter().for_each(Turn::answered);
        }
    }

    /// Keeps the number of a device that is known already, and so its budget.
    fn device_cookie(
        &self,
        who: &Who,
        account: &str,
        named: Option<&Named>,
        reading: &Reading<'_>,
    ) -> Option<HeaderValue> {
        let site = reading.site;
        if !site.devices || !reading.secure {
            return None;
        }
        let now = self.clock.now();
        let claims = named?.token.claims.as_ref();
        let known = Known {
            issued: now.unix(),
            id: who.device.unwrap_or_else(device::new_id),
            subject: claims.and_then(|claims| claims.subject),
            issuer: claims.and_then(|claims| claims.issuer),
            account: account.to_owned(),
        };
        device::renewed(&self.kept.seal, &site.name, &known, &who.others)
    }
}

impl Attempt {
    fn new(kind: Kind, tries: Tries, passed: Passed, who: Who, held: Option<Held>) -> Self {
        let (charged, turn) = passed.into_parts();
        Self { kind, tries, charged, turn, who, basic: None, _held: held }
    }

    /// Settles a try at something else than a login.
    fn end(self, status: StatusCode, now: Now, facts: &Facts) {
        if let Some(basic) = &self.basic {
            basic.answered(status, now, &self.tries, facts);
        }
        self.tries.counters().settle(self.charged, outcome::of_status(self.kind, status), now);
        self.turn.into_iter().for_each(Turn::answered);
    }
}

impl Presented {
    /// Beside a login that names somebody else: a program that the application knows by them logs people in.
    fn after_login(&self, status: StatusCode, outcome: Outcome, now: Now, (tries, facts): (&Tries, &Facts)) {
        if outcome == Outcome::Success {
            self.answered(StatusCode::OK, now, tries, facts);
        } else if status == StatusCode::UNAUTHORIZED {
            self.answered(status, now, tries, facts);
        }
    }

    fn answered(&self, status: StatusCode, now: Now, tries: &Tries, facts: &Facts) {
        match &self.who.account {
            _ if status == StatusCode::UNAUTHORIZED => tries.login().failed(self.who.attempt(facts)),
            // Once in a while, not with each request.
            Some(account) if status.is_success() && !self.who.heard && !self.who.address => {
                tries.login().hear_address(facts.client, account, now);
            }
            _ => {}
        }
    }
}

/// Whether a path is one of class login, for whoever is sent there or asks for it himself.
fn is_login(site: &Site, path: &str) -> bool {
    let views = path.parse().ok().and_then(|target| PathViews::read(&target).ok());
    let is_login = |method| {
        let found = views.as_ref().and_then(|views| site.route(method, views));
        found.is_some_and(|found| found.route.class == Class::Login)
    };
    is_login(&Method::GET) || is_login(&Method::POST)
}

/// Lets Basic credentials pass that the guard lets pass.
fn presented(basic: Basic, tries: &Tries, index: &Index, facts: &Facts) -> Result<Presented, Denial> {
    let who = Who::of(basic.account, None, tries, facts).heard(tries, facts);
    let seats = tries.basic(who.attempt(facts), Some(&basic.password), index, facts)?;
    Ok(Presented { who, _seats: seats })
}

fn guard_of(reading: &Reading<'_>) -> Tries {
    let Some(tries) = &reading.found.route.guards.tries else { unreachable!("what is withheld has a guard") };
    tries.clone()
}

fn settle(
    withheld: Withheld,
    said: Result<Passed, Denial>,
    exchange: &mut Exchange,
) -> Result<(Permit, Passed), Denial> {
    withheld.settle(said, &mut |guard, verdict: &Verdict| exchange.heard(guard, verdict))
}
