//! The control thread: the only owner of the block store, the only publisher of blocks, the only one who reloads.
//!
//! It answers the admin socket one command after the other; READ [`blocking`] for the promise of an emergency block.

mod acme;
mod advice;
mod allow;
mod block_file;
pub mod blocking;
mod csp;
pub mod defaults;
mod endings;
mod fetch;
pub mod follower;
pub mod handover;
mod key_sets;
mod learned;
mod lockouts;
mod logouts;
mod recall;
pub mod reload;
mod taught;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;

use crate::admin::api::{Ask, BlockList, Command, LastReload, SCHEMA, Status, StatusAnswer};
use crate::admin::readiness::{Readiness, State};
use crate::clock::{Clock, Now};
use crate::config::Loaded;
use crate::config::settings::{FileBlock, Settings};
use crate::stores::blocks::{Blocks, Held, Index};
use crate::stores::durable::directory::StateDir;
use crate::stores::durable::seal_keys::SealKeys;
use crate::stores::durable::{OpenError, Store};
use crate::stores::holes::Hole;
use crate::stores::kept::Kept;
use crate::stores::marks::Marks;
use crate::telemetry::audit::{Audit, Say};
use crate::warnings::Machine;
use crate::worker::Workers;
use acme::Authority;
use defaults::SiteFacts;
use follower::Follower;
use handover::Outside;
use key_sets::KeySets;
use reload::{Reloader, Reloads};

/// Commands that may wait; more wait at the socket.
pub const QUEUE: usize = 256;
/// How often unwritten blocks are tried again and the spool is looked into.
const TICK: Duration = Duration::from_secs(3);

/// The control thread's state.
pub struct Control {
    clock: Clock,
    started: Now,
    blocks: Arc<Blocks>,
    /// Every block that is on disk or shall be, ended and expired ones too.
    held: BTreeMap<u64, Held>,
    /// Blocks that hold in memory but whose last change is not on disk.
    unwritten: BTreeSet<u64>,
    /// Files of the spool whose orders hold, to be removed once those are on disk.
    taken_in: Vec<PathBuf>,
    store: Store,
    state: StateDir,
    workers: Workers,
    audit: Audit,
    say: Say,
    sites: Vec<SiteFacts>,
    config: PathBuf,
    reloader: Arc<dyn Reloader>,
    reloads: Reloads,
    last: LastReload,
    /// What the block file lists, until the blocks follow it.
    file: Option<Vec<FileBlock>>,
    shown: Arc<Vitals>,
    readiness: Option<Readiness>,
    /// Open holes in allowlists.
    holes: Vec<Hole>,
    /// Of which tries with default passwords somebody has heard.
    defaults_told: lockouts::Told,
    kept: Kept,
    seal_keys: SealKeys,
    /// The state was new at the start.
    fresh: bool,
    /// What is served, without the block file's list.
    settings: Settings,
    /// What was seen of the machine, and when, in nanoseconds of the monotonic clock.
    machine: (u64, Machine),
    key_sets: KeySets,
    /// What a hand-over changes around us.
    outside: Option<Box<dyn Outside>>,
    /// The process that we took over from, while it drains.
    follower: Option<Follower>,
    /// A hand-over has failed, and what was given is not all taken back.
    astray: bool,
    /// Why the control thread ends, once it does.
    over: Option<&'static str>,
    /// The highest number of a block when the store was opened: what came later only we know.
    last_at_open: u64,
    quota: taught::Quota,
    /// Orders of identity providers that were obeyed.
    spent: Marks,
    authority: Authority,
}

/// What the control thread is made of.
pub struct Parts {
    /// The clocks.
    pub clock: Clock,
    /// Where blocks are published.
    pub blocks: Arc<Blocks>,
    /// The state directory, opened.
    pub state: StateDir,
    /// The config that is served.
    pub loaded: Loaded,
    /// Takes a new config into service.
    pub reloader: Arc<dyn Reloader>,
    /// What outlives a policy.
    pub kept: Kept,
    /// The process log.
    pub say: Say,
}

/// What the control thread shows to the metrics.
#[derive(Debug, Default)]
pub struct Vitals {
    /// `portcullis_state_durable`.
    pub durable: std::sync::atomic::AtomicBool,
    /// `portcullis_config_last_reload_successful`.
    pub reload_successful: std::sync::atomic::AtomicBool,
    /// `portcullis_config_last_reload_success_timestamp_seconds`.
    pub reloaded: std::sync::atomic::AtomicU64,
    /// `portcullis_streams_cut_total`, of operators' blocks.
    pub streams_cut: std::sync::atomic::AtomicU64,
}

/// Why the state cannot be taken over: the gateway must not start.
#[derive(Debug, Error)]
pub enum StateError {
    /// The block store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The keys that seal.
    #[error("cannot have the keys of the state directory: {0}")]
    Keys(#[from] io::Error),
    /// The spool.
    #[error("cannot read the spool {}: {cause}", path.display())]
    Spool {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl Control {
    /// Opens the store, takes in the spool, and publishes all blocks: before anything listens.
    ///
    /// # Errors
    /// When the list of blocks cannot be had whole.
    pub fn open(parts: Parts) -> Result<Self, StateError> {
        let Parts { clock, blocks, state, mut loaded, reloader, kept, say } = parts;
        let file = loaded.settings.blocks.take();
        let opened = Store::open(&state.store())?;
        let now = clock.now();
        let seal_keys = SealKeys::open(state.path(), now)?;
        kept.seal.publish(&seal_keys.secrets());
        let last_at_open = opened.blocks.iter().map(|block| block.id).max().unwrap_or(0);
        let mut control = Self {
            started: now,
            outside: None,
            follower: None,
            astray: false,
            over: None,
            last_at_open,
            blocks,
            held: opened.blocks.into_iter().map(|block| (block.id, block.held(now))).collect(),
            unwritten: BTreeSet::new(),
            taken_in: Vec::new(),
            store: opened.store,
            workers: Workers::default(),
            authority: Authority::new(Arc::clone(&kept.challenges), Arc::clone(&say)),
            key_sets: KeySets::new(Arc::clone(&kept.rings), state.clone(), Arc::clone(&say)),
            audit: Audit::new(state.audit_log(), Arc::clone(&say)),
            state,
            say,
            sites: SiteFacts::of(&loaded.settings),
            file,
            config: loaded.settings.path.clone(),
            reloader,
            reloads: Reloads::default(),
            last: LastReload {
                successful: loaded.unread.is_empty(),
                loaded: now.wall,
                tried: now.wall,
                problems: reload::lines(&loaded.unread),
            },
            shown: Arc::new(Vitals::default()),
            readiness: None,
            holes: Vec::new(),
            defaults_told: lockouts::Told::new(),
            kept,
            seal_keys,
            spent: logouts::remembered(),
            fresh: opened.fresh,
            machine: (now.mono, Machine::look(&loaded.settings)),
            settings: loaded.settings,
            quota: taught::Quota::default(),
            clock,
        };
        control.take_in_accounts();
        control.take_in_sessions();
        control.warn();
        control.key_sets.follow();
        control.authority.follow(&control.settings, now);
        control.authority.serve_kept(&control.settings, &*control.reloader, now);
        control.take_in_spool()?;
        control.take_in_file();
        control.rebuild();
        control.show();
        Ok(control)
    }

    /// The workers, once they run: sweeps go to them.
    pub fn set_workers(&mut self, workers: Workers) {
        self.workers = workers;
    }

    /// Whether requests are taken, for `status`.
    pub fn set_readiness(&mut self, readiness: Readiness) {
        self.readiness = Some(readiness);
    }

    /// What a hand-over changes around the control thread; without it there is none.
    pub fn set_outside(&mut self, outside: Box<dyn Outside>) {
        self.outside = Some(outside);
    }

    /// For the metrics.
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.shown)
    }

    /// Answers commands until it must end, and says why; `changed` tells of config files and SIGHUP.
    pub async fn run(
        &mut self,
        mut commands: mpsc::Receiver<Command>,
        mut changed: mpsc::Receiver<()>,
    ) -> &'static str {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let lessons = Arc::clone(&self.kept.lessons);
        let mut batch = Vec::new();
        let mut orders = self.kept.logouts.receiver();
        self.authority.tend(self.clock.now());
        loop {
            if let Some(why) = self.over {
                return why;
            }
            tokio::select! {
                biased;
                count = commands.recv_many(&mut batch, QUEUE) => {
                    if count == 0 {
                        return "nobody can ask it any more";
                    }
                    self.answer(std::mem::take(&mut batch)).await;
                }
                // Behind all orders that have come with it.
                () = std::future::ready(()), if self.reloads.has_successor() => self.give_way().await,
                Some(()) = changed.recv() => self.begin_reload("file change or SIGHUP", None),
                prepared = self.reloads.prepared() => self.take_reload(prepared).await,
                logouts = logouts::come(&mut orders) => self.log_out(logouts).await,
                (address, fetched) = self.key_sets.fetched() => {
                    self.key_sets.take(&address, fetched, self.clock.now());
                }
                taught = lessons.take() => self.learn(taught).await,
                // What is prepared meanwhile would not have it.
                done = self.authority.done(), if !self.reloads.is_running() => {
                    let now = self.clock.now();
                    self.authority.take(done, &*self.reloader, now);
                    self.authority.tend(now);
                }
                _ = tick.tick() => self.tend().await,
            }
        }
    }

    /// Blocks that came together share one publication, one sweep and one commit; all else goes one by one.
    async fn answer(&mut self, batch: Vec<Command>) {
        let mut together = Vec::new();
        for Command { by, ask } in batch {
            match ask {
                Ask::Block(order, reply) => together.push((order, by, reply)),
                other => {
                    self.block(std::mem::take(&mut together)).await;
                    self.answer_one(&by, other).await;
                }
            }
        }
        self.block(together).await;
    }

    async fn answer_one(&mut self, by: &str, ask: Ask) {
        // Who asked may have gone away: then nobody reads the answer.
        match ask {
            Ask::Block(..) => {}
            Ask::Unblock(id, reply) => {
                let answer = self.unblock(id, by);
                self.tell_follower(&[id]).await;
                drop(reply.send(answer));
            }
            Ask::List(all, reply) => drop(reply.send(Ok(self.list(all)))),
            Ask::Status(reply) => drop(reply.send(Ok(self.status().await))),
            Ask::Reload(reply) => self.begin_reload(by, Some(reply)),
            Ask::Denials(wanted, reply) => drop(reply.send(self.denials(wanted).await)),
            Ask::Request(id, reply) => drop(reply.send(self.request(id).await)),
            Ask::Find(hand, reply) => drop(reply.send(self.find(hand).await)),
            Ask::Allow(order, reply) => drop(reply.send(self.allow(order, by).await)),
            Ask::HandOver(stream) => self.reloads.then_hand_over(stream),
            Ask::Unlock(order, reply) => drop(reply.send(self.unlock(&order, by))),
            Ask::Csp(site, reply) => drop(reply.send(self.csp(site.as_deref()))),
        }
    }

    fn list(&self, all: bool) -> BlockList {
        let now = self.clock.now();
        let shown = self.held.values().filter(|held| all || !held.is_over(now));
        BlockList { schema: SCHEMA, blocks: shown.map(|held| held.block.clone()).collect() }
    }

    async fn status(&mut self) -> StatusAnswer {
        let now = self.clock.now();
        self.look_again(now);
        let standing = self.held.values().filter(|held| !held.is_over(now));
        let mut blocks = BTreeMap::new();
        for held in standing {
            *blocks.entry(held.block.what.kind().word().to_owned()).or_insert(0) += 1;
        }
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.mono.saturating_sub(self.started.mono) / 1_000_000_000,
            config: self.config.display().to_string(),
            sites: self.site_names(),
            workers: self.workers.len(),
            durable: self.unwritten.is_empty(),
            unwritten: self.unwritten.len(),
            ready: self.readiness.as_ref().is_some_and(Readiness::is_ready),
            draining: self.readiness.as_ref().is_some_and(|of| of.state() == State::Draining),
            blocks,
            lockouts: self.locked_out(now),
            holes: self.open_holes(now),
            certificates: self.authority.shown(self.reloader.certificates(), now),
            reload: self.last.clone(),
            warnings: self.warnings(now).await,
        };
        StatusAnswer { schema: SCHEMA, status }
    }

    fn site_names(&self) -> Vec<String> {
        self.sites.iter().filter(|site| !site.passed).map(|site| site.name.clone()).collect()
    }

    fn rebuild(&self) {
        let now = self.clock.now();
        let index = Index::new(self.held.values().filter(|held| !held.is_over(now)));
        self.blocks.publish(index.with_holes(self.holes.clone().into()));
    }

    fn show(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        self.shown.durable.store(self.unwritten.is_empty(), Relaxed);
        self.shown.reload_successful.store(self.last.successful, Relaxed);
        self.shown.reloaded.store(self.last.loaded / 1000, Relaxed);
    }
}
