//! A request for a share link beyond the guards: its turn at the application, what the answer means for the share guard,
//! and that links which are none all look and last the same.
//!
//! **Lines.** An application that reads its count of downloads, and writes it a moment later, gives one too many to those
//! who come in that moment. Where the app file says so, requests for one link go to it one at a time, over all workers. A
//! client that leaves does not free the turn: the application counts on, and is waited for. A block does not wait: what it cuts
//! is not asked any longer, and the turn stays taken for [`LEFT`], since it may have been counted all the same.
//!
//! **Ranges.** Where each range counts as a download, one that begins at the first byte is answered whole, and one that
//! comes while the same client downloads the same link is refused before it is counted. A range from further on, with no
//! download under way, is a download resumed: it goes through, and counts once more. What has gone by cannot be had again
//! without the application, and this is no cache.
//!
//! **Time.** The application finds out that a link is none; a blocked one it is not even asked for. Both answers wait for
//! the next full step, a blocked one for as many as the latest link that was none has taken.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_RANGES, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use http::{Response, StatusCode};
use tower::{Service, ServiceExt};

use super::answer::Asked;
use super::exchange::Exchange;
use super::read::Reading;
use super::{Forward, ForwardError, Permit, respond};
use crate::guards::share::{self, Charged, Share};
use crate::guards::{Denial, Reason};
use crate::policy::{Site, Turning};
use crate::request::body::Body;
use crate::stores::lines::{Lines, Place, Turn};
use crate::stores::logins::client_group;
use crate::stores::streams::{Kill, Killable};
use crate::stores::turns::LEFT;

/// Longest wait for a turn; shorter than people wait for a download to begin.
const WAIT: Duration = Duration::from_secs(10);
/// When who is sent away may come again.
const AGAIN: Duration = Duration::from_secs(5);

/// What is to be done for a request when its answer has come.
pub struct Visit<'a> {
    site: &'a Site,
    share: Option<&'a Share>,
    charged: Option<Charged>,
    turning: Option<Turning>,
    turn: Option<Turn>,
    held: Option<Held>,
}

/// Ends what is asked, if its request is dropped because that was killed.
struct Cut {
    kill: Rc<Kill>,
    asked: Rc<Kill>,
}

impl Drop for Cut {
    fn drop(&mut self) {
        if self.kill.is_killed() {
            self.asked.kill();
        }
    }
}

/// What is held until the answer has ended.
#[derive(Debug)]
pub enum Held {
    /// The turn.
    Turn(Turn),
    /// Only the knowledge that this client downloads this link.
    Running(Place),
}

impl<'a> Visit<'a> {
    /// Begins, with a turn where the route has them. On a route whose share guard only observes nobody waits.
    ///
    /// # Errors
    /// The line is too long. What was charged is then taken back.
    pub async fn begin(
        mut permit: Permit,
        reading: &Reading<'a>,
        headers: &mut HeaderMap,
        lines: &Arc<Lines>,
    ) -> Result<(Permit, Self), Denial> {
        let route = reading.found.route;
        let share = route.guards.share.as_deref();
        let charged = permit.charged();
        let mut visit = Self { site: reading.site, share, charged, turning: None, turn: None, held: None };
        visit.turning = route.turns.filter(|_| !route.observe.share);
        if let (Some(turning), Some(link)) = (visit.turning, reading.facts.share) {
            let only_once = turning.ranges_count && part_of(headers);
            let at = (reading.site.scopes.first().copied().unwrap_or_default(), link);
            let place = lines.stand(at, client_group(reading.facts.client), only_once);
            visit.turn = match place {
                // Boxed: few requests wait, and all would carry the room for it.
                Some(place) => Box::pin(tokio::time::timeout(WAIT, place.turn())).await.ok().flatten(),
                None => None,
            };
            if visit.turn.is_none() {
                visit.settle_as(StatusCode::TOO_MANY_REQUESTS, reading.facts.now);
                return Err(Denial {
                    guard: share::NAME,
                    reason: Reason::LinkBusy,
                    retry_after: Some(AGAIN),
                });
            }
        }
        Ok((permit, visit))
    }

    /// Asks the application; with the turn, if it takes one. `kill` ends the request.
    pub async fn ask<U>(
        &mut self,
        upstream: U,
        forward: Forward,
        kill: Rc<Kill>,
    ) -> Result<Response<Body>, ForwardError>
    where
        U: Service<Forward, Response = Response<Body>, Error = ForwardError> + 'static,
        U::Future: 'static,
    {
        let Some((turn, turning)) = self.turn.take().zip(self.turning) else {
            return upstream.oneshot(forward).await;
        };
        let cut = Cut { kill, asked: Rc::default() };
        let work = Killable::new(upstream.oneshot(forward), Rc::clone(&cut.asked));
        // In a task of its own, which outlives a client that leaves: what is asked is counted.
        let asked = tokio::task::spawn_local(async move {
            match work.await {
                Some(answered) => Some((answered, turn)),
                None => {
                    wait(LEFT).await;
                    None
                }
            }
        });
        let Ok(Some((mut answered, turn))) = asked.await else { return Err(ForwardError::Closed) };
        drop(cut);
        self.held = Some(match turning.until_end {
            true => Held::Turn(turn),
            false => Held::Running(turn.give_on()),
        });
        if let (true, Ok(answer)) = (turning.ranges_count, &mut answered) {
            answer.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
        }
        answered
    }

    /// Settles what was charged; whether the application has said that there is no such link.
    pub fn settle(
        &mut self,
        answered: &Result<Response<Body>, ForwardError>,
        exchange: &mut Exchange,
    ) -> bool {
        let status = answered.as_ref().map_or(StatusCode::BAD_GATEWAY, Response::status);
        self.settle_as(status, exchange.now());
        exchange.held = self.held.take();
        !exchange.rpc && self.share.is_some_and(|share| share.is_dead(status))
    }

    /// In place of the application's answer for a link that is none: the one that a blocked link gets too.
    pub async fn dead(self, exchange: &mut Exchange, asked: &Asked) -> Response<Body> {
        exchange.upstream_answered();
        if let Some(share) = self.share {
            wait(share.pace.of_dead(exchange.taken())).await;
        }
        respond::replaced(StatusCode::NOT_FOUND, self.site, asked.shape)
    }

    fn settle_as(&mut self, status: StatusCode, now: crate::clock::Now) {
        if let Some(charged) = self.charged.take() {
            charged.settle(status, now);
        }
    }
}

/// A blocked link lasts as long as one that is none.
pub async fn blocked(denial: &Denial, reading: &Reading<'_>, exchange: &Exchange) {
    let share = reading.found.route.guards.share.as_deref();
    if let (Reason::ShareBlocked, Some(share)) = (denial.reason, share) {
        wait(share.pace.of_blocked(exchange.taken())).await;
    }
}

async fn wait(time: Duration) {
    // Boxed, as above.
    Box::pin(tokio::time::sleep(time)).await;
}

/// Whether a part of the file is asked for. From the first byte on it is as well answered whole, as HTTP allows (RFC 9110,
/// 14.2); so are parts that are no single one.
fn part_of(headers: &mut HeaderMap) -> bool {
    let Some(range) = headers.get(RANGE) else { return false };
    if !begins_later(range.as_bytes()) {
        headers.remove(RANGE);
        headers.remove(IF_RANGE);
    }
    true
}

/// One range that begins behind the first byte: `bytes=500-`, `bytes=500-999`.
fn begins_later(range: &[u8]) -> bool {
    let spec = std::str::from_utf8(range).ok().and_then(|range| range.trim().strip_prefix("bytes="));
    let Some((from, to)) = spec.and_then(|spec| spec.split_once('-')) else { return false };
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    number(from) && from.bytes().any(|byte| byte != b'0') && (to.is_empty() || number(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_from_the_first_byte_is_asked_for_whole_and_a_resumed_one_as_it_is() {
        for (range, whole) in [
            ("bytes=0-", true),
            ("bytes=0-0", true),
            ("bytes=000-9", true),
            ("bytes=-500", true),
            ("bytes=1-2,5-6", true),
            ("bytes=5-x", true),
            ("lines=5-", true),
            ("bytes=5-", false),
            ("bytes=010-99", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_static(range));
            headers.insert(IF_RANGE, HeaderValue::from_static("\"x\""));
            assert!(part_of(&mut headers), "{range}");
            assert_eq!(headers.is_empty(), whole, "{range}");
        }
        assert!(!part_of(&mut HeaderMap::new()));
    }
}
