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

use super::readiness::Readiness;
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
    if shown.readiness.is_ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
}
