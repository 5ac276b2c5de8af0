//! The unit, the socket, the user, the directories.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::gate::free_addresses;
use crate::common::upstream::{OK, Upstream};
use crate::common::{HOST, raw, wait_until};
use crate::{read, repository, succeeds};

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");

/// The exposure that `systemd-analyze security` may find at most, of 10.
const MOST_EXPOSED: f64 = 2.0;

#[test]
fn the_unit_is_sound_and_exposes_little() {
    let unit = repository("deploy/systemd/portcullis.service");
    let said = succeeds(Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(unit));
    let line = said.lines().find(|line| line.contains("Overall exposure level")).expect(&said);
    let level: f64 = line.rsplit(": ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(level <= MOST_EXPOSED, "{line}");

    // As it would be found where it is installed.
    let dir = tempfile::tempdir().unwrap();
    let installed = read("deploy/systemd/portcullis.service").replace("/usr/bin/portcullis", PROGRAM);
    fs::write(dir.path().join("portcullis.service"), installed).unwrap();
    fs::copy(repository("deploy/systemd/portcullis.socket"), dir.path().join("portcullis.socket")).unwrap();
    let said = succeeds(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(dir.path().join("portcullis.service"))
            .arg(dir.path().join("portcullis.socket")),
    );
    assert_eq!(said, "", "systemd has something to say of the units");
}

#[test]
fn the_unit_waits_longer_than_a_drain_and_listens_where_the_config_does_by_default() {
    let unit = read("deploy/systemd/portcullis.service");
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let config: toml::Table = read("config/portcullis.toml").parse().unwrap();
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    assert!(seconds(stop) > seconds(config["limits"]["drain_timeout"].as_str().unwrap()));

    let socket = read("deploy/systemd/portcullis.socket");
    let streams: Vec<&str> = socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let listen = &config["listen"];
    let named = |key: &str| listen[key].as_array().unwrap()[0].as_str().unwrap().to_owned();
    assert_eq!(streams, [named("https"), named("http")]);
}

#[test]
fn user_and_directories_are_made_as_systemd_reads_them() {
    let root = tempfile::tempdir().unwrap();
    let at = format!("--root={}", root.path().display());
    fs::create_dir_all(root.path().join("etc")).unwrap();
    succeeds(
        Command::new("systemd-sysusers").arg(&at).arg(repository("deploy/systemd/portcullis.sysusers.conf")),
    );
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let user = users.lines().find(|line| line.starts_with("portcullis:")).expect(&users);
    assert!(user.ends_with("/usr/sbin/nologin") || user.ends_with("/bin/false"), "{user}");

    // Another owner than who runs the tests is for root only; the modes are what matters.
    let own = read("deploy/systemd/portcullis.tmpfiles.conf").replace("root       portcullis", "- -");
    let file = root.path().join("portcullis.conf");
    fs::write(&file, own.replace("portcullis portcullis -", "- - -")).unwrap();
    succeeds(Command::new("systemd-tmpfiles").args(["--create", &at]).arg(&file));
    for (directory, mode) in [("etc", 0o750), ("run", 0o755), ("var/lib", 0o700), ("var/log", 0o750)] {
        use std::os::unix::fs::PermissionsExt;
        let made = fs::metadata(root.path().join(directory).join("portcullis")).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, mode, "{directory}/portcullis");
    }
}

/// Starts the gateway as systemd does: the socket as descriptor 3, and two variables.
fn start(config: &Path, socket: &TcpListener) -> Child {
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    Command::new("sh")
        .args(["-c", script, "sh", PROGRAM, "run", "--config"])
        .arg(config)
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())))
        .stdout(Stdio::null())
        .stderr(fs::File::options().create(true).append(true).open(config.with_extension("stderr")).unwrap())
        .spawn()
        .unwrap()
}

fn stop(gateway: &mut Child) {
    succeeds(Command::new("kill").args(["-TERM", &gateway.id().to_string()]));
    assert!(gateway.wait().unwrap().success());
}

/// A config for one socket; the state beside it.
pub fn config_for(
    dir: &Path,
    https: std::net::SocketAddr,
    upstream: std::net::SocketAddr,
) -> std::path::PathBuf {
    let path = dir.join("portcullis.toml");
    let text = format!(
        "[listen]\nhttps = [\"{https}\"]\nhttp = []\n[tls]\nself_signed = true\n\
         [admin]\nsocket = \"{dir}/admin.sock\"\nmetrics = \"off\"\n[state]\ndir = \"{dir}/state\"\n\
         [[site]]\nhosts = [\"{HOST}\"]\napp = \"generic\"\nupstream = \"http://{upstream}\"\n",
        dir = dir.display(),
    );
    fs::write(&path, text).unwrap();
    path
}

pub fn is_ready(config: &Path) -> bool {
    let asked = Command::new(PROGRAM).arg("healthcheck").env("PORTCULLIS_CONFIG", config).output();
    asked.unwrap().status.success()
}

#[tokio::test]
async fn behind_a_socket_of_systemd_a_restart_refuses_nobody() {
    let upstream = Upstream::answering(OK);
    // Held here as systemd holds it: bound without SO_REUSEPORT, so that a gateway that bound it itself would fail.
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let https = socket.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = config_for(dir.path(), https, upstream.address);
    let errors = || fs::read_to_string(config.with_extension("stderr")).unwrap();

    let mut first = start(&config, &socket);
    assert!(wait_until(raw::LIMIT, || is_ready(&config)), "{}", errors());
    let trusting = || raw::trusting(&dir.path().join("state/ca.pem"), &["http/1.1"]);
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let mut stream = raw::tls(https, HOST, trusting()).await.unwrap();
    assert_eq!(raw::ask(&mut stream, request.as_bytes()).await.status, 200);
    drop(stream);
    stop(&mut first);

    // Nobody serves now, and yet nobody is refused: who comes waits.
    let waiting = tokio::net::TcpStream::connect(https).await.expect("a connection while no gateway runs");
    let mut second = start(&config, &socket);
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(trusting()));
    let greeted = connector.connect(HOST.try_into().unwrap(), waiting).await;
    let mut stream = greeted.unwrap_or_else(|error| panic!("{error}: {}", errors()));
    assert_eq!(raw::ask(&mut stream, request.as_bytes()).await.status, 200);
    drop(stream);
    stop(&mut second);
}

#[tokio::test]
async fn a_socket_of_systemd_goes_over_to_a_new_process_and_outlives_it() {
    let upstream = Upstream::answering(OK);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let https = socket.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = config_for(dir.path(), https, upstream.address);
    let errors = || fs::read_to_string(config.with_extension("stderr")).unwrap();
    let mut first = start(&config, &socket);
    assert!(wait_until(raw::LIMIT, || is_ready(&config)), "{}", errors());
    let mut second = Command::new(PROGRAM)
        .args(["run", "--take-over", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let gave = wait_until(raw::LIMIT, || first.try_wait().unwrap().is_some());
    assert!(gave && wait_until(raw::LIMIT, || is_ready(&config)), "{}", errors());
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let ask = async |stream| {
        let trusting = raw::trusting(&dir.path().join("state/ca.pem"), &["http/1.1"]);
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(trusting));
        let mut stream = connector.connect(HOST.try_into().unwrap(), stream).await.unwrap();
        raw::ask(&mut stream, request.as_bytes()).await.status
    };
    let connect = || tokio::net::TcpStream::connect(https);
    assert_eq!(ask(connect().await.unwrap()).await, 200);
    // What closes the socket for the second process closes it for nobody else.
    stop(&mut second);
    let connected = tokio::time::timeout(Duration::from_millis(900), connect()).await;
    let waiting = connected.expect("at once, not when asked again").expect("a connection");
    let mut third = start(&config, &socket);
    assert_eq!(ask(waiting).await, 200, "{}", errors());
    stop(&mut third);
}

#[test]
fn the_program_of_systemd_that_passes_sockets_is_understood() {
    let upstream = Upstream::answering(OK);
    let [https] = free_addresses();
    let dir = tempfile::tempdir().unwrap();
    let config = config_for(dir.path(), https, upstream.address);
    let mut gateway = Command::new("systemd-socket-activate")
        .args(["-l", &https.to_string(), PROGRAM, "run", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-socket-activate: `make test-deps` installs it");
    // It starts the gateway with the first connection.
    let asked = wait_until(Duration::from_secs(20), || {
        let url = format!("https://{HOST}:{}/", https.port());
        let resolve = format!("{HOST}:{}:127.0.0.1", https.port());
        let answer =
            Command::new("curl").args(["-sk", "--max-time", "10", "--resolve", &resolve, &url]).output();
        answer.unwrap().stdout == b"ok"
    });
    let _ = gateway.kill();
    let _ = gateway.wait();
    assert!(asked, "no answer through the socket that was passed");
}

#[test]
fn a_socket_that_nobody_would_serve_keeps_the_gateway_from_starting() {
    let upstream = Upstream::answering(OK);
    let [https] = free_addresses();
    let dir = tempfile::tempdir().unwrap();
    let config = config_for(dir.path(), https, upstream.address);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let code = start(&config, &socket).wait().unwrap().code();
    assert_eq!(code, Some(1));
    let errors = fs::read_to_string(config.with_extension("stderr")).unwrap();
    let address = socket.local_addr().unwrap();
    assert!(errors.contains(&address.to_string()) && errors.contains("portcullis.socket"), "{errors}");
}
