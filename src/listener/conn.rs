//! The plaintext I/O type under hyper: hands over exactly one head, then exactly its body, then the next head.
//!
//! What breaks the grammar never reaches hyper: in place of a bad head it gets a harmless one, as the last of the
//! connection, and [`Connection::malformed`] tells the service to refuse it. HTTP/2 and tunnels pass through.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Connection;
use super::framing::{Body, Chunks, HeadLimits, HeadParser};
use super::local::Local;
use super::tally::Tally;

/// Bytes that one read takes at most, and that are held back behind an upgrade request.
const SCRATCH: usize = 64 * 1024;
/// Bytes that are read and dropped after the last answer, so that it is not lost to a reset.
const LINGER: usize = 256 * 1024;
/// What hyper parses where a malformed head was.
const SUBSTITUTE: &[u8] = b"GET / HTTP/1.1\r\nhost: malformed.invalid\r\nconnection: close\r\n\r\n";

thread_local! {
    /// Nobody keeps it over an await, so one does for all connections of the thread.
    static SCRATCH_BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The I/O type under hyper.
#[derive(Debug)]
pub struct Conn<T> {
    io: TokioIo<Tally<T>>,
    connection: Local<Connection>,
    limits: HeadLimits,
    state: State,
    /// Bytes of the current message, already judged, to be handed over as they are.
    due: usize,
    /// What was read and not handed over.
    rest: Vec<u8>,
    heads: u64,
    eof: bool,
    lingered: Option<usize>,
}

#[derive(Debug)]
enum State {
    /// Everything passes: HTTP/2.
    Open,
    Head(HeadParser),
    Exact(u64),
    Chunked(Box<Chunks>),
    /// Behind an upgrade request: more bytes wait until its answer is decided.
    Held,
    /// A head was refused; hyper gets this in its place, and then nothing.
    Refused(&'static [u8]),
    /// A body was refused.
    Broken,
}

impl<T> Conn<T> {
    /// Wraps the plaintext side of a connection; its protocol is [`Connection::h2`]'s.
    pub fn new(io: T, connection: &Rc<Connection>, limits: HeadLimits) -> Self {
        let state = if connection.h2 { State::Open } else { State::Head(HeadParser::default()) };
        Self {
            io: TokioIo::new(Tally { io, read: 0 }),
            connection: Local::new(Rc::clone(connection)),
            limits,
            state,
            due: 0,
            rest: Vec::new(),
            heads: 0,
            eof: false,
            lingered: None,
        }
    }

    fn shared(&self) -> io::Result<Rc<Connection>> {
        self.connection.get().ok_or_else(|| io::Error::other("a connection left its thread"))
    }

    /// Hands over from `bytes` what belongs to one message; answers how many bytes are done with.
    fn feed(&mut self, shared: &Connection, bytes: &[u8], cursor: &mut ReadBufCursor<'_>) -> usize {
        let room = cursor.remaining();
        let mut used = 0;
        while cursor.remaining() > 0 {
            let rest = bytes.get(used..).unwrap_or_default();
            if self.due > 0 {
                let piece = first(rest, self.due.min(cursor.remaining()));
                cursor.put_slice(piece);
                self.due -= piece.len();
                used += piece.len();
                if self.due > 0 {
                    break;
                }
                continue;
            }
            if let State::Refused(substitute) = &mut self.state {
                let piece = first(substitute, cursor.remaining());
                cursor.put_slice(piece);
                *substitute = substitute.get(piece.len()..).unwrap_or_default();
                return bytes.len();
            }
            let fresh = cursor.remaining() == room;
            if rest.is_empty() || !self.step(shared, rest, fresh) {
                break;
            }
            if self.due == 0 && !matches!(self.state, State::Refused(_)) {
                used += self.body(shared, rest, cursor);
            }
        }
        used
    }

    /// Sees to it that the front of `rest` can go; `false`: it must wait.
    fn step(&mut self, shared: &Connection, rest: &[u8], fresh: bool) -> bool {
        match &mut self.state {
            State::Head(_) if !fresh => false,
            State::Head(parser) => match parser.advance(rest, self.limits) {
                Ok(None) => false,
                Ok(Some(head)) => {
                    self.heads += 1;
                    self.due = head.len;
                    self.state = match head.body {
                        _ if head.upgrade => State::Held,
                        Body::None => State::Head(HeadParser::default()),
                        Body::Exact(length) => State::Exact(length),
                        Body::Chunked => State::Chunked(Box::default()),
                    };
                    true
                }
                Err(reason) => {
                    shared.malformed.set(Some((self.heads + 1, reason)));
                    self.state = State::Refused(SUBSTITUTE);
                    true
                }
            },
            State::Held if shared.watch.answered.get() >= self.heads => {
                self.state = State::Head(HeadParser::default());
                fresh && self.step(shared, rest, fresh)
            }
            State::Exact(_) | State::Chunked(_) => true,
            State::Held | State::Broken | State::Refused(_) | State::Open => false,
        }
    }

    fn body(&mut self, shared: &Connection, rest: &[u8], cursor: &mut ReadBufCursor<'_>) -> usize {
        let piece = first(rest, cursor.remaining());
        match &mut self.state {
            State::Exact(left) => {
                let run = usize::try_from(*left).unwrap_or(usize::MAX).min(piece.len());
                cursor.put_slice(first(piece, run));
                *left -= run as u64;
                if *left == 0 {
                    self.state = State::Head(HeadParser::default());
                }
                run
            }
            State::Chunked(chunks) => {
                let (good, wrong) = chunks.accept(piece);
                let done = chunks.is_done();
                cursor.put_slice(first(piece, good));
                if let Some(reason) = wrong {
                    shared.malformed_body.set(Some(reason));
                    self.state = State::Broken;
                } else if done {
                    self.state = State::Head(HeadParser::default());
                }
                good
            }
            _ => 0,
        }
    }

    /// Hands over unseen what a tunnel has been held back.
    fn hand_over_rest(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let piece = first(&self.rest, cursor.remaining()).len();
        cursor.put_slice(first(&self.rest, piece));
        self.rest.drain(..piece);
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
    }

    /// Hands over from what is held back.
    fn feed_rest(&mut self, shared: &Connection, cursor: &mut ReadBufCursor<'_>) {
        let mut rest = std::mem::take(&mut self.rest);
        let used = self.feed(shared, &rest, cursor);
        if used < rest.len() {
            rest.drain(..used);
            self.rest = rest;
        }
        let mid_head = matches!(self.state, State::Head(_)) && self.due == 0 && !self.rest.is_empty();
        shared.watch.mid_head.set(mid_head);
    }
}

fn first(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

impl<T: AsyncRead + AsyncWrite + Unpin> Conn<T> {
    fn poll_plain(
        &mut self,
        shared: &Connection,
        cx: &mut Context<'_>,
        cursor: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let room = cursor.remaining();
        loop {
            self.feed_rest(shared, cursor);
            if cursor.remaining() < room {
                return Poll::Ready(Ok(()));
            }
            match self.state {
                State::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                // hyper closes after the refusal; until then there is nothing for it.
                State::Refused(_) => return Poll::Pending,
                State::Held => shared.watch.wait_answer(cx.waker()),
                _ => {}
            }
            let held = if matches!(self.state, State::Held) { self.rest.len() } else { 0 };
            if held >= SCRATCH {
                return Poll::Pending;
            }
            if self.rest.is_empty() && self.due == 0 {
                let body = matches!(self.state, State::Exact(_) | State::Chunked(_));
                let most = if body { room.min(SCRATCH) } else { SCRATCH };
                std::task::ready!(self.poll_scratch(shared, cx, Some(&mut *cursor), most))?;
            } else {
                std::task::ready!(self.poll_scratch(shared, cx, None, SCRATCH - held))?;
            }
            if self.eof || cursor.remaining() < room {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads into the thread's scratch; with a cursor what can go goes from there, and only the rest is kept.
    fn poll_scratch(
        &mut self,
        shared: &Connection,
        cx: &mut Context<'_>,
        cursor: Option<&mut ReadBufCursor<'_>>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        SCRATCH_BYTES.with_borrow_mut(|scratch| {
            scratch.resize(SCRATCH, 0);
            let mut buffer = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
            std::task::ready!(Pin::new(&mut self.io.inner_mut().io).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            self.eof = bytes.is_empty();
            shared.received.set(shared.received.get() + bytes.len() as u64);
            let used = cursor.map_or(0, |cursor| self.feed(shared, bytes, cursor));
            self.rest.extend_from_slice(bytes.get(used..).unwrap_or_default());
            let mid_head = matches!(self.state, State::Head(_)) && self.due == 0 && !self.rest.is_empty();
            shared.watch.mid_head.set(mid_head);
            Poll::Ready(Ok(()))
        })
    }

    /// Straight into hyper's buffer: what comes needs no look.
    fn poll_direct(
        &mut self,
        shared: &Connection,
        cx: &mut Context<'_>,
        cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let before = self.io.inner().read;
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, cursor))?;
        let read = self.io.inner().read - before;
        self.eof = read == 0;
        shared.received.set(shared.received.get() + read);
        if let State::Exact(left) = &mut self.state {
            *left -= read;
            if *left == 0 {
                self.state = State::Head(HeadParser::default());
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the next bytes need no look, all of them that the cursor has room for.
    fn is_direct(&self, passes: bool, room: usize) -> bool {
        let body = matches!(self.state, State::Exact(left) if left >= room as u64);
        self.rest.is_empty() && self.due == 0 && (passes || body)
    }

    /// Reads and drops what still comes, so that the kernel has no reason to reset the answer away.
    fn poll_linger(&mut self, shared: &Connection, cx: &mut Context<'_>) -> Poll<()> {
        shared.watch.lingering.set(true);
        self.rest = Vec::new();
        SCRATCH_BYTES.with_borrow_mut(|scratch| {
            scratch.resize(SCRATCH, 0);
            loop {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut self.io.inner_mut().io).poll_read(cx, &mut buffer) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(())) => {
                        let dropped = self.lingered.unwrap_or(0) + buffer.filled().len();
                        self.lingered = Some(dropped);
                        if buffer.filled().is_empty() || dropped > LINGER {
                            return Poll::Ready(());
                        }
                    }
                }
            }
        })
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Read for Conn<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shared = this.shared()?;
        let passes = shared.tunnel.get() || matches!(this.state, State::Open);
        let result = if this.is_direct(passes, cursor.remaining()) {
            this.poll_direct(&shared, cx, cursor)
        } else if passes {
            this.hand_over_rest(&mut cursor);
            return Poll::Ready(Ok(()));
        } else {
            this.poll_plain(&shared, cx, &mut cursor)
        };
        if !shared.h2 {
            let body = !passes && matches!(this.state, State::Exact(_) | State::Chunked(_));
            shared.watch.owing.set(body && result.is_pending());
        }
        result
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Write for Conn<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let shared = this.shared()?;
        let result = Pin::new(&mut this.io).poll_write(cx, bytes);
        count_sent(&shared, &result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let shared = this.shared()?;
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        count_sent(&shared, &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        Write::is_write_vectored(&self.io)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_flush(cx);
        this.shared()?.watch.blocked.set(result.is_pending());
        result
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shared = this.shared()?;
        if this.lingered.is_none() {
            std::task::ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            // A tunnel goes on reading after its write side is shut.
            if this.eof || shared.tunnel.get() {
                return Poll::Ready(Ok(()));
            }
            this.lingered = Some(0);
        }
        this.poll_linger(&shared, cx).map(Ok)
    }
}

fn count_sent(shared: &Connection, result: &Poll<io::Result<usize>>) {
    shared.watch.blocked.set(result.is_pending());
    if let Poll::Ready(Ok(sent)) = result {
        shared.sent.set(shared.sent.get() + *sent as u64);
    }
}

#[cfg(test)]
#[path = "conn_tests.rs"]
mod tests;
