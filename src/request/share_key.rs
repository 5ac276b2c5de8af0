//! The key under which share links are hashed: a link's token itself is neither stored nor logged.

use std::fmt;

use aws_lc_rs::hmac;

use super::credential::Key;

/// The gateway's own secret for hashing share links.
#[derive(Clone)]
pub struct ShareKey(hmac::Key);

impl ShareKey {
    /// A key from its 32 bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The keyed hash of a share token: the first half of an HMAC-SHA256.
    pub fn key_of(&self, token: &[u8]) -> Key {
        let tag = hmac::sign(&self.0, token);
        let mut key = [0; 16];
        key.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Key(key)
    }
}

impl fmt::Debug for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShareKey(..)")
    }
}
