//! A reload is all or nothing, and nobody who is connected notices it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]
#![allow(clippy::print_stdout, reason = "figures are told")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::gate::{Gate, free_addresses};
use common::raw::{self, Answer};
use common::upstream::{OK, Session, Upstream};
use common::{HOST, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// A new config holds so soon after `portcullis reload` has answered.
const HOLDS: Duration = Duration::from_millis(100);
/// A changed file is seen so soon without a command.
const SEEN: Duration = Duration::from_secs(1);
const ROUNDS: u64 = 20;

/// The config that a gate began with, to be varied.
struct Conf {
    head: String,
    site: String,
    file: PathBuf,
}

impl Conf {
    fn of(gate: &Gate) -> Self {
        let text = fs::read_to_string(gate.config()).unwrap();
        let (head, site) = text.split_once("[limits]\n").unwrap();
        Self { head: head.into(), site: site.trim().into(), file: gate.config() }
    }

    /// Everything that a reload may change says its number: with an even one health is open, with an odd one closed.
    fn number(&self, number: u64) -> String {
        let open = if number.is_multiple_of(2) { "127.0.0.0/8" } else { "10.0.0.0/8" };
        let Self { head, site, .. } = self;
        format!(
            "{head}[limits]\nbody = \"{body}KiB\"\nconnections = {connections}\n\n{site}\n\n\
             [site.only_from]\nhealth = [\"{open}\"]\n[site.rate.login]\nrefill = \"1/h\"\nburst = {burst}\n\
             [site.headers]\ncsp = \"default-src 'none'; report-uri /{number}\"\nset = {{ X-Number = \"{number}\" }}\n",
            body = 512 + number,
            connections = 1000 + number,
            burst = 3 + number,
        )
    }

    /// With neighbours: so large that a policy which outlived its reload would show in the memory.
    fn large(&self, number: u64) -> String {
        let app = "app = \"arkeep\"\nupstream = \"http://127.0.0.1:1\"";
        let neighbours: String =
            (0..8).map(|n| format!("[[site]]\nhosts = [\"n{n}.test\"]\n{app}\n")).collect();
        self.number(number) + &neighbours
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).unwrap();
    }

    fn rename_over(&self, text: &str) {
        let aside = self.file.with_extension("aside");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, &self.file).unwrap();
    }

    /// As Kubernetes does it: a directory of files, and a link to it that is swapped.
    fn swap(&self, text: &str, version: u64) {
        let dir = self.file.parent().unwrap();
        let name = format!("..v{version}");
        fs::create_dir(dir.join(&name)).unwrap();
        fs::write(dir.join(&name).join("portcullis.toml"), text).unwrap();
        link_over(dir, &name, "..data");
        if !self.file.is_symlink() {
            link_over(dir, "..data/portcullis.toml", "portcullis.toml");
        }
    }
}

fn link_over(dir: &Path, target: &str, name: &str) {
    let aside = dir.join("..aside");
    symlink(target, &aside).unwrap();
    fs::rename(aside, dir.join(name)).unwrap();
}

fn page(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// What an answer says of the policy that it was made by. Two that do not agree: no policy.
fn policy_of(path: &str, status: u16, number: Option<&str>, csp: Option<&str>) -> u64 {
    let number: u64 = number.expect("a number").parse().unwrap();
    assert_eq!(
        csp,
        Some(&*format!("default-src 'none'; report-uri /{number}")),
        "two policies in one answer"
    );
    let open = path != "/healthz" || number.is_multiple_of(2);
    assert_eq!(status, if open { 200 } else { 404 }, "{path} under policy {number}");
    number
}

fn policy_in(path: &str, answer: &Answer) -> u64 {
    policy_of(path, answer.status, answer.header("x-number"), answer.header("content-security-policy"))
}

async fn number_of(gate: &Gate) -> u64 {
    policy_in("/", &gate.ask("GET /", "", b"").await)
}

/// Waits until a policy of this number is at work; how long that took.
async fn until_number(gate: &Gate, number: u64, since: Instant) -> Duration {
    while number_of(gate).await != number {
        assert!(since.elapsed() < raw::LIMIT, "number {number} did not come: {}", gate.errors());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

/// Answers by path: a page, a download and a tunnel that go on until told, a counted upload.
fn application(stop: Arc<AtomicBool>) -> Upstream {
    Upstream::scripted(move |mut session| {
        while let Some(head) = session.head() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let taken = match &*path {
                "/download" => download(&mut session, &stop),
                "/ws" => tunnel(&mut session, &head),
                "/api/assets" => upload(&mut session, &head),
                _ => session.send(OK),
            };
            if !taken {
                return;
            }
        }
    })
}

fn download(session: &mut Session, stop: &AtomicBool) -> bool {
    session.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    while !stop.load(SeqCst) {
        if !session.send(b"8\r\ndownload\r\n") {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    session.send(b"4\r\nlast\r\n0\r\n\r\n")
}

fn tunnel(session: &mut Session, head: &str) -> bool {
    let named = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
    let key = head.lines().find(named).unwrap().split_once(':').unwrap().1.trim();
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    session.send(format!("{switch}Sec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    let mut seen = 0;
    while let Some(bytes) = session.more() {
        session.send(&vec![b'e'; bytes - seen]);
        seen = bytes;
    }
    false
}

fn upload(session: &mut Session, head: &str) -> bool {
    let named = |line: &&str| line.to_ascii_lowercase().starts_with("content-length:");
    let length: usize = head.lines().find(named).unwrap().split_once(':').unwrap().1.trim().parse().unwrap();
    while session.ahead().len() < length {
        if session.more().is_none() {
            return false;
        }
    }
    session.take();
    session.send(OK)
}

/// Clients that ask and stream until stopped, on a thread of their own; any failure of theirs fails the test.
struct Traffic {
    stop: Arc<AtomicBool>,
    clients: std::thread::JoinHandle<u64>,
}

impl Traffic {
    fn start(gate: &Gate, stop: &Arc<AtomicBool>) -> Self {
        let (address, ca, until) = (gate.https, gate.ca(), Arc::clone(stop));
        let (connected, ready) = std::sync::mpsc::sync_channel(1);
        let clients = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let connect =
                    async |alpn| raw::tls(address, HOST, raw::trusting(&ca, &[alpn])).await.unwrap();
                let asked = Arc::<AtomicU64>::default();
                let mut clients = JoinSet::new();
                for _ in 0..2 {
                    let stream = connect("http/1.1").await;
                    clients.spawn(keep_alive(stream, Arc::clone(&until), Arc::clone(&asked)));
                }
                clients.spawn(http2(connect("h2").await, Arc::clone(&until), Arc::clone(&asked)));
                clients.spawn(echo(connect("http/1.1").await, Arc::clone(&until)));
                clients.spawn(whole_download(connect("http/1.1").await));
                clients.spawn(slow_upload(connect("http/1.1").await, until));
                connected.send(()).unwrap();
                while let Some(client) = clients.join_next().await {
                    client.expect("a client that nobody disturbed");
                }
                asked.load(SeqCst)
            })
        });
        ready.recv().expect("clients that are connected");
        Self { stop: Arc::clone(stop), clients }
    }

    /// Ends all; panics if one has failed. How many requests were answered.
    fn end(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.clients.join().expect("clients that nobody disturbed")
    }
}

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

async fn keep_alive(mut stream: Tls, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) {
    while !stop.load(SeqCst) {
        for path in ["/", "/healthz"] {
            policy_in(path, &raw::ask(&mut stream, page(path).as_bytes()).await);
            asked.fetch_add(1, SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn http2(stream: Tls, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) {
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    while !stop.load(SeqCst) {
        let streams = ["/", "/healthz"].map(|path| {
            let request = http::Request::get(format!("https://{HOST}{path}")).body(()).unwrap();
            (path, client.send_request(request, true).unwrap().0)
        });
        for (path, answer) in streams {
            let answer = tokio::time::timeout(raw::LIMIT, answer).await.expect("an answer").unwrap();
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
            policy_of(path, answer.status().as_u16(), header("x-number"), header("content-security-policy"));
            let mut body = answer.into_body();
            while let Some(piece) = body.data().await {
                let _: Bytes = piece.expect("a whole body");
            }
            asked.fetch_add(1, SeqCst);
        }
        client = client.ready().await.expect("a connection that nobody closed");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    connection.abort();
}

async fn echo(mut stream: Tls, stop: Arc<AtomicBool>) {
    let fields = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let head = format!("GET /ws HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
    assert_eq!(raw::ask(&mut stream, head.as_bytes()).await.status, 101);
    let mut back = [0; 4];
    while !stop.load(SeqCst) {
        stream.write_all(b"ping").await.unwrap();
        stream.flush().await.unwrap();
        let read = tokio::time::timeout(raw::LIMIT, stream.read_exact(&mut back)).await;
        read.expect("an echo").expect("an open tunnel");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn whole_download(mut stream: Tls) {
    stream.write_all(page("/download").as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(120), raw::read_answer(&mut stream, false));
    let answer = answer.await.expect("an end");
    assert!(answer.body.starts_with(b"download") && answer.body.ends_with(b"downloadlast"));
}

async fn slow_upload(mut stream: Tls, stop: Arc<AtomicBool>) {
    const PIECE: [u8; 1024] = [b'u'; 1024];
    const PIECES: usize = 8 * 1024;
    let head =
        format!("POST /api/assets HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", PIECES * 1024);
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..PIECES {
        stream.write_all(&PIECE).await.expect("an upload that goes on");
        stream.flush().await.unwrap();
        if !stop.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let answer = tokio::time::timeout(raw::LIMIT, raw::read_answer(&mut stream, false)).await;
    assert_eq!(answer.expect("an answer to the upload").status, 200);
}

/// Fills what each worker remembers of its latest requests: that grows up to its bound, whatever is reloaded.
async fn fill_memory(gate: &Gate) {
    let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for _ in 0..8 {
        let mut stream = gate.connect().await;
        for _ in 0..600 {
            raw::ask(&mut stream, head.as_bytes()).await;
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_hundred_reloads_of_all_kinds_fail_nothing_and_cut_nothing() {
    let stop = Arc::<AtomicBool>::default();
    let upstream = application(Arc::clone(&stop));
    let gate = Gate::start("", upstream.address);
    let conf = Conf::of(&gate);
    conf.write(&conf.large(0));
    assert!(gate.cli(["reload"]).status.success());
    fill_memory(&gate).await;
    let traffic = Traffic::start(&gate, &stop);
    let mut resident = 0;
    let mut by_file = Vec::new();
    let mut by_signal = Vec::new();
    for round in 0..ROUNDS {
        let number = 1 + round * 5;
        // Memory is compared once caches, pools, and what is remembered of refusals have been filled.
        if round == ROUNDS / 2 {
            resident = gate.resident();
        }
        for (kind, number) in (number..number + 3).enumerate() {
            let text = conf.large(number);
            let since = Instant::now();
            match kind {
                0 => conf.rename_over(&text),
                1 => conf.write(&text),
                _ => conf.swap(&text, number),
            }
            by_file.push(until_number(&gate, number, since).await);
        }
        conf.rename_over(&conf.large(number + 3));
        let since = Instant::now();
        gate.signal("HUP");
        by_signal.push(until_number(&gate, number + 3, since).await);
        conf.rename_over(&conf.large(number + 4));
        let told = gate.cli(["reload"]);
        assert!(told.status.success(), "{told:?}");
        let took = until_number(&gate, number + 4, Instant::now()).await;
        assert!(took <= HOLDS, "holds {took:?} after the answer");
    }
    let asked = traffic.end();
    // Less than some megabytes says nothing: the log's lanes (a MiB each) and other buffers fill once in a busy moment,
    // beside other tests, and the allocator gives back with a delay.
    let bound = resident + 6 * 1024;
    wait_until(raw::LIMIT, || gate.resident() <= bound);
    let grown = gate.resident();
    println!("{asked} requests; seen after {:?}; memory {resident} -> {grown} KiB", median(by_file.clone()));
    assert!(asked > 1000, "only {asked} requests");
    assert!(median(by_file) <= SEEN);
    assert!(by_signal.iter().min().unwrap() < &Duration::from_millis(240), "the files' watch was faster");
    assert!(grown <= bound, "memory grew from {resident} to {grown} KiB");
    assert_eq!(gate.metric("portcullis_config_last_reload_successful"), Some(1.0));
}

#[tokio::test]
async fn one_mistake_changes_nothing_and_is_seen_everywhere_until_it_is_mended() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let conf = Conf::of(&gate);
    conf.write(&conf.number(2));
    assert!(gate.cli(["reload"]).status.success());
    let [other] = free_addresses();
    let bad = conf
        .number(3)
        .replace("10.0.0.0/8", "10.0.0.0/33")
        .replace("https = [", &format!("https = [\"{other}\", "));
    conf.write(&bad);
    let failed = || gate.metric("portcullis_config_last_reload_successful") == Some(0.0);
    assert!(wait_until(raw::LIMIT, failed), "the metric does not say it");
    let line = 1 + bad.lines().position(|line| line.contains("/33")).unwrap();
    let place = format!("portcullis.toml:{line}:");
    assert!(gate.errors().contains(&place), "not in the process log: {}", gate.errors());
    let status = String::from_utf8(gate.cli(["status", "--json"]).stdout).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["status"]["reload"]["successful"], false);
    assert!(status["status"]["reload"]["problems"][0].as_str().unwrap().contains(&place), "{status}");
    let told = gate.cli(["reload"]);
    assert_eq!(told.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&told.stderr).contains(&place), "{told:?}");
    // Nothing of the rest of that file holds: no header, no policy, no socket.
    assert_eq!(number_of(&gate).await, 2);
    assert_eq!(gate.ask("GET /healthz", "", b"").await.status, 200);
    assert!(std::net::TcpStream::connect(other).is_err());

    conf.write(&conf.number(4));
    until_number(&gate, 4, Instant::now()).await;
    assert!(wait_until(raw::LIMIT, || !failed()));
    let status = String::from_utf8(gate.cli(["status"]).stdout).unwrap();
    assert!(!status.contains("refused"), "{status}");
}

#[tokio::test]
async fn a_reload_that_cannot_have_its_socket_changes_nothing() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let conf = Conf::of(&gate);
    conf.write(&conf.number(2));
    assert!(gate.cli(["reload"]).status.success());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let [free] = free_addresses();
    let both = format!("https = [\"{free}\", \"{}\", ", taken.local_addr().unwrap());
    conf.write(&conf.number(3).replace("https = [", &both));
    let told = gate.cli(["reload"]);
    assert_eq!(told.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&told.stderr).contains("cannot listen on"), "{told:?}");
    assert_eq!(number_of(&gate).await, 2);
    assert!(std::net::TcpStream::connect(free).is_err());
}

#[tokio::test]
async fn a_spent_budget_stays_spent_and_a_block_stays_whatever_is_reloaded() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let conf = Conf::of(&gate);
    conf.write(&conf.number(0));
    assert!(gate.cli(["reload"]).status.success());
    let token = "eyJzdWIiOiI3In0.c2lnbmF0dXJl";
    let bearer = format!("Authorization: Bearer {token}\r\n");
    assert!(gate.cli_with(["block", "token", "-"], token).status.success());
    let login = async || gate.ask("POST /api/auth/login", "", b"{}").await.status;
    assert_eq!([login().await, login().await, login().await, login().await], [200, 200, 200, 429]);
    // Each reload allows one more at once; of a budget that was used up whole, the new one is used up whole.
    for number in 1..4 {
        conf.write(&conf.number(number));
        assert!(gate.cli(["reload"]).status.success());
        assert_eq!([login().await, login().await], [429, 429], "after reload {number}");
        assert_eq!(gate.ask("GET /api/assets", &bearer, b"").await.status, 401);
    }
    assert_eq!(gate.metric("portcullis_blocks{kind=\"fingerprint\"}"), Some(1.0));
}

#[tokio::test]
async fn listeners_come_and_go_and_those_that_stay_keep_their_connections() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let conf = Conf::of(&gate);
    let [second] = free_addresses();
    let mut first = gate.connect().await;
    let alive = async |stream: &mut Tls| raw::ask(stream, page("/").as_bytes()).await.status == 200;
    assert!(alive(&mut first).await);

    conf.write(&conf.number(0).replace("https = [", &format!("https = [\"{second}\", ")));
    assert!(gate.cli(["reload"]).status.success());
    let config = || raw::trusting(&gate.ca(), &["http/1.1"]);
    let mut other = raw::tls(second, HOST, config()).await.expect("the new port is open");
    assert!(alive(&mut other).await && alive(&mut first).await);

    conf.write(&conf.number(1).replace(&gate.https.to_string(), &second.to_string()));
    assert!(gate.cli(["reload"]).status.success());
    let closed = || std::net::TcpStream::connect(gate.https).is_err();
    assert!(wait_until(HOLDS, closed), "the old port is still open");
    assert!(alive(&mut other).await, "a connection of the port that stayed");
    assert!(alive(&mut first).await, "a connection of the port that went");
    assert!(raw::tls(second, HOST, config()).await.is_ok());
}

#[tokio::test]
async fn a_hundred_signals_at_once_and_commands_beside_them_end_with_the_last_config() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let conf = Conf::of(&gate);
    conf.write(&conf.number(100));
    assert!(gate.cli(["reload"]).status.success());
    std::thread::scope(|scope| {
        let commands: Vec<_> = (0..4).map(|_| scope.spawn(|| gate.cli(["reload"]))).collect();
        for number in 0..100 {
            conf.rename_over(&conf.number(number));
            gate.signal("HUP");
        }
        for command in commands {
            assert!(command.join().unwrap().status.success());
        }
    });
    until_number(&gate, 99, Instant::now()).await;
    assert_eq!(gate.metric("portcullis_config_last_reload_successful"), Some(1.0));
}

#[tokio::test]
async fn limits_of_connections_hold_at_once_and_an_app_file_of_ones_own_is_watched() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let dir = gate.config().parent().unwrap().to_owned();
    let app = |class: &str| {
        let text = format!(
            "schema = 1\nname = \"own\"\ntitle = \"Own\"\ndefault_class = \"page\"\n[routes]\n{class} = [\"/inside/*\"]\n\
             [tokens]\nformat = \"opaque\"\ncarriers = [\"bearer\"]\n[csp]\ndefault = \"default-src 'none'\"\n"
        );
        fs::write(dir.join("own.toml"), text).unwrap();
    };
    app("api");
    let text = fs::read_to_string(gate.config()).unwrap();
    let text = text.replace("app = \"keepstack\"", "app = \"own.toml\"");
    fs::write(gate.config(), &text).unwrap();
    let told = gate.cli(["reload"]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(gate.ask("GET /inside/x", "", b"").await.status, 200);
    app("docs");
    let closed = common::wait_until_async(raw::LIMIT, async || {
        gate.ask("GET /inside/x", "X-Forwarded-For: 192.0.2.1\r\n", b"").await.status == 404
    });
    assert!(closed.await, "the app file's change was not seen: {}", gate.errors());

    fs::write(gate.config(), text.replace("[limits]", "[limits]\nconnections_per_client = 1")).unwrap();
    let mut held = gate.connect().await;
    assert!(gate.cli(["reload"]).status.success());
    tokio::time::sleep(HOLDS).await;
    let refused = raw::tls(gate.https, HOST, raw::trusting(&gate.ca(), &["http/1.1"])).await;
    assert!(refused.is_err(), "a second connection is let in");
    assert_eq!(raw::ask(&mut held, page("/").as_bytes()).await.status, 200);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_over_when_its_files_change() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let dir = gate.config().parent().unwrap().to_owned();
    let write = |name: &str| -> rustls::pki_types::CertificateDer<'static> {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(dir.join("key.pem.new"), made.signing_key.serialize_pem()).unwrap();
        private(&dir.join("key.pem.new"));
        fs::rename(dir.join("key.pem.new"), dir.join("key.pem")).unwrap();
        fs::write(dir.join("full.pem"), made.cert.pem()).unwrap();
        made.cert.der().clone()
    };
    let first = write(HOST);
    let text = fs::read_to_string(gate.config()).unwrap();
    let named = "certificates = [{ cert = \"full.pem\", key = \"key.pem\" }]";
    fs::write(gate.config(), text.replace("self_signed = true", named)).unwrap();
    let told = gate.cli(["reload"]);
    assert!(told.status.success(), "{told:?}");
    assert_eq!(shown(gate.https, &dir).await.unwrap(), first);
    // The files do not change at one time: for a moment key and certificate do not fit, and the old ones stay.
    let second = write(HOST);
    let since = Instant::now();
    while shown(gate.https, &dir).await.as_ref() != Some(&second) {
        assert!(since.elapsed() < raw::LIMIT, "not taken over: {}", gate.errors());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

/// The certificate that the gateway shows, trusted only if it is the one in the file.
async fn shown(address: SocketAddr, dir: &Path) -> Option<rustls::pki_types::CertificateDer<'static>> {
    let stream = raw::tls(address, HOST, raw::trusting(&dir.join("full.pem"), &["http/1.1"])).await.ok()?;
    let shown = stream.get_ref().1.peer_certificates()?.first()?.clone();
    Some(shown.into_owned())
}

#[tokio::test]
async fn a_block_waits_for_no_reload() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let conf = Conf::of(&gate);
    // New hosts want certificates, and the key that makes them comes when somebody writes it.
    let (key, aside) = (gate.state().join("ca-key.pem"), gate.state().join("aside"));
    let pem = fs::read(&key).unwrap();
    fs::rename(&key, &aside).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
    conf.write(&conf.large(2));
    let (asked, reloads) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| asked.send(gate.cli(["reload"])).unwrap());
        // Whoever opens it for writing waits until it is read.
        let mut writes = fs::File::options().write(true).open(&key).unwrap();
        let begun = Instant::now();
        let blocked = gate.cli(["block", "address", "192.0.2.7", "--json"]);
        println!("a block during a reload that hangs: {:?}", begun.elapsed());
        let json: serde_json::Value = serde_json::from_slice(&blocked.stdout).unwrap();
        assert_eq!((&json["confirmed"], &json["durable"]), (&true.into(), &true.into()), "{blocked:?}");
        assert!(
            gate.cli(["status"]).status.success() && reloads.try_recv().is_err(),
            "the reload still runs"
        );
        // From here on it is a file like any other.
        fs::rename(&aside, &key).unwrap();
        std::io::Write::write_all(&mut writes, &pem).unwrap();
        drop(writes);
        let reloaded = reloads.recv_timeout(raw::LIMIT).expect("an answer");
        assert!(reloaded.status.success(), "{reloaded:?}");
    });
    assert_eq!(number_of(&gate).await, 2, "the new config is served");
    let blocks = gate.cli(["blocks"]);
    assert!(String::from_utf8_lossy(&blocks.stdout).contains("192.0.2.7"), "{blocks:?}");
}
