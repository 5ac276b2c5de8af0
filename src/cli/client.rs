//! Asking the running gateway, and saying in words and exit codes what came of it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit;
use crate::admin::api::{Refusal, RefusalKind};
use crate::admin::client::{CallError, call};
use crate::config::app::TokenFormat;
use crate::telemetry::audit::plain;

/// Longer than the promise, sweep and slow disk take; a reload reads many files.
const LIMIT: Duration = Duration::from_secs(15);

/// Where the gateway is, and what its tokens look like.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// The admin socket.
    pub socket: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The formats of the sites' tokens, each once; empty: not known.
    pub formats: Vec<TokenFormat>,
}

/// Why a verb ends without what it asked for.
#[derive(Debug)]
pub enum Failure {
    /// Nobody listens, or this user may not ask.
    NotReached(CallError),
    /// Asked, but no answer.
    NoAnswer(CallError),
    /// The gateway says no.
    Refused(Refusal),
    /// What was typed makes no sense.
    Usage(String),
    /// The output cannot be written, or the like.
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Gateway {
    /// Asks once.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let body = body.map(serde_json::to_vec).transpose().map_err(io::Error::from)?;
        let (status, text) = call(&self.socket, method, path, body, LIMIT).map_err(|error| match error {
            CallError::NoAnswer(_) => Failure::NoAnswer(error),
            CallError::Down(_) | CallError::Forbidden(_) => Failure::NotReached(error),
        })?;
        let odd = |error: serde_json::Error| {
            Failure::NoAnswer(CallError::NoAnswer(format!("it answered {status}: {error}")))
        };
        if status.is_success() {
            return serde_json::from_slice(&text).map_err(odd);
        }
        Err(Failure::Refused(serde_json::from_slice(&text).map_err(odd)?))
    }
}

impl Failure {
    /// Says it and gives the exit code. `verb` begins the line: `block`, `reload`.
    pub fn tell(&self, gateway: &Gateway, verb: &str, json: bool, err: &mut dyn Write) -> u8 {
        let (code, message) = self.words(gateway);
        let problems = match self {
            Self::Refused(refusal) => refusal.problems.as_slice(),
            _ => &[],
        };
        let written = if json {
            let error =
                serde_json::json!({ "schema": 1, "error": message, "problems": problems, "exit": code });
            writeln!(err, "{error}")
        } else {
            writeln!(err, "portcullis {verb}: {}", plain(&message))
                .and_then(|()| problems.iter().try_for_each(|problem| writeln!(err, "  {}", plain(problem))))
        };
        // Whoever reads has gone; the code still says it.
        let _ = written;
        code
    }

    /// The exit code and the words.
    pub(super) fn words(&self, gateway: &Gateway) -> (u8, String) {
        let socket = gateway.socket.display();
        match self {
            Self::NotReached(CallError::Forbidden(error)) => (
                exit::UNREACHED,
                format!(
                    "NOT DONE: may not open {socket} ({error}). Run it as root or as the gateway's own user."
                ),
            ),
            Self::NotReached(error) => (
                exit::UNREACHED,
                format!(
                    "NOT DONE: {error} ({socket}). Is it running, and is this its config (--config)? While a new gateway takes over, say it again."
                ),
            ),
            Self::NoAnswer(error) => (
                exit::ERROR,
                format!(
                    "NOT CONFIRMED: {error}. It may or may not be done: look with `portcullis blocks`, or say it again."
                ),
            ),
            Self::Refused(refusal) => {
                let code = match refusal.error {
                    RefusalKind::Refused => exit::REFUSED,
                    RefusalKind::Usage => exit::USAGE,
                    RefusalKind::ConfigInvalid => exit::CONFIG,
                    RefusalKind::Unknown | RefusalKind::NotWritten | RefusalKind::Unavailable => exit::ERROR,
                };
                (code, format!("NOT DONE: {}", refusal.message))
            }
            Self::Usage(message) => (exit::USAGE, message.clone()),
            Self::Io(error) => (exit::ERROR, error.to_string()),
        }
    }
}

/// Prints an answer as one JSON object.
///
/// # Errors
/// When the output cannot be written.
pub fn print_json(answer: &impl Serialize, out: &mut dyn Write) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer).map_err(io::Error::from)?;
    writeln!(out, "{text}")?;
    Ok(())
}
