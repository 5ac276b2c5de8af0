//! The answer on its way back: what came of the request, and what is put on it.

use std::cell::RefCell;
use std::rc::Rc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode, Version};

use super::exchange::Exchange;
use super::read::{Reading, Refusal};
use super::respond::Shape;
use super::upload::Upload;
use super::view::View;
use super::{ForwardError, Link, download, hops, nonce, respond, rpc};
use crate::config::app::Carrier;
use crate::config::settings::ClassMap;
use crate::guards::headers::HeaderSet;
use crate::guards::size::Size;
use crate::guards::stripped::Stripped;
use crate::guards::{Denial, Guard, Reason};
use crate::policy::Site;
use crate::request::body::Body;
use crate::request::carriers::{is_called, leave_out, set_cookie};

/// What an answer must know of the request when that has gone upstream.
#[derive(Debug)]
pub struct Asked {
    origin: Option<HeaderValue>,
    /// What an answer of our own looks like.
    pub shape: Shape,
    /// The client waits for 100 before it sends its body.
    pub first: bool,
}

/// The headers that an answer gets.
#[derive(Debug)]
pub struct Dress<'a> {
    headers: &'a HeaderSet,
    origin: Option<&'a HeaderValue>,
    own_origin: bool,
}

impl Asked {
    /// Takes it from the head.
    pub fn read(head: &Parts) -> Self {
        let headers = &head.headers;
        let page = |accept: &HeaderValue| accept.as_bytes().starts_with(b"text/html");
        let shape = match headers.get(header::ACCEPT) {
            _ if rpc::is_call(head) => Shape::Rpc,
            Some(accept) if page(accept) => Shape::Page,
            _ => Shape::Problem,
        };
        let first = headers.contains_key(header::EXPECT);
        Self { origin: headers.get(header::ORIGIN).cloned(), shape, first }
    }

    /// It is a call by gRPC.
    pub fn is_rpc(&self) -> bool {
        self.shape == Shape::Rpc
    }
}

impl<'a> Dress<'a> {
    /// For a request of a site.
    pub fn site(reading: &Reading<'a>, asked: &'a Asked) -> Self {
        let by_class: &'a ClassMap<HeaderSet> = &reading.host.headers;
        Self {
            headers: by_class.get(reading.facts.class),
            origin: asked.origin.as_ref(),
            own_origin: download::own_origin(reading),
        }
    }

    /// For a request that belongs nowhere.
    pub fn nowhere(view: &'a View, asked: &'a Asked) -> Self {
        Self { headers: &view.snapshot.policy().nowhere, origin: asked.origin.as_ref(), own_origin: false }
    }

    /// Puts the headers on; the answer's head is then final.
    pub fn put_on(&self, mut answer: Response<Body>, exchange: &mut Exchange) -> Response<Body> {
        let headers = answer.headers_mut();
        self.headers.apply(headers, self.origin, self.own_origin);
        if answer.extensions_mut().remove::<respond::OwnPage>().is_some() {
            answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, respond::OWN_PAGE_CSP);
        } else {
            answer = nonce::put_in(answer, self.headers, exchange);
        }
        let headers = answer.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&exchange.id) {
            headers.insert(hops::X_REQUEST_ID, id);
        }
        let meant = answer.extensions_mut().remove::<rpc::Meant>().map(|meant| meant.0);
        exchange.answered(meant.unwrap_or(answer.status()).as_u16(), answer.headers());
        answer
    }
}

/// An answer to what could not be judged.
pub fn refused(refusal: Refusal, exchange: &mut Exchange, asked: &Asked) -> Response<Body> {
    match refusal {
        Refusal::Malformed(why) => {
            exchange.malformed(why);
            respond::malformed(why, asked.shape)
        }
        Refusal::Denied(denial) => {
            exchange.denied(&denial);
            respond::denied(&denial, None, asked.shape)
        }
        Refusal::Redirect(location) => respond::redirect(&location),
    }
}

/// The upstream has answered. What the app file says of this class and status may not be what it answered.
pub fn permitted(
    mut answer: Response<Body>,
    reading: &Reading<'_>,
    exchange: &mut Exchange,
    asked: &Asked,
) -> Response<Body> {
    exchange.upstream_answered();
    if asked.is_rpc() {
        let (checked, wrong) = rpc::checked(answer);
        wrong.into_iter().for_each(|wrong| exchange.because(wrong));
        answer = checked;
    } else if reading.site.replaces(reading.facts.class, answer.status()) {
        exchange.because("the application's own answer was withheld: the app file replaces this status");
        return respond::replaced(answer.status(), reading.site, asked.shape);
    }
    // An upstream's HTTP/1.0 is its own: our client gets the framing of its version.
    *answer.version_mut() = Version::HTTP_11;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return answer;
    }
    hops::incoming(answer.headers_mut());
    if exchange.is_connect() && answer.status().is_success() {
        // To a CONNECT it would say that there is a tunnel.
        exchange.because(format!("the upstream answered a WebSocket with {}", answer.status().as_u16()));
        return respond::failed(&ForwardError::Closed, asked.shape);
    }
    answer
}

/// The upstream has not: because of the client's body, or of itself.
pub fn failed(
    error: &ForwardError,
    upload: &Upload,
    link: &dyn Link,
    exchange: &mut Exchange,
    asked: &Asked,
) -> Response<Body> {
    if upload.too_large() {
        exchange.denied(&Denial::new(Size::NAME, Reason::BodyTooLarge));
        exchange.because("the body passed its limit");
        return respond::failed(&ForwardError::BodyTooLarge, asked.shape);
    }
    if let Some(why) = link.malformed_body() {
        exchange.malformed(why);
        return respond::malformed(why, asked.shape);
    }
    if upload.broken() {
        exchange.because("the client broke its body off");
        return respond::failed(&ForwardError::BrokenRequest, asked.shape);
    }
    exchange.because(error.to_string());
    let site = exchange.site.and_then(|place| exchange.policy().site(place));
    match site.and_then(|site| site.maintenance.as_ref()) {
        Some(page) if asked.shape == Shape::Page && error.is_unreached() => respond::maintenance(page),
        _ => respond::failed(error, asked.shape),
    }
}

/// A tunnel begins: over HTTP/1.1 the answer keeps its hop-by-hop fields, over HTTP/2 it is a 200 (RFC 8441, 5.1).
pub fn switched(
    mut exchange: Box<Exchange>,
    mut answer: Response<Body>,
    dress: Dress<'_>,
    slot: &Rc<RefCell<Option<Box<Exchange>>>>,
) -> Response<Body> {
    if exchange.is_h2() {
        *answer.status_mut() = StatusCode::OK;
        hops::incoming(answer.headers_mut());
        answer.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
    }
    let answer = dress.put_on(answer, &mut exchange);
    exchange.end();
    slot.replace(Some(exchange));
    answer
}

/// Leaves token cookies of the application out of a request.
pub fn strip_cookies(headers: &mut HeaderMap, site: &Site, stripped: Stripped) {
    let left_out = || cookies(site).filter(|(_, place)| stripped.leaves_out(*place));
    leave_out(headers, |sent| left_out().any(|(name, _)| is_called(sent, name)));
}

/// Lets the browser forget token cookies of the application that were left out of the request; not what the answer sets anew.
pub fn expire_cookies(mut answer: Response<Body>, site: &Site, stripped: Stripped) -> Response<Body> {
    for (name, _) in cookies(site).filter(|(_, place)| stripped.forgets(*place)) {
        let mut lines = answer.headers().get_all(header::SET_COOKIE).iter();
        if lines.any(|line| set_cookie(line.as_bytes(), name).is_some()) {
            continue;
        }
        if let Ok(cookie) = HeaderValue::from_str(&format!("{name}=; Max-Age=0; Path=/; HttpOnly; Secure")) {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    answer
}

/// Their names and places; the refresh cookie has none.
fn cookies(site: &Site) -> impl Iterator<Item = (&str, Option<usize>)> {
    let carried = site.tokens.carriers.iter().enumerate().filter_map(|(place, carrier)| match carrier {
        Carrier::Cookie(name) => Some((&**name, Some(place))),
        _ => None,
    });
    carried.chain(site.tokens.refresh_cookie.as_deref().map(|name| (name, None)))
}
