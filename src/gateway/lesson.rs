//! What a login says of itself: the account in its body, read beside the bytes, and the token in its answer, which is held to be
//! judged anyway.
//!
//! Only an answer teaches that is handed out, and only one of status 200 or 201 with a token: a failed login teaches nothing. A body that two
//! programs could read in two ways (a key twice, or in another case, escapes that are none) teaches nothing either, or a
//! stranger could log in as himself and be learned as somebody else.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use http::response::Parts;

use super::account::{Field, Form, fields_of};
use super::read::Reading;
use crate::clock::Now;
use crate::config::app::{Login, TokenFormat};
use crate::config::class::Class;
use crate::request::credential::claim;
use crate::request::tokens_in::Named;
use crate::stores::accounts::{Account, Accounts};

/// Largest body of a login that is read.
pub const BODY: usize = 16 << 10;
/// Largest answer to a login that is read.
pub const ANSWER: usize = 64 << 10;

/// Under what OAuth says what is exchanged.
pub const GRANT: &str = "grant_type";

/// Bytes read beside a body that passes: all of it, or nothing.
#[derive(Debug, Default)]
pub struct Aside {
    bytes: RefCell<Option<Vec<u8>>>,
    limit: usize,
    said: OnceCell<Said>,
}

/// What the body of a login says of itself.
#[derive(Debug)]
pub struct Said {
    /// Under the app file's key of the account.
    pub account: Field,
    /// Under [`GRANT`].
    pub grant: Field,
}

/// A login on its way: what it will teach if its answer says that it succeeded.
#[derive(Debug)]
pub struct Lesson {
    accounts: Arc<Accounts>,
    login: Login,
    claim: Option<Box<str>>,
    format: TokenFormat,
    site: Arc<str>,
    form: Option<Form>,
    now: Now,
    /// The client's body.
    pub body: Rc<Aside>,
}

impl Aside {
    /// Of at most so many bytes.
    pub fn up_to(limit: usize) -> Self {
        Self { bytes: RefCell::new(Some(Vec::new())), limit, said: OnceCell::new() }
    }

    /// A piece passes.
    pub fn take(&self, piece: &Bytes) {
        let mut bytes = self.bytes.borrow_mut();
        match &mut *bytes {
            Some(known) if known.len() + piece.len() <= self.limit => known.extend_from_slice(piece),
            known => *known = None,
        }
    }

    /// Nothing has passed.
    pub fn is_empty(&self) -> bool {
        self.bytes.borrow().as_ref().is_some_and(Vec::is_empty)
    }

    /// The guard has read the whole body: nobody need do so again.
    pub fn was_read(&self, said: Said) {
        let _ = self.said.set(said);
    }

    /// What the body says, as one of this form; `account`: the app file's key. `None`: it is longer than the limit.
    pub fn said(&self, form: Form, account: Option<&str>) -> Option<&Said> {
        if self.said.get().is_none() {
            let bytes = self.bytes.borrow();
            self.was_read(Said::read(bytes.as_deref()?, form, account));
        }
        self.said.get()
    }

    /// What has passed so far; `None`: more than the limit.
    pub fn all(&self) -> Option<Vec<u8>> {
        self.bytes.borrow().clone()
    }
}

impl Said {
    fn read(body: &[u8], form: Form, account: Option<&str>) -> Self {
        match account {
            Some(key) => {
                let [account, grant] = fields_of(body, form, [key, GRANT]);
                Self { account, grant }
            }
            None => {
                let [grant] = fields_of(body, form, [GRANT]);
                Self { account: Ok(None), grant }
            }
        }
    }
}

impl Lesson {
    /// The lesson of a request; `None`: its app file says nothing of logins, or it is none.
    pub fn begin(reading: &Reading<'_>, headers: &HeaderMap, accounts: &Arc<Accounts>) -> Option<Self> {
        let site = reading.site;
        let login = site.login.as_ref()?;
        let claim = site.tokens.account_claim.clone();
        let form = match reading.facts.class {
            Class::Login => Form::of(headers),
            Class::Refresh if claim.is_some() => None,
            _ => return None,
        };
        Some(Self {
            accounts: Arc::clone(accounts),
            login: login.clone(),
            claim,
            format: site.tokens.format,
            site: Arc::clone(&site.name),
            form,
            now: reading.facts.now,
            body: Rc::new(Aside::up_to(BODY)),
        })
    }

    /// An answer hands out this token in the app file's field.
    pub fn learn(&self, head: &Parts, named: &Named) -> Option<()> {
        // 206 and the like are no answers to a login.
        let answers = matches!(head.status, StatusCode::OK | StatusCode::CREATED);
        if !answers || Form::of(&head.headers) != Some(Form::Json) {
            return None;
        }
        let claims = named.token.claims.as_ref()?;
        if let Some(expires) = claims.expires {
            self.accounts.saw_lifetime(&self.site, expires.saturating_sub(self.now.unix()));
        }
        let subject = claims.subject_text.as_deref()?;
        let said = self.form.and_then(|form| self.body.said(form, self.login.account.as_deref()));
        let typed = said.and_then(|said| said.account.clone().ok()?);
        let claimed = self.claim.as_deref().and_then(|name| claim(named.text.as_bytes(), self.format, name));
        for name in typed.into_iter().chain(claimed).collect::<BTreeSet<_>>() {
            let (site, subject) = (self.site.to_string(), subject.to_owned());
            self.accounts.learn(Account { site, name, subject, seen: self.now.wall });
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_not_read_in_part() {
        let aside = Aside::up_to(4);
        aside.take(&Bytes::from_static(b"abc"));
        aside.take(&Bytes::from_static(b"de"));
        aside.take(&Bytes::from_static(b"f"));
        assert_eq!(aside.all(), None);
    }
}
