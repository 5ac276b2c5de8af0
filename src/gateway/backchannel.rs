//! `POST /.well-known/portcullis/backchannel-logout`: an identity provider ends sessions (OpenID Connect Back-Channel
//! Logout 1.0, 2.5 to 2.8). Answered here; nothing of it goes to the application.
//!
//! The provider hears 200 when the block is on every worker, its streams are cut, and it is on the disk; else 400 (2.8).

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::Gateway;
use super::account::{Form, account_of};
use super::exchange::Exchange;
use super::own::Came;
use super::respond::{self, Shape};
use crate::guards::backchannel::{Backchannel, meant};
use crate::guards::{Denial, Reason, Verdict, backchannel, blocks};
use crate::request::body::Body;
use crate::stores::logouts::Outcome;

/// Where orders come.
pub const PATH: &str = "/.well-known/portcullis/backchannel-logout";
/// Largest body.
const BODY: usize = 16 << 10;
/// For the whole of it.
const DEADLINE: Duration = Duration::from_secs(10);
/// 2.8 names these members; the text is the same for all causes.
const REFUSED: &str = "{\"error\":\"invalid_request\",\"error_description\":\"the logout was not done\"}\n";

impl<U> Gateway<U> {
    /// Obeys an order, or says why not.
    pub(super) async fn log_out(
        &self,
        judge: &Backchannel,
        came: &Came<'_>,
        exchange: &mut Exchange,
        body: Incoming,
    ) -> Response<Body> {
        if came.reading.facts.method != Method::POST {
            let mut answer = answer(StatusCode::METHOD_NOT_ALLOWED, Body::Empty);
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return answer;
        }
        let token = match self.token_of(judge, came, exchange, body).await {
            Ok(token) => token,
            Err(answer) => return answer,
        };
        let facts = &came.reading.facts;
        let read = judge.check(facts, token.as_bytes());
        let refusal = match read {
            Ok(read) => {
                let by = format!("backchannel {}", read.issuer);
                let once = read.keys();
                let site = &came.reading.site.name;
                match self.kept.logouts.order(site, meant(&read), by, once).await {
                    Outcome::Done => return answer(StatusCode::OK, Body::Empty),
                    Outcome::Replayed => "logout token refused: it was used before".to_owned(),
                    Outcome::NotDone => {
                        exchange.because("the logout could not be made durable on every worker");
                        return denied(&Denial::new(backchannel::NAME, Reason::LogoutRefused), exchange);
                    }
                }
            }
            Err(why) => why,
        };
        exchange.because(refusal);
        denied(&judge.refuse(facts), exchange)
    }

    /// The token in the body: a form that every reader reads in one way.
    async fn token_of(
        &self,
        judge: &Backchannel,
        came: &Came<'_>,
        exchange: &mut Exchange,
        body: Incoming,
    ) -> Result<String, Response<Body>> {
        let facts = &came.reading.facts;
        if let Verdict::Deny(denial) = blocks::check(&self.blocks.current(), facts).verdict {
            return Err(denied(&denial, exchange));
        }
        judge.admit(facts).map_err(|denial| denied(&denial, exchange))?;
        let received = Rc::clone(&exchange.received);
        let read = tokio::time::timeout(DEADLINE, Limited::new(body, BODY).collect()).await;
        if let Some(why) = came.link.malformed_body() {
            exchange.malformed(why);
            return Err(respond::malformed(why, Shape::Problem));
        }
        let form = Form::of(came.headers) == Some(Form::Urlencoded)
            && !came.headers.contains_key(header::CONTENT_ENCODING);
        let token = read.ok().and_then(Result::ok).filter(|_| form).and_then(|body| {
            let bytes = body.to_bytes();
            received.set(bytes.len() as u64);
            account_of(&bytes, Form::Urlencoded, "logout_token")
        });
        token.ok_or_else(|| {
            exchange
                .because("logout token refused: the body is no form with one logout_token of 16 KiB at most");
            denied(&judge.refuse(facts), exchange)
        })
    }
}

fn denied(denial: &Denial, exchange: &mut Exchange) -> Response<Body> {
    exchange.denied(denial);
    match denial.reason {
        Reason::LogoutRefused => {
            let mut answer =
                answer(StatusCode::BAD_REQUEST, Body::Full(Bytes::from_static(REFUSED.as_bytes())));
            let json = HeaderValue::from_static("application/json");
            answer.headers_mut().insert(header::CONTENT_TYPE, json);
            answer
        }
        _ => respond::denied(denial, None, Shape::Problem),
    }
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
