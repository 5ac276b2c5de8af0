//! The seam between listener and gateway: a connection, or a stream of it, as the gateway sees it.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::config::class::Class;
use crate::gateway::{Arrival, Gateway, Link};
use crate::listener::{Connection, Kind, Stream};
use crate::request::body::Body;
use crate::request::facts::Malformed;
use crate::stores::streams::Kill;
use crate::upstream::Upstreams;

/// One connection's way into the gateway.
pub(super) struct Service {
    /// Takes its requests.
    pub gateway: Rc<Gateway<Upstreams>>,
    /// Where they come by.
    pub connection: Rc<Connection>,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = Rc::clone(&self.connection);
        let arrival = if connection.h2 {
            let stream = Stream::new(Rc::clone(&connection));
            connection.next_stream.replace(Some(Rc::clone(&stream)));
            Arrival { kill: Rc::clone(&stream.kill), link: stream }
        } else {
            Arrival { kill: Rc::clone(&connection.kill), link: connection }
        };
        let gateway = Rc::clone(&self.gateway);
        Box::pin(async move { Ok(gateway.handle(arrival, request).await) })
    }
}

impl Link for Connection {
    fn peer(&self) -> IpAddr {
        self.peer.ip()
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
