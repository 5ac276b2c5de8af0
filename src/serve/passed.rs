//! Sockets that a supervisor has bound for us (systemd's socket activation). They outlive a restart: who connects
//! meanwhile waits in their queue, and nobody is refused. And ports below 1024 need no privilege of ours.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

use super::Fault;
use crate::listener::Kind;
use crate::listener::accept::Listener;

/// The sockets, by the address that each listens on. Held as long as the process lives: a reload may close a listener
/// and a later one open it again.
#[derive(Debug, Default)]
pub(super) struct Passed(Vec<(SocketAddr, TcpListener)>);

impl Passed {
    /// Takes them as `sd_listen_fds(3)` says, and the variables out of the environment: once per process, before the
    /// threads that serve.
    ///
    /// # Errors
    /// When something else than a listening TCP socket is passed.
    pub(super) fn take() -> Result<Self, Fault> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for place in 0..passed.len() {
            let socket = passed.take_tcp_listener(place).and_then(|socket| socket.map(ready).transpose());
            let socket =
                socket.map_err(|error| format!("a socket that systemd passes is of no use: {error}"))?;
            sockets.extend(socket);
        }
        Ok(Self(sockets))
    }

    /// A listener for one worker: the socket that was passed for the address, shared with the other workers; else one
    /// of our own.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub(super) fn open(&self, address: SocketAddr, kind: Kind) -> io::Result<Listener> {
        match self.0.iter().find(|(own, _)| *own == address) {
            Some((_, socket)) => Ok(Listener::passed(socket.try_clone()?, kind, true)),
            None => Listener::bind(address, kind),
        }
    }

    /// Holds that each socket is served: clients of one that nobody accepts from would wait for ever.
    ///
    /// # Errors
    /// Names the socket that no listener of the config asks for.
    pub(super) fn all_named(&self, wanted: &[(Kind, SocketAddr)]) -> Result<(), Fault> {
        let unnamed = self.unnamed(wanted);
        if unnamed.is_empty() { Ok(()) } else { Err(unnamed.join("\n").into()) }
    }

    /// What to say of each socket that no listener asks for.
    pub(super) fn unnamed(&self, wanted: &[(Kind, SocketAddr)]) -> Vec<String> {
        let named = |address| wanted.iter().any(|(_, own)| *own == address);
        let unnamed = self.0.iter().filter(|(address, _)| !named(*address));
        unnamed
            .map(|(address, _)| {
                format!(
                    "systemd listens on {address} for us, and no key of [listen] names it: its clients would wait \
                     for ever; name it there, or take it out of portcullis.socket"
                )
            })
            .collect()
    }
}

/// With its address, for the runtime.
fn ready(socket: TcpListener) -> io::Result<(SocketAddr, TcpListener)> {
    if !socket2::SockRef::from(&socket).is_listener()? {
        return Err(io::Error::other("it does not listen"));
    }
    socket.set_nonblocking(true)?;
    Ok((socket.local_addr()?, socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> (SocketAddr, Passed) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (address, Passed(vec![(address, socket)]))
    }

    #[test]
    fn every_worker_shares_the_socket_that_was_passed() {
        let (address, passed) = one();
        for _ in 0..3 {
            assert_eq!(passed.open(address, Kind::Https).unwrap().address().unwrap(), address);
        }
        // The kernel would not let us bind it a second time: what came was the one that was passed.
        assert!(Listener::bind(address, Kind::Https).is_err());
    }

    #[test]
    fn a_socket_that_no_listener_asks_for_is_named() {
        let (address, passed) = one();
        assert!(passed.all_named(&[(Kind::Https, address)]).is_ok());
        let error = passed.all_named(&[(Kind::Http, "127.0.0.1:1".parse().unwrap())]).unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
