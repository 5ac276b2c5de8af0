//! App files: what an application's routes are, where its tokens travel, and how it answers (DESIGN 2).

use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};

use super::bound::Bound;
use super::class::Class;
use super::path_pattern::PathPattern;
use super::settings::ClassMap;
use super::share::AppShare;
use super::values::{ByteSize, Rate};

/// An application, as an app file describes it; validated.
#[derive(Debug, Clone)]
pub struct App {
    /// The word that `app = "…"` names, e.g. `keepstack`.
    pub name: Box<str>,
    /// For people, e.g. `Keepstack`.
    pub title: Box<str>,
    /// The class of what no route lists.
    pub default_class: Class,
    /// The routes.
    pub routes: Vec<AppRoute>,
    /// Answers 2xx or 3xx while the application serves, without a login.
    pub health_path: Option<PathAndQuery>,
    /// Where tokens travel, and what they are.
    pub tokens: Tokens,
    /// How a login names its account and hands out its token, where the app file says so.
    pub login: Option<Login>,
    /// What else its answers teach.
    pub teaches: Teaches,
    /// The Content-Security-Policy by class; `{origin}` stands for scheme, host and public port.
    pub csp: ClassMap<Box<str>>,
    /// Other sets of policies, by the word in `csp = "app:strict"`; each is whole.
    pub csp_variants: Vec<(Box<str>, ClassMap<Box<str>>)>,
    /// Reports of violations that mean nothing: known, and no reason to change a policy.
    pub csp_harmless: Vec<(Class, Harmless)>,
    /// Bodies of denials in the application's own shape, by status; others get problem+json or a page.
    pub denials: Vec<DenialBody>,
    /// Statuses whose answers are replaced by a denial's body: the application's own says too much.
    pub replace: Vec<(Class, StatusCode)>,
    /// Rates of the application's classes, over the gateway's defaults.
    pub rate: Vec<(Class, Rate)>,
    /// Largest bodies of the application's classes, over the gateway's defaults.
    pub body: Vec<(Class, ByteSize)>,
    /// What it says of share links.
    pub share: AppShare,
    /// Values of requests of which only some pass.
    pub bounds: Vec<Bound>,
}

/// A report of a violation that means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harmless {
    /// The directive that was broken.
    pub directive: Box<str>,
    /// What it did not allow: `inline`, `eval`, `wasm-eval`, `data`, `blob`, or an origin.
    pub what: Box<str>,
}

/// One route of an app file.
#[derive(Debug, Clone)]
pub struct AppRoute {
    /// Only this method; `None`: all. Never set for a class that restricts.
    pub method: Option<Method>,
    /// Which paths.
    pub pattern: PathPattern,
    /// What they are.
    pub class: Class,
    /// Another port of the application, on the host of the site's upstream.
    pub port: Option<u16>,
    /// A rate of its own, in place of its class's.
    pub rate: Option<Rate>,
}

impl App {
    /// The policies of a variant.
    pub fn variant(&self, name: &str) -> Option<&ClassMap<Box<str>>> {
        self.csp_variants.iter().find(|(known, _)| **known == *name).map(|(_, policies)| policies)
    }

    /// What a path is, as one of its views spells it (DESIGN 4.3: ask for each view, the strictest answer counts).
    pub fn class_of(&self, method: &Method, path: &str) -> Class {
        self.route_of(method, path).map_or(self.default_class, |route| route.class)
    }

    /// The route of a path: see [`precedence`].
    pub fn route_of(&self, method: &Method, path: &str) -> Option<&AppRoute> {
        self.routes
            .iter()
            .filter(|route| takes(route.method.as_ref(), method) && route.pattern.matches(path))
            .max_by_key(|route| precedence(route.class, &route.pattern))
    }
}

/// Which of several routes that match one spelling of a path counts: a class that restricts before all others, so that
/// no wide or careless pattern opens what another closes; then the most specific pattern, so that `/api/v1/ws` is
/// `live` below an `/api/*` of class `api`; then the stricter class.
pub(crate) fn precedence(class: Class, pattern: &PathPattern) -> (u8, (usize, usize, bool), u8) {
    let closed = if class.restricts() { class.strictness() } else { 0 };
    (closed, pattern.specificity(), class.strictness())
}

/// Whether a route of this method takes a request of that one: frameworks answer HEAD with their GET route.
pub(crate) fn takes(route: Option<&Method>, request: &Method) -> bool {
    route.is_none_or(|method| method == request || (method == Method::GET && request == Method::HEAD))
}

/// Where an application's tokens travel, and what they are.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// What a token looks like.
    pub format: TokenFormat,
    /// Every place where the application looks for one.
    pub carriers: Vec<Carrier>,
    /// The refresh cookie's name, where there is one: an opaque token of its own.
    pub refresh_cookie: Option<Box<str>>,
    /// The claim that says the account's name, as people type it at the login.
    pub account_claim: Option<Box<str>>,
    /// The issuer of the application's tokens, where it names one.
    pub issuer: Option<Box<str>>,
    /// How long an access token lives.
    pub lifetime: Duration,
    /// How long a refresh token lives; zero where there is none.
    pub refresh_lifetime: Duration,
}

/// How a login names its account and hands out its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The field of the request's body, JSON or form, that names the account; `None`: only the token's claim does.
    pub account: Option<Box<str>>,
    /// The field of the request's body that has the password.
    pub password: Box<str>,
    /// Account and password as the application's documents name them.
    pub default_passwords: Vec<(Box<str>, Box<str>)>,
    /// The field of the answer's JSON that has the token, with dots between names: `data.access_token`.
    pub token: Box<str>,
}

/// What an application's answers teach beside who has logged in. Only what it has verified itself may stand here: an
/// application that answers 2xx to anybody would let anybody be blocked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Teaches {
    /// The place of the credential that a logout has ended when it answers 2xx: Bearer or a cookie.
    pub logout: Option<Carrier>,
    /// Requests after which somebody's sessions must end.
    pub actions: Vec<Action>,
}

/// A request after which the sessions of a person must end, if it is answered 2xx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The method.
    pub method: Method,
    /// The path; its first `{…}` is the subject. Without one it is whoever asks, whose own session goes on.
    pub pattern: PathPattern,
    /// Fields of the body, one of which must be so; empty: always.
    pub when: Vec<(Box<str>, Changed)>,
}

/// What a field of a request's body must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// There, and not empty.
    Given,
    /// This flag; 0 and 1 are flags too.
    Flag(bool),
}

/// What a token looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFormat {
    /// `header.payload.signature`, RFC 7519.
    Jwt,
    /// `base64url(json).base64url(hmac)`: Keepstack's.
    HmacPair,
    /// Anything else: the whole of it counts.
    Opaque,
}

/// A place where tokens travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// `Authorization: Bearer …`, the scheme in any case.
    Bearer,
    /// The password of `Authorization: Basic …`.
    Basic,
    /// A cookie of this name.
    Cookie(Box<str>),
    /// A query parameter of this name.
    Query(Box<str>),
    /// An entry of `Sec-WebSocket-Protocol`.
    Subprotocol,
}

/// The body of a denial in the application's own shape.
#[derive(Debug, Clone)]
pub struct DenialBody {
    /// For this status.
    pub status: StatusCode,
    /// Content-Type.
    pub content_type: HeaderValue,
    /// The body as sent.
    pub body: Box<str>,
}
