//! Clients that make the least noise: one request in flight over HTTP/1.1, a fixed number over HTTP/2.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use h2::client::SendRequest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::{Gateway, HOST};

/// Streams in flight on the HTTP/2 connection.
pub const STREAMS: usize = 32;

/// One connection.
pub enum Client {
    /// HTTP/1.1.
    H1(Box<TlsStream<TcpStream>>, Vec<u8>),
    /// HTTP/2.
    H2(SendRequest<Bytes>, Box<http::Request<()>>),
}

impl Client {
    pub async fn h1(gateway: &Gateway) -> Self {
        let tls = tls(gateway, "http/1.1").await;
        Self::H1(Box::new(tls), request(gateway).into_bytes())
    }

    /// HTTP/1.1, with the body of a login to this path.
    pub async fn posting(gateway: &Gateway, path: &str) -> Self {
        let tls = tls(gateway, "http/1.1").await;
        let body = r#"{"username":"ann","password":"correct horse battery staple"}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {HOST}:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            gateway.https.port(),
            body.len()
        );
        Self::H1(Box::new(tls), request.into_bytes())
    }

    pub async fn h2(gateway: &Gateway) -> Self {
        let tls = tls(gateway, "h2").await;
        let (sender, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut request =
            http::Request::get(format!("https://{HOST}:{}/1k", gateway.https.port())).body(()).unwrap();
        if gateway.protected {
            let bearer = format!("Bearer {}", token()).parse().unwrap();
            request.headers_mut().insert("authorization", bearer);
        }
        Self::H2(sender, Box::new(request))
    }

    /// Sends so many requests and reads their answers.
    pub async fn ask(&mut self, requests: usize) {
        match self {
            Self::H1(stream, request) => {
                for _ in 0..requests {
                    ask(stream, request).await;
                }
            }
            Self::H2(sender, request) => {
                for begun in (0..requests).step_by(STREAMS) {
                    let mut answers = Vec::with_capacity(STREAMS);
                    for _ in begun..requests.min(begun + STREAMS) {
                        *sender = sender.clone().ready().await.unwrap();
                        answers.push(sender.send_request((**request).clone(), true).unwrap().0);
                    }
                    for answer in answers {
                        let answer = answer.await.unwrap();
                        assert_eq!(answer.status(), 200);
                        let mut body = answer.into_body();
                        while let Some(data) = body.data().await {
                            let length = data.unwrap().len();
                            body.flow_control().release_capacity(length).unwrap();
                        }
                    }
                }
            }
        }
    }
}

/// One request over HTTP/1.1, and its whole answer.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) {
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let mut got = Vec::with_capacity(4096);
    loop {
        assert!(stream.read_buf(&mut got).await.unwrap() > 0, "the gateway has closed");
        let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        assert!(got.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&got));
        if got.len() >= end + 4 + 1024 {
            return;
        }
    }
}

/// With a token where there are blocks to look it up in.
pub fn request(gateway: &Gateway) -> String {
    let bearer =
        if gateway.protected { format!("Authorization: Bearer {}\r\n", token()) } else { String::new() };
    format!("GET /1k HTTP/1.1\r\nHost: {HOST}:{}\r\n{bearer}\r\n", gateway.https.port())
}

pub async fn tls(gateway: &Gateway, alpn: &str) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(gateway.https).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    TlsConnector::from(trusting(&gateway.ca(), alpn)).connect(name, stream).await.unwrap()
}

/// Those of a CA's certificate.
pub fn roots(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

fn trusting(ca: &Path, alpn: &str) -> Arc<ClientConfig> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

/// A JWT of common size that no block names.
fn token() -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims =
        r#"{"iss":"files","sub":"42","jti":"5e0c7e1f","iat":1789990000,"exp":4102444800,"role":"user"}"#;
    format!("{}.{}.{}", encode(r#"{"alg":"HS256","typ":"JWT"}"#), encode(claims), encode(&"s".repeat(32)))
}
