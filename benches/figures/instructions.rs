//! Instructions per request, user space, by callgrind: the slope between two request counts over one connection, so that
//! start, handshake and warm-up cancel out.

use std::path::Path;
use std::process::Command;

use crate::client::Client;
use crate::rig::{Gateway, Setup};

const WARM_UP: usize = 320;
const FEW: usize = 320;
const MANY: usize = 1600;

pub fn run() {
    println!("instructions per request, TLS 1.3, answers of 1 KiB (h2: 32 streams in flight)");
    println!("{:<32}{:>10}{:>10}", "", "HTTP/1.1", "HTTP/2");
    for (name, protected, log) in [
        ("plain", false, false),
        ("with protections", true, false),
        ("with protections and access log", true, true),
    ] {
        let [h1, h2] = measure(name, Setup { protected, log });
        println!("{name:<32}{h1:>10}{h2:>10}");
    }
}

fn measure(name: &str, setup: Setup) -> [u64; 2] {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{}", name.replace(' ', "-")));
    let out = format!("--callgrind-out-file={}", kept.display());
    let prefix = ["taskset", "-c", "0", "valgrind", "--tool=callgrind", "--quiet", &out];
    let gateway = Gateway::start(&prefix, setup);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut dumps = 0;
    let mut counted = || {
        dumps += 1;
        dump(&gateway, &kept, dumps)
    };
    let mut slope = |client: &mut Client| {
        runtime.block_on(client.ask(WARM_UP));
        counted();
        runtime.block_on(client.ask(FEW));
        let few = counted();
        runtime.block_on(client.ask(MANY));
        counted().saturating_sub(few) / (MANY - FEW) as u64
    };
    let h1 = slope(&mut runtime.block_on(Client::h1(&gateway)));
    let h2 = slope(&mut runtime.block_on(Client::h2(&gateway)));
    [h1, h2]
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
