//! One block: as it stands on disk, on the admin socket, and (with its monotonic end) in memory.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::clock::Now;
use crate::request::credential::{Fingerprint, Key};

/// One block. Its JSON is the form on disk, so a field may be added, never renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Number, never used twice.
    pub id: u64,
    /// A host name of the only site where it holds; `None`: all sites.
    #[serde(default)]
    pub site: Option<String>,
    /// What is blocked.
    pub what: What,
    /// Why, in the operator's words.
    #[serde(default)]
    pub reason: String,
    /// Who gave the order.
    #[serde(default)]
    pub by: String,
    /// Unix milliseconds of the order.
    pub created: u64,
    /// Unix milliseconds when it ends by itself.
    pub until: u64,
    /// Taught by an answer of the application rather than ordered by a person.
    #[serde(default)]
    pub learned: bool,
    /// The one token that a block of a person does not mean: that of whoever changed his own password.
    #[serde(default, with = "hex_fingerprint_option", skip_serializing_if = "Option::is_none")]
    pub spares: Option<Fingerprint>,
    /// Unix milliseconds when somebody lifted it.
    #[serde(default)]
    pub ended: Option<u64>,
}

/// What a block blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum What {
    /// One token, in all its spellings.
    Fingerprint {
        /// SHA-256 over the signed part, 64 hex digits.
        #[serde(with = "hex_fingerprint")]
        fingerprint: Fingerprint,
    },
    /// One token, by what it calls itself.
    Jti {
        /// The claim.
        jti: String,
    },
    /// The sessions of one subject.
    Subject {
        /// The `sub` claim; a number is written as text.
        subject: String,
        /// Only tokens of this issuer; `None`: of any.
        #[serde(default)]
        issuer: Option<String>,
        /// Sessions begun at or before this Unix second.
        before: u64,
        /// Later sessions too: the subject cannot log in again.
        #[serde(default)]
        and_logins: bool,
    },
    /// One session of an identity provider.
    Session {
        /// The `sid` claim.
        session: String,
        /// Whose it is: a token of this subject that names no session may be of this one.
        #[serde(default)]
        subject: Option<String>,
        /// Only tokens of this issuer; `None`: of any.
        #[serde(default)]
        issuer: Option<String>,
        /// Of tokens that name no session, those begun at or before this Unix second.
        before: u64,
    },
    /// The sessions of everyone.
    Everyone {
        /// Sessions begun at or before this Unix second.
        before: u64,
        /// Later sessions too.
        #[serde(default)]
        and_logins: bool,
    },
    /// A share link.
    Share {
        /// Keyed hash of the link's token, 32 hex digits.
        #[serde(with = "hex_key")]
        share: Key,
    },
    /// A client network.
    Address {
        /// CIDR.
        network: IpNet,
    },
}

/// A block in memory: with the monotonic time before which it cannot end, whatever the wall clock does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The block.
    pub block: Block,
    /// Nanoseconds of [`Now::mono`].
    pub until_mono: u64,
}

// === impl What ===

impl What {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Fingerprint { .. } => Kind::Fingerprint,
            Self::Jti { .. } => Kind::Jti,
            Self::Subject { .. } => Kind::Subject,
            Self::Session { .. } => Kind::Session,
            Self::Everyone { .. } => Kind::Everyone,
            Self::Share { .. } => Kind::Share,
            Self::Address { .. } => Kind::Address,
        }
    }

    /// Whether it blocks all that the other does.
    fn covers(&self, other: &Self) -> bool {
        let issuers = |own: &Option<String>, of: &Option<String>| own.is_none() || own == of;
        match (self, other) {
            (
                Self::Subject { subject, issuer, before, and_logins },
                Self::Subject { subject: one, issuer: of, before: until, and_logins: logins },
            ) => subject == one && issuers(issuer, of) && (*and_logins || (!logins && before >= until)),
            (
                Self::Session { session, subject, issuer, before },
                Self::Session { session: one, subject: whose, issuer: of, before: until },
            ) => {
                session == one
                    && issuers(issuer, of)
                    && (whose.is_none() || (subject == whose && before >= until))
            }
            (
                Self::Everyone { before, and_logins },
                Self::Everyone { before: until, and_logins: logins }
                | Self::Subject { before: until, and_logins: logins, .. },
            ) => *and_logins || (!logins && before >= until),
            (
                Self::Everyone { and_logins: true, .. },
                Self::Fingerprint { .. } | Self::Jti { .. } | Self::Session { .. },
            ) => true,
            (Self::Address { network }, Self::Address { network: inner }) => network.contains(inner),
            (one, other) => one == other,
        }
    }

    /// For people: one short phrase without the kind's word. What it quotes may come from a stranger's token.
    pub fn phrase(&self) -> String {
        let and = |logins: bool| if logins { " and logins" } else { "" };
        match self {
            Self::Fingerprint { fingerprint } => fingerprint.to_string(),
            Self::Jti { jti } => jti.clone(),
            Self::Subject { subject, issuer, and_logins, .. } => {
                let issuer = issuer.as_ref().map(|issuer| format!(" of {issuer}")).unwrap_or_default();
                format!("{subject}{issuer}{}", and(*and_logins))
            }
            Self::Session { session, subject, issuer, .. } => {
                let subject =
                    subject.as_ref().map(|subject| format!(", subject {subject}")).unwrap_or_default();
                let issuer = issuer.as_ref().map(|issuer| format!(" of {issuer}")).unwrap_or_default();
                format!("{session}{subject}{issuer}")
            }
            Self::Everyone { and_logins, .. } => format!("all sessions{}", and(*and_logins)),
            Self::Share { share } => format!("{share:?}"),
            Self::Address { network } => network.to_string(),
        }
    }
}

// === impl Block ===

impl Block {
    /// Whether all that the other blocks is blocked by this one too, for as long as both stand: the same thing, or the network
    /// around it, or everyone.
    pub fn covers(&self, other: &Self) -> bool {
        (self.site.is_none() || self.site == other.site) && self.what.covers(&other.what)
    }

    /// Puts the block into memory: what the wall clock leaves of it must also pass on the monotonic clock.
    ///
    /// A wall clock that stands before the order (a board without a battery) must not lengthen that.
    pub fn held(self, now: Now) -> Held {
        let left = self.until.saturating_sub(now.wall.max(self.created));
        let until_mono = now.mono.saturating_add(left.saturating_mul(1_000_000));
        Held { block: self, until_mono }
    }
}

// === impl Held ===

impl Held {
    /// Whether it is over: lifted, or past its end on both clocks.
    pub fn is_over(&self, now: Now) -> bool {
        self.block.ended.is_some() || (now.wall >= self.block.until && now.mono >= self.until_mono)
    }
}

/// Writes bytes as hex.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly `N` bytes of hex, in either case.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

pub(crate) mod hex_fingerprint {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Fingerprint, from_hex, to_hex};

    pub(crate) fn serialize<S: Serializer>(value: &Fingerprint, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_hex(&value.0))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Fingerprint, D::Error> {
        let text = String::deserialize(from)?;
        from_hex(&text).map(Fingerprint).ok_or_else(|| D::Error::custom("a fingerprint is 64 hex digits"))
    }
}

mod hex_fingerprint_option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Fingerprint, from_hex, to_hex};

    pub(super) fn serialize<S: Serializer>(value: &Option<Fingerprint>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(fingerprint) => to.serialize_some(&to_hex(&fingerprint.0)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Fingerprint>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let wrong = || D::Error::custom("a fingerprint is 64 hex digits");
        from_hex(&text).map(Fingerprint).map(Some).ok_or_else(wrong)
    }
}

mod hex_key {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Key, from_hex, to_hex};

    pub(super) fn serialize<S: Serializer>(value: &Key, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&to_hex(&value.0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Key, D::Error> {
        let text = String::deserialize(from)?;
        from_hex(&text).map(Key).ok_or_else(|| D::Error::custom("a share's hash is 32 hex digits"))
    }
}

pub(crate) mod hex_key_option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{Key, from_hex, to_hex};

    pub(crate) fn serialize<S: Serializer>(value: &Option<Key>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(key) => to.serialize_some(&to_hex(&key.0)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Key>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        let key = |text: String| {
            from_hex(&text).map(Key).ok_or_else(|| D::Error::custom("a share's hash is 32 hex digits"))
        };
        text.map(key).transpose()
    }
}
