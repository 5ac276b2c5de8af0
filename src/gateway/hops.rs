//! What may cross a hop (RFC 9110, 7.6; HARDENING 1.5, 1.7): hop-by-hop fields and the client's identity fields go
//! out, ours come in; in place, without a copy of the head.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};

use crate::request::certificate::Certificate;
use crate::request::client::Client;

/// Fields that belong to one hop, and those that only proxies and attackers send.
static HOP_BY_HOP: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::EXPECT,
];

/// Names from which some framework takes the client's address, scheme, host, port, prefix, user, method or path. Names
/// that begin with one of [`IDENTITY_PREFIXES`] go too, and every name with an underscore (CGI folds it to a hyphen).
const IDENTITY: [&str; 31] = [
    "client-cert",
    "client-cert-chain",
    "true-client-ip",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "client-ip",
    "x-host",
    "x-proxyuser-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-originating-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-rewrite-url",
    "x-original-url",
    "x-original-host",
    "x-url-scheme",
    "x-scheme",
    "front-end-https",
    "remote-user",
    "x-remote-user",
    "x-auth-user",
    "x-authenticated-user",
    "x-user",
    "x-script-name",
    "script-name",
    "x-envoy-external-address",
    "x-request-id",
    "via",
];

const IDENTITY_PREFIXES: [&str; 12] = [
    "x-forwarded",
    "forwarded",
    "x-azure-",
    "x-appengine-",
    "cf-",
    "fly-",
    "fastly-",
    "ssl-client-",
    "x-ssl-client-",
    "x-client-cert",
    "x-original-",
    "x-envoy-",
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// RFC 9440: the whole certificate.
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const X_CLIENT_CERT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const X_CLIENT_CERT_SAN: HeaderName = HeaderName::from_static("x-client-cert-san");
/// The request's id, ours in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What may not come behind a body (RFC 9110, 6.5.1): framing, routing, credentials, and what decides how a body is read.
static NEVER_LATE: [HeaderName; 16] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    header::LOCATION,
    header::CACHE_CONTROL,
    header::EXPIRES,
    header::AGE,
    header::VARY,
    header::RANGE,
];

/// Fields that the gateway adds at most.
const OURS: usize = 14;

/// What the gateway says of the request to the application.
#[derive(Debug)]
pub struct Identity<'a> {
    /// The certificate that the client has shown, where the site asks for one.
    pub certificate: Option<&'a Certificate>,
    /// The client after trusted proxies.
    pub client: Client,
    /// The authority as the client wrote it, checked.
    pub authority: &'a str,
    /// The public port.
    pub port: u16,
    /// `true`: https, by the listener or a trusted proxy.
    pub secure: bool,
    /// The request's id.
    pub id: &'a str,
}

/// Makes a head fit to go to the application, in origin form and HTTP/1.1. `path`: what to forward where that is not what
/// was sent. `websocket`: the upgrade stays, as ours; an extended CONNECT (RFC 8441) becomes one.
pub fn outgoing(
    mut head: Parts,
    path: Option<String>,
    identity: &Identity<'_>,
    websocket: bool,
) -> Request<()> {
    head.extensions.clear();
    head.version = Version::HTTP_11;
    if let Some(path) = path.and_then(|path| PathAndQuery::from_maybe_shared(path).ok()) {
        head.uri = Uri::from(path);
    } else if head.uri.authority().is_some() {
        head.uri = head.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    }
    let headers = &mut head.headers;
    strip(headers, |name| HOP_BY_HOP.contains(name) || is_identity(name.as_str()));
    headers.reserve(OURS);
    if websocket {
        if head.method == Method::CONNECT {
            head.method = Method::GET;
            headers.insert(header::SEC_WEBSOCKET_KEY, fresh_key());
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    set_host(headers, identity.authority);
    set(headers, X_REQUEST_ID, identity.id);
    if let Client::Address(address) = identity.client {
        let address = address_value(address);
        headers.insert(X_REAL_IP, address.clone());
        headers.insert(X_FORWARDED_FOR, address);
    }
    if let Some(certificate) = identity.certificate {
        headers.insert(CLIENT_CERT, certificate.cert.clone());
        headers.insert(X_CLIENT_CERT_SUBJECT, certificate.subject.clone());
        headers.insert(X_CLIENT_CERT_SAN, certificate.names.clone());
    }
    let scheme = if identity.secure { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    headers.insert(X_FORWARDED_PORT, HeaderValue::from(identity.port));
    headers.insert(header::VIA, HeaderValue::from_static("1.1 portcullis"));
    join_cookies(headers);
    Request::from_parts(head, ())
}

/// RFC 6455, 4.1: sixteen bytes that nobody can foresee. What came over HTTP/2 has none.
fn fresh_key() -> HeaderValue {
    let mut bytes = [0; 16];
    // Without randomness there would be no TLS either; the key is no secret.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    HeaderValue::try_from(STANDARD.encode(bytes)).unwrap_or(HeaderValue::from_static(""))
}

/// Makes an answer's head fit to go to the client.
pub fn incoming(headers: &mut HeaderMap) {
    strip(headers, |name| HOP_BY_HOP.contains(name) || *name == header::ALT_SVC || *name == X_REQUEST_ID);
}

/// Makes trailers, of a request or an answer, fit to cross.
pub fn trailers(headers: &mut HeaderMap) {
    let goes = |name: &HeaderName| {
        HOP_BY_HOP.contains(name) || NEVER_LATE.contains(name) || is_identity(name.as_str())
    };
    strip(headers, goes);
}

/// Removes what goes in one pass over the names, and what `Connection` names.
fn strip(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let mut gone: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    gone.extend(headers.keys().filter(|name| goes(name)).cloned());
    for name in &gone {
        headers.remove(name);
    }
}

fn is_identity(name: &str) -> bool {
    name.contains('_')
        || IDENTITY.contains(&name)
        || IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// HTTP/2 splits cookies into crumbs; HTTP/1.1 wants one field (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// As a rule the field is there already: it is what the authority was read from.
fn set_host(headers: &mut HeaderMap, authority: &str) {
    let there = headers.get(header::HOST).filter(|host| *host == authority).cloned();
    let Some(host) = there.or_else(|| HeaderValue::from_str(authority).ok()) else { return };
    headers.insert(X_FORWARDED_HOST, host.clone());
    headers.insert(header::HOST, host);
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn address_value(address: IpAddr) -> HeaderValue {
    let text = match address {
        IpAddr::V4(address) => dotted(address),
        IpAddr::V6(address) => address.to_string(),
    };
    // An address as text has no byte that a header value does not take.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// What `Display` writes, for a tenth of its cost: it pads.
fn dotted(address: Ipv4Addr) -> String {
    let mut text = String::with_capacity(15);
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for (size, at_least) in [(100, 100), (10, 10), (1, 0)] {
            if octet >= at_least {
                text.push(char::from(b'0' + octet / size % 10));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(fields: &[(&str, &str)], websocket: bool) -> HeaderMap {
        let mut request = http::Request::builder().uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let identity = Identity {
            certificate: None,
            client: Client::Address("203.0.113.7".parse().unwrap()),
            authority: "a.test:8443",
            port: 8443,
            secure: true,
            id: "id1",
        };
        outgoing(head, None, &identity, websocket).into_parts().0.headers
    }

    #[test]
    fn no_identity_of_the_clients_own_goes_through() {
        for name in [
            "x-forwarded-for",
            "x-forwarded-user",
            "x-forwarded-client-cert",
            "x-forwarded-prefix",
            "forwarded",
            "true-client-ip",
            "x-real-ip",
            "cf-connecting-ip",
            "fly-client-ip",
            "fastly-client-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-original-forwarded-for",
            "x-original-url",
            "x-rewrite-url",
            "remote-user",
            "remote_user",
            "x_forwarded_for",
            "x_real_ip",
            "x-http-method-override",
            "ssl-client-cert",
            "client-cert",
            "client-cert-chain",
            "client_cert",
            "x-client-cert-subject",
            "x-client-cert-san",
            "proxy",
            "x-ssl-client-verify",
            "x-envoy-original-path",
        ] {
            let headers = sent(&[(name, "forged")], false);
            assert!(headers.values().all(|value| value != "forged"), "{name}");
        }
    }

    #[test]
    fn ours_are_set_and_connection_cannot_remove_them() {
        let headers =
            sent(&[("connection", "close, x-forwarded-for, x-real-ip, x-secret"), ("x-secret", "1")], false);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.7");
        assert_eq!(headers["x-real-ip"], "203.0.113.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "a.test:8443");
        assert_eq!(headers["host"], "a.test:8443");
        assert!(headers.get("x-secret").is_none() && headers.get("connection").is_none());
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        for octet in 0..=255 {
            let address = Ipv4Addr::new(octet, 0, 255 - octet, 10);
            assert_eq!(dotted(address), address.to_string());
        }
    }

    #[test]
    fn only_a_websocket_upgrade_stays() {
        let h2c = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "x")];
        let headers = sent(&h2c, false);
        assert!(["connection", "upgrade", "http2-settings"].iter().all(|name| headers.get(*name).is_none()));
        let headers = sent(&[("connection", "Upgrade"), ("upgrade", "WebSocket")], true);
        assert_eq!(
            (headers["connection"].as_bytes(), headers["upgrade"].as_bytes()),
            (&b"upgrade"[..], &b"websocket"[..])
        );
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        assert_eq!(sent(&[("cookie", "a=b"), ("cookie", "c=d")], false)["cookie"], "a=b; c=d");
    }
}
