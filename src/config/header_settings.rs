//! `[site.headers]`, after validation.

use std::fmt;

use http::{HeaderName, HeaderValue};

/// `[site.headers]`.
#[derive(Debug, Clone)]
pub struct Headers {
    /// The Content-Security-Policy.
    pub csp: CspChoice,
    /// Report only.
    pub csp_observe: bool,
    /// Browsers are asked to report what breaks the policy.
    pub csp_report: bool,
    /// What the application writes into its HTML in place of a nonce; `None`: nothing is put in.
    pub nonce: Option<NonceWord>,
    /// Strict-Transport-Security; `None` is `off`, and with `self_signed`.
    pub hsts: Option<HeaderValue>,
    /// Headers of the operator's own.
    pub set: Vec<(HeaderName, HeaderValue)>,
}

/// `site.headers.csp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CspChoice {
    /// The app file's, by class.
    App,
    /// Another one of the app file's sets, by class.
    Variant(Box<str>),
    /// None.
    Off,
    /// This one, for every class.
    Own(Box<str>),
}

/// The word that stands in an application's HTML where the nonce of an answer is to be: a secret between the application and
/// the gateway, or else whoever plants text on a page could write it.
#[derive(Clone, PartialEq, Eq)]
pub struct NonceWord(pub Box<str>);

impl fmt::Debug for NonceWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceWord(…)")
    }
}
