//! The real binary, started with a config of its own in a directory of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio_rustls::client::TlsStream;

use super::{HOST, raw, wait_until};

const START: Duration = Duration::from_secs(20);

/// What is particular about the config of one test.
#[derive(Debug, Clone)]
pub struct Config {
    /// App file of the site.
    pub app: String,
    /// Upstreams that serve the same as the first one.
    pub others: Vec<SocketAddr>,
    /// Lines of `[listen]`, beside the addresses.
    pub listen: String,
    /// Lines of `[limits]`.
    pub limits: String,
    /// Lines and tables of the `[[site]]`, and whatever follows it.
    pub site: String,
    /// Lines of `[tls]`.
    pub tls: String,
    /// Files beside the config: name and text; nobody else may read them.
    pub files: Vec<(&'static str, String)>,
    /// File descriptors that the process may have.
    pub descriptors: Option<u32>,
    /// A program that runs it, with its arguments.
    pub under: Vec<&'static str>,
    /// Variables of its environment.
    pub environment: Vec<(&'static str, String)>,
    /// Where it listens for `https` and `http`; else anywhere.
    pub public: Option<[SocketAddr; 2]>,
}

/// A running gateway; killed when dropped.
pub struct Gate {
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub plain: SocketAddr,
    pub metrics: SocketAddr,
    dir: TempDir,
    child: Child,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            app: "keepstack".into(),
            others: Vec::new(),
            listen: String::new(),
            limits: String::new(),
            site: String::new(),
            tls: "self_signed = true".into(),
            files: Vec::new(),
            descriptors: None,
            under: Vec::new(),
            environment: Vec::new(),
            public: None,
        }
    }
}

impl Config {
    /// Starts the gateway before this upstream and waits until it is ready.
    pub fn start(self, upstream: SocketAddr) -> Gate {
        // Between being found free and being bound a port may go to somebody's outgoing connection.
        for _ in 0..5 {
            let mut gate = self.clone().launch(upstream);
            if !gate.lost_a_port() {
                gate.wait_ready();
                return gate;
            }
            if self.public.is_some() {
                // No others can be had: whoever has it for a connection of his own will let it go.
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        panic!("ports are taken again and again");
    }

    /// Starts the gateway and waits for nothing.
    pub fn launch(self, upstream: SocketAddr) -> Gate {
        let [https, http, plain, metrics] = free_addresses();
        let [https, http] = self.public.unwrap_or([https, http]);
        let dir = tempfile::Builder::new().prefix("gate").tempdir().unwrap();
        let state = dir.path().join("state");
        let Self { app, others, listen, limits, site, tls, files, descriptors, under, environment, .. } =
            self;
        let all: Vec<_> = [upstream].iter().chain(&others).map(|one| format!("\"http://{one}\"")).collect();
        // A `plain` listener wants trusted proxies.
        let plainly = if listen.contains("trusted_proxies") { format!("\"{plain}\"") } else { String::new() };
        let text = format!(
            "[listen]\nhttps = [\"{https}\"]\nhttp = [\"{http}\"]\nplain = [{plainly}]\npublic_port = {port}\n\
             {listen}\n[tls]\n{tls}\n\n[admin]\nsocket = \"{socket}\"\nmetrics = \"{metrics}\"\n\n\
             [state]\ndir = \"{state}\"\n\n[limits]\n{limits}\n\n\
             [[site]]\nhosts = [\"{HOST}\"]\napp = \"{app}\"\nupstream = [{all}]\n{site}\n",
            all = all.join(", "),
            port = https.port(),
            socket = dir.path().join("admin.sock").display(),
            state = state.display(),
        );
        std::fs::write(dir.path().join("portcullis.toml"), text).unwrap();
        for (name, text) in files {
            place(&dir.path().join(name), &text);
        }
        let child = spawn(dir.path(), descriptors, &under, &environment, &[]);
        Gate { https, http, plain, metrics, dir, child }
    }
}

impl Gate {
    /// Starts with these lines and tables in the site, and the app file `keepstack`.
    pub fn start(site: &str, upstream: SocketAddr) -> Self {
        Config { site: site.into(), ..Config::default() }.start(upstream)
    }

    /// The config file.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("portcullis.toml")
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The throw-away CA.
    pub fn ca(&self) -> PathBuf {
        self.state().join("ca.pem")
    }

    /// A verb of the command line, told of this gateway's config.
    pub fn cli<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Output {
        self.cli_with(arguments, "")
    }

    /// A verb that reads this from standard input.
    pub fn cli_with<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(arguments)
            .env("PORTCULLIS_CONFIG", self.config())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// A TLS connection for HTTP/1.1 that names the site.
    pub async fn connect(&self) -> TlsStream<tokio::net::TcpStream> {
        let config = raw::trusting(&self.ca(), &["http/1.1"]);
        raw::tls(self.https, HOST, config).await.expect("a TLS connection")
    }

    /// Sends one request over a connection of its own; `headers` are whole lines.
    pub async fn ask(&self, line: &str, headers: &str, body: &[u8]) -> raw::Answer {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let head = format!("{line} HTTP/1.1\r\nHost: {HOST}:{}\r\n{headers}{length}\r\n", self.https.port());
        raw::ask(&mut self.connect().await, &[head.as_bytes(), body].concat()).await
    }

    /// Answers of the admin listener: `/metrics`, `/livez`, `/readyz`.
    pub fn admin(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.metrics).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.metrics).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The value of one series, named as it is written.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// What it has written to standard output: the access log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stdout")).unwrap()
    }

    /// What it has written to standard error.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        resident_of(&self.status_file())
    }

    /// What the kernel says of the process.
    pub fn status_file(&self) -> PathBuf {
        format!("/proc/{}/status", self.child.id()).into()
    }

    /// CPU time that it has used, user and system, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |place: usize| fields[place].parse::<f64>().unwrap();
        // Linux counts in hundredths, whatever its own tick is.
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Sends a signal, e.g. `TERM` or `HUP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// As after a power cut: `kill -9`, and nothing else.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again after [`Gate::kill`], with the same config, state and addresses.
    pub fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), None, &[], &[], &[]);
        self.wait_ready();
    }

    /// Starts a new process that takes over, waits until it has, and gives the old one.
    pub fn take_over(&mut self) -> Old {
        let new = spawn(self.dir.path(), None, &[], &[], &["--take-over"]);
        let old = std::mem::replace(&mut self.child, new);
        let pid = format!("\"pid\": {},", self.child.id());
        let taken = wait_until(START, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the new process has ended ({ended:?}): {}", self.errors());
            let status = self.cli(["status", "--json"]);
            String::from_utf8_lossy(&status.stdout).replace("\":", "\": ").replace("  ", " ").contains(&pid)
        });
        assert!(taken, "the new process has not taken over: {}", self.errors());
        Old(old)
    }

    /// Waits until it has ended by itself; its exit code.
    pub fn wait_ended(&mut self, limit: Duration) -> Option<i32> {
        let mut code = None;
        wait_until(limit, || {
            code = self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        code
    }

    /// Whether it has ended because somebody else has one of its ports.
    fn lost_a_port(&mut self) -> bool {
        let mut ended = false;
        wait_until(START, || {
            ended = self.child.try_wait().unwrap().is_some();
            ended || self.admin("/readyz").is_some()
        });
        ended && self.errors().contains("Address already in use")
    }

    /// Waits until it takes requests.
    pub fn wait_ready(&mut self) {
        let ready = wait_until(START, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway has ended ({ended:?}): {}", self.errors());
            self.admin("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        assert!(ready, "the gateway is not ready: {}", self.errors());
    }
}

/// A process that another has taken over from; killed when dropped.
pub struct Old(Child);

impl Old {
    /// Waits until it has ended by itself; its exit code.
    pub fn wait_ended(&mut self, limit: Duration) -> Option<i32> {
        let mut code = None;
        wait_until(limit, || {
            code = self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        code
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    dir: &Path,
    descriptors: Option<u32>,
    under: &[&str],
    environment: &[(&str, String)],
    more: &[&str],
) -> Child {
    let output = |name| File::options().create(true).append(true).open(dir.join(name)).unwrap();
    let limit = descriptors.map_or_else(|| "unlimited".to_owned(), |most| most.to_string());
    let script = "[ \"$0\" = unlimited ] || ulimit -n \"$0\"; exec \"$@\"";
    Command::new("sh")
        .args(["-c", script, &limit])
        .args(under)
        .arg(env!("CARGO_BIN_EXE_portcullis"))
        .arg("run")
        .arg("--config")
        .arg(dir.join("portcullis.toml"))
        .args(more)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output("stdout"))
        .stderr(output("stderr"))
        .spawn()
        .unwrap()
}

/// Writes a file that only its owner may read, and renames it to its place.
pub fn place(file: &Path, text: &str) {
    let aside = file.with_extension("aside");
    let _ = std::fs::remove_file(&aside);
    let mut options = File::options();
    let mut open = options.write(true).create_new(true).mode(0o600).open(&aside).unwrap();
    open.write_all(text.as_bytes()).unwrap();
    std::fs::rename(aside, file).unwrap();
}

/// Resident memory in KiB, by the status file of a process.
pub fn resident_of(status: &Path) -> u64 {
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Addresses that are free: all are held at once, so that they differ, and then let go.
pub fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    std::array::from_fn(|place| listeners[place].local_addr().unwrap())
}
