//! Whatever a client sends: the upstream sees exactly the requests that are well-formed, or none, and the client gets
//! their answers in order, or a 4xx and a closed connection.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test may panic, and a table may be long"
)]

mod common;

use common::HOST;
use common::frames::{self, Frames, Outcome};
use common::gate::{Config, Gate};
use common::raw::{self, read_answer};
use common::strict::{self, Request};
use common::upstream::{OK, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// What must come of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    /// That many requests, each answered.
    Ok(usize),
    /// A 4xx, then the end; nothing whole reaches the upstream.
    Bad,
    /// That many requests, each answered; then a 4xx and the end.
    ThenBad(usize),
}

use Want::{Bad, Ok, ThenBad};

/// `{H}` stands for the Host line; characters up to U+00FF stand for their byte.
fn bytes(text: &str) -> Vec<u8> {
    let text = text.replace("{H}", &format!("Host: {HOST}\r\n"));
    text.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
}

/// All whole requests that the upstream has seen; a last one that is not whole is none.
fn seen(upstream: &Upstream) -> Vec<Request> {
    let mut all = Vec::new();
    for record in upstream.connections() {
        let bytes = record.bytes();
        let mut rest = &bytes[..];
        while let Some((request, length)) = strict::first(rest)
            .unwrap_or_else(|why| panic!("{why} upstream in {:?}", String::from_utf8_lossy(&bytes)))
        {
            all.push(request);
            rest = &rest[length..];
        }
    }
    all
}

async fn judge(gate: &Gate, upstream: &Upstream, sent: &[u8], want: Want) -> Result<(), String> {
    let before = seen(upstream).len();
    let mut stream = gate.connect().await;
    let (good, bad) = match want {
        Ok(good) => (good, false),
        Bad => (0, true),
        ThenBad(good) => (good, true),
    };
    let head = sent.starts_with(b"HEAD ");
    let talk = async {
        let _ = stream.write_all(sent).await;
        let _ = stream.flush().await;
        for number in 0..good {
            let answer = read_answer(&mut stream, head).await;
            if answer.status != 200 {
                return Err(format!("answer {number} is {}", answer.status));
            }
        }
        if bad {
            let answer = read_answer(&mut stream, false).await;
            if !(400..500).contains(&answer.status) {
                return Err(format!("refused with {}", answer.status));
            }
            let mut rest = Vec::new();
            // A reset is an end too.
            let _ = stream.read_to_end(&mut rest).await;
            if !rest.is_empty() {
                return Err(format!("behind the refusal: {:?}", String::from_utf8_lossy(&rest)));
            }
        }
        Result::Ok(())
    };
    timeout(raw::LIMIT, talk).await.map_err(|_| "no answer, or no end".to_owned())??;
    let after = seen(upstream).len();
    if after - before != good {
        return Err(format!("the upstream saw {} requests", after - before));
    }
    Result::Ok(())
}

/// Judges every row, each on a connection of its own, and tells all that fail.
async fn judge_all(table: &[(&str, Want)]) {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let mut wrong = Vec::new();
    for (text, want) in table {
        let sent = bytes(text);
        // A panic of one row's parser should not hide the others.
        if let Err(why) = judge(&gate, &upstream, &sent, *want).await {
            wrong.push(format!("{text:?} ({want:?}): {why}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_body_has_one_length_that_all_read_alike() {
    let post = "POST /api/a HTTP/1.1\r\n{H}";
    let lengths = [
        ("Content-Length: 2\r\n\r\nab", Ok(1)),
        ("content-length: 2\r\n\r\nab", Ok(1)),
        ("Content-Length:2\r\n\r\nab", Ok(1)),
        ("Content-Length: \t2 \t\r\n\r\nab", Ok(1)),
        ("Content-Length: 0\r\n\r\n", Ok(1)),
        ("\r\n", Ok(1)),
        ("Content-Length: 2\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", Bad),
        ("Content-Length: 0\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("Content-Length: 2, 2\r\n\r\nab", Bad),
        ("Content-Length: 2,\r\n\r\nab", Bad),
        ("Content-Length: +2\r\n\r\nab", Bad),
        ("Content-Length: -2\r\n\r\nab", Bad),
        ("Content-Length: 02\r\n\r\nab", Bad),
        ("Content-Length: 0x2\r\n\r\nab", Bad),
        ("Content-Length: 2.0\r\n\r\nab", Bad),
        ("Content-Length: 2e0\r\n\r\nab", Bad),
        ("Content-Length: 2;x\r\n\r\nab", Bad),
        ("Content-Length: \"2\"\r\n\r\nab", Bad),
        ("Content-Length: 2 2\r\n\r\nab", Bad),
        ("Content-Length: 2_0\r\n\r\nab", Bad),
        ("Content-Length: \u{b2}\r\n\r\nab", Bad),
        ("Content-Length:\r\n\r\n", Bad),
        ("Content-Length: \r\n\r\n", Bad),
        ("Content-Length: 18446744073709551618\r\n\r\nab", Bad),
        ("Content-Length: 99999999999999999999999\r\n\r\nab", Bad),
        ("Content-Length : 2\r\n\r\nab", Bad),
        ("Content-Length\t: 2\r\n\r\nab", Bad),
        (" Content-Length: 2\r\n\r\nab", Bad),
        ("Content-Length:\r\n 2\r\n\r\nab", Bad),
        ("X: y\r\n Content-Length: 2\r\n\r\nab", Bad),
        ("Content_Length: 2\r\n\r\nab", Bad),
        ("Content-Length: 2\nX: y\r\n\r\nab", Bad),
        ("Content-Length: 2\u{b}\r\n\r\nab", Bad),
        ("Content-Length: 2\u{0}\r\n\r\nab", Bad),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", Bad),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Bad),
        ("Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("X: \rTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nab", Bad),
    ];
    let rows: Vec<_> = lengths.iter().map(|(rest, want)| (format!("{post}{rest}"), *want)).collect();
    judge_all(&rows.iter().map(|(text, want)| (&**text, *want)).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn chunked_is_exactly_chunked_and_alone() {
    let codings = [
        ("Transfer-Encoding: chunked", Ok(1)),
        ("transfer-encoding: chunked", Ok(1)),
        ("Transfer-Encoding: Chunked", Ok(1)),
        ("Transfer-Encoding:chunked", Ok(1)),
        ("Transfer-Encoding: chunked \t", Ok(1)),
        ("Transfer-Encoding : chunked", Bad),
        ("Transfer-Encoding\t: chunked", Bad),
        ("Transfer-Encoding:\u{b}chunked", Bad),
        ("Transfer-Encoding:\u{a0}chunked", Bad),
        ("Transfer-Encoding: xchunked", Bad),
        ("Transfer-Encoding: chunkedx", Bad),
        ("Transfer-Encoding: chunked, chunked", Bad),
        ("Transfer-Encoding: gzip, chunked", Bad),
        ("Transfer-Encoding: chunked, identity", Bad),
        ("Transfer-Encoding: identity", Bad),
        ("Transfer-Encoding: identity, chunked", Bad),
        ("Transfer-Encoding: chunked,", Bad),
        ("Transfer-Encoding: ,chunked", Bad),
        ("Transfer-Encoding: \"chunked\"", Bad),
        ("Transfer-Encoding: 'chunked'", Bad),
        ("Transfer-Encoding: chunked;q=1", Bad),
        ("Transfer-Encoding: cow", Bad),
        ("Transfer-Encoding:", Bad),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Bad),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Bad),
        ("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", Bad),
        ("Transfer-Encoding:\r\n chunked", Bad),
        ("X: y\r\n\tTransfer-Encoding: chunked", Bad),
        ("Transfer_Encoding: chunked", Bad),
        ("Transfer-Encoding: chunked\u{0}", Bad),
        ("Transfer-Encoding: chun\u{7f}ked", Bad),
    ];
    let row = |line| format!("POST /api/a HTTP/1.1\r\n{{H}}{line}\r\n\r\n2\r\nab\r\n0\r\n\r\n");
    let mut rows: Vec<_> = codings.iter().map(|(line, want)| (row(line), *want)).collect();
    rows.push(("POST /a HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), Bad));
    judge_all(&rows.iter().map(|(text, want)| (&**text, *want)).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn chunks_are_as_long_as_they_say_and_end_where_they_end() {
    let long = format!("{}\r\nab\r\n0\r\n\r\n", "0".repeat(40) + "2");
    let extension = format!("2;{}\r\nab\r\n0\r\n\r\n", "x".repeat(20_000));
    let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(20_000));
    let bodies = [
        ("2\r\nab\r\n0\r\n\r\n", Ok(1)),
        ("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", Ok(1)),
        ("0\r\n\r\n", Ok(1)),
        ("A\r\n0123456789\r\n0\r\n\r\n", Ok(1)),
        ("a\r\n0123456789\r\n0\r\n\r\n", Ok(1)),
        ("2\r\nab\r\n0\r\nChecksum: 1\r\n\r\n", Ok(1)),
        ("2\r\nabc\r\n0\r\n\r\n", Bad),
        ("3\r\nab\r\n0\r\n\r\n", Bad),
        ("2\r\nab0\r\n\r\n", Bad),
        ("2\nab\r\n0\r\n\r\n", Bad),
        ("2\r\nab\n0\r\n\r\n", Bad),
        ("2\rab\r\n0\r\n\r\n", Bad),
        ("2 \r\nab\r\n0\r\n\r\n", Bad),
        (" 2\r\nab\r\n0\r\n\r\n", Bad),
        ("0x2\r\nab\r\n0\r\n\r\n", Bad),
        ("+2\r\nab\r\n0\r\n\r\n", Bad),
        ("-2\r\nab\r\n0\r\n\r\n", Bad),
        ("2_\r\nab\r\n0\r\n\r\n", Bad),
        ("\r\nab\r\n0\r\n\r\n", Bad),
        ("g\r\nab\r\n0\r\n\r\n", Bad),
        ("10000000000000002\r\nab\r\n0\r\n\r\n", Bad),
        ("fffffffffffffffff\r\nab\r\n0\r\n\r\n", Bad),
        ("2;x\ny\r\nab\r\n0\r\n\r\n", Bad),
        ("2;\u{0}\r\nab\r\n0\r\n\r\n", Bad),
        ("2;x\ry\r\nab\r\n0\r\n\r\n", Bad),
        ("0\r\nContent-Length: 5\r\n\r\n", Bad),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", Bad),
        ("0\r\nHost: evil.test\r\n\r\n", Bad),
        ("0\r\nAuthorization: Bearer x\r\n\r\n", Bad),
        ("0\r\nCookie: a=b\r\n\r\n", Bad),
        ("0\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n", Bad),
        ("0\r\nConnection: close\r\n\r\n", Bad),
        ("0\r\nX : y\r\n\r\n", Bad),
        ("0\r\n X: y\r\n\r\n", Bad),
        ("0\r\nX: y\n\r\n", Bad),
        ("0\r\nX\r\n\r\n", Bad),
        ("0\r\n: y\r\n\r\n", Bad),
        ("0\n\r\n", Bad),
        ("0\r\n\n", Bad),
        (extension.as_str(), Bad),
        (trailers.as_str(), Bad),
        (long.as_str(), Bad),
    ];
    let row = |body: &str| format!("POST /api/a HTTP/1.1\r\n{{H}}Transfer-Encoding: chunked\r\n\r\n{body}");
    let mut rows: Vec<_> = bodies.iter().map(|(body, want)| (row(body), *want)).collect();
    rows.push((row("5;a=b\r\nabcde\r\n0\r\n\r\n"), Ok(1)));
    judge_all(&rows.iter().map(|(text, want)| (&**text, *want)).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn request_lines_and_fields_are_plain_text_or_refused() {
    let many = format!("GET / HTTP/1.1\r\n{{H}}{}\r\n", "a: b\r\n".repeat(200));
    let huge = format!("GET / HTTP/1.1\r\n{{H}}A: {}\r\n\r\n", "x".repeat(40_000));
    let long = format!("GET /{} HTTP/1.1\r\n{{H}}\r\n", "x".repeat(70_000));
    judge_all(&[
        ("GET / HTTP/1.1\r\n{H}\r\n", Ok(1)),
        ("HEAD / HTTP/1.1\r\n{H}\r\n", Ok(1)),
        ("OPTIONS /a HTTP/1.1\r\n{H}\r\n", Ok(1)),
        ("PROPFIND /a HTTP/1.1\r\n{H}\r\n", Ok(1)),
        ("DELETE /api/a HTTP/1.1\r\n{H}\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\n{H}A: caf\u{c3}\u{a9}\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\n{H}A:\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\n{H}A: b\tc\r\n\r\n", Ok(1)),
        ("\r\nGET / HTTP/1.1\r\n{H}\r\n", Bad),
        ("\nGET / HTTP/1.1\r\n{H}\r\n", Bad),
        (" GET / HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET  / HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET /  HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET / HTTP/1.1 \r\n{H}\r\n", Bad),
        ("GET\t/ HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET /a b HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET /\tHTTP/1.1\r\n{H}\r\n", Bad),
        ("GET /\r\n{H}\r\n", Bad),
        ("GET\r\n{H}\r\n", Bad),
        ("GET / HTTP/1.1\n{H}\r\n", Bad),
        ("GET / HTTP/1.1\r{H}\r\n", Bad),
        ("GET / HTTP/2.0\r\n{H}\r\n", Bad),
        ("GET / HTTP/1.2\r\n{H}\r\n", Bad),
        ("GET / HTTP/0.9\r\n{H}\r\n", Bad),
        ("GET / HTTP/1.10\r\n{H}\r\n", Bad),
        ("GET / HTTP/1,1\r\n{H}\r\n", Bad),
        ("GET / http/1.1\r\n{H}\r\n", Bad),
        ("GET / HTTPS/1.1\r\n{H}\r\n", Bad),
        ("GET / FTP/1.1\r\n{H}\r\n", Bad),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Bad),
        ("CONNECT files.test:443 HTTP/1.1\r\n{H}\r\n", Bad),
        ("CONNECT / HTTP/1.1\r\n{H}\r\n", Bad),
        ("TRACE / HTTP/1.1\r\n{H}\r\n", Bad),
        ("trace / HTTP/1.1\r\n{H}\r\n", Bad),
        ("TRACK / HTTP/1.1\r\n{H}\r\n", Bad),
        ("G(T / HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET:/ HTTP/1.1\r\n{H}\r\n", Bad),
        ("G\u{0}T / HTTP/1.1\r\n{H}\r\n", Bad),
        ("G\u{e9}T / HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET /\u{0} HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET /\u{7f} HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET /caf\u{e9} HTTP/1.1\r\n{H}\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}: b\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A B: c\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A\u{0}: c\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A: b\u{0}\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A: b\rc: d\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A: b\nc: d\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A: b\r\n c\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n A: b\r\n{H}\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A: \u{1}\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}A\u{e9}: b\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}\n\r\n", Bad),
        ("GET / HTTP/1.1\n\n", Bad),
        ("\u{16}\u{3}\u{1}\u{0}\u{5}hello\r\n\r\n", Bad),
        ("{}\r\n\r\n", Bad),
        (&many, Bad),
        (&huge, Bad),
        (&long, Bad),
    ])
    .await;
}

#[tokio::test]
async fn there_is_one_host_and_the_target_says_the_same() {
    judge_all(&[
        ("GET / HTTP/1.1\r\nHost: files.test\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\nHost: FILES.test\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\nHost: files.test:443\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\nHost: files.test.\r\n\r\n", Ok(1)),
        ("GET https://files.test/a HTTP/1.1\r\nHost: files.test\r\n\r\n", Ok(1)),
        ("GET http://files.test/a HTTP/1.1\r\nHost: files.test\r\n\r\n", Ok(1)),
        ("GET HTTPS://Files.test/a?b HTTP/1.1\r\nHost: files.test\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\n\r\n", Bad),
        ("GET / HTTP/1.0\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test\r\nHost: files.test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test\r\nHost: evil.test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test\r\nhost: evil.test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost : files.test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test,evil.test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: evil.test@files.test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test@evil.test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test:0\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test:65536\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test:\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test:80x\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test:+80\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test:80:90\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test/evil\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test?x\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test#x\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test\\x\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files%2etest\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test evil\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files..test\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: 127.1\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\nHost: files.test\r\n evil.test\r\n\r\n", Bad),
        ("GET https://evil.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET https://files.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", Bad),
        ("GET https://files.test:1/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET https://u@files.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET https://u:p@files.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET https:///a HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET https:/files.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET https://files.test\\@evil.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET ftp://files.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET file:///etc/passwd HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET files.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET files.test:443 HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET a HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET @evil.test/ HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET ?a HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET * HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("OPTIONS * HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET /a#b HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET /#/metrics HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET /a?b#c HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET /a\\b HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET \\a HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
        ("GET /%zz HTTP/1.1\r\nHost: files.test\r\n\r\n", Bad),
    ])
    .await;
}

#[tokio::test]
async fn upgrades_and_expectations_are_whole_or_refused() {
    let ws =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let early = format!(
        "GET /api/ws HTTP/1.1\r\n{{H}}Connection: Upgrade\r\n{ws}\r\nGET /api/second HTTP/1.1\r\n{{H}}\r\n"
    );
    let frames =
        format!("GET /api/ws HTTP/1.1\r\n{{H}}Connection: Upgrade\r\n{ws}\r\n\u{81}\u{85}abcdefghi\r\n\r\n");
    let half = format!("GET /api/ws HTTP/1.1\r\n{{H}}{ws}\r\n");
    let posted = format!("POST /api/ws HTTP/1.1\r\n{{H}}Connection: Upgrade\r\n{ws}\r\n");
    let bodied =
        format!("GET /api/ws HTTP/1.1\r\n{{H}}Connection: Upgrade\r\n{ws}Content-Length: 2\r\n\r\nab");
    let old = format!("GET /api/ws HTTP/1.0\r\n{{H}}Connection: Upgrade\r\n{ws}\r\n");
    judge_all(&[
        // The upstream answers 200: no tunnel, what follows are requests again.
        (&early, Ok(2)),
        (&frames, ThenBad(1)),
        (&half, Bad),
        (&posted, Bad),
        (&bodied, Bad),
        (&old, Bad),
        ("GET / HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n\r\n", Bad),
        ("GET / HTTP/1.1\r\n{H}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: h2\r\n\r\n", Ok(1)),
        ("GET / HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n", Ok(1)),
        ("POST /api/a HTTP/1.1\r\n{H}Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("POST /api/a HTTP/1.1\r\n{H}Expect: 100-continues\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("POST /api/a HTTP/1.1\r\n{H}Expect: x\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("POST /api/a HTTP/1.1\r\n{H}Expect:\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("POST /api/a HTTP/1.1\r\n{H}Expect: 100-continue, x\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("POST /api/a HTTP/1.1\r\n{H}Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab", Bad),
        ("GET / HTTP/1.1\r\n{H}Expect: 100-continue\r\n\r\n", Ok(1)),
    ])
    .await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_up_to_the_first_bad_one() {
    judge_all(&[
        ("GET /1 HTTP/1.1\r\n{H}\r\nGET /2 HTTP/1.1\r\n{H}\r\nGET /3 HTTP/1.1\r\n{H}\r\n", Ok(3)),
        ("POST /api/1 HTTP/1.1\r\n{H}Content-Length: 2\r\n\r\nabGET /2 HTTP/1.1\r\n{H}\r\n", Ok(2)),
        ("POST /api/1 HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET /2 HTTP/1.1\r\n{H}\r\n", Ok(2)),
        ("GET /1 HTTP/1.1\r\n{H}\r\nGET /2 HTTP/1.1\r\n\r\n", ThenBad(1)),
        ("GET /1 HTTP/1.1\r\n{H}\r\nGET /2 HTTP/1.1\r\n{H}Content-Length: x\r\n\r\nGET /3 HTTP/1.1\r\n{H}\r\n", ThenBad(1)),
        ("POST /api/1 HTTP/1.1\r\n{H}Content-Length: 1\r\n\r\nabGET /2 HTTP/1.1\r\n{H}\r\n\r\n", Ok(2)),
        ("GET /1 HTTP/1.1\r\n{H}Content-Length: 5\r\n\r\nGET /2 HTTP/1.1\r\n{H}\r\n", ThenBad(1)),
        ("POST /api/1 HTTP/1.1\r\n{H}Content-Length: 2\r\n\r\nab\r\nGET /2 HTTP/1.1\r\n{H}\r\n", ThenBad(1)),
        ("GET /1 HTTP/1.1\r\n{H}\r\nPOST /2 HTTP/1.1\r\n{H}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ThenBad(1)),
        ("GET /1 HTTP/1.0\r\n{H}\r\nGET /2 HTTP/1.0\r\n{H}\r\n", Ok(1)),
        ("GET /1 HTTP/1.1\r\n{H}Connection: close\r\n\r\nGET /2 HTTP/1.1\r\n{H}\r\n", Ok(1)),
        ("POST /1 HTTP/1.0\r\n{H}Content-Length: 2\r\n\r\nab", Ok(1)),
    ])
    .await;
}

/// A connection names fields to drop; ours are set afterwards and stay.
#[tokio::test]
async fn connection_removes_what_it_names_but_nothing_of_ours() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let lines = "Connection: close, Host, Content-Length, X-Forwarded-For, X-Real-IP, X-Forwarded-Proto, X-Secret, Via\r\n\
                 X-Secret: 1\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nProxy: http://evil.test\r\n\
                 Proxy-Connection: keep-alive\r\nTrailer: X\r\n";
    assert_eq!(gate.ask("POST /api/a", lines, b"ab").await.status, 200);
    let request = upstream.requests().remove(0);
    assert_eq!(request.body, b"ab");
    assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(request.header("x-forwarded-proto"), Some("https"));
    assert!(request.header("host").is_some_and(|host| host.starts_with(HOST)));
    for gone in ["connection", "x-secret", "keep-alive", "te", "proxy", "proxy-connection", "trailer"] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
}

// --- HTTP/2 ---

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// An ordinary request with one pseudo-field replaced, or left out.
fn with<'a>(name: &'a [u8], value: Option<&'a [u8]>) -> Fields<'a> {
    let mut fields = frames::request(b"GET", b"/");
    fields.retain(|(known, _)| *known != name || value.is_some());
    for field in &mut fields {
        if field.0 == name {
            field.1 = value.unwrap();
        }
    }
    fields
}

fn plus<'a>(more: &[(&'a [u8], &'a [u8])]) -> Fields<'a> {
    [frames::request(b"GET", b"/"), more.to_vec()].concat()
}

#[tokio::test]
async fn http_2_fields_that_http_1_would_read_otherwise_are_refused() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let tiny = vec![(&b"a"[..], &b"b"[..]); 1000];
    let fewer = vec![(&b"a"[..], &b"b"[..]); 200];
    let crumbs = vec![(&b"cookie"[..], &b"a=b"[..]); 200];
    let bad: Vec<Fields<'_>> = vec![
        plus(&[(b"connection", b"close")]),
        plus(&[(b"connection", b"upgrade"), (b"upgrade", b"websocket")]),
        plus(&[(b"upgrade", b"h2c")]),
        plus(&[(b"keep-alive", b"timeout=5")]),
        plus(&[(b"proxy-connection", b"close")]),
        plus(&[(b"transfer-encoding", b"chunked")]),
        plus(&[(b"te", b"gzip")]),
        plus(&[(b"host", b"evil.test")]),
        plus(&[(b"host", b"files.test"), (b"host", b"files.test")]),
        plus(&[(b"X-Upper", b"1")]),
        plus(&[(b"a", b"b\r\nx: y")]),
        plus(&[(b"a", b"b\nx: y")]),
        plus(&[(b"a", b"b\rx: y")]),
        plus(&[(b"a", b"b\0")]),
        plus(&[(b"a\r\nx", b"b")]),
        plus(&[(b"a b", b"c")]),
        plus(&[(b"a:b", b"c")]),
        plus(&[(b"", b"c")]),
        plus(&[(b"content-length", b"1"), (b"content-length", b"2")]),
        plus(&[(b"content-length", b"5")]),
        plus(&[(b"content-length", b"x")]),
        plus(&[(b"content-length", b"+0")]),
        plus(&[(b"content-length", b"")]),
        plus(&[(b":path", b"/two")]),
        plus(&[(b":method", b"POST")]),
        plus(&[(b":authority", b"evil.test")]),
        plus(&[(b":status", b"200")]),
        plus(&[(b":unknown", b"x")]),
        plus(&[(b":protocol", b"websocket")]),
        plus(&tiny),
        plus(&fewer),
        plus(&crumbs),
        with(b":path", None),
        with(b":path", Some(b"")),
        with(b":path", Some(b"*")),
        with(b":path", Some(b"metrics")),
        with(b":path", Some(b"/a b")),
        with(b":path", Some(b"/ HTTP/1.1\r\nHost: evil.test\r\n\r\nGET /smuggled")),
        with(b":path", Some(b"/\0")),
        with(b":path", Some(b"/a\\b")),
        with(b":path", Some(b"/%00")),
        with(b":path", Some(b"/caf\xe9")),
        with(b":path", Some(b"https://evil.test/")),
        with(b":authority", Some(b"")),
        with(b":authority", Some(b"evil.test")),
        with(b":authority", Some(b"u@files.test")),
        with(b":authority", Some(b"files.test:99999")),
        with(b":authority", Some(b"files.test:0")),
        with(b":authority", Some(b"files.test/x")),
        with(b":authority", Some(b"files.test\r\nx: y")),
        with(b":authority", None),
        with(b":method", None),
        with(b":method", Some(b"")),
        with(b":method", Some(b"TRACE")),
        with(b":method", Some(b"G T")),
        with(b":method", Some(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\nGET")),
        with(b":scheme", None),
        vec![(b":method", b"CONNECT"), (b":authority", b"files.test:443")],
        vec![
            (b":method", b"CONNECT"),
            (b":scheme", b"https"),
            (b":authority", b"files.test"),
            (b":path", b"/"),
        ],
        vec![
            (b":method", b"CONNECT"),
            (b":protocol", b"connect-udp"),
            (b":scheme", b"https"),
            (b":authority", b"files.test"),
            (b":path", b"/api/ws"),
        ],
        // A WebSocket it may be (RFC 8441), but not by another method, and not nowhere.
        vec![
            (b":method", b"GET"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https"),
            (b":authority", b"files.test"),
            (b":path", b"/api/ws"),
        ],
        vec![(b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":authority", b"files.test:443")],
        vec![
            (b"a", b"b"),
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"files.test"),
            (b":path", b"/"),
        ],
    ];
    let mut wrong = Vec::new();
    for fields in &bad {
        let mut client = Frames::open(&gate, &[]).await;
        let outcome = client.ask(1, fields).await;
        let refused = match outcome {
            Outcome::Status(status) => (400..500).contains(&status),
            Outcome::Reset(_) | Outcome::Closed => true,
            Outcome::Nothing => false,
        };
        if !refused || !upstream.bytes().is_empty() {
            let told: Vec<_> = fields
                .iter()
                .skip(3)
                .take(3)
                .map(|(name, value)| (name.escape_ascii().to_string(), value.escape_ascii().to_string()))
                .collect();
            wrong.push(format!("{outcome:?}, upstream saw {} bytes: {told:?}", upstream.bytes().len()));
            if !upstream.bytes().is_empty() {
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn good_http_2_requests_become_one_good_http_1_request_each() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let mut client = Frames::open(&gate, &[]).await;
    let good: Vec<Fields<'_>> = vec![
        plus(&[(b"cookie", b"a=b"), (b"cookie", b"c=d"), (b"cookie", b"e=f")]),
        plus(&[(b"host", b"files.test")]),
        plus(&[(b"te", b"trailers"), (b"x_under", b"1"), (b"x-forwarded-for", b"1.2.3.4")]),
        with(b":scheme", Some(b"http")),
        with(b":authority", Some(b"FILES.test:443")),
        with(b":path", Some(b"/a?b=c")),
        vec![(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b"host", b"files.test")],
    ];
    for (fields, id) in good.iter().zip((1..).step_by(2)) {
        assert_eq!(client.ask(id, fields).await, Outcome::Status(200), "stream {id}");
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), good.len());
    assert_eq!(requests[0].header("cookie"), Some("a=b; c=d; e=f"));
    for request in &requests {
        assert_eq!(request.header("x-forwarded-proto"), Some("https"), "the scheme is the listener's");
        assert!(request.headers.iter().all(|(name, _)| !name.starts_with(':') && !name.contains('_')));
        assert_eq!(request.header("te"), None);
        assert!(request.target.starts_with('/'), "{}", request.target);
    }
    assert_eq!(
        requests[2].header("x-forwarded-for"),
        None,
        "from this machine, with a claim: nobody's address"
    );
}

#[tokio::test]
async fn a_fragment_in_an_http_2_path_hides_nothing() {
    let upstream = Upstream::answering(OK);
    let gate = Config { site: "[site.only_from]\nmetrics = [\"192.0.2.1\"]\n".into(), ..Config::default() }
        .start(upstream.address);
    for path in [&b"/metrics#x"[..], b"/metrics#", b"/x/../metrics#/y", b"/%6detrics#?"] {
        let mut client = Frames::open(&gate, &[]).await;
        let outcome = client.ask(1, &frames::request(b"GET", path)).await;
        assert_ne!(outcome, Outcome::Status(200), "{}", path.escape_ascii());
    }
    assert!(upstream.bytes().is_empty());
    let mut client = Frames::open(&gate, &[]).await;
    client.ask(1, &frames::request(b"GET", b"/#/metrics")).await;
    assert!(upstream.requests().iter().all(|request| request.target == "/"));
}

#[tokio::test]
async fn an_http_2_body_that_is_not_as_long_as_announced_never_arrives_whole() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    for (length, data) in [(&b"5"[..], &b"ab"[..]), (b"1", b"ab"), (b"0", b"ab")] {
        let mut client = Frames::open(&gate, &[]).await;
        let mut fields = frames::request(b"POST", b"/api/a");
        fields.push((b"content-length", length));
        client.send(&frames::headers(1, &fields, 0)).await;
        client.send(&frames::frame(frames::DATA, frames::END_STREAM, 1, data)).await;
        let outcome = client.outcome(1).await;
        let whole = seen(&upstream).len();
        if length != b"0" {
            assert!(!matches!(outcome, Outcome::Status(200) | Outcome::Nothing), "{length:?}: {outcome:?}");
            assert_eq!(whole, 0, "{}", length.escape_ascii());
        } else {
            // It is whole, and may be on its way, before its surplus comes; of that nothing goes on.
            assert!(whole <= 1);
            assert!(upstream.connections().iter().all(|record| !record.bytes().ends_with(b"\r\n\r\nab")
                || !String::from_utf8_lossy(&record.bytes()).contains("content-length: 0")));
        }
    }
}

#[tokio::test]
async fn http_2_trailers_carry_nothing_to_an_http_1_upstream() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    let trailers: [&[(&[u8], &[u8])]; 3] =
        [&[(b"x-trailer", b"1")], &[(b"authorization", b"Bearer x")], &[(b"x-forwarded-for", b"6.6.6.6")]];
    for trailer in trailers {
        let mut client = Frames::open(&gate, &[]).await;
        client.send(&frames::headers(1, &frames::request(b"POST", b"/api/a"), 0)).await;
        client.send(&frames::frame(frames::DATA, 0, 1, b"ab")).await;
        client.send(&frames::headers(1, trailer, frames::END_STREAM)).await;
        let outcome = client.outcome(1).await;
        assert!(matches!(outcome, Outcome::Status(200 | 400) | Outcome::Reset(_)), "{outcome:?}");
    }
    let text = String::from_utf8_lossy(&upstream.bytes()).to_lowercase();
    assert!(!text.contains("x-trailer") && !text.contains("authorization") && !text.contains("6.6.6.6"));
    for request in seen(&upstream) {
        assert_eq!(request.body, b"ab");
    }
}
