//! The download host: what users uploaded is shown to browsers there only, where it belongs to no session, runs nothing and
//! keeps nothing.
//!
//! 1. [`leaves`]: the site sends *navigations* to what users uploaded there, with a [`Ticket`] in the address. What its own
//!    pages fetch or show as a picture they get in place.
//! 2. [`enter`]: on the download host a request with a ticket that holds becomes the request that it was for, and then goes
//!    its way like any other; all else is 404.
//! 3. [`tame`]: the answer is a file to be saved, or a picture.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Response, StatusCode, Uri};

use super::companion;
use super::exchange::Exchange;
use super::read::{Reading, Surroundings};
use super::respond::{self, Shape};
use super::ticket::{self, Opened, Place, Ticket};
use crate::config::class::Class;
use crate::guards::{Denial, Reason};
use crate::policy::{HostPlace, Policy, Site};
use crate::request::body::Body;
use crate::request::client::Client;
use crate::request::credential::TokenText;
use crate::request::facts::{Companion, Origin};
use crate::request::target::Host;

const NAME: &str = "download_host";
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// A request that came with a ticket; among the extensions of its head, where no client can put anything.
#[derive(Debug, Clone)]
pub struct Entered {
    /// The time to begin was over.
    pub late: bool,
    /// The token of the companion cookie that the ticket was made with.
    pub companion: Option<std::sync::Arc<TokenText>>,
}

// === the way in ===

/// Makes a request with a ticket the one that the ticket is for. One without stays as it is: [`super::read::read`] refuses
/// it.
pub fn enter(head: &mut Parts, around: &Surroundings<'_>, client: Client) {
    companion::take_out(head);
    let policy = around.snapshot.policy();
    let Some(site) = of_host(policy, head) else { return };
    // Nothing of the client's own counts here.
    head.headers.remove(header::AUTHORIZATION);
    head.headers.remove(header::COOKIE);
    head.extensions.remove::<companion::Brought>();
    if let Some((target, opened)) = opened(head, site, around, client) {
        rewrite(head, target, opened);
    }
}

/// The site whose download host a request names.
fn of_host<'p>(policy: &'p Policy, head: &Parts) -> Option<&'p Site> {
    if policy.sites.iter().all(|site| site.download.is_none()) {
        return None;
    }
    match policy.place(&Host::read(head).ok()?)? {
        HostPlace::Download(site) => policy.site(site),
        HostPlace::Site(..) | HostPlace::Redirect(_) => None,
    }
}

fn opened(
    head: &Parts,
    site: &Site,
    around: &Surroundings<'_>,
    client: Client,
) -> Option<(PathAndQuery, Opened)> {
    let bodiless = |name| !head.headers.contains_key(name);
    let plain = is_read(&head.method)
        && [header::UPGRADE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING].into_iter().all(bodiless);
    let (target, text) = ticket::take(head.uri.path_and_query()?.as_str()).filter(|_| plain)?;
    let place = place(site, target)?;
    let opened = Ticket::open(text, around.seal, place, client, around.now)?;
    if opened.late && !ticket::asks_for_rest(&head.headers) {
        return None;
    }
    Some((target.parse().ok()?, opened))
}

fn rewrite(head: &mut Parts, target: PathAndQuery, opened: Opened) {
    let Opened { ticket, late } = opened;
    let Ok(authority) = HeaderValue::from_str(&ticket.authority) else { return };
    head.uri = Uri::from(target);
    head.headers.insert(header::HOST, authority);
    for (name, value) in [(header::AUTHORIZATION, ticket.authorization), (header::COOKIE, ticket.cookie)] {
        if let Some(value) = value {
            head.headers.insert(name, value);
        }
    }
    head.extensions.insert(Entered { late, companion: ticket.companion.map(std::sync::Arc::new) });
}

fn place<'a>(site: &'a Site, target: &'a str) -> Option<Place<'a>> {
    let host = site.download.as_ref()?.pattern.name();
    Some(Place { site: &site.name, host, target })
}

fn is_read(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

// === the way out ===

/// Whether the site sends this request on to its download host.
pub fn leaves(reading: &Reading<'_>, headers: &HeaderMap) -> bool {
    let (facts, observe) = (&reading.facts, reading.found.route.observe);
    reading.site.download.is_some()
        && reading.entered.is_none()
        && matches!(facts.class, Class::Download | Class::ShareDownload | Class::Preview)
        && is_read(&facts.method)
        && !facts.websocket
        // The guards refuse these, where they do not only observe.
        && (!facts.runs_as_code || observe.browser)
        && (facts.companion != Companion::Foreign || observe.members)
        && is_navigation(headers)
}

/// A browser would show the answer as a page. Old browsers do not say so; but only for pages they ask for `text/html`.
fn is_navigation(headers: &HeaderMap) -> bool {
    let mode = headers.get_all(SEC_FETCH_MODE);
    let dest = headers.get_all(SEC_FETCH_DEST);
    if mode.iter().next().is_none() && dest.iter().next().is_none() {
        let wants_page = |line: &HeaderValue| {
            line.as_bytes().windows(9).any(|word| word.eq_ignore_ascii_case(b"text/html"))
        };
        return headers.get_all(header::ACCEPT).iter().any(wants_page);
    }
    let page =
        |dest: &HeaderValue| matches!(dest.as_bytes(), b"document" | b"iframe" | b"frame" | b"fencedframe");
    mode.iter().any(|mode| mode == "navigate") || dest.iter().any(page)
}

/// The answer that sends it on; `None`: it is served in place.
pub fn send_on(
    reading: &Reading<'_>,
    head: &Parts,
    around: &Surroundings<'_>,
    exchange: &mut Exchange,
    shape: Shape,
) -> Option<Response<Body>> {
    leaves(reading, &head.headers).then(|| {
        there(reading, head, around).unwrap_or_else(|denial| {
            exchange.denied(&denial);
            respond::denied(&denial, Some(reading.site), shape)
        })
    })
}

/// One that was sent with more than a ticket holds is not served in place either: whoever can make a browser send much would
/// choose where an upload is shown.
fn there(reading: &Reading<'_>, head: &Parts, around: &Surroundings<'_>) -> Result<Response<Body>, Denial> {
    let refused = || Denial::new(NAME, Reason::TicketTooLarge);
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let host = reading.site.download.as_ref().ok_or_else(refused)?;
    let place = place(reading.site, target).ok_or_else(refused)?;
    let ticket = Ticket {
        authority: reading.authority.clone(),
        companion: reading.companion.as_ref().map(|token| TokenText::new(token.bytes())),
        authorization: head.headers.get(header::AUTHORIZATION).cloned(),
        cookie: joined(&head.headers),
    };
    let sealed = ticket.seal(around.seal, place, reading.facts.client, around.now).ok_or_else(refused)?;
    let location = format!("{}{}", host.origin, ticket::put(target, &sealed));
    let mut answer = Response::new(Body::Empty);
    // 307: nothing remembers it, and HEAD stays HEAD.
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = answer.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_str(&location).map_err(|_| refused())?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// HTTP/2 splits cookies into crumbs.
fn joined(headers: &HeaderMap) -> Option<HeaderValue> {
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    (!crumbs.is_empty()).then(|| HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).ok()).flatten()
}

// === the answer ===

/// What the download host makes of an answer; of others it makes nothing.
pub fn tame(mut answer: Response<Body>, reading: &Reading<'_>, shape: Shape) -> Response<Body> {
    let Some(entered) = &reading.entered else { return answer };
    if entered.late && begins_anew(answer.status()) {
        return respond::denied(&Denial::new(NAME, Reason::NoTicket), Some(reading.site), shape);
    }
    let headers = answer.headers_mut();
    for name in [header::SET_COOKIE, header::REFRESH, header::ACCESS_CONTROL_ALLOW_ORIGIN, header::LINK] {
        headers.remove(name);
    }
    if let Some(there) = headers.get(header::LOCATION).and_then(|there| at_home(there, reading)) {
        headers.insert(header::LOCATION, there);
    }
    let disposition = disposition(headers);
    if let Some(disposition) = disposition {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    answer
}

/// Asked for the rest, the application sends the whole.
fn begins_anew(status: StatusCode) -> bool {
    status.is_success() && status != StatusCode::PARTIAL_CONTENT
}

/// A place of the application is on its own host.
fn at_home(location: &HeaderValue, reading: &Reading<'_>) -> Option<HeaderValue> {
    let path = location.to_str().ok().filter(|path| path.starts_with('/') && !path.starts_with("//"))?;
    HeaderValue::from_str(&format!("https://{}{path}", reading.authority)).ok()
}

/// Pictures of pixels may be looked at; all else is a file. `None`: it says so itself.
fn disposition(headers: &HeaderMap) -> Option<HeaderValue> {
    const PICTURES: [&str; 5] = ["image/jpeg", "image/png", "image/gif", "image/webp", "image/avif"];
    const FILE: HeaderValue = HeaderValue::from_static("attachment");
    let mut said = headers.get_all(header::CONTENT_DISPOSITION).iter();
    let (first, second) = (said.next(), said.next());
    let text = first.and_then(|said| said.to_str().ok()).unwrap_or_default();
    let (word, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    if second.is_none() && word.trim().eq_ignore_ascii_case("attachment") {
        return None;
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let looked_at = first.is_none() || word.trim().eq_ignore_ascii_case("inline");
    if second.is_none() && looked_at && PICTURES.iter().any(|known| known.eq_ignore_ascii_case(essence)) {
        return None;
    }
    let named = second.is_none().then(|| HeaderValue::from_str(&format!("attachment{rest}")).ok());
    Some(named.flatten().unwrap_or(FILE))
}

/// On the download host no page is the site's own.
pub fn own_origin(reading: &Reading<'_>) -> bool {
    reading.entered.is_none() && reading.facts.origin == Origin::Own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Now;
    use crate::config;
    use crate::policy::{Snapshot, compile};
    use crate::request::share_key::ShareKey;
    use crate::stores::kept::Kept;
    use crate::stores::seal::Seal;
    use crate::stores::sessions::Sessions;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_a_browser_would_show_as_a_page_is_a_navigation() {
        for (pairs, navigates) in [
            (&[(SEC_FETCH_MODE, "navigate"), (SEC_FETCH_DEST, "document")][..], true),
            (&[(SEC_FETCH_MODE, "navigate"), (SEC_FETCH_DEST, "empty")], true),
            (&[(SEC_FETCH_DEST, "iframe")], true),
            (&[(SEC_FETCH_MODE, "cors"), (SEC_FETCH_MODE, "navigate")], true),
            (&[(SEC_FETCH_MODE, "no-cors"), (SEC_FETCH_DEST, "image")], false),
            (&[(SEC_FETCH_MODE, "cors"), (SEC_FETCH_DEST, "empty"), (header::ACCEPT, "text/html")], false),
            (&[(header::ACCEPT, "Text/HTML,application/xhtml+xml")], true),
            (&[(header::ACCEPT, "application/xhtml+xml"), (header::ACCEPT, "text/html")], true),
            (&[(header::ACCEPT, "*/*")], false),
            (&[], false),
        ] {
            assert_eq!(is_navigation(&headers(pairs)), navigates, "{pairs:?}");
        }
    }

    const CONFIG: &str = "[tls]\nself_signed = true\n[[site]]\nhosts = [\"files.test\"]\napp = \"keepstack\"\n\
                          upstream = \"http://127.0.0.1:8000\"\ndownload_host = \"dl.test\"\n";
    const HOME: Client = Client::Address(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    /// What becomes of a GET with a ticket made at 0: its host, and whether it is late.
    fn entered(seconds: u64, range: Option<&'static str>) -> Option<(String, bool)> {
        let at = |seconds: u64| Now { mono: 0, wall: (1_790_000_000 + seconds) * 1000 };
        let loaded = config::parse(std::path::Path::new("/p.toml"), CONFIG, at(0)).unwrap();
        let snapshot = Snapshot::new(compile(&loaded.settings, &Kept::new(10)).into());
        let (seal, share_key) = (Seal::new(&[[1; 32]]), ShareKey::new(&[1; 32]));
        let (place, authorization) = (
            Place { site: "files.test", host: "dl.test", target: "/a" },
            HeaderValue::from_static("Bearer a"),
        );
        let ticket = Ticket {
            authority: "files.test".into(),
            companion: None,
            authorization: Some(authorization.clone()),
            cookie: None,
        };
        let text = ticket.seal(&seal, place, HOME, at(0)).unwrap();
        let mut request =
            http::Request::get(ticket::put("/a", &text)).header("host", "DL.test").header("cookie", "a=b");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        let now = at(seconds);
        let around = Surroundings {
            snapshot: &snapshot,
            share_key: &share_key,
            seal: &seal,
            sessions: &Sessions::default(),
            now,
            rehearsal: false,
        };
        enter(&mut head, &around, HOME);
        assert_eq!(head.headers.get("cookie"), None, "the client's own never counts here");
        let entered = head.extensions.get::<Entered>()?;
        assert_eq!(
            (head.uri.to_string().as_str(), head.headers.get("authorization")),
            ("/a", Some(&authorization))
        );
        Some((head.headers["host"].to_str().unwrap().to_owned(), entered.late))
    }

    #[test]
    fn a_late_ticket_is_for_the_rest_of_a_download_only() {
        let (home, rest) = ("files.test".to_owned(), Some("bytes=5-"));
        assert_eq!(entered(59, None), Some((home.clone(), false)));
        assert_eq!(entered(60, None), None);
        assert_eq!(entered(60, Some("bytes=0-")), None);
        assert_eq!(entered(60, rest), Some((home, true)));
        assert_eq!(entered(13 * 3600, rest), None);
        let anew = [200, 203, 204].map(|status| begins_anew(StatusCode::from_u16(status).unwrap()));
        let goes_on =
            [206, 304, 412, 416, 404].map(|status| begins_anew(StatusCode::from_u16(status).unwrap()));
        assert_eq!((anew, goes_on), ([true; 3], [false; 5]));
    }

    #[test]
    fn what_is_no_picture_of_pixels_is_a_file_under_its_name() {
        let (kind, said) = (header::CONTENT_TYPE, header::CONTENT_DISPOSITION);
        for (pairs, expected) in [
            (&[(kind.clone(), "text/html"), (said.clone(), "attachment; filename=a")][..], None),
            (&[(kind.clone(), "text/html"), (said.clone(), "ATTACHMENT ;filename=a")], None),
            (
                &[(kind.clone(), "text/html"), (said.clone(), "inline; filename=\"a.html\"")],
                Some("attachment; filename=\"a.html\""),
            ),
            (&[(kind.clone(), "text/html")], Some("attachment")),
            (&[(kind.clone(), "image/svg+xml"), (said.clone(), "inline")], Some("attachment")),
            (&[(kind.clone(), "Image/JPEG; q=1"), (said.clone(), "inline; filename=a")], None),
            (&[(kind.clone(), "image/png")], None),
            (&[], Some("attachment")),
            (&[(said.clone(), "attachment"), (said.clone(), "inline")], Some("attachment")),
            (&[(kind, "image/png"), (said, "form-data; name=x")], Some("attachment; name=x")),
        ] {
            let got = disposition(&headers(pairs));
            assert_eq!(got.as_ref().map(|value| value.to_str().unwrap()), expected, "{pairs:?}");
        }
    }
}
