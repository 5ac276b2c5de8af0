//! Names whose TLS is not ended here: the ClientHello is read, kept, and handed on as it came.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::serve::Served;
use super::socket::Socket;
use crate::request::client::Client;
use crate::stores::streams::Kill;

/// Bytes of a ClientHello, record headers included: five times what browsers send with keys that quantum computers do not
/// break.
const LARGEST_HELLO: usize = 16 * 1024;

/// Knows the names whose TLS goes on to somebody else.
pub trait Passages {
    /// Whether there are any: else a handshake need not wait for its name.
    fn any(&self) -> bool;
    /// What carries connections of this name (lower case, without a trailing dot); `None`: TLS is ended here.
    fn lead(&self, name: &str) -> Option<Carry>;
}

/// Carries one connection.
pub type Carry = Box<dyn FnOnce(Passing) -> Served>;

/// A connection whose ClientHello has been read.
#[derive(Debug)]
pub struct Passing {
    /// What comes next.
    pub socket: Socket,
    /// All that has come.
    pub hello: Vec<u8>,
    /// Who it is, after a PROXY header.
    pub peer: SocketAddr,
    /// The same as who it is judged by; unknown where a trusted proxy cannot name it.
    pub client: Client,
    /// Ends it, by a reset.
    pub kill: Rc<Kill>,
}

/// The ClientHello is larger than any client's.
#[derive(Debug, Clone, Copy)]
pub(super) struct HelloTooLarge;

/// A socket that keeps what is read of it.
#[derive(Debug)]
pub(super) struct Recorded {
    socket: Socket,
    bytes: Vec<u8>,
}

impl Recorded {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, bytes: Vec::new() }
    }

    pub(super) fn into_parts(self) -> (Socket, Vec<u8>) {
        (self.socket, self.bytes)
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        this.bytes.extend_from_slice(buffer.filled().get(before..).unwrap_or_default());
        if this.bytes.len() > LARGEST_HELLO {
            return Poll::Ready(Err(io::Error::other(HelloTooLarge)));
        }
        Poll::Ready(Ok(()))
    }
}

/// For the alert that answers what is no ClientHello.
impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl fmt::Display for HelloTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the ClientHello is too large")
    }
}

impl std::error::Error for HelloTooLarge {}
