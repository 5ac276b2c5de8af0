//! One request from its head to the last byte of its answer: counted and logged exactly once, however it ends.

mod tail;

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Response, Version};

use self::tail::AnswerTail;
use super::causes::{self, Told};
use super::read::Reading;
use super::recent::{self, Recents};
use super::rpc;
use super::share::Held;
use super::view::View;
use crate::clock::{Clock, Now};
use crate::config::class::Class;
use crate::guards::size::Size;
use crate::guards::{self, Denial, Guard, Reason, verify};
use crate::policy::Policy;
use crate::request::body::{Body, Tail};
use crate::request::client::Client;
use crate::request::facts::{Facts, Malformed};
use crate::stores::places::Place;
use crate::stores::streams::{Kill, Registration};
use crate::stores::taught::Outcome;
use crate::telemetry::access_log::Lane;
use crate::telemetry::line::{Entry, Masks, Verdict};

/// What is known of a request so far; logs it when dropped.
pub struct Exchange {
    lane: Rc<Lane>,
    recent: Rc<Recents>,
    clock: Clock,
    view: Rc<View>,
    /// When the head had come.
    pub start: Now,
    /// When it was handed to the upstream.
    pub handed: Now,
    /// The request's id.
    pub id: Rc<str>,
    kill: Rc<Kill>,
    /// `None`: its head was never read.
    method: Option<Method>,
    target: Option<PathAndQuery>,
    version: Version,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    location: Option<HeaderValue>,
    /// Who asked.
    pub client: Client,
    /// Where its client's requests in flight are counted: its place among them.
    pub place: Option<Place>,
    /// What a download of a share link holds until it has ended.
    pub held: Option<Held>,
    /// The site's place in the policy.
    pub site: Option<usize>,
    /// The route's class.
    pub class: Option<Class>,
    /// The token's name in logs.
    pub token: Option<Box<str>>,
    /// What the client's certificate calls it.
    pub certificate: Option<Rc<str>>,
    facts: Option<Rc<Facts>>,
    route: Option<Rc<str>>,
    /// Its tokens were verified.
    verified: bool,
    verdict: Verdict,
    told: Option<Told>,
    status: u16,
    /// Bytes of the request's body.
    pub received: Rc<std::cell::Cell<u64>>,
    /// The size guard would refuse more than this of a body that announced no length.
    measure: Option<u64>,
    sent: u64,
    upstream: Option<Duration>,
    cause: Option<Cow<'static, str>>,
    ended: bool,
    /// A call by gRPC: its answer ends with a status.
    pub rpc: bool,
    /// Trailers of the answer pass.
    pub trailers: bool,
}

/// What an exchange begins with.
pub struct Beginning<'a> {
    /// The worker's log.
    pub lane: Rc<Lane>,
    /// The worker's memory.
    pub recent: Rc<Recents>,
    /// The worker's clock.
    pub clock: Clock,
    /// The policy and this worker's counters.
    pub view: Rc<View>,
    /// When the head had come.
    pub start: Now,
    /// The request's id.
    pub id: Rc<str>,
    /// Ends the request; knows why it did.
    pub kill: Rc<Kill>,
    /// The head.
    pub head: &'a http::request::Parts,
}

impl Exchange {
    /// Begins.
    pub fn begin(from: Beginning<'_>) -> Self {
        let on = from.lane.is_on();
        let field = |name| if on { from.head.headers.get(name).cloned() } else { None };
        Self {
            lane: from.lane,
            recent: from.recent,
            clock: from.clock,
            view: from.view,
            start: from.start,
            handed: from.start,
            id: from.id,
            kill: from.kill,
            method: Some(from.head.method.clone()),
            target: from.head.uri.path_and_query().cloned(),
            version: from.head.version,
            referer: field(header::REFERER),
            agent: field(header::USER_AGENT),
            location: None,
            client: Client::Unknown,
            place: None,
            held: None,
            site: None,
            class: None,
            token: None,
            certificate: None,
            facts: None,
            route: None,
            verified: false,
            verdict: Verdict::Permitted,
            told: None,
            status: 0,
            received: Rc::default(),
            measure: None,
            sent: 0,
            upstream: None,
            cause: None,
            ended: false,
            rpc: false,
            trailers: false,
        }
    }

    /// Its head was refused before it came here: what stands in its place is nobody's. All that is known is who sent it.
    pub fn unread(&mut self, client: Client) {
        self.client = client;
        self.target = None;
        self.method = None;
    }

    /// It has been read.
    pub fn of(&mut self, reading: &Reading<'_>, token: Option<Box<str>>) {
        self.site = Some(reading.place);
        self.class = Some(reading.facts.class);
        self.token = token;
        self.facts = Some(Rc::clone(&reading.facts));
        self.route = self.view.site(self.site).pattern(reading.found.place);
    }

    /// What ends it at any time.
    pub fn kill(&self) -> Rc<Kill> {
        Rc::clone(&self.kill)
    }

    /// What it is seen by.
    pub fn view(&self) -> Rc<View> {
        Rc::clone(&self.view)
    }

    /// The policy that it goes through.
    pub fn policy(&self) -> &Policy {
        self.view.snapshot.policy()
    }

    /// It came over HTTP/2.
    pub fn is_h2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// A WebSocket over HTTP/2.
    pub fn is_connect(&self) -> bool {
        self.method == Some(Method::CONNECT)
    }

    /// A guard refused it.
    pub fn denied(&mut self, denial: &Denial) {
        let (guard, reason) = (denial.guard, denial.reason.word());
        self.verdict = Verdict::Denied { guard, reason };
        self.told = Some(causes::denied(denial.reason));
        self.view.site(self.site).metrics.denial(self.class, guard, reason);
    }

    /// A guard has judged it.
    pub fn heard(&mut self, guard: &'static str, verdict: &guards::Verdict) {
        match verdict {
            guards::Verdict::WouldDeny(denial) => self.observed(denial),
            guards::Verdict::Pass => self.verified |= guard == verify::NAME,
            guards::Verdict::Deny(_) => {}
        }
    }

    /// A guard would have refused it. Each is counted; the log has the first, which would have been the answer.
    pub fn observed(&mut self, denial: &Denial) {
        let (guard, reason) = (denial.guard, denial.reason.word());
        if self.verdict == Verdict::Permitted {
            self.verdict = Verdict::Observed { guard, reason };
            self.told = Some(causes::denied(denial.reason));
        }
        self.view.site(self.site).metrics.would_deny(self.class, guard, reason);
    }

    /// Its answer has taught something.
    pub fn learned(&self, lesson: &'static str, outcome: Outcome) {
        self.view.site(self.site).metrics.learned(lesson, outcome.word());
    }

    /// It goes upstream. Where the size guard only observes, a body of unknown length is measured when it is over.
    pub fn measure(&mut self, reading: &Reading<'_>) {
        let route = reading.found.route;
        let unknown = route.observe.size && reading.facts.body_length.is_none();
        self.measure = unknown.then(|| route.guards.size.limit());
    }

    /// It has reported a violation of a policy, or something that is none.
    pub fn reported(&self, class: Option<Class>, kind: &'static str) {
        self.view.site(self.site).metrics.csp_report(class, kind);
    }

    /// It was no request that one can judge.
    pub fn malformed(&mut self, why: Malformed) {
        self.verdict = Verdict::Malformed(why.word());
        self.told = Some(causes::malformed(why));
        self.view.nowhere.metrics.worker().malformed(why.word());
    }

    /// The upstream has answered with a head.
    pub fn upstream_answered(&mut self) {
        let took = self.since(self.handed);
        self.upstream = Some(took);
        self.view.site(self.site).metrics.upstream(took);
    }

    /// A login's token made no companion cookie.
    pub fn companion_not_set(&mut self) {
        self.view.site(self.site).metrics.companion_not_set();
    }

    /// Why it ended as it did, in words.
    pub fn because(&mut self, cause: impl Into<Cow<'static, str>>) {
        self.cause = Some(cause.into());
    }

    /// The head of the answer is known: counted here, the duration is up to here.
    pub fn answered(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        self.location = headers.get(header::LOCATION).filter(|_| self.lane.is_on()).cloned();
        self.view.site(self.site).metrics.request(self.class, status, self.since(self.start));
        self.remember();
    }

    /// Once for each request: when its answer's head is known, or when it has ended without one.
    fn remember(&mut self) {
        let site = self.view.site(self.site);
        let plain = self.verdict == Verdict::Permitted && self.cause.is_none();
        let path = |target: &PathAndQuery| {
            let mut masked = String::new();
            site.mask.target(target.as_str(), &mut masked);
            masked.into_boxed_str()
        };
        let failed = self.cause.as_ref().map(|_| causes::failed(self.status));
        self.recent.note(recent::Entry {
            id: Rc::clone(&self.id),
            wall: self.start.wall,
            client: self.client,
            site: self.site.map(|_| Rc::clone(&site.name)),
            route: self.route.take(),
            class: self.class,
            method: self.method.clone(),
            path: self.target.as_ref().filter(|_| !plain).map(path),
            facts: self.facts.take(),
            verified: self.verified,
            verdict: self.verdict,
            told: self.told.or(failed),
            status: self.status,
            failure: self.cause.clone(),
        });
    }

    /// Keeps the exchange alive until the answer's body has ended.
    pub fn follow(mut self: Box<Self>, answer: Response<Body>, live: Option<Registration>) -> Response<Body> {
        let (head, body) = answer.into_parts();
        let body = match body {
            Body::Stream(stream) => {
                // A status among the headers is the whole of the answer.
                let ended_well = rpc::has_status(&head.headers);
                let tail = |inner| -> Box<dyn Tail> {
                    Box::new(AnswerTail { exchange: self, inner, ended_well, _live: live })
                };
                Body::Stream(Box::new(stream.wrap(tail)))
            }
            Body::Full(bytes) => {
                self.sent = bytes.len() as u64;
                self.ended = true;
                Body::Full(bytes)
            }
            Body::Empty => {
                self.ended = true;
                Body::Empty
            }
        };
        Response::from_parts(head, body)
    }

    /// A tunnel begins: however that ends, it is an end.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// What has passed a tunnel: up and down.
    pub fn tunnelled(&mut self, up: u64, down: u64) {
        self.received.set(up);
        self.sent = down;
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// How long it has taken so far.
    pub fn taken(&self) -> Duration {
        self.since(self.start)
    }

    fn since(&self, then: Now) -> Duration {
        Duration::from_nanos(self.clock.now().mono.saturating_sub(then.mono))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.measure.is_some_and(|limit| self.received.get() > limit) {
            self.observed(&Denial::new(Size::NAME, Reason::BodyTooLarge));
        }
        if !self.ended && self.cause.is_none() {
            self.cause = Some(Cow::Borrowed(match (self.kill.cause(), self.status) {
                (Some(cause), _) => cause,
                (None, 0) => "ended before the answer: the client left",
                (None, _) => "the answer was broken off: the client left",
            }));
        }
        let masks = Masks { site: &self.view.site(self.site).mask, all: &self.view.nowhere.mask };
        let name = self.site.and_then(|site| self.policy().site(site)).map_or("-", |site| &*site.name);
        let entry = Entry {
            wall: self.start.wall,
            id: &self.id,
            client: match self.client {
                Client::Address(address) => Some(address),
                Client::Unknown => None,
            },
            site: name,
            class: self.class,
            method: self.method.as_ref().map_or("-", Method::as_str),
            target: self.target.as_ref().map_or("-", PathAndQuery::as_str),
            version: match self.version {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            referer: self.referer.as_ref().map(HeaderValue::as_bytes),
            agent: self.agent.as_ref().map(HeaderValue::as_bytes),
            location: self.location.as_ref().map(HeaderValue::as_bytes),
            // 499: nginx's custom for a client that left before the answer.
            status: if self.status == 0 { 499 } else { self.status },
            verdict: self.verdict,
            received: self.received.get(),
            sent: self.sent,
            duration: self.since(self.start),
            upstream: self.upstream,
            cause: self.cause.as_deref(),
            token: self.token.as_deref(),
            certificate: self.certificate.as_deref(),
        };
        self.lane.write(&entry, masks);
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
