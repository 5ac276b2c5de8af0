//! Whose refresh cookies are whose, beside the blocks in one file. What cannot be read of it is left out: such a cookie then
//! counts as one of an old session.

use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{Store, WriteError};
use crate::stores::sessions::{Changes, Place, Session};

/// Site and fingerprint → JSON.
const SESSIONS: TableDefinition<'_, (u64, [u8; 16]), &[u8]> = TableDefinition::new("sessions");

impl Store {
    /// All sessions.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn sessions(&self) -> Result<Vec<(Place, Session)>, WriteError> {
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        let read = || -> Result<Vec<(Place, Session)>, redb::Error> {
            let table = match database.begin_read()?.open_table(SESSIONS) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                other => other?,
            };
            let mut sessions = Vec::new();
            for entry in table.iter()? {
                let (place, json) = entry?;
                let session = serde_json::from_slice::<Session>(json.value()).ok();
                sessions.extend(session.map(|session| (place.value(), session)));
            }
            Ok(sessions)
        };
        read().map_err(|cause| self.unwritten(cause))
    }

    /// Writes what is new of them, in one commit.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn keep_sessions(&mut self, changes: &Changes) -> Result<(), WriteError> {
        self.commit(|transaction| {
            let mut table = transaction.open_table(SESSIONS)?;
            for (place, session) in &changes.learned {
                let json = serde_json::to_vec(session).map_err(std::io::Error::from)?;
                table.insert(place, json.as_slice())?;
            }
            for place in &changes.forgotten {
                table.remove(place)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_outlive_a_restart_and_an_older_store_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blocks.redb");
        let mut store = Store::open(&path).unwrap().store;
        assert_eq!(store.sessions().unwrap(), []);
        let session = Session { subject: "7".into(), begun: 1, token: None, seen: 2, until: 3 };
        let (kept, gone) = ((1, [1; 16]), (1, [2; 16]));
        let learned = vec![(kept, session.clone()), (gone, session.clone())];
        store.keep_sessions(&Changes { learned, forgotten: Vec::new() }).unwrap();
        store.keep_sessions(&Changes { learned: Vec::new(), forgotten: vec![gone] }).unwrap();
        drop(store);
        assert_eq!(Store::open(&path).unwrap().store.sessions().unwrap(), [(kept, session)]);
    }
}
