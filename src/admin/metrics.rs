//! The listener of metrics and health: `/metrics`, `/livez`, `/readyz`.
//!
//! Caveat: whoever is not in `metrics_only_from` gets 404, but can connect; bind it to an address of the inside.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::readiness::{self, Readiness};
use super::serve;
use crate::config::values::Networks;

/// Gives the metrics as text: asked on each scrape.
pub type Scrape = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = String> + Send>> + Send + Sync>;

/// What the listener shows, and to whom.
#[derive(Clone)]
pub struct Shown {
    /// The metrics.
    pub scrape: Scrape,
    /// Whether requests are taken.
    pub readiness: Readiness,
    /// Who is answered; a reload replaces it.
    pub only_from: Arc<ArcSwap<Networks>>,
}

/// Answers until dropped.
pub async fn serve(listener: TcpListener, shown: Shown) {
    let routes = routes(shown.clone());
    let nothing = Router::new();
    let slots = Arc::new(Semaphore::new(serve::CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(serve::PAUSE).await;
            continue;
        };
        let routes = if allowed(&shown, peer.ip()) { routes.clone() } else { nothing.clone() };
        tasks.spawn(async move {
            serve::connection(stream, routes).await;
            drop(slot);
        });
    }
}

fn allowed(shown: &Shown, peer: IpAddr) -> bool {
    shown.only_from.load().contains(peer.to_canonical())
}

fn routes(shown: Shown) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(shown)
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let text = (shown.scrape)().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let state = shown.readiness.state();
    let status =
        if state == readiness::State::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", state.word())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::readiness::latch;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_listed_networks_are_answered_and_readiness_follows_the_latch() {
        let (latch, readiness) = latch();
        let shown = Shown {
            scrape: Arc::new(|| Box::pin(async { "portcullis_blocks 1\n".to_owned() })),
            readiness,
            only_from: Arc::new(ArcSwap::from_pointee(Networks::loopback())),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = async {
            assert!(get(address, "/metrics").await.ends_with("portcullis_blocks 1\n"));
            assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
            latch.ready();
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
            drop(latch);
            assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
            shown.only_from.store(Arc::new(Networks::default()));
            for path in ["/metrics", "/livez", "/readyz"] {
                assert!(get(address, path).await.starts_with("HTTP/1.1 404"), "{path}");
            }
        };
        tokio::select! {
            () = serve(listener, shown.clone()) => panic!("the listener ended"),
            () = asked => {}
        }
    }
}
