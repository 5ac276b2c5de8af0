//! What a request and its answer teach together, and what of the answer may be handed out: the step between the upstream's
//! answer and the client.

use std::rc::Rc;
use std::time::Duration;

use http::header::HeaderMap;
use http::{Response, StatusCode};
use tokio::sync::oneshot;

use super::answer::Asked;
use super::exchange::Exchange;
use super::handed::{Handed, Means, Withheld};
use super::lesson::{Aside, BODY, Lesson};
use super::read::Reading;
use super::respond;
use super::teach::Teaching;
use super::{ForwardError, Kept};
use crate::config::class::Class;
use crate::policy::Learn;
use crate::request::body::Body;
use crate::stores::streams::Registration;
use crate::stores::taught::{Outcome, Taught};

/// Who has logged out hears so when his token is blocked, or after this.
const CONFIRMED: Duration = Duration::from_secs(1);

/// What a request will teach, and whether its answer is judged.
#[derive(Debug)]
pub struct Learning<'a> {
    reading: &'a Reading<'a>,
    handed: Option<Handed<'a>>,
    teaching: Option<Teaching>,
    body: Option<Rc<Aside>>,
}

/// What hears of an answer: the exchange; what was asked; and the live stream, since one that ends its own token must not be
/// cut before its answer.
pub type Hearer<'a> = (&'a mut Exchange, &'a Asked, &'a mut Option<Registration>);

impl<'a> Learning<'a> {
    /// Of a request that goes upstream.
    pub fn begin(reading: &'a Reading<'a>, headers: &HeaderMap, kept: &Kept) -> Self {
        let lesson = Lesson::begin(reading, headers, &kept.accounts);
        let teaching = Teaching::of(reading, headers, kept);
        let body = match reading.facts.class {
            Class::Login | Class::Refresh => {
                let own = || Rc::new(Aside::up_to(BODY));
                Some(lesson.as_ref().map_or_else(own, |lesson| Rc::clone(&lesson.body)))
            }
            _ => teaching.as_ref().filter(|one| one.reads()).map(|one| Rc::clone(&one.body)),
        };
        let handed = Handed::of(reading, headers, body.clone().unwrap_or_default(), lesson);
        Self { reading, handed, teaching, body }
    }

    /// The request's body, to be read beside its bytes.
    pub fn body(&self) -> Option<Rc<Aside>> {
        self.body.clone()
    }

    /// The answer has come: it teaches, and is judged where it hands out tokens.
    pub async fn hear(&self, answer: Response<Body>, by: Means<'_>, hearer: Hearer<'_>) -> Response<Body> {
        let (exchange, asked, live) = hearer;
        if let Some(teaching) = &self.teaching
            && teaching.is_taught(answer.status(), answer.headers())
        {
            *live = None;
            exchange.learned(teaching.word, Box::pin(self.teach(teaching, by)).await);
        }
        let Some(handed) = &self.handed else { return answer };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return answer;
        }
        match Box::pin(handed.judge(answer, by)).await {
            Ok(answer) => answer,
            Err(Withheld::Denied(denial)) => {
                exchange.denied(&denial);
                respond::denied(&denial, Some(self.reading.site), asked.shape)
            }
            Err(Withheld::Broken) => {
                exchange.because("the upstream broke its answer off while that was held to be judged");
                respond::failed(&ForwardError::Closed, asked.shape)
            }
        }
    }

    /// Leaves it to the control thread and waits a while until it holds.
    async fn teach(&self, teaching: &Teaching, by: Means<'_>) -> Outcome {
        if self.reading.site.learning.learn == Learn::Observe {
            return Outcome::Observed;
        }
        let mut waits = Vec::new();
        for (what, lasting) in &teaching.whats {
            let (done, heard) = oneshot::channel();
            let taught = Taught {
                site: self.reading.site.name.to_string(),
                what: what.clone(),
                spares: teaching.own,
                whose: teaching.whose,
                lasting: *lasting,
                reason: teaching.word,
                done,
            };
            if !by.kept.lessons.leave(taught) {
                return Outcome::TurnedAway;
            }
            waits.push(heard);
        }
        let all = async {
            let mut worst = Outcome::Learned;
            for heard in waits {
                worst = match heard.await.unwrap_or(Outcome::Unconfirmed) {
                    Outcome::Learned => worst,
                    other => other,
                };
            }
            worst
        };
        tokio::time::timeout(CONFIRMED, all).await.unwrap_or(Outcome::Unconfirmed)
    }
}
