//! Connections over real sockets, and a clock moved by hand.

use std::future::poll_fn;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::connect::{for_http1, for_http2};
use super::health::{Tried, Turn};
use super::socket::Socket;
use super::wire::{Line, Wire};
use super::*;
use crate::clock::TestClock;
use crate::config::cluster::Cluster;
use crate::config::upstream::{Address, UpstreamTls};
use crate::gateway::NO_CONNECTION_LATELY;
use crate::stores::descriptors::Descriptors;

const SOON: Duration = Duration::from_secs(5);

/// An upstream, how it is connected to, and how many connections it has taken.
struct World {
    upstream: Upstream,
    means: Means,
    hand: Arc<TestClock>,
    taken: Rc<Cell<usize>>,
}

impl World {
    /// Each connection is served by this.
    async fn new<F: Future<Output = ()> + 'static>(
        speaks: Speaks,
        serve: impl Fn(TcpStream) -> F + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let (clock, hand) = Clock::test(1_800_000_000_000);
        let taken = Rc::<Cell<usize>>::default();
        let count = Rc::clone(&taken);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.set(count.get() + 1);
                spawn_local(serve(stream));
            }
        });
        let means = Means { health: Arc::default(), descriptors: Descriptors::new(u64::MAX), clock };
        Self { upstream: Upstream { address, speaks }, means, hand, taken }
    }

    fn turn(&self, way: Way) -> Turn {
        self.means.health.of(&self.upstream).by(way).turn(self.means.clock.now())
    }

    /// Its last connection hung, a second ago.
    fn hung(&self) {
        let vitals = self.means.health.of(&self.upstream);
        vitals.by(Way::Usual).tried(Tried::Silent, self.means.clock.now());
        self.hand.advance(Duration::from_secs(1));
    }
}

/// Answers whatever comes.
async fn http1(mut stream: TcpStream) {
    while stream.read(&mut [0; 1024]).await.is_ok_and(|length| length > 0) {
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

async fn http2(stream: TcpStream) {
    let mut connection = h2::server::Builder::new().handshake::<_, Bytes>(stream).await.unwrap();
    while poll_fn(|cx| connection.poll_accept(cx)).await.is_some() {}
}

/// Until every other task has come to rest.
async fn rest() {
    for _ in 0..1000 {
        yield_now().await;
    }
}

#[tokio::test]
async fn no_connection_is_taken_up_again_that_is_five_minutes_old() {
    LocalSet::new()
        .run_until(async {
            let world = World::new(Speaks::Http, http1).await;
            let pool =
                Rc::new(Pool::new(world.upstream.clone(), world.means.clone(), world.means.clock.clone()));
            for (seconds, connections) in [(0, 1), (299, 1), (1, 2), (0, 2)] {
                world.hand.advance(Duration::from_secs(seconds));
                let mut request = Request::new(Body::Empty);
                request.headers_mut().insert("host", http::HeaderValue::from_static("a.test"));
                let (answer, mut lease) =
                    exchange(&pool, request, SOON).await.map_err(|failed| failed.error).unwrap();
                lease.judge(&answer, Rc::new(Cell::new(true)));
                lease.give_back();
                rest().await;
                assert_eq!(world.taken.get(), connections);
            }

            let world = World::new(Speaks::H2c, http2).await;
            let shared = Shared::new(world.upstream.clone(), world.means.clone(), world.means.clock.clone());
            for (seconds, connections) in [(0, 1), (299, 1), (1, 2), (0, 2)] {
                world.hand.advance(Duration::from_secs(seconds));
                drop(shared.lease(SOON).await.unwrap());
                rest().await;
                assert_eq!(world.taken.get(), connections);
            }
        })
        .await;
}

#[tokio::test]
async fn an_http2_upstream_that_has_reset_before_anything_was_written_is_heard_at_once() {
    LocalSet::new()
        .run_until(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let address = Address::Tcp { host: "127.0.0.1".into(), port };
            let socket = Socket::connect(&address, SOON).await.unwrap();
            let (peer, _) = listener.accept().await.unwrap();
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            let line = Line::new(socket);
            while line.is_quiet() {
                yield_now().await;
            }
            let begun = http2::begin(Wire::of_frames(&line), line, http::uri::Scheme::HTTP);
            let begun = tokio::time::timeout(SOON, begun).await.expect("an end");
            assert!(matches!(begun, Err(ForwardError::Protocol(_))), "{begun:?}");
        })
        .await;
}

#[tokio::test]
async fn a_probe_is_heard_to_its_end_also_when_its_client_has_left() {
    LocalSet::new()
        .run_until(async {
            let world = World::new(Speaks::Http, http1).await;
            world.hung();
            let mut probe = Box::pin(for_http1(&world.upstream, &world.means, SOON));
            assert!(poll_fn(|cx| Poll::Ready(probe.as_mut().poll(cx).is_pending())).await);
            let other = for_http1(&world.upstream, &world.means, SOON).await;
            assert!(matches!(other, Err(ForwardError::Timeout(NO_CONNECTION_LATELY))), "{other:?}");
            drop(probe);
            let heard = async {
                while world.turn(Way::Usual) != Turn::Free {
                    yield_now().await;
                }
            };
            tokio::time::timeout(SOON, heard).await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_call_by_grpc_takes_no_probe_from_others_and_says_nothing_of_what_it_does_not_reach() {
    LocalSet::new()
        .run_until(async {
            let roots = rustls::RootCertStore::empty();
            let config = rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
            let name = "a.test".try_into().unwrap();
            let tls = Arc::new(UpstreamTls { name, config: Arc::new(config), fingerprint: [0; 32] });
            for speaks in [Speaks::Http, Speaks::Https(tls)] {
                let world = World::new(speaks, async |stream| drop(stream)).await;
                world.hung();
                assert!(for_http2(&world.upstream, &world.means, SOON).await.is_err());
                assert_eq!(world.turn(Way::Usual), Turn::Probe);
                assert_eq!(
                    world.means.health.get(&world.upstream, None),
                    Some(false),
                    "what is known is of others"
                );
            }
        })
        .await;
}

#[tokio::test]
async fn an_upstream_that_could_not_be_asked_for_want_of_descriptors_is_not_unwell() {
    LocalSet::new()
        .run_until(async {
            let world = World::new(Speaks::Http, http1).await;
            let check = HealthCheck { path: "/healthz".parse().unwrap(), host: "a.test".into() };
            let manner = Manner { health: Some(check.clone()), ..Manner::default() };
            let cluster = Cluster::new(vec![world.upstream.clone()], manner);
            for (descriptors, believed) in [(0, None), (u64::MAX, Some(true))] {
                let descriptors = Descriptors::new(descriptors);
                let upstreams = Upstreams::new(Means { descriptors, ..world.means.clone() });
                check::Checks::default().tick(&upstreams, [&cluster].into_iter(), world.means.clock.now());
                rest().await;
                assert_eq!(world.means.health.get(&world.upstream, Some(&check)), believed);
            }
        })
        .await;
}
