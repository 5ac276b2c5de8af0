//! One connection of the operator's side: HTTP/1.1 by hyper, with bounds, around an axum router.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};

/// Connections at once: people and scrapers are few.
pub(super) const CONNECTIONS: usize = 64;
/// A connection may not wait longer than this for a request head, idle ones included.
const HEAD: Duration = Duration::from_secs(10);
/// Longest pause after a failed accept (no descriptors left): short, so that the socket comes back at once.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// Serves one connection to its end; what goes wrong on it concerns nobody else.
pub(super) async fn connection<I>(io: I, routes: Router)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = TowerToHyperService::new(routes);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(io), service);
    let _ = served.await;
}
