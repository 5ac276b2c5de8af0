//! `portcullis healthcheck`: one question, one exit code.

use std::io::Write;

use http::Method;

use super::client::Gateway;
use super::exit;
use crate::admin::api::StatusAnswer;
use crate::telemetry::audit::plain;

/// Arguments of `healthcheck`: none.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// Asks over the admin socket, so that it works whoever `metrics_only_from` lets in.
pub(super) fn run(_args: &Args, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    // Whoever reads may have gone; the code still says it.
    match gateway.ask::<StatusAnswer>(Method::GET, "/v1/status", None::<&()>) {
        Ok(answer) if answer.status.ready => {
            let _ = writeln!(out, "ready");
            exit::OK
        }
        Ok(answer) => {
            let state = if answer.status.draining { "draining" } else { "starting" };
            let _ = writeln!(err, "portcullis healthcheck: not ready: {state}");
            exit::ERROR
        }
        Err(failure) => {
            let (_, message) = failure.words(gateway);
            let _ = writeln!(err, "portcullis healthcheck: {}", plain(&message));
            exit::ERROR
        }
    }
}
