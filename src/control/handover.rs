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
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::Control;
use super::blocking::SWEEP;
use super::wire::{self, Fed, Swept};
use crate::admin::api::SCHEMA;
use crate::stores::blocks::order::Spooled;
use crate::stores::blocks::{Block, Order};
use crate::stores::durable::Store;
use crate::stores::durable::spool;
use crate::stores::taught::{Outcome, Taught};
use crate::telemetry::audit::Entry;
use crate::worker::{self, Workers};

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
            drop(stream);
            self.astray = true;
            self.come_back().await;
            return;
        }
        (self.say)("a new process has taken over: this one finishes what runs");
        // It asks for certificates itself: two orders for one host would answer each other's challenges.
        self.authority.stop();
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

    /// After a hand-over that failed: what the other one has taken in meanwhile counts here too, then the doors open again.
    /// Tried again with each tick until both are done.
    pub(super) async fn come_back(&mut self) {
        if !self.astray {
            return;
        }
        // From the try before, which may have come as far as here.
        self.store.release();
        let outcome = match Store::open(&self.state.store()) {
            Ok(opened) => {
                self.store = opened.store;
                self.merge(opened.blocks);
                if !self.workers.sweep(SWEEP).await.confirmed {
                    (self.say)("a worker has not confirmed the blocks that another process has taken in");
                }
                self.outside.as_mut().map_or(Ok(()), |outside| outside.open())
            }
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(()) => self.astray = false,
            Err(error) => (self.say)(&format!(
                "what was given cannot be taken back yet: {error}; orders to block are taken by the spool, it is tried again"
            )),
        }
    }

    /// Blocks that another process has written while it had the store. One of ours that has the same number, and is not on the
    /// disk, gets another.
    fn merge(&mut self, blocks: Vec<Block>) {
        let now = self.clock.now();
        let mut ours = Vec::new();
        for block in blocks {
            let known = self.held.get(&block.id).map(|held| &held.block);
            if known == Some(&block) {
                continue;
            }
            if self.unwritten.remove(&block.id) {
                ours.extend(self.held.remove(&block.id).map(|held| held.block));
            }
            self.held.insert(block.id, block.held(now));
        }
        for block in ours {
            self.hold(block, now);
        }
        self.rebuild();
    }

    async fn offer(&mut self, stream: &mut UnixStream) -> Result<(), String> {
        // Two that drain would need a chain of confirmations: the next one waits its turn.
        if self.follower.is_some() {
            let _ = self.sweep(&[]).await;
        }
        if self.follower.is_some() {
            return Err("the process that this one took over from still finishes what runs; come again when it has ended".into());
        }
        if let Some(outside) = &mut self.outside {
            outside.shut().await;
        }
        self.keep_accounts();
        self.keep_sessions();
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

    /// Takes every block that the owner of the store tells of, until it is gone; what answers teach here goes to it.
    async fn follow(&mut self, stream: UnixStream) {
        let (lines, mut answers) = stream.into_split();
        let mut lines = BufReader::new(lines).lines();
        let lessons = Arc::clone(&self.kept.lessons);
        loop {
            let line = tokio::select! {
                taught = lessons.take() => {
                    self.pass_on(taught);
                    continue;
                }
                line = lines.next_line() => line,
            };
            let Ok(Some(line)) = line else {
                let gone = "the new process is gone; blocks that it took hold here, others are not heard of";
                return (self.say)(gone);
            };
            let Ok(fed) = serde_json::from_str::<Fed>(&line) else { continue };
            let swept = self.take_fed(fed).await;
            let answer = wire::line(&swept);
            if answers.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    /// By the spool, which the owner of the store looks into every few seconds. A lesson that spares a token cannot be said
    /// there, and waits for the next change.
    fn pass_on(&self, taught: Vec<Taught>) {
        for Taught { site, what, spares, lasting, reason, done, .. } in taught {
            let order = Order {
                what,
                site: Some(site),
                lasting,
                expires: None,
                reason: format!("learned: {reason}"),
                yes: true,
            };
            let created = self.clock.now().wall;
            let spooled = Spooled { schema: SCHEMA, order, by: "the gateway".into(), created };
            let left = spares.is_none() && spool::leave(self.state.path(), &spooled).is_ok();
            // It holds in a few seconds: who has logged out is told no more than that.
            let _ = done.send(if left { Outcome::Unconfirmed } else { Outcome::TurnedAway });
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
    /// It did not answer in time, or not what was asked: nothing that it holds can be said from here on.
    astray: bool,
}

/// What an old process has made of blocks.
enum Told {
    /// They hold there too.
    Swept(worker::Swept),
    /// It is gone, and with it all its streams.
    Gone,
    /// Nobody knows.
    Astray,
}

impl Follower {
    /// It has said that it is there.
    pub fn new(stream: UnixStream) -> Self {
        Self { lines: BufReader::new(stream), number: 0, astray: false }
    }

    /// Tells of blocks and waits until they hold there too.
    async fn tell(&mut self, blocks: Vec<Block>) -> Told {
        if self.astray {
            return self.end().await;
        }
        self.number += 1;
        let said = wire::line(&Fed { number: self.number, blocks });
        match self.exchange(&said).await {
            Ok(Some(swept)) => Told::Swept(worker::Swept { cut: swept.cut, confirmed: swept.confirmed }),
            Ok(None) => Told::Astray,
            Err(_) => Told::Gone,
        }
    }

    /// `None`: an answer that is none.
    async fn exchange(&mut self, said: &str) -> io::Result<Option<Swept>> {
        self.lines.get_mut().write_all(said.as_bytes()).await?;
        let mut line = String::new();
        if self.lines.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let swept = serde_json::from_str::<Swept>(&line).ok();
        Ok(swept.filter(|swept| swept.number == self.number))
    }

    /// Waits until it is gone.
    async fn end(&mut self) -> Told {
        let mut line = Vec::new();
        while self.lines.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
            line.clear();
        }
        Told::Gone
    }
}

impl Control {
    /// The process that we took over from. It learns at once what it cannot know yet.
    pub async fn set_follower(&mut self, stream: UnixStream) {
        self.follower = Some(Follower::new(stream));
        let new: Vec<u64> = self.held.keys().copied().filter(|id| *id > self.last_at_open).collect();
        if !self.sweep(&new).await.confirmed {
            (self.say)("the old process has not confirmed the blocks that came with the change");
        }
    }

    /// Every worker of ours, and of the process that we took over from, cuts what these blocks mean.
    pub(super) async fn sweep(&mut self, ids: &[u64]) -> worker::Swept {
        let workers = self.workers.clone();
        let Some(mut follower) = self.follower.take() else { return workers.sweep(SWEEP).await };
        let blocks = ids.iter().filter_map(|id| self.held.get(id)).map(|held| held.block.clone()).collect();
        let (mut swept, theirs) =
            tokio::join!(Workers::sweep(&workers, SWEEP), tokio::time::timeout(SWEEP, follower.tell(blocks)));
        match theirs.unwrap_or(Told::Astray) {
            Told::Gone => return swept,
            Told::Swept(theirs) => {
                swept.cut += theirs.cut;
                swept.confirmed &= theirs.confirmed;
            }
            Told::Astray => {
                follower.astray = true;
                swept.confirmed = false;
            }
        }
        self.follower = Some(follower);
        swept
    }
}
