//! `portcullis demo`: the sample application behind the gateway, on this machine only.

use std::io::{self, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::demo_text::{Demo, config_text, what_to_try};
use super::user_dir::user_dir;
use super::{complain, exit, run};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The port on localhost.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// The state directory; by default one of the user's own.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(super) fn demo(args: &Args, out: &mut dyn Write) -> u8 {
    match prepare(args) {
        Ok(demo) => {
            let _ = writeln!(out, "Starting; the sample application listens on {}.", demo.upstream);
            announce_when_ready(demo.clone());
            run::serve(&demo.config(), false)
        }
        Err(error) => {
            complain(format_args!("the demo cannot start: {error}"));
            exit::ERROR
        }
    }
}

fn prepare(args: &Args) -> io::Result<Demo> {
    let dir = match &args.state {
        Some(dir) => made(dir)?,
        None => user_dir("demo")?,
    };
    let demo = Demo {
        upstream: start_sample()?,
        port: args.port,
        metrics: free_port(9180)?,
        ipv6: TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
        program: std::env::current_exe()?,
        dir,
    };
    std::fs::write(demo.config(), config_text(&demo))?;
    Ok(demo)
}

fn made(dir: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    dir.canonicalize()
}

/// This port of loopback, or any free one when it is taken.
fn free_port(wanted: u16) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
    listener.local_addr()
}

/// Starts the sample application on a thread of its own; it ends with the process.
fn start_sample() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = move || {
        runtime.block_on(async {
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => crate::sample::serve(listener).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                complain(format_args!("the sample application has ended: {error}"));
            }
        });
    };
    std::thread::Builder::new().name("sample".into()).spawn(served)?;
    Ok(address)
}

/// Says what to try once the gateway answers; it blocks this thread's caller until the end.
fn announce_when_ready(demo: Demo) {
    let wait = move || {
        let address = SocketAddr::from(([127, 0, 0, 1], demo.port));
        for _ in 0..200 {
            if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
                let _ = io::stdout().write_all(what_to_try(&demo).as_bytes());
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        complain(format_args!("the gateway does not answer on {address}"));
    };
    let started = std::thread::Builder::new().name("announce".into()).spawn(wait);
    if let Err(error) = started {
        complain(error);
    }
}
