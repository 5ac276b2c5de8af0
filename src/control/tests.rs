mod handover;
mod learned;
mod promise;
mod socket;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

use super::*;
use crate::admin::api::{Blocked, Refusal, RefusalKind, Reloaded};
use crate::admin::probe::Probed;
use crate::admin::socket::Socket;
use crate::cli;
use crate::clock::TestClock;
use crate::config::problem::{Problem, Problems};
use crate::config::settings::{
    Admin, FileBlock, FileWhat, Limits, Listen, Log, LogFormat, LogTarget, MinRate, Settings, Tls, UnknownSni,
};
use crate::config::values::{ByteSize, Networks};
use crate::stores::blocks::order::Spooled;
use crate::stores::blocks::{Block, Order, What};
use crate::stores::durable::spool;
use crate::stores::kept::Kept;
use crate::worker;
use reload::Prepared;

/// What a witness cuts when all is cut.
const ALL: usize = 7;
const WALL: u64 = 1_700_000_000_000;

pub(super) fn settings(folder: &Path) -> Settings {
    let second = Duration::from_secs(1);
    Settings {
        passthroughs: Vec::new(),
        path: folder.join("portcullis.toml"),
        files: Vec::new(),
        listen: Listen {
            https: Vec::new(),
            http: Vec::new(),
            plain: Vec::new(),
            public_port: 443,
            trusted_proxies: Networks::default(),
            proxy_protocol: false,
            unknown_sni: UnknownSni::Refuse,
        },
        tls: Tls { tls12: true, certificates: Vec::new(), self_signed: true },
        acme: None,
        certificates_from: Vec::new(),
        admin: Admin {
            socket: folder.join("admin.sock"),
            metrics: None,
            metrics_only_from: Networks::default(),
        },
        state_dir: folder.join("state"),
        log: Log { access: LogTarget::Off, format: LogFormat::Json },
        limits: Limits {
            connections: 1,
            connections_per_client: 1,
            request_head: ByteSize(1),
            head_timeout: second,
            idle_timeout: second,
            min_rate: MinRate { bytes: ByteSize(1), per: second },
            drain_timeout: second,
            limiter_keys: 1,
        },
        blocks: None,
        sites: Vec::new(),
    }
}

fn loaded(folder: &Path) -> Loaded {
    Loaded { settings: settings(folder), warnings: Problems::default(), unread: Problems::default() }
}

#[derive(Clone, Default)]
struct Fake {
    broken: Arc<std::sync::atomic::AtomicBool>,
    applied: Arc<AtomicUsize>,
    file: Arc<Mutex<Option<Vec<FileBlock>>>>,
}

impl Reloader for Fake {
    fn prepare(self: Arc<Self>, path: &Path) -> Result<Prepared, Problems> {
        if self.broken.load(Ordering::Relaxed) {
            let problem = Problem {
                file: path.to_owned(),
                source: "a\nbc = 1".into(),
                span: Some(3..4),
                message: "no such key".into(),
                help: "write `b`".into(),
            };
            return Err(Problems(vec![problem]));
        }
        let mut loaded = loaded(path.parent().unwrap());
        loaded.settings.blocks = self.file.lock().unwrap().clone();
        let swap = move || {
            self.applied.fetch_add(1, Ordering::Relaxed);
            Ok(Vec::new())
        };
        Ok(Prepared { loaded, swap: Box::new(swap) })
    }
}

struct Bench {
    folder: tempfile::TempDir,
    blocks: Arc<Blocks>,
    said: Arc<Mutex<Vec<String>>>,
    fake: Fake,
    clock: Clock,
    hand: Arc<TestClock>,
}

impl Bench {
    fn new() -> Self {
        let (clock, hand) = Clock::test(WALL);
        let folder = tempfile::tempdir().unwrap();
        Self { folder, blocks: Arc::default(), said: Arc::default(), fake: Fake::default(), clock, hand }
    }

    fn control(&self) -> Control {
        let said = Arc::clone(&self.said);
        let parts = Parts {
            clock: self.clock.clone(),
            blocks: Arc::clone(&self.blocks),
            state: StateDir::open(&self.folder.path().join("state")).unwrap(),
            loaded: loaded(self.folder.path()),
            reloader: Arc::new(self.fake.clone()),
            kept: Kept::new(64),
            say: Arc::new(move |line| said.lock().unwrap().push(line.to_owned())),
        };
        Control::open(parts).unwrap()
    }

    fn gateway(&self) -> cli::client::Gateway {
        cli::client::Gateway {
            socket: self.folder.path().join("run/admin.sock"),
            state_dir: self.folder.path().join("state"),
            formats: Vec::new(),
        }
    }

    fn store(&self) -> std::path::PathBuf {
        self.folder.path().join("state/blocks.redb")
    }

    fn has_said(&self, word: &str) -> bool {
        self.said.lock().unwrap().iter().any(|line| line.contains(word))
    }
}

fn listed(address: &str) -> FileBlock {
    let what = FileWhat::Address(address.parse().unwrap());
    FileBlock { what, site: None, reason: "listed".into(), until: None }
}

#[test]
fn the_blocks_of_a_file_follow_the_file_and_survive_its_loss() {
    let bench = Bench::new();
    runtime().block_on(async {
        let mut control = bench.control();
        assert!(give(&mut control, order(address())).await.unwrap().durable, "one of an operator's own");
        let follow = async |control: &mut Control, list: Option<Vec<FileBlock>>| {
            *bench.fake.file.lock().unwrap() = list;
            reload(control).await.unwrap();
            standing(&bench.blocks)
        };
        let two = vec![listed("198.51.100.1/32"), listed("198.51.100.2/32")];
        assert_eq!(follow(&mut control, Some(two.clone())).await, 3);
        assert_eq!(follow(&mut control, Some(two)).await, 3, "the same list changes nothing");
        assert_eq!(follow(&mut control, Some(vec![listed("198.51.100.2/32")])).await, 2, "one is lifted");
        assert_eq!(follow(&mut control, None).await, 2, "a missing file lifts nothing");
        drop(control);
        let mut control = bench.control();
        assert_eq!(standing(&bench.blocks), 2, "nor does a start without it");
        assert_eq!(
            follow(&mut control, Some(Vec::new())).await,
            1,
            "an empty list lifts its own, and only those"
        );
    });
}

fn order(what: What) -> Order {
    Order { what, site: None, lasting: None, expires: None, reason: "test".into(), yes: false }
}

fn address() -> What {
    What::Address { network: "192.0.2.7/32".parse().unwrap() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn give(control: &mut Control, order: Order) -> Result<Blocked, Refusal> {
    let (reply, answer) = tokio::sync::oneshot::channel();
    control.block(vec![(order, "uid 0".into(), reply)]).await;
    answer.await.unwrap()
}

async fn reload(control: &mut Control) -> Result<Reloaded, Refusal> {
    let (reply, answer) = oneshot::channel();
    control.begin_reload("uid 0", Some(reply));
    let prepared = control.reloads.prepared().await;
    control.take_reload(prepared).await;
    answer.await.unwrap()
}

fn standing(blocks: &Blocks) -> usize {
    blocks.load().counts().map(|(_, count)| count).sum()
}

/// A worker that does this with each command.
fn played(mut obey: impl FnMut(worker::Command) + Send + 'static) -> Workers {
    let (sender, mut commands) = mpsc::channel(4);
    std::thread::spawn(move || {
        while let Some(command) = commands.blocking_recv() {
            obey(command);
        }
    });
    Workers::new(vec![sender])
}

/// A worker that looks at what is published and on disk at the moment of its sweep.
fn witness(seen: impl Fn() + Send + 'static, cut: usize) -> Workers {
    let (sender, mut commands) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            match command {
                worker::Command::Sweep(answer) => {
                    seen();
                    let _ = answer.send(cut);
                }
                worker::Command::Sockets(answer) => drop(answer.send(Vec::new())),
                worker::Command::Cut(answer) => drop(answer.send(ALL)),
                _ => {}
            }
        }
    });
    Workers::new(vec![sender])
}

#[test]
fn a_broken_config_changes_nothing_and_is_shown() {
    let bench = Bench::new();
    let mut control = bench.control();
    bench.fake.broken.store(true, Ordering::Relaxed);
    let refusal = runtime().block_on(reload(&mut control)).unwrap_err();
    let place = bench.folder.path().join("portcullis.toml");
    assert_eq!(refusal.problems, [format!("{}:2:2: no such key (write `b`)", place.display())]);
    assert_eq!(bench.fake.applied.load(Ordering::Relaxed), 0);
    let last = runtime().block_on(control.status()).status.reload;
    assert!(!last.successful && last.problems == refusal.problems);
    bench.fake.broken.store(false, Ordering::Relaxed);
    runtime().block_on(reload(&mut control)).unwrap();
    assert!(runtime().block_on(control.status()).status.reload.successful);
    assert_eq!(bench.fake.applied.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_reload_that_hangs_is_told_of_and_what_comes_meanwhile_waits_for_one_more() {
    let bench = Bench::new();
    let mut control = bench.control();
    control.begin_reload("one", None);
    let (reply, mut answer) = oneshot::channel();
    control.begin_reload("two", Some(reply));
    control.begin_reload("three", None);
    let warned = |status: StatusAnswer| status.status.warnings.iter().any(|line| line.contains("under way"));
    assert!(!warned(control.status().await));
    bench.hand.advance(Duration::from_secs(61));
    assert!(warned(control.status().await));
    assert!(give(&mut control, order(address())).await.unwrap().durable, "blocks wait for nothing");
    let mut rounds = 0;
    while control.reloads.is_running() {
        assert!(answer.try_recv().is_err(), "its files may have changed since the first began");
        let prepared = control.reloads.prepared().await;
        control.take_reload(prepared).await;
        rounds += 1;
    }
    assert_eq!((rounds, bench.fake.applied.load(Ordering::Relaxed)), (2, 2));
    assert!(answer.try_recv().unwrap().is_ok() && !warned(control.status().await));
}

#[test]
fn a_hole_outlives_a_rebuilt_index_and_ends_by_the_clock() {
    use crate::admin::allow::AllowOrder;
    use crate::config::class::Class;
    use crate::request::facts::{Facts, scope_of};

    let text = "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.test\"]\napp = \"arkeep\"\nupstream = \"http://127.0.0.1:1\"\n";
    let bench = Bench::new();
    let config = crate::config::parse(Path::new("/etc/portcullis.toml"), text, bench.clock.now()).unwrap();
    runtime().block_on(async {
        let mut control = bench.control();
        control.sites = SiteFacts::of(&config.settings);
        let order = |lasting| AllowOrder {
            class: "setup".into(),
            from: "203.0.113.7/32".parse().unwrap(),
            lasting,
            site: None,
            reason: String::new(),
            yes: false,
        };
        let opened = control.allow(order(60_000), "me").await.unwrap();
        assert!(opened.confirmed && opened.warnings.is_empty(), "{:?}", opened.warnings);
        control.rebuild();
        let lets = || {
            let scopes = std::rc::Rc::new([scope_of("a.test")]);
            let facts = Facts { class: Class::Setup, scopes, now: bench.clock.now(), ..Facts::example() };
            bench.blocks.load().lets(&facts)
        };
        assert!(lets());
        bench.hand.advance(Duration::from_millis(59_999));
        assert!(lets());
        bench.hand.advance(Duration::from_millis(1));
        assert!(!lets(), "it ends without anybody's doing");
        control.tend().await;
        assert!(control.status().await.status.holes.is_empty() && bench.has_said("allow ended"));
        for lasting in [0, 24 * 3_600_000 + 1] {
            assert_eq!(control.allow(order(lasting), "me").await.unwrap_err().error, RefusalKind::Usage);
        }
    });
}
