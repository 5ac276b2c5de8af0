//! What the machine shows of itself: who listens where, what the state directory is on, who runs the gateway. Everything
//! is read from `/proc` and may be missing; then nothing is said.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use crate::config::settings::{LogTarget, Settings};

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";
/// Largest file of `/proc` that is read.
const MOST: usize = 16 << 20;

/// What was seen of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Addresses and ports that somebody listens on.
    pub listening: Vec<(IpAddr, u16)>,
    /// What the state directory is on, if that does not outlive a restart.
    pub volatile: Option<&'static str>,
    /// The directory of `log.access`, which is not there.
    pub no_log_directory: Option<PathBuf>,
    /// This process is root's.
    pub root: bool,
}

impl Machine {
    /// Looks.
    pub fn look(settings: &Settings) -> Self {
        let read =
            |path: &str| fs::read_to_string(path).ok().filter(|text| text.len() <= MOST).unwrap_or_default();
        Self {
            listening: ["/proc/net/tcp", "/proc/net/tcp6"]
                .iter()
                .flat_map(|path| listening(&read(path)))
                .collect(),
            volatile: volatile(&read("/proc/self/mountinfo"), &existing(&settings.state_dir)),
            no_log_directory: no_log_directory(settings),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// Whether somebody listens on this port of all addresses, and nobody on the one of loopback only.
    pub fn listens_to_all(&self, port: u16) -> bool {
        let on = |meant: fn(&IpAddr) -> bool| {
            self.listening.iter().any(|(address, known)| *known == port && meant(address))
        };
        on(IpAddr::is_unspecified) && !on(IpAddr::is_loopback)
    }
}

fn no_log_directory(settings: &Settings) -> Option<PathBuf> {
    let LogTarget::File(path) = &settings.log.access else { return None };
    path.parent().filter(|parent| !parent.is_dir()).map(Path::to_owned)
}

/// The listening sockets of one of the kernel's tables.
fn listening(table: &str) -> Vec<(IpAddr, u16)> {
    let of_line = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let state = fields.nth(1)?;
        (state == LISTEN).then_some((address_of(address)?, u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// Words of 32 bits, each in the machine's own order.
fn address_of(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(IpAddr::from(Ipv4Addr::from(word(0)?))),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(IpAddr::from(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

/// What a path is on, if it is one of the kinds that forget: by the mount whose place is its longest prefix.
fn volatile(mounts: &str, path: &Path) -> Option<&'static str> {
    let of_line = |line: &'_ str| -> Option<(usize, String)> {
        let (before, after) = line.split_once(" - ")?;
        let place = PathBuf::from(unescaped(before.split(' ').nth(4)?));
        path.starts_with(&place)
            .then(|| (place.components().count(), after.split(' ').next().unwrap_or_default().to_owned()))
    };
    // Of two at one place the later one lies above.
    let (_, kind) = mounts.lines().filter_map(of_line).max_by_key(|(depth, _)| *depth)?;
    match &*kind {
        "tmpfs" | "ramfs" => Some("memory (tmpfs)"),
        "overlay" => Some("the container's own layer (overlay), which goes with the container"),
        _ => None,
    }
}

/// The kernel writes blanks and the like as `\040`.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// The path itself, or what is there of it.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find_map(|part| part.canonicalize().ok()).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_sockets_is_read() {
        let v4 = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                  0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000\n\
                  1: 00000000:1F41 00000000:0000 0A 00000000:00000000 00:00000000\n\
                  2: 0100007F:A1B2 0100007F:1F40 01 00000000:00000000 00:00000000\n   3: nonsense\n";
        let v6 = "sl\n 0: 00000000000000000000000000000000:1F42 0000:0000 0A 0\n\
                  1: 00000000000000000000000001000000:1F43 0000:0000 0A 0\n";
        let machine = Machine { listening: [listening(v4), listening(v6)].concat(), ..Machine::default() };
        assert_eq!(machine.listening.len(), 4);
        let to_all: Vec<u16> = (8000..8004).filter(|port| machine.listens_to_all(*port)).collect();
        assert_eq!(to_all, [8001, 8002]);
        assert!(!machine.listens_to_all(0xa1b2), "a connection is no listener");
        let both =
            Machine { listening: vec![("::".parse().unwrap(), 1), ("::1".parse().unwrap(), 1)], ..machine };
        assert!(!both.listens_to_all(1), "the one on loopback is the application");
    }

    #[test]
    fn what_a_directory_is_on_is_known_by_the_deepest_mount() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:1 / /run rw - tmpfs tmpfs rw\n\
                      3 1 0:2 / /run/my\\040disk rw shared:1 - xfs /dev/sdb rw\n4 1 0:3 / /box rw - overlay o rw\n";
        let on = |path: &str| volatile(mounts, Path::new(path));
        assert_eq!((on("/var/lib/portcullis"), on("/run/my disk/state")), (None, None));
        assert!(on("/run/state").unwrap().contains("tmpfs") && on("/box/a").unwrap().contains("container"));
        assert_eq!((volatile("", Path::new("/")), volatile("nonsense - x", Path::new("/"))), (None, None));
    }
}
