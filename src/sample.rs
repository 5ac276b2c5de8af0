//! The sample application of `portcullis demo` and of tests: small, in memory, and like Keepstack in routes, tokens and
//! answers, so that the app file `keepstack` fits it.
//!
//! Caveat: it is as weak as applications are: it counts no failed logins, sends no security headers and shows its docs and
//! metrics to everybody. That is what the gateway in front of it is for.

mod assets;
mod live;
mod login;
mod pages;
mod shares;
mod store;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use store::Store;

/// Serves the sample application until the listener fails.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    axum::serve(listener, router()).await
}

/// The application's routes.
pub fn router() -> Router {
    Router::new()
        .merge(login::routes())
        .merge(assets::routes())
        .merge(shares::routes())
        .merge(live::routes())
        .merge(pages::routes())
        .route("/healthz", get(|| async { "ok" }))
        .route("/metrics", get(metrics))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "Not Found") })
        .layer(DefaultBodyLimit::max(store::MAX_FILE * 4))
        .with_state(Arc::new(Store::new()))
}

async fn metrics() -> impl IntoResponse {
    let text = "# HELP sample_up Always 1.\n# TYPE sample_up gauge\nsample_up 1\n";
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// An error as Keepstack answers it.
fn problem(status: StatusCode, detail: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "detail": detail }))).into_response()
}
