//! Health checks: a question now and then to each upstream whether it serves. One worker asks for all.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method, Request};

use super::{Upstreams, answer, exchange, http2};
use crate::clock::Now;
use crate::config::cluster::{Cluster, HealthCheck};
use crate::config::upstream::{Speaks, Upstream};
use crate::gateway::ForwardError;
use crate::request::body::Body;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
const AGENT: HeaderValue = HeaderValue::from_static("portcullis-health-check");

/// When who was asked last, in monotonic milliseconds.
#[derive(Debug, Default)]
pub struct Checks {
    asked: Rc<RefCell<Vec<(Upstream, Asked)>>>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: u64,
    /// Its answer is still waited for.
    waits: bool,
}

impl Checks {
    /// Asks who is due. Called some times a second.
    pub fn tick<'c>(&self, upstreams: &Upstreams, clusters: impl Iterator<Item = &'c Cluster>, now: Now) {
        let mut known = Vec::new();
        for cluster in clusters {
            let Some(check) = &cluster.manner().health else { continue };
            for upstream in cluster.members() {
                let last = self.last(upstream);
                let asked = match last.filter(|asked| !asked.is_due(check.every, now)) {
                    Some(not_due) => not_due,
                    None => {
                        self.ask(upstreams, upstream, check, cluster.manner().connect_timeout);
                        Asked { at: now.mono_ms(), waits: true }
                    }
                };
                known.push((upstream.clone(), asked));
            }
        }
        // Who is no longer in the config is forgotten.
        self.asked.replace(known);
    }

    fn last(&self, upstream: &Upstream) -> Option<Asked> {
        let asked = self.asked.borrow();
        asked.iter().find(|(one, _)| one == upstream).map(|(_, asked)| *asked)
    }

    fn ask(&self, upstreams: &Upstreams, upstream: &Upstream, check: &HealthCheck, connect: Duration) {
        let (upstreams, upstream, check) = (upstreams.clone(), upstream.clone(), check.clone());
        let asked = Rc::clone(&self.asked);
        tokio::task::spawn_local(async move {
            let question = question(&upstreams, &upstream, &check, connect);
            let well = tokio::time::timeout(PATIENCE, question).await;
            let vital = upstreams.common.means.health.of(&upstream);
            vital.checked(matches!(well, Ok(Ok(true))));
            let mut asked = asked.borrow_mut();
            asked.iter_mut().filter(|(one, _)| *one == upstream).for_each(|(_, asked)| asked.waits = false);
        });
    }
}

impl Asked {
    fn is_due(self, every: Duration, now: Now) -> bool {
        !self.waits && u128::from(now.mono_ms().saturating_sub(self.at)) >= every.as_millis()
    }
}

/// Whether it says that it serves.
async fn question(
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
