//! The accounts that logins have taught, beside the blocks in one file. They are a convenience: what cannot be read of
//! them is left out, and is learned again with the next login.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Store, WriteError};
use crate::stores::accounts::{Account, Changes};

/// Site and name → JSON.
const ACCOUNTS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("accounts");

impl Store {
    /// All accounts.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn accounts(&self) -> Result<Vec<Account>, WriteError> {
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        let read = || -> Result<Vec<Account>, redb::Error> {
            let table = match database.begin_read()?.open_table(ACCOUNTS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                other => other?,
            };
            let mut accounts = Vec::new();
            for entry in table.iter()? {
                accounts.extend(serde_json::from_slice::<Account>(entry?.1.value()).ok());
            }
            Ok(accounts)
        };
        read().map_err(|cause| self.unwritten(cause))
    }

    /// Writes what is new of them, in one commit.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn learn(&mut self, changes: &Changes) -> Result<(), WriteError> {
        self.commit(|transaction| {
            let mut table = transaction.open_table(ACCOUNTS)?;
            for account in &changes.learned {
                let json = serde_json::to_vec(account).map_err(std::io::Error::from)?;
                table.insert((&*account.site, &*account.name), json.as_slice())?;
            }
            for (site, name) in &changes.forgotten {
                table.remove((&**site, &**name))?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_outlive_a_restart_and_an_older_store_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocks.redb");
        let mut store = Store::open(&path).unwrap().store;
        assert_eq!(store.accounts().unwrap(), []);
        let one = |name: &str| Account { site: "a".into(), name: name.into(), subject: "7".into(), seen: 1 };
        let learned = vec![one("alice"), one("bob")];
        store.learn(&Changes { learned, forgotten: Vec::new() }).unwrap();
        let forgotten = vec![("a".to_owned(), "bob".to_owned())];
        store.learn(&Changes { learned: Vec::new(), forgotten }).unwrap();
        drop(store);
        let opened = Store::open(&path).unwrap();
        assert_eq!(opened.store.accounts().unwrap(), [one("alice")]);
        assert!(opened.blocks.is_empty());
    }
}
