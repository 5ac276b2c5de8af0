//! What goes over the admin socket about reported violations: `portcullis csp`.

use serde::{Deserialize, Serialize};

use crate::policy::proposal::ClassProposal;

/// The answer to `GET /v1/csp?site=`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CspAnswer {
    /// Of this form.
    pub schema: u64,
    /// The site's name.
    pub site: String,
    /// The app file's name, for who wants to copy it.
    pub app: String,
    /// `enforce`, `observe` or `off`.
    pub mode: String,
    /// The policy is one of the operator's own, the same for all classes.
    pub own: bool,
    /// Browsers are asked to report.
    pub asked: bool,
    /// Unix milliseconds since when reports are counted.
    pub since: u64,
    /// Reports that could not be read, or were of no page of the site.
    pub malformed: u64,
    /// Kinds of violations that had to go since there were too many.
    pub pushed_out: u64,
    /// By class; classes of which nothing was reported are left out.
    pub csp: Vec<ClassProposal>,
}
