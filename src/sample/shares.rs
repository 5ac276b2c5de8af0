//! Public links: who has the link has the file.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::assets::content;
use super::login::User;
use super::problem;
use super::store::Store;

pub(super) fn routes() -> Router<Arc<Store>> {
    Router::new()
        .route("/api/shares", get(list).post(create))
        .route("/s/{token}", get(page))
        .route("/s/{token}/file", get(file))
}

#[derive(Deserialize)]
struct Create {
    /// The file's id.
    asset: String,
}

async fn create(
    _user: User,
    State(store): State<Arc<Store>>,
    Json(create): Json<Create>,
) -> Result<Json<Value>, Response> {
    let share = store.share(&create.asset).ok_or_else(|| problem(StatusCode::NOT_FOUND, "Not found"))?;
    Ok(Json(json!({ "token": share.token, "url": format!("/s/{}", share.token) })))
}

async fn list(_user: User, State(store): State<Arc<Store>>) -> Json<Value> {
    let shares: Vec<_> = store
        .state()
        .shares
        .iter()
        .map(|share| json!({ "token": share.token, "asset": share.file }))
        .collect();
    Json(json!({ "shares": shares }))
}

async fn page(State(store): State<Arc<Store>>, Path(token): Path<String>) -> Response {
    let Some(file) = store.shared_file(&token) else { return missing() };
    let title = escaped(&file.title);
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>:root{{color-scheme:light dark}}body{{margin:3rem auto;max-width:40rem;padding:0 1.25rem;\
         font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}}</style>\
         <main><h1>{title}</h1><p>{} bytes</p><p><a href=\"/s/{token}/file\">Download</a></p></main>\n",
        file.content.len()
    ))
    .into_response()
}

async fn file(State(store): State<Arc<Store>>, Path(token): Path<String>, headers: HeaderMap) -> Response {
    store.shared_file(&token).map_or_else(missing, |file| content(&file, &headers))
}

fn missing() -> Response {
    problem(StatusCode::NOT_FOUND, "Invalid or revoked link")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
