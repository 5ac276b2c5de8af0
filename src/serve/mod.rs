//! The composition root: open, compile, bind, start, wait, drain.

mod doors;
mod live;
mod notify;
mod passed;
mod probe;
mod shows;
mod sockets;
mod stops;
mod takeover;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::doors::Doors;
use self::live::Live;
use self::passed::Passed;
use self::sockets::bind;
use self::stops::{Stops, Why, end};
use self::takeover::Handed;
use crate::admin::api::Command as AdminCommand;
use crate::admin::metrics::Shown;
use crate::admin::readiness;
use crate::clock::Clock;
use crate::config::settings::{Settings, Site};
use crate::config::watch::{Contents, Pace, Watch};
use crate::config::{self, Loaded};
use crate::control::handover::Outside as _;
use crate::control::{Control, Parts};
use crate::listener::accept::Listener;
use crate::listener::caps::Caps;
use crate::listener::tls::{Certificates, Entrance, Resolver, Wanted};
use crate::policy::{PolicyCell, compile};
use crate::request::share_key::ShareKey;
use crate::stores::blocks::Blocks;
use crate::stores::descriptors::Descriptors;
use crate::stores::durable::directory::{self, StateDir};
use crate::stores::kept::Kept;
use crate::stores::places::Places;
use crate::telemetry::access_log::{AccessLog, Prepared};
use crate::telemetry::audit::Say;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::process_log::ProcessLog;
use crate::upstream::health::Health;
use crate::worker::{self, Workers};

/// Commands that may wait for a worker.
const WORKER_QUEUE: usize = 64;
/// How long the workers may take to come up.
const START: Duration = Duration::from_secs(10);

/// Whatever went wrong, for the person at the terminal.
pub type Fault = Box<dyn Error + Send + Sync>;

/// Serves a config until SIGTERM or SIGINT, then drains. `take_over`: from the gateway that runs with this state directory.
///
/// # Errors
/// What kept the gateway from starting, or ended it.
pub fn run(settings: &Settings, take_over: bool) -> Result<(), Fault> {
    prepare_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything that takes time: a signal that nobody hears would end the process.
    let hangup = runtime.block_on(async { signal(SignalKind::hangup()) })?;
    let clock = Clock::system();
    // Read once more, after what it held was noted: no change can slip in between.
    let seen = Contents::of(&settings.files);
    let loaded = config::load_to_start(&settings.path, directory::has_store);
    let loaded = loaded.map_err(|problems| problems.to_string())?;
    let gateway = Parted::open(loaded, clock, seen, take_over)?;
    runtime.block_on(gateway.serve(hangup))
}

/// Everything opened and bound, nothing running yet.
struct Parted {
    settings: Settings,
    clock: Clock,
    policy: Arc<PolicyCell>,
    blocks: Arc<Blocks>,
    kept: Kept,
    share_key: ShareKey,
    resolver: Arc<Resolver>,
    entrance: Arc<Entrance>,
    control: Control,
    health: Arc<Health>,
    shared: live::Shared,
    log: AccessLog,
    said: ProcessLog,
    metrics: Vec<Arc<Metrics>>,
    sockets: Vec<Vec<(SocketAddr, Listener)>>,
    handed: Option<Handed>,
    changed: mpsc::Receiver<()>,
    change: mpsc::Sender<()>,
    watch: Arc<Watch>,
}

impl Parted {
    fn open(loaded: Loaded, clock: Clock, seen: Contents, take_over: bool) -> Result<Self, Fault> {
        let settings = loaded.settings.clone();
        let passed = Arc::new(Passed::take()?);
        let state = StateDir::open(&settings.state_dir).map_err(|error| {
            format!("cannot open the state directory {}: {error}", settings.state_dir.display())
        })?;
        let share_key = directory::share_key(&settings.state_dir)?;
        let kept = Kept::new(settings.limits.limiter_keys);
        let resolver = resolver(&settings, &clock, &kept)?;
        let entrance = Entrance::new(Arc::clone(&resolver), &settings)?;
        let policy = Arc::new(PolicyCell::new(compile(&settings, &kept)));
        let blocks = Arc::<Blocks>::default();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let (change, changed) = mpsc::channel(1);
        let watch = watch_files(seen, change.clone());
        let said = ProcessLog::start()?;
        let say = say(clock.clone(), &said);
        say_panics(Arc::clone(&say));
        let log = AccessLog::start(Prepared::open(&settings.log)?, Arc::clone(&say))?;
        let shared = live::Shared::new(&settings);
        let health = Arc::<Health>::default();
        let live = Live::new(
            live::Means {
                clock: clock.clone(),
                policy: Arc::clone(&policy),
                kept: kept.clone(),
                resolver: Arc::clone(&resolver),
                entrance: Arc::clone(&entrance),
                shared: shared.clone(),
                watch: Arc::clone(&watch),
                log: log.control(),
                passed: Arc::clone(&passed),
                health: Arc::clone(&health),
            },
            &settings,
        );
        // As late as can be: from here on the other one takes no orders.
        let handed = if take_over { takeover::ask(&settings.state_dir)? } else { None };
        let control = Control::open(Parts {
            clock: clock.clone(),
            blocks: Arc::clone(&blocks),
            state,
            loaded,
            reloader: Arc::new(live),
            kept: kept.clone(),
            say,
        })?;
        let sockets = bind(&settings, workers, &passed, handed.as_ref())?;
        let metrics = (0..workers).map(|_| Metrics::new()).collect::<Result<_, _>>()?;
        Ok(Self {
            settings,
            clock,
            policy,
            blocks,
            kept,
            share_key,
            resolver,
            entrance,
            control,
            health,
            shared,
            log,
            said,
            metrics,
            sockets,
            handed,
            changed,
            change,
            watch,
        })
    }

    async fn serve(mut self, hangup: Signal) -> Result<(), Fault> {
        // First of all: before there is somebody who listens the signal of log rotation would kill.
        let rotated = signal(SignalKind::user_defined1())?;
        // Not earlier: until here there is nothing to drain, and a start that hangs can be ended.
        let stops = Stops {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let (latch, readiness) = readiness::latch();
        let (drain, draining) = watch::channel(false);
        let (ended, mut ends) = mpsc::channel(self.metrics.len().max(1));
        let workers = self.start_workers(&draining, &ended)?;
        drop(ended);
        self.shared.set_workers(workers.clone());
        self.control.set_workers(workers.clone());
        self.control.set_readiness(readiness.clone());
        let (commands, asked) = mpsc::channel::<AdminCommand>(crate::control::QUEUE);
        let (give_way, mut given_way) = mpsc::channel(1);
        let only_from = Arc::clone(&self.shared.metrics_only_from);
        let mut doors = Doors {
            admin: self.settings.admin.socket.clone(),
            handover: takeover::socket(&self.settings.state_dir),
            metrics: self.settings.admin.metrics,
            commands,
            explain: shows::explain(&self),
            prober: probe::prober(&self),
            shown: Shown { scrape: shows::scrape(&self), readiness, only_from },
            drain: Box::new(move |to| give_way.try_send(to).unwrap_or_default()),
            tasks: tokio::task::JoinSet::new(),
        };
        doors.open()?;
        self.control.set_outside(Box::new(doors));
        let mut tasks = tokio::task::JoinSet::new();
        if !workers.sweep(START).await.confirmed {
            return Err("the workers did not come up".into());
        }
        let change = self.change.clone();
        tasks.spawn(on_each(hangup, move || change.try_send(()).unwrap_or_default()));
        let log = self.log.control();
        tasks.spawn(on_each(rotated, move || log.reopen()));
        latch.ready();
        let took_over = self.handed.is_some();
        if let Some(handed) = self.handed.take() {
            let follower = tokio::net::UnixStream::from_std(handed.into_stream()?)?;
            self.control.set_follower(follower).await?;
        }
        notify::ready(took_over).map_err(|error| format!("cannot tell systemd at NOTIFY_SOCKET: {error}"))?;
        let say = say(self.clock.clone(), &self.said);
        say(&started(&self.settings));
        let policy = Arc::clone(&self.policy);
        let begin_drain = |why| {
            latch.drain();
            say("draining: what runs is finished within limits.drain_timeout, a second signal ends at once");
            match why {
                Why::Signal => notify::stopping(policy.load().settings.limits.drain_timeout),
                Why::GivenWay(successor) => notify::given_way(successor),
            }
            drain.send_replace(true);
        };
        let until = end(stops, &mut given_way, begin_drain, (&mut ends, workers.len()));
        let result = tokio::select! {
            why = self.control.run(asked, self.changed) => Err(why.into()),
            result = until => result,
        };
        self.control.close();
        tasks.shutdown().await;
        drop(self.watch);
        self.log.close();
        result
    }

    fn start_workers(
        &mut self,
        draining: &watch::Receiver<bool>,
        ended: &mpsc::Sender<Result<(), String>>,
    ) -> Result<Workers, Fault> {
        let caps = Arc::<Caps>::default();
        let say = say(self.clock.clone(), &self.said);
        let in_flight = Arc::<Places>::default();
        let mut id = [0; 4];
        aws_lc_rs::rand::fill(&mut id)?;
        let mut senders = Vec::new();
        let sockets = std::mem::take(&mut self.sockets);
        for (number, (listeners, metrics)) in sockets.into_iter().zip(&self.metrics).enumerate() {
            let (sender, commands) = mpsc::channel(WORKER_QUEUE);
            senders.push(sender);
            let setup = worker::Setup {
                clock: self.clock.clone(),
                policy: Arc::clone(&self.policy),
                blocks: Arc::clone(&self.blocks),
                kept: self.kept.clone(),
                share_key: self.share_key.clone(),
                tls: Arc::clone(&self.entrance),
                caps: Arc::clone(&caps),
                in_flight: Arc::clone(&in_flight),
                health: Arc::clone(&self.health),
                checks_health: number == 0,
                descriptors: Descriptors::of_process(),
                say: Arc::clone(&say),
                metrics: Arc::clone(metrics),
                lane: self.log.lane(),
                id_base: u32::from_ne_bytes(id).wrapping_add(u32::try_from(number)?),
                drain: draining.clone(),
                commands,
                listeners,
            };
            let ended = ended.clone();
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker::run(setup)));
                let result = worked.map_err(|_| "a worker panicked".to_owned());
                let _ =
                    ended.blocking_send(result.and_then(|result| result.map_err(|error| error.to_string())));
            })?;
        }
        Ok(Workers::new(senders))
    }
}

fn resolver(settings: &Settings, clock: &Clock, kept: &Kept) -> Result<Arc<Resolver>, Fault> {
    let certificates = Certificates::build(&Wanted::of(settings), clock.now(), None);
    let certificates = certificates.map_err(|problems| problems.to_string())?;
    Ok(Resolver::new(certificates, Arc::clone(&kept.challenges)))
}

fn watch_files(seen: Contents, change: mpsc::Sender<()>) -> Arc<Watch> {
    Arc::new(Watch::start(seen, Pace::default(), move || {
        // One that waits already says the same.
        let _ = change.try_send(());
    }))
}

/// As many descriptors as the system allows, and no core dump: it would hold keys and tokens.
fn prepare_process() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile);
    // Best effort both: with fewer descriptors the gateway sheds earlier, and says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

async fn on_each(mut signal: Signal, act: impl Fn() + Send) {
    while signal.recv().await.is_some() {
        act();
    }
}

/// The first line of a process in its log, by which restarts are told from each other.
fn started(settings: &Settings) -> String {
    let sites: Vec<_> = settings.sites.iter().map(Site::name).collect();
    let listen = &settings.listen;
    let all = [("https", &listen.https), ("http", &listen.http), ("plain", &listen.plain)];
    let ports =
        all.iter().flat_map(|(word, open)| open.iter().map(move |address| format!("{word} {address}")));
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "version {version} takes requests for {} on {}",
        sites.join(", "),
        ports.collect::<Vec<_>>().join(", ")
    )
}

/// The process log, with the time.
fn say(clock: Clock, log: &ProcessLog) -> Say {
    let speaker = log.speaker();
    Arc::new(move |line: &str| speaker.say(clock.now().wall, line))
}

/// A panic ends the gateway, which must not wait until somebody reads why.
fn say_panics(say: Say) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        say(&format!("thread {} {panic}{trace}", thread.name().unwrap_or("-")));
    }));
}
