//! The sample application behaves as the app file `keepstack` says that Keepstack does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]

mod common;

use std::net::SocketAddr;

use common::raw::{Answer, ask, read_answer};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

async fn sample() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(portcullis::sample::serve(listener));
    address
}

async fn send(address: SocketAddr, line: &str, headers: &str, body: &str) -> Answer {
    let request =
        format!("{line} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
    ask(&mut TcpStream::connect(address).await.unwrap(), request.as_bytes()).await
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

async fn login(address: SocketAddr, password: &str) -> Answer {
    let body = format!(r#"{{"username":"demo","password":"{password}"}}"#);
    send(address, "POST /api/auth/login", "Content-Type: application/json\r\n", &body).await
}

async fn bearer(address: SocketAddr) -> String {
    let token = json(&login(address, "demo").await)["token"].as_str().unwrap().to_owned();
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn login_hands_out_a_token_of_two_parts_that_opens_the_rest() {
    let address = sample().await;
    let bearer = bearer(address).await;
    assert_eq!(bearer.matches('.').count(), 1);
    let me = send(address, "GET /api/auth/me", &bearer, "").await;
    assert_eq!((me.status, json(&me)["username"].as_str()), (200, Some("demo")));
    let forged = bearer.replace("\r\n", "x\r\n");
    assert_eq!(send(address, "GET /api/auth/me", &forged, "").await.status, 401);
}

#[tokio::test]
async fn refusals_have_keepstacks_shape() {
    let address = sample().await;
    let (wrong, stranger) = (login(address, "no").await, send(address, "GET /api/auth/me", "", "").await);
    assert_eq!((wrong.status, wrong.text().as_str()), (401, r#"{"detail":"Invalid credentials"}"#));
    assert_eq!((stranger.status, stranger.text().as_str()), (401, r#"{"detail":"Authentication required"}"#));
    let missing = send(address, "GET /s/no-such-link", "", "").await;
    assert_eq!((missing.status, missing.text().as_str()), (404, r#"{"detail":"Invalid or revoked link"}"#));
}

#[tokio::test]
async fn a_file_goes_up_and_comes_back_whole_in_ranges_and_by_a_link() {
    let address = sample().await;
    let bearer = bearer(address).await;
    let form = "--b\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.txt\"\r\n\
                Content-Type: text/plain\r\n\r\nhello world\r\n--b--\r\n";
    let headers = format!("{bearer}Content-Type: multipart/form-data; boundary=b\r\n");
    let created = send(address, "POST /api/assets", &headers, form).await;
    let id = json(&created)["created"][0]["uuid"].as_str().unwrap().to_owned();
    let path = format!("GET /api/assets/{id}/file");
    assert_eq!(send(address, &path, &bearer, "").await.text(), "hello world");
    let part = send(address, &path, &format!("{bearer}Range: bytes=6-\r\n"), "").await;
    assert_eq!((part.status, part.text().as_str()), (206, "world"));
    assert_eq!(part.header("content-range"), Some("bytes 6-10/11"));
    let headers = format!("{bearer}Content-Type: application/json\r\n");
    let shared = send(address, "POST /api/shares", &headers, &format!(r#"{{"asset":"{id}"}}"#)).await;
    let url = json(&shared)["url"].as_str().unwrap().to_owned();
    assert_eq!(send(address, &format!("GET {url}/file"), "", "").await.text(), "hello world");
    assert_eq!(send(address, &format!("GET {url}"), "", "").await.status, 200);
}

#[tokio::test]
async fn a_websocket_ticks_for_those_with_a_token_only() {
    let address = sample().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(send(address, "GET /ws", upgrade, "").await.status, 401);
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{upgrade}{}\r\n", bearer(address).await);
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream, true).await.status, 101);
    let mut frame = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut frame).await.unwrap();
    assert_eq!(&frame, b"\x81\x06tick 1");
}

#[tokio::test]
async fn a_synthetic_download_is_as_long_as_asked() {
    let address = sample().await;
    let answer = send(address, "GET /api/assets/any/file?size=300000", &bearer(address).await, "").await;
    assert_eq!(answer.body.len(), 300_000);
}
