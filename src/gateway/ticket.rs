//! Tickets for the download host: what a request was sent with, sealed and put into the address it is sent on to.
//!
//! A ticket opens for one target of one site, for 60 s. Nothing is stored of it, so that within that time it opens again;
//! but each request with it is judged anew, by all guards, with the credentials that it holds. A download that broke off
//! goes on for twelve hours: the same client may ask for the rest, never for the beginning.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderValue};

use crate::clock::Now;
use crate::request::client::Client;
use crate::request::credential::TokenText;
use crate::stores::seal::{LONGEST_TICKET, Purpose, Seal};

/// Seconds in which a download must begin.
const BEGIN: u64 = 60;
/// Seconds in which one that broke off may go on.
const GO_ON: u64 = 12 * 3600;
/// A clock that was set back a little makes no ticket come from the future.
const LEEWAY: u64 = 5;
/// The name of the ticket in the query; masks know it.
const KEY: &str = "ticket=";

/// What a request was sent with.
#[derive(Debug)]
pub struct Ticket {
    /// The site's host as the client wrote it.
    pub authority: Box<str>,
    /// The token of a companion cookie.
    pub companion: Option<TokenText>,
    /// `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// `Cookie`, in one field.
    pub cookie: Option<HeaderValue>,
}

/// What a ticket is for: it opens with nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The site's name.
    pub site: &'a str,
    /// The download host.
    pub host: &'a str,
    /// Path and query as the client sent them to the site.
    pub target: &'a str,
}

/// An opened ticket.
#[derive(Debug)]
pub struct Opened {
    /// What it holds.
    pub ticket: Ticket,
    /// The time to begin is over: only the rest of what has begun may be had.
    pub late: bool,
}

impl Place<'_> {
    fn bound(&self) -> Vec<u8> {
        [self.site, self.host, self.target].join("\0").into_bytes()
    }
}

impl Ticket {
    /// Seals it. `None`: it holds more than a ticket can, or there are no keys.
    pub fn seal(&self, seal: &Seal, place: Place<'_>, client: Client, now: Now) -> Option<String> {
        let begun = format!("{}\n{}\n{}\n", now.unix(), network(client), self.authority);
        let none: &[u8] = b"";
        let field = |value: &Option<HeaderValue>| value.as_ref().map_or(none, HeaderValue::as_bytes).to_vec();
        let companion = self.companion.as_ref().map_or(none, TokenText::bytes);
        let rest = [companion, &field(&self.authorization), &field(&self.cookie)].join(&b'\n');
        let plain = zeroize::Zeroizing::new([begun.as_bytes(), &rest].concat());
        if Seal::sealed_len(plain.len()) > LONGEST_TICKET {
            return None;
        }
        seal.seal(Purpose::Ticket, &place.bound(), &plain)
    }

    /// Opens one. `None`: it is forged, for something else, or too old.
    pub fn open(text: &str, seal: &Seal, place: Place<'_>, client: Client, now: Now) -> Option<Opened> {
        let plain = zeroize::Zeroizing::new(seal.open(Purpose::Ticket, &place.bound(), text)?);
        // No field of a header has a line's end in it.
        let mut fields = plain.splitn(6, |byte| *byte == b'\n');
        let mut text = || fields.next().and_then(|field| std::str::from_utf8(field).ok());
        let (sealed, whose, authority) = (text()?.parse().ok()?, text()?, text()?.into());
        let late = is_late(sealed, whose, client, now)?;
        let companion = fields.next()?;
        let mut value = || {
            let field = fields.next()?;
            Some(HeaderValue::from_bytes(field).ok().filter(|value| !value.is_empty()))
        };
        let (authorization, cookie) = (value()?, value()?);
        let companion = (!companion.is_empty()).then(|| TokenText::new(companion));
        Some(Opened { ticket: Self { authority, companion, authorization, cookie }, late })
    }
}

/// Whether it is too late to begin; `None`: for everything.
fn is_late(sealed: u64, whose: &str, client: Client, now: Now) -> Option<bool> {
    let age = now.unix().saturating_add(LEEWAY).checked_sub(sealed)?;
    match age.saturating_sub(LEEWAY) {
        0..BEGIN => Some(false),
        BEGIN..GO_ON if client != Client::Unknown && network(client) == whose => Some(true),
        _ => None,
    }
}

/// The client; of IPv6 its network, as for limits.
fn network(client: Client) -> String {
    match client {
        Client::Unknown => "-".into(),
        Client::Address(IpAddr::V4(address)) => address.to_string(),
        Client::Address(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::")
        }
    }
}

/// A target with its ticket.
pub fn put(target: &str, ticket: &str) -> String {
    let mark = if target.contains('?') { '&' } else { '?' };
    format!("{target}{mark}{KEY}{ticket}")
}

/// The target that a ticket was put to, and the ticket.
pub fn take(target: &str) -> Option<(&str, &str)> {
    let at = target.rfind(KEY)?;
    let (before, ticket) = target.split_at(at);
    Some((before.strip_suffix(['?', '&'])?, ticket.strip_prefix(KEY)?))
}

/// Asks for the rest of something: one range that does not begin at its beginning.
pub fn asks_for_rest(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return false };
    let text = range.to_str().unwrap_or_default();
    // `0-5,7-` is two ranges.
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let from = text.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let from = from.filter(|(from, to)| digits(from) && digits(to));
    from.and_then(|(from, _)| from.parse::<u64>().ok()).is_some_and(|from| from > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stores::seal::KEY_LEN;

    const HOME: Client = Client::Address(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)));

    fn seal() -> Seal {
        Seal::new(&[[1; KEY_LEN]])
    }

    fn at(seconds: u64) -> Now {
        Now { mono: 0, wall: (1_790_000_000 + seconds) * 1000 }
    }

    fn place<'a>(site: &'a str, host: &'a str, target: &'a str) -> Place<'a> {
        Place { site, host, target }
    }

    fn ticket() -> Ticket {
        Ticket {
            authority: "files.test:8443".into(),
            companion: Some(TokenText::new(b"com.panion")),
            authorization: Some(HeaderValue::from_static("Bearer a.b")),
            cookie: Some(HeaderValue::from_bytes(b"sid=\xe4; b=c").unwrap()),
        }
    }

    #[test]
    fn a_ticket_holds_what_the_request_was_sent_with() {
        let here = place("files.test", "dl.test", "/a?b");
        let text = ticket().seal(&seal(), here, HOME, at(0)).unwrap();
        let Opened { ticket: found, late } = Ticket::open(&text, &seal(), here, HOME, at(0)).unwrap();
        assert!(!late);
        assert_eq!(&*found.authority, "files.test:8443");
        assert_eq!(found.companion.unwrap().bytes(), b"com.panion");
        assert_eq!(found.authorization.unwrap(), "Bearer a.b");
        assert_eq!(found.cookie.unwrap().as_bytes(), b"sid=\xe4; b=c");
        let bare = Ticket { authority: "a".into(), companion: None, authorization: None, cookie: None };
        let text = bare.seal(&seal(), here, HOME, at(0)).unwrap();
        let found = Ticket::open(&text, &seal(), here, HOME, at(0)).unwrap().ticket;
        assert!(found.companion.is_none() && found.authorization.is_none() && found.cookie.is_none());
    }

    #[test]
    fn a_ticket_for_something_else_opens_nothing() {
        let here = place("files.test", "dl.test", "/a");
        let text = ticket().seal(&seal(), here, HOME, at(0)).unwrap();
        for other in [
            place("other.test", "dl.test", "/a"),
            place("files.test", "dl2.test", "/a"),
            place("files.test", "dl.test", "/A"),
            place("files.test", "dl.test", "/a?"),
            place("files.test", "dl.test", "/a/../a"),
            place("files.testdl.test", "", "/a"),
        ] {
            assert!(Ticket::open(&text, &seal(), other, HOME, at(0)).is_none(), "{other:?}");
        }
        let device = seal().seal(Purpose::Device, &here.bound(), b"1\n-\na\n\n\n").unwrap();
        assert!(Ticket::open(&device, &seal(), here, HOME, at(0)).is_none());
        for cut in 0..text.len() {
            assert!(Ticket::open(&text[..cut], &seal(), here, HOME, at(0)).is_none());
        }
    }

    #[test]
    fn a_download_begins_within_a_minute_and_goes_on_for_the_same_client_only() {
        let here = place("files.test", "dl.test", "/a");
        let text = ticket().seal(&seal(), here, HOME, at(100)).unwrap();
        let late = |client, seconds| {
            Ticket::open(&text, &seal(), here, client, at(seconds)).map(|opened| opened.late)
        };
        let elsewhere = Client::Address(IpAddr::from([203, 0, 113, 8]));
        assert_eq!([late(HOME, 100), late(elsewhere, 159), late(HOME, 95)], [Some(false); 3]);
        assert_eq!([late(HOME, 160), late(HOME, 100 + GO_ON - 1)], [Some(true); 2]);
        for (client, seconds) in
            [(elsewhere, 160), (Client::Unknown, 160), (HOME, 100 + GO_ON), (HOME, 94), (HOME, 0)]
        {
            assert_eq!(late(client, seconds), None, "{client:?} at {seconds}");
        }
        let unknown = ticket().seal(&seal(), here, Client::Unknown, at(0)).unwrap();
        assert!(Ticket::open(&unknown, &seal(), here, Client::Unknown, at(60)).is_none());
        let v6 = |text: &str| Client::Address(text.parse().unwrap());
        assert_eq!(network(v6("2001:db8:0:1::5")), network(v6("2001:db8:0:1:ffff::")));
        assert_ne!(network(v6("2001:db8:0:1::5")), network(v6("2001:db8:0:2::5")));
    }

    /// The figure is printed; the bound is for a build without optimization on a busy machine.
    #[test]
    #[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a figure")]
    fn a_ticket_is_sealed_and_opened_in_microseconds() {
        let (here, own, ticket) = (place("files.test", "dl.test", "/a"), seal(), ticket());
        let mut best = [u128::MAX; 2];
        for _ in 0..50 {
            let begun = std::time::Instant::now();
            let texts: Vec<_> = (0..20).map(|_| ticket.seal(&own, here, HOME, at(0)).unwrap()).collect();
            let sealed = std::time::Instant::now();
            assert!(texts.iter().all(|text| Ticket::open(text, &own, here, HOME, at(0)).is_some()));
            let took = [sealed - begun, sealed.elapsed()].map(|time| time.as_nanos() / 20);
            best = [best[0].min(took[0]), best[1].min(took[1])];
        }
        println!("a ticket is sealed in {} ns, opened in {} ns", best[0], best[1]);
        assert!(best.iter().all(|nanos| *nanos < 100_000), "{best:?}");
    }

    #[test]
    fn more_than_a_ticket_holds_is_not_sealed() {
        let here = place("files.test", "dl.test", "/a");
        let of = |length: usize| {
            let cookie = HeaderValue::from_str(&"a".repeat(length)).unwrap();
            let ticket = Ticket { cookie: Some(cookie), ..ticket() };
            let text = ticket.seal(&seal(), here, HOME, at(0))?;
            Ticket::open(&text, &seal(), here, HOME, at(0))
        };
        assert!(of(8 << 10).is_some());
        assert!(of(10 << 10).is_none());
    }

    #[test]
    fn a_ticket_is_the_last_word_of_the_target() {
        for target in ["/a", "/a?", "/a?b=c", "/a?ticket=mine", "/a?x&ticket="] {
            assert_eq!(take(&put(target, "T-_")), Some((target, "T-_")), "{target}");
        }
        for target in ["/a", "/aticket=x", "/?xticket=y", "ticket=x", ""] {
            assert_eq!(take(target), None, "{target}");
        }
    }

    #[test]
    fn the_rest_does_not_begin_at_the_beginning() {
        let of = |ranges: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for one in ranges {
                headers.append(header::RANGE, HeaderValue::from_static(one));
            }
            asks_for_rest(&headers)
        };
        assert!(of(&["bytes=1-"]) && of(&["bytes=77-99"]));
        for ranges in [
            &[][..],
            &["bytes=0-"],
            &["bytes=00-"],
            &["bytes=-5"],
            &["bytes=5-,0-1"],
            &["bytes=1-2,3-4"],
            &["bytes=1-", "bytes=0-"],
            &["lines=1-"],
            &["bytes=+1-"],
            &["bytes= 1-"],
            &["bytes=1-x"],
        ] {
            assert!(!of(ranges), "{ranges:?}");
        }
    }

    proptest! {
        #[test]
        fn no_target_and_no_text_panics(target in ".{0,60}", text in "[A-Za-z0-9_=-]{0,80}") {
            let _ = take(&target);
            prop_assert!(Ticket::open(&text, &seal(), place("a", "b", &target), HOME, at(0)).is_none());
        }
    }
}
