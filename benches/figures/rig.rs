//! A gateway to measure, and what stands behind it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::request::credential::Fingerprint;
use portcullis::stores::blocks::{Block, What};
use portcullis::stores::durable::Store;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The site.
pub const HOST: &str = "files.test";
/// Blocks in a protected gateway.
pub const BLOCKS: u64 = 100_000;
/// Under callgrind a start takes half a minute.
const START: Duration = Duration::from_secs(180);

/// Of every Linux that we build for.
const USER_HZ: f64 = 100.0;

/// What is measured.
#[derive(Clone, Copy)]
pub struct Setup {
    /// With rate limit, allowlist and blocks; the headers are always on.
    pub protected: bool,
    /// With an access log, in a file.
    pub log: bool,
    /// The app file.
    pub app: &'static str,
    /// Sites besides the one that is measured.
    pub others: usize,
}

impl Setup {
    /// An application that nobody has described, without anything switched on.
    pub const PLAIN: Self = Self { protected: false, log: false, app: "generic", others: 0 };
    /// With rate limit, allowlist and blocks.
    pub const PROTECTED: Self = Self { protected: true, ..Self::PLAIN };
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    pub https: SocketAddr,
    pub plain: SocketAddr,
    pub dir: TempDir,
    pub started: Instant,
    /// [`Setup::protected`].
    pub protected: bool,
    child: Child,
}

impl Gateway {
    /// Starts it, run by `prefix` (`taskset`, `valgrind`), and waits until it listens.
    pub fn start(prefix: &[&str], setup: Setup) -> Self {
        let [https, plain] = free_addresses();
        let dir = tempfile::Builder::new().prefix("figures").tempdir().unwrap();
        std::fs::write(dir.path().join("portcullis.toml"), config(dir.path(), setup, https, plain)).unwrap();
        if setup.protected {
            fill(&dir.path().join("state"));
        }
        let started = Instant::now();
        let mut gateway =
            Self { child: spawn(prefix, dir.path()), https, plain, dir, started, protected: setup.protected };
        gateway.wait();
        gateway
    }

    /// Ends it at once and starts it anew, with all that it has left.
    pub fn restart(&mut self, prefix: &[&str]) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.started = Instant::now();
        self.child = spawn(prefix, self.dir.path());
        self.wait();
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The throw-away CA.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("state/ca.pem")
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// What the processor has done for it, in seconds.
    pub fn processor_seconds(&self) -> f64 {
        processor_seconds(self.pid())
    }

    fn wait(&mut self) {
        let end = Instant::now() + START;
        while TcpStream::connect(self.https).is_err() {
            let ended = self.child.try_wait().unwrap();
            let said = || std::fs::read_to_string(self.dir.path().join("stderr"));
            assert!(ended.is_none(), "the gateway has ended: {:?}", said());
            assert!(Instant::now() < end, "the gateway does not come up");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that runs the gateway of a directory.
fn spawn(prefix: &[&str], dir: &Path) -> Child {
    let words: Vec<&str> = prefix.iter().copied().chain([env!("CARGO_BIN_EXE_portcullis"), "run"]).collect();
    let error = std::fs::File::create(dir.join("stderr")).unwrap();
    Command::new(words[0])
        .args(&words[1..])
        .arg("--config")
        .arg(dir.join("portcullis.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(error)
        .spawn()
        .unwrap()
}

fn config(dir: &Path, setup: Setup, https: SocketAddr, plain: SocketAddr) -> String {
    let log = if setup.log { dir.join("access.log").display().to_string() } else { "off".into() };
    let protections = if setup.protected {
        "[site.only_from]\npage = [\"127.0.0.0/8\", \"10.0.0.0/8\", \"192.168.0.0/16\"]\n\
         [site.rate.page]\nrefill = \"1000000/s\"\nburst = 1000000\n"
    } else if setup.app == "generic" {
        ""
    } else {
        "[site.rate.login]\nrefill = \"1000000/s\"\nburst = 1000000\n\
         [site.rate.api]\nrefill = \"1000000/s\"\nburst = 1000000\n"
    };
    let others: String =
        (0..setup.others).map(|number| site(&format!("{number}.{HOST}"), setup.app)).collect();
    format!(
        "[listen]\nhttps = [\"{https}\"]\nhttp = []\nplain = [\"{plain}\"]\npublic_port = {port}\n\
         trusted_proxies = [\"127.0.0.2/32\"]\n\
         [tls]\nself_signed = true\n[admin]\nsocket = \"{dir}/admin.sock\"\nmetrics = \"off\"\n\
         [state]\ndir = \"{dir}/state\"\n[log]\naccess = \"{log}\"\n\
         [limits]\nconnections = 20000\nconnections_per_client = 20000\nidle_timeout = \"10m\"\n\
         {others}{site}{protections}",
        port = https.port(),
        site = site(HOST, setup.app),
        dir = dir.display(),
    )
}

fn site(host: &str, app: &str) -> String {
    format!("[[site]]\nhosts = [\"{host}\"]\napp = \"{app}\"\nupstream = \"http://{}\"\n", upstream())
}

/// What the processor has done for a process, user and system.
pub fn processor_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|place| fields[*place].parse::<u64>().unwrap()).sum();
    ticks as f64 / USER_HZ
}

/// Addresses that are free: both are held at once, so that they differ.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|place| held[place].local_addr().unwrap())
}

/// Blocks on the disk, before the gateway starts.
fn fill(state: &Path) {
    std::fs::create_dir_all(state).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let wall = u64::try_from(now.as_millis()).unwrap();
    let blocks: Vec<Block> = (0..BLOCKS).map(|number| block(number, wall)).collect();
    let mut opened = Store::open(&state.join("blocks.redb")).unwrap();
    opened.store.write(&blocks.iter().collect::<Vec<_>>()).unwrap();
}

fn block(number: u64, wall: u64) -> Block {
    let what = if number.is_multiple_of(2) {
        What::Jti { jti: format!("jti-{number}") }
    } else {
        What::Fingerprint { fingerprint: Fingerprint::of(&number.to_be_bytes()) }
    };
    Block {
        id: number + 1,
        site: None,
        what,
        reason: String::new(),
        by: "figures".into(),
        created: wall,
        until: wall + 86_400_000,
        learned: false,
        spares: None,
        ended: None,
    }
}

/// Answers every request with 1 KiB, a POST with as much JSON; runs until the process ends.
fn upstream() -> SocketAddr {
    static ADDRESS: std::sync::OnceLock<SocketAddr> = std::sync::OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(answer(stream));
                }
            });
        });
        address
    })
}

async fn answer(mut stream: tokio::net::TcpStream) {
    let _ = stream.set_nodelay(true);
    let file = answer_of("application/octet-stream", &"x".repeat(1024));
    let token = format!("{{\"token\":\"{}\",\"more\":\"", hmac_pair());
    let login = answer_of("application/json", &format!("{token}{}\"}}", "x".repeat(1022 - token.len())));
    let mut got = Vec::with_capacity(4096);
    while stream.read_buf(&mut got).await.is_ok_and(|read| read > 0) {
        while let Some(end) = whole(&got) {
            let answer = if got.starts_with(b"POST") { &login } else { &file };
            got.drain(..end);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// Where the first request ends, if all of it is there.
fn whole(got: &[u8]) -> Option<usize> {
    let end = got.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&got[..end]).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let end = end + length.map_or(0, |length| length.parse::<usize>().unwrap());
    (got.len() >= end).then_some(end)
}

fn answer_of(kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// A token as Keepstack hands it out.
fn hmac_pair() -> String {
    let claims = r#"{"sub":42,"username":"ann","role":"viewer","exp":4102444800}"#;
    format!("{}.{}", URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode([b's'; 32]))
}
