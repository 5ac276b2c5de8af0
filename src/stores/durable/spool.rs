//! The spool: orders given while the gateway was down; taken in before anything listens.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};

use super::directory::{private_directory, write_private};
use super::sync_directory;
use crate::stores::blocks::order::Spooled;

/// A file larger than this is no order.
const LARGEST: u64 = 64 << 10;

/// What the spool held.
#[derive(Debug, Default)]
pub struct Found {
    /// Orders, oldest first, each with its file: remove it when the order is on disk.
    pub orders: Vec<(PathBuf, Spooled)>,
    /// What was no order: the file, now set aside, and what is wrong with it.
    pub broken: Vec<(PathBuf, String)>,
}

/// Leaves an order in the state directory's spool; when it returns it is on the disk.
///
/// # Errors
/// The system's, most likely that this user may not write there.
pub fn leave(state_dir: &Path, spooled: &Spooled) -> io::Result<PathBuf> {
    if !state_dir.is_dir() {
        let what = format!(
            "the state directory {} is not there (is this the gateway's config?)",
            state_dir.display()
        );
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    let spool = state_dir.join("spool");
    let fresh = !spool.try_exists()?;
    private_directory(&spool)?;
    if !fs::symlink_metadata(&spool)?.is_dir() {
        return Err(io::Error::other(format!("{} is a link, not a directory", spool.display())));
    }
    if fresh {
        let owner = fs::metadata(state_dir)?;
        if owner.uid() != fs::metadata(&spool)?.uid() {
            lchown(&spool, Some(owner.uid()), Some(owner.gid()))?;
        }
        sync_directory(state_dir)?;
    }
    let mut salt = [0; 4];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let path = spool.join(format!("{:015}-{:08x}.json", spooled.created, u32::from_be_bytes(salt)));
    write_private(state_dir, &path, &serde_json::to_vec_pretty(spooled)?)?;
    Ok(path)
}

/// Reads the spool. What is no order is renamed to `*.broken` and reported, never passed over.
///
/// # Errors
/// When the directory cannot be read; a missing one is empty.
pub fn read(spool: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let entries = match fs::read_dir(spool) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    let mut paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json") && !is_hidden(path));
    paths.sort();
    for path in paths {
        match read_one(&path) {
            Ok(spooled) => found.orders.push((path, spooled)),
            Err(wrong) => found.broken.push((set_aside(&path), wrong)),
        }
    }
    Ok(found)
}

/// Removes files whose orders are on disk now.
///
/// # Errors
/// The system's: the orders would be taken in once more, which blocks again and harms nothing.
pub fn clear(spool: &Path, paths: &[PathBuf]) -> io::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    for path in paths {
        fs::remove_file(path)?;
    }
    sync_directory(spool)
}

fn read_one(path: &Path) -> Result<Spooled, String> {
    let file = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    if !file.is_file() || file.len() > LARGEST {
        return Err(format!("it is no file of at most {LARGEST} bytes"));
    }
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let spooled: Spooled = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    if spooled.schema != 1 {
        return Err(format!("it has form {}, this portcullis reads form 1", spooled.schema));
    }
    Ok(spooled)
}

/// Where the file is now.
fn set_aside(path: &Path) -> PathBuf {
    let aside = path.with_extension("json.broken");
    match fs::rename(path, &aside) {
        Ok(()) => aside,
        Err(_) => path.to_owned(),
    }
}

/// Half-written files of [`write_private`].
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}
