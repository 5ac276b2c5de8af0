use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::admin::api::{Blocked, Refusal, RefusalKind};
use crate::admin::socket::Socket;
use crate::cli;
use crate::clock::TestClock;
use crate::config::problem::{Problem, Problems};
use crate::config::settings::{
    Admin, FileBlock, FileWhat, Limits, Listen, Log, LogFormat, LogTarget, MinRate, Settings, Tls, UnknownSni,
};
use crate::config::values::{ByteSize, Networks};
use crate::stores::blocks::order::Spooled;
use crate::stores::blocks::{Order, What};
use crate::stores::durable::spool;
use crate::stores::kept::Kept;
use crate::worker;

const WALL: u64 = 1_700_000_000_000;

fn settings(folder: &Path) -> Settings {
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
    fn load(&mut self, path: &Path) -> Result<Loaded, Problems> {
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
        Ok(loaded)
    }

    fn apply(&mut self, _: Loaded) -> Result<Vec<String>, Problems> {
        self.applied.fetch_add(1, Ordering::Relaxed);
        Ok(Vec::new())
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
            reloader: Box::new(self.fake.clone()),
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
            control.reload("test").unwrap();
            control.follow_file().await;
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

fn standing(blocks: &Blocks) -> usize {
    blocks.load().counts().map(|(_, count)| count).sum()
}

/// A worker that looks at what is published and on disk at the moment of its sweep.
fn witness(seen: impl Fn() + Send + 'static, cut: usize) -> Workers {
    let (sender, mut commands) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            if let worker::Command::Sweep(answer) = command {
                seen();
                let _ = answer.send(cut);
            }
        }
    });
    Workers::new(vec![sender])
}

#[test]
fn a_block_is_published_then_swept_then_committed_then_answered() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        let (blocks, store) = (Arc::clone(&bench.blocks), bench.store());
        let before = std::fs::read(&store).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let look = move || {
            log.lock().unwrap().push((standing(&blocks), std::fs::read(&store).unwrap() == before));
        };
        control.set_workers(witness(look, 3));
        let blocked = give(&mut control, order(address())).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [(1, true)], "published, and not yet committed");
        assert!(blocked.confirmed && blocked.durable);
        assert_eq!((blocked.cut, blocked.block.until), (3, WALL + 3_600_000));
    });
    drop(control);
    assert_eq!(bench.control().list(false).blocks.len(), 1, "it survives a restart");
}

#[test]
fn a_worker_that_does_not_answer_in_400_ms_makes_it_not_confirmed_but_it_holds() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        let (sender, _kept) = mpsc::channel(4);
        control.set_workers(Workers::new(vec![sender]));
        let start = tokio::time::Instant::now();
        let blocked = give(&mut control, order(address())).await.unwrap();
        assert!(!blocked.confirmed && blocked.durable);
        assert!(start.elapsed() < Duration::from_millis(480));
        assert_eq!(standing(&bench.blocks), 1);
    });
}

#[test]
fn a_block_that_cannot_be_written_holds_in_memory_and_is_written_later() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        // The file is moved away and the open one made to fail: the next write opens anew and finds none.
        give(&mut control, order(address())).await.unwrap();
        let (store, away) = (bench.store(), bench.store().with_extension("away"));
        control.store.break_for_test();
        std::fs::rename(&store, &away).unwrap();
        let blocked = give(&mut control, order(address())).await.unwrap();
        assert!(blocked.confirmed && !blocked.durable);
        assert_eq!(standing(&bench.blocks), 2);
        assert_eq!(control.status().await.status.unwritten, 1);
        assert!(!control.vitals().durable.load(Ordering::Relaxed));

        let refused = control.unblock(1, "uid 0").unwrap_err();
        assert_eq!(refused.error, RefusalKind::NotWritten, "a lifted block must not come back");
        assert_eq!(standing(&bench.blocks), 2);
        assert!(!control.unblock(2, "uid 0").unwrap().durable, "it never was on disk");
        assert_eq!(standing(&bench.blocks), 1);

        std::fs::rename(&away, &store).unwrap();
        control.tend().await;
        assert_eq!(control.status().await.status.unwritten, 0);
    });
    drop(control);
    let control = bench.control();
    assert_eq!((control.list(false).blocks.len(), control.list(true).blocks.len()), (1, 2));
}

#[test]
fn a_lifted_block_stays_lifted_over_restarts_and_no_number_is_used_twice() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        give(&mut control, order(address())).await.unwrap();
        assert!(control.unblock(1, "uid 0").unwrap().durable);
        assert_eq!(control.unblock(1, "uid 0").unwrap_err().error, RefusalKind::Unknown);
    });
    drop(control);
    bench.hand.advance(Duration::from_secs(40 * 86_400));
    let mut control = bench.control();
    runtime().block_on(async {
        control.tend().await;
        assert_eq!(give(&mut control, order(address())).await.unwrap().block.id, 2);
        control.tend().await;
        assert_eq!(control.list(true).blocks.len(), 1, "the old one is forgotten after 30 days");
    });
}

#[test]
fn expired_blocks_leave_the_index_and_stay_on_disk() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        give(&mut control, order(address())).await.unwrap();
        bench.hand.advance(Duration::from_secs(3601));
        control.tend().await;
        assert_eq!(standing(&bench.blocks), 0);
        assert_eq!((control.list(false).blocks.len(), control.list(true).blocks.len()), (0, 1));
    });
}

#[test]
fn wide_blocks_want_yes() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        for (network, refused) in
            [("10.0.0.0/15", true), ("10.0.0.0/16", false), ("2001:db8::/31", true), ("2001:db8::/32", false)]
        {
            let what = What::Address { network: network.parse().unwrap() };
            assert_eq!(give(&mut control, order(what.clone())).await.is_err(), refused, "{network}");
            assert!(give(&mut control, Order { yes: true, ..order(what) }).await.is_ok());
        }
        let everyone = What::Everyone { before: 0, and_logins: false };
        let refusal = give(&mut control, order(everyone.clone())).await.unwrap_err();
        assert_eq!(refusal.error, RefusalKind::Refused);
        let blocked = give(&mut control, Order { yes: true, ..order(everyone) }).await.unwrap();
        assert_eq!(blocked.block.what, What::Everyone { before: WALL / 1000, and_logins: false });
    });
}

#[test]
fn orders_left_while_the_gateway_was_down_hold_before_anything_listens() {
    let bench = Bench::new();
    let state = StateDir::open(&bench.folder.path().join("state")).unwrap();
    let spooled = Spooled { schema: 1, order: order(address()), by: "uid 0".into(), created: WALL - 5 };
    spool::leave(state.path(), &spooled).unwrap();
    std::fs::write(state.spool().join("000.json"), "{half").unwrap();
    let control = bench.control();
    assert_eq!(standing(&bench.blocks), 1);
    assert_eq!(control.list(false).blocks[0].created, WALL - 5);
    assert!(bench.has_said("AN ORDER TO BLOCK WAS NOT TAKEN"));
    let left: Vec<_> = std::fs::read_dir(state.spool()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["000.json.broken"]);
    drop(control);
    assert_eq!(bench.control().list(true).blocks.len(), 1, "taken in once");
}

#[test]
fn a_broken_config_changes_nothing_and_is_shown() {
    let bench = Bench::new();
    let mut control = bench.control();
    bench.fake.broken.store(true, Ordering::Relaxed);
    let refusal = control.reload("uid 0").unwrap_err();
    let place = bench.folder.path().join("portcullis.toml");
    assert_eq!(refusal.problems, [format!("{}:2:2: no such key (write `b`)", place.display())]);
    assert_eq!(bench.fake.applied.load(Ordering::Relaxed), 0);
    let last = runtime().block_on(control.status()).status.reload;
    assert!(!last.successful && last.problems == refusal.problems);
    bench.fake.broken.store(false, Ordering::Relaxed);
    control.reload("uid 0").unwrap();
    assert!(runtime().block_on(control.status()).status.reload.successful);
    assert_eq!(bench.fake.applied.load(Ordering::Relaxed), 1);
}

/// Runs the control thread with its socket while `with` plays the person at the CLI.
fn served<T>(bench: &Bench, with: impl FnOnce(&cli::client::Gateway) -> T) -> T {
    let gateway = bench.gateway();
    let mut control = bench.control();
    let (bound, is_bound) = std::sync::mpsc::sync_channel(1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let socket = gateway.socket.clone();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let socket = Socket::bind(&socket).unwrap();
            let (commands, queue) = mpsc::channel(QUEUE);
            let (_changed, changed) = mpsc::channel(1);
            let explain: crate::admin::socket::Explain =
                Arc::new(|question| Box::pin(async { Ok(question) }));
            bound.send(()).unwrap();
            tokio::select! {
                () = socket.serve(commands, explain) => {}
                () = control.run(queue, changed) => {}
                _ = stopped => {}
            }
        });
    });
    is_bound.recv().unwrap();
    let result = with(&gateway);
    drop(stop);
    thread.join().unwrap();
    result
}

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    block: cli::block::BlockArgs,
}

fn block(gateway: &cli::client::Gateway, line: &str) -> (u8, String, String) {
    use clap::Parser;
    let args = Line::try_parse_from(std::iter::once("block").chain(line.split(' '))).unwrap().block;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::block::run(&args, gateway, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_command_line_blocks_lists_lifts_and_reloads() {
    let bench = Bench::new();
    served(&bench, |gateway| {
        let (code, out, _) = block(gateway, "address 192.0.2.7 --for 15m --reason why");
        assert_eq!(code, 0);
        assert!(out.starts_with("BLOCKED: address 192.0.2.7/32\n  number  1 "), "{out}");
        assert!(out.contains("until   2023-11-14T22:28:20Z"), "{out}");
        let (code, _, err) = block(gateway, "address 10.0.0.0/8");
        assert_eq!(code, 5);
        assert!(err.contains("--yes"), "{err}");
        let (code, _, err) = block(gateway, "token eyJ.a.b");
        assert_eq!(code, 2);
        assert!(err.contains("must not be an argument") && !err.contains("eyJ"), "{err}");
        let (code, out, _) = block(gateway, "subject 7 --json");
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &json["schema"], &json["block"]["id"]), (0, &1.into(), &2.into()));

        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = cli::blocks::BlocksArgs { all: false, json: true };
        assert_eq!(cli::blocks::list(&args, gateway, &mut out, &mut err), 0);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["blocks"].as_array().unwrap().len(), 2);
        assert_eq!(json["blocks"][0]["reason"], "why");

        let args = cli::blocks::UnblockArgs { id: 1, json: false };
        assert_eq!(cli::blocks::unblock(&args, gateway, &mut out, &mut err), 0);
        assert_eq!(cli::blocks::unblock(&args, gateway, &mut out, &mut err), 1);

        let reload = cli::reload::ReloadArgs { json: false };
        assert_eq!(cli::reload::run(&reload, gateway, &mut out, &mut err), 0);
        bench.fake.broken.store(true, Ordering::Relaxed);
        assert_eq!(cli::reload::run(&reload, gateway, &mut out, &mut err), 3);
        let mut out = Vec::new();
        let status = cli::status::StatusArgs { json: false };
        assert_eq!(cli::status::run(&status, gateway, &mut out, &mut err), 0);
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("1 subject") && out.contains("was refused"), "{out}");
    });
    let audit = std::fs::read_to_string(bench.folder.path().join("state/audit.log")).unwrap();
    let actions: Vec<_> = audit
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line["action"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(actions, ["block", "block", "unblock", "reload", "reload"]);
}

#[test]
fn with_the_gateway_down_an_order_waits_on_the_disk_and_holds_from_the_next_start() {
    let bench = Bench::new();
    drop(bench.control());
    let gateway = bench.gateway();
    let (code, _, err) = block(&gateway, "address 192.0.2.7");
    assert_eq!(code, 4);
    assert!(err.contains("NOT CONFIRMED") && err.contains("next start"), "{err}");
    assert_eq!(block(&gateway, "everyone").0, 5, "a wide one is not even left");
    assert_eq!(block(&gateway, "everyone --yes").0, 4);
    assert_eq!(bench.control().list(false).blocks.len(), 2);
    let args = cli::status::StatusArgs { json: false };
    assert_eq!(cli::status::run(&args, &gateway, &mut Vec::new(), &mut Vec::new()), 4);
}

#[test]
fn a_stale_socket_is_taken_over_and_a_live_one_is_not() {
    let bench = Bench::new();
    let path = bench.gateway().socket;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    served(&bench, |_| {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        runtime().block_on(async { assert!(Socket::bind(&path).is_err()) });
    });
    assert!(!path.exists());
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
