//! The harness itself: an upstream that records, a parser that forgives nothing.

mod common;

use common::strict;
use common::upstream::{OK, Upstream};

#[tokio::test]
async fn the_recording_upstream_sees_every_byte_and_answers_each_request() {
    let upstream = Upstream::answering(OK);
    let mut stream = tokio::net::TcpStream::connect(upstream.address).await.unwrap();
    for _ in 0..2 {
        let sent = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let answer = common::raw::ask(&mut stream, sent).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[0].target.as_str(), requests[0].body.as_slice()), ("/x", b"abc".as_slice()));
    drop(stream);
    assert!(upstream.all_closed_within(common::raw::LIMIT));
}

#[test]
fn the_strict_parser_refuses_what_some_server_would_take_two_ways() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(strict::requests(good.as_bytes()).unwrap().len(), 1);
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\nrest",
    ] {
        assert!(strict::requests(bad.as_bytes()).is_err(), "{bad:?}");
    }
}
