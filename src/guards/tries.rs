//! Which requests are tries at a secret, and so need more than facts before they may go on.
//!
//! 1. A login is a try, but for GET, HEAD and OPTIONS without a body: those show the page.
//! 2. `Authorization: Basic` on a route of any class is one, since any route may answer it with 401.
//! 3. Refreshes, machines that join and setting up are tries at secrets of their own.
//!
//! Caveat: an application that takes passwords from a query, or by a path that its app file does not call a login, is not
//! guarded there; the rate limit of the class is.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::counters::{Charged, Counters};
use super::login::{self, Login, Passwords, Seats, Try};
use super::secrets::{self, Refresh};
use super::{Denial, Reason};
use crate::clock::Now;
use crate::config::class::Class;
use crate::request::facts::Facts;
use crate::stores::blocks::Index;
use crate::stores::turns::Turn;

/// Metric label and log field of who sets up while somebody else does.
pub const SETUP: &str = "setup";
/// When who found somebody else at it may come again.
const SET_UP_WITHIN: Duration = Duration::from_secs(5);

/// What guards the secrets of a site.
#[derive(Debug, Clone)]
pub struct Tries(Arc<Login>);

/// A try at what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A password in a body.
    Login,
    /// A password in `Authorization: Basic`.
    Basic,
    /// A refresh token.
    Refresh,
    /// What machines join with.
    Enroll,
    /// Setting the application up.
    Setup,
}

/// That the guard of a try has let it pass: only guards make one.
#[derive(Debug)]
pub struct Passed {
    charged: Charged,
    turn: Option<Turn>,
}

impl Passed {
    /// Of a try that would have been refused where the guard only observes.
    pub fn observed(_: &Denial) -> Self {
        Self::uncounted()
    }

    /// What it was charged, to be settled, and its turn at setting up, which ends when it is dropped.
    pub fn into_parts(self) -> (Charged, Option<Turn>) {
        (self.charged, self.turn)
    }

    /// Of a try that is counted otherwise.
    pub fn uncounted() -> Self {
        Self { charged: Charged::none(), turn: None }
    }
}

impl From<Charged> for Passed {
    fn from(charged: Charged) -> Self {
        Self { charged, turn: None }
    }
}

impl Tries {
    /// Of a site.
    pub fn new(login: Login) -> Self {
        Self(Arc::new(login))
    }

    /// The login guard.
    pub fn login(&self) -> &Login {
        &self.0
    }

    /// The site's counters.
    pub fn counters(&self) -> &Counters {
        self.0.counters()
    }

    /// At what a request is a try; `None`: at nothing.
    pub fn of(cx: &Facts) -> Option<Kind> {
        let shows = matches!(cx.method, Method::GET | Method::HEAD | Method::OPTIONS);
        match cx.class {
            Class::Login if !shows || cx.body_length != Some(0) => Some(Kind::Login),
            Class::Refresh if cx.method != Method::OPTIONS => Some(Kind::Refresh),
            Class::Enroll if !shows => Some(Kind::Enroll),
            Class::Setup if !shows => Some(Kind::Setup),
            _ if cx.basic => Some(Kind::Basic),
            _ => None,
        }
    }

    /// A login whose body names an account, or nobody. A default password stays charged, as a wrong one.
    ///
    /// # Errors
    /// A denial: locked out, or from outside what is a default password, or may be one.
    pub fn log_in(
        &self,
        attempt: Try<'_>,
        passwords: &Passwords,
        index: &Index,
        cx: &Facts,
    ) -> Result<Passed, Denial> {
        let login = self.login();
        let charged = login.begin(attempt)?;
        let Some(account) = attempt.account else { return Ok(charged.into()) };
        let mut words = passwords.words.iter();
        if let Some(account) = words.find_map(|word| login.refuses_default(account, word, index, cx)) {
            login.tried_default(account, attempt);
            return Err(Denial::new(login::NAME, Reason::DefaultPassword));
        }
        if passwords.unclear && login.has_default(account, index, cx) {
            return Err(Denial::new(login::NAME, Reason::LoginUnreadable));
        }
        Ok(charged.into())
    }

    /// A request with Basic credentials, of whatever kind else: who is locked out is refused. It is counted only when the answer
    /// says that they are wrong: programs send them with every request, many at once, and no answer but 401 says anything of
    /// them.
    ///
    /// # Errors
    /// A denial: locked out, too many at once, or a default password from outside.
    pub fn basic(
        &self,
        attempt: Try<'_>,
        password: Option<&str>,
        index: &Index,
        cx: &Facts,
    ) -> Result<Seats, Denial> {
        let login = self.login();
        let typed = attempt.account.zip(password);
        if let Some(account) = typed.and_then(|(name, word)| login.refuses_default(name, word, index, cx)) {
            login.failed(attempt);
            login.tried_default(account, attempt);
            return Err(Denial::new(login::NAME, Reason::DefaultPassword));
        }
        login.ask(attempt)?;
        login.seats(attempt)
    }

    /// A refresh.
    ///
    /// # Errors
    /// A denial: this token or client has failed too often.
    pub fn refresh(&self, cx: &Facts) -> Result<Passed, Denial> {
        // A cookie before what else a request carries; the refresh cookie is found last.
        let cookie = cx.credentials.iter().rfind(|one| one.in_cookie);
        let token = cookie.or(cx.credentials.first());
        let known = token.is_some_and(|one| one.claims.as_ref().is_some_and(|claims| claims.remembered));
        let alone = cx.credentials.len() == 1 && cx.body_length == Some(0);
        let token = token.map(|one| &one.fingerprint);
        let tried = Refresh { token, handed_out: known && alone };
        secrets::refresh(self.counters(), tried, cx.client, cx.now).map(Passed::from)
    }

    /// A machine that wants to join.
    ///
    /// # Errors
    /// A denial: this client has failed too often.
    pub fn enroll(&self, cx: &Facts) -> Result<Passed, Denial> {
        secrets::enroll(self.counters(), cx.client, cx.now).map(Passed::from)
    }

    /// Setting the application up.
    ///
    /// # Errors
    /// A denial: somebody else is at it.
    pub fn set_up(&self, now: Now) -> Result<Passed, Denial> {
        let counters = self.counters();
        let turn = counters.logins.turns.take(counters.scope, now);
        let busy = || Denial { guard: SETUP, reason: Reason::SetupBusy, retry_after: Some(SET_UP_WITHIN) };
        turn.map(|turn| Passed { charged: Charged::none(), turn: Some(turn) }).ok_or_else(busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_a_page_is_no_try_and_what_carries_a_password_is() {
        for (class, method, length, basic, kind) in [
            (Class::Login, Method::POST, Some(0), false, Some(Kind::Login)),
            (Class::Login, Method::GET, Some(0), false, None),
            (Class::Login, Method::HEAD, Some(0), false, None),
            (Class::Login, Method::GET, Some(10), false, Some(Kind::Login)),
            (Class::Login, Method::GET, None, false, Some(Kind::Login)),
            (Class::Login, Method::GET, Some(0), true, Some(Kind::Basic)),
            (Class::Login, Method::PUT, None, true, Some(Kind::Login)),
            (Class::Api, Method::GET, Some(0), true, Some(Kind::Basic)),
            (Class::Api, Method::POST, None, false, None),
            (Class::Refresh, Method::GET, Some(0), false, Some(Kind::Refresh)),
            (Class::Enroll, Method::POST, None, false, Some(Kind::Enroll)),
            (Class::Setup, Method::POST, None, false, Some(Kind::Setup)),
            (Class::Setup, Method::GET, Some(0), false, None),
        ] {
            let facts =
                Facts { class, method: method.clone(), body_length: length, basic, ..Facts::example() };
            assert_eq!(Tries::of(&facts), kind, "{method} {class} {length:?} {basic}");
        }
    }
}
