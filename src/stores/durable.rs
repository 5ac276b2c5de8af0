//! The durable store of blocks: redb behind one owner, the control thread (DESIGN 6).
//!
//! A block is one JSON value under its number. Nothing here is ever silently empty: a store that cannot be read whole
//! is an error with the way out, and a store that is new says so.

mod accounts;
pub mod directory;
pub mod seal_keys;
mod sessions;
pub mod spool;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

use super::blocks::Block;

/// The form of what is stored. A later form raises it; an older binary then refuses to start.
const SCHEMA: u64 = 1;
/// Blocks are few: the default of redb (1 GiB) is for databases.
const CACHE: usize = 4 << 20;

const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The store. After an I/O error it closes the file and opens it anew with the next write.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    database: Option<Database>,
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// All that it holds, ended and expired blocks too, by number.
    pub blocks: Vec<Block>,
    /// There was none: no block of earlier days is known.
    pub fresh: bool,
}

/// Why a store cannot be opened: each says the way out.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The disk's or the permissions' fault.
    #[error("cannot open the block store {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Another process has it.
    #[error("the block store {} is in use: another portcullis runs with this state directory", .0.display())]
    InUse(PathBuf),
    /// Written by a later version.
    #[error(
        "the block store {} has form {found}, this portcullis reads form {SCHEMA}: start the version that wrote it, or move the file away and give the blocks again",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u64,
    },
    /// Damaged.
    #[error(
        "the block store {} is damaged ({cause}); no block in it can be trusted to be whole. Put a copy of the file back, or move it away, start, and give the blocks again (`audit.log` beside it names them)",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// A write that did not reach the disk.
#[derive(Debug, Error)]
#[error("the block store {} was not written: {cause}", path.display())]
pub struct WriteError {
    path: PathBuf,
    cause: String,
}

impl Store {
    /// Opens the store, checks every page of it, and reads all blocks. A missing one is made.
    ///
    /// # Errors
    /// When it cannot be read whole; see [`OpenError`].
    pub fn open(path: &Path) -> Result<Opened, OpenError> {
        let fresh = !path.try_exists().map_err(|cause| io_error(path, cause))?;
        if fresh {
            create(path)?;
        }
        let database = open_checked(path)?;
        let blocks = read_all(path, &database)?;
        let store = Self { path: path.to_owned(), database: Some(database) };
        Ok(Opened { store, blocks, fresh })
    }

    /// Writes blocks, new or changed, in one commit; when it returns they are on the disk.
    ///
    /// # Errors
    /// When they may not be. The next call opens the file anew.
    pub fn write(&mut self, blocks: &[&Block]) -> Result<(), WriteError> {
        self.commit(|transaction| {
            let mut table = transaction.open_table(BLOCKS)?;
            for block in blocks {
                let json = serde_json::to_vec(block).map_err(io::Error::from)?;
                table.insert(block.id, json.as_slice())?;
            }
            Ok(())
        })
    }

    /// Forgets blocks that ended long ago.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn forget(&mut self, ids: &[u64]) -> Result<(), WriteError> {
        self.commit(|transaction| {
            let mut table = transaction.open_table(BLOCKS)?;
            for id in ids {
                table.remove(id)?;
            }
            Ok(())
        })
    }

    /// Closes the file: another process may open it. The next write opens it again, if that one lets it.
    pub fn release(&mut self) {
        self.database = None;
    }

    /// As after an I/O error.
    #[cfg(test)]
    pub(crate) fn break_for_test(&mut self) {
        self.database = None;
    }

    /// Where the store is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn commit(
        &mut self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), WriteError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen()?,
        };
        let outcome = transact(&database, change);
        match outcome {
            Ok(()) => {
                self.database = Some(database);
                Ok(())
            }
            // After a failed write redb trusts nothing of the open file, and neither do we.
            Err(cause) => Err(self.unwritten(cause)),
        }
    }

    /// Never makes a new file: one that vanished under a running gateway is for a person to look at.
    fn reopen(&self) -> Result<Database, WriteError> {
        open_checked(&self.path).map_err(|cause| self.unwritten(cause))
    }

    fn unwritten(&self, cause: impl ToString) -> WriteError {
        WriteError { path: self.path.clone(), cause: cause.to_string() }
    }
}

fn transact(
    database: &Database,
    change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    change(&transaction)?;
    transaction.commit()?;
    Ok(())
}

/// Makes an empty store beside its place and moves it there, so that a crash leaves none or a whole one.
fn create(path: &Path) -> Result<(), OpenError> {
    let aside = path.with_extension("new");
    let failed = |cause: io::Error| io_error(path, cause);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&aside);
    drop(file.map_err(failed)?);
    let database =
        Database::builder().set_cache_size(CACHE).create(&aside).map_err(|error| open_error(path, error))?;
    transact(&database, |transaction| {
        transaction.open_table(BLOCKS)?;
        transaction.open_table(META)?.insert("schema", SCHEMA)?;
        Ok(())
    })
    .map_err(|error| failed(io::Error::other(error)))?;
    drop(database);
    fs::rename(&aside, path).map_err(failed)?;
    path.parent().map_or(Ok(()), sync_directory).map_err(failed)
}

/// Opens a store that must be there, with the checksum of every page: a flipped bit in a fingerprint would lift a block.
fn open_checked(path: &Path) -> Result<Database, OpenError> {
    let length = fs::metadata(path).map_err(|cause| io_error(path, cause))?.len();
    if length == 0 {
        return Err(corrupt(path, "it is empty"));
    }
    let opened = std::panic::catch_unwind(|| {
        Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).open(path)
    });
    // redb may panic on a file that it did not write.
    let opened = opened.map_err(|_| corrupt(path, "reading it made the library give up"))?;
    opened.map_err(|error| open_error(path, error))
}

fn read_all(path: &Path, database: &Database) -> Result<Vec<Block>, OpenError> {
    match schema(database).map_err(|error| corrupt(path, error))? {
        Some(SCHEMA) => {}
        Some(found) => return Err(OpenError::Newer { path: path.to_owned(), found }),
        None => return Err(corrupt(path, "it does not say its form")),
    }
    let values = values(database).map_err(|error| corrupt(path, error))?;
    values.into_iter().map(|(id, json)| parse(path, id, &json)).collect()
}

fn schema(database: &Database) -> Result<Option<u64>, redb::Error> {
    Ok(database.begin_read()?.open_table(META)?.get("schema")?.map(|found| found.value()))
}

fn values(database: &Database) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
    let mut values = Vec::new();
    for entry in database.begin_read()?.open_table(BLOCKS)?.iter()? {
        let (id, json) = entry?;
        values.push((id.value(), json.value().to_vec()));
    }
    Ok(values)
}

fn parse(path: &Path, id: u64, json: &[u8]) -> Result<Block, OpenError> {
    let block: Block =
        serde_json::from_slice(json).map_err(|error| corrupt(path, format!("block {id}: {error}")))?;
    if block.id != id {
        return Err(corrupt(path, format!("block {id} calls itself {}", block.id)));
    }
    Ok(block)
}

/// Makes renames and new files of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn open_error(path: &Path, error: redb::DatabaseError) -> OpenError {
    use redb::{DatabaseError, StorageError};
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::InUse(path.to_owned())
        }
        // redb reports a file that is no database of its own as invalid data, one cut short as its end.
        DatabaseError::Storage(StorageError::Io(cause))
            if !matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            io_error(path, cause)
        }
        other => corrupt(path, other),
    }
}

fn io_error(path: &Path, cause: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), cause }
}

fn corrupt(path: &Path, cause: impl ToString) -> OpenError {
    OpenError::Corrupt { path: path.to_owned(), cause: cause.to_string() }
}
