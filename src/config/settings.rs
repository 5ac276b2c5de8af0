//! Settings: the config after validation. Typed, complete, nothing left to interpret, no `Option` that means "default".

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;

use super::acme::{Acme, CertificateFrom};
use super::app::{self, App};
use super::class::Class;
pub use super::class_map::ClassMap;
use super::cluster::Cluster;
use super::csp::COLLECTOR;
pub use super::file_block::{FileBlock, FileWhat};
pub use super::header_settings::{CspChoice, Headers, NonceWord};
pub use super::login_guard::LoginGuard;
use super::path_pattern::PathPattern;
use super::share::ShareRules;
pub use super::upstream::Upstream;
use super::values::{ByteSize, HostPattern, Networks, Rate};
use super::verification::Verification;

/// The whole config.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The config file, absolute.
    pub path: PathBuf,
    /// Every file that was read or is to be watched: config, app files, certificates, keys, block file.
    pub files: Vec<PathBuf>,
    /// Sockets of the public side.
    pub listen: Listen,
    /// TLS of the public side.
    pub tls: Tls,
    /// Certificates by themselves.
    pub acme: Option<Acme>,
    /// From where each host of the sites gets its certificate.
    pub certificates_from: Vec<(HostPattern, CertificateFrom)>,
    /// The operator's side.
    pub admin: Admin,
    /// Directory of the state, absolute.
    pub state_dir: PathBuf,
    /// Logs.
    pub log: Log,
    /// Bounds of the gateway.
    pub limits: Limits,
    /// The block list kept as a file; `None`: there is none, or it says nothing, which lifts no block.
    pub blocks: Option<Vec<FileBlock>>,
    /// The sites, at least one.
    pub sites: Vec<Site>,
    /// Names whose TLS is not ended here.
    pub passthroughs: Vec<super::passthrough::Passthrough>,
}

/// `[listen]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// TLS.
    pub https: Vec<SocketAddr>,
    /// Redirect to https.
    pub http: Vec<SocketAddr>,
    /// HTTP behind another proxy that ends TLS: served only to `trusted_proxies`.
    pub plain: Vec<SocketAddr>,
    /// The port that redirects, CSP origins and tickets name.
    pub public_port: u16,
    /// Whose forwarding headers are believed.
    pub trusted_proxies: Networks,
    /// Whether connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// What a TLS client gets that names no site of ours.
    pub unknown_sni: UnknownSni,
}

/// `listen.unknown_sni`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownSni {
    /// The handshake fails.
    Refuse,
    /// A throw-away certificate and 421 with all headers.
    Misdirected,
}

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// TLS 1.2 is served too.
    pub tls12: bool,
    /// Certificate and key files, absolute.
    pub certificates: Vec<CertificateFiles>,
    /// Own throw-away CA for hosts that have no certificate.
    pub self_signed: bool,
}

/// One entry of `tls.certificates`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// PEM, leaf first.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The CLI's Unix socket, absolute.
    pub socket: PathBuf,
    /// `/metrics`, `/livez`, `/readyz` of the gateway itself; `None` is `off`.
    pub metrics: Option<SocketAddr>,
    /// Who may read them.
    pub metrics_only_from: Networks,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Where the access log goes.
    pub access: LogTarget,
    /// In what form.
    pub format: LogFormat,
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// Appended to a file, absolute.
    File(PathBuf),
}

/// The form of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line; on a terminal a line for people.
    Json,
    /// Apache's combined format.
    Combined,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, all together.
    pub connections: usize,
    /// Open connections of one client (IPv6: one /64); behind a trusted proxy, requests in flight.
    pub connections_per_client: usize,
    /// Bytes of a request head.
    pub request_head: ByteSize,
    /// From accept to the first whole request head, handshake included.
    pub head_timeout: Duration,
    /// Between two requests of a connection, and for a peer that takes nothing.
    pub idle_timeout: Duration,
    /// What a client that owes bytes must send at least.
    pub min_rate: MinRate,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Keys that the rate limits may hold, all together.
    pub limiter_keys: usize,
}

/// `limits.min_rate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes.
    pub bytes: ByteSize,
    /// In every stretch of this length.
    pub per: Duration,
}

/// `[[site]]`.
#[derive(Debug, Clone)]
pub struct Site {
    /// Names; the first one is the site's name in metrics, logs and blocks.
    pub hosts: Vec<HostPattern>,
    /// Names that only redirect to the first host.
    pub redirect_hosts: Vec<HostPattern>,
    /// Where downloads are served, if not on the main host.
    pub download_host: Option<HostPattern>,
    /// The application's routes, tokens, policies and answers.
    pub app: Arc<App>,
    /// Where requests go.
    pub upstream: Cluster,
    /// What browsers see while no upstream can be reached.
    pub maintenance: Option<Bytes>,
    /// Judge only, for all guards that can be observed.
    pub observe: bool,
    /// What the application's answers teach becomes blocks.
    pub learn: bool,
    /// Who may reach a class; a class that restricts and is not named here is open to loopback only.
    pub only_from: Vec<(Class, Networks)>,
    /// Rate per class; the site's own over the app file's over the defaults.
    pub rate: Vec<(Class, Rate)>,
    /// What is forgiven those who ask for share links.
    pub share_guard: ShareRules,
    /// Largest body of a request per class, all classes.
    pub body: ClassMap<ByteSize>,
    /// What counts wrong passwords.
    pub login_guard: LoginGuard,
    /// Headers of answers.
    pub headers: Headers,
    /// Lifetime of access tokens.
    pub token_lifetime: Duration,
    /// Lifetime of refresh tokens, zero where the application has none.
    pub refresh_lifetime: Duration,
    /// Additions and overrides of the app file's routes, stronger than those.
    pub routes: Vec<SiteRoute>,
    /// How tokens are verified; `None`: the application alone does.
    pub verification: Option<Verification>,
    /// A seen login gives the browser a cookie that stands for its token.
    pub companion_cookie: bool,
    /// Class `preview` is for those who have that cookie or a verified token only.
    pub members_only: bool,
    /// Whose orders to log out are obeyed.
    pub backchannel: Option<Verification>,
    /// Who must show a certificate in the handshake; `None`: nobody is asked.
    pub client_certificates: Option<super::client_certificates::ClientCertificates>,
}

/// `[[site.route]]`.
#[derive(Debug, Clone)]
pub struct SiteRoute {
    /// Only this method; `None`: all.
    pub method: Option<Method>,
    /// Which paths.
    pub pattern: PathPattern,
    /// What they are.
    pub class: Class,
    /// Another port of the same application.
    pub upstream: Option<Cluster>,
    /// Guards that only observe here.
    pub observe: Observed,
    /// `%2F` passes as it is.
    pub keep_encoded_slash: bool,
}

/// Guards that judge and count, and let pass. Blocks, malformed requests, and allowlists of classes that are closed by
/// default are not among them: those always enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observed {
    /// The allowlist of a class that is open by default.
    pub allowlist: bool,
    /// Whether tokens are true.
    pub verify: bool,
    /// Who may see previews.
    pub members: bool,
    /// What browsers may do.
    pub browser: bool,
    /// How large a body may be.
    pub size: bool,
    /// Which values pass.
    pub values: bool,
    /// How often.
    pub rate: bool,
    /// How often in vain: logins and other secrets.
    pub login: bool,
    /// How often a share link may be none.
    pub share: bool,
}

impl Observed {
    /// What only observes on a route of this class: all that may under `mode = "observe"`, else what the route names.
    pub fn of(site: &Site, class: Class, route: Option<&SiteRoute>) -> Self {
        let named = route.map(|route| route.observe).unwrap_or_default();
        let all = site.observe;
        Self {
            allowlist: (all || named.allowlist) && !class.restricts(),
            verify: all || named.verify,
            members: all || named.members,
            browser: all || named.browser,
            size: all || named.size,
            values: all || named.values,
            rate: all || named.rate,
            login: all || named.login,
            share: all || named.share,
        }
    }
}

impl Site {
    /// The app file's Content-Security-Policy of a class, in the variant that is chosen.
    pub fn app_csp(&self, class: Class) -> &str {
        let variant = match &self.headers.csp {
            CspChoice::Variant(name) => self.app.variant(name),
            _ => None,
        };
        variant.unwrap_or(&self.app.csp).get(class)
    }

    /// Browsers are asked to report to the gateway, by the config or by a policy that names its collector.
    pub fn takes_reports(&self) -> bool {
        let named = match &self.headers.csp {
            CspChoice::Own(policy) => policy.contains(COLLECTOR),
            CspChoice::Off => return false,
            _ => Class::ALL.iter().any(|class| self.app_csp(*class).contains(COLLECTOR)),
        };
        self.headers.csp_report || named
    }

    /// Who may reach a class; `None`: everybody.
    pub fn allowed(&self, class: Class) -> Option<Networks> {
        let own = self.only_from.iter().find(|(named, _)| *named == class);
        own.map(|(_, networks)| networks.clone()).or_else(|| class.restricts().then(Networks::loopback))
    }

    /// What a path is, as one of its views spells it: the site's own route, where it is at least as specific as the
    /// app file's, else the stricter of both. A site route of `/*` must not open what the app file closes.
    pub fn class_of(&self, method: &Method, path: &str) -> (Class, Option<&SiteRoute>) {
        let theirs = self.app.route_of(method, path);
        let class = theirs.map_or(self.app.default_class, |route| route.class);
        let Some(own) = self.route_of(method, path) else { return (class, None) };
        let weaker = theirs.is_some_and(|theirs| {
            theirs.pattern.specificity() > own.pattern.specificity()
                && theirs.class.strictness() > own.class.strictness()
        });
        if weaker { (class, None) } else { (own.class, Some(own)) }
    }

    /// Every upstream that its requests may go to, each once.
    pub fn upstreams(&self) -> Vec<Upstream> {
        let ports =
            self.app.routes.iter().filter_map(|route| route.port).map(|port| self.upstream.at_port(port));
        let own = self.routes.iter().filter_map(|route| route.upstream.clone());
        let mut all: Vec<Upstream> = Vec::new();
        for cluster in std::iter::once(self.upstream.clone()).chain(ports).chain(own) {
            for upstream in cluster.members() {
                if !all.contains(upstream) {
                    all.push(upstream.clone());
                }
            }
        }
        all
    }

    /// The site's own route of a path, chosen as among an app file's.
    pub fn route_of(&self, method: &Method, path: &str) -> Option<&SiteRoute> {
        self.routes
            .iter()
            .filter(|route| app::takes(route.method.as_ref(), method) && route.pattern.matches(path))
            .max_by_key(|route| app::precedence(route.class, &route.pattern))
    }

    /// The site's name in metrics, logs and blocks: its first host.
    pub fn name(&self) -> String {
        self.hosts.first().map(ToString::to_string).unwrap_or_default()
    }
}
