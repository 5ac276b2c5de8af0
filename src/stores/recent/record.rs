//! One request as it is remembered, and what may be asked of the memory. No secret is in it: tokens are fingerprints,
//! share links are keyed hashes, paths are masked.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::request::credential::{Fingerprint, Key};
use crate::stores::blocks::record::{hex_fingerprint, hex_key_option};

/// One request that was decided lately; what a person is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Its id, as in the access log and in `X-Request-Id`; empty for a live stream.
    pub id: String,
    /// Unix milliseconds when its head had come.
    pub time: u64,
    /// The client's address, or `unknown`.
    pub client: String,
    /// The site's name; `None`: it belonged to none.
    pub site: Option<String>,
    /// The route's class.
    pub class: Option<String>,
    /// The method.
    pub method: String,
    /// The route's pattern.
    pub route: Option<String>,
    /// Path and query, masked; remembered only of what was refused or failed.
    pub path: Option<String>,
    /// `permit`, `deny`, `would_deny` or `malformed`.
    pub verdict: String,
    /// Which guard refused it.
    pub guard: Option<String>,
    /// Why, in one word of the closed lists.
    pub reason: Option<String>,
    /// The answer's status; 0: there was none, or not yet.
    pub status: u16,
    /// Why the upstream could not answer, in words.
    pub failure: Option<String>,
    /// What the reason means.
    pub cause: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The credentials that it carried.
    pub tokens: Vec<Token>,
    /// Keyed hash of its share link.
    #[serde(with = "hex_key_option", default)]
    pub share: Option<Key>,
}

/// One credential of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// SHA-256 over the signed part.
    #[serde(with = "hex_fingerprint")]
    pub fingerprint: Fingerprint,
    /// What the access log shows of it where it has no `jti`: 12 hex digits.
    pub log: String,
    /// Its `jti`.
    pub jti: Option<String>,
    /// Its `sub`.
    pub subject: Option<String>,
    /// Unix seconds when it ends, as it says.
    pub expires: Option<u64>,
    /// Perhaps a word that is no token at all: not to be blocked by itself.
    pub guessed: bool,
    /// What it says of itself was verified; else it is only what it says, and anybody can make one that says it.
    #[serde(default)]
    pub verified: bool,
}

/// What is asked of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// The request with this id.
    Id(String),
    /// What was refused, or would have been, at or after this Unix millisecond.
    Denied {
        /// Only of clients in this network.
        client: Option<Who>,
        /// Not older.
        since: u64,
    },
    /// Requests and live streams whose token or share link has a keyed hash that begins so.
    Hash(String),
}

/// Which clients are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Those whose address could not be told.
    Unknown,
    /// Those of a network.
    Network(IpNet),
}

impl Record {
    /// Whether a guard refused it or would have, or it was no request.
    pub fn is_denial(&self) -> bool {
        self.verdict != PERMIT
    }

    /// What can be blocked of it: its credentials, but for mere guesses.
    pub fn blockable(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| !token.guessed)
    }
}

/// The verdict of what went upstream.
pub const PERMIT: &str = "permit";
