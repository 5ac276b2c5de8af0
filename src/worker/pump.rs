//! Copies bytes both ways, as they come, until one side ends, or nothing has moved for too long.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::clock::Clock;
use crate::telemetry::metrics::Passed;

/// Of each direction.
const BUFFER: usize = 16 * 1024;
/// For the second side to end after the first.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why it ended, where neither side wanted it.
const IDLE: &str = "nothing came from either side (idle_timeout of the passthrough)";

/// Bytes that have gone through.
#[derive(Debug)]
pub struct Counts {
    up: Cell<u64>,
    down: Cell<u64>,
    metrics: Passed,
}

impl Counts {
    /// None yet.
    pub fn new(metrics: Passed) -> Self {
        Self { up: Cell::new(0), down: Cell::new(0), metrics }
    }

    /// So many more from the client.
    pub fn up(&self, bytes: u64) {
        self.up.set(self.up.get() + bytes);
        self.metrics.up(bytes);
    }

    /// So many more to the client.
    pub fn down(&self, bytes: u64) {
        self.down.set(self.down.get() + bytes);
        self.metrics.down(bytes);
    }

    /// From the client, so far.
    pub fn sent_up(&self) -> u64 {
        self.up.get()
    }

    /// To the client, so far.
    pub fn sent_down(&self) -> u64 {
        self.down.get()
    }
}

/// Copies both ways; `first` goes up before all else. A side that has ended is told to the other one, which gets a moment
/// for its goodbye. Answers why it ended, where that was not a side's own wish.
pub async fn both_ways(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    first: &[u8],
    counts: &Counts,
    (clock, idle): (&Clock, Duration),
) -> Option<&'static str> {
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let moved = Cell::new(clock.now().mono);
    let up = std::pin::pin!(async {
        upstream_write.write_all(first).await?;
        copy(client_read, upstream_write, |bytes| {
            moved.set(clock.now().mono);
            counts.up(bytes);
        })
        .await
    });
    let down = std::pin::pin!(copy(upstream_read, client_write, |bytes| {
        moved.set(clock.now().mono);
        counts.down(bytes);
    }));
    let silence = std::pin::pin!(silence(&moved, clock, idle));
    let both = std::pin::pin!(async {
        let (ended, rest) = select(up, down).await.factor_first();
        // One that was broken off has no more to hear.
        if ended.is_ok() {
            let _ = tokio::time::timeout(GOODBYE, rest).await;
        }
    });
    match select(both, silence).await {
        Either::Left(_) => None,
        Either::Right(_) => Some(IDLE),
    }
}

/// Ends when nothing has moved for so long.
async fn silence(moved: &Cell<u64>, clock: &Clock, idle: Duration) {
    loop {
        let still = Duration::from_nanos(clock.now().mono.saturating_sub(moved.get()));
        match idle.checked_sub(still).filter(|left| !left.is_zero()) {
            Some(left) => tokio::time::sleep(left).await,
            None => return,
        }
    }
}

/// Copies what comes as it comes, and passes the end on. `moved` hears of each piece that was taken off our hands.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: impl Fn(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        let piece = buffer.get(..length).unwrap_or_default();
        if piece.is_empty() {
            return to.shutdown().await;
        }
        to.write_all(piece).await?;
        moved(length as u64);
    }
}
