//! New connections to an upstream.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::health::Health;
use super::wire::{Line, Wire};
use crate::config::settings::Upstream;
use crate::gateway::ForwardError;
use crate::request::body::Body;
use crate::stores::descriptors::Descriptors;

/// Name resolution and TCP handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Larger heads of answers are refused.
const MAX_HEAD: usize = 128 * 1024;
/// What the kernel takes from an upstream for a client that takes nothing; its own choice goes up to megabytes.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// A connection and the task that drives it.
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

/// Connects.
///
/// # Errors
/// [`ForwardError::Connect`] and [`ForwardError::Timeout`].
pub async fn connect(upstream: &Upstream, means: &Means) -> Result<Connected, ForwardError> {
    let target = (&*upstream.host, upstream.port);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target))
        .await
        .map_err(|_| ForwardError::Timeout("no connection"))
        .and_then(|connected| connected.map_err(ForwardError::Connect));
    means.health.set(upstream, connected.is_ok());
    let stream = connected?;
    if !means.descriptors.allow_upstream(stream.as_raw_fd()) {
        return Err(ForwardError::Connect(io::Error::other("too few file descriptors are left")));
    }
    stream.set_nodelay(true).map_err(ForwardError::Connect)?;
    SockRef::from(&stream).set_recv_buffer_size(RECEIVE_BUFFER).map_err(ForwardError::Connect)?;
    let line = Line::new(stream);
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(Wire::new(&line)))
        .await
        .map_err(|error| ForwardError::Connect(io::Error::other(error)))?;
    // Ends with the connection, or is aborted by the lease that holds it.
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(Connected { sender, driver: driver.abort_handle(), line })
}
