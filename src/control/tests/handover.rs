//! A hand-over that has failed after the other process had written.

use super::*;

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
