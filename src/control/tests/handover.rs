//! The hand-over from both sides, each against one that is played here.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::*;
use crate::control::wire::{self, Fed, Said};

/// The other process.
struct Other(BufReader<UnixStream>);

impl Other {
    fn pair() -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Self(BufReader::new(ours)), theirs)
    }

    async fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    async fn say(&mut self, value: &impl serde::Serialize) {
        self.0.write_all(wire::line(value).as_bytes()).await.unwrap();
    }

    /// Tells a process that drains of blocks; whether it has confirmed them.
    async fn feed(&mut self, number: u64, blocks: Vec<Block>) -> bool {
        self.say(&Fed { number, blocks }).await;
        match serde_json::from_str(&self.hear().await).unwrap() {
            Said::Swept(swept) => swept.number == number && swept.confirmed,
            other => panic!("{other:?}"),
        }
    }

    /// Answers the next message of a process that has taken over.
    async fn answer(&mut self, cut: usize) -> Vec<Block> {
        let fed: Fed = serde_json::from_str(&self.hear().await).unwrap();
        self.say(&Said::Swept(wire::Swept { number: fed.number, cut, confirmed: true })).await;
        fed.blocks
    }
}

fn hole() -> crate::admin::allow::AllowOrder {
    crate::admin::allow::AllowOrder {
        class: "setup".into(),
        from: "203.0.113.7/32".parse().unwrap(),
        lasting: 60_000,
        site: Some("a.test".into()),
        reason: String::new(),
        yes: false,
    }
}

fn knows_a_site(control: &mut Control) {
    let text = "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.test\"]\napp = \"arkeep\"\nupstream = \"http://127.0.0.1:1\"\n";
    let config = crate::config::parse(Path::new("/etc/p.toml"), text, control.clock.now()).unwrap();
    control.sites = SiteFacts::of(&config.settings);
}

#[tokio::test]
async fn in_a_process_that_drains_holes_close_blocks_come_and_go_and_nobody_to_tell_of_them_ends_it() {
    let bench = Bench::new();
    let mut control = bench.control();
    control.set_workers(witness(|| {}, 1));
    knows_a_site(&mut control);
    control.allow(hole(), "me").await.unwrap();
    let (mut new, old) = Other::pair();
    let drains = control.hand_over(old);
    let feeds = async {
        assert!(new.hear().await.starts_with("{\"given\":"));
        assert!(new.feed(1, Vec::new()).await, "that is how it is acknowledged");
        assert!(bench.has_said("allow ended"), "what is closed there is closed here");
        let mut block = learned_block();
        assert!(new.feed(2, vec![block.clone()]).await);
        assert_eq!(standing(&bench.blocks), 1);
        block.ended = Some(WALL);
        assert!(new.feed(3, vec![block]).await);
        assert_eq!(standing(&bench.blocks), 0, "one that is lifted there is lifted here");
        drop(new);
    };
    let ((), ()) = tokio::join!(drains, feeds);
    assert!(control.over.is_some() && bench.has_said("all that still ran here is cut"));
}

fn learned_block() -> Block {
    let order = order(address());
    let now = Now { mono: 0, wall: WALL };
    crate::control::defaults::unasked(order, "uid 0", &[], now).unwrap_or_else(|(block, _)| *block)
}

#[tokio::test]
async fn orders_that_come_with_a_hand_over_are_obeyed_before_it() {
    let bench = Bench::new();
    let mut control = bench.control();
    control.set_workers(witness(|| {}, 1));
    let (mut new, old) = Other::pair();
    let (commands, queue) = mpsc::channel(QUEUE);
    let (_changed, changed) = mpsc::channel(1);
    let (reply, mut answered) = oneshot::channel();
    let asked = [Ask::HandOver(old), Ask::Block(order(address()), reply)];
    for ask in asked {
        commands.send(Command { by: "uid 0".into(), ask }).await.unwrap();
    }
    let asks = async {
        assert!(new.hear().await.starts_with("{\"given\":"));
        let blocked = answered.try_recv().expect("answered before anything is given").unwrap();
        assert!(blocked.confirmed && blocked.durable);
        // It dies, and the old one answers again.
        drop(new);
        let (reply, listed) = oneshot::channel();
        commands.send(Command { by: "uid 0".into(), ask: Ask::List(false, reply) }).await.unwrap();
        assert_eq!(listed.await.unwrap().unwrap().blocks.len(), 1);
    };
    tokio::select! {
        why = control.run(queue, changed) => panic!("{why}"),
        () = asks => {}
    }
}

#[tokio::test]
async fn the_end_of_a_process_that_drains_is_not_seen_before_all_is_cut() {
    let bench = Bench::new();
    let mut control = bench.control();
    let is_cut = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let cuts = Arc::clone(&is_cut);
    let worker = move |command| match command {
        worker::Command::Sweep(answer) => {
            let _ = answer.send(0);
        }
        worker::Command::Sockets(answer) => drop(answer.send(Vec::new())),
        worker::Command::Cut(answer) => {
            std::thread::sleep(Duration::from_millis(50));
            cuts.store(true, Ordering::SeqCst);
            let _ = answer.send(1);
        }
        _ => {}
    };
    control.set_workers(played(worker));
    let (mut new, old) = Other::pair();
    let drains = control.hand_over(old);
    let feeds = async {
        new.hear().await;
        assert!(new.feed(1, Vec::new()).await);
        // It is told to end: its own end would count as a confirmation of every block.
        new.0.get_mut().shutdown().await.unwrap();
        assert_eq!(new.hear().await, "");
        assert!(is_cut.load(Ordering::SeqCst));
    };
    let ((), ()) = tokio::join!(drains, feeds);
}

#[tokio::test]
async fn after_a_hand_over_that_failed_the_workers_hear_that_the_sockets_are_theirs_alone() {
    let bench = Bench::new();
    let mut control = bench.control();
    let (tells, heard) = std::sync::mpsc::sync_channel(4);
    control.set_workers(played(move |command| match command {
        worker::Command::Sweep(answer) => {
            let _ = answer.send(0);
        }
        worker::Command::Sockets(answer) => {
            let _ = (tells.send("given"), answer.send(Vec::new()));
        }
        worker::Command::TakeBack => drop(tells.send("taken back")),
        _ => {}
    }));
    let (new, old) = Other::pair();
    drop(new);
    control.hand_over(old).await;
    assert!(!control.astray && bench.has_said("the hand-over to a new process has failed"));
    drop(control);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["given", "taken back"]);
}

#[tokio::test]
async fn a_new_process_that_comes_too_late_hears_that_all_was_taken_back_and_does_not_serve() {
    let bench = Bench::new();
    let mut control = bench.control();
    let (mut old, new) = Other::pair();
    old.say(&Said::Kept("it did not come up in time".into())).await;
    drop(old);
    let refused = control.set_follower(new).await.unwrap_err();
    assert!(refused.contains("taken all back: it did not come up in time"), "{refused}");
    // Also when it is heard late.
    let (mut old, new) = Other::pair();
    let (taken, _) = tokio::join!(control.set_follower(new), old.answer(0));
    taken.unwrap();
    old.say(&Said::Kept("it did not come up in time".into())).await;
    assert!(!give(&mut control, order(address())).await.unwrap().confirmed);
    assert_eq!(control.over.take(), Some("the running gateway has taken all back"));
    control.follower = None;
    // One that is gone without a word has no streams: the new one goes on alone.
    let (old, new) = Other::pair();
    drop(old);
    control.set_follower(new).await.unwrap();
    assert!(control.follower.is_none());
}

#[tokio::test]
async fn an_old_process_that_is_late_confirms_with_the_next_block_and_hears_of_what_is_lifted() {
    let bench = Bench::new();
    let mut control = bench.control();
    control.set_workers(witness(|| {}, 1));
    let (mut old, new) = Other::pair();
    let (taken, _) = tokio::join!(control.set_follower(new), old.answer(0));
    taken.unwrap();
    let late = give(&mut control, order(address())).await.unwrap();
    assert_eq!((late.confirmed, late.durable, late.cut), (false, true, 1), "nothing is made up");
    let both = async { (old.answer(5).await, old.answer(2).await) };
    let (next, (first, second)) = tokio::join!(give(&mut control, order(address())), both);
    let next = next.unwrap();
    assert_eq!((next.confirmed, next.cut), (true, 3));
    assert_eq!((first.len(), second.len()), (1, 1));
    control.unblock(1, "uid 0").unwrap();
    let ((), lifted) = tokio::join!(control.tell_follower(&[1]), old.answer(0));
    assert!(lifted.iter().all(|block| block.id == 1 && block.ended.is_some()) && lifted.len() == 1);
    drop(old);
    let alone = give(&mut control, order(address())).await.unwrap();
    assert!(alone.confirmed && control.follower.is_none(), "who is gone is not waited for");
}

#[tokio::test]
async fn an_old_process_that_reads_nothing_is_never_confirmed_and_told_to_end() {
    let bench = Bench::new();
    let mut control = bench.control();
    control.set_workers(witness(|| {}, 1));
    let (mut old, new) = Other::pair();
    let (taken, _) = tokio::join!(control.set_follower(new), old.answer(0));
    taken.unwrap();
    let long = Order { reason: "x".repeat(1 << 20), ..order(address()) };
    for _ in 0..4 {
        assert!(!give(&mut control, long.clone()).await.unwrap().confirmed);
    }
    // It wakes up: the stream has an end, and with it what it still serves.
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut old.0, &mut rest).await.unwrap();
    assert!(rest.len() < 3 << 20, "{}", rest.len());
    assert!(!give(&mut control, order(address())).await.unwrap().confirmed, "it may still serve");
    drop(old);
    assert!(give(&mut control, order(address())).await.unwrap().confirmed);
}

#[test]
fn what_another_process_has_taken_in_before_it_failed_counts_here_too() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        control.set_workers(witness(|| {}, 0));
        give(&mut control, order(address())).await.unwrap();
        control.store.release();
        // The other one takes in an order from the spool as number 2, and dies.
        let mut opened = Store::open(&bench.store()).unwrap();
        let mut theirs = opened.blocks.remove(0);
        theirs.id = 2;
        theirs.reason = "theirs".into();
        opened.store.write(&[&theirs]).unwrap();
        // While it has the store nothing can be taken back, and an order of ours gets the same number.
        control.astray = true;
        control.come_back().await;
        assert!(control.astray && standing(&bench.blocks) == 1);
        let ours = give(&mut control, order(address())).await.unwrap();
        assert!((ours.block.id, ours.durable) == (2, false));
        drop(opened);
        control.come_back().await;
        assert!(!control.astray);
        assert_eq!(standing(&bench.blocks), 3, "theirs, and ours by another number");
        assert!(control.commit(&[]));
    });
    drop(control);
    assert_eq!(bench.control().list(false).blocks.len(), 3, "all are on the disk");
}
