//! The security headers of answers, built once for each class and host of a site.
//!
//! 1. `Content-Security-Policy` by class, the strictest the application's own pages work with.
//! 2. nosniff, Referrer-Policy, Permissions-Policy, COOP, CORP, X-Frame-Options on everything, HSTS over TLS.
//! 3. The application's own copies are replaced, on denials too. With `csp = "off"` or only observed, its own policy
//!    stays: the gateway must not make an answer weaker than it came. Its own HSTS never stays.
//! 4. CORS fields that let a foreign origin in are taken out; `Secure` is put on cookies; token answers get `no-store`.
//! 5. Where the site wants reports the policy names the gateway's own collector, and where it wants a nonce each answer's
//!    policy has one of its own.
//!
//! Caveat: a policy is kept by the browser; other clients never see it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::class::Class;
use crate::config::csp::{Csp, NONCE};
use crate::config::settings::{CspChoice, Headers, NonceWord};

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const COOP: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Features that a file or backup service has no use for.
const NO_FEATURES: &str = "accelerometer=(), browsing-topics=(), camera=(), display-capture=(), geolocation=(), \
                           gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), usb=()";

/// The headers of one class on one host.
#[derive(Debug, Clone)]
pub struct HeaderSet {
    set: Vec<(HeaderName, HeaderValue)>,
    no_store: bool,
    /// A policy is among them that is more than observed.
    enforces: bool,
    nonce: Option<Nonce>,
}

/// A policy with a place for the nonce of each answer.
#[derive(Debug, Clone)]
struct Nonce {
    name: HeaderName,
    policy: Box<str>,
    word: NonceWord,
}

const REPORTING_ENDPOINTS: HeaderName = HeaderName::from_static("reporting-endpoints");
/// The Reporting API's name for the collector, and where it is.
const ENDPOINTS: HeaderValue = HeaderValue::from_static("portcullis=\"/.well-known/portcullis/csp\"");
const REPORT_URI: &str = "; report-uri /.well-known/portcullis/csp";
/// Browsers that know it pass `report-uri` over.
const REPORT_TO: &str = "; report-to portcullis";

/// What a set is built from.
#[derive(Debug, Clone, Copy)]
pub struct Ingredients<'a> {
    /// The route's class.
    pub class: Class,
    /// `[site.headers]`.
    pub headers: &'a Headers,
    /// The app file's policy for the class.
    pub app_csp: &'a str,
    /// Scheme, host and port as browsers write them: `https://files.example.com`.
    pub origin: &'a str,
}

impl HeaderSet {
    /// Builds the set. A policy that is no header value is left to config's check; here it closes (`default-src 'none'`).
    pub fn build(from: Ingredients<'_>) -> Self {
        let class = from.class;
        let mut set = vec![
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
            (header::REFERRER_POLICY, HeaderValue::from_static(referrer_policy(class))),
            (PERMISSIONS_POLICY, HeaderValue::from_static(NO_FEATURES)),
            (COOP, HeaderValue::from_static("same-origin")),
            (CORP, HeaderValue::from_static(resource_policy(class))),
        ];
        let csp = match &from.headers.csp {
            CspChoice::App | CspChoice::Variant(_) => Some(from.app_csp),
            CspChoice::Own(policy) => Some(&**policy),
            CspChoice::Off => None,
        };
        let csp = csp.map(|csp| filled(csp, &from));
        let nonce =
            csp.clone().zip(from.headers.nonce.clone()).filter(|((_, policy), _)| policy.contains(NONCE));
        let nonce = nonce.map(|((name, policy), word)| Nonce { name, policy: policy.into(), word });
        if let Some((name, policy)) = csp.filter(|_| nonce.is_none()) {
            set.push((name, value(&policy)));
        }
        if from.headers.csp_report && !matches!(from.headers.csp, CspChoice::Off) {
            set.push((REPORTING_ENDPOINTS, ENDPOINTS));
        }
        if let Some(hsts) = &from.headers.hsts {
            set.push((header::STRICT_TRANSPORT_SECURITY, hsts.clone()));
        }
        set.extend(from.headers.set.iter().cloned());
        let mut names = set.iter().map(|(name, _)| name).chain(nonce.iter().map(|nonce| &nonce.name));
        let enforces = names.any(|name| name == header::CONTENT_SECURITY_POLICY);
        let no_store = matches!(class, Class::Login | Class::Refresh | Class::Oidc);
        Self { set, no_store, enforces, nonce }
    }

    /// What pages carry in place of a nonce; `None`: answers have none.
    pub fn nonce_word(&self) -> Option<&str> {
        self.nonce.as_ref().map(|nonce| &*nonce.word.0)
    }

    /// Puts the policy of one answer on, after [`HeaderSet::apply`]. Without a nonce no script of it runs.
    pub fn apply_nonce(&self, headers: &mut HeaderMap, nonce: Option<&str>) {
        let Some(Nonce { name, policy, .. }) = &self.nonce else { return };
        let source = nonce.map(|nonce| format!("'nonce-{nonce}'")).unwrap_or_default();
        headers.insert(name.clone(), value(&policy.replace("'nonce-{nonce}'", &source)));
    }

    /// Puts the set on an answer.
    pub fn apply(&self, headers: &mut HeaderMap, origin: Option<&HeaderValue>, own_origin: bool) {
        headers.reserve(self.set.len());
        if self.enforces {
            headers.remove(header::CONTENT_SECURITY_POLICY_REPORT_ONLY);
        }
        headers.remove(header::STRICT_TRANSPORT_SECURITY);
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        if self.no_store {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        close_cors(headers, origin, own_origin);
        if headers.contains_key(header::SET_COOKIE) {
            secure_cookies(headers);
        }
    }

    /// The names and values, for `check` and `explain`; of a policy with a nonce its place.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, HeaderValue)> {
        let fixed = self.set.iter().map(|(name, value)| (name, value.clone()));
        fixed.chain(self.nonce.iter().map(|nonce| (&nonce.name, value(&nonce.policy))))
    }
}

/// The policy as it is sent, but for the nonce.
fn filled(csp: &str, from: &Ingredients<'_>) -> (HeaderName, String) {
    let name = if from.headers.csp_observe {
        header::CONTENT_SECURITY_POLICY_REPORT_ONLY
    } else {
        header::CONTENT_SECURITY_POLICY
    };
    let mut policy = csp.replace("{origin}", from.origin);
    if from.headers.nonce.is_none() || !takes_nonce(from.class) {
        // Nobody can name one: what it would have let run does not.
        policy = policy.replace("'nonce-{nonce}'", "");
    }
    if from.headers.csp_report && !Csp::read(&policy).reports_elsewhere() {
        // The Reporting API keeps no endpoints for a page that is sandboxed: its origin is nobody's.
        let to = if Csp::read(&policy).sandboxes() { "" } else { REPORT_TO };
        policy = policy.trim_end_matches([' ', ';']).to_owned() + REPORT_URI + to;
    }
    (name, policy)
}

fn value(policy: &str) -> HeaderValue {
    HeaderValue::from_str(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// Classes whose answers are pages of the application; never those that serve what users have uploaded.
fn takes_nonce(class: Class) -> bool {
    matches!(class, Class::Page | Class::Login | Class::Setup | Class::Share | Class::Docs | Class::Admin)
}

/// Share links are secrets in the path: nothing of it goes to others.
fn referrer_policy(class: Class) -> &'static str {
    match class {
        Class::Share | Class::ShareDownload | Class::Oidc => "no-referrer",
        _ => "same-origin",
    }
}

/// A share page is sandboxed, so its origin is nobody's: its own preview would be foreign to it under `same-origin`.
fn resource_policy(class: Class) -> &'static str {
    match class {
        Class::ShareDownload => "cross-origin",
        _ => "same-origin",
    }
}

/// Takes CORS fields out unless the request comes from the site itself.
fn close_cors(headers: &mut HeaderMap, origin: Option<&HeaderValue>, own_origin: bool) {
    let Some(allowed) = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN) else { return };
    if own_origin && origin == Some(allowed) {
        return;
    }
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        header::ACCESS_CONTROL_MAX_AGE,
    ] {
        headers.remove(name);
    }
}

fn secure_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<HeaderValue> = headers.get_all(header::SET_COOKIE).iter().map(secure).collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn secure(cookie: &HeaderValue) -> HeaderValue {
    let bytes = cookie.as_bytes();
    let is_secure = |part: &[u8]| part.trim_ascii().eq_ignore_ascii_case(b"secure");
    if bytes.split(|byte| *byte == b';').skip(1).any(is_secure) {
        return cookie.clone();
    }
    HeaderValue::from_bytes(&[bytes, b"; Secure"].concat()).unwrap_or_else(|_| cookie.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(class: Class) -> HeaderSet {
        let headers = Headers {
            csp: CspChoice::App,
            csp_observe: false,
            csp_report: false,
            nonce: None,
            hsts: Some(HeaderValue::from_static("max-age=31536000")),
            set: vec![],
        };
        let app_csp = "script-src {origin}/app.js";
        HeaderSet::build(Ingredients { class, headers: &headers, app_csp, origin: "https://a.test:8443" })
    }

    #[test]
    fn the_applications_own_copies_are_replaced() {
        let mut answer = HeaderMap::new();
        answer.append("content-security-policy", "default-src *".parse().unwrap());
        answer.append("content-security-policy", "img-src *".parse().unwrap());
        answer.append("x-frame-options", "ALLOWALL".parse().unwrap());
        set(Class::Page).apply(&mut answer, None, false);
        let all: Vec<_> = answer.get_all("content-security-policy").iter().collect();
        assert_eq!(all, ["script-src https://a.test:8443/app.js"]);
        assert_eq!(answer["x-frame-options"], "DENY");
        assert_eq!(answer["strict-transport-security"], "max-age=31536000");
    }

    #[test]
    fn a_sandboxed_share_page_may_show_its_own_preview() {
        for (class, policy) in [(Class::ShareDownload, "cross-origin"), (Class::Download, "same-origin")] {
            let mut answer = HeaderMap::new();
            set(class).apply(&mut answer, None, false);
            assert_eq!(answer["cross-origin-resource-policy"], policy, "{class}");
        }
    }

    #[test]
    fn cookies_become_secure_once_and_token_answers_are_not_stored() {
        let mut answer = HeaderMap::new();
        answer.append("set-cookie", "a=b; Path=/".parse().unwrap());
        answer.append("set-cookie", "c=d; secure; HttpOnly".parse().unwrap());
        answer.insert("cache-control", "public".parse().unwrap());
        set(Class::Login).apply(&mut answer, None, false);
        let all: Vec<_> = answer.get_all("set-cookie").iter().collect();
        assert_eq!(all, ["a=b; Path=/; Secure", "c=d; secure; HttpOnly"]);
        assert_eq!(answer["cache-control"], "no-store");
    }

    #[test]
    fn cors_is_closed_to_foreign_origins_and_to_everybody() {
        for (origin, own, kept) in [("https://evil.test", false, false), ("https://a.test:8443", true, true)]
        {
            let origin = HeaderValue::from_static(origin);
            let mut answer = HeaderMap::new();
            answer.insert("access-control-allow-origin", origin.clone());
            answer.insert("access-control-allow-credentials", "true".parse().unwrap());
            set(Class::Api).apply(&mut answer, Some(&origin), own);
            assert_eq!(answer.contains_key("access-control-allow-credentials"), kept);
        }
        let mut answer = HeaderMap::new();
        answer.insert("access-control-allow-origin", "*".parse().unwrap());
        set(Class::Api).apply(&mut answer, None, false);
        assert!(answer.get("access-control-allow-origin").is_none());
    }
}
