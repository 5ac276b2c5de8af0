//! `portcullis check --as-user`: what a user may read and write here, by mode bits and ids; nobody is impersonated.
//!
//! Access control lists and security modules are not looked at: they may forbid more, seldom less.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::settings::{LogTarget, Settings};

const READ: u32 = 4;
const WRITE: u32 = 2;
const ENTER: u32 = 1;

/// A user and its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

/// Something that would stand in the way, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl User {
    /// As it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A user of this machine: a name, a number, or `UID:GID`.
    ///
    /// # Errors
    /// When there is no such user, in words.
    pub fn of_this_machine(word: &str) -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        Self::find(word, &read("/etc/passwd")?, &read("/etc/group")?)
    }

    fn find(word: &str, passwd: &str, group: &str) -> Result<Self, String> {
        let numbers = word.split_once(':').unwrap_or((word, word));
        let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
            let is = |place: usize| fields.get(place) == Some(&word);
            is(0) || is(2)
        });
        if let Some(fields) = line {
            let number = |place: usize| fields.get(place).and_then(|field| field.parse().ok());
            let (Some(name), Some(uid), Some(gid)) = (fields.first(), number(2), number(3)) else {
                return Err(format!("the line of `{word}` in /etc/passwd cannot be read"));
            };
            let mut groups = vec![gid];
            groups.extend(groups_of(name, group));
            return Ok(Self { name: (*name).to_owned(), uid, groups });
        }
        match (numbers.0.parse(), numbers.1.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Self { name: word.to_owned(), uid, groups: vec![gid] }),
            _ => Err(format!(
                "there is no user `{word}` in /etc/passwd; of one that comes from elsewhere write the numbers, UID:GID"
            )),
        }
    }

    fn may(&self, file: &Metadata, wanted: u32) -> bool {
        let shift = match () {
            () if self.uid == 0 => return true,
            () if file.uid() == self.uid => 6,
            () if self.groups.contains(&file.gid()) => 3,
            () => 0,
        };
        file.mode() >> shift & wanted == wanted
    }
}

fn groups_of<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == name).then_some(gid)
    })
}

/// What of the config's files and directories the user may not use as the gateway must, and what is worth a word only:
/// directories that somebody else has to make (systemd does, by itself), ports that want help from outside.
pub fn look(user: &User, settings: &Settings) -> (Vec<Found>, Vec<Found>) {
    let mut problems: Vec<Found> = Vec::new();
    problems.extend(settings.files.iter().filter_map(|file| check(user, file, READ).err()));
    let kept = fs::read_dir(&settings.state_dir).into_iter().flatten().flatten();
    problems.extend(kept.filter_map(|entry| check(user, &entry.path(), READ | WRITE).err()));
    let mut dirs = vec![settings.state_dir.as_path()];
    dirs.extend(settings.admin.socket.parent());
    if let LogTarget::File(path) = &settings.log.access {
        problems.extend(check(user, path, WRITE).err());
        dirs.extend(path.parent().filter(|_| !path.exists()));
    }
    let mut warnings = Vec::new();
    for dir in dirs {
        if dir.exists() {
            problems.extend(check(user, dir, READ | WRITE | ENTER).err());
        } else {
            warnings.extend(must_be_made(user, dir));
        }
    }
    warnings.extend(ports(user, settings));
    (each_once(problems), each_once(warnings))
}

fn each_once(found: Vec<Found>) -> Vec<Found> {
    let mut told: Vec<Found> = Vec::new();
    for one in found {
        if !told.contains(&one) {
            told.push(one);
        }
    }
    told
}

/// A directory that is not there, and that the user cannot make in the nearest one that is.
fn must_be_made(user: &User, dir: &Path) -> Option<Found> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    check(user, there, READ | WRITE | ENTER).err()?;
    let (name, dir) = (&user.name, dir.display());
    Some(Found {
        message: format!("{dir} is not there, and `{name}` may not make it in {}", there.display()),
        help: format!(
            "install -d -o {name} -m 700 {dir}; systemd does it by StateDirectory, RuntimeDirectory and LogsDirectory"
        ),
    })
}

/// Ports that the user can only listen on with help from outside.
fn ports(user: &User, settings: &Settings) -> Vec<Found> {
    let free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let free: u16 = free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    let listen = &settings.listen;
    let sockets = listen.https.iter().chain(&listen.http).chain(&listen.plain).chain(&settings.admin.metrics);
    sockets
        .filter(|socket| user.uid != 0 && socket.port() != 0 && socket.port() < free)
        .map(|socket| Found {
            message: format!("`{}` may not listen on {socket} by itself", user.name),
            help: "give it CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)".into(),
        })
        .collect()
}

/// A file that is missing is another matter than one that may not be used.
fn check(user: &User, path: &Path, wanted: u32) -> Result<(), Found> {
    enter(user, path)?;
    let Ok(file) = fs::metadata(path) else { return Ok(()) };
    // What cannot be entered cannot be used, whatever else its mode says.
    let wanted = if file.is_dir() { wanted | ENTER } else { wanted };
    if user.may(&file, wanted) {
        return Ok(());
    }
    Err(may_not(user, path, &file, wanted))
}

fn enter(user: &User, path: &Path) -> Result<(), Found> {
    for dir in path.ancestors().skip(1).filter(|dir| *dir != Path::new("")) {
        if let Ok(about) = fs::metadata(dir)
            && !user.may(&about, ENTER)
        {
            return Err(may_not(user, dir, &about, ENTER));
        }
    }
    Ok(())
}

fn may_not(user: &User, path: &Path, file: &Metadata, wanted: u32) -> Found {
    let verb = match (wanted & WRITE != 0, wanted & READ != 0) {
        (true, _) => "write",
        (false, true) => "read",
        (false, false) => "enter",
    };
    let (name, path) = (&user.name, path.display());
    // By number: a user from elsewhere has no group's name here.
    let group = user.groups.first().map_or(user.uid, |group| *group);
    let help = match verb {
        "write" => format!("chown {name} {path}"),
        "read" => format!("chgrp {group} {path} && chmod g+r {path}"),
        _ => format!("chgrp {group} {path} && chmod g+x {path}, or keep the file elsewhere"),
    };
    let (mode, uid, gid) = (file.mode() & 0o7777, file.uid(), file.gid());
    Found {
        message: format!("`{name}` may not {verb} {path} (mode {mode:04o}, owner {uid}, group {gid})"),
        help,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nportcullis:x:998:997::/:/bin/false\nodd:x:a:b\n";
    const GROUP: &str = "root:x:0:\nportcullis:x:997:\nssl-cert:x:110:www,portcullis\nother:x:111:ports\n";

    #[test]
    fn a_user_is_found_by_name_and_by_number_with_all_groups() {
        let named = User::find("portcullis", PASSWD, GROUP).unwrap();
        assert_eq!((named.uid, &*named.groups), (998, &[997, 110][..]));
        assert_eq!(User::find("998", PASSWD, GROUP).unwrap(), named);
        let numbers = User::find("65532:65533", PASSWD, GROUP).unwrap();
        assert_eq!((numbers.uid, &*numbers.groups), (65532, &[65533][..]));
        for unknown in ["nobody-here", "", "odd", "1:x"] {
            assert!(User::find(unknown, PASSWD, GROUP).is_err(), "{unknown}");
        }
    }

    #[test]
    fn the_first_of_owner_group_and_others_that_fits_decides_and_root_may_everything() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.pem");
        fs::write(&file, "x").unwrap();
        let about = |mode| {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            fs::metadata(&file).unwrap()
        };
        let (uid, gid) = (about(0o600).uid(), about(0o600).gid());
        let user = |uid, gid| User { name: "u".into(), uid, groups: vec![gid] };
        for (mode, who, reads) in [
            (0o400, user(uid + 1, gid), false),
            (0o440, user(uid + 1, gid), true),
            (0o404, user(uid + 1, gid), false),
            (0o404, user(uid + 1, gid + 1), true),
            (0o440, user(uid + 1, gid + 1), false),
            (0o000, user(0, 0), true),
        ] {
            assert_eq!(who.may(&about(mode), READ), reads, "{mode:o} {who:?}");
        }
    }

    #[test]
    fn a_closed_directory_above_is_named_rather_than_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.toml");
        fs::write(&file, "x").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = User { name: "stranger".into(), uid: 4_000_001, groups: vec![4_000_001] };
        let found = check(&stranger, &file, READ).unwrap_err();
        assert!(found.message.contains("may not enter"), "{found:?}");
        assert!(!found.message.contains("app.toml"), "{found:?}");
        let missing = must_be_made(&stranger, &dir.path().join("state/deep")).unwrap();
        assert!(missing.message.contains("state/deep is not there"), "{missing:?}");
    }
}
