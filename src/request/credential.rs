//! Finds every candidate token of a request; what is read of it without a key may block, never allow.

use std::fmt;

/// A key of the block index: the first half of a SHA-256 over a name and the thing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

/// SHA-256 over the signed part of a token: all before the last dot of a JWT or pair, the whole of an opaque one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// One candidate token of a request. No secret is kept in it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Names the token in the block index and in logs (shortened).
    pub fingerprint: Fingerprint,
    /// What the token says of itself, unverified; `None` when it has no claims that can be read.
    pub claims: Option<Claims>,
    /// It came in a cookie: on `page` and `login` it is stripped and expired rather than refused.
    pub in_cookie: bool,
}

/// What a token says of itself. Nobody has verified it: it may block, never allow.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Key of the token's `jti`: see [`jti_key`].
    pub jti: Option<Key>,
    /// The `jti` as text for logs, when it is short and printable.
    pub jti_text: Option<Box<str>>,
    /// Key of the token's `sub`: see [`subject_key`].
    pub subject: Option<Key>,
    /// Unix seconds of issue: `iat`, or `exp` minus the lifetime; `None` counts as oldest.
    pub issued: Option<u64>,
    /// Unix seconds of expiry.
    pub expires: Option<u64>,
    /// Key of the token's `iss`: see [`issuer_key`].
    pub issuer: Option<Key>,
}

/// The key of a subject. `1` and `"1"` are the same subject.
pub fn subject_key(subject: &str) -> Key {
    named_key("subject", subject.as_bytes())
}

/// The key of an issuer.
pub fn issuer_key(issuer: &str) -> Key {
    named_key("issuer", issuer.as_bytes())
}

/// The key of a token id. `1` and `"1"` are the same.
pub fn jti_key(jti: &str) -> Key {
    named_key("jti", jti.as_bytes())
}

impl Fingerprint {
    /// The fingerprint of a signed part.
    pub fn of(signed: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, signed);
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// The key of this fingerprint in the block index.
    pub fn key(&self) -> Key {
        let mut key = [0; 16];
        key.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        Key(key)
    }
}

fn named_key(name: &str, thing: &[u8]) -> Key {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(name.as_bytes());
    context.update(&[0]);
    context.update(thing);
    let mut key = [0; 16];
    key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Key(key)
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
