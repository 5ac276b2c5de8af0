//! Applications that want TLS, speak HTTP/2, or listen on a Unix socket.

#![allow(dead_code, reason = "each test uses its part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Made {
    pub cert: String,
    pub key: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // Two of one name would be taken for one.
        let name = format!("CA {:?}", key.public_key_raw().get(..8));
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub fn issue(&self, name: &str) -> Made {
        self.issue_as(name, |_| {})
    }

    /// With a word on the certificate.
    pub fn issue_as(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Made { cert, key: key.serialize_pem() }
    }
}

/// A TLS server with this certificate and these protocols, which asks for a client's certificate of this CA.
pub fn tls(made: &Made, alpn: &[&str], clients: Option<&Ca>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_slice(made.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// What an application saw of a request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub uri: Uri,
    pub headers: HeaderMap,
    /// The body came to its end.
    pub whole: bool,
    /// The names in the client's certificate and in the handshake.
    pub client: Option<Vec<u8>>,
    pub sni: Option<String>,
}

/// An application that answers each request with how it came, or with its body (`…/echo`), and remembers all of them.
#[derive(Clone, Default)]
pub struct App {
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl App {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections that have spoken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub async fn http1(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.serve(io, false, None, None).await;
    }

    pub async fn http2(self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.serve(io, true, None, None).await;
    }

    /// After the handshake, by what was agreed in it.
    pub async fn tls(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(io) = acceptor.accept(stream).await else { return };
        let h2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
        let sni = io.get_ref().1.server_name().map(str::to_owned);
        let client = client_of(&io);
        self.serve(io, h2, client, sni).await;
    }

    async fn serve(
        self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        h2: bool,
        client: Option<Vec<u8>>,
        sni: Option<String>,
    ) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let service = service_fn(move |request: Request<Incoming>| {
            let (app, client, sni) = (self.clone(), client.clone(), sni.clone());
            async move { Ok::<_, Infallible>(app.answer(request, client, sni).await) }
        });
        let io = TokioIo::new(io);
        // How a connection ends is the gateway's affair.
        if h2 {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(io, service).await;
        } else {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        client: Option<Vec<u8>>,
        sni: Option<String>,
    ) -> Response<Full<Bytes>> {
        let (head, mut incoming) = request.into_parts();
        let (mut body, mut whole) = (Vec::new(), true);
        while let Some(frame) = incoming.frame().await {
            match frame {
                Ok(frame) => body.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        let body = Bytes::from(body);
        let echoed = head.uri.path().ends_with("/echo");
        let text = format!("{:?} {} {}", head.version, head.method, head.uri);
        let answer = if echoed { body } else { Bytes::from(text) };
        let seen = Seen { uri: head.uri, headers: head.headers, whole, client, sni };
        self.seen.lock().unwrap().push(seen);
        Response::new(Full::new(answer))
    }
}

fn client_of(io: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    io.get_ref().1.peer_certificates()?.first().map(|one| one.to_vec())
}

/// Listens on a port of its own; each connection is served as a task.
pub async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Listens on a socket file; over when the task is aborted, with all that it serves.
pub fn listen_unix<F: Future<Output = ()> + 'static + Send>(
    path: &Path,
    serve: impl Fn(UnixStream) -> F + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        let mut serving = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            serving.spawn(serve(stream));
        }
    })
}
