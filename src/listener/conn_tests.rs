use std::collections::VecDeque;
use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::listener::Kind;
use crate::request::facts::Malformed;

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, fields: 100 };

/// Gives its pieces one read at a time, then nothing, or the end.
struct Script {
    pieces: VecDeque<Vec<u8>>,
    ends: bool,
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.pieces.pop_front() else {
            return if self.ends { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        let later = piece.split_off(piece.len().min(buffer.remaining()));
        buffer.put_slice(&piece);
        if !later.is_empty() {
            self.pieces.push_front(later);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Bench {
    conn: Conn<Script>,
    connection: Rc<Connection>,
}

#[derive(Debug, PartialEq)]
enum Got {
    Bytes(Vec<u8>),
    Pending,
    End,
    Broken,
}

impl Bench {
    fn new(pieces: &[&[u8]], ends: bool) -> Self {
        let connection = Rc::new(Connection::new("192.0.2.1:1".parse().unwrap(), Kind::Plain, Rc::default()));
        let pieces = pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect();
        let conn = Conn::new(Script { pieces, ends }, &connection, LIMITS);
        Self { conn, connection }
    }

    fn read(&mut self, room: usize) -> Got {
        let mut bytes = vec![0; room];
        let mut buffer = hyper::rt::ReadBuf::new(&mut bytes);
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut self.conn).poll_read(&mut cx, buffer.unfilled()) {
            Poll::Pending => Got::Pending,
            Poll::Ready(Err(_)) => Got::Broken,
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Got::End,
            Poll::Ready(Ok(())) => Got::Bytes(buffer.filled().to_vec()),
        }
    }

    /// Everything that comes until nothing does.
    fn all(&mut self, room: usize) -> (Vec<u8>, Got) {
        let mut all = Vec::new();
        loop {
            match self.read(room) {
                Got::Bytes(bytes) => all.extend(bytes),
                last => return (all, last),
            }
        }
    }
}

fn bytes(text: &str) -> Got {
    Got::Bytes(text.as_bytes().to_vec())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn one_message_at_a_time_in_order() {
    let all = [POST, "hello", GET, CHUNKED, "2\r\nhi\r\n0\r\n\r\n", GET].concat();
    let mut bench = Bench::new(&[all.as_bytes()], false);
    assert_eq!(bench.read(8192), bytes(&[POST, "hello"].concat()));
    assert_eq!(bench.read(8192), bytes(GET));
    assert_eq!(bench.read(8192), bytes(&[CHUNKED, "2\r\nhi\r\n0\r\n\r\n"].concat()));
    assert_eq!(bench.read(8192), bytes(GET));
    assert_eq!(bench.read(8192), Got::Pending);
    assert!(bench.conn.rest.capacity() == 0 && !bench.connection.watch.mid_head.get());
    assert_eq!(bench.connection.received.get(), all.len() as u64);
}

#[test]
fn no_part_of_a_head_is_handed_over() {
    let (start, end) = GET.split_at(9);
    let mut bench = Bench::new(&[start.as_bytes()], false);
    assert_eq!(bench.read(8192), Got::Pending);
    assert!(bench.connection.watch.mid_head.get());
    bench.conn.io.inner_mut().io.pieces.push_back(end.into());
    assert_eq!(bench.read(8192), bytes(GET));
    assert!(!bench.connection.watch.mid_head.get());
}

#[test]
fn a_bad_head_becomes_a_harmless_last_one() {
    let smuggled = [GET, "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", GET].concat();
    let mut bench = Bench::new(&[smuggled.as_bytes()], true);
    assert_eq!(bench.read(8192), bytes(GET));
    assert_eq!(bench.connection.malformed.get(), None);
    assert_eq!(bench.read(10), Got::Bytes(SUBSTITUTE[..10].to_vec()));
    assert_eq!(bench.read(8192), Got::Bytes(SUBSTITUTE[10..].to_vec()));
    assert_eq!(bench.connection.malformed.get(), Some((2, Malformed::Host)));
    assert_eq!(bench.read(8192), Got::Pending);
}

#[test]
fn a_bad_chunk_ends_the_body_behind_the_good_ones() {
    let mut bench = Bench::new(&[[CHUNKED, "2\r\nhi\r\n5\nhello"].concat().as_bytes()], true);
    assert_eq!(bench.read(8192), bytes(&[CHUNKED, "2\r\nhi\r\n5"].concat()));
    assert_eq!(bench.read(8192), Got::Broken);
    assert_eq!(bench.connection.malformed_body.get(), Some(Malformed::Chunk));
    assert_eq!(bench.read(8192), Got::Broken);
}

#[test]
fn a_client_that_leaves_is_noticed_while_its_answer_is_made() {
    let mut bench = Bench::new(&[GET.as_bytes(), b"GET"], true);
    assert_eq!(bench.read(8192), bytes(GET));
    assert_eq!(bench.read(8192), Got::End);
}

#[test]
fn what_follows_an_upgrade_waits_for_its_answer() {
    let all = [UPGRADE, "\x01\x02frames"].concat();
    let mut bench = Bench::new(&[all.as_bytes()], false);
    assert_eq!(bench.read(8192), bytes(UPGRADE));
    assert_eq!(bench.read(8192), Got::Pending);
    bench.connection.tunnel.set(true);
    assert_eq!(bench.read(4), bytes("\x01\x02fr"));
    assert_eq!(bench.read(8192), bytes("ames"));
    bench.conn.io.inner_mut().io.pieces.push_back(b"\0\r\nraw".to_vec());
    assert_eq!(bench.read(8192), bytes("\0\r\nraw"));

    let mut bench = Bench::new(&[[UPGRADE, GET].concat().as_bytes()], false);
    assert_eq!(bench.read(8192), bytes(UPGRADE));
    assert_eq!(bench.read(8192), Got::Pending);
    bench.connection.watch.answer(1);
    assert_eq!(bench.read(8192), bytes(GET));
}

#[test]
fn what_waits_behind_an_upgrade_is_bounded() {
    let flood = vec![b'x'; 300_000];
    let mut bench = Bench::new(&[UPGRADE.as_bytes(), &flood], false);
    assert_eq!(bench.read(8192), bytes(UPGRADE));
    assert_eq!(bench.read(8192), Got::Pending);
    assert_eq!(bench.conn.rest.len(), SCRATCH);
}

#[test]
fn bytes_are_owed_only_while_a_body_is_waited_for() {
    let mut bench = Bench::new(&[POST.as_bytes(), b"he"], false);
    assert_eq!(bench.read(8192), bytes(POST));
    assert!(!bench.connection.watch.owing.get());
    assert_eq!(bench.read(8192), bytes("he"));
    assert_eq!(bench.read(8192), Got::Pending);
    assert!(bench.connection.watch.owing.get());
    bench.conn.io.inner_mut().io.pieces.push_back(b"llo".to_vec());
    assert_eq!(bench.read(8192), bytes("llo"));
    assert_eq!(bench.read(8192), Got::Pending);
    assert!(!bench.connection.watch.owing.get());
}

#[test]
fn a_long_body_goes_straight_through_and_ends_at_its_length() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n";
    let body = vec![b'b'; 200_000];
    let mut bench = Bench::new(&[head.as_bytes(), &body, GET.as_bytes()], false);
    assert_eq!(bench.read(8192), bytes(head));
    let mut seen = 0;
    while seen < body.len() {
        let Got::Bytes(piece) = bench.read(8192) else { panic!("the body stopped at {seen}") };
        seen += piece.len();
        assert!(piece.iter().all(|byte| *byte == b'b'));
    }
    assert_eq!(seen, body.len());
    assert_eq!(bench.read(8192), bytes(GET));
}

fn near_requests() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop::sample::select(vec![
            GET,
            GET,
            POST,
            "hello",
            CHUNKED,
            "5\r\nhello\r\n",
            "0\r\n",
            "\r\n",
            UPGRADE,
            "GET / HTTP/1.1\r\n",
            "Host: a\r\n",
            "Transfer-Encoding: chunked\r\n",
            "\n",
            "x",
        ]),
        0..10,
    )
    .prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn cuts_and_room_change_nothing(
        input in near_requests(),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
        room in prop::sample::select(vec![1usize, 7, 64, 8192]),
    ) {
        let mut whole = Bench::new(&[&input], true);
        let expected = whole.all(8192);

        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        ends.extend([0, input.len()]);
        ends.sort_unstable();
        let pieces: Vec<&[u8]> = ends.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect();
        let mut cut = Bench::new(&pieces, true);
        let got = cut.all(room);

        prop_assert_eq!(&got, &expected);
        prop_assert_eq!(cut.connection.malformed.get(), whole.connection.malformed.get());
        prop_assert_eq!(cut.connection.malformed_body.get(), whole.connection.malformed_body.get());
        // What hyper gets is what came, byte for byte, up to the first bad head.
        let handed = got.0.strip_suffix(SUBSTITUTE).unwrap_or(&got.0);
        prop_assert!(input.starts_with(handed));
    }
}
