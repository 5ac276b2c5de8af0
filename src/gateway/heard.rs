//! The upstream's answer on its way to the client: what it settles, what it teaches, whether it may be handed out, and what
//! is put on it.

use http::Response;

use super::answer::{self, Asked};
use super::attempt::Attempt;
use super::exchange::Exchange;
use super::handed::Means as Judging;
use super::learning::Learning;
use super::read::Reading;
use super::share::Visit;
use super::upload::Upload;
use super::{ForwardError, Gateway, Link, companion, download, respond};
use crate::guards::stripped::Stripped;
use crate::request::body::Body;
use crate::stores::streams::Registration;

/// What waits for the upstream's answer.
pub(super) struct Waits<'a> {
    pub(super) reading: &'a Reading<'a>,
    pub(super) upload: &'a Upload,
    pub(super) link: &'a dyn Link,
    pub(super) asked: &'a Asked,
    pub(super) attempt: Option<Attempt>,
    pub(super) learning: &'a Learning<'a>,
    pub(super) live: &'a mut Option<Registration>,
    pub(super) visit: Visit<'a>,
    pub(super) stripped: Stripped,
}

impl<U> Gateway<U> {
    /// What the client gets: what was heard, with the cookies of our own, and tamed on the download host.
    pub(super) async fn answered(
        &self,
        answered: Result<Response<Body>, ForwardError>,
        waits: Waits<'_>,
        exchange: &mut Exchange,
    ) -> Response<Body> {
        let (reading, shape, stripped) = (waits.reading, waits.asked.shape, waits.stripped);
        let answer = self.heard(answered, waits, exchange).await;
        let answer = companion::attach(answer, reading, &self.kept, exchange).await;
        let answer = answer::expire_cookies(answer, reading.site, stripped);
        download::tame(answer, reading, shape)
    }

    /// What the client gets of what the upstream has answered, and what that settles.
    async fn heard(
        &self,
        answered: Result<Response<Body>, ForwardError>,
        waits: Waits<'_>,
        exchange: &mut Exchange,
    ) -> Response<Body> {
        let Waits { reading, upload, link, asked, attempt, learning, live, mut visit, stripped } = waits;
        let dead = visit.settle(&answered, exchange);
        let answer = match answered {
            Ok(answer) if dead => {
                if let Some(attempt) = attempt {
                    // Only its status counts, and nobody has its body.
                    drop(Box::pin(self.settle(attempt, answer.map(|_| Body::Empty), reading)).await);
                }
                return Box::pin(visit.dead(exchange, asked)).await;
            }
            Ok(answer) => answer::permitted(answer, reading, exchange, asked),
            Err(error) => {
                attempt.into_iter().for_each(|attempt| self.unanswered(attempt, &error));
                return answer::failed(&error, upload, link, exchange, asked);
            }
        };
        // By what the application said, whatever becomes of it: a right password is no guess.
        let settled = match attempt {
            // Apart, like all that few requests come to: every request's future would carry its room.
            Some(attempt) => Box::pin(self.settle(attempt, answer, reading)).await,
            None => Ok(answer),
        };
        match settled {
            Ok(answer) => learning.hear(answer, self.judging(stripped), (exchange, asked, live)).await,
            Err(_) => {
                exchange.because("the answer to the login broke off");
                respond::failed(&ForwardError::Closed, asked.shape)
            }
        }
    }

    fn judging(&self, stripped: Stripped) -> Judging<'_> {
        Judging { blocks: &self.blocks, kept: &self.kept, clock: &self.clock, stripped }
    }
}
