//! The hand-over to a new process, from the side of the old one: no connection is refused, no block is forgotten.
//!
//! 1. The operator's side is shut: orders go to the spool from here on, where the next owner of the store finds them.
//! 2. What is learned and not yet written is written, and the store is closed: only one process may own it.
//! 3. The listening sockets go over. Both processes have them now, and with them one queue; we accept until the new one says
//!    that it does.
//! 4. On its word we drain, and hear of every block that the new process takes: it cuts our streams too.
//!
//! When the new process fails before its word we take all back and go on as if nothing had been.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::Control;
use super::blocking::SWEEP;
use super::wire::{self, Fed, Swept};
use crate::telemetry::audit::Entry;
use crate::worker::Workers;

/// How long a new process may take to come up.
const COME_UP: Duration = Duration::from_secs(30);

/// What stands around the control thread, as far as a hand-over changes it.
pub trait Outside: Send {
    /// Closes the admin socket and the listener of metrics; returns when both are closed.
    fn shut(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>>;
    /// Opens them again.
    ///
    /// # Errors
    /// In words.
    fn open(&mut self) -> Result<(), String>;
    /// Begins to drain the workers.
    fn drain(&mut self);
}

impl Control {
    /// A new process asks for all that we hold. Returns when it has failed; else never: the end of the drain ends us.
    pub(super) async fn hand_over(&mut self, stream: UnixStream) {
        let mut stream = stream;
        if let Err(error) = self.offer(&mut stream).await {
            (self.say)(&format!("the hand-over to a new process has failed ({error}): this one goes on"));
            let opened = self.outside.as_mut().map_or(Ok(()), |outside| outside.open());
            if let Err(error) = opened {
                (self.say)(&format!(
                    "the admin side cannot be opened again: {error}; blocks are taken by the spool"
                ));
            }
            return;
        }
        (self.say)("a new process has taken over: this one finishes what runs");
        self.audit(&Entry {
            action: "hand over",
            by: "a new process",
            what: &"the gateway",
            reason: "",
            outcome: "taken",
        });
        self.outside.iter_mut().for_each(|outside| outside.drain());
        self.follow(stream).await;
        std::future::pending::<()>().await;
    }

    async fn offer(&mut self, stream: &mut UnixStream) -> Result<(), String> {
        if let Some(outside) = &mut self.outside {
            outside.shut().await;
        }
        self.keep_accounts();
        if !self.unwritten.is_empty() && !self.commit(&[]) {
            return Err("blocks are not on the disk, and would be forgotten".into());
        }
        let sockets = self.workers.sockets(SWEEP).await.ok_or("a worker did not answer")?;
        self.store.release();
        wire::give(stream, &sockets).await.map_err(|error| error.to_string())?;
        drop(sockets);
        let mut word = [0; wire::TAKEN.len()];
        match tokio::time::timeout(COME_UP, stream.read_exact(&mut word)).await {
            Ok(Ok(_)) if word == *wire::TAKEN => Ok(()),
            Ok(_) => Err("it ended before it was ready".into()),
            Err(_) => Err("it did not come up in time".into()),
        }
    }

    /// Takes every block that the owner of the store tells of, until it is gone.
    async fn follow(&mut self, stream: UnixStream) {
        let (lines, mut answers) = stream.into_split();
        let mut lines = BufReader::new(lines);
        let mut line = String::new();
        loop {
            line.clear();
            match lines.read_line(&mut line).await {
                Ok(length) if length > 0 => {}
                _ => {
                    return (self.say)(
                        "the new process is gone; blocks that it took hold here, others are not heard of",
                    );
                }
            }
            let Ok(fed) = serde_json::from_str::<Fed>(&line) else { continue };
            let swept = self.take_fed(fed).await;
            let answer = wire::line(&swept);
            if answers.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn take_fed(&mut self, fed: Fed) -> Swept {
        let now = self.clock.now();
        for block in fed.blocks {
            let held = block.held(now);
            let index = self.blocks.load();
            self.blocks.publish(match held.is_over(now) {
                true => index.without(&held),
                false => index.with([&held]),
            });
            self.held.insert(held.block.id, held);
        }
        let swept = self.workers.sweep_remaining(SWEEP).await;
        Swept { number: fed.number, cut: swept.cut, confirmed: swept.confirmed }
    }
}

/// The old process, as the new one sees it: it hears of every block for as long as it drains.
#[derive(Debug)]
pub struct Follower {
    lines: BufReader<UnixStream>,
    number: u64,
}

impl Follower {
    /// It has said that it is there.
    pub fn new(stream: UnixStream) -> Self {
        Self { lines: BufReader::new(stream), number: 0 }
    }

    /// Tells of blocks and waits until they hold there too; `None`: it is gone, and with it all its streams.
    async fn tell(&mut self, blocks: Vec<crate::stores::blocks::Block>) -> Option<crate::worker::Swept> {
        self.number += 1;
        let said = wire::line(&Fed { number: self.number, blocks });
        self.lines.get_mut().write_all(said.as_bytes()).await.ok()?;
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let swept = serde_json::from_str::<Swept>(&line).ok()?;
            if swept.number == self.number {
                return Some(crate::worker::Swept { cut: swept.cut, confirmed: swept.confirmed });
            }
        }
    }
}

impl Control {
    /// The process that we took over from. It learns at once what it cannot know yet.
    pub async fn set_follower(&mut self, stream: UnixStream) {
        self.follower = Some(Follower::new(stream));
        let new: Vec<u64> = self.held.keys().copied().filter(|id| *id > self.last_at_open).collect();
        self.sweep(&new).await;
    }

    /// Every worker of ours, and of the process that we took over from, cuts what these blocks mean.
    pub(super) async fn sweep(&mut self, ids: &[u64]) -> crate::worker::Swept {
        let workers = self.workers.clone();
        let Some(mut follower) = self.follower.take() else { return workers.sweep(SWEEP).await };
        let blocks = ids.iter().filter_map(|id| self.held.get(id)).map(|held| held.block.clone()).collect();
        let (mut swept, theirs) =
            tokio::join!(Workers::sweep(&workers, SWEEP), tokio::time::timeout(SWEEP, follower.tell(blocks)));
        match theirs {
            Ok(Some(theirs)) => {
                swept.cut += theirs.cut;
                swept.confirmed &= theirs.confirmed;
                self.follower = Some(follower);
            }
            Ok(None) => {}
            Err(_) => {
                swept.confirmed = false;
                self.follower = Some(follower);
            }
        }
        swept
    }
}
