//! Upstreams of every scheme: each is reached by what it speaks, believed only when it proves itself, and a lie or a break is
//! a 502 with its cause in the log, never half an answer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::too_many_lines, reason = "tests and their tables")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::frames::{DATA, Frames, RST_STREAM, frame, headers, request};
use common::gate::{Config, Gate, place};
use common::http2::Client;
use common::upstream::{OK, Upstream};
use common::{HOST, raw, wait_for};
use futures_util::{SinkExt, StreamExt};
use http::{Response, Version};
use peers::{App, Ca, Made, listen, listen_unix, tls};
use portcullis::config;
use rcgen::{DnType, date_time_ymd};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

fn route(name: &str, upstream: &str, more: &str) -> String {
    format!("[[site.route]]\nmatch = \"/{name}/*\"\nclass = \"upload\"\nupstream = \"{upstream}\"\n{more}\n")
}

fn generic(site: String) -> Config {
    Config { app: "generic".into(), site, ..Config::default() }
}

/// The application's own HTTP/1.1, and a gate with these routes before it.
fn gate(routes: &[String], files: Vec<(&'static str, String)>) -> (Gate, Upstream) {
    let upstream = Upstream::answering(OK);
    let gate = Config { files, ..generic(routes.concat()) }.start(upstream.address);
    (gate, upstream)
}

async fn log_says(gate: &Gate, path: &str, cause: &str) -> bool {
    let line = |line: &str| line.contains(path) && line.contains(cause);
    wait_for(Duration::from_secs(5), || gate.log().lines().any(line)).await
}

#[tokio::test]
async fn each_scheme_is_reached_by_what_it_speaks_and_the_request_is_the_same() {
    let ca = Ca::new();
    let made = ca.issue("127.0.0.1");
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("app.sock");
    let (https, h2c, unix) = (App::default(), App::default(), App::default());
    let acceptor = tls(&made, &["h2", "http/1.1"], None);
    let app = https.clone();
    let tls_at = listen(move |stream| app.clone().tls(acceptor.clone(), stream)).await;
    let app = h2c.clone();
    let h2c_at = listen(move |stream| app.clone().http2(stream)).await;
    let app = unix.clone();
    let _unix = listen_unix(&socket, move |stream| app.clone().http1(stream));
    let routes = [
        route("https", &format!("https://{tls_at}"), "upstream_tls = { ca_file = \"ca.pem\" }"),
        route("h2c", &format!("h2c://{h2c_at}"), ""),
        route("unix", &format!("unix:{}", socket.display()), ""),
    ];
    let (gate, _own) = gate(&routes, vec![("ca.pem", ca.pem.clone())]);
    let host = format!("{HOST}:{}", gate.https.port());
    let body: &'static [u8] = vec![b'x'; 1 << 20].leak();
    for (name, app, version) in [
        ("https", &https, Version::HTTP_11),
        ("h2c", &h2c, Version::HTTP_2),
        ("unix", &unix, Version::HTTP_11),
    ] {
        let answer = gate.ask(&format!("GET /{name}/a?b=c"), "Cookie: a=b\r\nX-Own: 1\r\n", b"").await;
        assert_eq!(answer.status, 200, "{name}: {}", gate.log());
        assert!(answer.text().starts_with(&format!("{version:?} GET ")), "{}", answer.text());
        let echo = gate.ask(&format!("POST /{name}/echo"), "", body).await;
        assert!(echo.body == body, "{name}");
        let by_h2 = Client::connect(&gate).await.ask("POST", &format!("/{name}/echo"), body).await.unwrap();
        assert!(by_h2.whole && by_h2.body == body, "{name}");
        let seen = app.seen();
        assert_eq!(seen.len(), 3);
        let first = &seen[0];
        assert_eq!(first.uri.path_and_query().unwrap(), &format!("/{name}/a?b=c"));
        let authority = first.uri.authority().map(ToString::to_string);
        let named = authority.or_else(|| Some(first.headers["host"].to_str().unwrap().to_owned()));
        assert_eq!(named.as_deref(), Some(&*host));
        for (field, value) in
            [("cookie", "a=b"), ("x-own", "1"), ("x-real-ip", "127.0.0.1"), ("x-forwarded-proto", "https")]
        {
            assert_eq!(first.headers[field], value, "{name}");
        }
        let up = format!("portcullis_upstream_up{{site=\"{HOST}\",upstream=\"{name}:");
        assert!(gate.admin("/metrics").unwrap().contains(&up), "{}", gate.admin("/metrics").unwrap());
    }
    // One connection of each worker carries all of them.
    assert!(h2c.connections() <= 3, "{}", h2c.connections());
}

#[tokio::test]
async fn many_requests_at_once_share_few_connections_of_http2_and_their_answers_do_not_mix() {
    let app = App::default();
    let own = app.clone();
    let at = listen(move |stream| own.clone().http2(stream)).await;
    let (gate, _own) = gate(&[route("h2c", &format!("h2c://{at}"), "")], Vec::new());
    let client = Client::connect(&gate).await;
    let asked = (0..90).map(|number: u32| {
        let client = client.clone();
        async move {
            let body: &'static [u8] = format!("{number}").repeat(10_000).into_bytes().leak();
            let answer = client.ask("POST", "/h2c/echo", body).await.unwrap();
            assert!(answer.status == 200 && answer.whole && answer.body == body, "{number}");
        }
    });
    futures_util::future::join_all(asked).await;
    assert_eq!(app.seen().len(), 90);
    assert_eq!(app.connections(), 1, "one connection of a client is on one worker");
}

#[tokio::test]
async fn an_upstream_that_does_not_prove_itself_gets_no_request_and_the_log_says_why() {
    let (ca, other) = (Ca::new(), Ca::new());
    let expired = ca.issue_as("127.0.0.1", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let app = App::default();
    let serve = async |made: &Made, alpn: &[&str], clients: Option<&Ca>| {
        let (app, acceptor) = (app.clone(), tls(made, alpn, clients));
        listen(move |stream| app.clone().tls(acceptor.clone(), stream)).await
    };
    let good = ca.issue("127.0.0.1");
    let before = Upstream::scripted(|mut session| {
        session.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON");
        session.until_closed();
    });
    let cases: [(&str, SocketAddr, &str); 7] = [
        ("issuer", serve(&other.issue("127.0.0.1"), &[], None).await, "UnknownIssuer"),
        ("name", serve(&ca.issue("elsewhere.test"), &[], None).await, "upstream_tls.server_name"),
        ("expired", serve(&expired, &[], None).await, "renew it"),
        ("clients", serve(&good, &[], Some(&ca)).await, "upstream_tls.cert"),
        ("protocol", serve(&good, &["h2"], None).await, "offers no HTTP/1.1"),
        ("clear", listen(|stream| App::default().http1(stream)).await, "does this port speak TLS?"),
        ("before", before.address, "does this port speak TLS?"),
    ];
    let trust = "upstream_tls = { ca_file = \"ca.pem\" }";
    let routes: Vec<String> =
        cases.iter().map(|(name, at, _)| route(name, &format!("https://{at}"), trust)).collect();
    let (gate, _own) = gate(&routes, vec![("ca.pem", ca.pem.clone())]);
    for (name, _, cause) in cases {
        let answer = gate.ask(&format!("GET /{name}/x"), "", b"").await;
        assert_eq!(answer.status, 502, "{name}");
        assert!(!answer.text().contains("POISON"));
        assert!(log_says(&gate, &format!("/{name}/x"), cause).await, "{cause} is not in {}", gate.log());
    }
    assert!(app.seen().is_empty(), "{:?}", app.seen());
}

#[tokio::test]
async fn a_client_certificate_and_a_name_of_its_own_are_shown_and_new_files_are_taken_over() {
    let ca = Ca::new();
    let named = |word: &'static str| {
        ca.issue_as("gateway.test", |params| params.distinguished_name.push(DnType::OrganizationName, word))
    };
    let (first, second) = (named("first"), named("second"));
    let app = App::default();
    let (own, acceptor) = (app.clone(), tls(&ca.issue("app.internal"), &["http/1.1"], Some(&ca)));
    let at = listen(move |stream| own.clone().tls(acceptor.clone(), stream)).await;
    let site = format!(
        "[site.upstream_tls]\nca_file = \"ca.pem\"\nserver_name = \"app.internal\"\ncert = \"client.pem\"\nkey = \"client-key.pem\"\n{}",
        route("https", &format!("https://{at}"), "")
    );
    let files = vec![("ca.pem", ca.pem.clone()), ("client.pem", first.cert), ("client-key.pem", first.key)];
    let gate = Config { files, ..generic(site) }.start(Upstream::answering(OK).address);
    let shown = async || {
        assert_eq!(gate.ask("GET /https/x", "", b"").await.status, 200, "{}", gate.log());
        let last = app.seen().pop().unwrap();
        assert_eq!(last.sni.as_deref(), Some("app.internal"));
        last.client.unwrap()
    };
    let contains = |der: &[u8], word: &str| der.windows(word.len()).any(|window| window == word.as_bytes());
    assert!(contains(&shown().await, "first"));

    let dir = gate.config().parent().unwrap().to_owned();
    // One file without the other is no pair: the old one is shown on.
    place(&dir.join("client.pem"), &second.cert);
    assert_eq!(gate.cli(["reload"]).status.code(), Some(3));
    assert!(contains(&shown().await, "first"));
    place(&dir.join("client-key.pem"), &second.key);
    let renewed = common::wait_until_async(raw::LIMIT, async || contains(&shown().await, "second")).await;
    assert!(renewed, "{}", gate.errors());
}

#[test]
fn files_that_are_missing_broken_mismatched_or_readable_are_refused_with_place_and_help() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    let (made, other) = (ca.issue("a.test"), ca.issue("b.test"));
    let expired = ca.issue_as("a.test", |params| params.not_after = date_time_ymd(2021, 1, 1));
    for (name, text) in [
        ("ca.pem", &*ca.pem),
        ("half.pem", &ca.pem[..ca.pem.len() / 2]),
        ("empty.pem", ""),
        ("cert.pem", &made.cert),
        ("key.pem", &made.key),
        ("other-key.pem", &other.key),
        ("expired.pem", &expired.cert),
        ("expired-key.pem", &expired.key),
        ("open-key.pem", &made.key),
    ] {
        place(&dir.path().join(name), text);
    }
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(dir.path().join("open-key.pem"), open).unwrap();
    let check = |upstream: &str, table: &str| {
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"{upstream}\"\n[site.upstream_tls]\n{table}\n"
        );
        let path = dir.path().join("portcullis.toml");
        std::fs::write(&path, text).unwrap();
        config::load(&path)
    };
    let sound =
        check("https://app:8443", "ca_file = \"ca.pem\"\ncert = \"cert.pem\"\nkey = \"key.pem\"").unwrap();
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        assert!(sound.settings.files.contains(&dir.path().join(file)), "{file} is not watched");
    }
    for (upstream, table, part, line) in [
        ("https://app", "ca_file = \"none.pem\"", "cannot be read", 7),
        ("https://app", "ca_file = \"half.pem\"", "damaged or cut short", 7),
        ("https://app", "ca_file = \"empty.pem\"", "holds no certificate", 7),
        ("https://app", "ca_file = \"key.pem\"", "holds no certificate", 7),
        ("https://app", "cert = \"cert.pem\"", "belong together", 7),
        (
            "https://app",
            "cert = \"cert.pem\"\nkey = \"other-key.pem\"",
            "does not belong to the certificate",
            8,
        ),
        ("https://app", "cert = \"cert.pem\"\nkey = \"cert.pem\"", "holds no private key", 8),
        ("https://app", "cert = \"cert.pem\"\nkey = \"open-key.pem\"", "can be read by others", 8),
        ("https://app", "cert = \"expired.pem\"\nkey = \"expired-key.pem\"", "has expired", 7),
        ("https://app", "server_name = \"no name\"", "no name that a certificate could have", 7),
        ("https://app", "cafile = \"ca.pem\"", "did you mean `ca_file`", 7),
        ("http://app", "ca_file = \"ca.pem\"", "is for an `https://` upstream", 6),
        ("h2c://app", "", "is for an `https://` upstream", 6),
    ] {
        let problems = check(upstream, table).unwrap_err();
        let found = problems.0.iter().find(|one| format!("{} {}", one.message, one.help).contains(part));
        let found = found.unwrap_or_else(|| panic!("{part:?} is not in\n{problems}"));
        assert_eq!(found.position().unwrap().0, line, "{problems}");
        assert!(!found.help.is_empty());
    }
}

#[tokio::test]
async fn a_unix_socket_may_come_late_go_and_be_replaced_and_what_is_in_the_way_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("file.sock"), "no socket").unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("dead.sock")).unwrap());
    let routes: Vec<String> = ["app", "file", "dead"]
        .iter()
        .map(|name| route(name, &format!("unix:{}", at(&format!("{name}.sock")).display()), ""))
        .collect();
    let (gate, _own) = gate(&routes, Vec::new());
    let ask = async |path: &str| gate.ask(&format!("GET {path}"), "", b"").await.status;
    for (path, cause) in [
        ("/app/missing", "does the application run?"),
        ("/file/x", "nobody listens there any more, or it is no socket"),
        ("/dead/x", "nobody listens there any more"),
    ] {
        assert_eq!(ask(path).await, 502);
        assert!(log_says(&gate, path, cause).await, "{cause} is not in {}", gate.log());
    }
    let (old, new) = (App::default(), App::default());
    let app = old.clone();
    let serving = listen_unix(&at("app.sock"), move |stream| app.clone().http1(stream));
    assert_eq!(ask("/app/old").await, 200);
    // A new process takes the name over; connections to the old one may live on.
    std::fs::remove_file(at("app.sock")).unwrap();
    let app = new.clone();
    let _new = listen_unix(&at("app.sock"), move |stream| app.clone().http1(stream));
    serving.abort();
    let _ = serving.await;
    assert_eq!(ask("/app/new").await, 200);
    assert_eq!((old.seen().len(), new.seen().len()), (1, 1));
    let warned = gate.cli(["check"]);
    assert!(String::from_utf8_lossy(&warned.stdout).contains("is no socket"), "{warned:?}");
}

#[tokio::test]
async fn a_unix_socket_that_the_gateway_may_not_write_to_is_said_to_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("app.sock");
    let _serving = listen_unix(&socket, |stream| App::default().http1(stream));
    let mut config = generic(route("app", &format!("unix:{}", socket.display()), ""));
    // Root may write to every socket, unless it goes without that power; then to its own.
    if rustix::process::geteuid().is_root() {
        config.under = vec!["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"];
        std::os::unix::fs::chown(&socket, Some(65534), Some(65534)).unwrap();
    }
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o400)).unwrap();
    let gate = config.start(Upstream::answering(OK).address);
    assert_eq!(gate.ask("GET /app/x", "", b"").await.status, 502);
    assert!(log_says(&gate, "/app/x", "this user may not write to it").await, "{}", gate.log());
}

async fn websocket_echo(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_websocket_passes_to_an_upstream_of_every_scheme() {
    let ca = Ca::new();
    let acceptor = tls(&ca.issue("127.0.0.1"), &["h2", "http/1.1"], None);
    let https = listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            websocket_echo(stream).await;
        }
    })
    .await;
    let clear = listen(|stream: TcpStream| websocket_echo(stream)).await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("app.sock");
    let _unix = listen_unix(&socket, websocket_echo);
    let live = |name: &str, upstream: &str, more: &str| route(name, upstream, more).replace("upload", "live");
    let routes = [
        live("http", &format!("http://{clear}"), ""),
        live("https", &format!("https://{https}"), "upstream_tls = { ca_file = \"ca.pem\" }"),
        live("h2c", &format!("h2c://{clear}"), ""),
        live("unix", &format!("unix:{}", socket.display()), ""),
    ];
    let (gate, own) = gate(&routes, vec![("ca.pem", ca.pem.clone())]);
    for name in ["http", "https", "h2c", "unix"] {
        let url = format!("wss://{HOST}:{}/{name}/ws", gate.https.port());
        let request = url.into_client_request().unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(request, gate.connect().await)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        socket.send(Message::text(name)).await.unwrap();
        let echoed = tokio::time::timeout(raw::LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(echoed, Message::text(name));
    }
    assert!(own.connections().is_empty(), "the site's own upstream is not the route's");
}

/// What an application that speaks HTTP/2 does with the first request of each connection.
#[derive(Clone, Copy)]
enum Fault {
    ResetAtOnce,
    RefuseStream,
    GoAwayAtOnce,
    CloseAtOnce,
    ResetInBody,
    /// `RST_STREAM(NO_ERROR)` in the middle of the body: no end either.
    ResetInBodyWithoutError,
    GoAwayInBody,
    CloseInBody,
    LongerThanItsLength,
    ShorterThanItsLength,
}

const SERVER_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn faulty(fault: Fault) -> Upstream {
    Upstream::scripted(move |mut session| {
        session.send(SERVER_SETTINGS);
        let mut bytes = Vec::new();
        // The preface first, then frames.
        let mut taken = 24;
        loop {
            while let Some((kind, flags, id, length)) = next_frame(&bytes, taken) {
                let payload = bytes[taken + 9..taken + 9 + length].to_vec();
                taken += 9 + length;
                match kind {
                    4 if flags & 1 == 0 => drop(session.send(&frame(4, 1, 0, &[]))),
                    6 if flags & 1 == 0 => drop(session.send(&frame(6, 1, 0, &payload))),
                    1 if !fail(fault, id, &mut |bytes| session.send(bytes)) => return,
                    _ => {}
                }
            }
            if session.more().is_none() {
                return;
            }
            bytes.extend(session.take());
        }
    })
}

fn next_frame(bytes: &[u8], at: usize) -> Option<(u8, u8, u32, usize)> {
    let head = bytes.get(at..at + 9)?;
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    bytes.get(at + 9..at + 9 + length)?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), length))
}

/// Does it; `false`: the connection is to be closed.
fn fail(fault: Fault, id: u32, send: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let reset = |code: u8| frame(RST_STREAM, 0, id, &[0, 0, 0, code]);
    let begun = [headers(id, &[(b":status", b"200")], 0), frame(DATA, 0, id, b"short")].concat();
    let with_length =
        |length: &'static [u8]| headers(id, &[(b":status", b"200"), (b"content-length", length)], 0);
    let go_away = |last: u32, code: u8| frame(7, 0, 0, &[last.to_be_bytes(), [0, 0, 0, code]].concat());
    let bytes = match fault {
        Fault::ResetAtOnce => reset(2),
        Fault::RefuseStream => reset(7),
        Fault::GoAwayAtOnce => go_away(0, 0),
        Fault::CloseAtOnce => Vec::new(),
        Fault::ResetInBody => [begun, reset(2)].concat(),
        Fault::ResetInBodyWithoutError => [begun, reset(0)].concat(),
        Fault::GoAwayInBody => [begun, go_away(id, 2)].concat(),
        Fault::CloseInBody => begun,
        Fault::LongerThanItsLength => [with_length(b"2"), frame(DATA, 1, id, b"okPOISON")].concat(),
        Fault::ShorterThanItsLength => [with_length(b"100"), frame(DATA, 1, id, b"short")].concat(),
    };
    send(&bytes);
    !matches!(fault, Fault::CloseAtOnce | Fault::CloseInBody | Fault::GoAwayInBody)
}

#[tokio::test]
async fn whatever_an_http2_upstream_does_the_client_gets_502_or_a_cut_body_and_the_log_a_cause() {
    use Fault::{
        CloseAtOnce, CloseInBody, GoAwayAtOnce, GoAwayInBody, LongerThanItsLength, RefuseStream, ResetAtOnce,
        ResetInBody, ResetInBodyWithoutError, ShorterThanItsLength,
    };
    let cases = [
        ("reset", ResetAtOnce, Some(502), "INTERNAL_ERROR"),
        ("refused", RefuseStream, Some(502), "REFUSED_STREAM"),
        ("goaway", GoAwayAtOnce, Some(502), "GOAWAY"),
        ("closed", CloseAtOnce, Some(502), "closed the connection"),
        ("resetinbody", ResetInBody, None, "INTERNAL_ERROR"),
        ("noerror", ResetInBodyWithoutError, None, "NO_ERROR"),
        ("goawayinbody", GoAwayInBody, None, "broke"),
        ("closedinbody", CloseInBody, None, "broke its answer off"),
        ("longer", LongerThanItsLength, None, "broke"),
        ("shorter", ShorterThanItsLength, None, "broke"),
    ];
    let speaks_http1 = Upstream::answering(OK);
    let silent = Upstream::scripted(|mut session| session.until_closed());
    let peers: Vec<Upstream> = cases.iter().map(|(_, fault, ..)| faulty(*fault)).collect();
    let mut routes: Vec<String> = cases
        .iter()
        .zip(&peers)
        .map(|((name, ..), peer)| route(name, &format!("h2c://{}", peer.address), ""))
        .collect();
    routes.push(route("http1", &format!("h2c://{}", speaks_http1.address), ""));
    routes.push(route("silent", &format!("h2c://{}", silent.address), ""));
    let (gate, _own) = gate(&routes, Vec::new());
    for (name, _, status, cause) in cases {
        let path = format!("/{name}/x");
        for _ in 0..2 {
            let answer = Client::connect(&gate).await.ask("GET", &path, b"").await;
            match (status, answer) {
                (Some(status), Ok(answer)) => assert_eq!(answer.status, status, "{name}"),
                (None, Ok(answer)) => {
                    // A length that is broken at once may be found before the head has gone out.
                    assert!(!answer.whole || answer.status == 502, "{name}: {answer:?}");
                    assert!(!answer.body.ends_with(b"POISON"), "{name}");
                }
                (_, Err(error)) => assert!(status.is_none() && error.is_reset(), "{name}: {error}"),
            }
        }
        assert!(log_says(&gate, &path, cause).await, "{name}: {cause} is not in {}", gate.log());
    }
    for (name, status, cause) in [("http1", 502, "speaks no HTTP/2"), ("silent", 504, "no connection")] {
        let path = format!("/{name}/x");
        assert_eq!(gate.ask(&format!("GET {path}"), "", b"").await.status, status);
        assert!(log_says(&gate, &path, cause).await, "{name}: {cause} is not in {}", gate.log());
    }
    // Whoever speaks something else has seen no byte of a request.
    let seen = [speaks_http1.bytes(), silent.bytes()].concat();
    assert!(!seen.windows(2).any(|two| two == b"/x"), "{}", String::from_utf8_lossy(&seen));
    let requests = |peer: &Upstream| peer.connections().len();
    assert!(peers.iter().all(|peer| requests(peer) <= 2), "nothing was sent twice");
}

#[tokio::test]
async fn an_upload_that_its_client_resets_without_an_error_does_not_look_whole_to_the_application() {
    let (h1, h2) = (App::default(), App::default());
    let app = h1.clone();
    let h1_at = listen(move |stream| app.clone().http1(stream)).await;
    let app = h2.clone();
    let h2_at = listen(move |stream| app.clone().http2(stream)).await;
    let routes = [route("h1", &format!("http://{h1_at}"), ""), route("h2", &format!("h2c://{h2_at}"), "")];
    let (gate, _own) = gate(&routes, Vec::new());
    for (path, app) in [(&b"/h1/echo"[..], &h1), (b"/h2/echo", &h2)] {
        for code in [0, 8] {
            let mut client = Frames::open(&gate, &[]).await;
            client.send(&headers(1, &request(b"POST", path), 0)).await;
            client.send(&frame(DATA, 0, 1, b"only half")).await;
            // It has arrived before the rest breaks off.
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.send(&frame(RST_STREAM, 0, 1, &[0, 0, 0, code])).await;
        }
        let heard = wait_for(raw::LIMIT, || app.seen().len() == 2).await;
        assert!(heard || app.seen().iter().all(|seen| !seen.whole));
        assert!(app.seen().iter().all(|seen| !seen.whole), "{:?}", app.seen());
    }
}

#[tokio::test]
async fn a_stalled_reader_makes_the_gateway_take_at_most_a_mib_from_an_http2_upstream_and_holds_nobody_up() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let at = listen(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let mut up = respond.send_response(Response::new(()), false).unwrap();
                    let pieces = if request.uri().path() == "/h2c/endless" { usize::MAX } else { 1 };
                    for _ in 0..pieces {
                        up.reserve_capacity(16 * 1024);
                        let Some(Ok(room)) = std::future::poll_fn(|cx| up.poll_capacity(cx)).await else {
                            return;
                        };
                        count.fetch_add(room, Ordering::SeqCst);
                        if up.send_data(Bytes::from(vec![b'x'; room]), false).is_err() {
                            return;
                        }
                    }
                    let _ = up.send_data(Bytes::new(), true);
                });
            }
        }
    })
    .await;
    let (gate, _own) = gate(&[route("h2c", &format!("h2c://{at}"), "")], Vec::new());
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = gate.connect().await;
        let head = format!("GET /h2c/endless HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n", gate.https.port());
        stream.write_all(head.as_bytes()).await.unwrap();
        stalled.push(stream);
    }
    // Until nothing moves any more.
    let mut last = usize::MAX;
    let rests = common::wait_until_async(raw::LIMIT, async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now && now > 0
    })
    .await;
    assert!(rests, "the gateway takes without end");
    let each = sent.load(Ordering::SeqCst) / stalled.len();
    // The client's own buffers of the kernel hold the rest: TLS sockets on loopback take some MiB.
    assert!(each <= 8 << 20, "{each} bytes of each answer were taken");
    for _ in 0..5 {
        assert_eq!(
            gate.ask("GET /h2c/other", "", b"").await.status,
            200,
            "twenty stalled readers hold it up"
        );
    }
}

#[tokio::test]
async fn an_http2_upstream_that_is_gone_for_a_while_is_found_again_at_once() {
    let [address] = common::gate::free_addresses();
    let (gate, _own) = gate(&[route("h2c", &format!("h2c://{address}"), "")], Vec::new());
    assert_eq!(gate.ask("GET /h2c/x", "", b"").await.status, 502);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let app = App::default();
    let own = app.clone();
    let serving = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            tasks.spawn(own.clone().http2(stream));
        }
    });
    for _ in 0..3 {
        assert_eq!(gate.ask("GET /h2c/x", "", b"").await.status, 200, "{}", gate.log());
    }
    serving.abort();
    let _ = serving.await;
    assert_eq!(gate.ask("GET /h2c/x", "", b"").await.status, 502);
    assert_eq!(
        gate.metric(&format!("portcullis_upstream_up{{site=\"{HOST}\",upstream=\"h2c://{address}\"}}")),
        Some(0.0)
    );
}

/// Refuses so many streams, and answers those behind; how many have come.
async fn refusing(times: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let came = Arc::<AtomicUsize>::default();
    let counts = Arc::clone(&came);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counts = Arc::clone(&counts);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if counts.fetch_add(1, Ordering::SeqCst) < times {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        let answer = http::Response::builder().status(200).body(()).unwrap();
                        respond.send_response(answer, true).unwrap();
                    }
                }
            });
        }
    });
    (address, came)
}

#[tokio::test]
async fn a_stream_that_an_upstream_refuses_unread_is_tried_once_more_if_nothing_of_it_is_gone() {
    for (times, method, body, status, expected) in
        [(1, "GET", &b""[..], 200, 2), (2, "GET", b"", 502, 2), (1, "POST", b"once", 502, 1)]
    {
        let (address, came) = refusing(times).await;
        let (gate, _own) = gate(&[route("refused", &format!("h2c://{address}"), "")], Vec::new());
        let answer = Client::connect(&gate).await.ask(method, "/refused/x", body).await.unwrap();
        assert_eq!((answer.status, came.load(Ordering::SeqCst)), (status, expected), "{method} {times}");
    }
}
