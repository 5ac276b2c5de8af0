//! Ids of requests, the same in `X-Request-Id`, log and memory.

use std::rc::Rc;

/// Sixteen hexadecimal digits, more after four thousand million requests.
pub fn request_id(base: u32, count: u64) -> Rc<str> {
    let Ok(low) = u32::try_from(count) else { return format!("{base:08x}{count:08x}").into() };
    let word = (u64::from(base) << 32 | u64::from(low)).to_be_bytes();
    let digit = |half: u8| if half < 10 { b'0' + half } else { b'a' + half - 10 };
    let mut text = [0; 16];
    for (place, byte) in text.chunks_exact_mut(2).zip(word) {
        place.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    std::str::from_utf8(&text).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_the_base_and_the_count() {
        for (base, count) in [(0, 0), (0x1234_abcd, 0xf), (u32::MAX, u64::from(u32::MAX)), (7, 1 << 33)] {
            assert_eq!(&*request_id(base, count), format!("{base:08x}{count:08x}"));
        }
    }
}
