//! Whether somebody listens where the upstreams are said to be: tried by `check` unless it is told to stay offline.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::access::Found;
use crate::config::settings::Settings;
use crate::config::upstream::{Address, Upstream};

/// A name server that does not answer takes longer than all patience of a person.
const PATIENCE: Duration = Duration::from_secs(3);
/// Each address of a name.
const CONNECT: Duration = Duration::from_millis(900);
/// Names with more addresses than this have the rest of them left out.
const ADDRESSES: usize = 3;

/// The upstreams at which nobody listens now, each once; all are tried at the same time.
pub(super) fn unreached(settings: &Settings) -> Vec<Found> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    for site in &settings.sites {
        for upstream in site.upstreams() {
            if !upstreams.contains(&upstream) {
                upstreams.push(upstream);
            }
        }
    }
    let mut named: Vec<_> = upstreams.into_iter().map(|one| (one.to_string(), one.address)).collect();
    named.extend(settings.passthroughs.iter().map(|to| (to.upstream.to_string(), to.upstream.clone())));
    let tries: Vec<_> = named.into_iter().map(|(name, address)| (name, attempt(address))).collect();
    let mut patience = PATIENCE;
    let mut found = Vec::new();
    for (upstream, told) in tries {
        let why = match told.recv_timeout(patience) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                // The others have had as long.
                patience = Duration::ZERO;
                "no answer in 3 s".into()
            }
        };
        found.push(Found {
            message: format!("nobody listens at {upstream} now: {why}"),
            help: "start the application, or mend the address; --offline does not try".into(),
        });
    }
    found
}

fn attempt(upstream: Address) -> Receiver<Result<(), String>> {
    let (tell, told) = sync_channel(1);
    // Left behind when it hangs in a name server: the process ends soon.
    std::thread::spawn(move || tell.send(connect(&upstream)));
    told
}

fn connect(upstream: &Address) -> Result<(), String> {
    let (host, port) = match upstream {
        Address::Tcp { host, port } => (host, *port),
        Address::Unix(path) => {
            return UnixStream::connect(path).map(drop).map_err(|error| error.to_string());
        }
    };
    let addresses = (&**host, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for address in addresses.take(ADDRESSES) {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}
