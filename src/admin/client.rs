//! The other end of the admin socket, for the CLI: one request, one answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;

/// Largest answer: a list of 100,000 blocks is some 30 MiB.
const ANSWER: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody listens: the gateway does not run.
    #[error("no gateway answers on its socket: {0}")]
    Down(io::Error),
    /// The socket may not be opened by this user.
    #[error("this user may not open the socket: {0}")]
    Forbidden(io::Error),
    /// It was asked, and may have done it, but no answer came.
    #[error("the gateway was asked but did not answer: {0}")]
    NoAnswer(String),
}

/// Asks the gateway once and waits at most `limit`.
///
/// # Errors
/// See [`CallError`]: only `Down` and `Forbidden` say that nothing was done.
pub fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
    limit: Duration,
) -> Result<(StatusCode, Bytes), CallError> {
    let silent = |error: &dyn ToString| CallError::NoAnswer(error.to_string());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| silent(&error))?;
    let exchange = async {
        let stream = UnixStream::connect(socket).await.map_err(not_connected)?;
        ask(stream, method, path, body).await.map_err(|error| silent(&error))
    };
    runtime
        .block_on(async { tokio::time::timeout(limit, exchange).await })
        .unwrap_or_else(|_| Err(silent(&format!("nothing within {} s", limit.as_secs()))))
}

fn not_connected(error: io::Error) -> CallError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => CallError::Forbidden(error),
        _ => CallError::Down(error),
    }
}

async fn ask(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "portcullis")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection ends only after the answer, unless it broke.
        broken = connection => { broken?; answer.await }
    }
}
