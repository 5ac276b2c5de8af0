//! Blocks survive: what was acknowledged is on the disk, and what is on the disk is never silently lost.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests, and a child that speaks by standard output"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis::request::credential::Fingerprint;
use portcullis::stores::blocks::{Block, What};
use portcullis::stores::durable::directory::{StateDir, share_key};
use portcullis::stores::durable::{OpenError, Store};
use redb::{Database, TableDefinition};

fn block(id: u64) -> Block {
    Block {
        id,
        site: None,
        what: What::Fingerprint { fingerprint: Fingerprint::of(&id.to_be_bytes()) },
        reason: "test".into(),
        by: "uid 0".into(),
        created: 1,
        until: u64::MAX,
        learned: false,
        spares: None,
        ended: None,
    }
}

fn filled(path: &Path, count: u64) {
    let mut store = Store::open(path).unwrap().store;
    let blocks: Vec<Block> = (1..=count).map(block).collect();
    store.write(&blocks.iter().collect::<Vec<_>>()).unwrap();
}

/// A copy taken while the file is open is what a `kill -9` leaves.
#[test]
fn after_each_commit_a_killed_gateway_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    let mut store = Store::open(&path).unwrap().store;
    for id in 1..=40 {
        store.write(&[&block(id)]).unwrap();
        let copy = folder.path().join(format!("copy{id}.redb"));
        fs::copy(&path, &copy).unwrap();
        let opened = Store::open(&copy).unwrap();
        assert!(!opened.fresh);
        assert_eq!(opened.blocks, (1..=id).map(block).collect::<Vec<_>>());
    }
}

#[test]
fn a_new_store_says_that_it_is_new_and_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    assert!(Store::open(&path).unwrap().fresh);
    assert!(!Store::open(&path).unwrap().fresh);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_second_gateway_on_the_same_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    let _first = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), OpenError::InUse(_)));
}

#[test]
fn an_empty_or_foreign_or_cut_file_is_an_error_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    filled(&path, 100);
    let whole = fs::read(&path).unwrap();
    for broken in [&b""[..], b"not a database at all", &[0; 8192], &whole[..whole.len() / 2], &whole[..100]] {
        fs::write(&path, broken).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{} bytes: {error}", broken.len());
        assert!(error.to_string().contains("move it away"), "{error}");
    }
}

/// Either the damage is found, or nothing was damaged: never other blocks than those written.
#[test]
fn a_flipped_bit_never_changes_the_list_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    filled(&path, 50);
    let whole = fs::read(&path).unwrap();
    let expected: Vec<Block> = (1..=50).map(block).collect();
    let mut found = 0;
    // Most of the file is room to grow: flips there prove nothing.
    let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
    for at in used.iter().copied().step_by(used.len() / 300) {
        let mut broken = whole.clone();
        broken[at] ^= 0x10;
        fs::write(&path, &broken).unwrap();
        match Store::open(&path) {
            Ok(opened) => assert!(!opened.fresh && opened.blocks == expected, "byte {at}"),
            Err(OpenError::Corrupt { .. } | OpenError::Newer { .. }) => found += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(found > 50, "the flips hit little that counts: {found}");
    let text = whole.windows(6).position(|window| window == b"uid 0\"").unwrap();
    let mut broken = whole.clone();
    broken[text] ^= 1;
    fs::write(&path, &broken).unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), OpenError::Corrupt { .. }));
}

#[test]
fn a_store_of_a_later_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    filled(&path, 1);
    let database = Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("schema", 2).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{error}");
}

#[test]
fn a_crash_while_the_store_is_first_made_leaves_no_half_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    fs::write(path.with_extension("new"), "half made").unwrap();
    assert!(Store::open(&path).unwrap().fresh);
    assert!(!path.with_extension("new").exists());
}

#[test]
fn forgotten_blocks_are_gone_and_the_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    filled(&path, 3);
    Store::open(&path).unwrap().store.forget(&[1, 3]).unwrap();
    assert_eq!(Store::open(&path).unwrap().blocks, [block(2)]);
}

#[test]
fn the_state_directory_is_private_and_the_share_key_stays_the_same() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/state");
    assert!(StateDir::open(&path).unwrap().fresh);
    assert!(!StateDir::open(&path).unwrap().fresh);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let first = share_key(&path).unwrap().key_of(b"link");
    assert_eq!(share_key(&path).unwrap().key_of(b"link"), first);
    assert_ne!(share_key(&path).unwrap().key_of(b"other"), first);
    let file = path.join("share.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    fs::write(&file, "short").unwrap();
    assert!(share_key(&path).unwrap_err().to_string().contains("32 bytes"));
}

const STORE_OF_CHILD: &str = "PORTCULLIS_TEST_STORE";

/// Not a test of its own: the process that `kill_9` kills. It acknowledges each block after its commit.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os(STORE_OF_CHILD) else { return };
    let opened = Store::open(Path::new(&path)).unwrap();
    let (mut store, mut id) = (opened.store, opened.blocks.len() as u64);
    loop {
        id += 1;
        store.write(&[&block(id)]).unwrap();
        println!("acknowledged {id}");
    }
}

#[test]
fn kill_9_loses_no_acknowledged_block() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.redb");
    for round in 0..15 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_killed", "--nocapture"])
            .env(STORE_OF_CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let acknowledged = |line: String| line.strip_prefix("acknowledged ")?.parse::<u64>().ok();
        let mut last = lines.by_ref().filter_map(acknowledged).nth(round * 3).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still said before it died was acknowledged too.
        last = lines.filter_map(acknowledged).last().unwrap_or(last);
        let blocks = Store::open(&path).unwrap().blocks;
        assert!(blocks.len() as u64 >= last, "round {round}: {} of {last}", blocks.len());
        assert_eq!(blocks, (1..=blocks.len() as u64).map(block).collect::<Vec<_>>());
    }
}
