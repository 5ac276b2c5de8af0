//! One connection through hyper's own HTTP/1.1 or HTTP/2 server, every limit said aloud.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use super::conn::Conn;
use super::framing::HeadLimits;
use super::track::Tracked;
use crate::config::settings::Limits;
use crate::request::body::Body;
use crate::stores::streams::Killable;

/// hyper's own bound, and ours: more are 431.
const FIELDS: usize = 100;
/// What hyper may buffer to a stream.
const BUFFER: usize = 64 * 1024;
/// What hyper may buffer of an HTTP/1.1 connection in each direction, beside room for a whole head. It keeps twice as much
/// of each upload, also of one that has stalled.
const BESIDE_HEAD: usize = 4 * 1024;
const STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
const FRAME: u32 = 16 * 1024;
/// Rapid reset: streams that the client resets before we came to them.
const PENDING_RESETS: usize = 20;
/// "Made you reset": streams that the client makes us reset by its errors.
const LOCAL_RESETS: usize = 100;
const PING_EVERY: Duration = Duration::from_secs(45);
const PING_ANSWER: Duration = Duration::from_secs(20);
/// How long a connection that is to close, and asks nothing just now, may still ask: its request may be on its way.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// A plaintext side that hyper can hand over to a tunnel.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// The bounds that a connection begins with.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// Of one head, HTTP/1.1.
    pub head: HeadLimits,
}

impl HttpLimits {
    /// From the gateway's limits.
    pub fn of(limits: &Limits) -> Self {
        let bytes = usize::try_from(limits.request_head.0).unwrap_or(usize::MAX);
        Self { head: HeadLimits { bytes, fields: FIELDS } }
    }
}

/// One connection, served until it ends. Idle connections are many: it is made in its place on the heap, since a future
/// that takes it by value would keep room for it twice.
pub type Served = Pin<Box<dyn Future<Output = ()>>>;

/// Serves one connection until it ends.
pub fn serve<T, V>(io: T, connection: &Rc<Connection>, limits: HttpLimits, service: V) -> Served
where
    T: Io,
    V: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + 'static,
{
    let io = Conn::new(io, connection, limits.head);
    let service = Tracked::new(service, Rc::clone(connection));
    // An error here is the client's doing or its absence; what mattered of it the service has seen.
    if connection.h2 {
        let served = http2_builder(connection, limits).serve_connection(io, service);
        Box::pin(until_done(Box::pin(served), Rc::clone(connection), |served| served.graceful_shutdown()))
    } else {
        let served = http1_builder(limits).serve_connection(io, service).with_upgrades();
        Box::pin(until_done(Box::pin(served), Rc::clone(connection), |served| served.graceful_shutdown()))
    }
}

fn http1_builder(limits: HttpLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(true)
        .half_close(false)
        // The sweep of `deadlines` does it for less.
        .header_read_timeout(None)
        .max_buf_size(limits.head.bytes.saturating_add(BESIDE_HEAD))
        .timer(TokioTimer::new());
    builder
}

fn http2_builder(connection: &Rc<Connection>, limits: HttpLimits) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(StreamExecutor { connection: Rc::clone(connection) });
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(BUFFER)
        // RFC 8441: WebSockets. What else a CONNECT asks for is refused with the request.
        .enable_connect_protocol()
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER);
    builder
}

/// Polls a connection to its end, and passes on the wish to close when there is one.
async fn until_done<C: Future>(
    mut served: Pin<Box<C>>,
    connection: Rc<Connection>,
    close: impl Fn(Pin<&mut C>),
) {
    let mut asked = false;
    let mut chance: Option<Pin<Box<tokio::time::Sleep>>> = None;
    std::future::poll_fn(|cx| {
        if served.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if asked {
            return Poll::Pending;
        }
        if connection.watch.closing.get() {
            if is_quiet(&connection) {
                let chance = chance.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_CHANCE)));
                std::task::ready!(chance.as_mut().poll(cx));
                if connection.watch.mid_head.get() {
                    // The rest of the head wakes us; if none comes, the deadline of goodbyes ends it.
                    return Poll::Pending;
                }
            }
            asked = true;
            close(served.as_mut());
            return served.as_mut().poll(cx).map(drop);
        }
        connection.watch.wait_close(cx.waker());
        Poll::Pending
    })
    .await
}

/// Whether closing now could meet a request that is on its way. HTTP/2 says by itself which ones it still takes.
fn is_quiet(connection: &Connection) -> bool {
    let watch = &connection.watch;
    if connection.h2 { watch.begun.get() == 0 } else { watch.in_flight.get() == 0 }
}

/// Runs the streams of an HTTP/2 connection, each with the kill switch that its request was given, and what writes to a
/// tunnel's client with that of the tunnel.
#[derive(Debug, Clone)]
struct StreamExecutor {
    connection: Rc<Connection>,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for StreamExecutor {
    fn execute(&self, work: F) {
        let tunnel = self.connection.next_tunnel.borrow_mut().take();
        let stream = || self.connection.next_stream.borrow_mut().take();
        let kill = tunnel.or_else(|| stream().map(|stream| Rc::clone(&stream.kill))).unwrap_or_default();
        tokio::task::spawn_local(StreamTask { work: Killable::new(work, kill) });
    }
}

/// One stream; its end, by whatever means, has nothing to say.
struct StreamTask<F> {
    work: Killable<F>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.work).poll(cx).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http::Version;

    use super::*;
    use crate::listener::Kind;

    /// The client may reset a tunnel in the moment in which it begins: then hyper spawns nothing for it.
    #[tokio::test]
    async fn a_tunnel_whose_client_left_in_its_first_moment_ends_no_other_stream() {
        let mut connection = Connection::new("192.0.2.1:1".parse().unwrap(), Kind::Https, Rc::default());
        connection.h2 = true;
        let connection = Rc::new(connection);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (seen, first) = (Rc::clone(&connection), Rc::new(Cell::new(true)));
        let service = hyper::service::service_fn(move |_: Request<Incoming>| {
            let (seen, first) = (Rc::clone(&seen), Rc::clone(&first));
            async move {
                if first.replace(false) {
                    let down = Rc::<crate::stores::streams::Kill>::default();
                    down.kill();
                    seen.next_tunnel.replace(Some(down));
                }
                Ok(Response::new(Body::Empty))
            }
        });
        let limits = HttpLimits { head: HeadLimits { bytes: 32 * 1024, fields: FIELDS } };
        let served = serve(near, &connection, limits, service);
        let local = tokio::task::LocalSet::new();
        local.spawn_local(served);
        local
            .run_until(async {
                let (mut send, client) = ::h2::client::handshake(far).await.unwrap();
                tokio::task::spawn_local(client);
                for number in 1..=2 {
                    let mut head = Request::get("https://a.test/").body(()).unwrap();
                    *head.version_mut() = Version::HTTP_2;
                    let (answer, _) = send.send_request(head, true).unwrap();
                    let status = answer.await.map(|answer| answer.status().as_u16());
                    assert_eq!(status.ok(), Some(200), "request {number}");
                }
            })
            .await;
    }
}
