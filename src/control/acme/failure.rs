//! Why there is no certificate, whose failure that is, and when the authority wants to be asked again.

use instant_acme::{Error, Problem};

use super::client::Broken;
use crate::telemetry::audit::plain;

/// What of an authority's words is repeated, in characters.
const REPEATED: usize = 400;

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// For people.
    pub why: String,
    /// Whose failure it is.
    pub blame: Blame,
    /// Seconds that the authority asks to wait.
    pub wait: Option<u64>,
}

/// Whose failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The host's: it can be tried again later.
    Host,
    /// Nothing can be had from this authority now.
    Authority,
    /// The authority does not know our account any more.
    Account,
}

impl Failure {
    /// Of the host; an authority's words are cut and made harmless.
    pub fn host(why: impl Into<String>) -> Self {
        Self { why: short(&why.into()), blame: Blame::Host, wait: None }
    }

    /// Of the authority.
    pub fn authority(why: impl Into<String>) -> Self {
        Self { blame: Blame::Authority, ..Self::host(why) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let broken = match &error {
            Error::Other(inner) => inner.downcast_ref::<Broken>(),
            _ => None,
        };
        let blame = match &error {
            Error::Api(problem) => blame_of(problem),
            // A page for people, in place of an answer.
            Error::Json(_) => Blame::Authority,
            _ if broken.is_some_and(|broken| broken.down) => Blame::Authority,
            _ => Blame::Host,
        };
        Self { why: short(&words(&error)), blame, wait: broken.and_then(|broken| broken.wait) }
    }
}

fn blame_of(problem: &Problem) -> Blame {
    match kind_of(problem) {
        Some("accountDoesNotExist") => Blame::Account,
        Some("serverInternal" | "badNonce" | "externalAccountRequired" | "userActionRequired") => {
            Blame::Authority
        }
        _ => Blame::Host,
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::Api(problem) if kind_of(problem) == Some("externalAccountRequired") => {
            format!(
                "the authority wants an account that it knows: name acme.eab_kid and eab_key_file ({problem})"
            )
        }
        Error::Api(problem) => problem.to_string(),
        Error::Json(error) => format!("the authority's answer makes no sense: {error}"),
        Error::Timeout(_) => "the authority has not come to an end in time".into(),
        error => error.to_string(),
    }
}

/// Whether the authority has nothing against the order but that it names what it replaces: that was replaced already (RFC
/// 9773 section 5), is another account's or unknown to it, or it knows no such field.
pub(super) fn is_about_replacing(error: &Error) -> bool {
    const KINDS: [&str; 4] = ["alreadyReplaced", "conflict", "malformed", "unauthorized"];
    match error {
        Error::Api(problem) => kind_of(problem).is_some_and(|kind| KINDS.contains(&kind)),
        Error::Unsupported(_) => true,
        // Its answer does not repeat the field.
        Error::Other(inner) => !inner.is::<Broken>(),
        _ => false,
    }
}

fn kind_of(problem: &Problem) -> Option<&str> {
    problem.r#type.as_deref()?.rsplit(':').next()
}

fn short(text: &str) -> String {
    plain(text).chars().take(REPEATED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str) -> Error {
        let json = format!("{{\"type\":\"urn:ietf:params:acme:error:{kind}\",\"detail\":\"no\"}}");
        Error::Api(serde_json::from_str(&json).unwrap())
    }

    #[test]
    fn what_an_authority_cannot_do_now_is_no_hosts_failure() {
        let blame = |error: Error| Failure::from(error).blame;
        let html = serde_json::from_str::<u8>("<html>").unwrap_err();
        assert_eq!(blame(Error::Json(html)), Blame::Authority);
        for kind in ["serverInternal", "badNonce", "externalAccountRequired", "userActionRequired"] {
            assert_eq!(blame(problem(kind)), Blame::Authority, "{kind}");
        }
        assert_eq!(blame(problem("accountDoesNotExist")), Blame::Account);
        for kind in ["rejectedIdentifier", "rateLimited", "caa", "unauthorized"] {
            assert_eq!(blame(problem(kind)), Blame::Host, "{kind}");
        }
    }

    #[test]
    fn only_what_speaks_against_replacing_lets_an_order_go_without() {
        for kind in ["alreadyReplaced", "malformed", "unauthorized"] {
            assert!(is_about_replacing(&problem(kind)), "{kind}");
        }
        for kind in ["rateLimited", "serverInternal", "rejectedIdentifier", "accountDoesNotExist", "badNonce"]
        {
            assert!(!is_about_replacing(&problem(kind)), "{kind}");
        }
        assert!(!is_about_replacing(&Error::Timeout(None)));
    }
}
