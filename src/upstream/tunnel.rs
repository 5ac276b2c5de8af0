//! WebSocket tunnels (RFC 6455): opened only after a true 101, registered so that a block cuts them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::select;
use http::Request;
use http::header::{HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::pool::Lease;
use crate::gateway::Tunnel;
use crate::gateway::exchange::Exchange;
use crate::stores::streams::{Kill, Killable};

/// For the second side to end after the first.
const GOODBYE: Duration = Duration::from_secs(5);
/// Of each direction.
const BUFFER: usize = 8 * 1024;
/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the upstream must prove with its 101.
pub fn expected_accept<B>(request: &Request<B>) -> Option<String> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY)?;
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    Some(STANDARD.encode(context.finish()))
}

/// Whether a 101 is the answer to that request.
pub fn is_true(headers: &HeaderMap, accept: Option<&str>) -> bool {
    let upgrade =
        headers.get(UPGRADE).is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let proof = headers.get(SEC_WEBSOCKET_ACCEPT).map(http::HeaderValue::as_bytes);
    upgrade && accept.is_some() && proof == accept.map(str::as_bytes)
}

/// Opens the tunnel: registered at once, running when both sides have switched, over when either ends or a block cuts it.
pub fn open(tunnel: Tunnel, upstream: OnUpgrade, lease: Lease) {
    let kill = Rc::<Kill>::default();
    let registration = tunnel.registrar.register(Rc::clone(&kill));
    let carried = tunnel.begin();
    let Tunnel { client, exchange, .. } = tunnel;
    let log = Log { exchange, up: Cell::new(0), down: Cell::new(0) };
    // Ends by itself, by its kill switch, or with the worker's thread.
    tokio::task::spawn_local(async move {
        let work = async {
            let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else { return false };
            pump(TokioIo::new(client), TokioIo::new(upstream), &log).await
        };
        if Killable::new(work, kill).await != Some(true) {
            carried.cut();
        }
        drop((registration, lease, carried));
    });
}

/// Copies both ways. When one side has ended, the other is told so and gets a moment for its goodbye: a tunnel has no
/// deadline, and a client must not hold one whose upstream is gone. A side that breaks off says none, and none is waited for.
/// Answers whether both sides said theirs.
async fn pump(client: impl AsyncRead + AsyncWrite, upstream: impl AsyncRead + AsyncWrite, log: &Log) -> bool {
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let up = std::pin::pin!(copy(client_read, upstream_write, &log.up));
    let down = std::pin::pin!(copy(upstream_read, client_write, &log.down));
    let (ended, rest) = select(up, down).await.factor_first();
    ended && tokio::time::timeout(GOODBYE, rest).await == Ok(true)
}

/// Copies what comes as it comes, counted, and passes the end on; `false`: it was broken off, by a reset or the like.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &Cell<u64>) -> bool {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length) = from.read(&mut buffer).await {
        let piece = buffer.get(..length).unwrap_or_default();
        if piece.is_empty() {
            // The other side may be gone already.
            let _ = to.shutdown().await;
            return true;
        }
        if to.write_all(piece).await.is_err() || to.flush().await.is_err() {
            // What it has still said is on its way in the other direction.
            return true;
        }
        count.set(count.get() + length as u64);
    }
    false
}

/// What the access log hears when the tunnel has ended, however that came.
struct Log {
    exchange: Rc<RefCell<Option<Box<Exchange>>>>,
    up: Cell<u64>,
    down: Cell<u64>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.borrow_mut().as_mut() {
            exchange.tunnelled(self.up.get(), self.down.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_of_rfc_6455_is_asked_for() {
        let request =
            Request::get("/").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==").body(()).unwrap();
        let accept = expected_accept(&request);
        assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let mut headers = HeaderMap::new();
        assert!(!is_true(&headers, accept.as_deref()));
        headers.insert("upgrade", "websocket".parse().unwrap());
        headers.insert("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".parse().unwrap());
        assert!(is_true(&headers, accept.as_deref()));
        assert!(!is_true(&headers, None));
        assert!(!is_true(&headers, Some("other")));
    }
}
