//! What a WebSocket takes along to the upstream, to become a tunnel after a true 101.

use std::cell::RefCell;
use std::rc::Rc;

use hyper::upgrade::OnUpgrade;

use super::Link;
use super::exchange::Exchange;
use crate::request::facts::Facts;
use crate::stores::streams::{Kill, Registration, Streams};

/// What the upstream needs to open a tunnel.
pub struct Tunnel {
    /// The client's side.
    pub client: OnUpgrade,
    /// Registers the tunnel so that a block can cut it.
    pub registrar: Registrar,
    /// The exchange goes here once the tunnel stands, to be logged when the tunnel ends.
    pub exchange: Rc<RefCell<Option<Box<Exchange>>>>,
    link: Rc<dyn Link>,
}

/// Where a tunnel is registered, and what a block is asked about.
pub struct Registrar {
    /// The live streams of the worker.
    pub streams: Rc<Streams>,
    /// Of the request.
    pub facts: Rc<Facts>,
}

/// The client's connection carries a tunnel, as long as this lives.
pub struct Carried {
    link: Rc<dyn Link>,
    down: Rc<Kill>,
}

impl Tunnel {
    /// A tunnel to be.
    pub fn new(
        client: OnUpgrade,
        registrar: Registrar,
        exchange: Rc<RefCell<Option<Box<Exchange>>>>,
        link: Rc<dyn Link>,
    ) -> Self {
        Self { client, registrar, exchange, link }
    }

    /// It begins: in the same poll the answer must go to the client.
    pub fn begin(&self) -> Carried {
        let down = Rc::default();
        self.link.tunnel_begins(&down);
        Carried { link: Rc::clone(&self.link), down }
    }
}

impl Registrar {
    /// Registers the tunnel.
    pub fn register(&self, kill: Rc<Kill>) -> Registration {
        self.streams.register(Rc::clone(&self.facts), kill)
    }
}

impl Carried {
    /// Takes back what has not been sent to the client yet.
    pub fn cut(&self) {
        self.down.kill();
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.link.tunnel_ends();
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").finish_non_exhaustive()
    }
}
