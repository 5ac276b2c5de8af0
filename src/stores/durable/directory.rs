//! The state directory and the secrets in it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::sync_directory;
use crate::request::share_key::ShareKey;

/// The state directory, private to the gateway.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
    /// It was not there before.
    pub fresh: bool,
}

impl StateDir {
    /// Opens the directory, or makes it with mode 0700. One that others may enter is closed to them.
    ///
    /// # Errors
    /// When it cannot be made, or is no directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fresh = !path.try_exists()?;
        private_directory(path)?;
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        }
        Ok(Self { path: path.to_owned(), fresh })
    }

    /// The file of the block store.
    pub fn store(&self) -> PathBuf {
        self.path.join("blocks.redb")
    }

    /// Where orders wait that were given while the gateway was down.
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// The audit log.
    pub fn audit_log(&self) -> PathBuf {
        self.path.join("audit.log")
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether there is a block store in a state directory: blocks of earlier days are known then.
pub fn has_store(state_dir: &Path) -> bool {
    StateDir { path: state_dir.to_owned(), fresh: false }.store().exists()
}

/// Makes a directory with mode 0700, and those above it as the system likes.
///
/// # Errors
/// The system's.
pub fn private_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

/// The key of share links in the state directory; made when it is not there.
///
/// # Errors
/// When it cannot be read or made, or is not 32 bytes long.
pub fn share_key(state_dir: &Path) -> io::Result<ShareKey> {
    let path = state_dir.join("share.key");
    if let Some(secret) = read_secret(&path)? {
        return Ok(ShareKey::new(&secret));
    }
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    match write_private(state_dir, &path, &secret) {
        // Another process was first: its key is the key.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let secret = read_secret(&path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok(ShareKey::new(&secret))
}

fn read_secret(path: &Path) -> io::Result<Option<[u8; 32]>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::with_capacity(33);
    file.take(33).read_to_end(&mut bytes)?;
    let wrong = || {
        let what = format!(
            "{} is not 32 bytes long: put the old key back, or remove the file (blocks of share links then no longer hold)",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    <[u8; 32]>::try_from(bytes).map(Some).map_err(|_| wrong())
}

/// Writes a new file whole or not at all: aside with mode 0600, synced, linked to its place, directory synced.
/// It belongs to the owner of `owner_of`, so that what root's CLI leaves can be read by the gateway.
///
/// # Errors
/// `AlreadyExists` when there is one; else the system's.
pub fn write_private(owner_of: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = directory.join(format!(".{name}.{}", std::process::id()));
    // A leftover of a crashed process with our number.
    let _ = fs::remove_file(&aside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let written = (|| {
        file.write_all(bytes)?;
        give_to_owner(&file, owner_of)?;
        file.sync_all()?;
        fs::hard_link(&aside, path)
    })();
    fs::remove_file(&aside)?;
    written?;
    sync_directory(directory)
}

/// Replaces a file whole or not at all: aside with mode 0600, synced, renamed, directory synced.
///
/// # Errors
/// The system's.
pub fn replace_private(owner_of: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    give_to_owner(&file, owner_of)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    sync_directory(directory)
}

/// By descriptor, never by name: a name could be swapped for a link before root changes its owner.
fn give_to_owner(file: &fs::File, owner_of: &Path) -> io::Result<()> {
    let (owner, mine) = (fs::metadata(owner_of)?, file.metadata()?);
    if owner.uid() == mine.uid() {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}
