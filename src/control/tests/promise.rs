//! The promise of an emergency block, step by step.

use super::*;

#[test]
fn a_block_is_published_then_swept_then_committed_then_answered() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        let (blocks, store) = (Arc::clone(&bench.blocks), bench.store());
        let before = std::fs::read(&store).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let look = move || {
            log.lock().unwrap().push((standing(&blocks), std::fs::read(&store).unwrap() == before));
        };
        control.set_workers(witness(look, 3));
        let blocked = give(&mut control, order(address())).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [(1, true)], "published, and not yet committed");
        assert!(blocked.confirmed && blocked.durable);
        assert_eq!((blocked.cut, blocked.block.until), (3, WALL + 3_600_000));
    });
    drop(control);
    assert_eq!(bench.control().list(false).blocks.len(), 1, "it survives a restart");
}

#[test]
fn a_worker_that_does_not_answer_in_400_ms_makes_it_not_confirmed_but_it_holds() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        let (sender, _kept) = mpsc::channel(4);
        control.set_workers(Workers::new(vec![sender]));
        let start = tokio::time::Instant::now();
        let blocked = give(&mut control, order(address())).await.unwrap();
        assert!(!blocked.confirmed && blocked.durable);
        assert!(start.elapsed() < Duration::from_millis(480));
        assert_eq!(standing(&bench.blocks), 1);
    });
}

#[test]
fn a_block_that_cannot_be_written_holds_in_memory_and_is_written_later() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        // The file is moved away and the open one made to fail: the next write opens anew and finds none.
        give(&mut control, order(address())).await.unwrap();
        let (store, away) = (bench.store(), bench.store().with_extension("away"));
        control.store.break_for_test();
        std::fs::rename(&store, &away).unwrap();
        let blocked = give(&mut control, order(address())).await.unwrap();
        assert!(blocked.confirmed && !blocked.durable);
        assert_eq!(standing(&bench.blocks), 2);
        assert_eq!(control.status().await.status.unwritten, 1);
        assert!(!control.vitals().durable.load(Ordering::Relaxed));

        let refused = control.unblock(1, "uid 0").unwrap_err();
        assert_eq!(refused.error, RefusalKind::NotWritten, "a lifted block must not come back");
        assert_eq!(standing(&bench.blocks), 2);
        assert!(!control.unblock(2, "uid 0").unwrap().durable, "it never was on disk");
        assert_eq!(standing(&bench.blocks), 1);

        std::fs::rename(&away, &store).unwrap();
        control.tend().await;
        assert_eq!(control.status().await.status.unwritten, 0);
    });
    drop(control);
    let control = bench.control();
    assert_eq!((control.list(false).blocks.len(), control.list(true).blocks.len()), (1, 2));
}

#[test]
fn a_lifted_block_stays_lifted_over_restarts_and_no_number_is_used_twice() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        give(&mut control, order(address())).await.unwrap();
        assert!(control.unblock(1, "uid 0").unwrap().durable);
        assert_eq!(control.unblock(1, "uid 0").unwrap_err().error, RefusalKind::Unknown);
    });
    drop(control);
    bench.hand.advance(Duration::from_secs(40 * 86_400));
    let mut control = bench.control();
    runtime().block_on(async {
        control.tend().await;
        assert_eq!(give(&mut control, order(address())).await.unwrap().block.id, 2);
        control.tend().await;
        assert_eq!(control.list(true).blocks.len(), 1, "the old one is forgotten after 30 days");
    });
}

#[test]
fn expired_blocks_leave_the_index_and_stay_on_disk() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        give(&mut control, order(address())).await.unwrap();
        bench.hand.advance(Duration::from_secs(3601));
        control.tend().await;
        assert_eq!(standing(&bench.blocks), 0);
        assert_eq!((control.list(false).blocks.len(), control.list(true).blocks.len()), (0, 1));
    });
}

#[test]
fn wide_blocks_want_yes() {
    let bench = Bench::new();
    let mut control = bench.control();
    runtime().block_on(async {
        for (network, refused) in
            [("10.0.0.0/15", true), ("10.0.0.0/16", false), ("2001:db8::/31", true), ("2001:db8::/32", false)]
        {
            let what = What::Address { network: network.parse().unwrap() };
            assert_eq!(give(&mut control, order(what.clone())).await.is_err(), refused, "{network}");
            assert!(give(&mut control, Order { yes: true, ..order(what) }).await.is_ok());
        }
        let everyone = What::Everyone { before: 0, and_logins: false };
        let refusal = give(&mut control, order(everyone.clone())).await.unwrap_err();
        assert_eq!(refusal.error, RefusalKind::Refused);
        let blocked = give(&mut control, Order { yes: true, ..order(everyone) }).await.unwrap();
        assert_eq!(blocked.block.what, What::Everyone { before: WALL / 1000, and_logins: false });
    });
}

#[test]
fn orders_left_while_the_gateway_was_down_hold_before_anything_listens() {
    let bench = Bench::new();
    let state = StateDir::open(&bench.folder.path().join("state")).unwrap();
    let spooled = Spooled { schema: 1, order: order(address()), by: "uid 0".into(), created: WALL - 5 };
    spool::leave(state.path(), &spooled).unwrap();
    std::fs::write(state.spool().join("000.json"), "{half").unwrap();
    let control = bench.control();
    assert_eq!(standing(&bench.blocks), 1);
    assert_eq!(control.list(false).blocks[0].created, WALL - 5);
    assert!(bench.has_said("AN ORDER TO BLOCK WAS NOT TAKEN"));
    let left: Vec<_> = std::fs::read_dir(state.spool()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["000.json.broken"]);
    drop(control);
    assert_eq!(bench.control().list(true).blocks.len(), 1, "taken in once");
}

#[test]
fn an_order_from_the_spool_that_could_not_be_written_at_once_is_taken_in_once() {
    let bench = Bench::new();
    let mut control = bench.control();
    let (store, away) = (bench.store(), bench.store().with_extension("away"));
    let left = || std::fs::read_dir(bench.folder.path().join("state/spool")).unwrap().count();
    runtime().block_on(async {
        give(&mut control, order(address())).await.unwrap();
        let spooled = Spooled { schema: 1, order: order(address()), by: "uid 0".into(), created: WALL };
        spool::leave(control.state.path(), &spooled).unwrap();
        control.store.break_for_test();
        std::fs::rename(&store, &away).unwrap();
        control.tend().await;
        assert_eq!((standing(&bench.blocks), left()), (2, 1), "it holds, and its file is kept");
        std::fs::rename(&away, &store).unwrap();
        control.tend().await;
        control.tend().await;
        assert_eq!((standing(&bench.blocks), left()), (2, 0));
    });
    drop(control);
    assert_eq!(bench.control().list(true).blocks.len(), 2);
}
