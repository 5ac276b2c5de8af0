//! What `status` shows of certificates, and when it warns.

use std::collections::BTreeMap;

use super::Authority;
use crate::admin::certificates::CertificateShown;
use crate::clock::Now;
use crate::listener::tls::{Expiry, Source};

const DAY: i64 = 86_400;
/// A certificate with less left is worth a warning; of one that lives shortly, the last sixth.
const SOON: i64 = 14 * DAY;
/// Most certificates that are warned of one by one.
const MOST: usize = 20;

impl Authority {
    /// Each host with its certificate, by name.
    pub fn shown(&self, expiries: Vec<Expiry>, now: Now) -> Vec<CertificateShown> {
        let mut shown: Vec<_> = expiries.into_iter().map(|expiry| self.one(expiry, now)).collect();
        shown.sort_by(|a, b| a.host.cmp(&b.host));
        shown
    }

    fn one(&self, expiry: Expiry, now: Now) -> CertificateShown {
        let Expiry { host, not_before, not_after, source } = expiry;
        let unix = i64::try_from(now.unix()).unwrap_or(i64::MAX);
        let left = not_after.saturating_sub(unix);
        let planned = self.plan.named(&host);
        let own = planned.map(|planned| &planned.record.trouble).filter(|trouble| trouble.failures > 0);
        let common = Some(&self.plan.authority).filter(|trouble| trouble.failures > 0 && planned.is_some());
        let next = planned.and_then(|planned| self.plan.next(planned));
        let soon = left < SOON.min(not_after.saturating_sub(not_before) / 6);
        CertificateShown {
            from: match source {
                Source::File => "file",
                Source::Authority => "acme",
                Source::OwnCa => "throw-away",
            }
            .into(),
            not_after: u64::try_from(not_after).unwrap_or(0).saturating_mul(1000),
            days_left: left.div_euclid(DAY),
            problem: common.or(own).map(|trouble| trouble.problem.clone()),
            next: next.map(|next| next.max(now.unix()).saturating_mul(1000)),
            wanted: planned.is_some(),
            soon: source != Source::OwnCa && soon,
            host,
        }
    }
}

/// What of it is worth a warning; hosts with one and the same trouble are told in one.
pub(in crate::control) fn warnings(shown: &[CertificateShown]) -> Vec<String> {
    let mut bare: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in shown.iter().filter(|one| one.wanted && one.from != "acme") {
        if let Some(problem) = &one.problem {
            bare.entry(problem).or_default().push(&one.host);
        }
    }
    let mut warnings: Vec<_> = bare.iter().map(|(problem, hosts)| throw_away(problem, hosts)).collect();
    let ending: Vec<_> = shown.iter().filter_map(ending).collect();
    warnings.extend(ending.iter().take(MOST).cloned());
    if let Some(more) = ending.len().checked_sub(MOST).filter(|more| *more > 0) {
        warnings.push(format!("{more} more certificates end soon: `portcullis status --json` names them"));
    }
    warnings
}

fn throw_away(problem: &str, hosts: &[&str]) -> String {
    let who = match hosts {
        [one] => format!("{one} has"),
        [first, more @ ..] => format!("{first} and {} more hosts have", more.len()),
        [] => "some host has".into(),
    };
    format!(
        "{who} no certificate yet but a throw-away one: {problem}; mend it, then `portcullis reload` tries at once"
    )
}

fn ending(one: &CertificateShown) -> Option<String> {
    let CertificateShown { host, days_left, .. } = one;
    let why = one.problem.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    if !one.soon {
        return None;
    }
    let remedy =
        if one.from == "file" { "put a new one into its files" } else { "see why it is not renewed" };
    let when = match days_left {
        ..0 => "has ended".to_owned(),
        0 => "ends today".to_owned(),
        1 => "ends tomorrow".to_owned(),
        days => format!("ends in {days} days"),
    };
    Some(format!("the certificate of {host} {when}{why}; {remedy}"))
}
