//! A directory of the user's own, for first tries without a config.

use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A Unix socket's path has 108 bytes at most; room for its name must be left.
const MAX_DIR: usize = 90;

/// `$XDG_STATE_HOME/portcullis/NAME`, by default under `~/.local/state`; made when missing, closed to others.
///
/// # Errors
/// When it cannot be made, or belongs to somebody else.
pub fn user_dir(name: &str) -> io::Result<PathBuf> {
    let home = std::env::home_dir().map(|home| home.join(".local/state"));
    let base = absolute(std::env::var_os("XDG_STATE_HOME")).or(home.filter(|home| home.is_absolute()));
    let own = base.map(|base| base.join("portcullis").join(name));
    let uid = rustix::process::geteuid().as_raw();
    let dir = own
        .filter(|dir| dir.as_os_str().len() <= MAX_DIR)
        .unwrap_or_else(|| std::env::temp_dir().join(format!("portcullis-{uid}-{name}")));
    close(&dir, uid)?;
    Ok(dir)
}

fn absolute(path: Option<OsString>) -> Option<PathBuf> {
    path.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// In a shared temporary directory somebody else may have been first.
fn close(dir: &Path, uid: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = dir.symlink_metadata()?;
    if !found.is_dir() || found.uid() != uid {
        return Err(io::Error::other(format!("{} belongs to somebody else", dir.display())));
    }
    std::fs::set_permissions(dir, Permissions::from_mode(0o700))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_closed_to_others_and_links_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let (dir, link) = (temp.path().join("a/b"), temp.path().join("link"));
        close(&dir, uid).unwrap();
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(close(&link, uid).is_err());
        assert!(close(&dir, uid + 1).is_err());
    }
}
