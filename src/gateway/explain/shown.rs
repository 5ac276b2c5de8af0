//! The certificate of a client that is only asked about: verified by the rules of the site, as in a handshake.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{Means, Question};
use crate::config::client_certificates::ClientCertificates;
use crate::policy::{HostPlace, Policy};
use crate::request::certificate::{Certificate, Certified};
use crate::request::target::Host;

/// What the handshake would come to; `None`: the site asks nobody.
///
/// # Errors
/// When it would fail, in words.
pub(super) fn certified(
    question: &Question,
    head: &Parts,
    means: Means<'_>,
) -> Result<Option<Certified>, String> {
    let Some(rules) = rules(head, means.snapshot.policy()) else { return Ok(None) };
    let policy = rules.id;
    let chain = question.certificates.iter().map(|text| STANDARD.decode(text).map(CertificateDer::from));
    let chain: Vec<_> = chain
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let Some((leaf, above)) = chain.split_first() else { return Ok(Some(Certified { policy, shown: None })) };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(means.now.unix()));
    rules
        .verifier
        .verify_client_cert(leaf, above, now)
        .map_err(|error| format!("the handshake would fail: {error}"))?;
    Ok(Some(Certified { policy, shown: Certificate::read(leaf) }))
}

fn rules<'p>(head: &Parts, policy: &'p Policy) -> Option<&'p ClientCertificates> {
    let place = policy.place(&Host::parse(head.uri.host()?).ok()?)?;
    let (HostPlace::Site(site, _) | HostPlace::Redirect(site) | HostPlace::Download(site)) = place;
    policy.site(site)?.client_certificates.as_ref()
}

/// Who it is, for people.
pub(super) fn told(certified: Option<&Certified>) -> Option<String> {
    let shown = certified?.shown.as_ref();
    Some(shown.map_or_else(
        || "none shown".into(),
        |one| {
            let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
            let names = text(&one.names);
            let names = if names.is_empty() { names } else { format!(" ({names})") };
            format!("{}{names}", text(&one.subject))
        },
    ))
}
