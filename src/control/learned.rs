//! What logins have taught goes to the disk together, now and then: losing the last seconds of it costs nothing but that
//! `block account` does not know a name yet.

use super::Control;
use crate::clock::Now;

impl Control {
    /// At the start.
    pub(super) fn take_in_accounts(&self) {
        match self.store.accounts() {
            Ok(accounts) => self.kept.accounts.take_in(accounts),
            Err(error) => {
                (self.say)(&format!(
                    "the accounts that logins have taught are not known: {error}; they are learned again"
                ));
            }
        }
    }

    /// At the end: what is new would else wait for its seconds in vain.
    pub fn close(&mut self) {
        self.keep_accounts();
        self.keep_sessions();
    }

    /// Browsers that hold what an older key has sealed are still known.
    pub(super) fn rotate_seal_keys(&mut self, now: Now) {
        match self.seal_keys.rotate(now) {
            Ok(true) => self.kept.seal.publish(&self.seal_keys.secrets()),
            Ok(false) => {}
            Err(error) => {
                (self.say)(&format!("the keys that seal cannot be rotated: {error}; the old ones go on"))
            }
        }
    }

    /// Writes what is new.
    pub(super) fn keep_accounts(&mut self) {
        let changes = self.kept.accounts.changes();
        if changes.learned.is_empty() && changes.forgotten.is_empty() {
            return;
        }
        if let Err(error) = self.store.learn(&changes) {
            (self.say)(&format!("what logins have taught is not written yet: {error}"));
            self.kept.accounts.unwritten(changes);
        }
    }
}
