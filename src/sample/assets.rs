//! Files: list, upload, download with ranges, and a synthetic download as long and as slow as one likes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Multipart, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Interval, MissedTickBehavior};

use super::login::User;
use super::problem;
use super::store::{File, MAX_FILE, Store};

pub(super) fn routes() -> Router<Arc<Store>> {
    Router::new()
        .route("/api/assets", get(list).post(upload))
        .route("/api/assets/{id}/file", get(download))
        .route("/api/assets/{id}/thumb", get(thumb))
}

async fn list(_user: User, State(store): State<Arc<Store>>) -> Json<Value> {
    let assets: Vec<_> = store.state().files.iter().map(described).collect();
    Json(json!({ "assets": assets }))
}

async fn upload(
    _user: User,
    State(store): State<Arc<Store>>,
    mut form: Multipart,
) -> Result<Json<Value>, Response> {
    let broken = |_| problem(StatusCode::UNPROCESSABLE_ENTITY, "The upload is broken");
    let mut created = Vec::new();
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        if field.name() != Some("files") {
            continue;
        }
        let title = field.file_name().unwrap_or("unnamed").chars().take(200).collect();
        let media_type = field.content_type().unwrap_or("application/octet-stream").to_owned();
        let mut content = Vec::new();
        while let Some(piece) = field.chunk().await.map_err(broken)? {
            if content.len() + piece.len() > MAX_FILE {
                return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, "The sample keeps files of up to 4 MiB"));
            }
            content.extend(piece);
        }
        created.push(described(&store.add_file(title, media_type, content.into())));
    }
    Ok(Json(json!({ "created": created })))
}

fn described(file: &File) -> Value {
    json!({ "uuid": file.id, "title": file.title, "media_type": file.media_type, "size": file.content.len() })
}

#[derive(Deserialize)]
struct Synthetic {
    /// Bytes: serve so many instead of the file.
    size: Option<u64>,
    /// Bytes a second.
    rate: Option<u64>,
}

async fn download(
    _user: User,
    State(store): State<Arc<Store>>,
    Path(id): Path<String>,
    Query(synthetic): Query<Synthetic>,
    headers: HeaderMap,
) -> Response {
    let Some(file) = store.file(&id).or_else(|| store.state().files.front().cloned().filter(|_| id == "any"))
    else {
        return problem(StatusCode::NOT_FOUND, "Not found");
    };
    match synthetic.size {
        Some(size) => slow(size, synthetic.rate.unwrap_or(u64::MAX)),
        None => content(&file, &headers),
    }
}

async fn thumb() -> impl IntoResponse {
    let picture = r##"<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><path fill="#357" d="M8 4h32l16 16v40H8z"/></svg>"##;
    ([(header::CONTENT_TYPE, "image/svg+xml")], picture)
}

/// A file or one range of it, as an attachment.
pub(super) fn content(file: &File, headers: &HeaderMap) -> Response {
    let length = file.content.len();
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok())
        .and_then(|range| parse(range, length));
    let (status, bytes) = match range {
        Some((first, last)) => (StatusCode::PARTIAL_CONTENT, file.content.slice(first..=last)),
        None => (StatusCode::OK, file.content.clone()),
    };
    let mut response = (status, bytes).into_response();
    let answer = response.headers_mut();
    answer.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answer.insert(header::CONTENT_TYPE, value(&file.media_type));
    let name: String =
        file.title.chars().filter(|c| c.is_ascii_alphanumeric() || "._- ".contains(*c)).collect();
    answer.insert(header::CONTENT_DISPOSITION, value(&format!("attachment; filename=\"{name}\"")));
    if let Some((first, last)) = range {
        answer.insert(header::CONTENT_RANGE, value(&format!("bytes {first}-{last}/{length}")));
    }
    response
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// One range; anything else is served whole, as RFC 9110 allows.
fn parse(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = length.checked_sub(1)?;
    let (first, last) = match (first, last) {
        ("", suffix) => (length.saturating_sub(suffix.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.min(end)),
    };
    (first <= last).then_some((first, last))
}

/// `size` bytes, `rate` of them a second.
fn slow(size: u64, rate: u64) -> Response {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let body = Body::new(Slow { left: size, each: (rate / 10).max(1), tick });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"synthetic.bin\""),
    ];
    let mut response = (headers, body).into_response();
    response.headers_mut().insert(header::CONTENT_LENGTH, size.into());
    response
}

struct Slow {
    left: u64,
    each: u64,
    tick: Interval,
}

const PIECE: usize = 64 << 10;
static ZEROS: [u8; PIECE] = [0; PIECE];

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        // More than a piece in a tenth of a second: as fast as the peer takes it.
        if self.each <= PIECE as u64 {
            std::task::ready!(self.tick.poll_tick(cx));
        }
        let length = self.left.min(self.each).min(PIECE as u64);
        self.left -= length;
        let zeros = Bytes::from_static(&ZEROS);
        Poll::Ready(Some(Ok(http_body::Frame::data(zeros.slice(..usize::try_from(length).unwrap_or(PIECE))))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_where_they_make_sense() {
        for (range, expected) in [
            ("bytes=0-3", Some((0, 3))),
            ("bytes=4-", Some((4, 9))),
            ("bytes=-2", Some((8, 9))),
            ("bytes=5-99", Some((5, 9))),
            ("bytes=10-", None),
            ("bytes=3-1", None),
            ("bytes=x-1", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(parse(range, 10), expected, "{range}");
        }
        assert_eq!(parse("bytes=0-", 0), None);
    }
}
