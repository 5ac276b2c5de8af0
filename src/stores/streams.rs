//! The live streams of one worker: every request in flight, every tunnel; what a block must be able to cut.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::request::facts::Facts;

/// Why a sweep ends a stream.
const BLOCKED: &str = "cut by a block";

/// The live streams of one worker. A stream is registered *before* the block index is read for it, so that a block
/// either is seen by the request or sees the request.
#[derive(Debug, Default)]
pub struct Streams {
    live: RefCell<Slab<Live>>,
    /// How many of them end with their token.
    ending: Cell<usize>,
}

#[derive(Debug)]
struct Live {
    facts: Rc<Facts>,
    kill: Rc<Kill>,
}

/// Takes its stream off the list when dropped.
#[derive(Debug)]
pub struct Registration {
    streams: Rc<Streams>,
    place: usize,
}

/// Ends one piece of work at once: an HTTP/1.1 connection, one stream of an HTTP/2 connection, or a tunnel.
#[derive(Debug, Default)]
pub struct Kill {
    killed: Cell<bool>,
    cause: Cell<Option<&'static str>>,
    waker: RefCell<Option<Waker>>,
}

impl Streams {
    /// Registers a stream for as long as the registration lives.
    pub fn register(self: &Rc<Self>, facts: Rc<Facts>, kill: Rc<Kill>) -> Registration {
        self.ending.set(self.ending.get() + usize::from(facts.ends.is_some()));
        let place = self.live.borrow_mut().insert(Live { facts, kill });
        Registration { streams: Rc::clone(self), place }
    }

    /// Kills every stream that a block means; answers how many.
    pub fn sweep(&self, meant: impl Fn(&Facts) -> bool) -> usize {
        self.cut(BLOCKED, meant)
    }

    /// Kills every stream that is meant; answers how many. The cause is for the log.
    pub fn cut(&self, cause: &'static str, meant: impl Fn(&Facts) -> bool) -> usize {
        // Killing only wakes; what drops registrations runs later, so the borrow is safe.
        let live = self.live.borrow();
        let hit = live.iter().filter(|(_, live)| !live.kill.is_killed() && meant(&live.facts));
        hit.map(|(_, live)| live.kill.kill_for(cause)).count()
    }

    /// Shows what is known of each live stream.
    pub fn each(&self, mut show: impl FnMut(&Facts)) {
        self.live.borrow().iter().for_each(|(_, live)| show(&live.facts));
    }

    /// Whether any of them ends with its token.
    pub fn any_ends(&self) -> bool {
        self.ending.get() > 0
    }

    /// How many are live.
    pub fn len(&self) -> usize {
        self.live.borrow().len()
    }

    /// Whether none is live.
    pub fn is_empty(&self) -> bool {
        self.live.borrow().is_empty()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let gone = self.streams.live.borrow_mut().try_remove(self.place);
        let ended = gone.is_some_and(|live| live.facts.ends.is_some());
        self.streams.ending.set(self.streams.ending.get() - usize::from(ended));
    }
}

impl Kill {
    /// The same, and says why, for the log.
    pub fn kill_for(&self, cause: &'static str) {
        self.cause.set(Some(cause));
        self.kill();
    }

    /// Why it was ended, where that was said.
    pub fn cause(&self) -> Option<&'static str> {
        self.cause.get()
    }

    /// Ends the work at its next poll, which is at once.
    pub fn kill(&self) {
        self.killed.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wait(&self, waker: &Waker) {
        let mut place = self.waker.borrow_mut();
        match &*place {
            Some(old) if old.will_wake(waker) => {}
            _ => *place = Some(waker.clone()),
        }
    }

    /// Whether it was ended; else the task hears of it.
    pub fn poll_killed(&self, cx: &mut Context<'_>) -> bool {
        self.wait(cx.waker());
        self.is_killed()
    }

    /// Whether it was ended.
    pub fn is_killed(&self) -> bool {
        self.killed.get()
    }
}

/// A future that a [`Kill`] ends by dropping what it runs: connection, upstream and buffers go at once.
#[derive(Debug)]
pub struct Killable<F> {
    work: Option<Pin<Box<F>>>,
    kill: Rc<Kill>,
}

impl<F> Killable<F> {
    /// Runs `work` until it ends or is killed.
    pub fn new(work: F, kill: Rc<Kill>) -> Self {
        Self { work: Some(Box::pin(work)), kill }
    }
}

impl<F: Future> Future for Killable<F> {
    /// `None`: killed.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.kill.is_killed() {
            self.work = None;
        }
        let this = &mut *self;
        let Some(work) = &mut this.work else { return Poll::Ready(None) };
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if this.kill.is_killed() {
            this.work = None;
            return Poll::Ready(None);
        }
        this.kill.wait(cx.waker());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_end_with_their_token_are_looked_for_only_while_there_are_some() {
        let streams = Rc::<Streams>::default();
        let register = |ends| {
            let facts = Rc::new(Facts { ends, ..Facts::example() });
            streams.register(facts, Rc::default())
        };
        let endless = register(None);
        assert!(!streams.any_ends());
        let (one, other) = (register(Some(1)), register(Some(2)));
        drop(one);
        assert!(streams.any_ends());
        drop((other, endless));
        assert!(!streams.any_ends() && streams.is_empty());
    }
}
