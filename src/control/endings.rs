//! What ends soon or has ended: certificates that are served, and the CAs and revocation lists by which those of clients are
//! judged. `status` warns of it; the log has a line when it begins, and one a day while it lasts.

use std::collections::{BTreeMap, BTreeSet};

use super::{Control, acme};
use crate::clock::Now;

/// Between two looks, in nanoseconds.
const LOOK: u64 = 3600 * 1_000_000_000;
/// Until something is told of again, in nanoseconds: a little less, since looks are not that punctual.
const AGAIN: u64 = 24 * LOOK - LOOK / 2;
/// Most that are told of one by one.
const MOST: usize = 20;

/// When each was told of last, in monotonic nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Told {
    looked: Option<u64>,
    of: BTreeMap<String, u64>,
}

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// What it is, the same each day.
    pub what: String,
    /// What is said of it today, with the remedy.
    pub line: String,
}

impl Control {
    /// For `status`.
    pub(super) fn certificate_warnings(&self, now: Now) -> Vec<String> {
        let mut warnings = acme::bare(&self.authority.shown(self.reloader.certificates(), now));
        warnings.extend(few(self.endings(now).into_iter().map(|ending| ending.line)));
        warnings
    }

    /// For the log.
    pub(super) fn tell_endings(&mut self, now: Now) {
        if self.authority.told.looked.is_some_and(|looked| now.mono.saturating_sub(looked) < LOOK) {
            return;
        }
        self.authority.told.looked = Some(now.mono);
        let endings = self.endings(now);
        let news = self.authority.told.news(endings, now);
        few(news.into_iter()).iter().for_each(|line| (self.say)(line));
    }

    fn endings(&self, now: Now) -> Vec<Ending> {
        let mut endings = acme::endings(&self.authority.shown(self.reloader.certificates(), now));
        let unix = i64::try_from(now.unix()).unwrap_or(i64::MAX);
        let rules = self.settings.sites.iter().filter_map(|site| site.client_certificates.as_ref());
        let over = rules.flat_map(|rules| &rules.papers).filter(|paper| paper.ends < unix);
        // Sites may share one.
        let over: BTreeSet<_> = over.map(|paper| (&paper.past, paper.help)).collect();
        endings.extend(over.into_iter().map(|(past, help)| {
            let (what, line) = (past.clone(), format!("client certificates: {past}; {help}"));
            Ending { what, line }
        }));
        endings
    }
}

impl Told {
    /// What was not told of for a day; what ends no more is forgotten.
    fn news(&mut self, endings: Vec<Ending>, now: Now) -> Vec<String> {
        let before = std::mem::take(&mut self.of);
        let mut news = Vec::new();
        for Ending { what, line } in endings {
            let last = before.get(&what).filter(|last| now.mono.saturating_sub(**last) < AGAIN);
            self.of.insert(what, last.copied().unwrap_or(now.mono));
            if last.is_none() {
                news.push(line);
            }
        }
        news
    }
}

fn few(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<_> = lines.collect();
    let more = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    if more > 0 {
        lines.push(format!("{more} more certificates end soon: `portcullis status --json` names them"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_is_told_when_it_begins_and_once_a_day() {
        let mut told = Told::default();
        let ending = |what: &str, day: u64| Ending { what: what.into(), line: format!("{what}, day {day}") };
        let mut said = Vec::new();
        for hour in 1..=60 {
            let mut endings = vec![ending("a.test", hour / 24)];
            if hour >= 30 {
                endings.push(ending("b.test", hour / 24));
            }
            let news = told.news(endings, Now { mono: hour * LOOK, wall: 0 });
            said.extend(news.into_iter().map(|line| (hour, line)));
        }
        let when: Vec<_> = said.iter().map(|(hour, line)| (*hour, line.split(',').next().unwrap())).collect();
        assert_eq!(when, [(1, "a.test"), (25, "a.test"), (30, "b.test"), (49, "a.test"), (54, "b.test")]);
        told.news(Vec::new(), Now { mono: 61 * LOOK, wall: 0 });
        assert_eq!(told.news(vec![ending("a.test", 3)], Now { mono: 62 * LOOK, wall: 0 }).len(), 1);
    }

    #[test]
    fn of_a_thousand_a_few_are_told_and_how_many_more_there_are() {
        let lines = few((0..1000).map(|number| number.to_string()));
        assert_eq!((lines.len(), lines[MOST].starts_with("980 more")), (MOST + 1, true));
        assert_eq!(few((0..20).map(|number| number.to_string())).len(), MOST);
    }
}
