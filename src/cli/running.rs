//! Where the running gateway is, by its config: also when the config has been broken since it started.

use std::path::{Path, PathBuf};

use super::client::Gateway;
use crate::config::{self, defaults};

/// The gateway that runs with this config. What cannot be read of it is taken from the text as far as it goes, and
/// else from the defaults: a block at 3 a.m. must not fail over a typing error in another section.
pub(super) fn found(path: &Path) -> Gateway {
    match config::load(path) {
        Ok(loaded) => {
            let mut formats = Vec::new();
            for format in loaded.settings.sites.iter().map(|site| site.app.tokens.format) {
                if !formats.contains(&format) {
                    formats.push(format);
                }
            }
            Gateway { socket: loaded.settings.admin.socket, state_dir: loaded.settings.state_dir, formats }
        }
        Err(_) => by_text(path),
    }
}

fn by_text(path: &Path) -> Gateway {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let (parsed, _) = toml::de::DeTable::parse_recoverable(&text);
    let string = |section: &str, key: &str| -> Option<PathBuf> {
        let value = parsed.get_ref().get(section)?.get_ref().as_table()?.get(key)?;
        let value = PathBuf::from(value.get_ref().as_str()?);
        Some(path.parent().map_or(value.clone(), |base| base.join(value)))
    };
    Gateway {
        socket: string("admin", "socket").unwrap_or_else(|| defaults::ADMIN_SOCKET.into()),
        state_dir: string("state", "dir").unwrap_or_else(|| defaults::STATE_DIR.into()),
        formats: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_that_was_broken_since_still_says_where_the_gateway_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("portcullis.toml");
        let text = "[admin]\nsocket = \"/run/own.sock\"\n[state]\ndir = \"state\"\n[limits]\nbody = \"1 apple\"\n[[site]\n";
        std::fs::write(&path, text).unwrap();
        let gateway = found(&path);
        assert_eq!(gateway.socket, Path::new("/run/own.sock"));
        assert_eq!(gateway.state_dir, dir.path().join("state"));
    }

    #[test]
    fn without_a_config_the_defaults_hold() {
        let gateway = found(Path::new("/nowhere/portcullis.toml"));
        assert_eq!(gateway.socket, Path::new(defaults::ADMIN_SOCKET));
    }
}
