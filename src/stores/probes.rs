//! Probes of `block --verify`: requests that the gateway sends to itself, through its own listener, to see that a block holds.
//!
//! A probe carries a number that is good once and known to this process only. By it the gateway knows that it is to answer
//! itself, whatever is decided: a blocked token never reaches the application because somebody wanted to see that it does not.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::request::client::Client;
use crate::request::credential::{
    Claims, Credential, Fingerprint, Key, issuer_key, jti_key, session_key, subject_key,
};
use crate::request::facts::Facts;
use crate::stores::blocks::What;

/// The field that carries the number.
pub const FIELD: &str = "x-portcullis-probe";
/// The field of the answer that says which guard refused and why, or `permit`.
pub const VERDICT: &str = "x-portcullis-verdict";
/// Where probes go.
pub const PATH: &str = "/.well-known/portcullis/probe";
/// Probes under way.
const MOST: usize = 64;

/// As whom a probe comes; nothing of it: as what it carries.
#[derive(Debug, Clone, Default)]
pub struct Guise {
    credential: Option<Credential>,
    share: Option<Key>,
    client: Option<IpAddr>,
}

/// The numbers that are good now.
#[derive(Debug, Default)]
pub struct Probes(Mutex<HashMap<Box<[u8]>, Guise>>);

impl Guise {
    /// As whom a block means.
    pub fn of(what: &What) -> Self {
        let text = |claims| Self::with(Fingerprint::of(b"probe"), Some(claims));
        let none = Claims::default();
        let issuer = |issuer: &Option<String>| issuer.as_deref().map(issuer_key);
        match what {
            What::Fingerprint { fingerprint } => Self::with(*fingerprint, None),
            What::Jti { jti } => text(Claims { jti: Some(jti_key(jti)), ..none }),
            What::Subject { subject, issuer: by, before, .. } => text(Claims {
                subject: Some(subject_key(subject)),
                issuer: issuer(by),
                issued: Some(*before),
                ..none
            }),
            What::Session { session, issuer: by, .. } => {
                text(Claims { session: Some(session_key(session)), issuer: issuer(by), ..none })
            }
            What::Everyone { before, .. } => text(Claims { issued: Some(*before), ..none }),
            What::Share { share } => Self { share: Some(*share), ..Self::default() },
            What::Address { network } => Self { client: Some(network.addr()), ..Self::default() },
        }
    }

    fn with(fingerprint: Fingerprint, claims: Option<Claims>) -> Self {
        let credential = Credential { fingerprint, claims, in_cookie: false, guessed: false };
        Self { credential: Some(credential), ..Self::default() }
    }

    /// The facts of a request in this guise. It spends nobody's budget.
    #[must_use]
    pub fn over(self, facts: &Facts) -> Facts {
        let Self { credential, share, client } = self;
        let mut facts = Facts { rehearsal: true, ..facts.clone() };
        facts.credentials.extend(credential);
        facts.share = share.or(facts.share);
        facts.client = client.map_or(facts.client, Client::Address);
        facts
    }
}

impl Probes {
    /// A number is good from now on. `false`: too many are under way.
    pub fn begin(&self, number: &[u8], guise: Guise) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = known.len() < MOST;
        if room {
            known.insert(number.into(), guise);
        }
        room
    }

    /// Uses a number up.
    pub fn take(&self, number: &[u8]) -> Option<Guise> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::blocks::{Block, Index};

    #[test]
    fn each_kind_of_block_meets_its_own_guise_and_no_other_does() {
        let facts = Facts::example();
        let before = facts.now.unix();
        let subject = |name: &str| What::Subject {
            subject: name.into(),
            issuer: Some("us".into()),
            before,
            and_logins: false,
        };
        let all = [
            What::Fingerprint { fingerprint: Fingerprint::of(b"x") },
            What::Jti { jti: "1".into() },
            subject("7"),
            What::Session { session: "s".into(), subject: None, issuer: None, before },
            What::Share { share: Key([7; 16]) },
            What::Address { network: "192.0.2.0/24".parse().unwrap() },
            What::Everyone { before, and_logins: false },
        ];
        for (place, what) in all.iter().enumerate() {
            let block = Block {
                id: 1,
                site: None,
                what: what.clone(),
                reason: String::new(),
                by: String::new(),
                created: facts.now.wall,
                until: facts.now.wall + 1000,
                learned: false,
                spares: None,
                ended: None,
            };
            let index = Index::new([&block.held(facts.now)]);
            for (other, guise) in all.iter().enumerate() {
                let hit = index.matching(&Guise::of(guise).over(&facts)).is_some();
                let everyone = matches!(what, What::Everyone { .. });
                let credential = !matches!(guise, What::Share { .. } | What::Address { .. });
                assert_eq!(hit, place == other || (everyone && credential), "{what:?} {guise:?}");
            }
        }
    }

    #[test]
    fn a_number_is_good_once_and_there_are_few() {
        let probes = Probes::default();
        assert!(probes.take(b"x").is_none());
        assert!(probes.begin(b"x", Guise::default()));
        assert!(probes.take(b"x").is_some() && probes.take(b"x").is_none());
        let taken = (0..MOST + 5).filter(|n| probes.begin(&n.to_be_bytes(), Guise::default())).count();
        assert_eq!(taken, MOST);
    }
}
