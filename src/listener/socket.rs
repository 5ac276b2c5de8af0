//! The lowest layer: a TCP stream that is reset, not closed, when its connection was killed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::caps::Permit;
use super::local::Local;
use crate::stores::streams::Kill;

/// A TCP stream, its kill switch, and its place among the connections that may be open.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    kill: Local<Kill>,
    permit: Permit,
    /// Was read before it was due; comes first.
    early: Vec<u8>,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream, kill: Local<Kill>, permit: Permit) -> Self {
        Self { stream, kill, permit, early: Vec::new() }
    }

    /// The next read begins with these bytes.
    pub(crate) fn give_back(&mut self, bytes: &[u8]) {
        self.early.splice(..0, bytes.iter().copied());
    }

    /// Its place among the open connections.
    pub(crate) fn permit(&mut self) -> &mut Permit {
        &mut self.permit
    }

    /// The address that the client has connected to.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn local_address(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.local_addr()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.kill.get().is_some_and(|kill| kill.is_killed()) {
            // What a cut stream has not sent yet must not be sent any more: the kernel drops it and sends RST.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let piece = self.early.len().min(buffer.remaining());
            buffer.put_slice(self.early.drain(..piece).as_slice());
            if self.early.is_empty() {
                self.early = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
