//! A request's way: READ THIS FIRST.
//!
//! [`Gateway::handle`] takes one request through one policy snapshot: facts and route ([`read`]), the live stream's
//! registration, [`decide`], the upstream, the answer. Only `decide` can make a [`Permit`], and the upstream takes nothing
//! without one; that of a try at a secret is withheld until its own guard has passed ([`attempt`]).

pub mod account;
mod answer;
pub mod attempt;
mod backchannel;
pub mod causes;
mod certificate;
mod changes;
pub mod collector;
mod companion;
mod decide;
mod download;
pub mod exchange;
pub mod explain;
mod forward;
mod handed;
mod heard;
mod held;
pub mod hops;
mod id;
mod judge;
mod learning;
pub mod lesson;
mod link;
mod nonce;
mod origin;
mod own;
mod probe;
pub mod read;
pub mod recent;
pub mod respond;
pub mod rpc;
pub mod share;
mod teach;
mod ticket;
mod tunnel;
pub mod upload;
pub mod view;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, EXPECT, HeaderMap};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tower::Service;

use self::answer::{Asked, Dress};
use self::attempt::{Attempt, Means, Refused, device};
use self::collector::Collector;
pub use self::decide::{Decision, Permit, Withheld, decide};
use self::exchange::{Beginning, Exchange};
pub use self::forward::{Forward, ForwardError, NO_CONNECTION, NO_CONNECTION_LATELY, Within};
use self::heard::Waits;
use self::hops::Identity;
use self::learning::Learning;
pub use self::link::Link;
use self::read::{Reading, Surroundings};
use self::recent::Recents;
use self::share::Visit;
pub use self::tunnel::{Carried, Registrar, Tunnel};
use self::upload::Upload;
use self::view::{View, Views};
use crate::clock::{Clock, Now};
use crate::config::class::Class;
pub use crate::guards::Reason;
use crate::request::body::Body;
use crate::request::client::Client;
use crate::request::facts::{Facts, Malformed};
use crate::request::share_key::ShareKey;
use crate::stores::cached::BlocksReader;
use crate::stores::kept::Kept;
use crate::stores::places::Places;
use crate::stores::streams::{Kill, Registration, Streams};
use crate::telemetry::access_log::Lane;

/// What all requests of one worker share.
pub struct Gateway<U> {
    /// Policy and counters.
    pub views: Views,
    /// The emergency blocks.
    pub blocks: BlocksReader,
    /// The live streams.
    pub streams: Rc<Streams>,
    /// The access log.
    pub lane: Rc<Lane>,
    /// What is remembered of the latest requests.
    pub recent: Rc<Recents>,
    /// What outlives a policy: what logins have taught, and the like.
    pub kept: Kept,
    /// Requests in flight of the clients of trusted proxies, of all workers.
    pub in_flight: Arc<Places>,
    /// The time.
    pub clock: Clock,
    /// Takes reports of violations of policies.
    pub collector: Collector,
    /// Hashes share tokens.
    pub share_key: ShareKey,
    /// First half of each request's id; the second one counts.
    pub id_base: u32,
    /// Requests seen.
    pub count: Cell<u64>,
    /// Where permitted requests go.
    pub upstream: U,
}

impl<U> Gateway<U>
where
    U: Service<Forward, Response = Response<Body>, Error = ForwardError> + Clone + 'static,
    U::Future: 'static,
{
    /// Takes one request from its head to the head of its answer. `from.kill` ends it at any
    /// time after.
    pub async fn handle(self: Rc<Self>, from: Arrival, request: Request<Incoming>) -> Response<Body> {
        let (mut head, incoming) = request.into_parts();
        let view = self.views.current();
        let (mut exchange, asked) = self.begin(&view, &head, &from);
        if let Some(why) = from.link.begin() {
            return unread(why, exchange, &*from.link, &asked, &head);
        }
        exchange.client = self.client(&*from.link, &view, &head);
        let length = incoming.size_hint().exact();
        let around = self.around(&view, exchange.start);
        download::enter(&mut head, &around, exchange.client);
        let reading = match read::read(around, &*from.link, exchange.client, &head, length) {
            Ok(reading) => reading,
            Err(refusal) => {
                let answer = answer::refused(refusal, &mut exchange, &asked);
                return finish(exchange, answer, Dress::nowhere(&view, &asked));
            }
        };
        from.link.of_class(reading.facts.class);
        exchange.of(&reading, self.token_name(&reading.facts));
        let dress = Dress::site(&reading, &asked);
        if let Some(answer) = download::send_on(&reading, &head, &around, &mut exchange, asked.shape) {
            return finish(exchange, answer, dress);
        }
        if let Some(own) = own::asked(&reading, &head.headers) {
            let came = own::Came::new(&reading, &head.headers, &*from.link, asked.shape);
            let answer = Box::pin(self.answer_own(own, came, &mut exchange, incoming)).await;
            return finish(exchange, answer, dress);
        }
        // Registered before the index is read: a block is seen here, or its sweep sees this stream.
        let mut live = Some(self.streams.register(Rc::clone(&reading.facts), Rc::clone(&from.kill)));
        exchange.trailers = reading.h2 && (asked.is_rpc() || reading.facts.class == Class::Rpc);
        let learning = Learning::begin(&reading, &head.headers, &self.kept);
        let upload = upload_of(&reading, &exchange, &from.link).read_aside(learning.body());
        let with = (&reading, &mut head.headers, &upload);
        let (permit, body, attempt, mut visit) =
            match self.admitted(incoming, with, &*from.link, &mut exchange).await {
                Ok(admitted) => admitted,
                Err(refused) => {
                    let means = Means { reading: &reading, headers: &head.headers, upload: &upload };
                    let answer = refused.answer(means, &*from.link, &mut exchange, &asked).await;
                    return finish(exchange, answer, dress);
                }
            };
        exchange.measure(&reading);
        let stripped = permit.stripped();
        let facts = self.facts_of(&reading, stripped.is_all().then_some(from.kill), &mut live);
        let slot = Rc::default();
        let (id, link) = (&*exchange.id, &from.link);
        let way = Way { reading: &reading, facts, upload: &upload, id, slot: &slot, link };
        let forward = self.forward(permit, head, body, way);
        exchange.handed = self.clock.now();
        let answered = visit.ask(self.upstream.clone(), forward, exchange.kill()).await;
        let waits = Waits {
            reading: &reading,
            upload: &upload,
            link: &*from.link,
            asked: &asked,
            attempt,
            learning: &learning,
            live: &mut live,
            visit,
            stripped,
        };
        let answer = self.answered(answered, waits, &mut exchange).await;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return answer::switched(exchange, answer, dress, &slot);
        }
        let answer = dress.put_on(answer, &mut exchange);
        exchange.follow(answer, live)
    }

    /// The id of the next request, or of the next connection that is none of HTTP.
    pub fn next_id(&self) -> Rc<str> {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        id::request_id(self.id_base, count)
    }

    fn begin(&self, view: &Rc<View>, head: &Parts, from: &Arrival) -> (Box<Exchange>, Asked) {
        let mut exchange = Box::new(Exchange::begin(Beginning {
            lane: Rc::clone(&self.lane),
            recent: Rc::clone(&self.recent),
            clock: self.clock.clone(),
            view: Rc::clone(view),
            start: self.clock.now(),
            id: self.next_id(),
            kill: Rc::clone(&from.kill),
            head,
        }));
        exchange.certificate = certificate::name(&*from.link);
        let asked = Asked::read(head);
        exchange.rpc = asked.is_rpc();
        (exchange, asked)
    }

    fn client(&self, link: &dyn Link, view: &View, head: &Parts) -> Client {
        let client = read::client(link, view.snapshot.policy(), head);
        if client == Client::Unknown {
            view.nowhere.metrics.worker().client_address_unknown();
        }
        client
    }

    /// Whether the request may go on, and with which body.
    async fn admitted<'r>(
        &self,
        incoming: Incoming,
        (reading, headers, upload): (&'r Reading<'r>, &mut HeaderMap, &Upload),
        link: &dyn Link,
        exchange: &mut Exchange,
    ) -> Result<(Permit, Body, Option<Attempt>, Visit<'r>), Refused> {
        let decision = match self.judge(exchange, link, reading) {
            Ok(decision) => decision,
            Err(denial) => return Err(Refused::Denied(denial, Some(incoming))),
        };
        let means = Means { reading, headers: &*headers, upload };
        let (permit, body, attempt) = self.attempt(decision, incoming, means, exchange).await?;
        let visit = Visit::begin(permit, reading, headers, &self.kept.shares.lines).await;
        let (permit, visit) = visit.map_err(|denial| Refused::Denied(denial, None))?;
        Ok((permit, body, attempt, visit))
    }

    /// What goes on with the request; `stripped`: without its cookies. What is left out does not end this stream when another
    /// block comes.
    fn facts_of(
        &self,
        reading: &Reading<'_>,
        stripped: Option<Rc<Kill>>,
        live: &mut Option<Registration>,
    ) -> Rc<Facts> {
        let Some(kill) = stripped else { return Rc::clone(&reading.facts) };
        let facts = Rc::new(reading.facts.without_cookies());
        *live = Some(self.streams.register(Rc::clone(&facts), kill));
        facts
    }

    fn around<'v>(&'v self, view: &'v View, now: Now) -> Surroundings<'v> {
        Surroundings {
            snapshot: &view.snapshot,
            share_key: &self.share_key,
            seal: &self.kept.seal,
            sessions: &self.kept.sessions,
            now,
            rehearsal: false,
        }
    }

    fn forward(&self, permit: Permit, mut head: Parts, body: Body, way: Way<'_>) -> Forward {
        let Way { reading, facts, upload, id, slot, link } = way;
        let tunnel = facts.websocket.then(|| {
            let client = head.extensions.remove::<OnUpgrade>();
            let streams = Rc::clone(&self.streams);
            let (exchange, link) = (Rc::clone(slot), Rc::clone(link));
            client.map(|client| Tunnel::new(client, Registrar { streams, facts }, exchange, link))
        });
        if matches!(reading.facts.class, Class::Login | Class::Refresh | Class::Oidc) {
            // Their answers are read: see `lesson`.
            head.headers.remove(ACCEPT_ENCODING);
        }
        let rpc = rpc::is_call(&head);
        let answer_within = match rpc::deadline(&head.headers) {
            _ if reading.facts.class != Class::Rpc => Within::Usual,
            Some(time) => Within::Time(time),
            None => Within::Ever,
        };
        device::strip(&mut head.headers);
        if let Some(bearer) = companion::bearer(reading) {
            head.headers.insert(AUTHORIZATION, bearer);
        }
        if reading.host.headers.get(reading.facts.class).nonce_word().is_some() {
            nonce::ask_for_the_whole_page(&mut head.headers);
        }
        if permit.stripped().any() {
            answer::strip_cookies(&mut head.headers, reading.site, permit.stripped());
        }
        let identity = Identity {
            certificate: certificate::shown(reading.site, &**link),
            client: reading.facts.client,
            authority: &reading.authority,
            port: reading.public_port,
            secure: reading.secure,
            id,
        };
        let asks_first = head.headers.contains_key(EXPECT);
        let request = hops::outgoing(head, reading.path.forwarded(), &identity, reading.facts.websocket);
        Forward {
            permit,
            client: reading.facts.client,
            request: request.map(|()| body),
            progress: upload.count(),
            asked_whole: upload.whole(),
            unpaced: matches!(reading.facts.class, Class::Live | Class::Rpc),
            answer_within,
            rpc,
            asks_first,
            tunnel: tunnel.flatten(),
        }
    }

    /// The `jti`, or a short keyed hash of the fingerprint, for the log.
    fn token_name(&self, facts: &Facts) -> Option<Box<str>> {
        let credential = facts.credentials.first().filter(|_| self.lane.is_on())?;
        if let Some(jti) = credential.claims.as_ref().and_then(|claims| claims.jti_text.clone()) {
            return Some(jti);
        }
        let hash = format!("{:?}", self.share_key.key_of(&credential.fingerprint.0));
        hash.get(..12).map(Into::into)
    }
}

/// How a request came.
pub struct Arrival {
    /// The connection.
    pub link: Rc<dyn Link>,
    /// Ends the request and its streams at any time.
    pub kill: Rc<Kill>,
}

/// What a permitted request takes along.
struct Way<'a> {
    reading: &'a Reading<'a>,
    facts: Rc<Facts>,
    upload: &'a Upload,
    id: &'a str,
    slot: &'a Rc<RefCell<Option<Box<Exchange>>>>,
    link: &'a Rc<dyn Link>,
}

fn upload_of(reading: &Reading<'_>, exchange: &Exchange, link: &Rc<dyn Link>) -> Upload {
    Upload::new(reading, Rc::clone(&exchange.received), Rc::clone(link), exchange.trailers)
}

/// What was no request as far as its bytes went.
fn unread(
    why: Malformed,
    mut exchange: Box<Exchange>,
    link: &dyn Link,
    asked: &Asked,
    head: &Parts,
) -> Response<Body> {
    let view = exchange.view();
    exchange.unread(read::client(link, view.snapshot.policy(), head));
    exchange.malformed(why);
    finish(exchange, respond::malformed(why, asked.shape), Dress::nowhere(&view, asked))
}

fn finish(mut exchange: Box<Exchange>, answer: Response<Body>, dress: Dress<'_>) -> Response<Body> {
    let answer = dress.put_on(answer, &mut exchange);
    exchange.follow(answer, None)
}
