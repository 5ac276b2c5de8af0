//! The hand-over to a new process, from the side of the old one: no connection is refused, no block is forgotten.
//!
//! 1. The operator's side is shut: orders go to the spool from here on, where the next owner of the store finds them.
//! 2. What is learned and not yet written is written, and the store is closed: only one process may own it.
//! 3. The listening sockets go over. Both processes have them now, and with them one queue; we accept until the new one says
//!    that it does, by a first list of blocks.
//! 4. On its word we drain, and answer it. We hear of every block that the new process takes: it cuts our streams too.
//!
//! When the new process fails before its word we say so, take all back and go on as if nothing had been. When it is gone after
//! it, whoever comes next could not tell us of a block: we cut everything and end. What it sees of us is in
//! [`super::follower`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::Control;
use super::blocking::SWEEP;
use super::wire::{self, Fed, Said, Swept};
use crate::admin::api::SCHEMA;
use crate::stores::blocks::order::Spooled;
use crate::stores::blocks::{Block, Order};
use crate::stores::durable::Store;
use crate::stores::durable::spool;
use crate::stores::taught::{Outcome, Taught};
use crate::telemetry::audit::Entry;

/// How long a new process may take to come up.
const COME_UP: Duration = Duration::from_secs(30);
/// How long a busy worker may take to give its sockets.
const ANSWERS: Duration = Duration::from_secs(5);
/// For the lines of what was cut to reach the access log.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// What stands around the control thread, as far as a hand-over changes it.
pub trait Outside: Send {
    /// Closes the admin socket and the listener of metrics; returns when both are closed.
    fn shut(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>>;
    /// Opens them again.
    ///
    /// # Errors
    /// In words.
    fn open(&mut self) -> Result<(), String>;
    /// Begins to drain the workers; the process with this number goes on in our place.
    fn drain(&mut self, successor: Option<i32>);
}

impl Control {
    /// A new process asks for all that we hold. When it has got it, this ends with the drain, or with [`Control::over`] set;
    /// else we go on.
    pub(super) async fn hand_over(&mut self, stream: UnixStream) {
        let mut stream = BufReader::new(stream);
        if let Some(why) = self.keeps().await {
            (self.say)(&format!("a new process may not take over: {why}"));
            return keep(&mut stream, &why).await;
        }
        let first = match self.offer(&mut stream).await {
            Ok(first) => first,
            Err(why) => {
                (self.say)(&format!("the hand-over to a new process has failed ({why}): this one goes on"));
                keep(&mut stream, &why).await;
                self.astray = true;
                return self.come_back().await;
            }
        };
        (self.say)("a new process has taken over: this one finishes what runs");
        // What has come meanwhile is on the disk for the next start. From now on the new one asks: two orders for one host would
        // answer each other's challenges.
        self.authority.take_ended(&*self.reloader, self.clock.now());
        self.authority.stop();
        let entry = Entry {
            action: "hand over",
            by: "a new process",
            what: &"the gateway",
            reason: "",
            outcome: "taken",
        };
        self.audit(&entry);
        // The new process has none: what is closed there must not stay open here.
        self.close_holes_for("hand over", |_| true);
        let successor = stream.get_ref().peer_cred().ok().and_then(|peer| peer.pid());
        self.outside.iter_mut().for_each(|outside| outside.drain(successor));
        self.follow(&mut stream, first).await;
        self.end_at_once(stream).await;
    }

    /// Nobody tells us of blocks any more: nothing that they could mean may go on. Whoever holds the other end of the stream takes
    /// its end for ours, which confirms every block.
    async fn end_at_once(&mut self, stream: BufReader<UnixStream>) {
        (self.say)(
            "the new process is gone, and nobody tells of blocks any more: all that still ran here is cut",
        );
        let swept = self.workers.cut(SWEEP).await;
        let held = (!swept.confirmed).then_some(stream);
        // The drain may end by itself now, and the log with it.
        tokio::time::sleep(LAST_WORDS).await;
        drop(held);
        self.over = Some("the process that took over is gone");
    }

    /// After a hand-over that failed: what the other one has taken in meanwhile counts here too, then the doors open again.
    /// Tried again with each tick until both are done.
    pub(super) async fn come_back(&mut self) {
        if !self.astray {
            return;
        }
        self.workers.take_back();
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

    /// Why nothing is given. Two that drain would need a chain of confirmations: the next one waits its turn.
    async fn keeps(&mut self) -> Option<String> {
        if self.follower.is_some() {
            // It may have ended since the last block.
            let _ = self.sweep(&[]).await;
        }
        let process = self.follower.as_ref()?.process;
        let process = process.map_or_else(String::new, |process| format!(" (process {process})"));
        Some(format!(
            "the one that was taken over from last{process} still finishes what runs, for at most its limits.drain_timeout; \
             try again when it has ended"
        ))
    }

    /// Gives all, and waits until the new process serves; what it says then.
    async fn offer(&mut self, stream: &mut BufReader<UnixStream>) -> Result<Fed, String> {
        if let Some(outside) = &mut self.outside {
            outside.shut().await;
        }
        self.keep_accounts();
        self.keep_sessions();
        // The new one reads it.
        self.authority.take_ended(&*self.reloader, self.clock.now());
        if !self.unwritten.is_empty() && !self.commit(&[]) {
            return Err("blocks are not on the disk, and would be forgotten".into());
        }
        let sockets = self.workers.sockets(ANSWERS).await.ok_or("a worker did not answer")?;
        self.store.release();
        wire::give(stream.get_mut(), &sockets).await.map_err(|error| error.to_string())?;
        drop(sockets);
        let mut word = String::new();
        match tokio::time::timeout(COME_UP, stream.read_line(&mut word)).await {
            Ok(_) => serde_json::from_str(&word).map_err(|_| "it ended before it was ready".into()),
            Err(_) => Err("it did not come up in time".into()),
        }
    }

    /// Takes every block that the owner of the store tells of, until it is gone; what answers teach here goes to it.
    async fn follow(&mut self, stream: &mut BufReader<UnixStream>, first: Fed) {
        let mut fed = Some(first);
        let mut lines = stream.lines();
        let lessons = Arc::clone(&self.kept.lessons);
        loop {
            if let Some(fed) = fed.take() {
                let answer = wire::line(&Said::Swept(self.take_fed(fed).await));
                if lines.get_mut().write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                self.settle();
            }
            tokio::select! {
                taught = lessons.take() => self.pass_on(taught),
                line = lines.next_line() => match line {
                    // What cannot be read is not answered, and so never confirmed.
                    Ok(Some(line)) => fed = serde_json::from_str(&line).ok(),
                    _ => return,
                },
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

/// Says to a process that wants to take over that it has nothing, and why.
async fn keep(stream: &mut BufReader<UnixStream>, why: &str) {
    let said = wire::line(&Said::Kept(why.to_owned()));
    // It may be gone; and one that does not read must not hold us up.
    let _ = tokio::time::timeout(SWEEP, stream.write_all(said.as_bytes())).await;
}
