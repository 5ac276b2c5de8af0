//! The old process, as the one that took over from it sees it: it hears of every block for as long as it drains.
//!
//! No confirmation is made up: an answer that does not come in time makes a block "not confirmed", and is waited for again with
//! the next one, which counts for both. An old process that reads nothing at all is told to end instead.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::Control;
use super::blocking::SWEEP;
use super::wire::{self, Fed, Said};
use crate::stores::blocks::Block;
use crate::worker::{self, Workers};

/// How long orders wait until the old process has heard that we serve; it may hear it later.
const HEARS: Duration = Duration::from_secs(2);
/// Most bytes that may wait for an old process to read them.
const UNREAD: usize = 1 << 20;

/// Why we must not serve.
const KEPT: &str = "the running gateway has taken all back";

/// An old process that drains.
#[derive(Debug)]
pub struct Follower {
    lines: BufReader<UnixStream>,
    /// Its number, for people.
    pub(super) process: Option<i32>,
    /// Of the last message.
    number: u64,
    /// Not sent yet.
    unsent: Vec<u8>,
    /// Of a line that has not come whole.
    heard: Vec<u8>,
    /// It has read nothing for too long, and lacks blocks: it hears no more, and ends as soon as it notices.
    dismissed: bool,
}

/// What an old process has made of blocks.
enum Told {
    /// They hold there too.
    Swept(worker::Swept),
    /// It has taken all back: why.
    Kept(String),
    /// It is gone, and with it all its streams.
    Gone,
}

impl Follower {
    fn new(stream: UnixStream) -> Self {
        let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let lines = BufReader::new(stream);
        Self { lines, process, number: 0, unsent: Vec::new(), heard: Vec::new(), dismissed: false }
    }

    /// Tells of blocks and waits until they hold there too. May be dropped at any time: what was begun goes on with the next call.
    async fn tell(&mut self, blocks: Vec<Block>) -> Told {
        self.number += 1;
        if self.unsent.len() > UNREAD && !self.dismissed {
            self.dismissed = true;
            self.unsent.clear();
            // Best effort; if it fails, it is gone.
            let _ = self.lines.get_mut().shutdown().await;
        }
        if !self.dismissed {
            self.unsent.extend(wire::line(&Fed { number: self.number, blocks }).into_bytes());
        }
        self.exchange().await.unwrap_or(Told::Gone)
    }

    async fn exchange(&mut self) -> io::Result<Told> {
        while !self.unsent.is_empty() {
            match self.lines.get_mut().write(&self.unsent).await {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                // What it has said last is still to be read.
                Err(_) => self.unsent.clear(),
            }
        }
        loop {
            if self.lines.read_until(b'\n', &mut self.heard).await? == 0 {
                return Ok(Told::Gone);
            }
            match serde_json::from_slice(&std::mem::take(&mut self.heard)) {
                Ok(Said::Swept(swept)) if swept.number == self.number => {
                    return Ok(Told::Swept(worker::Swept { cut: swept.cut, confirmed: swept.confirmed }));
                }
                Ok(Said::Kept(why)) => return Ok(Told::Kept(why)),
                // Of a message before, or nothing that we know.
                _ => {}
            }
        }
    }
}

impl Control {
    /// We serve, and say so to the process that we took over from; it learns what it cannot know yet.
    ///
    /// # Errors
    /// When it has taken all back meanwhile: then it serves, and we must not.
    pub async fn set_follower(&mut self, stream: UnixStream) -> Result<(), String> {
        let mut follower = Follower::new(stream);
        let new = self.held.iter().filter(|(id, _)| **id > self.last_at_open);
        let new = new.map(|(_, held)| held.block.clone()).collect();
        let told = tokio::time::timeout(HEARS, follower.tell(new)).await;
        match told {
            Ok(Told::Kept(why)) => return Err(format!("{KEPT}: {why}")),
            Ok(Told::Gone) => return Ok(()),
            Ok(Told::Swept(swept)) if swept.confirmed => {}
            _ => (self.say)("the old process has not confirmed the blocks that came with the change"),
        }
        self.follower = Some(follower);
        Ok(())
    }

    /// Every worker of ours, and of the process that we took over from, cuts what these blocks mean.
    pub(super) async fn sweep(&mut self, ids: &[u64]) -> worker::Swept {
        let workers = self.workers.clone();
        let Some(mut follower) = self.follower.take() else { return workers.sweep(SWEEP).await };
        let blocks = ids.iter().filter_map(|id| self.held.get(id)).map(|held| held.block.clone()).collect();
        let (mut swept, theirs) =
            tokio::join!(Workers::sweep(&workers, SWEEP), tokio::time::timeout(SWEEP, follower.tell(blocks)));
        match theirs {
            Ok(Told::Gone) => return swept,
            Ok(Told::Swept(theirs)) => {
                swept.cut += theirs.cut;
                swept.confirmed &= theirs.confirmed;
            }
            Ok(Told::Kept(why)) => {
                (self.say)(&format!("{KEPT}: {why}"));
                self.over = Some(KEPT);
                swept.confirmed = false;
            }
            Err(_) => swept.confirmed = false,
        }
        self.follower = Some(follower);
        swept
    }

    /// Of blocks that are lifted: the process that we took over from shall know it too.
    pub(super) async fn tell_follower(&mut self, ids: &[u64]) {
        if self.follower.is_some() {
            let _ = self.sweep(ids).await;
        }
    }
}
