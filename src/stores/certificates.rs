//! Certificates that an authority has given, its account, and what went wrong: one directory for each authority below the
//! state directory, 0700, its files 0600, each written aside, synced and renamed.
//!
//! Key and chain of a host are one file: there is no moment at which they do not belong together.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::durable::directory::{private_directory, replace_private};
use crate::config::acme::Acme;
use crate::config::values::HostPattern;

/// No chain with its key is larger, nor is an account.
const LARGEST: u64 = 256 << 10;

/// No host: those have a dot in their name.
const TROUBLE: &str = "authority.json";

/// What is kept of one authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateStore {
    state: PathBuf,
    path: PathBuf,
    account: String,
}

impl CertificateStore {
    /// The one of this authority. Nothing is made yet.
    pub fn of(state_dir: &Path, acme: &Acme) -> Self {
        let kid = acme.external_account.as_ref().map(|account| &*account.kid).unwrap_or_default();
        Self {
            path: state_dir.join("acme").join(name_of(&acme.directory)),
            state: state_dir.to_owned(),
            account: format!("account-{}.json", short_hash(&format!("{}|{kid}", acme.email))),
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Key and chain of a host in PEM; `None`: there are none.
    ///
    /// # Errors
    /// When the file is there and cannot be read as text.
    pub fn certificate(&self, host: &HostPattern) -> io::Result<Option<Zeroizing<String>>> {
        self.read(&file_of(host, "pem"))
    }

    /// Replaces key and chain of a host.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_certificate(&self, host: &HostPattern, pem: &str) -> io::Result<()> {
        self.replace(&file_of(host, "pem"), pem)
    }

    /// What was noted of a host.
    ///
    /// # Errors
    /// As [`CertificateStore::certificate`].
    pub fn record(&self, host: &HostPattern) -> io::Result<Option<Zeroizing<String>>> {
        self.read(&file_of(host, "json"))
    }

    /// Notes something of a host.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_record(&self, host: &HostPattern, json: &str) -> io::Result<()> {
        self.replace(&file_of(host, "json"), json)
    }

    /// The records of a host that were put into the DNS.
    ///
    /// # Errors
    /// As [`CertificateStore::certificate`].
    pub fn records(&self, host: &HostPattern) -> io::Result<Option<Zeroizing<String>>> {
        self.read(&file_of(host, "dns"))
    }

    /// Replaces them.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_records(&self, host: &HostPattern, json: &str) -> io::Result<()> {
        self.replace(&file_of(host, "dns"), json)
    }

    /// What went wrong with the authority itself.
    ///
    /// # Errors
    /// As [`CertificateStore::certificate`].
    pub fn trouble(&self) -> io::Result<Option<Zeroizing<String>>> {
        self.read(TROUBLE)
    }

    /// Replaces it.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_trouble(&self, json: &str) -> io::Result<()> {
        self.replace(TROUBLE, json)
    }

    /// The account: of this mail address and this external account.
    ///
    /// # Errors
    /// As [`CertificateStore::certificate`].
    pub fn account(&self) -> io::Result<Option<Zeroizing<String>>> {
        self.read(&self.account)
    }

    /// Replaces the account.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_account(&self, json: &str) -> io::Result<()> {
        self.replace(&self.account, json)
    }

    fn read(&self, name: &str) -> io::Result<Option<Zeroizing<String>>> {
        let file = match fs::File::open(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut text = Zeroizing::new(String::new());
        file.take(LARGEST + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LARGEST {
            return Err(io::Error::other(format!("it is larger than {} KiB", LARGEST >> 10)));
        }
        Ok(Some(text))
    }

    fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        private_directory(&self.state.join("acme"))?;
        private_directory(&self.path)?;
        replace_private(&self.state, &self.path.join(name), text.as_bytes())
    }
}

/// The word of the config, or what a person and a file system both take of an address.
fn name_of(directory: &str) -> String {
    let Some(rest) = directory.strip_prefix("https://") else { return directory.to_owned() };
    let host: String = rest
        .split('/')
        .next()
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '-' })
        .take(80)
        .collect();
    format!("{host}-{}", short_hash(directory))
}

/// A host has no `/`, and no name begins with a dot.
fn file_of(host: &HostPattern, kind: &str) -> String {
    let wild = if host.is_wildcard() { "_wildcard." } else { "" };
    format!("{wild}{}.{kind}", host.name())
}

fn short_hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store(dir: &Path, directory: &str) -> CertificateStore {
        let acme = Acme {
            email: "a@b.test".into(),
            directory: directory.into(),
            ca_file: None,
            ca: None,
            profile: None,
            challenges: Vec::new(),
            dns_command: Vec::new(),
            dns_timeout: std::time::Duration::ZERO,
            external_account: None,
        };
        CertificateStore::of(dir, &acme)
    }

    #[test]
    fn what_is_kept_is_for_its_owner_only_and_each_authority_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let host: HostPattern = "*.a.test".parse().unwrap();
        let real = store(dir.path(), "letsencrypt");
        real.keep_certificate(&host, "key and chain").unwrap();
        real.keep_account("{}").unwrap();
        assert_eq!(real.certificate(&host).unwrap().unwrap().as_str(), "key and chain");
        assert_eq!(store(dir.path(), "letsencrypt-staging").certificate(&host).unwrap(), None);
        let url = store(dir.path(), "https://ca.test:14000/../dir");
        assert_eq!(url.path().parent(), real.path().parent());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(real.path()), 0o700);
        assert_eq!(mode(real.path().parent().unwrap()), 0o700);
        for entry in fs::read_dir(real.path()).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn garbage_is_an_error_and_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let host: HostPattern = "a.test".parse().unwrap();
        let store = store(dir.path(), "letsencrypt");
        store.keep_certificate(&host, "x").unwrap();
        fs::write(store.path().join("a.test.pem"), [0xff, 0xfe]).unwrap();
        assert!(store.certificate(&host).is_err());
        fs::write(store.path().join("a.test.pem"), vec![b'a'; 300 << 10]).unwrap();
        assert!(store.certificate(&host).is_err());
    }
}
