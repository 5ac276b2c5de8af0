//! One connection of HTTP/2 that carries many streams, and one exchange on it. By the `h2` crate itself: a stream must be
//! reset at once when its client is cut, also while it waits for room to send, and that is what hyper's client hides.
//!
//! Nothing is done twice. A stream that the upstream refuses before it has looked at it (RFC 9113, 8.7) is tried once more, if
//! there is no body that would be gone; what ends with its connection is the client's to try again: only it knows whether that
//! does harm.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;

use ::h2::client::{Builder, SendRequest};
use ::h2::{Ping, Reason, RecvStream};
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::pipe::pipe;
use super::shared::StreamLease;
use super::wire::Line;
use crate::gateway::ForwardError;
use crate::request::body::Body;

/// Streams at once on one connection; fewer where the upstream wants fewer.
pub const STREAMS: u16 = 100;
/// What may come for a client that takes nothing.
const STREAM_WINDOW: u32 = 256 * 1024;
/// All streams together: one that is not read must not hold up the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// Of an answer's head or trailers.
const HEADER_LIST: u32 = 128 * 1024;
const FRAME: u32 = 16 * 1024;
/// Of one stream, towards an upstream that takes nothing.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams that we have reset are remembered for what is still under way for them.
const RESETS: usize = 100;
/// Streams that the upstream makes us reset by its errors, before the connection is given up.
const LOCAL_RESETS: usize = 100;

/// A connection and the task that drives it.
#[derive(Debug)]
pub struct Carrier {
    /// Takes requests.
    pub send: SendRequest<Bytes>,
    /// The socket below.
    pub line: Arc<Line>,
    /// `https` or `http`, as the upstream hears it.
    pub scheme: Scheme,
    /// Streams that are under way.
    pub streams: Cell<usize>,
    /// When it was made, in monotonic milliseconds.
    pub born: u64,
    /// Since when there is none, in monotonic milliseconds.
    pub idle_since: Cell<u64>,
    driver: AbortHandle,
}

impl Carrier {
    /// Another stream may begin, for all that is known here.
    pub fn has_room(&self) -> bool {
        !self.driver.is_finished()
            && self.streams.get() < usize::from(STREAMS).min(self.send.current_max_send_streams())
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Begins HTTP/2, and waits until the other side has spoken it: its settings are known before the first request goes out, and
/// nothing of a request is ever sent to one that speaks something else.
///
/// # Errors
/// [`ForwardError::Protocol`].
pub async fn begin<T>(io: T, line: Arc<Line>, scheme: Scheme) -> Result<Carrier, ForwardError>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let secure = scheme == Scheme::HTTPS;
    let no_http2 = |error: ::h2::Error| no_http2(&error, secure);
    let (send, mut connection) = builder().handshake::<_, Bytes>(io).await.map_err(no_http2)?;
    let ping = connection.ping_pong();
    // Ends with the connection, or is aborted with the carrier.
    let driver = tokio::task::spawn_local(connection);
    let carrier = Carrier {
        send,
        line,
        scheme,
        streams: Cell::new(0),
        born: 0,
        idle_since: Cell::new(0),
        driver: driver.abort_handle(),
    };
    if let Some(mut ping) = ping {
        let answered = ping.ping(Ping::opaque()).await;
        if answered.is_err() {
            // What the driver ended with says more than a ping that will not come.
            return Err(match driver.await {
                Ok(Err(error)) => no_http2(error),
                _ => ForwardError::Protocol("it speaks no HTTP/2: it closed the connection".into()),
            });
        }
    }
    // From here on the limits above bound what may come.
    carrier.line.answered();
    Ok(carrier)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS));
    builder
}

fn no_http2(error: &::h2::Error, secure: bool) -> ForwardError {
    if error.is_io() && secure {
        return ForwardError::Protocol(format!(
            "it closed the connection right behind the TLS handshake{}",
            super::tls::CLIENT_CERTIFICATE
        ));
    }
    ForwardError::Protocol(format!("it speaks no HTTP/2: {error}"))
}

/// What became of a stream that got no answer.
#[derive(Debug)]
pub struct Failed {
    /// For the client.
    pub error: ForwardError,
    /// The upstream has not looked at it: it may be sent again.
    pub refused: bool,
}

impl From<ForwardError> for Failed {
    fn from(error: ForwardError) -> Self {
        Self { error, refused: false }
    }
}

impl From<::h2::Error> for Failed {
    fn from(error: ::h2::Error) -> Self {
        let refused = error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        Self { error: forward_error(&error), refused }
    }
}

/// The same request once more, where it is all at hand.
pub fn spare(request: &Request<Body>) -> Option<Request<Body>> {
    request.body().is_end_stream().then(|| {
        let mut spare = Request::new(Body::Empty);
        *spare.method_mut() = request.method().clone();
        *spare.uri_mut() = request.uri().clone();
        *spare.headers_mut() = request.headers().clone();
        spare
    })
}

/// Sends a request as a stream of its own, its body beside the answer, and waits for the answer's head.
///
/// # Errors
/// Why there is none.
pub async fn exchange(
    lease: &mut StreamLease,
    request: Request<Body>,
) -> Result<Response<RecvStream>, Failed> {
    let (head, body) = request.into_parts();
    let head = stream_head(head, &lease.carrier().scheme)?;
    let ends = body.is_end_stream();
    let mut send = lease.carrier().send.clone();
    let (answer, up) = send.send_request(head, ends)?;
    if !ends {
        lease.sends(tokio::task::spawn_local(pipe(body, up)).abort_handle());
    }
    Ok(answer.await?)
}

/// Whether the connection takes another stream; only then may a request be taken apart for it.
pub async fn is_open(lease: &StreamLease) -> bool {
    let mut send = lease.carrier().send.clone();
    poll_fn(|cx| send.poll_ready(cx)).await.is_ok()
}

/// From the form of HTTP/1.1 to that of HTTP/2: the host becomes the authority. We take trailers (RFC 9110, 10.1.4).
fn stream_head(mut head: http::request::Parts, scheme: &Scheme) -> Result<Request<()>, ForwardError> {
    let malformed = |_| ForwardError::Protocol("the request cannot be said in HTTP/2".into());
    let host = head.headers.remove(header::HOST);
    let host = host.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let path = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    head.uri = Uri::builder()
        .scheme(scheme.clone())
        .authority(Authority::try_from(host).map_err(|error| malformed(error.into()))?)
        .path_and_query(path)
        .build()
        .map_err(malformed)?;
    head.version = Version::HTTP_2;
    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    Ok(Request::from_parts(head, ()))
}

/// What became of a stream, in words.
pub fn forward_error(error: &::h2::Error) -> ForwardError {
    match error {
        error if error.is_io() => ForwardError::Closed,
        error if error.is_remote() => ForwardError::Reset(told(error)),
        error => ForwardError::Protocol(told(error)),
    }
}

/// A broken stream or connection of HTTP/2 in words: who ended it, and how that is called.
pub fn told(error: &::h2::Error) -> String {
    let what = if error.is_go_away() { "connection" } else { "stream" };
    match error.reason() {
        Some(Reason::REFUSED_STREAM) if error.is_remote() => "it refused the stream (REFUSED_STREAM)".into(),
        Some(Reason::NO_ERROR) if error.is_go_away() => "it closed the connection (GOAWAY)".into(),
        Some(reason) if error.is_remote() => format!("it broke the {what} off ({reason:?}: {reason})"),
        Some(reason) => format!("its frames broke the rules ({reason:?}: {reason})"),
        None if error.is_io() => "it closed the connection".into(),
        None => error.to_string(),
    }
}
