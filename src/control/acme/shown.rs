//! What `status` shows of certificates, and when it warns.

use std::collections::BTreeMap;

use super::Authority;
use crate::admin::certificates::CertificateShown;
use crate::clock::Now;
use crate::control::endings::Ending;
use crate::listener::tls::{Expiry, Source};

const DAY: i64 = 86_400;
/// A certificate with less left is worth a warning; of one that lives shortly, the last sixth.
const SOON: i64 = 14 * DAY;

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
        let common = planned.and_then(|planned| self.plan.common(planned, now));
        let next = planned.and_then(|planned| self.plan.next(planned, now));
        let soon = left < SOON.min(not_after.saturating_sub(not_before) / 6);
        CertificateShown {
            from: match source {
                Source::File => "file",
                Source::Authority => "acme",
                Source::OwnCa | Source::StandIn => "throw-away",
            }
            .into(),
            not_after: u64::try_from(not_after).unwrap_or(0).saturating_mul(1000),
            days_left: left.div_euclid(DAY),
            problem: common.or(own).map(|trouble| trouble.problem.clone()),
            next: next.map(|next| next.max(now.unix()).saturating_mul(1000)),
            wanted: planned.is_some(),
            soon: matches!(source, Source::File | Source::Authority) && soon,
            host,
        }
    }
}

/// Hosts that have none yet because something is wrong; those with one and the same trouble are told in one.
pub(in crate::control) fn bare(shown: &[CertificateShown]) -> Vec<String> {
    let mut bare: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in shown.iter().filter(|one| one.wanted && one.from != "acme") {
        if let Some(problem) = &one.problem {
            bare.entry(problem).or_default().push(&one.host);
        }
    }
    bare.iter().map(|(problem, hosts)| throw_away(problem, hosts)).collect()
}

/// Certificates that end soon, or have ended.
pub(in crate::control) fn endings(shown: &[CertificateShown]) -> Vec<Ending> {
    // What is asked for in this moment may be there in the next.
    let waits = |one: &&CertificateShown| !one.wanted || one.problem.is_some() || one.next.is_some();
    shown.iter().filter(|one| one.soon).filter(waits).map(ending).collect()
}

fn throw_away(problem: &str, hosts: &[&str]) -> String {
    let who = match hosts {
        [one] => format!("{one} has"),
        [first, more @ ..] => format!("{first} and {} more have", more.len()),
        [] => "some host has".into(),
    };
    format!(
        "{who} no certificate yet but a throw-away one: {problem}; mend it, then `portcullis reload` tries at once"
    )
}

fn ending(one: &CertificateShown) -> Ending {
    let CertificateShown { host, days_left, .. } = one;
    let why = one.problem.as_deref().map_or_else(String::new, |why| format!(": {why}"));
    let remedy =
        if one.from == "file" { "put a new one into its files" } else { "see why it is not renewed" };
    let when = match days_left {
        ..0 => "has ended".to_owned(),
        0 => "ends today".to_owned(),
        1 => "ends tomorrow".to_owned(),
        days => format!("ends in {days} days"),
    };
    let line = format!("the certificate of {host} {when}{why}; {remedy}");
    Ending { what: host.clone(), line }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(host: &str) -> CertificateShown {
        CertificateShown {
            host: host.into(),
            from: "acme".into(),
            not_after: 0,
            days_left: 3,
            wanted: true,
            problem: None,
            next: Some(1),
            soon: true,
        }
    }

    #[test]
    fn what_ends_is_said_unless_it_is_asked_for_in_this_moment() {
        let under_way = CertificateShown { next: None, ..one("b.test") };
        let failing =
            CertificateShown { next: None, problem: Some("caa".into()), days_left: 0, ..one("c.test") };
        let file = CertificateShown {
            from: "file".into(),
            wanted: false,
            next: None,
            days_left: -1,
            ..one("d.test")
        };
        let well = CertificateShown { soon: false, ..one("e.test") };
        let lines: Vec<_> = endings(&[one("a.test"), under_way, failing, file, well])
            .into_iter()
            .map(|one| one.line)
            .collect();
        assert_eq!(
            lines,
            [
                "the certificate of a.test ends in 3 days; see why it is not renewed",
                "the certificate of c.test ends today: caa; see why it is not renewed",
                "the certificate of d.test has ended; put a new one into its files",
            ]
        );
    }
}
