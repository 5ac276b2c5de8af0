//! When which host asks for a certificate: pure, the clock by hand.
//!
//! A certificate is asked for when there is none, when the authority says so (RFC 9773), or after two thirds of its life.
//! What went wrong is tried again later and later, and that is remembered over a restart: authorities lock out who hammers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::Now;
use crate::config::values::HostPattern;

/// Waits after the first, second … failure, in seconds; the last for all later ones. Four tries in the first hour: Let's
/// Encrypt allows five failed ones.
const WAITS: [u64; 6] = [60, 300, 900, 3600, 3 * 3600, 6 * 3600];
/// The same while the authority itself cannot be reached: nothing that it counts.
const AUTHORITY_WAITS: [u64; 4] = [15, 60, 300, 900];
/// No wait is longer, whatever an authority or a clock that was wrong says, in seconds.
const LONGEST_WAIT: u64 = 24 * 3600;
/// Most orders and questions under way.
pub(super) const AT_ONCE: usize = 4;
/// Between two questions after the renewal window, in seconds, at least and at most.
const ASK: (u64, u64) = (3600, 24 * 3600);
/// An authority that says for ever that it is time to renew is followed once in so many seconds.
const HURRY: u64 = 24 * 3600;
/// So often an operator's reload begins the waiting anew, in seconds.
const FORGIVE: u64 = 3600;

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
    busy: bool,
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
    /// When the authority was last followed in renewing long before the time.
    hurried: u64,
    /// When a reload last began the waiting anew.
    forgiven: u64,
}

/// What went wrong in a row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Trouble {
    pub failures: u32,
    pub problem: String,
    /// Not before, in Unix seconds.
    pub next: u64,
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
    pub fn follow(
        &mut self,
        names: &[HostPattern],
        mut load: impl FnMut(&HostPattern) -> (Option<(u64, u64)>, Record),
    ) {
        let wanted: BTreeMap<String, &HostPattern> =
            names.iter().map(|name| (name.to_string(), name)).collect();
        self.hosts.retain(|name, _| wanted.contains_key(name));
        for (word, name) in wanted {
            self.hosts.entry(word).or_insert_with(|| {
                let (life, record) = load(name);
                Host { name: name.clone(), life, record, busy: false }
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
        let busy = self.hosts.values().filter(|host| host.busy).count();
        if self.authority.waits(unix) {
            return Vec::new();
        }
        let seed = self.seed;
        let step = |host: &Host| Some((host.urgency(), host.name.to_string(), host.step(unix, seed)?));
        let mut due: Vec<_> = self.hosts.values().filter_map(step).collect();
        due.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        due.truncate(AT_ONCE.saturating_sub(busy));
        let mut begun = Vec::new();
        for (_, word, step) in due {
            let Some(host) = self.hosts.get_mut(&word) else { continue };
            host.busy = true;
            if step == Step::Order && host.is_hurried(unix) {
                host.record.hurried = unix;
            }
            begun.push((host.name.clone(), step));
        }
        begun
    }

    /// There is a certificate.
    pub fn succeeded(&mut self, name: &HostPattern, life: (u64, u64)) {
        self.authority = Trouble::default();
        if let Some(host) = self.end(name) {
            let Record { hurried, forgiven, .. } = host.record;
            host.life = Some(life);
            host.record = Record { hurried, forgiven, ..Record::default() };
        }
    }

    /// There is none, because of the host; `after`: seconds that the authority asks to wait.
    pub fn failed(&mut self, name: &HostPattern, now: Now, why: String, after: Option<u64>) {
        let seed = self.seed;
        let word = name.to_string();
        if let Some(host) = self.end(name) {
            let wait = host.record.trouble.wait(&WAITS, share(seed, &word));
            host.record.trouble.note(now, why, wait.max(after.unwrap_or(0)));
        }
    }

    /// The authority itself does not answer as it should: that is nobody's failure, and all wait.
    pub fn unreachable(&mut self, name: &HostPattern, now: Now, why: String, after: Option<u64>) {
        self.end(name);
        // Those that were under way together fail together.
        if !self.authority.waits(now.unix()) {
            let wait = self.authority.wait(&AUTHORITY_WAITS, share(self.seed, "authority"));
            self.authority.note(now, why, wait.max(after.unwrap_or(0)));
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
        self.authority.next = 0;
        for host in self.hosts.values_mut().filter(|host| host.record.trouble.failures > 0) {
            if host.record.forgiven.saturating_add(FORGIVE) <= now.unix() {
                (host.record.forgiven, host.record.trouble.next) = (now.unix(), 0);
            }
        }
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
    pub fn next(&self, host: &Host) -> Option<u64> {
        if host.busy {
            return None;
        }
        Some(host.due(self.seed).max(host.record.trouble.next).max(self.authority.next))
    }

    fn end(&mut self, name: &HostPattern) -> Option<&mut Host> {
        let host = self.hosts.get_mut(&name.to_string())?;
        host.busy = false;
        Some(host)
    }
}

impl Host {
    /// Those without a certificate first, then those whose ends first.
    fn urgency(&self) -> u64 {
        self.life.map_or(0, |(_, end)| end)
    }

    fn step(&self, unix: u64, seed: u64) -> Option<Step> {
        if self.busy {
            return None;
        }
        let hurries_again =
            self.is_hurried(unix) && unix.saturating_sub(self.record.hurried) < HURRY && !self.is_old(unix);
        if self.due(seed) <= unix && !self.record.trouble.waits(unix) && !hurries_again {
            return Some(Step::Order);
        }
        let asks = self.life.is_some() && (self.record.ask <= unix || self.record.ask - unix > ASK.1);
        asks.then_some(Step::Window)
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

    fn is_old(&self, unix: u64) -> bool {
        self.life.is_none_or(|(_, end)| end <= unix)
    }
}

impl Trouble {
    /// A wait that is longer than any is that of a clock which was wrong.
    fn waits(&self, unix: u64) -> bool {
        self.next > unix && self.next - unix <= LONGEST_WAIT
    }

    fn note(&mut self, now: Now, why: String, wait: u64) {
        self.failures = self.failures.saturating_add(1);
        self.problem = why;
        self.next = now.unix().saturating_add(wait.min(LONGEST_WAIT));
    }

    /// Seconds to wait after the next failure.
    fn wait(&self, waits: &[u64], share: u64) -> u64 {
        let place = usize::try_from(self.failures).unwrap_or(usize::MAX).min(waits.len().saturating_sub(1));
        let wait = waits.get(place).copied().unwrap_or(LONGEST_WAIT);
        wait.saturating_add(part(wait / 5, share))
    }
}

/// A number from 0 to 1023 that differs between hosts and processes (FNV-1a).
fn share(seed: u64, word: &str) -> u64 {
    let mut hash = seed ^ 0xcbf2_9ce4_8422_2325;
    for byte in word.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash >> 20) & 1023
}

fn part(whole: u64, share: u64) -> u64 {
    u64::try_from(u128::from(whole) * u128::from(share) / 1024).unwrap_or(0)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
