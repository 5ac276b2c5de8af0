//! Which refresh cookie belongs to whom, and when that session began: learned from the answers that hand the cookie out.
//!
//! A refresh cookie says nothing of itself, and the tokens that it fetches are always new. So a block of a person could be
//! walked round by it; here it has the age of the login that it came from, and what it is exchanged for inherits that.
//! Only fingerprints are kept, never a cookie. At most [`MOST`] are known, some 25 MiB, and [`OF_ONE`] of one person, so
//! that nobody pushes out others: of one's own the one that was seen longest ago goes first, then that of anybody. What
//! is forgotten is not let through: it counts as old.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::request::credential::{Claims, Credential, Key, subject_key};

/// Most refresh cookies that are known.
pub const MOST: usize = 100_000;
/// Most of one person on one site.
pub const OF_ONE: usize = 100;
/// So long a cookie is still known that was exchanged for another, in milliseconds: two tabs may send it at once.
const EXCHANGED: u64 = 60_000;

/// Where a cookie belongs: the site's scope, and the first half of its SHA-256.
pub type Place = (u64, [u8; 16]);

/// What is known of one refresh cookie, as it is on disk too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The `sub` of its tokens.
    pub subject: String,
    /// Unix seconds of the login that it comes from; 0: not known, which is older than all.
    pub begun: u64,
    /// Fingerprint (first half, as hex) of the token that was handed out with it.
    #[serde(with = "crate::stores::blocks::record::hex_key_option")]
    pub token: Option<Key>,
    /// Unix milliseconds when it was handed out.
    pub seen: u64,
    /// Unix milliseconds when it ends.
    pub until: u64,
}

/// What is new since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// To write.
    pub learned: Vec<(Place, Session)>,
    /// To remove.
    pub forgotten: Vec<Place>,
}

/// The sessions.
#[derive(Debug, Default)]
pub struct Sessions(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    sessions: BTreeMap<Place, Session>,
    /// The cookies of each person, the one that was seen longest ago first.
    of_one: BTreeMap<(u64, String), Vec<Place>>,
    changed: BTreeSet<Place>,
    forgotten: BTreeSet<Place>,
}

impl Sessions {
    /// Begins with what is on the disk.
    pub fn take_in(&self, sessions: impl IntoIterator<Item = (Place, Session)>) {
        let mut all: Vec<_> = sessions.into_iter().collect();
        all.sort_by_key(|(_, session)| session.seen);
        let mut known = self.write();
        all.into_iter().for_each(|(place, session)| known.insert(place, session));
        known.changed.clear();
    }

    /// An answer has handed out this cookie.
    pub fn learn(&self, place: Place, session: Session) {
        let mut known = self.write();
        known.forgotten.remove(&place);
        known.insert(place, session);
        known.changed.insert(place);
    }

    /// What is known of a cookie.
    pub fn find(&self, place: &Place) -> Option<Session> {
        self.read().sessions.get(place).cloned()
    }

    /// Gives a cookie that says nothing of itself the claims of its session.
    pub fn complete(&self, scope: u64, credential: &mut Credential) {
        if !credential.in_cookie || credential.claims.is_some() {
            return;
        }
        let known = self.read();
        let Some(session) = known.sessions.get(&(scope, credential.fingerprint.key().0)) else { return };
        credential.claims = Some(Claims {
            subject: Some(subject_key(&session.subject)),
            subject_text: Some(session.subject.as_str().into()),
            issued: Some(session.begun),
            remembered: true,
            ..Claims::default()
        });
    }

    /// It was exchanged for another one: it will not be seen much longer.
    pub fn exchanged(&self, place: &Place, now: Now) {
        let mut known = self.write();
        let Some(session) = known.sessions.get_mut(place) else { return };
        session.until = session.until.min(now.wall.saturating_add(EXCHANGED));
        known.changed.insert(*place);
    }

    /// Whoever holds this token has just proved who he is: the session that it was handed out with begins anew.
    pub fn renew(&self, scope: u64, subject: &str, token: Key, begun: u64) {
        let mut known = self.write();
        let places = known.of_one.get(&(scope, subject.to_owned())).cloned().unwrap_or_default();
        for place in places {
            if let Some(session) = known.sessions.get_mut(&place).filter(|one| one.token == Some(token)) {
                session.begun = begun;
                known.changed.insert(place);
            }
        }
    }

    /// Forgets what has ended.
    pub fn tidy(&self, now: Now) {
        let is_over = |session: &Session| session.until <= now.wall;
        if !self.read().sessions.values().any(is_over) {
            return;
        }
        let mut known = self.write();
        let over: Vec<Place> =
            known.sessions.iter().filter(|(_, session)| is_over(session)).map(|(place, _)| *place).collect();
        over.iter().for_each(|place| known.forget(place));
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.read().sessions.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is new since the last call, to be written.
    pub fn changes(&self) -> Changes {
        {
            let known = self.read();
            if known.changed.is_empty() && known.forgotten.is_empty() {
                return Changes::default();
            }
        }
        let mut known = self.write();
        let changed = std::mem::take(&mut known.changed);
        let learned = changed.iter().filter_map(|place| Some((*place, known.sessions.get(place)?.clone())));
        Changes {
            learned: learned.collect(),
            forgotten: std::mem::take(&mut known.forgotten).into_iter().collect(),
        }
    }

    /// They could not be written: they are new again.
    pub fn unwritten(&self, changes: Changes) {
        let mut known = self.write();
        for (place, _) in changes.learned {
            if known.sessions.contains_key(&place) {
                known.changed.insert(place);
            }
        }
        for place in changes.forgotten {
            if !known.sessions.contains_key(&place) {
                known.forgotten.insert(place);
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn insert(&mut self, place: Place, session: Session) {
        self.unlist(&place);
        let own = self.of_one.entry((place.0, session.subject.clone())).or_default();
        own.push(place);
        let surplus = (own.len() > OF_ONE).then(|| own.first().copied()).flatten();
        self.sessions.insert(place, session);
        if let Some(oldest) = surplus {
            self.forget(&oldest);
        }
        while self.sessions.len() > MOST {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.seen);
            let Some(oldest) = oldest.map(|(place, _)| *place) else { return };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, place: &Place) {
        self.unlist(place);
        self.sessions.remove(place);
        self.changed.remove(place);
        self.forgotten.insert(*place);
    }

    fn unlist(&mut self, place: &Place) {
        let Some(session) = self.sessions.get(place) else { return };
        let person = (place.0, session.subject.clone());
        if let Some(own) = self.of_one.get_mut(&person) {
            own.retain(|one| one != place);
            if own.is_empty() {
                self.of_one.remove(&person);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::request::credential::Fingerprint;
    use crate::request::facts::{Facts, scope_of};
    use crate::stores::blocks::{Block, Index, What};

    fn place(number: u32) -> Place {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_be_bytes());
        (1, key)
    }

    fn session(subject: &str, seen: u64) -> Session {
        Session { subject: subject.into(), begun: 5, token: None, seen, until: seen + 1000 }
    }

    #[test]
    fn a_cookie_has_the_claims_of_its_session_on_its_own_site_only() {
        let sessions = Sessions::default();
        let fingerprint = Fingerprint::of(b"cookie");
        sessions.learn((1, fingerprint.key().0), session("alice", 1));
        let claims = |scope, in_cookie| {
            let mut one = Credential { fingerprint, claims: None, in_cookie, guessed: false };
            sessions.complete(scope, &mut one);
            one.claims
        };
        let known = claims(1, true).unwrap();
        assert_eq!((known.subject, known.issued), (Some(subject_key("alice")), Some(5)));
        assert!(claims(2, true).is_none() && claims(1, false).is_none());
    }

    #[test]
    fn a_refresh_sixteen_minutes_after_the_block_is_one_of_an_old_session() {
        let (clock, hand) = Clock::test(1_782_000_000_000);
        let sessions = Sessions::default();
        let fingerprint = Fingerprint::of(b"cookie");
        let begun = clock.now().unix();
        let scope = scope_of("files.example.com");
        sessions.learn((scope, fingerprint.key().0), Session { begun, ..session("alice", 1) });
        hand.advance(Duration::from_secs(60));
        let before = clock.now().unix();
        let what = What::Subject { subject: "alice".into(), issuer: None, before, and_logins: false };
        let block = Block {
            id: 1,
            site: None,
            what,
            reason: String::new(),
            by: String::new(),
            created: clock.now().wall,
            until: clock.now().wall + 604_800_000,
            learned: false,
            spares: None,
            ended: None,
        };
        let index = Index::new([&block.held(clock.now())]);
        hand.advance(Duration::from_secs(16 * 60));
        let refused = || {
            let mut one = Credential { fingerprint, claims: None, in_cookie: true, guessed: false };
            sessions.complete(scope, &mut one);
            let facts = Facts { credentials: vec![one], now: clock.now(), ..Facts::example() };
            index.matching(&facts).is_some()
        };
        assert!(refused(), "the token of the login has ended, its cookie has not");
        let again = Session { begun: clock.now().unix(), ..session("alice", 1) };
        sessions.learn((scope, fingerprint.key().0), again);
        assert!(!refused(), "logged in again");
    }

    #[test]
    fn what_is_known_is_bounded_and_one_person_pushes_out_only_his_own() {
        let sessions = Sessions::default();
        sessions.learn(place(0), session("alice", 0));
        for number in (1..).take(OF_ONE + 5) {
            sessions.learn(place(number), session("mallory", u64::from(number)));
        }
        assert!(sessions.find(&place(0)).is_some() && sessions.find(&place(5)).is_none());
        assert_eq!(sessions.len(), OF_ONE + 1);
        for number in (1000..).take(MOST) {
            sessions.learn(place(number), session(&number.to_string(), u64::from(number)));
        }
        assert_eq!(sessions.len(), MOST);
        assert!(sessions.find(&place(0)).is_none(), "who was seen longest ago goes first");
    }

    #[test]
    fn what_was_not_written_is_tried_again_and_what_is_over_is_forgotten() {
        let sessions = Sessions::default();
        sessions.learn(place(1), session("alice", 1));
        sessions.learn(place(2), session("bob", 5000));
        let changes = sessions.changes();
        assert_eq!((changes.learned.len(), sessions.changes()), (2, Changes::default()));
        sessions.unwritten(changes.clone());
        assert_eq!(sessions.changes(), changes);
        sessions.tidy(Now { mono: 0, wall: 2000 });
        assert_eq!(sessions.changes(), Changes { learned: vec![], forgotten: vec![place(1)] });
        assert!(sessions.read().of_one.len() == 1);
    }

    #[test]
    fn who_proves_himself_keeps_his_session_and_only_that() {
        let sessions = Sessions::default();
        let mine = Key([9; 16]);
        sessions.learn(place(1), Session { token: Some(mine), ..session("alice", 1) });
        sessions.learn(place(2), Session { token: Some(Key([8; 16])), ..session("alice", 1) });
        sessions.renew(1, "alice", mine, 77);
        let begun = |number| sessions.find(&place(number)).unwrap().begun;
        assert_eq!((begun(1), begun(2)), (77, 5));
    }
}
