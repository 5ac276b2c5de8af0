//! The block list kept as a file: what its entries say.

/// One entry of the block file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileBlock {
    /// What is blocked.
    pub what: FileWhat,
    /// A host name of the only site where it holds.
    pub site: Option<String>,
    /// Why.
    pub reason: String,
    /// Unix milliseconds of its end; `None`: as long as it is listed.
    pub until: Option<u64>,
}

/// What an entry of the block file blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileWhat {
    /// One token, by the SHA-256 over its signed part.
    Fingerprint([u8; 32]),
    /// One token, by what it calls itself.
    Jti(String),
    /// A subject's sessions begun before the entry was first seen, or later ones too.
    Subject {
        /// The claim.
        subject: String,
        /// Later sessions too.
        and_logins: bool,
    },
    /// The same of everyone.
    Everyone {
        /// Later sessions too.
        and_logins: bool,
    },
    /// A share link, by its keyed hash.
    Share([u8; 16]),
    /// A client network.
    Address(ipnet::IpNet),
}
