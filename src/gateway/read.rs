//! From a request's head to facts and route: what it is, before anyone judges it.

use std::rc::Rc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use super::attempt::basic;
use super::download::Entered;
use super::{Link, certificate, companion};
use crate::clock::Now;
use crate::config::class::Class;
use crate::guards::{Denial, Reason};
use crate::policy::{Found, HostPlace, Policy, Site, SiteHost, Snapshot};
use crate::request::carriers::{self, Finding};
use crate::request::client::{self, Client, How};
use crate::request::credential::{Key, Presented, TokenText};
use crate::request::facts::{Facts, Malformed, Origin};
use crate::request::path::PathViews;
use crate::request::share_key::ShareKey;
use crate::request::target::Host;
use crate::stores::seal::Seal;
use crate::stores::sessions::Sessions;

/// More header fields than any browser sends; HTTP/1.1 heads were counted before.
const MAX_FIELDS: usize = 128;

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_PURPOSE: HeaderName = HeaderName::from_static("sec-purpose");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// A request, read.
#[derive(Debug)]
pub struct Reading<'p> {
    /// What guards may know.
    pub facts: Rc<Facts>,
    /// The token of its companion cookie, where that counts.
    pub companion: Option<TokenText>,
    /// It came to the download host, with a ticket.
    pub entered: Option<Entered>,
    /// Tokens to be verified, where the site does that. They end with the request.
    pub presented: Vec<Presented>,
    /// The site's place in the policy.
    pub place: usize,
    /// The site.
    pub site: &'p Site,
    /// Which of its hosts.
    pub host: &'p SiteHost,
    /// The route.
    pub found: Found<'p>,
    /// The path.
    pub path: PathViews,
    /// The authority as sent.
    pub authority: Box<str>,
    /// The public port.
    pub public_port: u16,
    /// https, by the listener or by what a trusted proxy says.
    pub secure: bool,
    /// It came over HTTP/2.
    pub h2: bool,
}

/// Why there is nothing to judge.
#[derive(Debug)]
pub enum Refusal {
    /// It can be understood in more ways than one.
    Malformed(Malformed),
    /// It leads nowhere.
    Denied(Denial),
    /// To the site's first host.
    Redirect(String),
}

impl From<Malformed> for Refusal {
    fn from(why: Malformed) -> Self {
        Self::Malformed(why)
    }
}

/// Where a request comes from and what is known of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The policy.
    pub snapshot: &'a Snapshot,
    /// The gateway's own key for share tokens.
    pub share_key: &'a ShareKey,
    /// Opens tickets and cookies.
    pub seal: &'a Seal,
    /// Whose refresh cookies are whose.
    pub sessions: &'a Sessions,
    /// The time.
    pub now: Now,
    /// Charges no budget.
    pub rehearsal: bool,
}

/// The client of a request; on a `plain` listener every peer must be trusted.
pub fn client(link: &dyn Link, policy: &Policy, head: &Parts) -> Client {
    found(link, policy, head).client
}

/// The same, and how it was found.
pub fn found(link: &dyn Link, policy: &Policy, head: &Parts) -> client::Found {
    // Behind a PROXY header the proxy adds no field: what there is came from whoever it cannot name, or from itself.
    if link.is_nobody() {
        return client::Found { client: Client::Unknown, how: How::Silent };
    }
    if link.is_own() {
        return client::Found { client: Client::Address(link.peer().to_canonical()), how: How::Own };
    }
    client::find(link.peer(), &policy.trusted_proxies, &head.headers)
}

/// Reads a head. `length`: of the body, as announced.
///
/// # Errors
/// A [`Refusal`], for what cannot be judged.
pub fn read<'p>(
    around: Surroundings<'p>,
    link: &dyn Link,
    client: Client,
    head: &Parts,
    length: Option<u64>,
) -> Result<Reading<'p>, Refusal> {
    let policy = around.snapshot.policy();
    if link.is_plain() && !policy.trusted_proxies.contains(link.carrier()) {
        return Err(Refusal::Denied(Denial::new("listener", Reason::UntrustedPeer)));
    }
    check_head(head)?;
    let host = Host::read(head)?;
    let target = head.uri.path_and_query().ok_or(Malformed::Target)?;
    let path = PathViews::read(target)?;
    let (place, host_place) = placed(policy, link, &host, target.as_str())?;
    let misdirected = || Refusal::Denied(Denial::new("host", Reason::Misdirected));
    let site = policy.site(place).ok_or_else(misdirected)?;
    let entered = head.extensions.get::<Entered>().cloned();
    let own = if entered.is_some() { site.download.as_ref() } else { site.hosts.get(host_place) };
    let host = own.ok_or_else(misdirected)?;
    certificate::check(site, link)?;
    let method = meant_method(head);
    let found = site.route(method, &path).ok_or_else(misdirected)?;
    if path.encoded_slash && !found.route.keep_encoded_slash {
        return Err(Malformed::Path.into());
    }
    let authority = authority(head)?;
    let websocket = asks_for_websocket(head);
    let verify = found.route.guards.verify.as_ref();
    let (query, tokens) = (path.query(), &site.tokens);
    let Finding { mut credentials, mut presented } =
        carriers::find(&head.headers, query, tokens, site.token_lifetime, verify.is_some())?;
    if tokens.refresh_cookie.is_some() {
        credentials.iter_mut().for_each(|one| around.sessions.complete(site.scope(), one));
    }
    let class = found.route.class;
    let origin = origin(&head.headers, &authority);
    let companion = companion::find(&around, head, site, class, origin).judge(
        site,
        &mut credentials,
        verify.map(|_| &mut presented),
    );
    let facts = Rc::new(Facts {
        client,
        scopes: around.snapshot.scopes(place),
        class,
        method: method.clone(),
        ends: verify.and_then(|verify| verify.end_of(&presented, around.now)),
        credentials,
        share: share(class, &found, &path, around.share_key),
        body_length: length,
        basic: basic::is_sent(&head.headers),
        websocket,
        origin,
        companion: companion.companion,
        runs_as_code: runs_as_code(&head.headers),
        embedded: embedded(&head.headers),
        odd_value: site.has_odd_value(&path),
        now: around.now,
        rehearsal: around.rehearsal,
    });
    Ok(Reading {
        facts,
        companion: companion.token,
        entered,
        presented,
        place,
        site,
        host,
        found,
        path,
        authority,
        public_port: policy.settings.listen.public_port,
        secure: is_secure(link, policy, &head.headers),
        h2: head.version == Version::HTTP_2,
    })
}

/// A balancer that passes bytes on adds no header: what there is is its client's.
fn is_secure(link: &dyn Link, policy: &Policy, headers: &HeaderMap) -> bool {
    let believed = policy.trusted_proxies.contains(link.peer()) && !link.is_nobody();
    !link.is_plain() || !believed || proto_is_https(headers)
}

/// What HTTP/2 brings that HTTP/1.1 heads were checked for before they came here.
fn check_head(head: &Parts) -> Result<(), Malformed> {
    match head.extensions.get::<Protocol>() {
        Some(protocol) if head.method == Method::CONNECT && protocol.as_str() == "websocket" => {}
        Some(_) => return Err(Malformed::Upgrade),
        None if head.method == Method::CONNECT || head.method == Method::TRACE => {
            return Err(Malformed::Method);
        }
        None => {}
    }
    if head.headers.len() > MAX_FIELDS {
        return Err(Malformed::TooManyHeaders);
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let plain = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    if lengths.next().is_some_and(|length| !plain(length)) || lengths.next().is_some() {
        return Err(Malformed::ContentLength);
    }
    Ok(())
}

/// The method that a request is judged by: a WebSocket over HTTP/2 is the GET that it would be over HTTP/1.1. Of all CONNECTs
/// it alone has come as far as this.
fn meant_method(head: &Parts) -> &Method {
    if head.method == Method::CONNECT { &Method::GET } else { &head.method }
}

/// Host → site; a TLS name of another site is 421.
fn placed(policy: &Policy, link: &dyn Link, host: &Host, target: &str) -> Result<(usize, usize), Refusal> {
    let misdirected = || Refusal::Denied(Denial::new("host", Reason::Misdirected));
    let place = policy.place(host).ok_or_else(misdirected)?;
    let site_of = |place| match place {
        HostPlace::Site(site, _) | HostPlace::Redirect(site) | HostPlace::Download(site) => site,
    };
    let named = link.sni().map(|sni| match sni == host.as_str() {
        true => Some(site_of(place)),
        false => Host::parse(sni).ok().and_then(|sni| policy.place(&sni)).map(site_of),
    });
    match named {
        Some(named) if named != Some(site_of(place)) => return Err(misdirected()),
        // Without a name TLS was begun for the one site there is, or for a stranger.
        None if !link.is_plain() && policy.sites.len() > 1 => return Err(misdirected()),
        _ => {}
    }
    match place {
        HostPlace::Site(site, host) => Ok((site, host)),
        // With a ticket that holds it would be the site's own host by now.
        HostPlace::Download(_) => Err(Refusal::Denied(Denial::new("download_host", Reason::NoTicket))),
        HostPlace::Redirect(site) => {
            let first = policy.site(site).and_then(|site| site.hosts.first()).ok_or_else(misdirected)?;
            Err(Refusal::Redirect(format!("{}{target}", first.origin)))
        }
    }
}

fn authority(head: &Parts) -> Result<Box<str>, Malformed> {
    if let Some(authority) = head.uri.authority() {
        return Ok(authority.as_str().into());
    }
    let field = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    field.map(Into::into).ok_or(Malformed::Host)
}

/// What the trusted proxy before a `plain` listener says, which is the last word of the last line: what stands before may
/// be its client's. Nothing said is https, since that is what it is there for.
fn proto_is_https(headers: &HeaderMap) -> bool {
    let last = headers.get_all(X_FORWARDED_PROTO).iter().next_back();
    let word = last.and_then(|line| line.as_bytes().rsplit(|byte| *byte == b',').next());
    word.is_none_or(|word| word.trim_ascii().eq_ignore_ascii_case(b"https"))
}

fn asks_for_websocket(head: &Parts) -> bool {
    let says = |name, word: &[u8]| {
        let lines = head.headers.get_all(name).into_iter();
        lines
            .flat_map(|line: &HeaderValue| line.as_bytes().split(|byte| *byte == b','))
            .any(|one| one.trim_ascii().eq_ignore_ascii_case(word))
    };
    // RFC 8441; `check_head` knows no other.
    if head.method == Method::CONNECT {
        return true;
    }
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && says(header::UPGRADE, b"websocket")
        && says(header::CONNECTION, b"upgrade")
}

/// The keyed hash of the token in a share link, by its place among the segments: the folded view has lost its case, and
/// the normal one may have what only some routers forgive.
fn share(class: Class, found: &Found<'_>, path: &PathViews, key: &ShareKey) -> Option<Key> {
    if !matches!(class, Class::Share | Class::ShareDownload) {
        return None;
    }
    let place = found.route.pattern.place_of_param();
    let segment = path.normal().split('/').filter(|segment| !segment.is_empty()).nth(place)?;
    let token: Vec<u8> = percent_encoding::percent_decode_str(segment).collect();
    let token = token.split(|byte| *byte == b';').next().unwrap_or_default();
    let end = token.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    Some(key.key_of(token.get(..end).unwrap_or_default()))
}

/// `Sec-Fetch-Site` is the better witness: a page that sends no referrer has `Origin: null` even towards itself. Where it is
/// missing, or settles nothing (`none`), `Origin` speaks.
fn origin(headers: &HeaderMap, authority: &str) -> Origin {
    match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        Some(b"same-origin") => return Origin::Own,
        Some(b"cross-site" | b"same-site") => return Origin::Foreign,
        _ => {}
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return Origin::Absent };
    let text = origin.to_str().unwrap_or_default();
    let named = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match named {
        Some(named) if named.eq_ignore_ascii_case(authority) => Origin::Own,
        _ => Origin::Foreign,
    }
}

/// Only a person goes somewhere: what is not a navigation a page has asked for, and so is one that is fetched ahead.
fn embedded(headers: &HeaderMap) -> bool {
    let says = |name, meant: &[&[u8]]| headers.get(name).is_some_and(|said| meant.contains(&said.as_bytes()));
    let foreign = says(SEC_FETCH_SITE, &[b"cross-site", b"same-site"]);
    let asked_by_page = headers.contains_key(SEC_FETCH_DEST) && !says(SEC_FETCH_DEST, &[b"document"]);
    foreign && (asked_by_page || headers.contains_key(SEC_PURPOSE))
}

fn runs_as_code(headers: &HeaderMap) -> bool {
    const CODE: [&[u8]; 10] = [
        b"script",
        b"style",
        b"worker",
        b"sharedworker",
        b"serviceworker",
        b"object",
        b"embed",
        b"audioworklet",
        b"paintworklet",
        b"xslt",
    ];
    headers.get_all(SEC_FETCH_DEST).iter().any(|dest| CODE.contains(&dest.as_bytes()))
}
