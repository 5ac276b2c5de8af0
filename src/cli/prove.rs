//! `portcullis block … --verify`: whether the block is seen to hold.

use std::io::{self, Write};

use http::Method;
use serde::Serialize;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::admin::api::Blocked;
use crate::admin::probe::{Probe, ProbeOrder, Probed};
use crate::telemetry::audit::plain;

/// What the probes came to.
#[derive(Debug, Serialize)]
pub(super) struct Proof {
    /// Every probe was refused.
    proved: bool,
    /// Milliseconds from the order to the last refusal; all that the gateway took is in it.
    after_ms: u64,
    /// Live streams that the blocks have cut.
    cut: usize,
    /// Each probe.
    probes: Vec<Probe>,
    /// Why there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

/// Lets the gateway send its probes. `token`: the blocked token itself, of which all the blocks are spellings. `since`: the
/// milliseconds since the order.
pub(super) fn prove(
    blocked: &[Blocked],
    token: Option<&str>,
    gateway: &Gateway,
    since: &dyn Fn() -> u64,
) -> Proof {
    let mut proof = Proof { proved: true, after_ms: 0, cut: 0, probes: Vec::new(), failure: None };
    proof.cut = blocked.iter().map(|one| one.cut).sum();
    // A token is one identity, however many fingerprints it may have.
    let probed = if token.is_some() { blocked.get(..1).unwrap_or_default() } else { blocked };
    for one in probed {
        let order = ProbeOrder {
            what: one.block.what.clone(),
            site: one.block.site.clone(),
            token: token.map(str::to_owned),
        };
        match gateway.ask::<Probed>(Method::POST, "/v1/probe", Some(&order)) {
            Ok(answer) => proof.probes.extend(answer.probes),
            Err(failure) => {
                let words = failure.words(gateway).1;
                proof.failure = Some(words.trim_start_matches("NOT DONE: ").to_owned());
            }
        }
    }
    proof.after_ms = since();
    let refused = |probe: &Probe| probe.refused && probe.failure.is_none();
    proof.proved = proof.failure.is_none() && !proof.probes.is_empty() && proof.probes.iter().all(refused);
    proof
}

/// One object: the block, or the list of them, and the proof beside it.
///
/// # Errors
/// When the output cannot be written.
pub(super) fn print_all(
    blocked: &[Blocked],
    proof: Option<&Proof>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let json = |value| serde_json::to_value(value).map_err(io::Error::from);
    let mut answer = match blocked {
        [] => return Ok(()),
        [one] => json(one)?,
        several => serde_json::json!({ "schema": 1, "blocked": several }),
    };
    if let (Some(proof), Some(answer)) = (proof, answer.as_object_mut()) {
        answer.insert("verify".into(), serde_json::to_value(proof).map_err(io::Error::from)?);
    }
    print_json(&answer, out)
}

impl Proof {
    /// 1 where it is not proved.
    pub(super) fn code(&self) -> u8 {
        if self.proved { exit::OK } else { exit::ERROR }
    }

    /// For people.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(super) fn tell(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if self.proved {
            let streams = if self.cut == 1 { "stream" } else { "streams" };
            writeln!(
                out,
                "PROVED: refused {} ms after the order; {} live {streams} cut",
                self.after_ms, self.cut
            )?;
        } else {
            writeln!(
                out,
                "NOT PROVED: see below; if it is let through, stop the gateway or the application"
            )?;
        }
        for probe in &self.probes {
            writeln!(out, "  {}", plain(&line(probe)))?;
        }
        if let Some(failure) = &self.failure {
            writeln!(out, "  ! no probe was sent: {}", plain(failure))?;
        }
        let disguised = self.probes.iter().find(|probe| probe.with != "token");
        if let Some(probe) = disguised {
            writeln!(
                out,
                "  The gateway has given the probe the blocked {}: that it is found in a client's request is not part of this proof.",
                probe.with
            )?;
        }
        Ok(())
    }
}

fn line(probe: &Probe) -> String {
    let Probe { site, through, status, guard, reason, took_us, failure, .. } = probe;
    let status = status.map_or(" nothing".to_owned(), |status| format!(" with {status}"));
    let took = format!("through {through}, in {}.{} ms", took_us / 1000, took_us % 1000 / 100);
    match (guard, reason, failure) {
        (Some(guard), Some(reason), None) => format!("{site}: refused{status} by {guard}: {reason}, {took}"),
        (Some(guard), _, Some(failure)) => format!("! {site}: {failure}, by {guard} ({through})"),
        (_, _, Some(failure)) => format!("! {site}: NOT refused: {failure} ({through}, answered{status})"),
        _ => format!("! {site}: NOT refused{status}, {took}"),
    }
}
