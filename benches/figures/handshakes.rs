//! Full TLS 1.3 handshakes per CPU second of the proxy, beside nginx and HAProxy with the same key and certificate, in one run.
//! Tickets are off where the peer can; a connection that is agreed is closed. The proxies have CPU 0 to themselves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::crypto::{SupportedKxGroup, aws_lc_rs::kx_group};
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use crate::client;
use crate::rig::{Gateway, HOST, Setup, free_addresses, processor_seconds};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 16;

pub fn run() {
    let gateway = Gateway::start(&["taskset", "-c", "0"], Setup::PLAIN);
    let peers = Peers::start(&gateway);
    let proxies = [
        ("portcullis", gateway.pid(), gateway.https),
        ("nginx", peers.nginx.id(), peers.addresses[0]),
        ("haproxy", peers.haproxy.id(), peers.addresses[1]),
    ];
    println!(
        "full handshakes per CPU second, TLS 1.3, ECDSA P-256, {ROUNDS} rounds of {ROUND:?}, interleaved"
    );
    measure("X25519", kx_group::X25519, &proxies, &gateway);
    // What the Debian of these peers cannot do.
    measure("X25519MLKEM768", kx_group::X25519MLKEM768, &proxies[..1], &gateway);
}

fn measure(
    name: &str,
    group: &'static dyn SupportedKxGroup,
    proxies: &[(&str, u32, SocketAddr)],
    gateway: &Gateway,
) {
    let config = client_config(gateway, group);
    let mut figures = vec![Vec::new(); proxies.len()];
    for round in 0..ROUNDS {
        for (figures, (_, pid, address)) in figures.iter_mut().zip(proxies) {
            let before = processor_seconds(*pid);
            let agreed = load(*address, &config, round);
            figures.push((agreed as f64 / (processor_seconds(*pid) - before)) as u64);
        }
    }
    for (figures, (who, ..)) in figures.iter_mut().zip(proxies) {
        figures.sort_unstable();
        println!("{name:<16}{who:<12}{:>6}   {figures:?}", figures[ROUNDS / 2]);
    }
}

/// How many were agreed.
fn load(address: SocketAddr, config: &Arc<ClientConfig>, round: usize) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let end = Instant::now() + ROUND;
        let one = async |place: usize| {
            let mut agreed = 0;
            while Instant::now() < end {
                // Closed connections keep their ports for a minute: many addresses have enough.
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(format!("127.0.{}.{}:0", round + 1, place + 1).parse().unwrap()).unwrap();
                let stream = socket.connect(address).await.unwrap();
                let name = ServerName::try_from(HOST).unwrap();
                let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.unwrap();
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
                agreed += 1;
            }
            agreed
        };
        futures_util::future::join_all((0..AT_ONCE).map(one)).await.into_iter().sum()
    })
}

fn client_config(gateway: &Gateway, group: &'static dyn SupportedKxGroup) -> Arc<ClientConfig> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![group];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(client::roots(&gateway.ca()))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// nginx and HAProxy, one process each; killed when dropped.
struct Peers {
    nginx: Child,
    haproxy: Child,
    addresses: [SocketAddr; 2],
}

impl Peers {
    fn start(gateway: &Gateway) -> Self {
        let (dir, addresses) = (gateway.dir.path(), free_addresses());
        let [nginx_at, haproxy_at] = addresses;
        let both = leaf(dir);
        let nginx = format!(
            "user root; daemon off; master_process off; pid {dir}/nginx.pid; error_log /dev/null; \
             events {{ worker_connections 4096; }} http {{ access_log off; \
             server {{ listen {nginx_at} ssl; ssl_certificate {both}; ssl_certificate_key {both}; \
             ssl_protocols TLSv1.3; ssl_session_tickets off; ssl_session_cache off; ssl_ecdh_curve X25519; }} }}",
            dir = dir.display(),
            both = both.display(),
        );
        let haproxy = format!(
            "global\n nbthread 1\n ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n \
             ssl-default-bind-curves X25519\n tune.ssl.cachesize 0\n\
             defaults\n mode http\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n\
             frontend f\n bind {haproxy_at} ssl crt {both} alpn http/1.1\n http-request return status 200\n",
            both = both.display(),
        );
        std::fs::write(dir.join("nginx.conf"), nginx).unwrap();
        std::fs::write(dir.join("haproxy.cfg"), haproxy).unwrap();
        let nginx = spawn(&["nginx", "-e", "/dev/null", "-c"], &dir.join("nginx.conf"));
        let haproxy = spawn(&["haproxy", "-db", "-f"], &dir.join("haproxy.cfg"));
        let peers = Self { nginx, haproxy, addresses };
        let end = Instant::now() + Duration::from_secs(10);
        while addresses.iter().any(|address| std::net::TcpStream::connect(address).is_err()) {
            assert!(Instant::now() < end, "nginx and haproxy are needed (Debian: nginx-light haproxy)");
            std::thread::sleep(Duration::from_millis(20));
        }
        peers
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for child in [&mut self.nginx, &mut self.haproxy] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(words: &[&str], config: &Path) -> Child {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).args(words).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Of the gateway's own CA, with its key.
fn leaf(dir: &Path) -> PathBuf {
    let ca_key = std::fs::read_to_string(dir.join("state/ca-key.pem")).unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, "Portcullis throw-away CA");
    let issuer = Issuer::new(ca, KeyPair::from_pem(&ca_key).unwrap());
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new([HOST.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let path = dir.join("both.pem");
    std::fs::write(&path, format!("{}{}", cert.pem(), key.serialize_pem())).unwrap();
    path
}
