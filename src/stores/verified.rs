//! Tokens that were verified lately, so that a signature is checked once and not with each request.

use papaya::HashMap;

use crate::request::verification::Times;

/// Tokens remembered for one site; some 6 MiB. Only tokens that were verified come in, so no stranger can fill it; past
/// it all are forgotten and verified anew.
const MOST: usize = 65_536;

/// SHA-256 over a whole token, signature included.
pub type TokenHash = [u8; 32];

/// The tokens of one site. Reads take no lock.
#[derive(Debug, Default)]
pub struct Verified {
    tokens: HashMap<TokenHash, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    times: Times,
    generation: u64,
}

impl Verified {
    /// When a token holds, if it was verified with the keys of this generation.
    pub fn times(&self, token: &TokenHash, generation: u64) -> Option<Times> {
        let tokens = self.tokens.pin();
        tokens.get(token).filter(|entry| entry.generation == generation).map(|entry| entry.times)
    }

    /// Remembers.
    pub fn remember(&self, token: TokenHash, times: Times, generation: u64) {
        let tokens = self.tokens.pin();
        if tokens.len() >= MOST {
            tokens.clear();
        }
        tokens.insert(token, Entry { times, generation });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}
