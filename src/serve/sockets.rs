//! The public sockets at the start: bound, passed by a supervisor, or handed over.

use std::net::SocketAddr;

use super::passed::Passed;
use super::takeover::Handed;
use super::{Fault, live};
use crate::config::settings::Settings;
use crate::listener::Kind;
use crate::listener::accept::Listener;

/// Every address once for each worker: the kernel spreads connections over them.
pub(super) fn bind(
    settings: &Settings,
    workers: usize,
    passed: &Passed,
    handed: Option<&Handed>,
) -> Result<Vec<Vec<(SocketAddr, Listener)>>, Fault> {
    let wanted = live::wanted(settings);
    passed.all_named(&wanted)?;
    let mut sockets = Vec::new();
    for worker in 0..workers {
        let mut own = Vec::new();
        for (kind, address) in wanted.iter().copied() {
            let given =
                handed.map(|handed| handed.listeners((kind, address), worker, workers)).transpose()?;
            if let Some(given) = given.filter(|given| !given.is_empty()) {
                own.extend(given.into_iter().map(|listener| (address, listener)));
                continue;
            }
            let listener = passed.open(address, kind).map_err(|error| bind_error(kind, address, &error))?;
            own.push((address, listener));
        }
        sockets.push(own);
    }
    Ok(sockets)
}

/// Why it cannot be, with the way out.
pub(super) fn bind_error(kind: Kind, address: SocketAddr, error: &std::io::Error) -> String {
    let help = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; ports below 1024 want CAP_NET_BIND_SERVICE (`setcap cap_net_bind_service=+ep`) or root"
        }
        std::io::ErrorKind::AddrInUse => "; another program listens there: stop it, or set another address",
        _ => "",
    };
    format!("cannot listen on {address} (listen.{}): {error}{help}", kind.word())
}
