//! Blocks that answers have taught: which of them make room for others.

use super::*;
use crate::request::credential::Key;
use crate::stores::taught::{Outcome, Taught, Whose};

fn learned(what: What, lasting: u64) -> Block {
    Block {
        id: 0,
        site: Some("files.test".into()),
        what,
        reason: String::new(),
        by: String::new(),
        created: WALL,
        until: WALL + lasting,
        learned: true,
        spares: None,
        ended: None,
    }
}

/// A logout is learned, though the site has as many as may stand.
async fn learn_of_one_more(control: &mut Control) {
    let (done, heard) = oneshot::channel();
    let taught = Taught {
        site: "files.test".into(),
        what: What::Jti { jti: "new".into() },
        spares: None,
        whose: Whose::Person(Key([1; 16])),
        lasting: Some(60_000),
        reason: "logout",
        done,
    };
    control.learn(vec![taught]).await;
    assert_eq!(heard.await, Ok(Outcome::Learned));
}

#[tokio::test]
async fn logouts_make_room_before_blocks_of_persons_do() {
    let bench = Bench::new();
    let mut control = bench.control();
    let now = bench.clock.now();
    let subject = |name: &str| What::Subject {
        subject: name.into(),
        issuer: None,
        before: WALL / 1000,
        and_logins: false,
    };
    let thrown_out = control.hold(learned(subject("mallory"), 1000), now);
    for number in 1..taught::STANDING as u64 {
        control.hold(learned(What::Jti { jti: number.to_string() }, 10_000 + number), now);
    }
    control.rebuild();
    learn_of_one_more(&mut control).await;
    let standing = control.list(false).blocks;
    assert_eq!(standing.len(), taught::STANDING);
    assert!(standing.iter().any(|block| block.id == thrown_out), "the person is out still");
}

#[tokio::test]
async fn learned_blocks_make_room_among_themselves_and_operators_blocks_stay() {
    let bench = Bench::new();
    let mut control = bench.control();
    let now = bench.clock.now();
    let numbered = |number: u64| What::Jti { jti: number.to_string() };
    let ordered = control.hold(Block { learned: false, ..learned(numbered(0), 1000) }, now);
    for number in 0..taught::STANDING as u64 {
        control.hold(learned(numbered(number + 1), 10_000 + number), now);
    }
    control.rebuild();
    learn_of_one_more(&mut control).await;
    let standing = control.list(false).blocks;
    assert_eq!(standing.iter().filter(|block| block.learned).count(), taught::STANDING);
    assert!(standing.iter().any(|block| block.id == ordered));
    let has = |jti: &str| standing.iter().any(|block| block.what == What::Jti { jti: jti.into() });
    assert!(has("new") && has("2") && !has("1"), "the one that would end first has gone");
    let indexed: usize = bench.blocks.load().counts().map(|(_, count)| count).sum();
    assert_eq!(indexed, standing.len());
    // What nobody ordered is not kept for a month.
    bench.hand.advance(Duration::from_secs(7200));
    control.tend().await;
    assert_eq!(
        control.list(true).blocks.iter().filter(|block| block.learned).count(),
        1,
        "the last number stays"
    );
    assert!(control.list(true).blocks.iter().any(|block| block.id == ordered));
}
