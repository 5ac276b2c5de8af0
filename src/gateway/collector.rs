//! The collector of reports: what browsers say of violations of the Content-Security-Policy.
//!
//! Whoever sends something here, and whatever it is, hears 204: nothing is to be learned from the answer. What is kept of it
//! says [`stores::reports`](crate::stores::reports).

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::read::Reading;
use crate::config::class::Class;
use crate::guards::{Denial, Reason};
use crate::policy::Site;
use crate::request::body::Body;
use crate::request::facts::Origin;
use crate::request::path::PathViews;
use crate::request::report::{self, Address, Blocked, Form, Report};
use crate::stores::reports::{Noted, Reports, Sender, Violation, What};

/// A browser has its few hundred bytes ready.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bodies that one worker reads at the same time; others are not read.
const AT_ONCE: usize = 64;

/// Takes reports in, for one worker.
#[derive(Debug)]
pub struct Collector {
    reports: Arc<Reports>,
    reading: Rc<Cell<usize>>,
}

/// A body that is being read.
struct Turn(Rc<Cell<usize>>);

impl Collector {
    /// Collects here.
    pub fn new(reports: Arc<Reports>) -> Self {
        Self { reports, reading: Rc::default() }
    }

    /// Answers a request that the guards let pass.
    pub(super) async fn take(
        &self,
        reading: &Reading<'_>,
        headers: &HeaderMap,
        incoming: Incoming,
        exchange: &mut Exchange,
    ) -> Response<Body> {
        let is_post = reading.facts.method == Method::POST;
        if reading.site.takes_reports && is_post && from_the_site(headers, reading) {
            let form = headers.get(header::CONTENT_TYPE).and_then(|kind| Form::of(kind.as_bytes()));
            let body = match form {
                Some(_) => self.body(incoming, reading.found.route.guards.size.limit()).await,
                None => None,
            };
            exchange.received.set(body.as_ref().map_or(0, |body| body.len() as u64));
            self.note(reading, form.zip(body), exchange);
        }
        nothing()
    }

    fn note(&self, reading: &Reading<'_>, body: Option<(Form, Bytes)>, exchange: &Exchange) {
        let read = match body {
            Some((form, body)) => report::read(form, &body),
            None => report::Read { malformed: 1, ..report::Read::default() },
        };
        let all = read.reports.len() + read.malformed;
        let noted: Vec<Noted> = read
            .reports
            .into_iter()
            .filter_map(|report| noted(reading.site, reading.public_port, report))
            .collect();
        for one in &noted {
            let word = if one.violation.what == What::Extension { "extension" } else { "violation" };
            exchange.reported(Some(one.violation.class), word);
        }
        let malformed = all - noted.len();
        (0..malformed).for_each(|_| exchange.reported(None, "malformed"));
        let sender = Sender { client: reading.facts.client, now: reading.facts.now.wall };
        self.reports.note(&reading.site.name, sender, noted, malformed);
    }

    /// The whole body; `None`: it is too large or too slow, or too many are being read.
    async fn body(&self, incoming: Incoming, limit: u64) -> Option<Bytes> {
        let _turn = Turn::take(&self.reading)?;
        let limit = usize::try_from(limit).ok()?;
        let whole = Limited::new(incoming, limit).collect();
        Some(tokio::time::timeout(PATIENCE, whole).await.ok()?.ok()?.to_bytes())
    }
}

impl Turn {
    fn take(reading: &Rc<Cell<usize>>) -> Option<Self> {
        (reading.get() < AT_ONCE).then(|| {
            reading.set(reading.get() + 1);
            Self(Rc::clone(reading))
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Whether a refusal of a guard is hidden here: what a flood or a large body meets is not told. Blocks are as everywhere.
pub(super) fn hides(denial: &Denial) -> bool {
    matches!(denial.reason, Reason::RateLimited | Reason::BodyTooLarge)
}

/// The answer.
pub(super) fn nothing() -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Other sites' pages may make their visitors' browsers say something; it is not listened to. A sandboxed page is nobody's.
fn from_the_site(headers: &HeaderMap, reading: &Reading<'_>) -> bool {
    let null = headers.get(header::ORIGIN).is_some_and(|origin| origin == "null");
    null || reading.facts.origin != Origin::Foreign
}

/// What is kept of a report; `None`: it is of no page of this site.
fn noted(site: &Site, port: u16, report: Report) -> Option<Noted> {
    let (class, _) = place_of(site, port, &report.page)?;
    let what = match report.blocked {
        Blocked::Word(word) => What::Word(word),
        Blocked::Scheme(scheme) => What::Scheme(scheme),
        Blocked::Extension => What::Extension,
        Blocked::Address(address) => match place_of(site, port, &address) {
            Some((class, pattern)) => What::Own(class, pattern.into()),
            None => What::Origin(address.origin().into()),
        },
    };
    let violation = Violation { class, directive: report.directive, what };
    Some(Noted { violation, enforced: !report.observed })
}

/// The class and the route of an address of the site.
fn place_of<'s>(site: &'s Site, port: u16, address: &Address) -> Option<(Class, &'s str)> {
    let own = site.hosts.iter().any(|host| host.pattern.matches(address.host.as_str()));
    if !own || address.port != port || !matches!(address.scheme, "https" | "wss") {
        return None;
    }
    let path = PathViews::read(&address.target).ok()?;
    let found = site.route(&Method::GET, &path)?;
    Some((found.route.class, found.route.pattern.as_str()))
}
