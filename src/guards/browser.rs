//! Refuses what a browser says a foreign page or a script tag is doing.
//!
//! 1. What users uploaded (`download`, `preview`, `share_download`) is never run: `Sec-Fetch-Dest` script, style, worker,
//!    object, embed and their kin are refused, so `<script src="/s/TOKEN/file">` stays dead even on a page without a policy.
//! 2. A WebSocket, and all of `live`, wants an Origin that is absent or the site's own: cookies and tokens of a visitor are no
//!    invitation to connect from elsewhere.
//! 3. What another site's page does to a `login`, `refresh`, `enroll` or `setup` in its visitor's name is refused, uncounted:
//!    posts, and whatever it shows, fetches or frames. A link to the login page may stand anywhere. Of `oidc` only the latter
//!    is refused: a provider may post its answer in a form. (Who may set up is in a network of his own, and so is his browser,
//!    whatever page it shows.)
//!
//! It is asked before all that counts, so that no page can use up its visitor's budgets; what it must let pass spends
//! those of foreign pages ([`super::rate`]).
//!
//! Caveat: browsers tell the truth in these fields, others may not; that is enough, since it is browsers that are abused here.
//! A foreign page that keeps sending its visitor himself to a single sign-on spends what his callback needs.

use http::Method;

use super::{Denial, Guard, Reason, Verdict};
use crate::config::class::Class;
use crate::request::facts::{Facts, Origin};

/// What a class refuses of browsers.
#[derive(Debug, Clone, Copy)]
pub struct Browser {
    class: Class,
}

impl Browser {
    /// The guard of a class.
    pub fn of(class: Class) -> Self {
        Self { class }
    }
}

impl Guard for Browser {
    const NAME: &'static str = "browser";

    fn check(&self, cx: &Facts) -> Verdict {
        let foreign = cx.origin == Origin::Foreign;
        let goes_there = !cx.embedded && matches!(cx.method, Method::GET | Method::HEAD);
        let refused = match self.class {
            Class::Download | Class::Preview | Class::ShareDownload => cx.runs_as_code,
            Class::Live => foreign,
            Class::Login | Class::Refresh | Class::Enroll | Class::Setup => foreign && !goes_there,
            Class::Oidc => cx.embedded,
            _ => false,
        };
        if refused || (cx.websocket && foreign) {
            Verdict::Deny(Denial::new(Self::NAME, Reason::CrossOrigin))
        } else {
            Verdict::Pass
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_never_run_and_foreign_pages_open_no_socket() {
        for (class, origin, runs_as_code, passes) in [
            (Class::Download, Origin::Own, true, false),
            (Class::ShareDownload, Origin::Absent, true, false),
            (Class::Preview, Origin::Foreign, false, true),
            (Class::Live, Origin::Foreign, false, false),
            (Class::Live, Origin::Own, false, true),
            (Class::Live, Origin::Absent, false, true),
            (Class::Login, Origin::Foreign, false, false),
            (Class::Setup, Origin::Foreign, false, false),
            (Class::Setup, Origin::Own, false, true),
        ] {
            let guard = Browser::of(class);
            let facts = Facts { class, origin, runs_as_code, method: Method::POST, ..Facts::example() };
            assert_eq!(guard.check(&facts) == Verdict::Pass, passes, "{class} {origin:?}");
        }
        for (class, embedded, method, passes) in [
            (Class::Refresh, false, Method::POST, false),
            (Class::Enroll, false, Method::OPTIONS, false),
            (Class::Setup, true, Method::GET, false),
            (Class::Login, true, Method::GET, false),
            (Class::Oidc, true, Method::POST, false),
            (Class::Oidc, false, Method::POST, true),
            (Class::Api, true, Method::POST, true),
        ] {
            let facts = Facts { class, embedded, method, origin: Origin::Foreign, ..Facts::example() };
            assert_eq!(Browser::of(class).check(&facts) == Verdict::Pass, passes, "{class} {embedded}");
        }
        let link = Facts { class: Class::Login, origin: Origin::Foreign, ..Facts::example() };
        assert_eq!(link.method, Method::GET);
        assert_eq!(Browser::of(Class::Login).check(&link), Verdict::Pass, "a link to the login page");
        let script = Facts { class: Class::Asset, runs_as_code: true, ..Facts::example() };
        assert_eq!(
            Browser::of(Class::Asset).check(&script),
            Verdict::Pass,
            "the application's own scripts run"
        );
        let socket = Facts { websocket: true, origin: Origin::Foreign, ..Facts::example() };
        assert_ne!(Browser::of(Class::Page).check(&socket), Verdict::Pass, "on whatever route");
    }
}
