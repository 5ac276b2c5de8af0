//! What goes over the admin socket about latest requests: `denials`, `explain --id`, and what `block request`, `block log`
//! and `block account` mean.

use serde::{Deserialize, Serialize};

use crate::stores::blocks::What;
use crate::stores::recent::Record;

/// The body of `POST /v1/denials`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// An address, a network, or `unknown`.
    #[serde(default)]
    pub client: Option<String>,
    /// An account's name.
    #[serde(default)]
    pub account: Option<String>,
    /// Not older than so many milliseconds.
    #[serde(default)]
    pub since: Option<u64>,
}

/// The answer to `POST /v1/denials`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DenialList {
    /// Of this form.
    pub schema: u64,
    /// The oldest first.
    pub denials: Vec<Record>,
}

/// The answer to `GET /v1/request?id=`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestAnswer {
    /// Of this form.
    pub schema: u64,
    /// The request.
    pub request: Record,
}

/// The body of `POST /v1/find`: what a person has in hand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hand {
    /// A request's id.
    Request(String),
    /// The hash of a token or share link, as the access log shows it.
    Log(String),
    /// An account's name.
    Account {
        /// As it is typed at the login.
        name: String,
        /// On this site only.
        #[serde(default)]
        site: Option<String>,
        /// Later logins too.
        #[serde(default)]
        and_logins: bool,
    },
}

/// The answer to `POST /v1/find`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Found {
    /// Of this form.
    pub schema: u64,
    /// What is meant: each is to be blocked.
    pub meant: Vec<Meant>,
}

/// One thing that is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meant {
    /// What to block.
    pub what: What,
    /// Where it holds; `None`: on all sites.
    pub site: Option<String>,
    /// Unix seconds when the token ends, as it says.
    pub expires: Option<u64>,
    /// What it is, for people.
    pub said: String,
}
