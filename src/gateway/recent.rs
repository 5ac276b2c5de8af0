//! What this worker remembers of its latest requests, for `denials`, `explain --id` and `block request`.
//!
//! Two rings with shares per client ([`Ring`]): one of what was refused or failed, one of what was permitted, so that
//! ordinary traffic does not push refusals out. No lock: the worker alone writes and reads it. A permitted request costs a
//! move of [`Entry`] and a reference to facts that are there anyway; nothing is copied, masked or hashed for it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use http::Method;

use super::causes::Told;
use crate::config::class::Class;
use crate::request::client::Client;
use crate::request::credential::Credential;
use crate::request::facts::Facts;
use crate::request::share_key::ShareKey;
use crate::stores::recent::record::{PERMIT, Who};
use crate::stores::recent::{Query, Record, Ring, Token};
use crate::stores::streams::Streams;
use crate::telemetry::line::Verdict;

/// Entries of each ring of each worker. With one token a request both rings take 2 MiB; at the very worst, when strangers send
/// sixteen tokens with every request, 17 MiB (measured in `tests/allocations.rs`).
const KEPT: u16 = 1024;
/// Digits of a token's keyed hash in the access log.
const SHORT: usize = 12;

/// One request.
pub struct Entry {
    /// Its id.
    pub id: Rc<str>,
    /// Unix milliseconds.
    pub wall: u64,
    /// Who asked.
    pub client: Client,
    /// The site's name.
    pub site: Option<Rc<str>>,
    /// The route's pattern.
    pub route: Option<Rc<str>>,
    /// Its class.
    pub class: Option<Class>,
    /// The method; `None`: its head was never read.
    pub method: Option<Method>,
    /// What is known of it, once it was read.
    pub facts: Option<Rc<Facts>>,
    /// Its tokens were verified, but for cookies where a bad one is only stripped.
    pub verified: bool,
    /// What was decided.
    pub verdict: Verdict,
    /// In the operator's words.
    pub told: Option<Told>,
    /// The answer's status; 0: none.
    pub status: u16,
    /// Path and query, masked; of refusals and failures.
    pub path: Option<Box<str>>,
    /// Why it failed.
    pub failure: Option<Cow<'static, str>>,
}

/// The memory of one worker.
pub struct Recents {
    refused: RefCell<Ring<Entry>>,
    permitted: RefCell<Ring<Entry>>,
    share_key: ShareKey,
}

impl Recents {
    /// An empty memory. The key makes the short hashes that the access log shows.
    pub fn new(share_key: ShareKey) -> Self {
        let ring = || RefCell::new(Ring::new(KEPT));
        Self { refused: ring(), permitted: ring(), share_key }
    }

    /// Remembers a request.
    pub fn note(&self, entry: Entry) {
        let plain = entry.verdict == Verdict::Permitted && entry.failure.is_none();
        let ring = if plain { &self.permitted } else { &self.refused };
        ring.borrow_mut().push(entry.client, entry);
    }

    /// Answers a question, from the rings and, for hashes, from the live streams too. In no order.
    pub fn recall(&self, query: &Query, streams: &Streams) -> Vec<Record> {
        match query {
            Query::Id(id) => self.records(|entry| *entry.id == **id),
            Query::Denied { client, since } => {
                let meant = |entry: &Entry| {
                    entry.verdict != Verdict::Permitted
                        && entry.wall >= *since
                        && client.is_none_or(|client| is_of(entry.client, client))
                };
                let refused = self.refused.borrow();
                refused.iter().filter(|entry| meant(entry)).map(|entry| self.record(entry)).collect()
            }
            Query::Hash(hash) => {
                let mut found =
                    self.records(|entry| entry.facts.as_ref().is_some_and(|facts| self.has(facts, hash)));
                streams.each(|facts| {
                    if self.has(facts, hash) {
                        found.push(self.of_facts(facts, false));
                    }
                });
                found
            }
        }
    }

    /// The clients of all that is remembered, each once with its number of requests, but no more than so many clients.
    pub fn clients(&self, most: usize) -> Vec<(Client, usize)> {
        let mut clients: Vec<(Client, usize)> = Vec::new();
        for entry in self.refused.borrow().iter().chain(self.permitted.borrow().iter()) {
            if let Some((_, count)) = clients.iter_mut().find(|(known, _)| *known == entry.client) {
                *count += 1;
            } else if clients.len() < most {
                clients.push((entry.client, 1));
            } else {
                break;
            }
        }
        clients
    }

    fn records(&self, meant: impl Fn(&Entry) -> bool) -> Vec<Record> {
        let (refused, permitted) = (self.refused.borrow(), self.permitted.borrow());
        refused
            .iter()
            .chain(permitted.iter())
            .filter(|entry| meant(entry))
            .map(|entry| self.record(entry))
            .collect()
    }

    /// Whether a token or share link of the request has a keyed hash that begins so.
    fn has(&self, facts: &Facts, hash: &str) -> bool {
        let share = facts.share.is_some_and(|share| format!("{share:?}").starts_with(hash));
        share
            || (hash.len() <= SHORT && facts.credentials.iter().any(|one| self.short(one).starts_with(hash)))
    }

    fn short(&self, credential: &Credential) -> String {
        let mut hash = format!("{:?}", self.share_key.key_of(&credential.fingerprint.0));
        hash.truncate(SHORT);
        hash
    }

    fn record(&self, entry: &Entry) -> Record {
        let (verdict, guard, reason) = match entry.verdict {
            Verdict::Permitted => (PERMIT, None, None),
            Verdict::Denied { guard, reason } => ("deny", Some(guard), Some(reason)),
            Verdict::Observed { guard, reason } => ("would_deny", Some(guard), Some(reason)),
            Verdict::Malformed(reason) => ("malformed", None, Some(reason)),
        };
        let text = |word: &str| word.to_owned();
        let facts =
            entry.facts.as_deref().map(|facts| self.of_facts(facts, entry.verified)).unwrap_or_default();
        Record {
            id: entry.id.to_string(),
            time: entry.wall,
            client: entry.client.to_string(),
            site: entry.site.as_deref().map(text),
            class: entry.class.map(|class| text(class.word())),
            method: entry.method.as_ref().map_or("-", Method::as_str).to_owned(),
            route: entry.route.as_deref().map(text),
            path: entry.path.as_deref().map(text),
            verdict: text(verdict),
            guard: guard.map(text),
            reason: reason.map(text),
            status: entry.status,
            failure: entry.failure.as_deref().map(text),
            cause: entry.told.map(|told| text(told.cause)),
            remedy: entry.told.map(|told| text(told.remedy)),
            ..facts
        }
    }

    fn of_facts(&self, facts: &Facts, verified: bool) -> Record {
        let stripped = matches!(facts.class, Class::Page | Class::Login | Class::Refresh);
        let of = |one: &Credential| Token {
            verified: verified && one.claims.is_some() && !(stripped && one.in_cookie),
            ..self.token(one)
        };
        Record {
            time: facts.now.wall,
            client: facts.client.to_string(),
            class: Some(facts.class.word().to_owned()),
            method: facts.method.to_string(),
            verdict: PERMIT.to_owned(),
            tokens: facts.credentials.iter().map(of).collect(),
            share: facts.share,
            ..Record::default()
        }
    }

    fn token(&self, credential: &Credential) -> Token {
        let claims = credential.claims.as_ref();
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        Token {
            fingerprint: credential.fingerprint,
            log: self.short(credential),
            jti: claims.and_then(|claims| text(&claims.jti_text)),
            subject: claims.and_then(|claims| text(&claims.subject_text)),
            expires: claims.and_then(|claims| claims.expires),
            guessed: credential.guessed && claims.is_none(),
            verified: false,
        }
    }
}

fn is_of(client: Client, who: Who) -> bool {
    match (client, who) {
        (Client::Unknown, Who::Unknown) => true,
        (Client::Address(address), Who::Network(network)) => network.contains(&address),
        _ => false,
    }
}

impl std::fmt::Debug for Recents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recents").finish_non_exhaustive()
    }
}
