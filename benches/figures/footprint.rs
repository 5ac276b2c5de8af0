//! Memory of an idle connection, as the slope of the resident set between two numbers of them; and the time from the
//! start of the process to its first answer.

use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::client::{self, Client};
use crate::rig::{Gateway, Setup};

const FEW: usize = 2000;
const MANY: usize = 5000;
/// Sites of a hoster.
const SITES: usize = 1000;
const STARTS: usize = 5;

pub fn run() {
    for (name, protected) in [("no blocks", false), ("100,000 blocks", true)] {
        println!("start to first answer over TLS, {name}, ms: {}", starts(protected));
    }
    println!("{}", many_sites());
    for kind in [Kind::Clear, Kind::H1, Kind::H2] {
        println!("idle connection, {kind:?}: {}", idle(kind));
    }
}

/// Each with a certificate of its own, signed at each start.
fn many_sites() -> String {
    let runtime = runtime();
    let mut all = Vec::new();
    for others in [0, SITES] {
        let mut gateway = Gateway::start(&[], Setup { app: "keepstack", others, ..Setup::PLAIN });
        let first = gateway.started.elapsed();
        let mut again = Vec::new();
        for _ in 0..STARTS {
            gateway.restart(&[]);
            runtime.block_on(async { Client::h1(&gateway).await.ask(1).await });
            again.push(gateway.started.elapsed());
        }
        all.push(format!(
            "{} ms the first time, {} from then on, {} KiB",
            first.as_millis(),
            median(again),
            gateway.resident()
        ));
    }
    format!("start to first answer with one site: {}; with {SITES} more: {}", all[0], all[1])
}

fn starts(protected: bool) -> String {
    let runtime = runtime();
    let answered = |gateway: &Gateway| {
        runtime.block_on(async { Client::h1(gateway).await.ask(1).await });
        gateway.started.elapsed()
    };
    let mut fresh = Vec::new();
    let mut again = Vec::new();
    for _ in 0..STARTS {
        let mut gateway = Gateway::start(&[], Setup { protected, ..Setup::PLAIN });
        fresh.push(answered(&gateway));
        gateway.restart(&[]);
        again.push(answered(&gateway));
    }
    format!("{} the first time, {} from then on (medians of {STARTS})", median(fresh), median(again))
}

fn median(mut times: Vec<Duration>) -> u128 {
    times.sort();
    times[times.len() / 2].as_millis()
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Clear,
    H1,
    H2,
}

/// Connections that have had one answer each and now wait.
fn idle(kind: Kind) -> String {
    let gateway = Gateway::start(&["taskset", "-c", "0"], Setup::PLAIN);
    runtime().block_on(async {
        let mut open: Vec<(Option<Client>, Option<TcpStream>)> = Vec::new();
        let mut sizes = Vec::new();
        for number in [FEW, MANY] {
            while open.len() < number {
                open.push(one(&gateway, kind).await);
            }
            // For the gateway to come to rest.
            tokio::time::sleep(Duration::from_secs(1)).await;
            sizes.push(gateway.resident());
        }
        let slope = (sizes[1].saturating_sub(sizes[0]) as f64) / (MANY - FEW) as f64;
        format!("{slope:.1} KiB (resident with {FEW}: {} KiB, with {MANY}: {} KiB)", sizes[0], sizes[1])
    })
}

async fn one(gateway: &Gateway, kind: Kind) -> (Option<Client>, Option<TcpStream>) {
    let mut client = match kind {
        Kind::H1 => Client::h1(gateway).await,
        Kind::H2 => Client::h2(gateway).await,
        Kind::Clear => {
            // The trusted proxy of the config.
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
            let mut stream = socket.connect(gateway.plain).await.unwrap();
            let request = client::request(gateway);
            let request = request.replacen("\r\n", "\r\nX-Forwarded-For: 192.0.2.1\r\n", 1);
            client::ask(&mut stream, request.as_bytes()).await;
            return (None, Some(stream));
        }
    };
    client.ask(1).await;
    (Some(client), None)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
