//! What was reported of a site's policies, and what follows.

use super::Control;
use super::defaults::one_site;
use crate::admin::api::{Refusal, RefusalKind, SCHEMA};
use crate::admin::csp::CspAnswer;
use crate::config::settings::CspChoice;
use crate::policy::proposal::proposals;

impl Control {
    /// The answer to `portcullis csp`. Without a name the only site is meant.
    pub(super) fn csp(&self, site: Option<&str>) -> Result<CspAnswer, Refusal> {
        let name = one_site(site, &self.sites)?;
        let site = self.settings.sites.iter().find(|site| site.name() == name);
        let gone = || Refusal::new(RefusalKind::Unknown, format!("there is no site `{name}` any more"));
        let site = site.ok_or_else(gone)?;
        let known = self.kept.reports.of(&name);
        let mode = match (&site.headers.csp, site.headers.csp_observe) {
            (CspChoice::Off, _) => "off",
            (_, true) => "observe",
            (_, false) => "enforce",
        };
        Ok(CspAnswer {
            schema: SCHEMA,
            app: site.app.name.to_string(),
            mode: mode.to_owned(),
            own: matches!(site.headers.csp, CspChoice::Own(_)),
            asked: site.takes_reports(),
            since: self.started.wall,
            malformed: known.malformed,
            pushed_out: known.pushed_out,
            csp: proposals(site, &known),
            site: name,
        })
    }
}
