//! `[site.tokens] verify`: what makes a token of this site a true one.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::keys::VerifyKey;
use super::upstream::UpstreamTls;

/// How a site's tokens are verified.
#[derive(Debug, Clone)]
pub struct Verification {
    /// Where the keys are.
    pub source: KeySource,
    /// What the claims must say.
    pub wanted: Wanted,
    /// Streams end with their token.
    pub cut_at_expiry: bool,
}

/// Where keys are.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// They were read from a file, which is watched.
    File(PathBuf, Arc<[VerifyKey]>),
    /// They are fetched, and fetched again.
    Address(Address),
}

/// Where a key set is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `https://…`, or `http://` on this machine.
    pub url: Box<str>,
    /// Whom that server must prove to be; `None`: http. Another CA makes it another address.
    pub tls: Option<Arc<UpstreamTls>>,
}

impl Address {
    fn identity(&self) -> (&str, Option<&[u8; 32]>) {
        (&self.url, self.tls.as_ref().map(|tls| &tls.fingerprint))
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the claims of a token must say; an empty list asks for nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// `iss` must be one of these.
    pub issuers: Vec<Box<str>>,
    /// `aud`, or one of its entries, must be one of these.
    pub audiences: Vec<Box<str>>,
    /// Claims that must be there with just this value: `type = "access"`.
    pub claims: Vec<(Box<str>, Value)>,
}

impl Wanted {
    /// Whether the claims say all that is asked for.
    pub fn holds(&self, claims: &Map<String, Value>) -> bool {
        let issuer =
            self.issuers.is_empty() || claims.get("iss").is_some_and(|said| is_one_of(said, &self.issuers));
        let audience = self.audiences.is_empty()
            || claims.get("aud").is_some_and(|said| match said {
                Value::Array(list) => list.iter().any(|entry| is_one_of(entry, &self.audiences)),
                one => is_one_of(one, &self.audiences),
            });
        issuer && audience && self.claims.iter().all(|(name, value)| claims.get(&**name) == Some(value))
    }
}

fn is_one_of(said: &Value, words: &[Box<str>]) -> bool {
    said.as_str().is_some_and(|said| words.iter().any(|word| **word == *said))
}
