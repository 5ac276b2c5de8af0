//! Sockets that listen: shared by all workers, dual stack where there is IPv6; and how one is closed without a connection lost.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use super::Kind;

/// Connections that the kernel keeps for us.
pub(super) const BACKLOG: i32 = 1024;

/// For handshakes under way when a socket closes: longer than the way to a client and back.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(250);

/// A listening socket for another process, and what it is for.
#[derive(Debug)]
pub struct Lent {
    /// What for.
    pub kind: Kind,
    /// As the config names it.
    pub address: SocketAddr,
    /// A descriptor of its own.
    pub socket: TcpListener,
    /// A supervisor holds it too: it goes on when all of ours are closed.
    pub outlives: bool,
}

/// A socket at work. There is one descriptor of it in this process, so that it is closed when we close it.
#[derive(Debug)]
pub struct Bound {
    pub(super) socket: tokio::net::TcpListener,
    /// A supervisor holds it too, and with it its queue.
    outlives: bool,
    /// So does another process, which may take over.
    lent: Cell<bool>,
}

impl Bound {
    /// Gives it to the runtime of this thread.
    pub(super) fn new(socket: TcpListener, outlives: bool) -> io::Result<Self> {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        Ok(Self { socket, outlives, lent: Cell::new(false) })
    }

    /// A second descriptor, for another process; and whether a supervisor has one.
    ///
    /// # Errors
    /// When there is none left.
    pub fn lend(&self) -> io::Result<(TcpListener, bool)> {
        let second = self.socket.as_fd().try_clone_to_owned()?;
        self.lent.set(true);
        Ok((second.into(), self.outlives))
    }

    /// The other process has failed.
    pub fn take_back(&self) {
        self.lent.set(false);
    }

    /// Begins the end: nobody begins a handshake any more, those under way come to theirs within [`UNDER_WAY`]. Whoever is left
    /// out asks again a second later by himself, and is refused then. `false`: not possible, or not ours to do.
    pub(super) fn shuts_out(&self) -> bool {
        !self.outlives && !self.lent.get() && SockRef::from(&self.socket).attach_filter(&NO_SYN).is_ok()
    }
}

/// Drops what has SYN and not ACK, by byte 13 of a TCP header: a program for the kernel's packet filter (BPF).
const NO_SYN: [SockFilter; 5] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 13),
    SockFilter::new(AND, 0, 0, 0x12),
    SockFilter::new(IS_EQUAL, 0, 1, 0x02),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const IS_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Binds. Several workers may bind the same address; `[::]` takes IPv4 too, and becomes `0.0.0.0` on hosts without IPv6.
///
/// # Errors
/// When the address is taken or not ours.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match bind_to(address) {
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && no_ipv6(&error) => {
            bind_to(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        other => other,
    }
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_comes_back_from_another_process_is_ours_to_shut_again_and_a_supervisors_never() {
        for outlives in [false, true] {
            let bound = Bound::new(bind(([127, 0, 0, 1], 0).into()).unwrap(), outlives).unwrap();
            for _ in 0..2 {
                let (second, others) = bound.lend().unwrap();
                assert_eq!(others, outlives, "who had it for a while is no supervisor");
                assert!(!bound.shuts_out(), "the other process may accept");
                drop(second);
                bound.take_back();
            }
            assert_eq!(bound.shuts_out(), !outlives);
        }
    }
}
