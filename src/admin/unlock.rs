//! What goes over the admin socket about lockouts.

use serde::{Deserialize, Serialize};

/// The body of `POST /v1/unlock`: whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UnlockOrder {
    /// A client's address, or `unknown`: all who cannot be told.
    Client(String),
    /// An account, as it is typed at the login; on all sites.
    Account(String),
    /// Everybody.
    All,
}

/// The answer to `POST /v1/unlock`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unlocked {
    /// Of this form.
    pub schema: u64,
    /// The lockouts that are lifted; whom none was of has his failures forgiven all the same.
    pub unlocked: Vec<LockoutShown>,
}

/// A lockout, for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockoutShown {
    /// The site's name.
    pub site: String,
    /// Of what: `client at account`, `device`, `client`, `account`, `refresh`, `enroll`, `share links`.
    pub of: String,
    /// Who, or whose network; none: all who are no known devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// As whom; but for the first letters masked where no such account is known, since people type passwords there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// How long it lasts or would have lasted, in seconds.
    pub seconds: u64,
}
