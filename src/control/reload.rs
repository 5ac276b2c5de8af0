//! Reload: the config is loaded and compiled on a thread of its own, then swapped, all of it or nothing.

use std::path::Path;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::Control;
use super::defaults::SiteFacts;
use crate::admin::api::{Refusal, RefusalKind, Reloaded, Reply, SCHEMA, Summary};
use crate::clock::Now;
use crate::config::Loaded;
use crate::config::problem::{Problem, Problems};
use crate::config::values::HostPattern;
use crate::listener::tls::{Expiry, Leaf};
use crate::telemetry::audit::{Entry, plain};

/// So many seconds are too many for a reload.
const LONG: u64 = 60;

/// Takes a config into service: compiles the policy, swaps it, and replaces certificates, listeners and limits.
pub trait Reloader: Send + Sync {
    /// Reads the config anew and makes of it all that takes time; nothing that is served changes. Runs on a thread of its own,
    /// one at a time, while [`Reloader::take_certificate`] is not called.
    ///
    /// # Errors
    /// Every problem of every file.
    fn prepare(self: Arc<Self>, path: &Path) -> Result<Prepared, Problems>;

    /// What was prepared is not taken into service: the old config is served on.
    fn give_up(&self) {}

    /// What goes wrong now outside of the config: an upstream that is down, a log that cannot be written.
    fn troubles(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes a certificate into service that an authority has given; connections that are open notice nothing.
    fn take_certificate(&self, host: &HostPattern, leaf: &Leaf) {
        let _ = (host, leaf);
    }

    /// Every host with a certificate, and when that ends.
    fn certificates(&self) -> Vec<Expiry> {
        Vec::new()
    }

    /// What is to be done every few seconds.
    fn tend(&self) {}
}

/// A config that was read and compiled, and waits to be served.
pub struct Prepared {
    /// What it says.
    pub loaded: Loaded,
    /// Takes it into service, all of it or nothing; quick. Answers what is not wrong, yet worth a word.
    pub swap: Box<dyn FnOnce() -> Result<Vec<String>, Problems> + Send>,
}

/// What has become of a preparation; `None`: its thread has died.
pub(super) type Outcome = Option<Result<Prepared, Problems>>;

/// The reload that is prepared, and who waits for the next.
#[derive(Default)]
pub(super) struct Reloads {
    running: Option<(Ordered, oneshot::Receiver<Result<Prepared, Problems>>)>,
    /// Came after the files of the running one were read: they want another look.
    next: Option<Ordered>,
    /// A new process waits to take over: sockets that a reload opens must not be left to nobody.
    then: Option<UnixStream>,
}

/// Who has ordered a reload, when, and who waits for the answer.
struct Ordered {
    by: String,
    since: Now,
    replies: Vec<Reply<Reloaded>>,
}

impl Reloads {
    /// Whether one is prepared now.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// What to say of one that does not come to its end: all later ones wait behind it.
    pub fn trouble(&self, now: Now) -> Option<String> {
        let (ordered, _) = self.running.as_ref()?;
        let seconds = now.mono.saturating_sub(ordered.since.mono) / 1_000_000_000;
        (seconds >= LONG).then(|| {
            format!(
                "a reload has been under way for {seconds} s, and later ones wait behind it: does a file that the config names lie \
                 on a share that hangs? The old config is served on; blocks hold as ever; a restart ends it"
            )
        })
    }

    /// A hand-over waits for the running one and for all orders; the last that asks, where several do.
    pub fn then_hand_over(&mut self, stream: UnixStream) {
        self.then = Some(stream);
    }

    /// Whether a new process may take over now.
    pub fn has_successor(&self) -> bool {
        self.then.is_some() && !self.is_running()
    }

    /// Waits for the running one to be prepared; for ever, when there is none. May be dropped at any time.
    pub async fn prepared(&mut self) -> Outcome {
        match &mut self.running {
            Some((_, prepared)) => prepared.await.ok(),
            None => std::future::pending().await,
        }
    }
}

impl Control {
    /// Has the config read anew, beside everything else: blocks wait for no reload. One at a time; what is ordered meanwhile
    /// is one more, behind it.
    pub(super) fn begin_reload(&mut self, by: &str, reply: Option<Reply<Reloaded>>) {
        if self.reloads.is_running() {
            let since = self.clock.now();
            let next = self.reloads.next.get_or_insert_with(|| Ordered {
                by: by.to_owned(),
                since,
                replies: Vec::new(),
            });
            next.replies.extend(reply);
            return;
        }
        let ordered =
            Ordered { by: by.to_owned(), since: self.clock.now(), replies: reply.into_iter().collect() };
        self.prepare(ordered);
    }

    fn prepare(&mut self, ordered: Ordered) {
        let (done, prepared) = oneshot::channel();
        let (reloader, path) = (Arc::clone(&self.reloader), self.config.clone());
        let work = move || drop(done.send(reloader.prepare(&path)));
        // Without a thread `done` is dropped, and heard of like one that has died.
        let _ = std::thread::Builder::new().name("reload".to_owned()).spawn(work);
        self.reloads.running = Some((ordered, prepared));
    }

    /// What was prepared is served, or was refused; then the next one begins.
    pub(super) async fn take_reload(&mut self, prepared: Outcome) {
        let Some((ordered, _)) = self.reloads.running.take() else { return };
        let outcome =
            prepared.unwrap_or_else(|| Err(self.died())).and_then(|prepared| self.take_over(prepared));
        let answer = self.answer_of(outcome, ordered.since);
        self.tell(&ordered.by, &answer);
        self.show();
        self.follow_file().await;
        for reply in ordered.replies {
            // Who asked may have gone away.
            drop(reply.send(answer.clone()));
        }
        if let Some(next) = self.reloads.next.take() {
            self.prepare(next);
        }
    }

    /// Hands over to the new process that waits.
    pub(super) async fn give_way(&mut self) {
        if let Some(stream) = self.reloads.then.take() {
            self.hand_over(stream).await;
        }
    }

    fn answer_of(&mut self, outcome: Result<Vec<String>, Problems>, since: Now) -> Result<Reloaded, Refusal> {
        let now = self.clock.now();
        self.last.tried = now.wall;
        self.last.successful = outcome.is_ok();
        match outcome {
            Ok(mut warnings) => {
                self.last.loaded = now.wall;
                self.last.problems.clear();
                warnings.extend(self.orphans(now));
                let took_ms = now.mono_ms().saturating_sub(since.mono_ms());
                Ok(Reloaded {
                    schema: SCHEMA,
                    reload: Summary { sites: self.site_names(), warnings, took_ms },
                })
            }
            Err(problems) => {
                self.reloader.give_up();
                self.last.problems = lines(&problems);
                let message = "the config has problems; the old one is served on".to_owned();
                let problems = self.last.problems.clone();
                Err(Refusal { schema: SCHEMA, error: RefusalKind::ConfigInvalid, message, problems })
            }
        }
    }

    fn died(&self) -> Problems {
        let message = "the thread that reads it has died; the process log may say why";
        Problems(vec![Problem::of_file(&self.config, message.to_owned(), "please report this")])
    }

    fn take_over(&mut self, prepared: Prepared) -> Result<Vec<String>, Problems> {
        let Prepared { mut loaded, swap } = prepared;
        let sites = SiteFacts::of(&loaded.settings);
        let mut warnings = lines(&loaded.warnings);
        let file = loaded.settings.blocks.take();
        warnings.extend(swap()?);
        self.settings = loaded.settings;
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
