//! Probes of `block --verify`: judged like any request, by the same policy, blocks and guards, and answered here. Whatever
//! says that it is a probe never goes upstream.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::exchange::Exchange;
use super::read::Reading;
use super::respond::{self, Shape};
use super::{Gateway, decide};
use crate::guards::{Denial, Reason};
use crate::request::body::Body;
use crate::stores::probes::{FIELD, VERDICT};

const PROBE: HeaderName = HeaderName::from_static(FIELD);
const SAID: HeaderName = HeaderName::from_static(VERDICT);

impl<U> Gateway<U> {
    /// The answer to a probe, or to what only says that it is one; `None`: it is any other request.
    pub(super) fn probed(
        &self,
        exchange: &mut Exchange,
        reading: &Reading<'_>,
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        let number = headers.get(PROBE)?;
        let Some(guise) = self.kept.probes.take(number.as_bytes()) else {
            let denial = Denial::new("probe", Reason::ProbeUnknown);
            exchange.denied(&denial);
            return Some(respond::denied(&denial, Some(reading.site), Shape::Problem));
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
        Some(answer)
    }
}
