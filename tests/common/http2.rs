//! An HTTP/2 client that tells what happened to each stream.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use tokio::time::timeout;

use super::gate::Gate;
use super::{HOST, raw};

/// A connection; its other half runs until the test ends.
#[derive(Clone)]
pub struct Client {
    send: SendRequest<Bytes>,
    authority: String,
}

/// An answer, and whether its stream came to an orderly end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub whole: bool,
}

impl Client {
    pub async fn connect(gate: &Gate) -> Self {
        let tls = raw::tls(gate.https, HOST, raw::trusting(&gate.ca(), &["h2"])).await.unwrap();
        // A stream that a test does not read must not hold up its others.
        let (send, connection) =
            h2::client::Builder::new().initial_connection_window_size(1 << 20).handshake(tls).await.unwrap();
        tokio::spawn(connection);
        Self { send, authority: format!("{HOST}:{}", gate.https.port()) }
    }

    /// A request's head.
    pub fn head(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("https://{}{path}", self.authority))
    }

    /// Whether further streams may be opened; not after GOAWAY.
    pub async fn is_open(&self) -> bool {
        self.send.clone().ready().await.is_ok()
    }

    /// Opens a stream and leaves its body to the caller.
    pub async fn open(
        &self,
        head: http::request::Builder,
        end: bool,
    ) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.unwrap();
        send.send_request(head.body(()).unwrap(), end).unwrap()
    }

    /// Asks and reads all of the answer; `Err`: no answer at all.
    pub async fn ask(&self, method: &str, path: &str, body: &'static [u8]) -> Result<Answer, h2::Error> {
        let (answer, mut stream) = self.open(self.head(method, path), body.is_empty()).await;
        if !body.is_empty() {
            stream.send_data(Bytes::from_static(body), true)?;
        }
        read(answer).await
    }
}

/// Reads all of an answer.
pub async fn read(answer: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut stream) = timeout(raw::LIMIT, answer).await.expect("an answer in time")?.into_parts();
    let mut body = Vec::new();
    let mut whole = true;
    while let Some(piece) = timeout(raw::LIMIT, stream.data()).await.expect("an end in time") {
        match piece {
            Ok(piece) => {
                body.extend_from_slice(&piece);
                let _ = stream.flow_control().release_capacity(piece.len());
            }
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, whole })
}
