//! Client certificates of a site: the rules belong to the site that is asked for, not to the connection.
//!
//! 1. A handshake that was made under other rules than the site's of now proves nothing to it: 421, and the client comes
//!    again by a connection of its own. That holds for every spelling of SNI and Host, and after a change of CA or
//!    revocations also for connections that are open.
//! 2. A required certificate that is not there (`plain` listeners), or one whose names are not among the allowed: 403.
//!
//! Caveat: streams that are open when a certificate is revoked go on; `portcullis block` cuts.

use std::rc::Rc;

use super::Link;
use super::read::Refusal;
use crate::guards::{Denial, Reason};
use crate::policy::Site;
use crate::request::certificate::Certificate;

/// Metric label and log field.
const NAME: &str = "client_certificate";

/// Whether a connection may ask for this site.
///
/// # Errors
/// When not.
pub(super) fn check(site: &Site, link: &dyn Link) -> Result<(), Refusal> {
    let refused = |reason| Err(Refusal::Denied(Denial::new(NAME, reason)));
    let Some(rules) = &site.client_certificates else { return Ok(()) };
    if link.is_plain() {
        return if rules.required { refused(Reason::CertificateMissing) } else { Ok(()) };
    }
    let Some(certified) = link.certified().filter(|certified| certified.policy == rules.id) else {
        return refused(Reason::Misdirected);
    };
    match &certified.shown {
        None if rules.required => refused(Reason::CertificateMissing),
        Some(shown) if !rules.allowed.is_empty() && !shown.is_one_of(&rules.allowed) => {
            refused(Reason::CertificateNotAllowed)
        }
        _ => Ok(()),
    }
}

/// What the application is told.
pub(super) fn shown<'l>(site: &Site, link: &'l dyn Link) -> Option<&'l Certificate> {
    site.client_certificates.as_ref()?;
    link.certified()?.shown.as_ref()
}

/// What the log calls the client's certificate.
pub(super) fn name(link: &dyn Link) -> Option<Rc<str>> {
    link.certified()?.shown.as_ref().map(|shown| Rc::clone(&shown.name))
}
