//! New connections to an upstream.

use std::io;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::config::settings::Upstream;
use crate::gateway::ForwardError;
use crate::request::body::Body;

/// Name resolution and TCP handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Larger heads of answers are refused.
const MAX_HEAD: usize = 128 * 1024;

/// A connection and the task that drives it.
#[derive(Debug)]
pub struct Connected {
    /// Takes requests.
    pub sender: http1::SendRequest<Body>,
    /// Ends the connection at once.
    pub driver: AbortHandle,
}

/// Connects.
///
/// # Errors
/// [`ForwardError::Connect`] and [`ForwardError::Timeout`].
pub async fn connect(upstream: &Upstream) -> Result<Connected, ForwardError> {
    let target = (&*upstream.host, upstream.port);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(target))
        .await
        .map_err(|_| ForwardError::Timeout("no connection"))?
        .map_err(ForwardError::Connect)?;
    stream.set_nodelay(true).map_err(ForwardError::Connect)?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ForwardError::Connect(io::Error::other(error)))?;
    // Ends with the connection, or is aborted by the lease that holds it.
    let driver = tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(Connected { sender, driver: driver.abort_handle() })
}
