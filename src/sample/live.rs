//! What stays open: a WebSocket that echoes and ticks, and server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use serde::Deserialize;

use super::store::Store;
use super::{login, problem};

const TICK: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<Arc<Store>> {
    Router::new().route("/ws", get(socket)).route("/events", get(events))
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
}

async fn socket(
    State(store): State<Arc<Store>>,
    Query(query): Query<Token>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    match knows(&store, &query, &headers) {
        true => upgrade.max_message_size(64 << 10).on_upgrade(echo),
        false => problem(StatusCode::UNAUTHORIZED, "Authentication required"),
    }
}

async fn events(State(store): State<Arc<Store>>, Query(query): Query<Token>, headers: HeaderMap) -> Response {
    match knows(&store, &query, &headers) {
        true => Sse::new(ticks()).into_response(),
        false => problem(StatusCode::UNAUTHORIZED, "Authentication required"),
    }
}

fn knows(store: &Store, query: &Token, headers: &HeaderMap) -> bool {
    let token = login::bearer(headers).or(query.token.as_deref());
    token.is_some_and(|token| login::check(store, token).is_some())
}

async fn echo(mut socket: WebSocket) {
    let mut tick = tokio::time::interval(TICK);
    let mut count = 0_u64;
    loop {
        let message = tokio::select! {
            _ = tick.tick() => {
                count += 1;
                Message::text(format!("tick {count}"))
            }
            received = socket.recv() => match received {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => message,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            },
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
}

fn ticks() -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold((tokio::time::interval(TICK), 0_u64), |(mut tick, count)| async move {
        tick.tick().await;
        Some((Ok(Event::default().event("tick").data((count + 1).to_string())), (tick, count + 1)))
    })
}
