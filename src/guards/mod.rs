//! Guards: each is one struct with a pure check. They judge [`Facts`] and nothing else.

pub mod allowlist;
pub mod backchannel;
pub mod blocks;
pub mod browser;
pub mod counters;
pub mod headers;
pub mod login;
pub mod members;
pub mod pace;
pub mod rate;
pub mod secrets;
pub mod share;
pub mod size;
pub mod stripped;
pub mod tries;
pub mod values;
pub mod verify;

use std::time::Duration;

use http::StatusCode;

use crate::request::facts::Facts;

/// What a guard answers. There is no other answer: an error inside a guard is a denial.
#[must_use = "a verdict that nobody reads lets the request through"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing against it.
    Pass,
    /// It would be refused, but the guard only observes here: counted, let through.
    WouldDeny(Denial),
    /// Refused.
    Deny(Denial),
}

/// A refusal: which guard, why, and when to come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Metric label and log field.
    pub guard: &'static str,
    /// Why; fixes the status and the public text.
    pub reason: Reason,
    /// For 429.
    pub retry_after: Option<Duration>,
}

/// Why a request was refused: a closed list, the same word in log, metric, `explain` and test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The host is none of ours, or not the one of the TLS name.
    Misdirected,
    /// A `plain` listener serves trusted proxies only.
    UntrustedPeer,
    /// The site asks for a client certificate, and there is none.
    CertificateMissing,
    /// A client certificate is good, and has none of the names that the site allows.
    CertificateNotAllowed,
    /// A client of a trusted proxy has as many requests in flight as `limits.connections_per_client`.
    ClientFull,
    /// The client is in none of the class's networks.
    NotAllowlisted,
    /// A credential is blocked.
    TokenBlocked,
    /// A credential was logged out, or its person disabled or given another password.
    SessionEnded,
    /// An answer would hand out a token of a blocked session.
    AnswerBlocked,
    /// An answer that hands out tokens cannot be read while somebody is blocked.
    AnswerUnreadable,
    /// A token is forged, not yet good, or not this site's.
    TokenInvalid,
    /// A token has ended.
    TokenExpired,
    /// The keys that tokens are verified with could not be had yet.
    KeysUnavailable,
    /// Only those who are logged in may see it.
    NotMember,
    /// Nothing is served on the download host without a ticket that holds.
    NoTicket,
    /// The request was sent with more than a ticket can hold.
    TicketTooLarge,
    /// A logout token is forged, stale, replayed, or not for this site.
    LogoutRefused,
    /// It says to be a probe of the gateway's own, and is none.
    ProbeUnknown,
    /// The client's network is blocked.
    AddressBlocked,
    /// The share link is blocked.
    ShareBlocked,
    /// A page of another origin wants to run, frame or connect to what it must not.
    CrossOrigin,
    /// The announced or actual body is over the class's limit.
    BodyTooLarge,
    /// A value in path or query is none of those that the app file lets pass.
    ValueNotAllowed,
    /// The client's budget for the class is used up.
    RateLimited,
    /// Too many wrong passwords or secrets: of this client, or at this account.
    LockedOut,
    /// A login's body can be read in more ways than one, or in none.
    LoginUnreadable,
    /// A login's body did not come in time.
    LoginSlow,
    /// Too many bodies of logins are read at once: of this client, or of all.
    LoginsFull,
    /// The password is the one in the application's documents.
    DefaultPassword,
    /// Somebody else sets the application up just now.
    SetupBusy,
    /// The client or its network has asked for too many links that are none.
    LinksLocked,
    /// A page of another site embeds a link that nobody has opened lately.
    LinkEmbedded,
    /// Downloads of the link go one at a time, and too many wait; or a range of one that the client downloads already.
    LinkBusy,
}

impl Reason {
    /// The word in metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Misdirected => "misdirected",
            Self::UntrustedPeer => "untrusted_peer",
            Self::CertificateMissing => "certificate_missing",
            Self::CertificateNotAllowed => "certificate_not_allowed",
            Self::ClientFull => "connections_per_client",
            Self::NotAllowlisted => "not_allowlisted",
            Self::TokenBlocked => "token_blocked",
            Self::SessionEnded => "session_ended",
            Self::AnswerBlocked => "answer_blocked",
            Self::AnswerUnreadable => "answer_unreadable",
            Self::TokenInvalid => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::KeysUnavailable => "keys_unavailable",
            Self::NotMember => "not_member",
            Self::NoTicket => "no_ticket",
            Self::TicketTooLarge => "ticket_too_large",
            Self::LogoutRefused => "logout_refused",
            Self::ProbeUnknown => "probe_unknown",
            Self::AddressBlocked => "address_blocked",
            Self::ShareBlocked => "share_blocked",
            Self::CrossOrigin => "cross_origin",
            Self::BodyTooLarge => "body_too_large",
            Self::ValueNotAllowed => "value_not_allowed",
            Self::RateLimited => "rate_limited",
            Self::LockedOut => "locked_out",
            Self::LoginUnreadable => "login_unreadable",
            Self::LoginSlow => "login_slow",
            Self::LoginsFull => "logins_full",
            Self::DefaultPassword => "default_password",
            Self::SetupBusy => "setup_busy",
            Self::LinksLocked => "links_locked",
            Self::LinkEmbedded => "link_embedded",
            Self::LinkBusy => "link_busy",
        }
    }

    /// The status of the answer (DESIGN 4).
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::NotAllowlisted | Self::ShareBlocked | Self::NoTicket => StatusCode::NOT_FOUND,
            Self::TokenBlocked
            | Self::SessionEnded
            | Self::AnswerBlocked
            | Self::AnswerUnreadable
            | Self::TokenInvalid
            | Self::TokenExpired
            | Self::DefaultPassword
            | Self::NotMember => StatusCode::UNAUTHORIZED,
            Self::TicketTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::AddressBlocked | Self::CrossOrigin | Self::UntrustedPeer | Self::LinkEmbedded => {
                StatusCode::FORBIDDEN
            }
            Self::CertificateMissing | Self::CertificateNotAllowed => StatusCode::FORBIDDEN,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // Not 503: a proxy in front would take the gateway for down, for all of its clients.
            Self::RateLimited
            | Self::ClientFull
            | Self::LockedOut
            | Self::LoginsFull
            | Self::SetupBusy
            | Self::LinksLocked
            | Self::LinkBusy => StatusCode::TOO_MANY_REQUESTS,
            Self::LoginUnreadable | Self::ValueNotAllowed | Self::LogoutRefused | Self::ProbeUnknown => {
                StatusCode::BAD_REQUEST
            }
            Self::LoginSlow => StatusCode::REQUEST_TIMEOUT,
            Self::KeysUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Denial {
    /// A denial without a time to come again.
    pub const fn new(guard: &'static str, reason: Reason) -> Self {
        Self { guard, reason, retry_after: None }
    }
}

/// A guard: a pure, immediate check of facts.
pub trait Guard {
    /// Metric label and log field.
    const NAME: &'static str;
    /// Judges.
    fn check(&self, cx: &Facts) -> Verdict;
}

/// A guard that is not configured for a route passes.
impl<G: Guard> Guard for Option<G> {
    const NAME: &'static str = G::NAME;

    fn check(&self, cx: &Facts) -> Verdict {
        self.as_ref().map_or(Verdict::Pass, |guard| guard.check(cx))
    }
}
