//! The warnings of [`crate::warnings`], with what only the running gateway knows.

use super::blocking::SWEEP;
use super::{Control, TICK};
use crate::clock::Now;
use crate::request::client::Client;
use crate::warnings::{self, Machine, Running, Warning};

/// So long a new state is spoken of, in nanoseconds.
const NEW: u64 = 24 * 3600 * 1_000_000_000;
/// How old what was seen of the machine may be, in nanoseconds.
const LOOK: u64 = 60_000_000_000;

impl Control {
    /// Into the process log, at the start.
    pub(super) fn warn(&self) {
        for warning in self.advise(Vec::new()) {
            (self.say)(&format!("warning: {warning}"));
        }
    }

    /// All that is wrong now, and what to do: for `status`.
    pub(super) async fn warnings(&self, now: Now) -> Vec<String> {
        let mut warnings = self.orphans(now);
        warnings.extend(self.advice().await.iter().map(ToString::to_string));
        warnings.extend(self.key_sets.warnings(now));
        warnings.extend(self.default_passwords(now));
        warnings.extend(self.reloads.trouble(now));
        warnings.extend(self.reloader.troubles());
        warnings.extend(self.certificate_warnings(now));
        if !self.unwritten.is_empty() {
            warnings.push(format!(
                "{} is not written: blocks hold until a restart; make room on the disk, it is tried again each {} s",
                self.store.path().display(),
                TICK.as_secs()
            ));
        }
        warnings
    }

    /// Standing blocks of sites that are no longer in the config: they hold nowhere.
    pub(super) fn orphans(&self, now: Now) -> Vec<String> {
        let standing = self.held.values().filter(|held| !held.is_over(now));
        standing
            .filter_map(|held| {
                let site = held.block.site.as_deref()?;
                let known = self.sites.iter().any(|facts| facts.is_called(site));
                (!known)
                    .then(|| format!("block {} holds on {site}, which is no site any more", held.block.id))
            })
            .collect()
    }

    /// As of now.
    async fn advice(&self) -> Vec<Warning> {
        let mut clients: Vec<(Client, usize)> = Vec::new();
        // A worker that is too busy to answer says nothing, and nothing is said of clients then.
        for (client, requests) in self.workers.clients(SWEEP).await.unwrap_or_default() {
            match clients.iter_mut().find(|(known, _)| *known == client) {
                Some((_, count)) => *count += requests,
                None => clients.push((client, requests)),
            }
        }
        self.advise(clients)
    }

    /// Not with every `status`: the kernel writes a line for each connection of the machine.
    pub(super) fn look_again(&mut self, now: Now) {
        if now.mono.saturating_sub(self.machine.0) >= LOOK {
            self.machine = (now.mono, Machine::look(&self.settings));
        }
    }

    fn advise(&self, clients: Vec<(Client, usize)>) -> Vec<Warning> {
        let names = self.site_names().into_iter();
        let lifetimes =
            names.filter_map(|name| self.kept.accounts.lifetime(&name).map(|seconds| (name, seconds)));
        let up = self.clock.now().mono.saturating_sub(self.started.mono);
        let lifetimes = lifetimes.collect();
        let long_tokens =
            self.site_names().into_iter().filter(|name| self.kept.accounts.has_long_token(name)).collect();
        let running = Running { fresh: self.fresh && up < NEW, clients, lifetimes, long_tokens };
        warnings::all(&self.settings, &self.machine.1, Some(&running))
    }
}
