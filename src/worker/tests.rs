//! A worker on a thread of its own, asked as the control thread asks it.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::config::Loaded;
use crate::listener::tls::{Certificates, Resolver, Wanted};
use crate::policy::compile;
use crate::telemetry::access_log::{AccessLog, Prepared};

fn loaded(folder: &Path, clock: &Clock) -> Loaded {
    let text = format!(
        "[tls]\nself_signed = true\n[state]\ndir = \"{}\"\n[log]\naccess = \"off\"\n\
         [[site]]\nhosts = [\"a.test\"]\napp = \"generic\"\nupstream = \"http://127.0.0.1:1\"\n",
        folder.display()
    );
    crate::config::parse(Path::new("/etc/p.toml"), &text, clock.now()).unwrap()
}

/// A worker without listeners.
fn setup(folder: &Path, say: &Say, drain: watch::Receiver<bool>, commands: mpsc::Receiver<Command>) -> Setup {
    let clock = Clock::system();
    let settings = loaded(folder, &clock).settings;
    let kept = Kept::new(64);
    let certificates = Certificates::build(&Wanted::of(&settings), clock.now(), None).unwrap();
    let resolver = Resolver::new(certificates, Arc::clone(&kept.challenges));
    let log = AccessLog::start(Prepared::open(&settings.log).unwrap(), Arc::clone(say)).unwrap();
    Setup {
        policy: Arc::new(PolicyCell::new(compile(&settings, &kept))),
        blocks: Arc::default(),
        kept,
        share_key: ShareKey::new(&[7; 32]),
        tls: Entrance::new(resolver, &settings).unwrap(),
        caps: Arc::default(),
        in_flight: Arc::default(),
        health: Arc::default(),
        checks_health: false,
        descriptors: Descriptors::of_process(),
        say: Arc::clone(say),
        metrics: Metrics::new().unwrap(),
        lane: log.lane(),
        id_base: 0,
        drain,
        commands,
        listeners: Vec::new(),
        clock,
    }
}

#[tokio::test]
async fn a_socket_of_a_reload_that_cannot_be_used_is_said_and_the_worker_serves_on() {
    let folder = tempfile::tempdir().unwrap();
    let said = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&said);
    let say: Say = Arc::new(move |line: &str| heard.lock().unwrap().push(line.to_owned()));
    let ((sender, commands), (_drain, draining)) = (mpsc::channel(4), watch::channel(false));
    let setup = setup(folder.path(), &say, draining, commands);
    let worker = std::thread::spawn(move || run(setup).map_err(|error| error.to_string()));
    // No runtime waits for a file of a disk.
    let mut options = File::options();
    let file =
        options.create(true).append(true).custom_flags(libc::O_NONBLOCK).open(folder.path().join("file"));
    let unusable = TcpListener::from(OwnedFd::from(file.unwrap()));
    let address: SocketAddr = ([127, 0, 0, 1], 1).into();
    let open = vec![vec![(address, Listener::passed(unusable, Kind::Plain, false))]];
    let workers = Workers::new(vec![sender]);
    workers.reserve().unwrap().listen(open, &[]);
    let swept = workers.sweep(Duration::from_secs(10)).await;
    assert!(swept.confirmed, "it has ended");
    let line = said.lock().unwrap().join("\n");
    assert!(line.starts_with("a worker cannot listen on 127.0.0.1:1: "), "{line}");
    drop(workers);
    assert_eq!(worker.join().unwrap(), Ok(()));
}
