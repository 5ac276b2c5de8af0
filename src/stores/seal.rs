//! What the gateway gives to browsers and takes back: sealed, so that nobody else can read, make or change it, and bound
//! to what it is for.
//!
//! AES-256-GCM-SIV (RFC 8452): a repeated random nonce would tell no more than that two texts are the same. Keys are in the
//! state directory; they are rotated, and one that is no longer used for sealing opens what it sealed until it is dropped.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Longest text that is opened, in bytes; a cookie has no more anyway.
pub const LONGEST: usize = 4096;
/// Longest ticket that is opened, in bytes: it holds what the request was sent with.
pub const LONGEST_TICKET: usize = 12 << 10;
/// The length of a key.
pub const KEY_LEN: usize = 32;

const ID_LEN: usize = 4;
const TAG_LEN: usize = 16;

/// What a sealed text is for; one for another is no such text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Knows a device on which somebody has logged in.
    Device,
    /// Lets one download begin on the download host.
    Ticket,
    /// Stands for the token of a login.
    Companion,
}

/// Keys that seal and open; shared by all workers, rotated beside them.
pub struct Seal {
    /// The first one seals.
    keys: ArcSwap<Vec<Key>>,
}

struct Key {
    id: [u8; ID_LEN],
    key: RandomizedNonceKey,
}

impl Seal {
    /// From the keys of the state directory, the newest first. Without any nothing is sealed or opened.
    pub fn new(secrets: &[[u8; KEY_LEN]]) -> Self {
        Self { keys: ArcSwap::new(keys_of(secrets)) }
    }

    /// Takes others from now on.
    pub fn publish(&self, secrets: &[[u8; KEY_LEN]]) {
        self.keys.store(keys_of(secrets));
    }

    /// Seals a text for a purpose; it opens only with the same `bound`, e.g. the site.
    pub fn seal(&self, purpose: Purpose, bound: &[u8], plain: &[u8]) -> Option<String> {
        let keys = self.keys.load();
        let key = keys.first()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(purpose.context(bound));
        let nonce = key.key.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&key.id[..], nonce.as_ref(), &sealed].concat()))
    }

    /// Opens what was sealed for the same purpose and bound; `None` for everything else.
    pub fn open(&self, purpose: Purpose, bound: &[u8], text: &str) -> Option<Vec<u8>> {
        if text.len() > purpose.longest() {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (id, rest) = bytes.split_at_checked(ID_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let aad = Aad::from(purpose.context(bound));
        let length = key.key.open_in_place(nonce, aad, &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }

    /// How long the sealed form of so many bytes is.
    pub const fn sealed_len(plain: usize) -> usize {
        (ID_LEN + NONCE_LEN + plain + TAG_LEN).div_ceil(3) * 4
    }
}

fn keys_of(secrets: &[[u8; KEY_LEN]]) -> Arc<Vec<Key>> {
    Arc::new(secrets.iter().filter_map(Key::new).collect())
}

impl Key {
    /// Named by a hash, so that a key is found without trying each.
    fn new(secret: &[u8; KEY_LEN]) -> Option<Self> {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(b"portcullis key name\0");
        context.update(secret);
        let id = context.finish().as_ref().first_chunk().copied()?;
        Some(Self { id, key: RandomizedNonceKey::new(&AES_256_GCM_SIV, secret).ok()? })
    }
}

impl Purpose {
    const fn longest(self) -> usize {
        match self {
            Self::Ticket => LONGEST_TICKET,
            _ => LONGEST,
        }
    }

    fn context(self, bound: &[u8]) -> Vec<u8> {
        let word: &[u8] = match self {
            Self::Device => b"device\0",
            Self::Ticket => b"ticket\0",
            Self::Companion => b"companion\0",
        };
        [word, bound].concat()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").field("keys", &self.keys.load().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(bytes: &[u8]) -> Seal {
        Seal::new(&bytes.iter().map(|byte| [*byte; KEY_LEN]).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_bound_only() {
        let own = seal(&[1]);
        let text = own.seal(Purpose::Device, b"a.example", b"hello").unwrap();
        assert_eq!(own.open(Purpose::Device, b"a.example", &text).as_deref(), Some(&b"hello"[..]));
        assert_eq!(own.open(Purpose::Device, b"b.example", &text), None);
        assert_eq!(seal(&[2]).open(Purpose::Device, b"a.example", &text), None);
        for other in [Purpose::Ticket, Purpose::Companion] {
            assert_eq!(own.open(other, b"a.example", &text), None);
        }
        assert!(text.len() <= Seal::sealed_len(5));
        let again = own.seal(Purpose::Device, b"a.example", b"hello").unwrap();
        assert_ne!(text, again, "nobody can tell what is the same");
    }

    #[test]
    fn a_changed_or_cut_text_opens_nothing() {
        let own = seal(&[1]);
        let text = own.seal(Purpose::Device, b"a", b"hello").unwrap();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                own.open(Purpose::Device, b"a", std::str::from_utf8(&bytes).unwrap()),
                None,
                "byte {at}"
            );
            assert_eq!(own.open(Purpose::Device, b"a", &text[..at]), None, "cut at {at}");
        }
        for text in ["", "=", "ä", &"A".repeat(10_000)] {
            assert_eq!(own.open(Purpose::Device, b"a", text), None);
        }
    }

    #[test]
    fn a_key_that_seals_no_more_opens_until_it_is_dropped() {
        let old = seal(&[1]).seal(Purpose::Device, b"a", b"x").unwrap();
        assert!(seal(&[2, 1]).open(Purpose::Device, b"a", &old).is_some());
        assert!(seal(&[3, 2]).open(Purpose::Device, b"a", &old).is_none());
        assert!(seal(&[]).open(Purpose::Device, b"a", &old).is_none());
        assert!(seal(&[]).seal(Purpose::Device, b"a", b"x").is_none(), "no key, no cookie");
        let own = seal(&[2]);
        own.publish(&[[1; KEY_LEN]]);
        assert!(own.open(Purpose::Device, b"a", &old).is_some());
    }
}
