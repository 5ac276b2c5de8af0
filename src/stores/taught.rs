//! What answers have taught and the control thread has yet to make a block of: a queue between workers and control.
//!
//! Lessons are rare (a logout, a changed password), so a lock is no cost. At most [`MOST`] logouts wait, and as many of the
//! others, which go first; more are turned away, and their worker hears it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::blocks::What;
use super::logins::client_group;
use crate::request::client::Client;
use crate::request::credential::{Fingerprint, Key};

/// Most lessons that wait.
pub const MOST: usize = 1024;

/// One lesson: a block to be made.
#[derive(Debug)]
pub struct Taught {
    /// The site's name.
    pub site: String,
    /// What to block there.
    pub what: What,
    /// The one token that a block of a person does not mean: that of whoever asked for it.
    pub spares: Option<Fingerprint>,
    /// Whose it is, for the quota.
    pub whose: Whose,
    /// For how long at least, in milliseconds; `None`: the default of the kind.
    pub lasting: Option<u64>,
    /// What has taught it, for the audit log.
    pub reason: &'static str,
    /// Hears what became of it.
    pub done: oneshot::Sender<Outcome>,
}

/// Whose quota a lesson spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// That of the person who logs out, by his subject.
    Person(Key),
    /// That of the client who logs out, since his token says no person: an IPv4 address, an IPv6 /64.
    Client(u128),
    /// That of the person who has changed his own account.
    Own(Key),
    /// That of those who administer the site.
    Admin,
}

/// What became of a lesson; its word is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is a block now, on every worker and on the disk.
    Learned,
    /// It is a block now, in memory only or not on every worker yet.
    Unconfirmed,
    /// It was known.
    Known,
    /// The site, or the person, has taught enough for this hour.
    OverQuota,
    /// Too many wait.
    TurnedAway,
    /// The site only observes.
    Observed,
}

impl Outcome {
    /// The word in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Unconfirmed => "unconfirmed",
            Self::Known => "known",
            Self::OverQuota => "over_quota",
            Self::TurnedAway => "turned_away",
            Self::Observed => "observed",
        }
    }
}

/// The lessons that wait.
#[derive(Debug, Default)]
pub struct Lessons {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Blocks of persons: nobody's logouts hold them up.
    persons: Vec<Taught>,
    logouts: Vec<Taught>,
}

impl Whose {
    /// Of a logout by a token that says no person.
    pub fn client(client: Client) -> Self {
        Self::Client(client_group(client))
    }

    /// It is a logout's.
    pub const fn is_logout(self) -> bool {
        matches!(self, Self::Person(_) | Self::Client(_))
    }
}

impl Lessons {
    /// Leaves a lesson; `false`: too many wait already.
    pub fn leave(&self, taught: Taught) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { persons, logouts } = &mut *waiting;
        let line = if taught.whose.is_logout() { logouts } else { persons };
        if line.len() >= MOST {
            return false;
        }
        line.push(taught);
        self.bell.notify_one();
        true
    }

    /// Waits for lessons and takes all that wait.
    pub async fn take(&self) -> Vec<Taught> {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            let Waiting { persons: mut all, logouts } = waiting;
            all.extend(logouts);
            if !all.is_empty() {
                return all;
            }
            self.bell.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(whose: Whose) -> Taught {
        let (done, _) = oneshot::channel();
        let what = What::Jti { jti: "1".into() };
        Taught { site: "a".into(), what, spares: None, whose, lasting: None, reason: "logout", done }
    }

    #[tokio::test]
    async fn lessons_that_wait_are_taken_together_and_are_bounded() {
        let lessons = Lessons::default();
        let logout = || lesson(Whose::client(Client::Unknown));
        assert!((0..MOST).all(|_| lessons.leave(logout())) && !lessons.leave(logout()));
        assert!(lessons.leave(lesson(Whose::Admin)), "no flood of logouts makes deaf to an administrator");
        let taken = lessons.take().await;
        assert_eq!((taken.len(), taken.first().map(|one| one.whose)), (MOST + 1, Some(Whose::Admin)));
        assert!(lessons.leave(logout()));
        assert_eq!(lessons.take().await.len(), 1);
    }
}
