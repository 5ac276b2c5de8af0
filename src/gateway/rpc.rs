//! gRPC: who asks by it is answered by it, with HTTP status 200 and a gRPC status in its place.
//!
//! | what happened | as HTTP | as gRPC |
//! |---|---|---|
//! | malformed | 400 | 3 INVALID_ARGUMENT |
//! | blocked token | 401 | 16 UNAUTHENTICATED |
//! | blocked address, foreign page | 403 | 7 PERMISSION_DENIED |
//! | not in the allowlist, blocked share | 404 | 12 UNIMPLEMENTED, as applications answer for a method that is not there |
//! | body or head too large | 413, 431 | 8 RESOURCE_EXHAUSTED |
//! | the host of another site | 421 | 5 NOT_FOUND |
//! | rate | 429 | 8 RESOURCE_EXHAUSTED |
//! | no upstream, or one that breaks the rules; draining | 502, 503 | 14 UNAVAILABLE |
//! | no answer in time | 504 | 4 DEADLINE_EXCEEDED |
//!
//! An answer of the upstream that is no gRPC becomes the status that the gRPC specification gives its HTTP status; one that
//! ends without a status, or breaks off, ends with 13 INTERNAL or 14 UNAVAILABLE: a client is never left to guess.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};

use crate::request::body::Body;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const UNKNOWN: u8 = 2;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;

/// What an answer whose status is 200 only because gRPC wants it so would have been in HTTP: goes with it as an extension, for
/// the log and the metrics. Who names his request gRPC must not look there as if he had been served.
#[derive(Debug, Clone, Copy)]
pub struct Meant(pub StatusCode);

/// Whether a request is a call by gRPC: over HTTP/2, by its content type. gRPC-Web is none: it is made for HTTP/1.1.
pub fn is_call(head: &Parts) -> bool {
    head.version == Version::HTTP_2 && head.method == Method::POST && is_grpc(&head.headers)
}

/// Whether a content type is gRPC's.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    let Some((name, rest)) = kind.as_bytes().split_at_checked(GRPC.len()) else { return false };
    name.eq_ignore_ascii_case(GRPC.as_bytes()) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// Whether headers or trailers say how a call ended.
pub fn has_status(fields: &HeaderMap) -> bool {
    fields.contains_key(GRPC_STATUS)
}

/// A refusal or a failure, said as gRPC says it: headers only, and the stream ends.
pub fn refusal(status: StatusCode) -> Response<Body> {
    let code = match status.as_u16() {
        400 => 3,
        401 => 16,
        403 => 7,
        404 => 12,
        413 | 429 | 431 => 8,
        421 => 5,
        502 | 503 => UNAVAILABLE,
        504 => 4,
        _ => UNKNOWN,
    };
    trailers_only(code, status.canonical_reason().unwrap_or("Error"), status)
}

/// The upstream's answer as one that says its status; beside it what was wrong, if that was not so.
pub fn checked(mut answer: Response<Body>) -> (Response<Body>, Option<String>) {
    if answer.status() != StatusCode::OK || !is_grpc(answer.headers()) {
        let status = answer.status();
        let cause = format!("the upstream answered a gRPC call with {} and no gRPC", status.as_u16());
        let failed = status.is_client_error() || status.is_server_error();
        let meant = if failed { status } else { StatusCode::BAD_GATEWAY };
        return (trailers_only(code_of_http(status), "the upstream answered no gRPC", meant), Some(cause));
    }
    if matches!(answer.body(), Body::Empty) && !has_status(answer.headers()) {
        answer.headers_mut().extend(ending(false));
        return (answer, Some(WITHOUT_STATUS.into()));
    }
    (answer, None)
}

/// What the log says of an answer that ended without a status.
pub const WITHOUT_STATUS: &str = "the upstream ended a gRPC answer without grpc-status";

/// The trailers of an answer that has none of its own.
pub fn ending(broken: bool) -> HeaderMap {
    let (code, message) = match broken {
        true => (UNAVAILABLE, "the upstream broke off"),
        false => (INTERNAL, "the upstream ended without a status"),
    };
    status_fields(code, message)
}

/// What a client gives a call (`grpc-timeout`): up to eight digits and a unit.
pub fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The gRPC specification's "HTTP to gRPC Status Code Mapping".
fn code_of_http(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

fn trailers_only(code: u8, message: &'static str, meant: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    answer.extensions_mut().insert(Meant(meant));
    answer.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    answer.headers_mut().extend(status_fields(code, message));
    answer
}

fn status_fields(code: u8, message: &'static str) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(2);
    fields.insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
    fields.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn grpc_is_known_by_its_content_type_and_grpc_web_is_none() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grp", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_grpc(&fields(header::CONTENT_TYPE, kind)), is, "{kind}");
        }
    }

    #[test]
    fn a_timeout_is_eight_digits_and_a_unit() {
        for (text, found) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
        ] {
            assert_eq!(deadline(&fields(GRPC_TIMEOUT, text)), found, "{text}");
        }
    }
}
