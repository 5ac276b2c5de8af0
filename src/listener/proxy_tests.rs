use proptest::prelude::*;
use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader, Tlv};

use super::*;

const FOUR: &str = "203.0.113.7:51000";
const SIX: &str = "[2001:db8::7]:51000";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap();
    [V2, &[command, family], &length.to_be_bytes(), rest].concat()
}

fn four() -> Vec<u8> {
    vec![203, 0, 113, 7, 192, 0, 2, 1, 0xc7, 0x38, 1, 0xbb]
}

fn with(extensions: &[&[u8]]) -> Vec<u8> {
    v2(0x21, 0x11, &[four(), extensions.concat()].concat())
}

fn client_at(text: &str) -> Named {
    Named::Client(text.parse().unwrap())
}

fn sound() -> Vec<(Vec<u8>, Named)> {
    let six = [[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]; 2].concat();
    let six = [six, vec![0xc7, 0x38, 1, 0xbb]].concat();
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.7 ::1 51000 443\r\n".to_vec();
    let longest = b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let nobody = [&b"PROXY UNKNOWN "[..], &[b'x'; 91], b"\r\n"].concat();
    assert_eq!(nobody.len(), LONGEST_V1);
    vec![
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\r\n".to_vec(), client_at(FOUR)),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n".to_vec(), client_at(SIX)),
        (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:7 ::1 51000 443\r\n".to_vec(), client_at(SIX)),
        (mapped, client_at(FOUR)),
        // Multicast: nobody comes from there.
        (longest.to_vec(), Named::Nobody),
        (b"PROXY UNKNOWN\r\n".to_vec(), Named::Nobody),
        (nobody, Named::Nobody),
        (b"PROXY TCP4 0.0.0.0 192.0.2.1 0 443\r\n".to_vec(), Named::Nobody),
        (with(&[]), client_at(FOUR)),
        (v2(0x21, 0x21, &six), client_at(SIX)),
        (v2(0x21, 0x00, &[]), Named::Nobody),
        (v2(0x21, 0x31, &[0; 216]), Named::Nobody),
        (v2(0x20, 0x00, &[]), Named::Own),
        (v2(0x20, 0x11, &four()), Named::Own),
        (v2(0x20, 0x77, &[1, 2, 3]), Named::Own),
        (with(&[&[4, 0, 2, 9, 9], &[2, 0, 1, b'a'], &[0xee, 0, 0]]), client_at(FOUR)),
        (with(&[&[4, 1, 0xf9], &[0; 505]]), client_at(FOUR)),
    ]
}

#[test]
fn whose_a_connection_is_does_not_depend_on_the_cuts() {
    for (header, named) in sound() {
        let shown = String::from_utf8_lossy(&header);
        for end in 0..header.len() {
            assert_eq!(decode(&header[..end]), Ok(None), "{end} bytes of {shown:?}");
        }
        assert_eq!(decode(&header), Ok(Some((named, header.len()))), "{shown:?}");
        let followed = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(decode(&followed), Ok(Some((named, header.len()))), "{shown:?}");
    }
}

#[test]
fn every_broken_header_is_refused() {
    let texts = [
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443\r \n",
        "PROXY  TCP4 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.7  192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443 \r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 443 9\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000\r\n",
        "PROXY TCP4 203.0.113.7\r\n",
        "PROXY TCP4 2001:db8::7 ::1 51000 443\r\n",
        "PROXY TCP6 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.07 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 +1 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 051000 443\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 51000 -1\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 51000 443\r\n",
        "PROXY tcp4 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY UDP4 203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4\t203.0.113.7 192.0.2.1 51000 443\r\n",
        "PROXY TCP4 203.0.113.7\0 192.0.2.1 51000 443\r\n",
        "PROXY UNKNOWN \u{e9}\r\n",
    ];
    let too_long = [&b"PROXY UNKNOWN "[..], &[b'x'; 92], b"\r\n"].concat();
    let mut broken: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    broken.extend([
        too_long,
        vec![b'P'; 0].into_iter().chain(*b"PROXY TCP4 ").chain([b'1'; 200]).collect(),
        v2(0x11, 0x11, &four()),
        v2(0x22, 0x11, &four()),
        v2(0x2f, 0x11, &four()),
        v2(0x21, 0x12, &four()),
        v2(0x21, 0x22, &[0; 36]),
        v2(0x21, 0x32, &[0; 216]),
        v2(0x21, 0x41, &four()),
        v2(0x21, 0x11, &four()[..11]),
        v2(0x21, 0x21, &[1; 35]),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x20, 0x11, &four()[..11]),
        with(&[&[4]]),
        with(&[&[4, 0]]),
        with(&[&[4, 0, 1]]),
        with(&[&[4, 0xff, 0xff, 1]]),
        with(&[&[3, 0, 4, 1, 2, 3, 4]]),
        with(&[&[3, 0, 3, 1, 2, 3]]),
        // One byte more than the longest.
        with(&[&[4, 1, 0xfa], &[0; 506]]),
        [V2, &[0x21, 0x11, 0xff, 0xff]].concat(),
    ]);
    for header in broken {
        let shown = String::from_utf8_lossy(&header);
        assert_eq!(decode(&header), Err(Broken::Malformed), "{shown:?}");
    }
}

#[test]
fn what_is_no_header_is_seen_by_its_first_bytes() {
    for bytes in [
        &b"\x16\x03\x01"[..],
        b"GET / HTTP/1.1\r\n",
        b"proxy",
        b"PROXY\tTCP4",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\0",
    ] {
        assert_eq!(decode(bytes), Err(Broken::Missing), "{bytes:?}");
    }
    assert_eq!(decode(b""), Ok(None));
}

#[test]
fn a_checksum_is_verified_and_any_changed_bit_is_seen() {
    assert_eq!(checksum(b"123456789", 100), 0xe306_9283);
    let mut header = with(&[&[4, 0, 1, 7], &[3, 0, 4, 0, 0, 0, 0]]);
    let at = header.len() - 4;
    let sum = checksum(&header, at).to_be_bytes();
    header[at..].copy_from_slice(&sum);
    assert_eq!(decode(&header), Ok(Some((client_at(FOUR), header.len()))));
    // All but the byte that says that there is a sum.
    for place in (V2_FIXED..header.len()).filter(|place| *place != at - 3) {
        let mut changed = header.clone();
        changed[place] ^= 1;
        assert_eq!(decode(&changed), Err(Broken::Malformed), "byte {place}");
    }
    let twice = with(&[&[3, 0, 4, 0, 0, 0, 0], &[3, 0, 4, 0, 0, 0, 0]]);
    assert_eq!(decode(&twice), Err(Broken::Malformed));
}

#[test]
fn another_library_reads_what_is_written_here_and_the_reverse() {
    let pairs = [(FOUR, "192.0.2.1:443"), (SIX, "[2001:db8::1]:443"), (FOUR, "[2001:db8::1]:443")];
    for (from, to) in pairs {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let ours = encode(from, to);
        let (read, length) = ProxyHeader::parse(&ours, ParseConfig::default()).unwrap();
        let address = read.proxied_address().unwrap();
        assert_eq!((address.source.ip().to_canonical(), address.source.port()), (from.ip(), from.port()));
        assert_eq!((address.destination.ip().to_canonical(), length), (to.ip(), ours.len()));
        assert_eq!(decode(&ours), Ok(Some((Named::Client(from), ours.len()))));
        if from.is_ipv4() == to.is_ipv4() {
            let mut theirs = ProxyHeader::with_address(ProxiedAddress::stream(from, to));
            let mut buffer = [0; 600];
            let length = theirs.encode_to_slice_v1(&mut buffer).unwrap();
            assert_eq!(decode(&buffer[..length]), Ok(Some((Named::Client(from), length))));
            theirs.append_tlv(Tlv::Authority("files.test".into()));
            let length = theirs.encode_to_slice_v2(&mut buffer).unwrap();
            assert_eq!(decode(&buffer[..length]), Ok(Some((Named::Client(from), length))));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..600), start in 0usize..3, length in any::<u16>()
    ) {
        let front = [&b""[..], V1, V2][start];
        bytes.splice(..0, front.iter().copied());
        if start == 2 && bytes.len() > V2_FIXED {
            bytes[12] = 0x20 | (bytes[12] & 1);
            bytes[14..16].copy_from_slice(&(length % 600).to_be_bytes());
        }
        // Once it is decided more bytes change nothing.
        let whole = decode(&bytes);
        let decided = (0..bytes.len()).map(|end| decode(&bytes[..end])).find(|one| *one != Ok(None));
        if let Some(decided) = decided {
            prop_assert_eq!(decided, whole);
        }
    }
}
