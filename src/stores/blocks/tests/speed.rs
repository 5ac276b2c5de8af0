//! How long a look-up takes.

use super::*;

#[test]
#[expect(clippy::print_stdout, reason = "the figures are the point")]
fn a_hundred_thousand_blocks_are_searched_in_two_microseconds() {
    let many: Vec<Held> = (0..100_000u64)
        .map(|id| {
            let name = id.to_string();
            held(block(
                id,
                match id % 4 {
                    0 => What::Fingerprint { fingerprint: Fingerprint::of(name.as_bytes()) },
                    1 => What::Jti { jti: name },
                    2 => subject(&name, NOW - 1),
                    _ => address(&format!("10.{}.{}.{}/32", id >> 16 & 255, id >> 8 & 255, id & 255)),
                },
            ))
        })
        .collect();
    let clock = Clock::system();
    let start = clock.now().mono;
    let (base, delta) = many.split_at(99_000);
    let index = Index::new(base);
    let built = clock.now().mono;
    let index = index.with(delta);
    let extended = clock.now().mono;
    let three = (0..3)
        .map(|n| {
            let mut credential = session(&format!("nobody{n}"), Some(NOW));
            credential.claims.as_mut().unwrap().jti = Some(jti_key(&format!("none{n}")));
            credential
        })
        .collect();
    let request = facts(three);
    let rounds = 100_000;
    let mut fastest = u64::MAX;
    for _ in 0..5 {
        let begin = clock.now().mono;
        for _ in 0..rounds {
            assert_eq!(std::hint::black_box(&index).matching(std::hint::black_box(&request)), None);
        }
        fastest = fastest.min((clock.now().mono - begin) / rounds);
    }
    println!(
        "build {} ms, +1000: {} us, matching {fastest} ns",
        (built - start) / 1_000_000,
        (extended - built) / 1000
    );
    assert!(fastest < 2000, "{fastest} ns");
}
