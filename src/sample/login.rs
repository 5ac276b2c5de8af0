//! Login and tokens: `base64url(json).base64url(hmac)`, as Keepstack makes them.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::problem;
use super::store::Store;
use crate::clock::Clock;

/// Seconds that a token lives: Keepstack's seven days.
const LIFETIME: u64 = 168 * 3600;

/// Name, password, subject, role of those who may log in.
const USERS: [(&str, &str, u64, &str); 2] = [("demo", "demo", 1, "admin"), ("guest", "guest", 2, "viewer")];

pub(super) fn routes() -> Router<Arc<Store>> {
    Router::new().route("/api/auth/login", post(login)).route("/api/auth/me", get(me))
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

/// Who a request comes from, as its token says; the signature has been checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct User {
    sub: u64,
    role: String,
    exp: u64,
}

async fn login(State(store): State<Arc<Store>>, Json(login): Json<Login>) -> Result<Json<Value>, Response> {
    let found =
        USERS.iter().find(|(name, password, ..)| login.username == *name && login.password == *password);
    let Some((name, _, sub, role)) = found else {
        return Err(problem(StatusCode::UNAUTHORIZED, "Invalid credentials"));
    };
    let user = User { sub: *sub, role: (*role).into(), exp: Clock::system().now().unix() + LIFETIME };
    let token = sign(&store, &user);
    Ok(Json(json!({ "token": token, "user": { "id": sub, "username": name, "role": role } })))
}

async fn me(user: User) -> Json<Value> {
    let name = USERS.iter().find(|(_, _, sub, _)| *sub == user.sub).map_or("?", |(name, ..)| name);
    Json(json!({ "id": user.sub, "username": name, "role": user.role }))
}

/// A request without a good token is refused before its body is read.
impl FromRequestParts<Arc<Store>> for User {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, store: &Arc<Store>) -> Result<Self, Response> {
        bearer(&parts.headers)
            .and_then(|token| check(store, token))
            .ok_or_else(|| problem(StatusCode::UNAUTHORIZED, "Authentication required"))
    }
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// The user that a token names, if we have signed it and it has not ended.
pub(super) fn check(store: &Store, token: &str) -> Option<User> {
    let (body, signature) = token.split_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    aws_lc_rs::hmac::verify(&store.key, body.as_bytes(), &signature).ok()?;
    let user: User = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
    (user.exp > Clock::system().now().unix()).then_some(user)
}

fn sign(store: &Store, user: &User) -> String {
    let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(user).unwrap_or_default());
    let signature = aws_lc_rs::hmac::sign(&store.key, body.as_bytes());
    format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
}
