//! What the gateway answers itself, below `/.well-known/portcullis/`: nothing of it goes to the application.

use http::Response;
use http::header::{EXPECT, HeaderMap};
use hyper::body::Incoming;

use super::exchange::Exchange;
use super::read::Reading;
use super::respond::{self, Shape};
use super::{Gateway, Link, backchannel, collector, probe, upload};
use crate::guards::backchannel::Backchannel;
use crate::policy::Endpoint;
use crate::request::body::Body;

/// A request that is for the gateway.
pub enum Own<'p> {
    /// It says that it is a probe of `block --verify`.
    Probe,
    /// A browser reports what a policy has stopped.
    Reports,
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
    /// What an answer of our own looks like.
    pub shape: Shape,
}

impl<'a> Came<'a> {
    /// What came.
    pub fn new(reading: &'a Reading<'a>, headers: &'a HeaderMap, link: &'a dyn Link, shape: Shape) -> Self {
        Self { reading, headers, link, shape }
    }
}

/// Whether a request is for the gateway itself.
pub fn asked<'p>(reading: &Reading<'p>, headers: &HeaderMap) -> Option<Own<'p>> {
    if headers.contains_key(probe::FIELD) {
        return Some(Own::Probe);
    }
    if reading.found.route.endpoint == Some(Endpoint::CspReports) {
        return Some(Own::Reports);
    }
    let orders = reading.site.backchannel.as_ref();
    orders.filter(|_| reading.path.normal() == backchannel::PATH).map(Own::Logout)
}

impl<U> Gateway<U> {
    /// A report, if the guards let it pass.
    async fn report(&self, came: &Came<'_>, exchange: &mut Exchange, body: Incoming) -> Response<Body> {
        let Came { reading, headers, link, shape } = came;
        let Err(denial) = self.judge(exchange, *link, reading) else {
            return self.collector.take(reading, headers, body, exchange).await;
        };
        exchange.denied(&denial);
        upload::drain(body, headers.contains_key(EXPECT)).await;
        match collector::hides(&denial) {
            true => collector::nothing(),
            false => respond::denied(&denial, Some(reading.site), *shape),
        }
    }

    /// Answers it.
    pub(super) async fn answer_own(
        &self,
        own: Own<'_>,
        came: Came<'_>,
        exchange: &mut Exchange,
        body: Incoming,
    ) -> Response<Body> {
        if !matches!(own, Own::Reports)
            && let Err(denial) = self.admit(exchange, came.link)
        {
            exchange.denied(&denial);
            return respond::denied(&denial, Some(came.reading.site), came.shape);
        }
        match own {
            Own::Probe => self.probed(&came, exchange),
            Own::Reports => self.report(&came, exchange, body).await,
            Own::Logout(judge) => self.log_out(judge, &came, exchange, body).await,
        }
    }
}
