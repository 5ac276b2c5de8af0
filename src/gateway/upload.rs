//! The client's body on its way up: counted against the class's limit while it passes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::lesson::{Aside, Said};
use super::read::Reading;
use super::{Link, hops};
use crate::config::class::Class;
use crate::request::body::{Body, BodyError, Source, Tail};

/// Bodies up to this size are read away.
const DRAINED: u64 = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// What became of a client's body; shared with the body itself.
pub struct Upload {
    link: Rc<dyn Link>,
    paced: bool,
    /// The client speaks HTTP/2.
    h2: bool,
    /// Trailers pass.
    trailers: bool,
    limit: u64,
    count: Rc<Cell<u64>>,
    whole: Rc<Cell<bool>>,
    state: Rc<Cell<State>>,
    aside: Option<Rc<Aside>>,
}

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Running,
    TooLarge,
    Broken,
}

impl Upload {
    /// An upload of a request; `count` hears the bytes. `trailers`: those of HTTP/2 pass.
    pub fn new(reading: &Reading<'_>, count: Rc<Cell<u64>>, link: Rc<dyn Link>, trailers: bool) -> Self {
        let route = reading.found.route;
        // Where the guard only observes the exchange measures what has passed.
        let limit = if route.observe.size { u64::MAX } else { route.guards.size.limit() };
        let paced = !matches!(reading.facts.class, Class::Live | Class::Rpc);
        let h2 = reading.h2;
        let (whole, state) = Default::default();
        Self { link, paced, h2, trailers, limit, count, whole, state, aside: None }
    }

    /// Lets the body be read beside as it passes.
    #[must_use]
    pub fn read_aside(self, aside: Option<Rc<Aside>>) -> Self {
        Self { aside, ..self }
    }

    /// The whole body has been read: for who reads beside it.
    pub fn was_read(&self, said: impl FnOnce() -> Said) {
        if let Some(aside) = &self.aside {
            aside.was_read(said());
        }
    }

    /// The body to forward.
    pub fn body(&self, incoming: Incoming) -> Body {
        if incoming.is_end_stream() {
            self.whole.set(true);
            return Body::Empty;
        }
        let meter = Meter {
            link: Rc::clone(&self.link),
            paced: self.paced,
            waits: false,
            trailers: self.trailers,
            left: self.limit,
            count: Rc::clone(&self.count),
            whole: Rc::clone(&self.whole),
            state: Rc::clone(&self.state),
            aside: self.aside.clone(),
        };
        let source = if self.h2 { Source::Http2(incoming) } else { Source::Http1(incoming) };
        Body::stream(source, Box::new(meter))
    }

    /// The bytes that have passed so far.
    pub fn count(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.count)
    }

    /// Becomes true when all of it has been taken.
    pub fn whole(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.whole)
    }

    /// It passed its limit.
    pub fn too_large(&self) -> bool {
        self.state.get() == State::TooLarge
    }

    /// The client broke it off, or it broke the rules.
    pub fn broken(&self) -> bool {
        self.state.get() == State::Broken
    }
}

/// Reads a small body away that goes nowhere, so that the answer finds a client that listens: some take an answer before the end
/// of their own body for a broken connection. What is large or slow is not waited for.
///
/// `asks_first`: the client waits for 100 before it sends (`Expect`): reading would ask it to upload what nobody wants.
pub async fn drain(mut body: impl http_body::Body<Data = Bytes> + Unpin, asks_first: bool) {
    if asks_first || body.is_end_stream() || body.size_hint().lower() > DRAINED {
        return;
    }
    let read = async {
        let mut left = DRAINED;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, read).await;
}

struct Meter {
    link: Rc<dyn Link>,
    /// A minimum rate holds for the class.
    paced: bool,
    /// The client has been said to owe.
    waits: bool,
    trailers: bool,
    left: u64,
    count: Rc<Cell<u64>>,
    whole: Rc<Cell<bool>>,
    state: Rc<Cell<State>>,
    aside: Option<Rc<Aside>>,
}

impl Tail for Meter {
    fn data(&mut self, piece: &Bytes) -> Result<(), BodyError> {
        let length = piece.len() as u64;
        self.count.set(self.count.get() + length);
        let Some(left) = self.left.checked_sub(length) else {
            self.state.set(State::TooLarge);
            return Err(BodyError::TooLarge);
        };
        self.left = left;
        if let Some(aside) = &self.aside {
            aside.take(piece);
        }
        Ok(())
    }

    fn waiting(&mut self, waits: bool) {
        if self.paced && self.waits != waits {
            self.waits = waits;
            self.link.owes(waits, self.count.get());
        }
    }

    fn complete(&mut self) {
        self.whole.set(true);
    }

    fn broken(&mut self, _: &(dyn std::error::Error + 'static)) {
        self.state.set(State::Broken);
    }

    fn trailers(&mut self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        if !self.trailers {
            return None;
        }
        hops::trailers(&mut trailers);
        Some(trailers)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.waiting(false);
    }
}
