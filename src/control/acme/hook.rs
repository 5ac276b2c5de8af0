//! The command that puts records into the DNS. docs/certificates.md holds its contract.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::telemetry::audit::plain;

/// What of its complaints is kept, in bytes.
const HEARD: u64 = 4096;
/// For what it has said just before its end.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// What of them is repeated, in characters.
const REPEATED: usize = 200;
/// What it may know of our environment.
const PASSED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "CREDENTIALS_DIRECTORY"];

/// A hook and its patience.
#[derive(Debug, Clone)]
pub(super) struct Hook {
    pub command: Vec<Box<str>>,
    pub limit: Duration,
}

/// One record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// `_acme-challenge.example.com`.
    pub name: String,
    pub value: String,
}

impl Hook {
    /// Runs it with `present` or `cleanup`, name and value; it is done when it exits with 0.
    pub async fn run(&self, action: &str, record: &Record) -> Result<(), String> {
        let (program, arguments) = self.command.split_first().ok_or("there is no dns_command")?;
        let mut command = Command::new(&**program);
        command.args(arguments.iter().map(|word| &**word)).args([action, &record.name, &record.value]);
        command.env_clear().envs(PASSED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))));
        command.env("ACME_ACTION", action).env("ACME_NAME", &record.name).env("ACME_VALUE", &record.value);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let guard = Group(group);
        let complaints = child.stderr.take();
        let ended = ended(&mut child, complaints);
        let Ok((status, heard)) = tokio::time::timeout(self.limit, ended).await else {
            drop(guard);
            let _ = child.wait().await;
            return Err(format!("{program} {action} was killed: it had not ended after {:?}", self.limit));
        };
        guard.leave();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("{program} {action} failed ({status}){}", last_words(&heard))),
            Err(error) => Err(format!("{program} {action} cannot be waited for: {error}")),
        }
    }
}

/// A process and all that it has begun; they end with this.
struct Group(Option<Pid>);

impl Group {
    /// It has ended by itself: its number may be another's by now.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Its end and its complaints. What it leaves running may hold its pipe for ever: its own end counts.
async fn ended(
    child: &mut Child,
    complaints: Option<impl AsyncRead + Unpin>,
) -> (std::io::Result<std::process::ExitStatus>, Vec<u8>) {
    let mut heard = Vec::new();
    let status = {
        let mut listening = std::pin::pin!(listen(complaints, &mut heard));
        tokio::select! {
            status = child.wait() => {
                let _ = tokio::time::timeout(LAST_WORDS, &mut listening).await;
                status
            }
            () = &mut listening => child.wait().await,
        }
    };
    (status, heard)
}

/// Reads on after the first bytes, so that a talkative one does not hang.
async fn listen(from: Option<impl AsyncRead + Unpin>, heard: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let _ = (&mut from).take(HEARD).read_to_end(heard).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

fn last_words(heard: &[u8]) -> String {
    let text = String::from_utf8_lossy(heard);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let short: String = plain(last.trim()).chars().take(REPEATED).collect();
    if short.is_empty() { short } else { format!(": {short}") }
}
