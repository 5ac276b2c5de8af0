//! Health checks: a question now and then to each upstream whether it serves. One worker asks for all.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request};

use super::connect::is_our_fault;
use super::health::{Health, Unwell};
use super::{Upstreams, answer, exchange, http2};
use crate::clock::Now;
use crate::config::cluster::{Cluster, HealthCheck, Manner};
use crate::config::upstream::{Speaks, Upstream};
use crate::gateway::ForwardError;
use crate::request::body::Body;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers in a row that change what is believed.
const IN_A_ROW: u32 = 2;
const AGENT: HeaderValue = HeaderValue::from_static("portcullis-health-check");

/// Who was asked what, and what is believed since. Who is no longer in the config is forgotten.
#[derive(Debug, Default)]
pub struct Checks {
    asked: Rc<RefCell<Asked>>,
}

#[derive(Debug, Default)]
struct Asked(HashMap<(Upstream, HealthCheck), State>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// When it was asked last, in monotonic milliseconds.
    at: u64,
    /// Its answer is still waited for.
    waits: bool,
    /// What is believed; `None`: it has not answered yet.
    well: Option<bool>,
    /// Answers in a row that say otherwise.
    doubts: u32,
}

impl Checks {
    /// Asks who is due. Called some times a second.
    pub fn tick<'c>(&self, upstreams: &Upstreams, clusters: impl Iterator<Item = &'c Cluster>, now: Now) {
        let mut known = Asked::default();
        for cluster in clusters {
            let manner = cluster.manner();
            let Some(check) = &manner.health else { continue };
            for upstream in cluster.members() {
                let question = (upstream.clone(), check.clone());
                let before = self.asked.borrow().0.get(&question).copied();
                let state = match before.filter(|state| !state.is_due(manner.health_every, now)) {
                    Some(not_due) => not_due,
                    None => {
                        self.ask(upstreams, &question, manner);
                        State { at: now.mono_ms(), waits: true, ..before.unwrap_or_default() }
                    }
                };
                known.0.insert(question, state);
            }
        }
        known.tell(&upstreams.common.means.health);
        self.asked.replace(known);
    }

    fn ask(&self, upstreams: &Upstreams, question: &(Upstream, HealthCheck), manner: &Manner) {
        let (upstreams, question, connect) = (upstreams.clone(), question.clone(), manner.connect_timeout);
        let asked = Rc::clone(&self.asked);
        tokio::task::spawn_local(async move {
            let (upstream, check) = &question;
            let answer = is_well(&upstreams, upstream, check, connect);
            let well = match tokio::time::timeout(PATIENCE, answer).await {
                Ok(Ok(well)) => Some(well),
                Ok(Err(error)) if is_our_fault(&error) => None,
                _ => Some(false),
            };
            let mut asked = asked.borrow_mut();
            if let Some(state) = asked.0.get_mut(&question) {
                state.hear(well);
                asked.tell(&upstreams.common.means.health);
            }
        });
    }
}

impl Asked {
    fn tell(&self, health: &Health) {
        let mut unwell = Unwell::new();
        for ((upstream, check), state) in &self.0 {
            if state.well == Some(false) {
                unwell.entry(check.clone()).or_default().insert(upstream.clone());
            }
        }
        health.replace_unwell(unwell);
    }
}

impl State {
    fn is_due(self, every: Duration, now: Now) -> bool {
        !self.waits && u128::from(now.mono_ms().saturating_sub(self.at)) >= every.as_millis()
    }

    /// It has answered well, or not: the first answer counts, and then two in a row. `None`: it could not be asked.
    fn hear(&mut self, well: Option<bool>) {
        self.waits = false;
        if well.is_none() {
            return;
        }
        self.doubts = if self.well == well { 0 } else { self.doubts + 1 };
        if self.well.is_none() || self.doubts >= IN_A_ROW {
            (self.well, self.doubts) = (well, 0);
        }
    }
}

/// Whether it says that it serves.
async fn is_well(
    upstreams: &Upstreams,
    upstream: &Upstream,
    check: &HealthCheck,
    connect: Duration,
) -> Result<bool, ForwardError> {
    let mut request = Request::new(Body::Empty);
    *request.method_mut() = Method::GET;
    *request.uri_mut() = check.path.clone().into();
    let host = HeaderValue::from_str(&check.host);
    request.headers_mut().insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    request.headers_mut().insert(USER_AGENT, AGENT);
    let connections = upstreams.connections(upstream);
    let status = if matches!(upstream.speaks, Speaks::H2c) {
        let mut lease = connections.shared.lease(connect).await?;
        let answer = http2::exchange(&mut lease, request).await.map_err(|failed| failed.error)?;
        answer::check(&answer)?;
        answer.status()
    } else {
        let (answer, _lease) = exchange(&connections.one_by_one, request, connect)
            .await
            .map_err(|unanswered| unanswered.error)?;
        answer.status()
    };
    Ok(status.is_success() || status.is_redirection())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_of_a_health_check_counts_and_then_two_in_a_row() {
        let mut state = State { waits: true, ..State::default() };
        let mut after = |answers: &[bool]| {
            answers.iter().for_each(|well| state.hear(Some(*well)));
            (state.well, state.waits)
        };
        assert_eq!(after(&[false]), (Some(false), false));
        assert_eq!(after(&[true, false, true]), (Some(false), false), "one good answer is a chance");
        assert_eq!(after(&[true]), (Some(true), false));
        assert_eq!(after(&[false, true, false]), (Some(true), false));
        assert_eq!(after(&[false]), (Some(false), false));
    }

    #[test]
    fn nobody_is_asked_again_before_his_time_or_his_answer() {
        let at = |seconds: u64| Now { mono: seconds * 1_000_000_000, wall: 0 };
        let every = Duration::from_secs(5);
        let state = State { at: 10_000, ..State::default() };
        assert!(!state.is_due(every, at(14)) && state.is_due(every, at(15)));
        assert!(!State { waits: true, ..state }.is_due(every, at(60)));
    }
}
