//! A socket of either family.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::ReadBuf;
use tokio::net::{TcpStream, UnixStream};

use super::{KEEPALIVE_EVERY, KEEPALIVE_IDLE};
use crate::config::upstream::Address;

/// What the kernel takes from an upstream for a client that takes nothing; its own choice goes up to megabytes.
const RECEIVE_BUFFER: usize = 128 * 1024;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Socket {
    /// Connects; a name is resolved each time, and each of its addresses gets its share of the time.
    ///
    /// # Errors
    /// The kernel's or the resolver's, with the path of a Unix socket.
    pub async fn connect(address: &Address, within: Duration) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp { host, port } => {
                let stream = connect_any(host, *port, within).await?;
                stream.set_nodelay(true)?;
                // A host that is gone says nothing: streams that may be silent for hours learn of it here.
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_EVERY);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Self::Tcp(stream)
            }
            Address::Unix(path) => {
                let told = |error: io::Error| io::Error::new(error.kind(), explain(&error, path));
                Self::Unix(UnixStream::connect(path).await.map_err(told)?)
            }
        };
        SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        Ok(socket)
    }

    /// Readiness to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Readiness to write.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Reads what is there.
    pub fn try_read_buf(&self, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read_buf(buffer),
            Self::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes what fits.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// The same of several pieces.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write_vectored(slices),
            Self::Unix(stream) => stream.try_write_vectored(slices),
        }
    }
}

/// The first address of a host that takes a connection: one that is silent must not use up the time of the others.
async fn connect_any(host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let share = within / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in &addresses {
        if let [only] = addresses.as_slice() {
            return TcpStream::connect(only).await;
        }
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// What stands in the way to a socket file, for who reads the log at night.
fn explain(error: &io::Error, path: &std::path::Path) -> String {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket; does the application run?".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "this user may not write to it; mind its mode and its directory's".to_owned()
        }
        io::ErrorKind::ConnectionRefused => "nobody listens there any more, or it is no socket".to_owned(),
        _ => error.to_string(),
    };
    format!("{}: {why}", path.display())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
