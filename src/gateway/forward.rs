//! What leaves the gateway for an upstream, and why nothing may come back.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::Request;

use super::{Permit, Tunnel};
use crate::request::body::Body;
use crate::request::client::Client;

/// A permitted request on its way to the upstream.
#[derive(Debug)]
pub struct Forward {
    /// The proof.
    pub permit: Permit,
    /// Who asks, for upstreams that keep their clients.
    pub client: Client,
    /// The request.
    pub request: Request<Body>,
    /// Bytes of the client's body that have gone up: as long as they move, nobody waits for the upstream.
    pub progress: Rc<Cell<u64>>,
    /// Becomes true when the client's body has been taken whole.
    pub asked_whole: Rc<Cell<bool>>,
    /// Silence in the middle of the answer is nothing unusual: `live` and `rpc`.
    pub unpaced: bool,
    /// How long its head may take.
    pub answer_within: Within,
    /// It is a call by gRPC, which needs HTTP/2.
    pub rpc: bool,
    /// The client waits for 100 before it sends its body.
    pub asks_first: bool,
    /// For a WebSocket: the client's side and how the tunnel is registered.
    pub tunnel: Option<Tunnel>,
}

/// How long the head of an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// As long as the upstream's patience.
    Usual,
    /// What the client gave it.
    Time(Duration),
    /// For as long as both are there: a stream of gRPC may begin with its first message, hours later.
    Ever,
}

impl ForwardError {
    /// No upstream took a connection.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Timeout(NO_CONNECTION | NO_CONNECTION_LATELY))
    }
}

/// [`ForwardError::Timeout`]: none came about in time.
pub const NO_CONNECTION: &str = "no connection";
/// [`ForwardError::Timeout`]: none came about a moment ago either.
pub const NO_CONNECTION_LATELY: &str = "no connection a moment ago; it is tried once a second";

/// Why there is no answer from the upstream.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Nobody there.
    #[error("no connection to the upstream: {0}")]
    Connect(#[source] std::io::Error),
    /// No answer in time.
    #[error("the upstream did not answer in time ({0})")]
    Timeout(&'static str),
    /// It broke the rules of HTTP.
    #[error("the upstream broke the rules: {0}")]
    Protocol(String),
    /// It broke a stream of HTTP/2 off, or would not take it.
    #[error("the upstream gave no answer: {0}")]
    Reset(String),
    /// It closed without an answer.
    #[error("the upstream closed the connection without an answer")]
    Closed,
    /// The client's body passed its limit on the way.
    #[error("the body is larger than its limit")]
    BodyTooLarge,
    /// The client's body broke the rules or off.
    #[error("the client's body broke off")]
    BrokenRequest,
}
