//! The page of the sample application: no inline script or style, so it works under a strict policy.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::Html;
use axum::routing::get;

use super::store::Store;

pub(super) fn routes() -> Router<Arc<Store>> {
    Router::new()
        .route("/", get(|| async { Html(include_str!("index.html")) }))
        .route("/app.js", get(|| async { text("text/javascript; charset=utf-8", include_str!("app.js")) }))
        .route("/styles.css", get(|| async { text("text/css; charset=utf-8", include_str!("styles.css")) }))
        .route(
            "/docs",
            get(|| async { Html("<!doctype html><title>Docs</title><h1>API documentation</h1>\n") }),
        )
}

fn text(media_type: &'static str, content: &'static str) -> ([(HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, media_type)], content)
}
