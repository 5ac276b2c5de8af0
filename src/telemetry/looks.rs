//! What looks like a secret, wherever it stands.

/// A JSON token, or what is long and random.
pub(super) fn looks_secret(text: &str) -> bool {
    looks_like_token(text) || looks_random(text)
}

/// The secrets of JSON-based tokens begin with `{"` in base64; nothing else that is worth reading in a log does.
pub(super) fn looks_like_token(text: &str) -> bool {
    text.len() >= 16 && text.contains("eyJ")
}

/// The same, anywhere in a text.
pub(super) fn holds_token(text: &[u8]) -> bool {
    text.windows(3).any(|three| three == b"eyJ")
}

/// Long enough for 128 bits, of letters and digits that change all the time. Words between dashes, UUIDs and file names do not
/// look so; a hash that stands for a file does, and is masked for the sake of all that are none.
pub(super) fn looks_random(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let kind = |byte: u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase());
    let bytes = text.as_bytes();
    if bytes.len() < RANDOM || !bytes.iter().all(|byte| plain(*byte)) || is_uuid(bytes) {
        return false;
    }
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let words = bytes.split(|byte| matches!(byte, b'-' | b'_'));
    let changes =
        words.map(|word| word.windows(2).filter(|two| matches!(two, [a, b] if kind(*a) != kind(*b))).count());
    digits >= 2 && changes.sum::<usize>() >= CHANGES
}

/// Hexadecimal digits of 128 bits.
const RANDOM: usize = 32;
/// Of 32 hexadecimal digits twelve follow one of another kind, as a rule.
const CHANGES: usize = 6;

fn is_uuid(text: &[u8]) -> bool {
    let dash = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text.iter().enumerate().all(dash)
}
