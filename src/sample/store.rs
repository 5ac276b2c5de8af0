//! What the sample application remembers: a bounded number of small files and links, in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Most files, and most links; the oldest go first.
const MAX_ENTRIES: usize = 100;

/// Largest file that is kept; a larger one is refused.
pub(super) const MAX_FILE: usize = 4 << 20;

/// The application's state.
pub(super) struct Store {
    /// Signs tokens; anew at each start, so tokens end with it.
    pub(super) key: aws_lc_rs::hmac::Key,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) files: VecDeque<File>,
    pub(super) shares: VecDeque<Share>,
}

#[derive(Clone)]
pub(super) struct File {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) media_type: String,
    pub(super) content: Bytes,
}

#[derive(Clone)]
pub(super) struct Share {
    pub(super) token: String,
    pub(super) file: String,
}

impl Store {
    /// A store that holds two files.
    pub(super) fn new() -> Self {
        let mut secret = [0; 32];
        fill_random(&mut secret);
        let store = Self {
            key: aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret),
            state: Mutex::default(),
        };
        store.add_file("welcome.txt".into(), "text/plain".into(), Bytes::from_static(WELCOME.as_bytes()));
        store.add_file(
            "notes.md".into(),
            "text/markdown".into(),
            Bytes::from_static(b"# Notes\n\n- buy milk\n"),
        );
        store
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_file(&self, title: String, media_type: String, content: Bytes) -> File {
        let file = File { id: random_id(), title, media_type, content };
        bounded(&mut self.state().files, file.clone());
        file
    }

    pub(super) fn file(&self, id: &str) -> Option<File> {
        self.state().files.iter().find(|file| file.id == id).cloned()
    }

    pub(super) fn share(&self, file: &str) -> Option<Share> {
        self.file(file)?;
        let share = Share { token: random_id(), file: file.to_owned() };
        bounded(&mut self.state().shares, share.clone());
        Some(share)
    }

    pub(super) fn shared_file(&self, token: &str) -> Option<File> {
        let share = self.state().shares.iter().find(|share| share.token == token).cloned()?;
        self.file(&share.file)
    }
}

const WELCOME: &str = "Welcome to the sample application behind Portcullis.\n";

fn bounded<T>(list: &mut VecDeque<T>, entry: T) {
    if list.len() >= MAX_ENTRIES {
        list.pop_front();
    }
    list.push_back(entry);
}

/// 22 characters of base64url: 128 bits.
fn random_id() -> String {
    let mut bytes = [0; 16];
    fill_random(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

#[expect(clippy::expect_used, reason = "a system without randomness can serve nothing")]
fn fill_random(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system gives random bytes");
}
