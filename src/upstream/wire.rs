//! The socket under hyper's client and under TLS: tells the truth of it before it is used again, and lets an early answer be read
//! when the upstream has stopped to listen.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;

/// What may come before the head of an answer is whole: the head, what a read takes beside it, and interim answers.
const BEFORE_ANSWER: usize = 512 * 1024;

/// A stream that is also looked at from outside hyper.
#[derive(Debug)]
pub struct Line {
    socket: Socket,
    /// Bytes that may still come before the answer's head is whole.
    before_answer: AtomicUsize,
}

/// The side that hyper drives.
#[derive(Debug)]
pub struct Wire {
    line: Arc<Line>,
    /// The upstream takes no more; what it has said before is still to be read.
    deaf: Option<io::ErrorKind>,
    /// What it does not take is dropped.
    drops: bool,
}

impl Line {
    /// Of a connected socket.
    pub fn new(socket: Socket) -> Arc<Self> {
        Arc::new(Self { socket, before_answer: AtomicUsize::new(BEFORE_ANSWER) })
    }

    /// Neither closed by the upstream nor holding a byte that nobody asked for.
    pub fn is_quiet(&self) -> bool {
        let peeked = SockRef::from(&self.socket).peek(&mut [MaybeUninit::uninit()]);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// A request goes out.
    pub fn asked(&self) {
        self.before_answer.store(BEFORE_ANSWER, Relaxed);
    }

    /// The head of its answer has come.
    pub fn answered(&self) {
        self.before_answer.store(usize::MAX, Relaxed);
    }

    fn count(&self, length: usize) -> io::Result<()> {
        let left = self.before_answer.load(Relaxed);
        if left == usize::MAX {
            return Ok(());
        }
        let left = left.checked_sub(length).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "interim answers and headers without end")
        })?;
        self.before_answer.store(left, Relaxed);
        Ok(())
    }
}

impl Wire {
    /// The side for hyper.
    pub fn new(line: &Arc<Line>) -> Self {
        Self { line: Arc::clone(line), deaf: None, drops: false }
    }

    /// The side for HTTP/2, which reads nothing while it has something to write.
    pub fn of_frames(line: &Arc<Line>) -> Self {
        Self { drops: true, ..Self::new(line) }
    }

    /// An upstream that answers early and closes breaks our writing before its answer is read: reading goes on, and says
    /// how it ended. Its readiness wakes the task.
    fn poll_unheard(&self, length: usize) -> Poll<io::Result<usize>> {
        if self.drops { Poll::Ready(Ok(length)) } else { Poll::Pending }
    }

    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl Fn(&Socket) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.deaf.is_some() {
            return self.poll_unheard(length);
        }
        loop {
            ready!(self.line.socket.poll_write_ready(cx))?;
            match write(&self.line.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_gone(error.kind()) => {
                    self.deaf = Some(error.kind());
                    return self.poll_unheard(length);
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

fn is_gone(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.line.socket.poll_read_ready(cx))?;
            match self.line.socket.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                // The kernel tells a reset once, and our writing has heard it: this is no orderly end.
                Ok(0) => return Poll::Ready(self.deaf.map_or(Ok(()), |kind| Err(kind.into()))),
                Ok(length) => return Poll::Ready(self.line.count(length)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, bytes.len(), |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut().poll_writing(cx, length, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.line.socket).shutdown(std::net::Shutdown::Write))
    }
}
