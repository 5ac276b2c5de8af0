//! Facts: everything a guard may know of a request; small, owned, built once from the head.

use std::rc::Rc;

use http::Method;

use super::client::Client;
use super::credential::{Credential, Key};
use crate::clock::Now;
use crate::config::class::Class;

/// Everything a guard may know of a request.
#[derive(Debug, Clone)]
pub struct Facts {
    /// After trusted proxies; never the socket's.
    pub client: Client,
    /// The names under which blocks may be scoped to this site: see [`scope_of`].
    pub scopes: Rc<[u64]>,
    /// The route's class.
    pub class: Class,
    /// The method.
    pub method: Method,
    /// Every candidate credential.
    pub credentials: Vec<Credential>,
    /// Keyed hash of the share token in the path, on share routes.
    pub share: Option<Key>,
    /// The length that the request announces; `None`: chunked or HTTP/2 without one.
    pub body_length: Option<u64>,
    /// Carries `Authorization: Basic`.
    pub basic: bool,
    /// Asks for a WebSocket.
    pub websocket: bool,
    /// Which page a browser says it comes from.
    pub origin: Origin,
    /// Whether it comes with a companion cookie.
    pub companion: Companion,
    /// A browser would run the answer as code: `Sec-Fetch-Dest` script, style, worker, object, embed and their kin.
    pub runs_as_code: bool,
    /// A page of another site has it as a picture, a frame or the like: `Sec-Fetch-Site` and `Sec-Fetch-Dest`.
    pub embedded: bool,
    /// A value of path or query is none of those that the app file lets pass.
    pub odd_value: bool,
    /// Unix seconds at which its streams are cut, where they end with their token.
    pub ends: Option<u64>,
    /// Both clocks, read once: the only time a guard sees.
    pub now: Now,
    /// A rehearsal (`explain`) charges no budget.
    pub rehearsal: bool,
}

/// Which page a browser says a request comes from, by `Sec-Fetch-Site`, else by `Origin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nothing is said.
    Absent,
    /// The site itself.
    Own,
    /// Another site, or an origin that cannot be read (`null`).
    Foreign,
}

/// A sealed cookie that stands for a token. Whoever brings it holds that token, which is among the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Companion {
    /// None that is good, or none that counts here.
    Absent,
    /// A good one.
    Own,
    /// A good one that a page of another origin had sent.
    Foreign,
}

impl Facts {
    /// Of the same request without its cookies.
    #[must_use]
    pub fn without_cookies(&self) -> Self {
        let mut facts = self.clone();
        facts.credentials.retain(|credential| !credential.in_cookie);
        facts
    }

    /// Facts of an unremarkable request, for tests to change.
    pub fn example() -> Self {
        Self {
            client: Client::Address(std::net::IpAddr::from([203, 0, 113, 7])),
            scopes: Rc::new([scope_of("files.example.com")]),
            class: Class::Api,
            method: Method::GET,
            credentials: Vec::new(),
            share: None,
            body_length: Some(0),
            basic: false,
            websocket: false,
            origin: Origin::Absent,
            companion: Companion::Absent,
            runs_as_code: false,
            embedded: false,
            odd_value: false,
            ends: None,
            now: Now { mono: 1_000_000_000_000, wall: 1_790_000_000_000 },
            rehearsal: false,
        }
    }
}

/// The scope of a block or a site by one of its host names: the first eight bytes of a SHA-256.
pub fn scope_of(host: &str) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, host.to_ascii_lowercase().as_bytes());
    digest.as_ref().iter().take(8).fold(0, |scope, byte| scope << 8 | u64::from(*byte))
}

/// Why a request is malformed: the closed list behind `portcullis_malformed_total{reason}` and the 400 (or 431, 421).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Request line that is no request line.
    RequestLine,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// CONNECT, TRACE, or a name that is no token.
    Method,
    /// Target that is neither path nor absolute URL of ours; fragment, user-info.
    Target,
    /// Path that cannot be made normal: escapes, encoded slashes, control characters.
    Path,
    /// Lone CR, lone LF, NUL, folded line.
    LineEnding,
    /// Header name that is no token, or blanks round it.
    HeaderName,
    /// Control character in a header value.
    HeaderValue,
    /// More header fields than the limit: 431.
    TooManyHeaders,
    /// Larger head than the limit: 431.
    HeadTooLarge,
    /// No, two, or a wrong Host.
    Host,
    /// Content-Length that is no single plain number, or together with chunked.
    ContentLength,
    /// Transfer-Encoding other than one `chunked` in HTTP/1.1.
    TransferEncoding,
    /// A chunk that breaks the grammar, or a trailer that has no business there.
    Chunk,
    /// An upgrade to anything but a WebSocket, or with a body.
    Upgrade,
    /// `Expect` other than `100-continue`.
    Expect,
    /// Two credentials of one kind that differ, or more than can be examined.
    Credentials,
}

impl Malformed {
    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RequestLine => "request_line",
            Self::Version => "version",
            Self::Method => "method",
            Self::Target => "target",
            Self::Path => "path",
            Self::LineEnding => "line_ending",
            Self::HeaderName => "header_name",
            Self::HeaderValue => "header_value",
            Self::TooManyHeaders => "too_many_headers",
            Self::HeadTooLarge => "head_too_large",
            Self::Host => "host",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::Chunk => "chunk",
            Self::Upgrade => "upgrade",
            Self::Expect => "expect",
            Self::Credentials => "credentials",
        }
    }
}
