//! What goes over the admin socket about timed holes in allowlists.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::stores::holes::Hole;

/// The body of `POST /v1/allow`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowOrder {
    /// Which class: `setup`.
    pub class: String,
    /// For whom.
    pub from: IpNet,
    /// For how long, in milliseconds.
    pub lasting: u64,
    /// A host name of the site; needed where there are several.
    #[serde(default)]
    pub site: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// The person has said that a wide network is meant.
    #[serde(default)]
    pub yes: bool,
}

/// The answer to `POST /v1/allow`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Allowed {
    /// Of this form.
    pub schema: u64,
    /// The hole.
    pub hole: HoleShown,
    /// Every worker has it.
    pub confirmed: bool,
    /// What the person should know.
    pub warnings: Vec<String>,
}

/// An open hole, for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoleShown {
    /// The site's name.
    pub site: String,
    /// The class.
    pub class: String,
    /// For whom.
    pub network: IpNet,
    /// Unix milliseconds when it ends.
    pub until: u64,
    /// Who opened it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl From<&Hole> for HoleShown {
    fn from(hole: &Hole) -> Self {
        Self {
            site: hole.site.clone(),
            class: hole.class.word().to_owned(),
            network: hole.network,
            until: hole.until.wall,
            by: hole.by.clone(),
            reason: hole.reason.clone(),
        }
    }
}
