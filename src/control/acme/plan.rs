//! When which host asks for a certificate: pure, the clock by hand.
//!
//! A certificate is asked for when there is none, when the authority says so (RFC 9773), or after two thirds of its life.
//! What went wrong is tried again later and later, and that is remembered over a restart: authorities lock out who hammers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::trouble::{Trouble, part, share};
use crate::clock::Now;
use crate::config::acme::Challenge as Way;
use crate::config::values::HostPattern;

/// Waits after the first, second … failure, in seconds; the last for all later ones. Four tries in the first hour: Let's
/// Encrypt allows five failed ones.
const WAITS: [u64; 6] = [60, 300, 900, 3600, 3 * 3600, 6 * 3600];
/// The same while the authority itself cannot be reached: nothing that it counts.
const AUTHORITY_WAITS: [u64; 4] = [15, 60, 300, 900];
/// Most that is under way, in each lane.
pub(super) const AT_ONCE: usize = 4;
/// Between two questions after the renewal window, in seconds, at least and at most.
const ASK: (u64, u64) = (3600, 24 * 3600);
/// An authority that says for ever that it is time to renew is followed once in so many seconds; nor is another certificate
/// asked for earlier where what it gives is old already.
const HURRY: u64 = 24 * 3600;

/// All hosts that want a certificate.
#[derive(Debug, Default)]
pub(super) struct Plan {
    hosts: BTreeMap<String, Host>,
    /// Makes our times differ from everybody else's.
    seed: u64,
    /// Of the authority itself.
    pub authority: Trouble,
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub name: HostPattern,
    /// Unix seconds of begin and end of its certificate; `None`: it has none.
    pub life: Option<(u64, u64)>,
    pub record: Record,
    /// How it can be shown that it is ours.
    ways: Vec<Way>,
    busy: Option<Lane>,
}

/// What is known of a host that is new here.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// As [`Host::life`].
    pub life: Option<(u64, u64)>,
    /// What was noted of it.
    pub record: Record,
    /// How it can be shown that it is ours, what is tried first first.
    pub ways: Vec<Way>,
}

/// Where something is under way: what waits for a command of the operator's keeps nobody else from the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Quick,
    Dns,
}

/// What of a host is remembered over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    #[serde(flatten)]
    pub trouble: Trouble,
    /// The authority's renewal window, in Unix seconds.
    pub window: Option<(u64, u64)>,
    /// When to ask for it again, in Unix seconds.
    pub ask: u64,
    /// When the authority was last followed in renewing long before the time: when that came about.
    hurried: u64,
    /// When the certificate was given.
    given: u64,
}

/// What is to be done for a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Ask for a certificate.
    Order,
    /// Ask when to renew.
    Window,
}

impl Plan {
    /// `seed`: any number of this process.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Follows the config. `load` tells of hosts that are new here what is kept of them.
    pub fn follow(&mut self, names: &[HostPattern], mut load: impl FnMut(&HostPattern) -> Known) {
        let wanted: BTreeMap<String, &HostPattern> =
            names.iter().map(|name| (name.to_string(), name)).collect();
        self.hosts.retain(|name, _| wanted.contains_key(name));
        for (word, name) in wanted {
            self.hosts.entry(word).or_insert_with(|| {
                let Known { life, record, ways } = load(name);
                Host { name: name.clone(), life, record, ways, busy: None }
            });
        }
    }

    /// Forgets all: the authority is another, or none.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.authority = Trouble::default();
    }

    /// What is due, the most urgent first; it is under way from now on.
    pub fn begin(&mut self, now: Now) -> Vec<(HostPattern, Step)> {
        let unix = now.unix();
        if self.authority.waits(unix) {
            return Vec::new();
        }
        let seed = self.seed;
        let step = |host: &Host| Some((host.urgency(), host.name.to_string(), host.step(unix, seed)?));
        let mut due: Vec<_> = self.hosts.values().filter_map(step).collect();
        due.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let (mut quick, mut dns) = (self.free(Lane::Quick), self.free(Lane::Dns));
        let mut begun = Vec::new();
        for (_, word, step) in due {
            let Some(host) = self.hosts.get_mut(&word) else { continue };
            let lane = host.lane(step);
            let free = if lane == Lane::Dns { &mut dns } else { &mut quick };
            if *free == 0 {
                continue;
            }
            *free -= 1;
            host.busy = Some(lane);
            begun.push((host.name.clone(), step));
        }
        begun
    }

    /// There is a certificate.
    pub fn succeeded(&mut self, name: &HostPattern, now: Now, life: (u64, u64)) {
        self.answered(now);
        if let Some(host) = self.end(name) {
            if host.is_hurried(now.unix()) {
                host.record.hurried = now.unix();
            }
            host.life = Some(life);
            host.record.trouble.end();
            (host.record.given, host.record.window, host.record.ask) = (now.unix(), None, 0);
        }
    }

    /// There is none, because of the host; `after`: seconds that the authority asks to wait.
    pub fn failed(&mut self, name: &HostPattern, now: Now, why: String, after: Option<u64>) {
        self.answered(now);
        let share = share(self.seed, &name.to_string());
        if let Some(host) = self.end(name) {
            host.record.trouble.note(now, why, &WAITS, (share, after));
        }
    }

    /// The authority itself does not answer as it should: that is nobody's failure, and all wait.
    pub fn unreachable(&mut self, name: &HostPattern, now: Now, why: String, after: Option<u64>) {
        self.end(name);
        // Those that were under way together fail together.
        if self.authority.waits(now.unix()) {
            self.authority.put_off(now, after.unwrap_or(0));
        } else {
            let share = share(self.seed, "authority");
            self.authority.note(now, why, &AUTHORITY_WAITS, (share, after));
        }
    }

    /// When the authority wants a certificate renewed; `None`: it does not say. `after`: seconds to the next question.
    pub fn told(&mut self, name: &HostPattern, now: Now, window: Option<(u64, u64)>, after: u64) {
        if let Some(host) = self.end(name) {
            host.record.window = window.or(host.record.window);
            host.record.ask = now.unix().saturating_add(after.clamp(ASK.0, ASK.1));
        }
    }

    /// An operator has mended something: what waits is tried at once, now and then.
    pub fn forgive(&mut self, now: Now) {
        self.authority.forgive(now);
        self.hosts.values_mut().for_each(|host| host.record.trouble.forgive(now));
    }

    /// All hosts.
    #[cfg(test)]
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// One host.
    pub fn host(&self, name: &HostPattern) -> Option<&Host> {
        self.hosts.get(&name.to_string())
    }

    /// One host, by its name as a text.
    pub fn named(&self, name: &str) -> Option<&Host> {
        self.hosts.get(name)
    }

    /// Unix seconds of the next order for a host, if it is not under way.
    pub fn next(&self, host: &Host, now: Now) -> Option<u64> {
        if host.busy.is_some() {
            return None;
        }
        let due = host.due(self.seed).max(host.rest(now.unix()));
        Some(due.max(host.record.trouble.next).max(self.authority.next))
    }

    /// What keeps the authority from giving a certificate that is due; `None`: nothing of its own.
    pub fn common(&self, host: &Host, now: Now) -> Option<&Trouble> {
        let is_due = host.due(self.seed) <= now.unix();
        Some(&self.authority).filter(|trouble| is_due && trouble.failures > 0)
    }

    /// The authority works, unless it has just said that it does not.
    fn answered(&mut self, now: Now) {
        if !self.authority.waits(now.unix()) {
            self.authority.end();
        }
    }

    fn free(&self, lane: Lane) -> usize {
        AT_ONCE.saturating_sub(self.hosts.values().filter(|host| host.busy == Some(lane)).count())
    }

    fn end(&mut self, name: &HostPattern) -> Option<&mut Host> {
        let host = self.hosts.get_mut(&name.to_string())?;
        host.busy = None;
        Some(host)
    }
}

impl Host {
    /// How it is shown this time that it is ours: what has failed may work in another way.
    pub fn turn(&self) -> Vec<Way> {
        let failures = usize::try_from(self.record.trouble.failures).unwrap_or(0);
        let mut ways = self.ways.clone();
        let turn = failures.checked_rem(ways.len()).unwrap_or(0);
        ways.rotate_left(turn);
        ways
    }

    fn lane(&self, step: Step) -> Lane {
        let by_dns = step == Step::Order && self.turn().first() == Some(&Way::Dns01);
        if by_dns { Lane::Dns } else { Lane::Quick }
    }

    /// Those without a certificate first, then those whose ends first.
    fn urgency(&self) -> u64 {
        self.life.map_or(0, |(_, end)| end)
    }

    fn step(&self, unix: u64, seed: u64) -> Option<Step> {
        if self.busy.is_some() {
            return None;
        }
        if self.due(seed) <= unix && self.rest(unix) <= unix && !self.record.trouble.waits(unix) {
            return Some(Step::Order);
        }
        let asks = self.life.is_some() && (self.record.ask <= unix || self.record.ask - unix > ASK.1);
        asks.then_some(Step::Window)
    }

    /// No order before, in Unix seconds, unless the certificate has ended: a day after one that was hurried, and after one
    /// that was given old at most half of what it had left.
    fn rest(&self, unix: u64) -> u64 {
        let Some((_, end)) = self.life else { return 0 };
        let (since, rest) = if self.is_hurried(unix) {
            (self.record.hurried, HURRY)
        } else {
            let given = self.record.given;
            (given, HURRY.min(end.saturating_sub(given) / 2))
        };
        // By a clock that was wrong.
        if since > unix { 0 } else { since.saturating_add(rest).min(end) }
    }

    /// When a new certificate is wanted, whatever went wrong.
    fn due(&self, seed: u64) -> u64 {
        let Some((begin, end)) = self.life else { return 0 };
        let life = end.saturating_sub(begin);
        let share = share(seed, &self.name.to_string());
        match self.record.window {
            // Any moment of it, and not so late that nothing could be mended.
            Some((from, to)) => {
                let moment = from.saturating_add(part(to.saturating_sub(from), share));
                moment.min(begin.saturating_add(life / 6 * 5))
            }
            None => begin.saturating_add((life / 3).saturating_mul(2)).saturating_sub(part(life / 40, share)),
        }
    }

    /// The authority wants it renewed in the first third of its life: it may be revoked.
    fn is_hurried(&self, unix: u64) -> bool {
        let early = |(begin, end): (u64, u64)| unix < begin.saturating_add(end.saturating_sub(begin) / 3);
        self.life.is_some_and(early)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
