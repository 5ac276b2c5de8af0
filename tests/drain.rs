//! A stop: said first, then nothing new, what runs is finished within its time; and a start that signals do not end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, reason = "tests measure real time")]

mod common;

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::gate::{Config, Gate};
use common::http2::{Client, read};
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_for, wait_until};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// An upstream whose `/slow` sends half of its answer, and the rest when told.
fn halting() -> (Upstream, Arc<AtomicBool>) {
    let go = Arc::<AtomicBool>::default();
    let told = Arc::clone(&go);
    let upstream = Upstream::scripted(move |mut session| {
        while let Some(request) = session.request() {
            if request.target != "/slow" {
                session.send(OK);
                continue;
            }
            session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
            wait_until(Duration::from_secs(60), || told.load(Ordering::SeqCst));
            session.send(b"rest");
        }
    });
    (upstream, go)
}

fn draining(limit: &str) -> Config {
    Config { app: "generic".into(), limits: format!("drain_timeout = \"{limit}\""), ..Config::default() }
}

/// A download that has begun.
async fn download(gate: &Gate) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = gate.connect().await;
    let head = format!("GET /slow HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"half") {
        seen.push(timeout(raw::LIMIT, stream.read_u8()).await.expect("the first half").unwrap());
    }
    stream
}

async fn is_draining(gate: &Gate) -> bool {
    let says = || gate.admin("/readyz").is_some_and(|answer| answer.ends_with("\r\n\r\ndraining\n"));
    wait_for(raw::LIMIT, says).await
}

#[tokio::test]
async fn a_poller_sees_the_drain_and_status_names_it_while_a_download_finishes() {
    let (upstream, go) = halting();
    let mut gate = draining("60s").start(upstream.address);
    assert!(gate.admin("/readyz").unwrap().ends_with("\r\n\r\nready\n"));
    let mut running = download(&gate).await;
    gate.signal("TERM");
    assert!(is_draining(&gate).await);
    assert!(gate.admin("/readyz").unwrap().starts_with("HTTP/1.1 503 "));
    assert!(gate.admin("/livez").unwrap().starts_with("HTTP/1.1 200 "));
    let status = gate.cli(["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("! not ready: draining"), "{status:?}");
    let json: Value = serde_json::from_slice(&gate.cli(["status", "--json"]).stdout).unwrap();
    assert_eq!((&json["status"]["ready"], &json["status"]["draining"]), (&false.into(), &true.into()));
    let health = gate.cli(["healthcheck"]);
    assert!(String::from_utf8_lossy(&health.stderr).contains("not ready: draining"), "{health:?}");
    assert!(
        wait_for(raw::LIMIT, || std::net::TcpStream::connect(gate.https).is_err()).await,
        "no new connections"
    );
    go.store(true, Ordering::SeqCst);
    let mut rest = Vec::new();
    timeout(raw::LIMIT, running.read_to_end(&mut rest)).await.expect("the end").unwrap();
    assert_eq!(rest, b"rest");
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0), "as soon as nothing runs any more");
}

#[tokio::test]
async fn an_http_2_client_is_told_to_go_and_its_streams_finish() {
    let (upstream, go) = halting();
    let mut gate = draining("60s").start(upstream.address);
    let client = Client::connect(&gate).await;
    let (answer, _) = client.open(client.head("GET", "/slow"), true).await;
    let answer = timeout(raw::LIMIT, answer).await.expect("a head").unwrap();
    gate.signal("TERM");
    let goaway = common::wait_until_async(raw::LIMIT, async || !client.is_open().await).await;
    assert!(goaway, "the client may open further streams");
    go.store(true, Ordering::SeqCst);
    let mut body = answer.into_body();
    let mut whole = Vec::new();
    while let Some(piece) = timeout(raw::LIMIT, body.data()).await.expect("the end") {
        whole.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(whole, b"halfrest");
    drop(client);
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
}

#[tokio::test]
async fn busy_clients_lose_no_request_to_a_drain() {
    let upstream = Upstream::answering(OK);
    let mut gate = draining("60s").start(upstream.address);
    let head = format!("GET /x HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    let stop = Arc::<AtomicBool>::default();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut stream, head) = (gate.connect().await, head.clone());
        let stop = Arc::clone(&stop);
        clients.spawn(async move {
            let mut served = 0;
            loop {
                let asked = Instant::now();
                if stream.write_all(head.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                    return (served, asked.elapsed());
                }
                let answer =
                    timeout(raw::LIMIT, raw::read_answer(&mut stream, false)).await.expect("an answer");
                assert_eq!(answer.status, 200);
                served += 1;
                if answer.header("connection") == Some("close") {
                    assert!(stop.load(Ordering::SeqCst), "not before the drain");
                    return (served, Duration::ZERO);
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::SeqCst);
    gate.signal("TERM");
    while let Some(done) = clients.join_next().await {
        let (served, _) = done.unwrap();
        assert!(served > 1);
    }
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
    let log = gate.log();
    assert!(!log.contains("\"status\":499") && !log.contains("\"status\":502"), "{log}");
}

#[tokio::test]
async fn who_waits_in_the_queues_when_the_stop_comes_is_served() {
    const CLIENTS: usize = 60;
    let upstream = Upstream::answering(OK);
    let mut gate = draining("60s").start(upstream.address);
    gate.signal("STOP");
    // The kernel alone takes them: connections, and what is sent first.
    let connect = |_| {
        let client = std::net::TcpStream::connect(gate.https).unwrap();
        client.set_nonblocking(true).unwrap();
        TcpStream::from_std(client).unwrap()
    };
    let waiting: Vec<_> = (0..CLIENTS).map(connect).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(raw::trusting(&gate.ca(), &["http/1.1"])));
    let head = format!("GET /x HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
    let mut clients = tokio::task::JoinSet::new();
    for client in waiting {
        let (connector, head) = (connector.clone(), head.clone());
        clients.spawn(async move {
            let mut stream = connector.connect(HOST.try_into().unwrap(), client).await.expect("a handshake");
            raw::ask(&mut stream, head.as_bytes()).await.status
        });
    }
    // The handshakes begin.
    tokio::task::yield_now().await;
    gate.signal("TERM");
    gate.signal("CONT");
    while let Some(done) = clients.join_next().await {
        assert_eq!(done.unwrap(), 200);
    }
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
}

#[test]
fn whoever_is_let_in_during_a_stop_is_answered() {
    use std::io::{Read, Write};
    let upstream = Upstream::answering(OK);
    for _ in 0..2 {
        let mut gate = draining("60s").start(upstream.address);
        // Every listener of every worker has something to wait for.
        let held: Vec<_> = (0..32)
            .map(|n| {
                let address = if n % 2 == 0 { gate.http } else { gate.https };
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(if n % 2 == 0 { b"GET /" } else { b"" }).unwrap();
                stream
            })
            .collect();
        let (address, begun) = (gate.http, Arc::new(std::sync::Barrier::new(5)));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let begun = Arc::clone(&begun);
                std::thread::spawn(move || {
                    let mut served = 0;
                    // Refused: the port is closed, and nobody is let in any more.
                    while let Ok(mut stream) = std::net::TcpStream::connect(address) {
                        let head = format!("GET /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
                        let mut answer = String::new();
                        let asked = stream
                            .write_all(head.as_bytes())
                            .and_then(|()| stream.read_to_string(&mut answer));
                        assert!(
                            asked.is_ok() && answer.starts_with("HTTP/1.1 "),
                            "let in and not served: {asked:?} {answer}"
                        );
                        served += 1;
                        if served == 20 {
                            begun.wait();
                        }
                    }
                })
            })
            .collect();
        begun.wait();
        gate.signal("TERM");
        clients.into_iter().for_each(|client| client.join().unwrap());
        drop(held);
        assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
    }
}

#[tokio::test]
async fn a_websocket_goes_on_through_a_drain_until_it_ends_itself() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = socket.next().await {
                if message.is_text() {
                    socket.send(message).await.unwrap();
                }
            }
        }
    });
    let mut gate = draining("60s").start(address);
    let request = format!("wss://{HOST}:{}/ws", gate.https.port()).into_client_request().unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, gate.connect().await).await.unwrap();
    gate.signal("TERM");
    assert!(is_draining(&gate).await);
    for word in ["still", "here"] {
        socket.send(Message::text(word)).await.unwrap();
        let came = timeout(raw::LIMIT, socket.next()).await.expect("in time").unwrap().unwrap();
        assert_eq!(came, Message::text(word));
    }
    socket.close(None).await.unwrap();
    while socket.next().await.is_some() {}
    drop(socket);
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0), "nothing is left to wait for");
}

#[tokio::test]
async fn what_outlasts_the_drain_is_cut_and_the_log_says_so() {
    let (upstream, _go) = halting();
    let mut gate = draining("1s").start(upstream.address);
    let mut running = download(&gate).await;
    let client = Client::connect(&gate).await;
    let (answer, _) = client.open(client.head("GET", "/slow"), true).await;
    gate.signal("INT");
    let mut rest = Vec::new();
    let ended = timeout(raw::LIMIT, running.read_to_end(&mut rest)).await.expect("cut");
    assert!(ended.is_err() && rest.is_empty(), "a broken answer is never a whole one: {ended:?}");
    assert!(!read(answer).await.is_ok_and(|answer| answer.whole));
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
    let log = gate.log();
    assert_eq!(log.matches("its drain was over (limits.drain_timeout)").count(), 2, "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM")] {
        let (upstream, _go) = halting();
        let mut gate = draining("10m").start(upstream.address);
        let _running = download(&gate).await;
        gate.signal(first);
        assert!(is_draining(&gate).await);
        assert_eq!(gate.wait_ended(Duration::from_millis(300)), None, "it waits for the download");
        gate.signal(second);
        assert_eq!(gate.wait_ended(raw::LIMIT), Some(0), "{first} {second}");
    }
}

/// A key of the state directory that takes its time: whoever reads it waits until somebody writes.
fn slow_start(upstream: &Upstream) -> (Gate, std::path::PathBuf) {
    let fifo = "for last; do :; done; state=${last%/*}/state; mkdir -m 700 $state && mkfifo -m 600 $state/share.key; \
                exec \"$0\" \"$@\"";
    let gate = Config { under: vec!["sh", "-c", fifo], ..draining("5s") }.launch(upstream.address);
    let key = gate.state().join("share.key");
    (gate, key)
}

#[test]
fn a_hangup_during_the_start_ends_nothing_and_a_stop_does() {
    let upstream = Upstream::answering(OK);
    let (mut gate, key) = slow_start(&upstream);
    assert!(wait_until(raw::LIMIT, || common::catches(&gate.status_file(), 1)), "SIGHUP is heard early");
    for _ in 0..3 {
        gate.signal("HUP");
    }
    assert_eq!(gate.wait_ended(Duration::from_millis(500)), None);
    assert!(gate.admin("/readyz").is_none_or(|answer| !answer.starts_with("HTTP/1.1 200")));
    std::fs::write(key, [7; 32]).unwrap();
    gate.wait_ready();
    gate.signal("TERM");
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));

    let (mut gate, _) = slow_start(&upstream);
    assert!(wait_until(raw::LIMIT, || common::catches(&gate.status_file(), 1)));
    gate.signal("TERM");
    assert!(gate.wait_ended(raw::LIMIT).is_some(), "a start that hangs can be ended");
}

#[test]
fn systemd_hears_of_start_reload_and_stop() {
    let upstream = Upstream::answering(OK);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(raw::LIMIT)).unwrap();
    let hear = || {
        let mut text = [0; 1000];
        let length = socket.recv(&mut text).expect("word from the gateway");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let environment = vec![("NOTIFY_SOCKET", path.display().to_string())];
    let mut gate = Config { environment, ..draining("7s") }.start(upstream.address);
    assert!(hear().starts_with("READY=1\n"));
    assert!(gate.cli(["reload"]).status.success());
    let reloading = hear();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(hear(), "READY=1\nSTATUS=serving\n");
    std::fs::write(gate.config(), "broken").unwrap();
    assert!(!gate.cli(["reload"]).status.success());
    assert!(hear().starts_with("RELOADING=1\n"));
    let mut heard = hear();
    // The watcher of files may have been quicker.
    while heard.starts_with("RELOADING=1\n") || heard == "READY=1\nSTATUS=serving\n" {
        heard = hear();
    }
    assert!(heard.starts_with("READY=1\nSTATUS=serving the old config"), "{heard}");
    gate.signal("TERM");
    while heard.starts_with("RELOADING=1\n") || heard.starts_with("READY=1\n") {
        heard = hear();
    }
    assert_eq!(heard, "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=17000000\n");
    assert_eq!(gate.wait_ended(raw::LIMIT), Some(0));
}
