//! A request's way: READ THIS FIRST.
//!
//! [`Gateway::handle`] takes one request through one policy snapshot: facts and route ([`read`]), the live stream's
//! registration, [`decide`], the upstream, the answer. Only `decide` can make a [`Permit`], and the upstream takes nothing
//! without one.

pub mod account;
mod answer;
mod certificate;
pub mod causes;
mod decide;
pub mod exchange;
pub mod explain;
mod forward;
pub mod hops;
mod id;
mod link;
mod origin;
pub mod lesson;
pub mod read;
pub mod recent;
pub mod respond;
pub mod rpc;
mod tunnel;
pub mod upload;
pub mod view;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT_ENCODING;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tower::{Service, ServiceExt};

use self::answer::{Asked, Dress};
pub use self::decide::{Permit, decide};
use self::exchange::{Beginning, Exchange};
pub use self::forward::{Forward, ForwardError, Within};
use self::hops::Identity;
use self::lesson::Lesson;
pub use self::link::Link;
use self::read::{Reading, Surroundings};
use self::recent::Recents;
pub use self::tunnel::{Carried, Registrar, Tunnel};
use self::upload::Upload;
use self::view::{View, Views};
use crate::clock::{Clock, Now};
use crate::config::class::Class;
pub use crate::guards::Reason;
use crate::guards::{Denial, Verdict};
use crate::request::body::Body;
use crate::request::client::Client;
use crate::request::facts::Facts;
use crate::request::share_key::ShareKey;
use crate::stores::cached::BlocksReader;
use crate::stores::kept::Kept;
use crate::stores::places::Places;
use crate::stores::streams::{Kill, Streams};
use crate::telemetry::access_log::Lane;

/// When a client that has too much in flight may come again: as soon as something of it has ended.
const SOON: Duration = Duration::from_secs(1);

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
    U: Service<Forward, Response = Response<Body>, Error = ForwardError> + Clone,
{
    /// Takes one request from its head to the head of its answer. `from.kill` ends it at any
    /// time after.
    pub async fn handle(self: Rc<Self>, from: Arrival, request: Request<Incoming>) -> Response<Body> {
        let (head, incoming) = request.into_parts();
        let view = self.views.current();
        let mut exchange = self.begin(&view, &head, &from.kill);
        exchange.certificate = certificate::name(&*from.link);
        let asked = Asked::read(&head);
        exchange.rpc = asked.is_rpc();
        if let Some(why) = from.link.begin() {
            exchange.unread(read::client(&*from.link, view.snapshot.policy(), &head));
            exchange.malformed(why);
            return finish(exchange, respond::malformed(why, asked.shape), Dress::nowhere(&view, &asked));
        }
        exchange.client = self.client(&*from.link, &view, &head);
        let length = incoming.size_hint().exact();
        let around = self.around(&view, exchange.start);
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
        let facts = Rc::clone(&reading.facts);
        // Registered before the index is read: a block is seen here, or its sweep sees this stream.
        let mut live = self.streams.register(Rc::clone(&facts), Rc::clone(&from.kill));
        let permit = match self.judge(&mut exchange, &*from.link, &reading) {
            Ok(permit) => permit,
            Err(denial) => {
                exchange.denied(&denial);
                upload::drain(incoming, asked.first || asked.is_rpc()).await;
                return finish(exchange, respond::denied(&denial, Some(reading.site), asked.shape), dress);
            }
        };
        exchange.measure(&reading);
        let strips = permit.strips_cookies();
        let facts = if strips { Rc::new(facts.without_cookies()) } else { facts };
        if strips {
            // What is left out does not end this stream when another block comes.
            live = self.streams.register(Rc::clone(&facts), from.kill);
        }
        let trailers = reading.h2 && (asked.is_rpc() || facts.class == Class::Rpc);
        exchange.trailers = trailers;
        let lesson = Lesson::begin(&reading, &head.headers, &self.kept.accounts);
        let upload = Upload::new(&reading, Rc::clone(&exchange.received), Rc::clone(&from.link), trailers)
            .read_aside(lesson.as_ref().map(|lesson| Rc::clone(&lesson.body)));
        let slot = Rc::default();
        let way = Way {
            reading: &reading,
            facts,
            upload: &upload,
            id: &exchange.id,
            slot: &slot,
            link: &from.link,
        };
        let forward = self.forward(permit, head, incoming, way);
        exchange.handed = self.clock.now();
        let answered = self.upstream.clone().oneshot(forward).await;
        let answer = match answered {
            Ok(answer) => answer::permitted(answer, &reading, &mut exchange, &asked, lesson),
            Err(error) => answer::failed(&error, &upload, &*from.link, &mut exchange, &asked),
        };
        let answer = if strips { answer::expire_cookies(answer, reading.site) } else { answer };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return answer::switched(exchange, answer, dress, &slot);
        }
        let answer = dress.put_on(answer, &mut exchange);
        exchange.follow(answer, Some(live))
    }

    /// The id of the next request, or of the next connection that is none of HTTP.
    pub fn next_id(&self) -> Rc<str> {
        let count = self.count.get().wrapping_add(1);
        self.count.set(count);
        id::request_id(self.id_base, count)
    }

    fn begin(&self, view: &Rc<View>, head: &Parts, kill: &Rc<Kill>) -> Box<Exchange> {
        Box::new(Exchange::begin(Beginning {
            lane: Rc::clone(&self.lane),
            recent: Rc::clone(&self.recent),
            clock: self.clock.clone(),
            view: Rc::clone(view),
            start: self.clock.now(),
            id: self.next_id(),
            kill: Rc::clone(kill),
            head,
        }))
    }

    fn client(&self, link: &dyn Link, view: &View, head: &Parts) -> Client {
        let client = read::client(link, view.snapshot.policy(), head);
        if client == Client::Unknown {
            view.nowhere.metrics.worker().client_address_unknown();
        }
        client
    }

    /// Whether the request may go on: the gateway's own cap, then the guards.
    fn judge(
        &self,
        exchange: &mut Exchange,
        link: &dyn Link,
        reading: &Reading<'_>,
    ) -> Result<Permit, Denial> {
        self.admit(exchange, link)?;
        let index = self.blocks.current();
        let on = &mut |_, verdict: &Verdict| exchange.heard(verdict);
        decide(reading.found.route, &index, &reading.facts, &reading.presented, on)
    }

    /// A trusted proxy's connections are not capped per client: its clients' requests in flight are. Not a guard, since it
    /// is no fact of the request, and what is explained or rehearsed is not in flight.
    fn admit(&self, exchange: &mut Exchange, link: &dyn Link) -> Result<(), Denial> {
        let policy = exchange.policy();
        if !policy.trusted_proxies.contains(link.peer().to_canonical()) {
            return Ok(());
        }
        let most = policy.settings.limits.connections_per_client;
        let place = self.in_flight.take(exchange.client, most);
        exchange.place = Some(place.ok_or(Denial {
            guard: "listener",
            reason: Reason::ClientFull,
            retry_after: Some(SOON),
        })?);
        Ok(())
    }

    fn around<'v>(&'v self, view: &'v View, now: Now) -> Surroundings<'v> {
        Surroundings { snapshot: &view.snapshot, share_key: &self.share_key, now, rehearsal: false }
    }

    fn forward(&self, permit: Permit, mut head: Parts, incoming: Incoming, way: Way<'_>) -> Forward {
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
        if permit.strips_cookies() {
            answer::strip_cookies(&mut head.headers, reading.site);
        }
        let identity = Identity {
            certificate: certificate::shown(reading.site, &**link),
            client: reading.facts.client,
            authority: &reading.authority,
            port: reading.public_port,
            secure: reading.secure,
            id,
        };
        let request = hops::outgoing(head, reading.path.forwarded(), &identity, reading.facts.websocket);
        let body = upload.body(incoming);
        Forward {
            permit,
            request: request.map(|()| body),
            progress: upload.count(),
            asked_whole: upload.whole(),
            unpaced: matches!(reading.facts.class, Class::Live | Class::Rpc),
            answer_within,
            rpc,
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

fn finish(mut exchange: Box<Exchange>, answer: Response<Body>, dress: Dress<'_>) -> Response<Body> {
    let answer = dress.put_on(answer, &mut exchange);
    exchange.follow(answer, None)
}
