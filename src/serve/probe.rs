//! `block --verify`: the gateway knocks at its own door with what is blocked, and says who opened. The probe passes sockets,
//! TLS, framing, route and guards like anybody's request; that it is a probe is asked only behind those.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Parted;
use crate::admin::api::{Refusal, RefusalKind, SCHEMA};
use crate::admin::probe::{Probe, ProbeOrder, Probed, Prober};
use crate::clock::Clock;
use crate::config::settings::{Settings, Site};
use crate::listener::tls::{Resolver, own};
use crate::policy::PolicyCell;
use crate::stores::blocks::record::to_hex;
use crate::stores::probes::{FIELD, Guise, PATH, Probes, VERDICT};

/// For one probe.
const LIMIT: Duration = Duration::from_secs(2);
/// Sites that are probed where a block holds on all of them.
const SITES: usize = 16;
/// A PROXY header of version 2 that says: this connection is my own.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
/// The guard that is to refuse.
const BLOCKS: &str = "blocks";
/// Of a probe's number, in bytes.
const NUMBER: usize = 16;

/// Probes by what runs now.
pub fn prober(from: &Parted) -> Prober {
    let door = Arc::new(Door {
        policy: Arc::clone(&from.policy),
        resolver: Arc::clone(&from.resolver),
        probes: Arc::clone(&from.kept.probes),
        clock: from.clock.clone(),
    });
    Arc::new(move |order| {
        let door = Arc::clone(&door);
        Box::pin(async move { door.probe(order).await })
    })
}

struct Door {
    policy: Arc<PolicyCell>,
    resolver: Arc<Resolver>,
    probes: Arc<Probes>,
    clock: Clock,
}

/// Where to knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    address: SocketAddr,
    tls: bool,
}

/// What came of it: the answer's status and fields, or why there is none.
type Heard = Result<(StatusCode, HeaderMap), String>;

impl Door {
    async fn probe(&self, order: ProbeOrder) -> Result<Probed, Refusal> {
        let policy = self.policy.load();
        let settings = &policy.settings;
        let place = place(settings).map_err(|why| Refusal::new(RefusalKind::Refused, why))?;
        let meant = |site: &&Site| order.site.as_ref().is_none_or(|name| site.name() == *name);
        let mut probes = Vec::new();
        for site in settings.sites.iter().filter(meant).take(SITES) {
            probes.push(self.one(&order, site, settings, place).await);
        }
        let others = settings.sites.iter().filter(meant).count().saturating_sub(SITES);
        if others > 0 {
            let why = format!("{others} more sites were not probed; say --site for each of them");
            probes.push(Probe { failure: Some(why), ..shown("-".into(), place, order.what.kind().word()) });
        }
        if probes.is_empty() {
            let message = "the block's site is no site of the config any more: it holds nowhere";
            return Err(Refusal::new(RefusalKind::Unknown, message));
        }
        Ok(Probed { schema: SCHEMA, probes })
    }

    async fn one(&self, order: &ProbeOrder, site: &Site, settings: &Settings, place: Place) -> Probe {
        let (guise, with) = match &order.token {
            Some(_) => (Guise::default(), "token"),
            None => (Guise::of(&order.what), order.what.kind().word()),
        };
        let start = self.clock.now().mono;
        let heard = match self.number(guise) {
            Ok(number) => {
                let host = host(site);
                let knocked = self.knock(order, (&host, settings.listen.public_port), place, &number);
                let heard = tokio::time::timeout(LIMIT, knocked).await;
                // It may not have come to be asked for.
                drop(self.probes.take(number.as_bytes()));
                heard.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())))
            }
            Err(why) => Err(why),
        };
        let took_us = self.clock.now().mono.saturating_sub(start) / 1000;
        let asks = site.client_certificates.as_ref().is_some_and(|rules| rules.required);
        let heard = heard.map_err(|why| match asks {
            true => format!("{why} (the site demands a client certificate, and the probe has none)"),
            false => why,
        });
        told(Probe { took_us, ..shown(site.name(), place, with) }, heard)
    }

    fn number(&self, guise: Guise) -> Result<String, String> {
        let mut bytes = [0; NUMBER];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "no random number can be had".to_owned())?;
        let number = to_hex(&bytes);
        let good = self.probes.begin(number.as_bytes(), guise);
        good.then_some(number).ok_or_else(|| "too many probes are under way; say it again".into())
    }

    async fn knock(
        &self,
        order: &ProbeOrder,
        (host, port): (&str, u16),
        place: Place,
        number: &str,
    ) -> Heard {
        let mut request = Request::get(PATH).header(HOST, format!("{host}:{port}")).header(FIELD, number);
        if let Some(token) = &order.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.as_str()))
                .map_err(|_| "the token cannot be sent in a header".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(place.address).await;
        let mut stream = stream.map_err(|error| format!("no connection to {}: {error}", place.address))?;
        if self.wants_proxy_header(&stream) {
            stream.write_all(LOCAL).await.map_err(|error| format!("the connection broke: {error}"))?;
        }
        if !place.tls {
            return ask(stream, request).await;
        }
        let config = own::client_config(Arc::clone(&self.resolver)).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        ask(stream.map_err(|error| format!("TLS with {}: {error}", place.address))?, request).await
    }
}

impl Door {
    /// Where this machine is a trusted proxy itself, its connections begin as theirs do.
    fn wants_proxy_header(&self, stream: &TcpStream) -> bool {
        let policy = self.policy.load();
        let listen = &policy.settings.listen;
        let own = stream.local_addr().map(|own| own.ip().to_canonical());
        listen.proxy_protocol && own.is_ok_and(|own| listen.trusted_proxies.contains(own))
    }
}

fn shown(site: String, place: Place, with: &str) -> Probe {
    let scheme = if place.tls { "https" } else { "plain" };
    Probe {
        site,
        through: format!("{scheme} {}", place.address),
        with: with.to_owned(),
        refused: false,
        status: None,
        guard: None,
        reason: None,
        took_us: 0,
        failure: None,
    }
}

async fn ask<T>(stream: T, request: Request<Empty<Bytes>>) -> Heard
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| format!("the connection broke: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let answered = sender.send_request(request);
    tokio::pin!(answered);
    let answer = tokio::select! {
        answer = &mut answered => answer,
        // It ends only after the answer, unless it broke.
        _ = connection => answered.await,
    };
    answer.map(|answer| (answer.status(), answer.headers().clone())).map_err(broken)
}

fn told(mut probe: Probe, heard: Heard) -> Probe {
    let (status, headers) = match heard {
        Ok(heard) => heard,
        Err(why) => return Probe { failure: Some(why), ..probe },
    };
    probe.status = Some(status.as_u16());
    let verdict = headers.get(VERDICT).and_then(|value| value.to_str().ok());
    match verdict.map(|verdict| verdict.split_once(' ')) {
        Some(Some((guard, reason))) => {
            probe.refused = true;
            if guard != BLOCKS {
                probe.failure = Some("it was refused before the blocks were asked".into());
            }
            probe.guard = Some(guard.to_owned());
            probe.reason = Some(reason.to_owned());
        }
        Some(None) => probe.failure = Some("every guard let it pass: the block does not hold here".into()),
        None => probe.failure = Some("it was answered before any guard was asked".into()),
    }
    probe
}

/// The first https listener, else the first plain one, if it would listen to us.
fn place(settings: &Settings) -> Result<Place, String> {
    let listen = &settings.listen;
    if let Some(address) = listen.https.first() {
        return Ok(Place { address: reached(*address), tls: true });
    }
    let plain = listen.plain.first().map(|address| reached(*address));
    match plain {
        Some(address) if listen.trusted_proxies.contains(address.ip()) => Ok(Place { address, tls: false }),
        Some(_) => Err("a probe cannot be sent: `plain` listeners serve trusted proxies only, and this machine is none (listen.trusted_proxies)".into()),
        None => Err("a probe cannot be sent: nothing listens".into()),
    }
}

/// An address that listens everywhere is reached on this machine.
fn reached(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // Dual stack, or 0.0.0.0 on hosts without IPv6.
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// The site's first host; of a wildcard some name below it.
fn host(site: &Site) -> String {
    let first = site.hosts.first();
    let name =
        first.map(
            |host| if host.is_wildcard() { format!("probe.{}", host.name()) } else { host.name().to_owned() },
        );
    name.unwrap_or_default()
}
