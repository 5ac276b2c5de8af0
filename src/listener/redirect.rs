//! The `http` listener: sends clients of known hosts to https, refuses all others, serves nothing but the answers that an
//! authority asks for (RFC 8555 section 8.3).

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};

use super::Connection;
use crate::request::body::Body;
use crate::request::facts::Malformed;
use crate::stores::challenges::Challenges;

/// Where an authority asks for an answer.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// What the redirects need to know; shared by all connections, replaced at reload.
pub struct Redirect {
    /// The port that clients see; 443 is not written.
    pub public_port: u16,
    /// Whether a host (lower case, no port, no trailing dot) is one of ours.
    pub knows: Box<dyn Fn(&str) -> bool>,
    /// What an authority is answered.
    pub challenges: Arc<Challenges>,
}

impl std::fmt::Debug for Redirect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redirect").field("public_port", &self.public_port).finish_non_exhaustive()
    }
}

/// The redirects of one connection.
#[derive(Debug)]
pub struct RedirectService {
    redirect: Rc<Redirect>,
    connection: Rc<Connection>,
}

impl RedirectService {
    /// For one connection.
    pub fn new(redirect: Rc<Redirect>, connection: Rc<Connection>) -> Self {
        Self { redirect, connection }
    }
}

impl Service<Request<Incoming>> for RedirectService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let number = self.connection.requests.get() + 1;
        self.connection.requests.set(number);
        ready(Ok(match self.connection.refusal(number) {
            Some(Malformed::TooManyHeaders | Malformed::HeadTooLarge) => {
                refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
            }
            Some(_) => refuse(StatusCode::BAD_REQUEST),
            None => self.redirect.answer(&request),
        }))
    }
}

impl Redirect {
    /// 308, so that method and body stay what they were; 421 for hosts that are not ours.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let Some(host) = named.map(bare_host).filter(|host| (self.knows)(host)) else {
            return refuse(StatusCode::MISDIRECTED_REQUEST);
        };
        let token = request.uri().path().strip_prefix(CHALLENGES);
        if let Some(answer) = token.and_then(|token| self.challenges.answer_to(&host, token)) {
            return challenge(answer);
        }
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let target = match self.public_port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        let Ok(target) = HeaderValue::try_from(target) else { return refuse(StatusCode::BAD_REQUEST) };
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
        answer.headers_mut().insert(LOCATION, target);
        answer
    }
}

fn challenge(answer: String) -> Response<Body> {
    let mut answer = Response::new(answer.into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer
}

fn refuse(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// Lower case, without port and trailing dot; an IPv6 address keeps its brackets.
fn bare_host(host: &str) -> String {
    let end = match host.rfind(']') {
        Some(bracket) => bracket + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    host.get(..end).unwrap_or(host).trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(port: u16, host: &str, target: &str) -> (StatusCode, Option<String>) {
        let challenges = Arc::default();
        let redirect =
            Redirect { public_port: port, knows: Box::new(|host| host == "files.test"), challenges };
        let request = Request::builder().uri(target).header(HOST, host).body(()).unwrap();
        let answer = redirect.answer(&request);
        (answer.status(), answer.headers().get(LOCATION).map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn known_hosts_are_sent_to_the_public_port() {
        let gone = |to: &str| (StatusCode::PERMANENT_REDIRECT, Some(to.to_owned()));
        assert_eq!(ask(443, "Files.Test:80", "/a?b=c"), gone("https://files.test/a?b=c"));
        assert_eq!(ask(8443, "files.test.", "/"), gone("https://files.test:8443/"));
        assert_eq!(ask(443, "files.test", "http://files.test/x"), gone("https://files.test/x"));
    }

    #[test]
    fn unknown_hosts_are_sent_nowhere() {
        for host in ["evil.test", "files.test.evil.test", "files.testx", "[::1]"] {
            assert_eq!(ask(443, host, "/"), (StatusCode::MISDIRECTED_REQUEST, None), "{host}");
        }
    }

    #[test]
    fn a_path_of_two_slashes_stays_a_path() {
        let (_, to) = ask(443, "files.test", "//evil.test/x");
        assert_eq!(to.as_deref(), Some("https://files.test//evil.test/x"));
    }
}
