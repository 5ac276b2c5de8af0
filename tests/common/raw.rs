//! Clients that send exactly the bytes they are told, over TLS that trusts one CA, or in the clear.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::strict;

/// How long a client waits for what must come.
pub const LIMIT: Duration = Duration::from_secs(10);

/// A TLS client configuration that trusts the CA in this file only.
pub fn trusting(ca: &Path, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).expect("the CA's file") {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A TLS connection that names `host`.
pub async fn tls(
    address: SocketAddr,
    host: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    timeout(LIMIT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await?
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let named =
            |line: &&str| line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        self.head.lines().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends these bytes and takes what comes until the peer closes; nothing more comes after [`LIMIT`].
pub async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> Vec<u8> {
    // A peer that refuses early may close before all is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    answer
}

/// Sends these bytes and reads one answer: by its length, its chunks, or up to the end.
///
/// # Panics
/// When no whole answer comes in time.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> Answer {
    // As above; what it said before it closed is there to be read.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let is_head = bytes.starts_with(b"HEAD ");
    timeout(LIMIT, read_answer(stream, is_head)).await.expect("an answer in time")
}

/// Reads one answer; `bodiless` for the answer to HEAD.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin), bodiless: bool) -> Answer {
    let head = String::from_utf8(read_head(stream).await).expect("a head of text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut answer = Answer { status, head, body: Vec::new() };
    if bodiless || status < 200 || status == 204 || status == 304 {
        return answer;
    }
    if let Some(length) = answer.header("content-length") {
        answer.body = vec![0; length.parse().expect("a length")];
        stream.read_exact(&mut answer.body).await.expect("the whole body");
    } else if answer.header("transfer-encoding").is_some() {
        answer.body = read_chunks(stream).await;
    } else {
        let _ = stream.read_to_end(&mut answer.body).await;
    }
    answer
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut head = Vec::new();
    while strict::head_end(&head).is_none() {
        head.push(stream.read_u8().await.unwrap_or_else(|error| {
            panic!("no whole head: {error}, only {:?}", String::from_utf8_lossy(&head))
        }));
    }
    head
}

async fn read_chunks(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.expect("a chunk's size"));
        }
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a chunk's size");
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.expect("a whole chunk");
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return body;
        }
    }
}
