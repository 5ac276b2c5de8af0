//! Connections and streams as the gateway sees them.

use std::net::IpAddr;
use std::rc::Rc;

use crate::config::class::Class;
use crate::gateway::Link;
use crate::listener::proxy::Named;
use crate::listener::{Connection, Kind, Stream};
use crate::request::certificate::Certified;
use crate::request::facts::Malformed;
use crate::stores::streams::Kill;

impl Link for Connection {
    fn peer(&self) -> IpAddr {
        self.peer.ip()
    }

    fn carrier(&self) -> IpAddr {
        self.proxy.map_or(self.peer, |(proxy, _)| proxy).ip()
    }

    fn is_own(&self) -> bool {
        self.proxy.is_some_and(|(_, named)| named == Named::Own)
    }

    fn is_nobody(&self) -> bool {
        self.proxy.is_some_and(|(_, named)| named == Named::Nobody)
    }

    fn certified(&self) -> Option<&Certified> {
        self.certified.as_deref()
    }

    fn is_plain(&self) -> bool {
        self.kind == Kind::Plain
    }

    fn sni(&self) -> Option<&str> {
        self.sni.as_deref()
    }

    fn begin(&self) -> Option<Malformed> {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        self.refusal(number)
    }

    fn malformed_body(&self) -> Option<Malformed> {
        self.malformed_body.get()
    }

    fn of_class(&self, class: Class) {
        self.watch.unpaced.set(matches!(class, Class::Live | Class::Rpc));
    }
}

impl Link for Stream {
    fn peer(&self) -> IpAddr {
        self.connection.peer()
    }

    fn carrier(&self) -> IpAddr {
        self.connection.carrier()
    }

    fn is_own(&self) -> bool {
        self.connection.is_own()
    }

    fn is_nobody(&self) -> bool {
        self.connection.is_nobody()
    }

    fn certified(&self) -> Option<&Certified> {
        self.connection.certified.as_deref()
    }

    fn is_plain(&self) -> bool {
        self.connection.is_plain()
    }

    fn sni(&self) -> Option<&str> {
        Link::sni(&*self.connection)
    }

    fn begin(&self) -> Option<Malformed> {
        self.connection.begin()
    }

    fn malformed_body(&self) -> Option<Malformed> {
        None
    }

    /// The gateway says of no body of an exempt class that it is owed.
    fn of_class(&self, _: Class) {}

    fn owes(&self, owes: bool, received: u64) {
        self.owing.set(owes);
        self.received.set(received);
    }

    fn tunnel_begins(&self, down: &Rc<Kill>) {
        // hyper, which hears the answer next, gives its executor what writes to the client.
        self.connection.next_tunnel.replace(Some(Rc::clone(down)));
        self.connection.watch.carry();
    }

    fn tunnel_ends(&self) {
        self.connection.watch.put_down();
    }
}
