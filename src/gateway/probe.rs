//! Probes of `block --verify`: judged like any request, by the same policy, blocks and guards, and answered here. Whatever
//! says that it is a probe never goes upstream.

use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::exchange::Exchange;
use super::own::Came;
use super::respond::{self, Shape};
use super::{Gateway, decide};
use crate::guards::{Denial, Reason};
use crate::request::body::Body;
use crate::stores::probes::{self, VERDICT};

/// The field that carries a probe's number.
pub const FIELD: HeaderName = HeaderName::from_static(probes::FIELD);
const SAID: HeaderName = HeaderName::from_static(VERDICT);

impl<U> Gateway<U> {
    /// The answer to a probe, or to what only says that it is one.
    pub(super) fn probed(&self, came: &Came<'_>, exchange: &mut Exchange) -> Response<Body> {
        let reading = came.reading;
        let number = came.headers.get(FIELD).map_or(&b""[..], HeaderValue::as_bytes);
        let Some(guise) = self.kept.probes.take(number) else {
            let denial = Denial::new("probe", Reason::ProbeUnknown);
            exchange.denied(&denial);
            return respond::denied(&denial, Some(reading.site), Shape::Problem);
        };
        let facts = guise.over(&reading.facts);
        let on = &mut |guard, verdict: &_| exchange.heard(guard, verdict);
        let decided = decide(reading.found.route, &self.blocks.current(), &facts, &reading.presented, on);
        let (mut answer, said) = match decided {
            Ok(_) => {
                exchange
                    .because("a probe of `block --verify`: it was permitted, and answered by the gateway");
                let mut answer = Response::new(Body::Empty);
                *answer.status_mut() = StatusCode::NO_CONTENT;
                (answer, "permit".to_owned())
            }
            Err(denial) => {
                exchange.denied(&denial);
                let said = format!("{} {}", denial.guard, denial.reason.word());
                (respond::denied(&denial, Some(reading.site), Shape::Problem), said)
            }
        };
        if let Ok(said) = HeaderValue::from_str(&said) {
            answer.headers_mut().insert(SAID, said);
        }
        answer
    }
}
