//! What the gateway answers itself, below `/.well-known/portcullis/`: nothing of it goes to the application.

use http::Response;
use http::header::HeaderMap;
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::read::Reading;
use super::{Gateway, Link, backchannel, probe};
use crate::guards::backchannel::Backchannel;
use crate::request::body::Body;

/// A request that is for the gateway.
pub enum Own<'p> {
    /// It says that it is a probe of `block --verify`.
    Probe,
    /// An identity provider orders a logout.
    Logout(&'p Backchannel),
}

/// What came, but for its body.
pub struct Came<'a> {
    /// The request, read.
    pub reading: &'a Reading<'a>,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// What stands below it.
    pub link: &'a dyn Link,
}

/// Whether a request is for the gateway itself.
pub fn asked<'p>(reading: &Reading<'p>, headers: &HeaderMap) -> Option<Own<'p>> {
    if headers.contains_key(probe::FIELD) {
        return Some(Own::Probe);
    }
    let orders = reading.site.backchannel.as_ref();
    orders.filter(|_| reading.path.normal() == backchannel::PATH).map(Own::Logout)
}

impl<U> Gateway<U> {
    /// Answers it.
    pub(super) async fn answer_own(
        &self,
        own: Own<'_>,
        came: Came<'_>,
        exchange: &mut Exchange,
        body: Incoming,
    ) -> Response<Body> {
        match own {
            Own::Probe => self.probed(&came, exchange),
            Own::Logout(judge) => self.log_out(judge, &came, exchange, body).await,
        }
    }
}
