//! The warnings of [`crate::warnings`], with what only the running gateway knows.

use super::Control;
use super::blocking::SWEEP;
use crate::request::client::Client;
use crate::warnings::{self, Machine, Running, Warning};

impl Control {
    /// Into the process log, at the start.
    pub(super) fn warn(&self) {
        for warning in self.advise(Vec::new()) {
            (self.say)(&format!("warning: {warning}"));
        }
    }

    /// As of now, for `status`.
    pub(super) async fn advice(&self) -> Vec<Warning> {
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

    fn advise(&self, clients: Vec<(Client, usize)>) -> Vec<Warning> {
        let names = self.site_names().into_iter();
        let lifetimes = names.filter_map(|name| self.accounts.lifetime(&name).map(|seconds| (name, seconds)));
        let running = Running { fresh: self.fresh, clients, lifetimes: lifetimes.collect() };
        warnings::all(&self.settings, &Machine::look(&self.settings), Some(&running))
    }
}
