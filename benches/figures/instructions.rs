//! Instructions per request, user space, by callgrind: the slope between two request counts over one connection, so that
//! start, handshake and warm-up cancel out.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::client::Client;
use crate::rig::{Gateway, Setup};

const WARM_UP: usize = 320;
const FEW: usize = 320;
const MANY: usize = 1600;

pub fn run() {
    println!("instructions per request, TLS 1.3, answers of 1 KiB (h2: 32 streams in flight)");
    println!("{:<32}{:>10}{:>10}", "", "HTTP/1.1", "HTTP/2");
    for (name, setup) in [
        ("plain", Setup::PLAIN),
        ("with protections", Setup::PROTECTED),
        ("with protections and access log", Setup { log: true, ..Setup::PROTECTED }),
    ] {
        let mut counted = Counted::start(name, setup);
        let h1 = counted.slope(Client::h1);
        let h2 = counted.slope(Client::h2);
        println!("{name:<32}{h1:>10}{h2:>10}");
    }
}

/// What the login guard, the judging of what a login hands out, and the device cookie cost together: the same POST, answered
/// with the same token, to the login and to elsewhere. The latter is judged too, as what an API answers may be a token.
pub fn logins() {
    println!("instructions per POST over HTTP/1.1, TLS 1.3, answers of 1 KiB");
    let mut counted = Counted::start("logins", KEEPSTACK);
    for path in POSTS {
        let each = counted.slope(async |gateway| Client::posting(gateway, path).await);
        println!("{path:<32}{each:>10}");
    }
    drop(counted);
    processor_time();
}

const KEEPSTACK: Setup = Setup { app: "keepstack", ..Setup::PLAIN };
const POSTS: [&str; 2] = ["/api/custom", "/api/auth/login"];
const ROUNDS: usize = 7;
const ROUND: usize = 16_000;
/// So that the gateway is busy, as far as the guard lets one client log in at once: who wakes up for each request costs more.
const AT_ONCE: usize = 4;

/// The same in microseconds of the processor, user and system, on a core of its own.
fn processor_time() {
    let gateway = Gateway::start(&["taskset", "-c", "0"], KEEPSTACK);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connect = |path| {
        let clients = (0..AT_ONCE).map(|_| Client::posting(&gateway, path));
        (path, runtime.block_on(futures_util::future::join_all(clients)), Vec::new())
    };
    let mut clients = POSTS.map(connect);
    for _ in 0..ROUNDS {
        for (_, clients, figures) in &mut clients {
            let mut ask = |requests: usize| {
                let asked = clients.iter_mut().map(|client| client.ask(requests / AT_ONCE));
                runtime.block_on(futures_util::future::join_all(asked));
            };
            ask(WARM_UP);
            let before = gateway.processor_seconds();
            ask(ROUND);
            figures.push((gateway.processor_seconds() - before) * 1e6 / ROUND as f64);
        }
    }
    println!(
        "microseconds of the processor for each, {ROUNDS} rounds of {ROUND}, interleaved; the median, and all"
    );
    for (path, _, mut figures) in clients {
        figures.sort_unstable_by(f64::total_cmp);
        println!("{path:<32}{:>10.1}   {figures:.1?}", figures[ROUNDS / 2]);
    }
}

/// A gateway under callgrind.
struct Counted {
    gateway: Gateway,
    kept: PathBuf,
    dumps: u32,
}

impl Counted {
    fn start(name: &str, setup: Setup) -> Self {
        let kept =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{}", name.replace(' ', "-")));
        let out = format!("--callgrind-out-file={}", kept.display());
        let prefix = ["taskset", "-c", "0", "valgrind", "--tool=callgrind", "--quiet", &out];
        Self { gateway: Gateway::start(&prefix, setup), kept, dumps: 0 }
    }

    fn slope(&mut self, client: impl AsyncFnOnce(&Gateway) -> Client) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = runtime.block_on(client(&self.gateway));
        runtime.block_on(client.ask(WARM_UP));
        self.counted();
        runtime.block_on(client.ask(FEW));
        let few = self.counted();
        runtime.block_on(client.ask(MANY));
        self.counted().saturating_sub(few) / (MANY - FEW) as u64
    }

    fn counted(&mut self) -> u64 {
        self.dumps += 1;
        dump(&self.gateway, &self.kept, self.dumps)
    }
}

/// What was executed since the last dump. The files stay, for `callgrind_annotate`.
fn dump(gateway: &Gateway, kept: &Path, number: u32) -> u64 {
    let told =
        Command::new("callgrind_control").args(["--dump", &gateway.pid().to_string()]).output().unwrap();
    assert!(told.status.success(), "callgrind_control: {}", String::from_utf8_lossy(&told.stderr));
    let text = std::fs::read_to_string(format!("{}.{number}", kept.display())).unwrap();
    let total = |line: &str| -> Option<u64> {
        let count = line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: "))?;
        count.trim().parse().ok()
    };
    text.lines().rev().find_map(total).expect("a total in callgrind's dump")
}
