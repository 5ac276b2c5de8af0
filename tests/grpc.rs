//! gRPC from a real client to a real server: every kind of call with its trailers, refusals and failures as gRPC statuses, and
//! a block that cuts a live stream on both sides.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "tests measure real time, and say it")]

mod common;
#[path = "common/peers.rs"]
mod peers;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::gate::{Config, Gate, place};
use common::http2;
use common::upstream::{OK, Upstream};
use common::{HOST, raw, tokens, wait_for};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use peers::{Ca, listen};
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// Debian's: python3-grpcio is for no other.
const PYTHON: &str = "/usr/bin/python3";
/// Real programs start slowly on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program in Python, spoken to by lines.
struct Program {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Program {
    fn start(script: &str, arguments: &[&str]) -> Self {
        let found = Command::new(PYTHON).args(["-c", "import grpc"]).output().unwrap();
        assert!(found.status.success(), "python3-grpcio is missing: `make test-deps` installs it");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/grpc").join(script);
        let mut child = Command::new(PYTHON)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let input = child.stdin.take().unwrap();
        Self { child, input, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line in time")
    }

    /// Skips lines until this one comes.
    fn until(&self, wanted: &str) {
        while self.line() != wanted {}
    }

    fn tell(&mut self, what: &str, arguments: &Value) {
        writeln!(self.input, "{}", json!([what, arguments])).unwrap();
    }

    fn ask(&mut self, what: &str, arguments: &Value) -> Value {
        self.tell(what, arguments);
        serde_json::from_str(&self.line()).unwrap()
    }

    /// A call with one message each way.
    fn unary(&mut self, path: &str, body: &str) -> Value {
        self.ask("unary", &json!({ "path": path, "body": body }))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server(arguments: &[&str]) -> (Program, u16) {
    let server = Program::start("server.py", arguments);
    let port = server.line().parse().unwrap();
    (server, port)
}

fn client(gate: &Gate) -> Program {
    let (port, ca) = (gate.https.port().to_string(), gate.ca().display().to_string());
    Program::start("client.py", &[&port, &ca, HOST])
}

fn route(name: &str, class: &str, upstream: &str) -> String {
    format!("[[site.route]]\nmatch = \"/{name}/*\"\nclass = \"{class}\"\nupstream = \"{upstream}\"\n")
}

fn gate(site: &str) -> Gate {
    Config { app: "generic".into(), site: site.into(), ..Config::default() }
        .start(Upstream::answering(OK).address)
}

fn log_says(gate: &Gate, path: &str, cause: &str) -> bool {
    let line = |line: &str| line.contains(path) && line.contains(cause);
    common::wait_until(raw::LIMIT, || gate.log().lines().any(line))
}

#[test]
fn every_kind_of_call_passes_with_its_metadata_messages_trailers_and_status() {
    let (_server, port) = server(&[]);
    let gate = gate(&route("test.Echo", "rpc", &format!("h2c://127.0.0.1:{port}")));
    let mut client = client(&gate);
    let ended = |answer: &Value| {
        assert_eq!(answer["end"]["x-end"], "of it", "{answer}");
        assert_eq!(answer["end"]["x-detail-bin"], "00ff2064657461696c", "{answer}");
    };
    let answer = client.unary("/test.Echo/Unary", "hello");
    assert_eq!((&answer["code"], &answer["body"]), (&json!("OK"), &json!("hello")), "{answer}");
    assert_eq!(answer["begin"]["x-begin"], "of it", "{answer}");
    ended(&answer);

    let answer =
        client.ask("server_stream", &json!({ "path": "/test.Echo/ServerStream", "body": "100 1000" }));
    assert_eq!(
        (&answer["code"], &answer["count"], &answer["size"]),
        (&json!("OK"), &json!(100), &json!(100_000))
    );
    ended(&answer);

    let answer = client
        .ask("client_stream", &json!({ "path": "/test.Echo/ClientStream", "count": 100, "size": 1000 }));
    assert_eq!((&answer["code"], &answer["body"]), (&json!("OK"), &json!("100 100000")), "{answer}");
    ended(&answer);

    // Each message is answered while the client still speaks.
    client.ask("open", &json!({ "name": "a", "path": "/test.Echo/Bidi" }));
    for word in ["one", "two", "three"] {
        let answer = client.ask("say", &json!({ "name": "a", "body": word }));
        assert_eq!(answer["body"], word, "{answer}");
    }
    let answer = client.ask("done", &json!({ "name": "a" }));
    assert_eq!(answer["code"], "OK", "{answer}");
    ended(&answer);

    for code in ["INVALID_ARGUMENT", "ABORTED", "DATA_LOSS", "UNAUTHENTICATED"] {
        let answer = client.unary("/test.Echo/Fail", &format!("{code} wörds of its own"));
        assert_eq!(
            (&answer["code"], &answer["details"]),
            (&json!(code), &json!("wörds of its own")),
            "{answer}"
        );
        ended(&answer);
    }
    let answer = client.unary("/test.Echo/NoSuch", "");
    assert_eq!(answer["code"], "UNIMPLEMENTED", "{answer}");

    let secret = json!([["agent-secret", "s"], ["x-user", "root"], ["remote-user", "root"]]);
    let answer = client.ask("unary", &json!({ "path": "/test.Echo/Metadata", "metadata": secret }));
    let keys = answer["body"].as_str().unwrap();
    assert!(keys.contains("\"agent-secret\"") && !keys.contains("\"x-user\""), "{keys}");
    assert_eq!(keys.matches("\"x-real-ip\"").count(), 1, "{keys}");
}

#[test]
fn over_tls_grpc_is_spoken_by_http2_with_a_client_certificate_where_one_is_asked_for() {
    let ca = Ca::new();
    let (own, shown) = (ca.issue("127.0.0.1"), ca.issue("gateway.test"));
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        place(&dir.path().join(name), text);
        dir.path().join(name).display().to_string()
    };
    let (cert, key, root) = (file("cert.pem", &own.cert), file("key.pem", &own.key), file("ca.pem", &ca.pem));
    let (_server, port) = server(&[&cert, &key, &root]);
    let site = route("test.Echo", "rpc", &format!("https://127.0.0.1:{port}"))
        + "upstream_tls = { ca_file = \"ca.pem\", cert = \"client.pem\", key = \"client-key.pem\" }\n"
        + &route("test.Bare", "rpc", &format!("https://127.0.0.1:{port}"))
        + "upstream_tls = { ca_file = \"ca.pem\" }\n";
    let files = vec![("ca.pem", ca.pem.clone()), ("client.pem", shown.cert), ("client-key.pem", shown.key)];
    let gate = Config { app: "generic".into(), site, files, ..Config::default() };
    let gate = gate.start(Upstream::answering(OK).address);
    let mut client = client(&gate);
    let answer = client.unary("/test.Echo/Unary", "hello");
    assert_eq!(
        (&answer["code"], &answer["body"]),
        (&json!("OK"), &json!("hello")),
        "{answer} {}",
        gate.log()
    );
    let answer = client.unary("/test.Bare/Unary", "hello");
    assert_eq!(answer["code"], "UNAVAILABLE", "{answer}");
    assert!(log_says(&gate, "/test.Bare/Unary", "upstream_tls.cert"), "{}", gate.log());
}

#[test]
fn streams_of_64_mib_pass_both_ways_in_bounded_memory() {
    let (_server, port) = server(&[]);
    let gate = gate(&route("test.Echo", "rpc", &format!("h2c://127.0.0.1:{port}")));
    let mut client = client(&gate);
    assert_eq!(client.unary("/test.Echo/Unary", "warm")["code"], "OK");
    let before = gate.resident();
    let answer =
        client.ask("server_stream", &json!({ "path": "/test.Echo/ServerStream", "body": "64 1048576" }));
    assert_eq!((&answer["code"], &answer["size"]), (&json!("OK"), &json!(64 << 20)), "{answer}");
    let answer = client
        .ask("client_stream", &json!({ "path": "/test.Echo/ClientStream", "count": 64, "size": 1 << 20 }));
    assert_eq!(
        (&answer["code"], &answer["body"]),
        (&json!("OK"), &json!(format!("64 {}", 64 << 20))),
        "{answer}"
    );
    let grown = gate.resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

#[test]
fn refusals_are_grpc_statuses_and_nothing_of_them_reaches_the_application() {
    let (_server, port) = server(&[]);
    let at = format!("h2c://127.0.0.1:{port}");
    let site = [
        "[site.only_from]\nmetrics = [\"192.0.2.0/24\"]\n[site.rate.share]\nrefill = \"1/day\"\nburst = 1\n",
        &route("test.Echo", "rpc", &at),
        &route("test.Closed", "metrics", &at),
        &route("test.Rate", "share", &at),
        &route("test.Size", "login", &at),
        &route("test.Nobody", "rpc", "h2c://127.0.0.1:1"),
        &route("test.Http", "rpc", "http://127.0.0.1:1"),
    ];
    let app = tokens::App::new("jwt", "[\"bearer\"]", "");
    let gate = Config { app: app.path(), site: site.concat(), ..Config::default() };
    let gate = gate.start(Upstream::answering(OK).address);
    let mut client = client(&gate);
    let token = tokens::login("alice", "one", tokens::now());
    let blocked = gate.cli_with(["block", "token", "-"], &token);
    assert!(blocked.status.success(), "{blocked:?}");
    let authorized =
        |path: &str| json!({ "path": path, "metadata": [["authorization", format!("Bearer {token}")]] });
    let answer = client.ask("unary", &authorized("/test.Echo/Unary"));
    assert_eq!(answer["code"], "UNAUTHENTICATED", "{answer}");
    assert_eq!(client.unary("/test.Closed/Unary", "")["code"], "UNIMPLEMENTED");
    client.unary("/test.Rate/Unary", "");
    assert_eq!(client.unary("/test.Rate/Unary", "")["code"], "RESOURCE_EXHAUSTED");
    let answer = client.ask("unary", &json!({ "path": "/test.Size/Unary", "size": 20_000 }));
    assert_eq!(answer["code"], "RESOURCE_EXHAUSTED", "{answer}");
    assert_eq!(client.unary("/test.Nobody/Unary", "")["code"], "UNAVAILABLE");
    assert!(log_says(&gate, "/test.Nobody/Unary", "no connection to the upstream"), "{}", gate.log());
    assert_eq!(client.unary("/test.Http/Unary", "")["code"], "UNAVAILABLE");
    assert!(
        log_says(&gate, "/test.Http/Unary", "name this upstream by h2c:// or https://"),
        "{}",
        gate.log()
    );
    // A stream whose client waits for the first answer before it says anything is refused at once, too.
    let began = Instant::now();
    client.ask("open", &json!({ "name": "a", "path": "/test.Closed/Bidi" }));
    assert_eq!(client.ask("wait", &json!({ "name": "a" }))["code"], "UNIMPLEMENTED");
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn a_block_cuts_a_live_stream_on_both_sides_within_half_a_second_and_no_other() {
    let (server, port) = server(&[]);
    let app = tokens::App::new("jwt", "[\"bearer\"]", "");
    let site = route("test.Echo", "rpc", &format!("h2c://127.0.0.1:{port}"));
    let gate = Config { app: app.path(), site, ..Config::default() }.start(Upstream::answering(OK).address);
    let mut client = client(&gate);
    let open = |client: &mut Program, name: &str, token: &str| {
        let metadata = json!([["authorization", format!("Bearer {token}")]]);
        client.ask("open", &json!({ "name": name, "path": "/test.Echo/Bidi", "metadata": metadata }));
        let answer = client.ask("say", &json!({ "name": name, "body": name }));
        assert_eq!(answer["body"], name, "{answer}");
        server.until(&format!("got {name}"));
    };
    let stolen = tokens::login("alice", "stolen", tokens::now());
    open(&mut client, "stolen", &stolen);
    open(&mut client, "good", &tokens::login("alice", "good", tokens::now()));
    client.tell("wait", &json!({ "name": "stolen" }));

    let began = Instant::now();
    let blocked = gate.cli_with(["block", "token", "-"], &stolen);
    assert!(blocked.status.success(), "{blocked:?}");
    server.until("over");
    let up = began.elapsed();
    let answer: Value = serde_json::from_str(&client.line()).unwrap();
    let down = began.elapsed();
    assert_eq!(answer["code"], "CANCELLED", "{answer}");
    println!("cut after {up:?} at the server, {down:?} at the client, the command included");
    assert!(up < Duration::from_millis(1500) && down < Duration::from_millis(1500), "{up:?} {down:?}");
    // On the same connections of both sides.
    let answer = client.ask("say", &json!({ "name": "good", "body": "still here" }));
    assert_eq!(answer["body"], "still here", "{answer}");
    assert_eq!(client.ask("done", &json!({ "name": "good" }))["code"], "OK");
}

/// What an application saw of a call.
type Seen = Arc<Mutex<Vec<(HeaderMap, Option<HeaderMap>)>>>;

/// An application that does with a call what its path says; on a thread of its own, since the tests wait for programs.
fn wrong(seen: Seen) -> SocketAddr {
    let (send, address) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let serve = move |stream| serve_wrong(stream, Arc::clone(&seen));
            send.send(listen(serve).await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    address.recv().unwrap()
}

async fn serve_wrong(stream: TcpStream, seen: Seen) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let (end, mut ended) = tokio::sync::mpsc::channel(1);
    loop {
        tokio::select! {
            call = connection.accept() => {
                let Some(Ok((request, respond))) = call else { return };
                tokio::spawn(call_wrong(request, respond, end.clone(), Arc::clone(&seen)));
            }
            goodbye = ended.recv() => match goodbye {
                // The rest goes out with it.
                Some(Some(reason)) => connection.abrupt_shutdown(reason),
                _ => return,
            },
        }
    }
}

async fn call_wrong(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    end: tokio::sync::mpsc::Sender<Option<Reason>>,
    seen: Seen,
) {
    let path = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let (asked, mut body) = request.into_parts();
    let head = |status: u16, kind: &str| {
        Response::builder().status(status).header("content-type", kind).body(()).unwrap()
    };
    let half = Bytes::from_static(b"\0\0\0\0\x05hel");
    let whole = Bytes::from_static(b"\0\0\0\0\x05hello");
    match &*path {
        "NoTrailers" => {
            let mut up = respond.send_response(head(200, "application/grpc"), false).unwrap();
            up.send_data(whole, true).unwrap();
        }
        "NoStatus" => {
            let mut up = respond.send_response(head(200, "application/grpc"), false).unwrap();
            up.send_data(whole, false).unwrap();
            up.send_trailers(HeaderMap::from_iter([("x-other".parse().unwrap(), "1".parse().unwrap())]))
                .unwrap();
        }
        "Nothing" => drop(respond.send_response(head(200, "application/grpc"), true)),
        "Html" => {
            let mut up = respond.send_response(head(200, "text/html"), false).unwrap();
            up.send_data(Bytes::from_static(b"<h1>POISON</h1>"), true).unwrap();
        }
        "NotFound" => drop(respond.send_response(head(404, "text/html"), true)),
        "Unauthorized" => drop(respond.send_response(head(401, "application/json"), true)),
        "Busy" => drop(respond.send_response(head(503, "text/html"), true)),
        "Reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "Refused" => respond.send_reset(Reason::REFUSED_STREAM),
        "ResetInMessage" | "QuietReset" | "CloseInMessage" | "GoAwayInMessage" => {
            let mut up = respond.send_response(head(200, "application/grpc"), false).unwrap();
            up.send_data(half, false).unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            match &*path {
                "ResetInMessage" => up.send_reset(Reason::CANCEL),
                "QuietReset" => up.send_reset(Reason::NO_ERROR),
                "CloseInMessage" => end.send(None).await.unwrap(),
                _ => end.send(Some(Reason::ENHANCE_YOUR_CALM)).await.unwrap(),
            }
            // Dropped it would be reset.
            std::future::pending::<()>().await;
        }
        "Never" => {
            let _held = respond;
            std::future::pending::<()>().await;
        }
        _ => {
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let late = body.trailers().await.unwrap();
            let fields = HeaderMap::from_iter([
                ("grpc-status".parse().unwrap(), "0".parse().unwrap()),
                ("x-own".parse().unwrap(), "1".parse().unwrap()),
                ("set-cookie".parse().unwrap(), "a=b".parse().unwrap()),
                ("x-forwarded-for".parse().unwrap(), "10.0.0.1".parse().unwrap()),
            ]);
            let mut up = respond.send_response(head(200, "application/grpc"), false).unwrap();
            up.send_trailers(fields).unwrap();
            seen.lock().unwrap().push((asked.headers, late));
        }
    }
}

#[tokio::test]
async fn a_peer_of_every_wrong_kind_is_a_clear_status_for_the_client_and_a_cause_in_the_log() {
    let at = wrong(Seen::default());
    let http1 = Upstream::answering(OK);
    let site = route("test.Wrong", "rpc", &format!("h2c://{at}"))
        + &route("test.Http1", "rpc", &format!("h2c://{}", http1.address));
    let gate = gate(&site);
    let mut client = client(&gate);
    for (path, code, cause) in [
        ("/test.Http1/Call", "UNAVAILABLE", "speaks no HTTP/2"),
        ("/test.Wrong/NoTrailers", "INTERNAL", "without grpc-status"),
        ("/test.Wrong/NoStatus", "INTERNAL", "without grpc-status"),
        ("/test.Wrong/Nothing", "INTERNAL", "without grpc-status"),
        ("/test.Wrong/Html", "UNKNOWN", "answered a gRPC call with 200 and no gRPC"),
        ("/test.Wrong/NotFound", "UNIMPLEMENTED", "answered a gRPC call with 404 and no gRPC"),
        ("/test.Wrong/Busy", "UNAVAILABLE", "answered a gRPC call with 503 and no gRPC"),
        ("/test.Wrong/Reset", "UNAVAILABLE", "INTERNAL_ERROR"),
        ("/test.Wrong/Refused", "UNAVAILABLE", "REFUSED_STREAM"),
        ("/test.Wrong/ResetInMessage", "UNAVAILABLE", "CANCEL"),
        ("/test.Wrong/QuietReset", "UNAVAILABLE", "NO_ERROR"),
        ("/test.Wrong/CloseInMessage", "UNAVAILABLE", "it closed the connection"),
        ("/test.Wrong/GoAwayInMessage", "UNAVAILABLE", "it closed the connection"),
    ] {
        let answer = client.unary(path, "hello");
        assert_eq!(answer["code"], code, "{path}: {answer}");
        assert!(log_says(&gate, path, cause), "{path}: {cause} is not in {}", gate.log());
    }
    // With what a client gives a call the wait ends, and the application hears of it.
    let plain = http2::Client::connect(&gate).await;
    let head = plain.head("POST", "/test.Wrong/Never").header("content-type", "application/grpc");
    let (answer, _up) = plain.open(head.header("te", "trailers").header("grpc-timeout", "300m"), false).await;
    let answer = http2::read(answer).await.unwrap();
    assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &"4".parse().unwrap()));
    assert!(log_says(&gate, "/test.Wrong/Never", "did not answer in time"), "{}", gate.log());
}

#[tokio::test]
async fn who_calls_his_request_grpc_hides_no_refusal_from_the_log() {
    let at = wrong(Seen::default());
    let site = "[site.rate.login]\nrefill = \"1/h\"\nburst = 1\n".to_owned()
        + &route("login", "login", &format!("h2c://{at}"))
        + &route("closed", "metrics", &format!("h2c://{at}"))
        + "[site.only_from]\nmetrics = [\"192.0.2.1\"]\n";
    let gate = gate(&site);
    let client = http2::Client::connect(&gate).await;
    // What readers of the log, and Fail2Ban, count is the status that it would have been.
    for (path, code, status) in [
        ("/login/Unauthorized", "16", 401),
        ("/login/Unauthorized?again", "8", 429),
        ("/closed/x", "12", 404),
        ("/test.Wrong/none", "14", 502),
    ] {
        let head = client.head("POST", path).header("content-type", "application/grpc");
        let (answer, mut up) = client.open(head, false).await;
        up.send_data(Bytes::from_static(b"guess"), true).unwrap();
        let answer = http2::read(answer).await.unwrap();
        assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &code.parse().unwrap()), "{path}");
        let said = format!("\"status\":{status},");
        assert!(log_says(&gate, &format!("\"path\":\"{path}\""), &said), "{path}: {}", gate.log());
    }
}

#[tokio::test]
async fn trailers_pass_both_ways_without_what_only_heads_may_say() {
    let seen = Seen::default();
    let at = wrong(Arc::clone(&seen));
    let gate = gate(&route("test.Wrong", "rpc", &format!("h2c://{at}")));
    let client = http2::Client::connect(&gate).await;
    let head = client.head("POST", "/test.Wrong/Late").header("content-type", "application/grpc");
    let (answer, mut up) = client.open(head, false).await;
    up.send_data(Bytes::from_static(b"\0\0\0\0\0"), false).unwrap();
    let late: HeaderMap = [
        ("x-late", "1"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x_real_ip", "10.0.0.1"),
        ("host", "evil.test"),
        ("content-length", "5"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
    .collect();
    up.send_trailers(late).unwrap();
    let (head, mut body) = answer.await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    while body.data().await.is_some() {}
    let trailers = body.trailers().await.unwrap().unwrap();
    let names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["grpc-status", "x-own"]);
    assert!(wait_for(raw::LIMIT, || !seen.lock().unwrap().is_empty()).await);
    let (asked, late) = seen.lock().unwrap()[0].clone();
    assert_eq!(asked["te"], "trailers");
    assert!(!asked.contains_key("host"), "{asked:?}");
    assert_eq!(late.unwrap().keys().map(http::HeaderName::as_str).collect::<Vec<_>>(), ["x-late"]);
}
