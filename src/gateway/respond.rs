//! Denials, malformed requests and failures become answers: the only maker of error bodies.
//!
//! The stranger gets the same short text for every reason with the same status; what happened is in the log, under the id
//! that the answer carries.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::{ForwardError, rpc};
use crate::guards::{Denial, Reason};
use crate::policy::Site;
use crate::request::body::Body;
use crate::request::facts::Malformed;

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The shape of an answer of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// RFC 9457.
    Problem,
    /// A small page, for browsers.
    Page,
    /// A gRPC status: see [`rpc`].
    Rpc,
}

/// Marks the operator's own page, which is no page of the application.
#[derive(Debug, Clone, Copy)]
pub struct OwnPage;

/// It may bring styles and pictures of its own, in itself; no script, and nothing from the application, which is down.
pub const OWN_PAGE_CSP: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The answer to a denied request: in the application's own shape where the app file gives one.
pub fn denied(denial: &Denial, site: Option<&Site>, shape: Shape) -> Response<Body> {
    let status = denial.reason.status();
    let mut answer = shaped(status, site, shape);
    if let Some(wait) = denial.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if status == StatusCode::UNAUTHORIZED && denial.reason != Reason::DefaultPassword {
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}

/// In place of an answer of the application that says too much: nothing of it is left but its status.
pub fn replaced(status: StatusCode, site: &Site, shape: Shape) -> Response<Body> {
    shaped(status, Some(site), shape)
}

/// In the application's own shape, or ours.
fn shaped(status: StatusCode, site: Option<&Site>, shape: Shape) -> Response<Body> {
    let own = site.filter(|_| shape != Shape::Rpc).and_then(|site| site.denials.get(&status));
    let Some(own) = own else { return plain(status, shape) };
    let mut answer = Response::new(Body::Full(own.body.clone()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, own.content_type.clone());
    answer
}

/// The answer to a request that cannot be understood; the connection is closed behind it.
pub fn malformed(why: Malformed, shape: Shape) -> Response<Body> {
    let status = match why {
        Malformed::TooManyHeaders | Malformed::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut answer = plain(status, shape);
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The answer when the application could not be asked, or did not answer.
pub fn failed(error: &ForwardError, shape: Shape) -> Response<Body> {
    let status = match error {
        ForwardError::Connect(_)
        | ForwardError::Protocol(_)
        | ForwardError::Reset(_)
        | ForwardError::Closed => StatusCode::BAD_GATEWAY,
        ForwardError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        ForwardError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ForwardError::BrokenRequest => StatusCode::BAD_REQUEST,
    };
    let mut answer = plain(status, shape);
    if matches!(error, ForwardError::BodyTooLarge | ForwardError::BrokenRequest) {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// The operator's own page, while no upstream can be reached: 503, so that crawlers come again and forget nothing.
pub fn maintenance(page: &Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::Full(page.clone()));
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HTML);
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.extensions_mut().insert(OwnPage);
    answer
}

/// A redirect that names nothing of the request but its path.
pub fn redirect(location: &str) -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(location) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(header::LOCATION, location);
    }
    answer
}

fn plain(status: StatusCode, shape: Shape) -> Response<Body> {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let (content_type, body) = match shape {
        Shape::Rpc => return rpc::refusal(status),
        Shape::Page => (
            HTML,
            format!("<!doctype html><html lang=en><title>{code} {reason}</title><h1>{code} {reason}</h1>\n"),
        ),
        Shape::Problem => {
            (PROBLEM, format!("{{\"type\":\"about:blank\",\"title\":\"{reason}\",\"status\":{code}}}\n"))
        }
    };
    let mut answer = Response::new(Body::Full(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

/// Rounded up, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_rounded_up_and_at_least_one_second() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn reasons_of_one_status_look_the_same() {
        let answer = |reason| {
            let answer = denied(&Denial::new("x", reason), None, Shape::Problem);
            (answer.status(), answer.headers().clone(), format!("{:?}", answer.into_body()))
        };
        assert_eq!(answer(Reason::NotAllowlisted), answer(Reason::ShareBlocked));
        assert_eq!(answer(Reason::AddressBlocked), answer(Reason::CrossOrigin));
    }
}
