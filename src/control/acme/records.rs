//! Records that were put into the DNS. Each is noted before it is put there, so that it is taken away whatever comes
//! between: a command that fails, a config that has changed, the end of this process.

use super::hook::{Hook, Record};
use crate::config::values::HostPattern;
use crate::stores::certificates::CertificateStore;
use crate::telemetry::audit::Say;

/// So many that could not be taken away are remembered, the last.
const MOST: usize = 8;

/// Those of one host.
pub(super) struct Records {
    host: HostPattern,
    hook: Hook,
    store: CertificateStore,
    say: Say,
    there: Vec<Record>,
}

impl Records {
    /// With what orders of before have left.
    pub fn of(host: &HostPattern, hook: Hook, store: CertificateStore, say: Say) -> Self {
        // Of what cannot be read nothing can be taken away, and the next note replaces it.
        let noted = store.records(host).ok().flatten();
        let there = noted.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
        Self { host: host.clone(), hook, store, say, there }
    }

    /// Puts one there. Whether it was or not: it is to be taken away.
    ///
    /// # Errors
    /// What the command said.
    pub async fn put(&mut self, record: Record) -> Result<(), String> {
        self.there.drain(..(self.there.len() + 1).saturating_sub(MOST));
        self.there.push(record.clone());
        self.note();
        self.hook.run("present", &record).await
    }

    /// Takes all away; what stays is said, and tried again with the next order.
    pub async fn take_away(&mut self) {
        if self.there.is_empty() {
            return;
        }
        let mut stay = Vec::new();
        for record in std::mem::take(&mut self.there) {
            if let Err(why) = self.hook.run("cleanup", &record).await {
                let name = &record.name;
                (self.say)(&format!(
                    "a record of {name} may stay in the DNS: {why}; tried again with the next order"
                ));
                stay.push(record);
            }
        }
        self.there = stay;
        self.note();
    }

    fn note(&self) {
        let written = serde_json::to_string(&self.there).map_err(std::io::Error::other);
        if let Err(error) = written.and_then(|json| self.store.keep_records(&self.host, &json)) {
            let (host, path) = (&self.host, self.store.path().display());
            (self.say)(&format!("the DNS records of {host} are not kept for a restart: {path}: {error}"));
        }
    }
}
