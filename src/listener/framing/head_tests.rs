use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, fields: 100 };

fn judge(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    HeadParser::default().advance(bytes, LIMITS)
}

fn judge_split(bytes: &[u8], cuts: &[usize]) -> Result<Option<Head>, Malformed> {
    let mut parser = HeadParser::default();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    for end in ends {
        match parser.advance(&bytes[..end], LIMITS) {
            Ok(None) => {}
            verdict => return verdict,
        }
    }
    Ok(None)
}

/// A request with these lines; `Host` is there already.
fn with(lines: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")
}

#[test]
fn ordinary_requests_pass_whole() {
    let chrome = "GET /a/b?c=d&e=%20{}|`'[] HTTP/1.1\r\nHost: files.example.com:8443\r\nConnection: keep-alive\r\n\
        sec-ch-ua: \"Chromium\";v=\"130\"\r\nAccept: */*\r\nCookie: a=b; c=\"d\"\r\nX-Empty:\r\nX-Tab:\ta\tb \r\n\
        X-Latin: b\u{fc}cher\r\n\r\n";
    for (text, body) in [
        (chrome.to_owned(), Body::None),
        ("GET / HTTP/1.0\r\n\r\n".into(), Body::None),
        ("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n".into(), Body::None),
        ("PROPFIND /dav/ HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), Body::None),
        ("M-SEARCH / HTTP/1.1\r\nhost:a.test\r\n\r\n".into(), Body::None),
        ("OPTIONS / HTTP/1.1\r\nHOST: [::1]:80\r\n\r\n".into(), Body::None),
        ("GET http://a.test/x HTTP/1.1\r\nHost: A.Test\r\n\r\n".into(), Body::None),
        ("GET HTTPS://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), Body::None),
        ("GET //a//b/../c;d HTTP/1.1\r\nHost: a.test\r\n\r\n".into(), Body::None),
        (with("Content-Length: 5\r\n"), Body::Exact(5)),
        (with("content-length:0\r\n"), Body::None),
        (with("Content-Length: 9999999999999999999\r\n"), Body::Exact(9_999_999_999_999_999_999)),
        (with("Transfer-Encoding: chunked\r\n"), Body::Chunked),
        (with("transfer-encoding:\tChunked \r\n"), Body::Chunked),
        (with("Expect: 100-Continue\r\nContent-Length: 1\r\n"), Body::Exact(1)),
        (with("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"), Body::None),
    ] {
        let head = judge(text.as_bytes()).unwrap_or_else(|wrong| panic!("{wrong:?}: {text}")).expect(&text);
        assert_eq!((head.len, head.body, head.upgrade), (text.len(), body, false), "{text}");
        let mut longer = text.clone().into_bytes();
        longer.extend_from_slice(b"rest\0\n");
        assert_eq!(judge(&longer), Ok(Some(head)), "{text}");
    }
}

#[test]
fn a_websocket_request_in_good_form_is_an_upgrade() {
    let text =
        "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n";
    assert!(judge(text.as_bytes()).unwrap().unwrap().upgrade);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn every_trick_is_refused_by_its_name() {
    use Malformed as M;
    let host = "Host: a.test\r\n";
    let cases: Vec<(String, Malformed)> = [
        // Request line.
        ("\r\nGET / HTTP/1.1\r\n", M::RequestLine),
        ("GET /\r\n", M::RequestLine),
        ("GET  / HTTP/1.1\r\n", M::RequestLine),
        ("GET /  HTTP/1.1\r\n", M::RequestLine),
        ("GET / HTTP/1.1 \r\n", M::RequestLine),
        (" GET / HTTP/1.1\r\n", M::RequestLine),
        ("GET\t/\tHTTP/1.1\r\n", M::RequestLine),
        ("GET / x HTTP/1.1\r\n", M::RequestLine),
        ("GET / http/1.1\r\n", M::RequestLine),
        ("GET / HTP/1.1\r\n", M::RequestLine),
        ("GET / HTTP/1.2\r\n", M::Version),
        ("GET / HTTP/0.9\r\n", M::Version),
        ("GET / HTTP/2.0\r\n", M::Version),
        ("GET / HTTP/1.10\r\n", M::Version),
        ("GET / HTTP/01.1\r\n", M::Version),
        ("PRI * HTTP/2.0\r\n", M::Version),
        ("G@T / HTTP/1.1\r\n", M::Method),
        (" / HTTP/1.1\r\n", M::Method),
        ("CONNECT a.test:443 HTTP/1.1\r\n", M::Method),
        ("TRACE / HTTP/1.1\r\n", M::Method),
        ("trace / HTTP/1.1\r\n", M::Method),
        ("GET\u{e9} / HTTP/1.1\r\n", M::Method),
        // Target.
        ("GET * HTTP/1.1\r\n", M::Target),
        ("OPTIONS * HTTP/1.1\r\n", M::Target),
        ("GET a.test/ HTTP/1.1\r\n", M::Target),
        ("GET ?x HTTP/1.1\r\n", M::Target),
        ("GET /a#b HTTP/1.1\r\n", M::Target),
        ("GET /a\u{e9} HTTP/1.1\r\n", M::Target),
        ("GET /a\u{7f} HTTP/1.1\r\n", M::Target),
        ("GET /a\u{1} HTTP/1.1\r\n", M::Target),
        ("GET /a\tb HTTP/1.1\r\n", M::Target),
        ("GET /<x> HTTP/1.1\r\n", M::Target),
        ("GET ftp://a.test/ HTTP/1.1\r\n", M::Target),
        ("GET http:///x HTTP/1.1\r\n", M::Target),
        ("GET http://u@a.test/ HTTP/1.1\r\n", M::Target),
        ("GET http://a.test:0/ HTTP/1.1\r\n", M::Target),
        ("GET http://a.test:99999/ HTTP/1.1\r\n", M::Target),
        ("GET http://a.test?x HTTP/1.1\r\n", M::Target),
        ("GET http://a.test\\@b.test/ HTTP/1.1\r\n", M::Target),
        ("GET http://b.test/ HTTP/1.1\r\n", M::Host),
        ("GET http://a.test:80/ HTTP/1.1\r\n", M::Host),
    ]
    .into_iter()
    .map(|(line, wrong)| (format!("{line}{host}\r\n"), wrong))
    .chain(
        [
            // Line ends.
            ("X: a\nY: b\r\n", M::LineEnding),
            ("X: a\r\r\n", M::LineEnding),
            ("X: a\rb\r\n", M::LineEnding),
            ("X: a\0b\r\n", M::LineEnding),
            ("X\0: a\r\n", M::LineEnding),
            ("X\r: a\r\n", M::LineEnding),
            ("\r\r\n", M::LineEnding),
            ("Host: \rb\r\n", M::LineEnding),
            ("Content-Length: 1\r\r\n", M::LineEnding),
            ("Transfer-Encoding: chunked\0\r\n", M::LineEnding),
            ("X: a\r\n b\r\n", M::LineEnding),
            ("X: a\r\n\tb\r\n", M::LineEnding),
            (" X: a\r\n", M::LineEnding),
            ("\n", M::LineEnding),
            // Names and values.
            ("X : a\r\n", M::HeaderName),
            ("X\t: a\r\n", M::HeaderName),
            (": a\r\n", M::HeaderName),
            ("X\r\n", M::HeaderName),
            ("X(: a\r\n", M::HeaderName),
            ("X\u{e9}: a\r\n", M::HeaderName),
            ("X[]: a\r\n", M::HeaderName),
            ("X: a\u{1}\r\n", M::HeaderValue),
            ("X: a\u{7f}\r\n", M::HeaderValue),
            ("X: \u{b}a\r\n", M::HeaderValue),
            ("X: \u{1b}[31m\r\n", M::HeaderValue),
            // Host.
            ("Host: a.test\r\n", M::Host),
            ("host: b.test\r\n", M::Host),
            // Length and encoding.
            ("Content-Length: 1\r\nContent-Length: 1\r\n", M::ContentLength),
            ("Content-Length: 1\r\ncontent-length: 2\r\n", M::ContentLength),
            ("Content-Length: 1, 1\r\n", M::ContentLength),
            ("Content-Length: +1\r\n", M::ContentLength),
            ("Content-Length: -1\r\n", M::ContentLength),
            ("Content-Length: 0x1\r\n", M::ContentLength),
            ("Content-Length: 1 1\r\n", M::ContentLength),
            ("Content-Length: 010\r\n", M::ContentLength),
            ("Content-Length: 1e1\r\n", M::ContentLength),
            ("Content-Length: 1_0\r\n", M::ContentLength),
            ("Content-Length: \u{b9}\r\n", M::ContentLength),
            ("Content-Length:\r\n", M::ContentLength),
            ("Content-Length: 18446744073709551616\r\n", M::ContentLength),
            ("Content_Length: 1\r\n", M::ContentLength),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", M::ContentLength),
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", M::ContentLength),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", M::TransferEncoding),
            ("Transfer-Encoding: gzip, chunked\r\n", M::TransferEncoding),
            ("Transfer-Encoding: chunked, identity\r\n", M::TransferEncoding),
            ("Transfer-Encoding: identity\r\n", M::TransferEncoding),
            ("Transfer-Encoding: xchunked\r\n", M::TransferEncoding),
            ("Transfer-Encoding: \"chunked\"\r\n", M::TransferEncoding),
            ("Transfer-Encoding: chunked;q=1\r\n", M::TransferEncoding),
            ("Transfer-Encoding:\r\n", M::TransferEncoding),
            ("Transfer-Encoding: \u{b}chunked\r\n", M::HeaderValue),
            ("Transfer_Encoding: chunked\r\n", M::TransferEncoding),
            ("Transfer-Encoding : chunked\r\n", M::HeaderName),
            ("Transfer-Encoding: chun\r\n ked\r\n", M::TransferEncoding),
            // Expect and upgrades.
            ("Expect: 200-ok\r\n", M::Expect),
            ("Expect: 100-continue\r\nExpect: 100-continue\r\n", M::Expect),
            ("Upgrade: websocket\r\nConnection: upgrade\r\n", M::Upgrade),
            ("Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 3\r\n", M::Upgrade),
            ("Upgrade: h2c, websocket\r\n", M::Upgrade),
            ("Transfer-Encoding: chunked\r\nUpgrade: x\r\n", M::Upgrade),
        ]
        .into_iter()
        .map(|(lines, wrong)| (with(lines), wrong)),
    )
    .chain([
        ("GET / HTTP/1.1\n".into(), M::LineEnding),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".into(), M::LineEnding),
        ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n".into(), M::LineEnding),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".into(), M::LineEnding),
        ("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), M::LineEnding),
        ("GET / HTTP/1.1\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost: u@a.test\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n".into(), M::Host),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(), M::Host),
        ("GET http://a/ HTTP/1.0\r\n\r\n".into(), M::Host),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), M::TransferEncoding),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".into(), M::Upgrade),
        ("GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n".into(), M::Upgrade),
    ])
    .collect();
    for (text, wrong) in &cases {
        assert_eq!(judge(text.as_bytes()), Err(*wrong), "{text:?}");
    }
}

#[test]
fn the_bounds_are_exact() {
    let fields = |count: usize| with(&"X: y\r\n".repeat(count - 1));
    assert!(judge(fields(100).as_bytes()).is_ok_and(|head| head.is_some()));
    assert_eq!(judge(fields(101).as_bytes()), Err(Malformed::TooManyHeaders));

    let sized = |size: usize| {
        let empty = with("X: \r\n").len();
        with(&format!("X: {}\r\n", "y".repeat(size - empty)))
    };
    assert!(judge(sized(LIMITS.bytes).as_bytes()).is_ok_and(|head| head.is_some()));
    assert_eq!(judge(sized(LIMITS.bytes + 1).as_bytes()), Err(Malformed::HeadTooLarge));
    assert_eq!(judge(&vec![b'a'; LIMITS.bytes]), Err(Malformed::HeadTooLarge));
    assert_eq!(judge(&vec![b'a'; LIMITS.bytes - 1]), Ok(None));
}

/// Bytes that come near a head often enough to matter.
fn near_heads() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /x HTTP/1.0\r\n",
        "Host: a.test\r\n",
        "Host: b\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "X: y\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        ":",
        "\0",
        "GET http://a.test/ HTTP/1.1\r\n",
        "Expect: 100-continue\r\n",
        "é",
        "hello",
    ]);
    prop::collection::vec(
        prop_oneof![9 => pieces.prop_map(|piece| piece.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..9)],
        0..12,
    )
    .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_cuts(bytes in near_heads(), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
        prop_assert_eq!(judge(&bytes), judge_split(&bytes, &cuts));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = judge(&bytes);
    }

    /// Else hyper would answer in our place, or would see another request than we judged.
    #[test]
    fn what_passes_here_passes_hyper_too(target in "[ -~]{0,12}", value in "[\\x00-\\xff]{0,12}", bytes in near_heads()) {
        let made = format!("GET /{target} HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");
        let absolute = format!("GET http://a/{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        for bytes in [made.as_bytes(), absolute.as_bytes(), &bytes] {
            let Ok(Some(head)) = judge(bytes) else { continue };
            let mut fields = [httparse::EMPTY_HEADER; 100];
            let mut request = httparse::Request::new(&mut fields);
            prop_assert_eq!(request.parse(bytes), Ok(httparse::Status::Complete(head.len)));
            prop_assert!(request.path.unwrap().parse::<http::Uri>().is_ok(), "{:?}", request.path);
            for field in request.headers.iter() {
                prop_assert!(http::HeaderValue::from_bytes(field.value).is_ok());
            }
        }
    }
}
