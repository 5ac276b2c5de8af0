//! A real certificate authority for tests: pebble, with names that all lead to this machine; and a front before it that
//! can lie.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;

use super::gate::{Config, free_addresses};
use super::{raw, wait_until};

/// Pebble and its DNS; killed when dropped.
pub struct Pebble {
    /// Where the gateway must listen for `https` and `http`.
    pub public: [SocketAddr; 2],
    pub api: SocketAddr,
    console: SocketAddr,
    names: SocketAddr,
    dir: TempDir,
    children: Vec<Child>,
}

/// What is particular about a pebble.
#[derive(Default)]
pub struct Options {
    pub environment: Vec<(&'static str, &'static str)>,
    /// Seconds that its certificates live; 0: years.
    pub lifetime: u64,
    /// Whoever opens an account must know `kid-1` and this key.
    pub external_key: Option<&'static str>,
}

impl Pebble {
    /// Reserves its addresses; nothing runs yet.
    pub fn reserve() -> Self {
        let [api, console, https, http, dns, names] = free_addresses();
        let dir = tempfile::Builder::new().prefix("pebble").tempdir().unwrap();
        papers(dir.path());
        let mut pebble = Self { public: [https, http], api, console, names, dir, children: Vec::new() };
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &dns.to_string()])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", &names.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pebble-challtestsrv (Debian package pebble)");
        pebble.children.push(names);
        std::fs::write(pebble.dir.path().join("dns"), dns.to_string()).unwrap();
        pebble
    }

    pub fn start(options: &Options) -> Self {
        let mut pebble = Self::reserve();
        pebble.run(options);
        pebble
    }

    /// Begins to answer.
    pub fn run(&mut self, options: &Options) {
        let [https, http] = self.public;
        let mut config = serde_json::json!({
            "listenAddress": self.api.to_string(),
            "managementListenAddress": self.console.to_string(),
            "certificate": "cert.pem",
            "privateKey": "key.pem",
            "httpPort": http.port(),
            "tlsPort": https.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": options.external_key.is_some(),
        });
        if options.lifetime > 0 {
            config["certificateValidityPeriod"] = options.lifetime.into();
        }
        if let Some(key) = options.external_key {
            config["externalAccountMACKeys"] = serde_json::json!({ "kid-1": key });
        }
        let text = serde_json::json!({ "pebble": config }).to_string();
        std::fs::write(self.dir.path().join("config.json"), text).unwrap();
        let dns = std::fs::read_to_string(self.dir.path().join("dns")).unwrap();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("pebble")
            .args(["-config", "config.json", "-strict", "-dnsserver", &dns])
            .current_dir(self.dir.path())
            .env("PEBBLE_VA_NOSLEEP", "1")
            .envs(options.environment.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("pebble (Debian package pebble)");
        self.children.push(child);
        let root = || self.fetch(&format!("https://localhost:{}/roots/0", self.console.port()));
        assert!(
            wait_until(Duration::from_secs(20), || root().contains("BEGIN CERTIFICATE")),
            "{}",
            self.log()
        );
        std::fs::write(self.root(), root()).unwrap();
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The CA of its API.
    pub fn api_ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The CA of what it issues.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root.pem")
    }

    /// Where its DNS is told records.
    pub fn names(&self) -> SocketAddr {
        self.names
    }

    /// A config for a gateway whose certificates come from here; `more` are lines of `[acme]`.
    pub fn config(&self, more: &str) -> Config {
        self.config_by(self.api, more)
    }

    /// The same by way of a front.
    pub fn config_by(&self, api: SocketAddr, more: &str) -> Config {
        let (port, ca) = (api.port(), self.api_ca());
        let acme = format!(
            "[acme]\nemail = \"me@files.test\"\ndirectory = \"https://localhost:{port}/dir\"\nca_file = \"{}\"\n{more}\n",
            ca.display()
        );
        Config { tls: format!("\n{acme}"), public: Some(self.public), ..Config::default() }
    }

    /// All names lead there from now on.
    pub fn lead_names_to(&self, address: &str) {
        self.tell("set-default-ipv4", &format!("{{\"ip\":\"{address}\"}}"));
    }

    fn tell(&self, what: &str, json: &str) {
        let url = format!("http://{}/{what}", self.names);
        let told = Command::new("curl").args(["-sS", "-d", json, &url]).status().unwrap();
        assert!(told.success());
    }

    fn fetch(&self, url: &str) -> String {
        let output =
            Command::new("curl").args(["-s", "--cacert"]).arg(self.api_ca()).arg(url).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A CA and a leaf for `localhost`: rustls takes no CA certificate as a server's.
fn papers(dir: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "CA of the authority's API");
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(dir.join("ca.pem"), ca).unwrap();
    std::fs::write(dir.join("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
}

/// One request that came by the front, and what pebble has answered.
pub struct Exchange {
    pub path: String,
    pub request: Vec<u8>,
    pub answer: http::Response<Bytes>,
}

/// Stands before a pebble and may change what it says; its address takes pebble's place.
pub struct Front {
    pub address: SocketAddr,
}

impl Front {
    /// Begins; what `change` leaves is answered.
    pub fn start(pebble: &Pebble, change: impl Fn(&mut Exchange) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let read = |name: &str| std::fs::read(pebble.dir.path().join(name)).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(&read("cert.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let (behind, ca) = (pebble.api, pebble.api_ca());
        let change = Arc::new(change);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, change, ca) = (acceptor.clone(), Arc::clone(&change), ca.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                            let (change, ca) = (Arc::clone(&change), ca.clone());
                            async move {
                                Ok::<_, std::convert::Infallible>(pass(request, behind, &ca, &*change).await)
                            }
                        });
                        let serving = hyper::server::conn::http1::Builder::new();
                        let _ = serving.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        });
        Self { address }
    }
}

async fn pass(
    request: hyper::Request<hyper::body::Incoming>,
    behind: SocketAddr,
    ca: &Path,
    change: &(impl Fn(&mut Exchange) + ?Sized),
) -> http::Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let request = body.collect().await.unwrap().to_bytes();
    let path = parts.uri.path().to_owned();
    // Its own name in `Host` makes pebble name the front in all that it says.
    let to_pebble = http::Request::from_parts(parts, Full::new(request.clone()));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(raw::trusting(ca, &[])));
    let stream = tokio::net::TcpStream::connect(behind).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (parts, body) = sender.send_request(to_pebble).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut exchange =
        Exchange { path, request: request.to_vec(), answer: http::Response::from_parts(parts, body) };
    change(&mut exchange);
    exchange.answer.headers_mut().remove("content-length");
    exchange.answer.map(Full::new)
}

impl Exchange {
    /// What the request says inside its signature.
    pub fn payload(&self) -> serde_json::Value {
        let outer: serde_json::Value = serde_json::from_slice(&self.request).unwrap_or_default();
        let text = outer["payload"].as_str().unwrap_or_default();
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
        serde_json::from_slice(&bytes.unwrap_or_default()).unwrap_or_default()
    }

    /// Answers something else.
    pub fn say(&mut self, status: u16, body: impl Into<Bytes>) {
        *self.answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        *self.answer.body_mut() = body.into();
    }
}

/// Reads a file that may not be there yet.
pub fn text_of(path: &Path) -> String {
    let mut text = String::new();
    let _ = std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    text
}
