use super::*;
use proptest::prelude::*;

fn judge(bytes: &[u8]) -> (usize, Option<Malformed>, bool) {
    let mut chunks = Chunks::default();
    let (used, wrong) = chunks.accept(bytes);
    (used, wrong, chunks.is_done())
}

fn judge_split(bytes: &[u8], cuts: &[usize]) -> (usize, Option<Malformed>, bool) {
    let mut chunks = Chunks::default();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.sort_unstable();
    ends.push(bytes.len());
    let mut at = 0;
    for end in ends {
        let (used, wrong) = chunks.accept(&bytes[at..end]);
        at += used;
        if wrong.is_some() {
            return (at, wrong, chunks.is_done());
        }
        if chunks.is_done() {
            break;
        }
    }
    (at, None, chunks.is_done())
}

#[test]
fn good_bodies_end_where_they_end() {
    for body in [
        "0\r\n\r\n",
        "000\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n",
        "A\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
        "5;name=value;q=\"a b\"\r\nhello\r\n0;last\r\n\r\n",
        "0000000000000005\r\nhello\r\n0\r\n\r\n",
        "1\r\nx\r\n0\r\nChecksum: abc\r\nSignature:\tz \r\n\r\n",
    ] {
        let longer = format!("{body}GET / HTTP/1.1\r\n");
        assert_eq!(judge(longer.as_bytes()), (body.len(), None, true), "{body:?}");
    }
}

#[test]
fn every_trick_is_refused_at_its_byte() {
    for (good, bad) in [
        ("", "\r\n"),
        ("", "g"),
        ("", " 5"),
        ("", "-1"),
        ("", "+1"),
        ("", "\n"),
        ("", ";a\r\n"),
        ("0", "x5"),
        ("5", " \r\n"),
        ("5", "\n"),
        ("5\r", "\r"),
        ("5\r", "h"),
        ("5\r\nhello", "x"),
        ("5\r\nhello", "\n"),
        ("5\r\nhello\r", "x"),
        ("5\r\nhello\r", "\r"),
        ("5\r\nhello\r\n", "\r\n"),
        ("5;a", "\n"),
        ("5;a", "\0"),
        ("5;a\r", "x"),
        ("5;a", "\x7f"),
        ("00000000000000000000"[..16].as_ref(), "0"),
        ("ffffffffffffffff", "f"),
        ("0\r\n", "\n"),
        ("0\r\n\r", "x"),
        ("0\r\nX: a\r", "b"),
        ("0\r\nX: a", "\n"),
        ("0\r\nno colon\r", "\n"),
        ("0\r\nX : a\r", "\n"),
        ("0\r\n X: a\r", "\n"),
        ("0\r\nX: a\0\r", "\n"),
        ("0\r\nHost: b\r", "\n"),
        ("0\r\nContent-Length: 5\r", "\n"),
        ("0\r\ntransfer-encoding: chunked\r", "\n"),
        ("0\r\nAuthorization: Bearer x\r", "\n"),
        ("0\r\nCookie: a=b\r", "\n"),
        ("0\r\nX-Forwarded-For: 10.0.0.1\r", "\n"),
        ("0\r\nForwarded: for=x\r", "\n"),
    ] {
        let text = format!("{good}{bad}0\r\n\r\n");
        assert_eq!(judge(text.as_bytes()), (good.len(), Some(Malformed::Chunk), false), "{text:?}");
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let wrong = |text: &str| judge(text.as_bytes()).1;
    assert_eq!(wrong(&format!("1;{}\r\nx\r\n", "e".repeat(255))), None);
    assert_eq!(wrong(&format!("1;{}\r\nx\r\n", "e".repeat(256))), Some(Malformed::Chunk));
    let line = format!("1;{}\r\nx\r\n", "e".repeat(255));
    assert_eq!(wrong(&line.repeat(64)), None);
    assert_eq!(wrong(&line.repeat(65)), Some(Malformed::Chunk));
    assert_eq!(wrong(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(8189))), None);
    assert_eq!(wrong(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(8190))), Some(Malformed::Chunk));
    assert_eq!(wrong(&format!("0\r\n{}\r\n", "A: b\r\n".repeat(101))), Some(Malformed::Chunk));
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_cuts(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "5\r\nhello\r\n", "0\r\n", "\r\n", "A: b\r\n", "1", ";x", "\n", "a\r\n0123456789\r\n", "ff\r\n",
        ]), 0..10),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let bytes = pieces.concat();
        prop_assert_eq!(judge(bytes.as_bytes()), judge_split(bytes.as_bytes(), &cuts));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = judge(&bytes);
    }
}
