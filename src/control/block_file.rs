//! The block list kept as a file follows the file: a new entry is a block like any other, a removed one is lifted.
//!
//! What came from the file is on disk like every block, so that a missing, empty or broken file, or a start without it,
//! lifts nothing.

use std::collections::BTreeSet;

use super::Control;
use crate::clock::Now;
use crate::config::settings::{FileBlock, FileWhat};
use crate::request::credential::{Fingerprint, Key};
use crate::stores::blocks::{Block, What};

/// Who gave the order, of blocks from the file.
pub const BY: &str = "blocks.file";
/// An entry without an end holds until it is removed: the last millisecond that RFC 3339 can write.
const FOREVER: u64 = 253_402_300_799_999;

impl Control {
    /// Makes the standing blocks of the file those that it lists now.
    pub(super) async fn follow_file(&mut self) {
        let Some((ids, lifted)) = self.take_file() else { return };
        if !ids.is_empty() {
            self.publish(&ids);
            let swept = self.sweep(&ids).await;
            let durable = self.commit(&ids);
            self.write_down("block", &ids, swept.confirmed && durable);
        }
        for id in &lifted {
            if let Err(refusal) = self.unblock(*id, BY) {
                (self.say)(&refusal.message);
            }
        }
        if !lifted.is_empty() {
            self.tell_follower(&lifted).await;
        }
        self.settle();
    }

    /// The same at the start, before anything listens.
    pub(super) fn take_in_file(&mut self) {
        let Some((ids, lifted)) = self.take_file() else { return };
        if !ids.is_empty() {
            let durable = self.commit(&ids);
            self.write_down("block", &ids, durable);
        }
        for id in lifted {
            drop(self.unblock(id, BY));
        }
    }

    /// Numbers for the new entries, and the numbers of those that are gone from the file.
    fn take_file(&mut self) -> Option<(Vec<u64>, Vec<u64>)> {
        let listed = self.file.take()?;
        let now = self.clock.now();
        let wanted: Vec<Block> = listed.into_iter().map(|entry| block(entry, now)).collect();
        let wanted: Vec<Block> = wanted.into_iter().filter(|block| block.until > now.wall).collect();
        let names: BTreeSet<String> = wanted.iter().map(name).collect();
        let standing = self.held.iter().filter(|(_, held)| held.block.by == BY && !held.is_over(now));
        let standing: Vec<(u64, String)> = standing.map(|(id, held)| (*id, name(&held.block))).collect();
        let known: BTreeSet<&String> = standing.iter().map(|(_, name)| name).collect();
        let lifted = standing.iter().filter(|(_, name)| !names.contains(name)).map(|(id, _)| *id).collect();
        let new: Vec<Block> = wanted.into_iter().filter(|block| !known.contains(&name(block))).collect();
        let ids = new.into_iter().map(|block| self.hold(block, now)).collect();
        Some((ids, lifted))
    }
}

/// What makes two entries the same, whenever they were first seen.
fn name(block: &Block) -> String {
    let site = block.site.as_deref().unwrap_or("*");
    format!("{} {} {site} {}", block.what.kind().word(), block.what.phrase(), block.until)
}

fn block(entry: FileBlock, now: Now) -> Block {
    let FileBlock { what, site, reason, until } = entry;
    let before = now.unix();
    let what = match what {
        FileWhat::Fingerprint(bytes) => What::Fingerprint { fingerprint: Fingerprint(bytes) },
        FileWhat::Jti(jti) => What::Jti { jti },
        FileWhat::Subject { subject, and_logins } => {
            What::Subject { subject, issuer: None, before, and_logins }
        }
        FileWhat::Everyone { and_logins } => What::Everyone { before, and_logins },
        FileWhat::Share(bytes) => What::Share { share: Key(bytes) },
        FileWhat::Address(network) => What::Address { network },
    };
    Block {
        id: 0,
        site,
        what,
        reason,
        by: BY.to_owned(),
        created: now.wall,
        until: until.unwrap_or(FOREVER),
        learned: false,
        spares: None,
        ended: None,
    }
}
