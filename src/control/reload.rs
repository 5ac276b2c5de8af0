//! Reload: the config is loaded, compiled and swapped, all of it or nothing.

use std::path::PathBuf;

use super::Control;
use super::defaults::SiteFacts;
use crate::admin::api::{Refusal, RefusalKind, Reloaded, SCHEMA, Summary};
use crate::config::problem::{Problem, Problems};
use crate::config::values::HostPattern;
use crate::config::{self, Loaded};
use crate::listener::tls::{Expiry, Leaf};
use crate::telemetry::audit::{Entry, plain};

/// Takes a config into service: compiles the policy, swaps it, and replaces certificates, listeners and limits.
pub trait Reloader: Send {
    /// All of it or nothing. Answers what is not wrong, yet worth a word.
    ///
    /// # Errors
    /// Every problem; the old config is then served on, untouched.
    fn apply(&mut self, loaded: Loaded) -> Result<Vec<String>, Problems>;

    /// Reads the config anew: [`config::load`], but for tests.
    ///
    /// # Errors
    /// Every problem of every file.
    fn load(&mut self, path: &std::path::Path) -> Result<Loaded, Problems> {
        config::load(path)
    }

    /// What goes wrong now outside of the config: an upstream that is down, a log that cannot be written.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes a certificate into service that an authority has given; connections that are open notice nothing.
    fn take_certificate(&mut self, host: &HostPattern, leaf: &Leaf) {
        let _ = (host, leaf);
    }

    /// Every host with a certificate, and when that ends.
    fn certificates(&self) -> Vec<Expiry> {
        Vec::new()
    }

    /// What is to be done every few seconds.
    fn tend(&mut self) {}

    /// The files to watch from now on.
    fn follow(&mut self, files: Vec<PathBuf>) {
        let _ = files;
    }
}

impl Control {
    /// Reads the config anew and takes it into service. Serialised, because the control thread does it.
    ///
    /// # Errors
    /// Every problem, each with its place; nothing has changed then.
    pub fn reload(&mut self, by: &str) -> Result<Reloaded, Refusal> {
        let start = self.clock.now();
        let outcome = self.reloader.load(&self.config).and_then(|loaded| self.take_over(loaded));
        let now = self.clock.now();
        self.last.tried = now.wall;
        self.last.successful = outcome.is_ok();
        let answer = match outcome {
            Ok(mut warnings) => {
                self.last.loaded = now.wall;
                self.last.problems.clear();
                warnings.extend(self.orphans(now));
                let took_ms = now.mono_ms().saturating_sub(start.mono_ms());
                Ok(Reloaded {
                    schema: SCHEMA,
                    reload: Summary { sites: self.site_names(), warnings, took_ms },
                })
            }
            Err(problems) => {
                self.last.problems = lines(&problems);
                let message = "the config has problems; the old one is served on".to_owned();
                let problems = self.last.problems.clone();
                Err(Refusal { schema: SCHEMA, error: RefusalKind::ConfigInvalid, message, problems })
            }
        };
        self.tell(by, &answer);
        self.show();
        answer
    }

    fn take_over(&mut self, mut loaded: Loaded) -> Result<Vec<String>, Problems> {
        let sites = SiteFacts::of(&loaded.settings);
        let files = loaded.settings.files.clone();
        let mut warnings = lines(&loaded.warnings);
        let file = loaded.settings.blocks.take();
        let settings = loaded.settings.clone();
        warnings.extend(self.reloader.apply(loaded)?);
        self.settings = settings;
        self.reloader.follow(files);
        self.key_sets.tend(self.clock.now());
        let now = self.clock.now();
        self.authority.follow(&self.settings, now);
        self.authority.forgive(now);
        self.authority.tend(now);
        self.sites = sites;
        self.file = file;
        Ok(warnings)
    }

    fn tell(&self, by: &str, answer: &Result<Reloaded, Refusal>) {
        let outcome = match answer {
            Ok(_) => "done",
            Err(refusal) => {
                for line in &refusal.problems {
                    (self.say)(&format!("reload refused: {}", plain(line)));
                }
                "refused, the old config is served on"
            }
        };
        let config = self.config.display().to_string();
        self.audit(&Entry { action: "reload", by, what: &config, reason: "", outcome });
    }
}

/// Each problem in one line with its place.
pub(super) fn lines(problems: &Problems) -> Vec<String> {
    problems.0.iter().map(line).collect()
}

fn line(problem: &Problem) -> String {
    let place = match &problem.span {
        Some(span) => {
            let before = problem.source.get(..span.start).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("{}:{line}:{column}", problem.file.display())
        }
        None => problem.file.display().to_string(),
    };
    let help = if problem.help.is_empty() { String::new() } else { format!(" ({})", problem.help) };
    format!("{place}: {}{help}", problem.message)
}
