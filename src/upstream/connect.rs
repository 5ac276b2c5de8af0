//! New connections to an upstream.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;

use super::health::{Health, Tried, Turn, Vital, Vitals, Way};
use super::http2::{self, Carrier};
use super::socket::Socket;
use super::tls;
use super::wire::{Line, Wire};
use crate::clock::{Clock, Now};
use crate::config::upstream::{Speaks, Upstream};
use crate::gateway::{ForwardError, NO_CONNECTION, NO_CONNECTION_LATELY};
use crate::request::body::Body;
use crate::stores::descriptors::Descriptors;

/// Larger heads of answers are refused.
const MAX_HEAD: usize = 128 * 1024;

/// A connection of HTTP/1.1 and the task that drives it.
#[derive(Debug)]
pub struct Connected {
    /// Takes requests.
    pub sender: http1::SendRequest<Body>,
    /// Ends the connection at once.
    pub driver: AbortHandle,
    /// When it was made, in monotonic milliseconds.
    pub born: u64,
    /// The stream below.
    pub line: Arc<Line>,
}

/// What connecting needs beside the upstream.
#[derive(Debug, Clone)]
pub struct Means {
    /// Told how it went.
    pub health: Arc<Health>,
    /// Whether there is a descriptor left.
    pub descriptors: Descriptors,
    /// The time.
    pub clock: Clock,
}

/// Connects for HTTP/1.1, within this time.
///
/// # Errors
/// [`ForwardError::Connect`] and [`ForwardError::Timeout`].
pub async fn for_http1(
    upstream: &Upstream,
    means: &Means,
    within: Duration,
) -> Result<Connected, ForwardError> {
    let (to, by) = (upstream.clone(), means.clone());
    let connecting = async move {
        let line = line(&to, &by, within).await?;
        let wire = Wire::new(&line);
        match &to.speaks {
            Speaks::Http | Speaks::H2c => begin_http1(wire, line, &by).await,
            Speaks::Https(how) => begin_http1(tls::connect(how, wire, tls::HTTP1).await?, line, &by).await,
        }
    };
    try_once(means.health.of(upstream), Way::Usual, means, within, connecting).await
}

/// Connects for HTTP/2.
///
/// # Errors
/// As [`for_http1`], and [`ForwardError::Protocol`] where HTTP/2 is not spoken.
pub async fn for_http2(
    upstream: &Upstream,
    means: &Means,
    within: Duration,
) -> Result<Carrier, ForwardError> {
    let way = match &upstream.speaks {
        // Never by a guess: one that reads frames as HTTP/1.1 may find requests in them that nobody has judged.
        Speaks::Http => {
            return Err(ForwardError::Protocol(
                "gRPC needs HTTP/2: name this upstream by h2c:// or https://".into(),
            ));
        }
        Speaks::H2c => Way::Usual,
        Speaks::Https(_) => Way::Calls,
    };
    let (to, by) = (upstream.clone(), means.clone());
    let connecting = async move {
        let line = line(&to, &by, within).await?;
        match &to.speaks {
            Speaks::Https(how) => {
                let stream = tls::connect(how, Wire::of_frames(&line), tls::HTTP2).await?;
                http2::begin(stream, line, Scheme::HTTPS).await
            }
            Speaks::Http | Speaks::H2c => http2::begin(Wire::of_frames(&line), line, Scheme::HTTP).await,
        }
    };
    try_once(means.health.of(upstream), way, means, within, connecting).await
}

/// Connects to somebody who takes bytes as they come; nothing is sent.
///
/// # Errors
/// As [`for_http1`].
pub async fn for_bytes(upstream: &Upstream, means: &Means, within: Duration) -> Result<Wire, ForwardError> {
    let (to, by) = (upstream.clone(), means.clone());
    let connecting = async move { line(&to, &by, within).await };
    let line = try_once(means.health.of(upstream), Way::Usual, means, within, connecting).await?;
    // What comes is no answer whose head could be without end.
    line.answered();
    Ok(Wire::new(&line))
}

/// Refused at once where connections hang and another try is under way; else what comes of it is told.
async fn try_once<T: 'static>(
    vitals: Arc<Vitals>,
    way: Way,
    means: &Means,
    within: Duration,
    connecting: impl Future<Output = Result<T, ForwardError>> + 'static,
) -> Result<T, ForwardError> {
    let turn = vitals.by(way).turn(means.clock.now());
    let clock = means.clock.clone();
    let work = async move {
        let connected = tokio::time::timeout(within, connecting).await;
        let connected = connected.unwrap_or(Err(ForwardError::Timeout(NO_CONNECTION)));
        tell(vitals.by(way), &connected, clock.now());
        connected
    };
    match turn {
        Turn::Free => work.await,
        // Its client may leave: whoever does so again and again must not keep all others out.
        Turn::Probe => tokio::task::spawn_local(work).await.unwrap_or(Err(ForwardError::Closed)),
        Turn::Taken => Err(ForwardError::Timeout(NO_CONNECTION_LATELY)),
    }
}

/// What is our own fault is none of the upstream's.
fn tell<T>(vital: &Vital, connected: &Result<T, ForwardError>, now: Now) {
    let how = match connected {
        Err(error) if is_our_fault(error) => return,
        Err(ForwardError::Timeout(_)) => Tried::Silent,
        Err(_) => Tried::Refused,
        Ok(_) => Tried::Reached,
    };
    vital.tried(how, now);
}

/// Whether there was no descriptor left for it.
pub fn is_our_fault(error: &ForwardError) -> bool {
    let ForwardError::Connect(error) = error else { return false };
    let os = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(os, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
        || error.get_ref().is_some_and(|inner| inner.is::<Exhausted>())
}

/// The last descriptors are kept for connections that stand.
#[derive(Debug, thiserror::Error)]
#[error("too few file descriptors are left")]
struct Exhausted;

async fn line(upstream: &Upstream, means: &Means, within: Duration) -> Result<Arc<Line>, ForwardError> {
    let socket = Socket::connect(&upstream.address, within).await.map_err(ForwardError::Connect)?;
    if !means.descriptors.allow_upstream(socket.as_raw_fd()) {
        return Err(ForwardError::Connect(io::Error::other(Exhausted)));
    }
    Ok(Line::new(socket))
}

async fn begin_http1<T>(io: T, line: Arc<Line>, means: &Means) -> Result<Connected, ForwardError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ForwardError::Connect(io::Error::other(error)))?;
    // Ends with the connection, or is aborted by the lease that holds it.
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(Connected { sender, driver: driver.abort_handle(), born: means.clock.now().mono_ms(), line })
}
