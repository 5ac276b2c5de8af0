//! How the authority is spoken to: https only, each request on a connection of its own, one deadline for it, a cap on its
//! answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For one request, from the name to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// A chain of certificates is far smaller.
const LARGEST: usize = 256 << 10;

/// A client of one authority.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    deadline: Duration,
    /// Seconds that the last answer asked to wait; 0: nothing was said.
    wait: Arc<AtomicU64>,
}

/// What went wrong between us and the authority, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(String);

impl Client {
    pub fn new(tls: ClientConfig) -> Self {
        Self { tls: Arc::new(tls), deadline: DEADLINE, wait: Arc::default() }
    }

    /// Seconds that the authority has asked to wait since this was asked last.
    pub fn take_wait(&self) -> Option<u64> {
        Some(self.wait.swap(0, Relaxed)).filter(|seconds| *seconds > 0)
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Unreachable> {
        let url = request.uri().to_string();
        let answered = tokio::time::timeout(self.deadline, self.asked(request)).await;
        let answer = answered.unwrap_or_else(|_| Err(format!("no whole answer within {:?}", self.deadline)));
        answer.map_err(|why| Unreachable(format!("{url}: {why}")))
    }

    async fn asked(&self, mut request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, String> {
        let uri = request.uri().clone();
        if uri.scheme_str() != Some("https") {
            return Err("the authority leads to an address without TLS".into());
        }
        let authority = uri.authority().ok_or("it names no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(443);
        let named = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, named);
        *request.uri_mut() = path_of(&uri)?;
        let stream = TcpStream::connect((&*host, port)).await.map_err(|error| told(&error))?;
        let name = ServerName::try_from(host).map_err(|_| "its host is no name for TLS".to_owned())?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        let said = |error: hyper::Error| format!("broken answer: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
        let answered = async move {
            let answer = sender.send_request(request).await.map_err(said)?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let body = body.map_err(|error| format!("broken or larger than {} KiB: {error}", LARGEST >> 10))?;
            Ok::<_, String>((parts, body.to_bytes()))
        };
        // The connection ends after its answer, when nobody holds its sender any more.
        let (answer, _) = tokio::join!(answered, connection);
        let (parts, body) = answer?;
        self.note_wait(parts.status.as_u16(), &parts.headers);
        Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
    }

    /// Only of a refusal: elsewhere the field says when to look again.
    fn note_wait(&self, status: u16, headers: &HeaderMap) {
        let text = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        if let (429 | 503, Some(seconds)) = (status, text.and_then(|text| text.trim().parse().ok())) {
            self.wait.store(seconds, Relaxed);
        }
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move { client.exchange(request).await.map_err(|error| Error::Other(Box::new(error))) })
    }
}

fn path_of(uri: &Uri) -> Result<Uri, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse().map_err(|_| "its path is none".to_owned())
}

fn told(error: &io::Error) -> String {
    format!("no connection: {error}")
}
