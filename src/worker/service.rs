//! The seam between listener and gateway: one request of a connection, or of a stream of it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::gateway::{Arrival, Gateway};
use crate::listener::{Connection, Stream};
use crate::request::body::Body;
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
