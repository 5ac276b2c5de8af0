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

use super::health::Health;
use super::http2::{self, Carrier};
use super::socket::Socket;
use super::tls;
use super::wire::{Line, Wire};
use crate::config::upstream::{Speaks, Upstream};
use crate::gateway::ForwardError;
use crate::request::body::Body;
use crate::stores::descriptors::Descriptors;

/// Name resolution, TCP and TLS handshake, and HTTP/2's first words together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Larger heads of answers are refused.
const MAX_HEAD: usize = 128 * 1024;

/// A connection of HTTP/1.1 and the task that drives it.
#[derive(Debug)]
pub struct Connected {
    /// Takes requests.
    pub sender: http1::SendRequest<Body>,
    /// Ends the connection at once.
    pub driver: AbortHandle,
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
}

/// Connects for HTTP/1.1.
///
/// # Errors
/// [`ForwardError::Connect`] and [`ForwardError::Timeout`].
pub async fn for_http1(upstream: &Upstream, means: &Means) -> Result<Connected, ForwardError> {
    let connected = in_time(async {
        let line = line(upstream, means).await?;
        let wire = Wire::new(&line);
        match &upstream.speaks {
            Speaks::Http | Speaks::H2c => begin_http1(wire, line).await,
            Speaks::Https(how) => begin_http1(tls::connect(how, wire, tls::HTTP1).await?, line).await,
        }
    })
    .await;
    means.health.set(upstream, connected.is_ok());
    connected
}

/// Connects for HTTP/2.
///
/// # Errors
/// As [`for_http1`], and [`ForwardError::Protocol`] where HTTP/2 is not spoken.
pub async fn for_http2(upstream: &Upstream, means: &Means) -> Result<Carrier, ForwardError> {
    let connected = in_time(async {
        match &upstream.speaks {
            // Never by a guess: one that reads frames as HTTP/1.1 may find requests in them that nobody has judged.
            Speaks::Http => Err(ForwardError::Protocol(
                "gRPC needs HTTP/2: name this upstream by h2c:// or https://".into(),
            )),
            Speaks::H2c => {
                let line = line(upstream, means).await?;
                http2::begin(Wire::new(&line), line, Scheme::HTTP).await
            }
            Speaks::Https(how) => {
                let line = line(upstream, means).await?;
                let stream = tls::connect(how, Wire::new(&line), tls::HTTP2).await?;
                http2::begin(stream, line, Scheme::HTTPS).await
            }
        }
    })
    .await;
    // Whoever says that his request is gRPC could else make any upstream look as if it were down.
    if connected.is_ok() || matches!(upstream.speaks, Speaks::H2c) {
        means.health.set(upstream, connected.is_ok());
    }
    connected
}

/// Connects to somebody who takes bytes as they come; nothing is sent.
///
/// # Errors
/// As [`for_http1`].
pub async fn for_bytes(upstream: &Upstream, means: &Means) -> Result<Wire, ForwardError> {
    let connected = in_time(line(upstream, means)).await;
    means.health.set(upstream, connected.is_ok());
    let line = connected?;
    // What comes is no answer whose head could be without end.
    line.answered();
    Ok(Wire::new(&line))
}

async fn in_time<T>(connecting: impl Future<Output = Result<T, ForwardError>>) -> Result<T, ForwardError> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    connected.unwrap_or(Err(ForwardError::Timeout("no connection")))
}

async fn line(upstream: &Upstream, means: &Means) -> Result<Arc<Line>, ForwardError> {
    let socket = Socket::connect(&upstream.address).await.map_err(ForwardError::Connect)?;
    if !means.descriptors.allow_upstream(socket.as_raw_fd()) {
        return Err(ForwardError::Connect(io::Error::other("too few file descriptors are left")));
    }
    Ok(Line::new(socket))
}

async fn begin_http1<T>(io: T, line: Arc<Line>) -> Result<Connected, ForwardError>
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
    Ok(Connected { sender, driver: driver.abort_handle(), line })
}
