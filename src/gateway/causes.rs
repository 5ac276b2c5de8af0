//! What each reason means and what an operator does about it: the full face of what a stranger is told in one line.

use crate::guards::Reason;
use crate::request::facts::Malformed;

/// The operator's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// What it means.
    pub cause: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

const fn told(cause: &'static str, remedy: &'static str) -> Told {
    Told { cause, remedy }
}

/// Of a request that was no request.
pub const fn malformed(why: Malformed) -> Told {
    const BROKEN: &str =
        "no browser sends this; if a program of yours does, mend it there. Nothing in the config admits it";
    match why {
        Malformed::RequestLine => told("the first line is no request line of HTTP/1.1", BROKEN),
        Malformed::Version => told(
            "the version is neither HTTP/1.0 nor HTTP/1.1",
            "a program that speaks another protocol talks to this port; look at its address and port",
        ),
        Malformed::Method => told(
            "CONNECT, TRACE, or a method whose name is no token",
            "the gateway is no forward proxy: take it out of the client's proxy settings. Debuggers that want TRACE go to the application itself",
        ),
        Malformed::Target => told(
            "the target is neither a path nor an absolute URL of ours, or has a fragment or user-info in it",
            BROKEN,
        ),
        Malformed::Path => told(
            "the path can be read in more ways than one: %2F, %5C, %00, a control character, or an escape that is none",
            "if the application needs `%2F` in a path, write a [[site.route]] for it with encoded_slash = \"keep\"; not where a class restricts access",
        ),
        Malformed::LineEnding => told("a line ends in a lone CR or LF, is folded, or holds NUL", BROKEN),
        Malformed::HeaderName => told("a header's name is no token, or has blanks around it", BROKEN),
        Malformed::HeaderValue => told("a header's value holds a control character", BROKEN),
        Malformed::TooManyHeaders => told(
            "more header fields than any browser sends (128)",
            "look which program adds them: cookies in many fields, or a proxy in front",
        ),
        Malformed::HeadTooLarge => told(
            "the head is larger than limits.request_head",
            "cookies have piled up in that browser: delete the site's cookies; or raise limits.request_head",
        ),
        Malformed::Host => told(
            "the Host is missing, stands twice, or is no host name",
            "scanners do this; a program of yours must send one Host that is in the site's `hosts`",
        ),
        Malformed::ContentLength => {
            told("Content-Length is no single plain number, or stands beside Transfer-Encoding", BROKEN)
        }
        Malformed::TransferEncoding => {
            told("Transfer-Encoding is something other than one `chunked` in HTTP/1.1", BROKEN)
        }
        Malformed::Chunk => told("a chunk breaks the grammar, or a trailer has no business there", BROKEN),
        Malformed::Upgrade => told(
            "an upgrade to something other than a WebSocket, or one with a body",
            "h2c upgrades are not taken: HTTP/2 is agreed in the TLS handshake",
        ),
        Malformed::Expect => told("an `Expect` other than 100-continue", BROKEN),
        Malformed::Credentials => told(
            "two credentials of one kind that differ, more than 16, or a token in a spelling that some decoder forgives",
            "a browser with an old cookie beside a new one: delete the site's cookies. A proxy in front that adds an Authorization of its own must replace the client's",
        ),
    }
}

const LOCKED_OUT: Told = told(
    "too many wrong passwords, refresh tokens or joining secrets lately: of this client, or at this account over all clients",
    "it ends by itself (Retry-After says when); `portcullis unlock client ADDRESS` or `portcullis unlock account NAME` ends it now. Devices that have logged in before are not locked out with an account; [site.login_guard] sets the numbers",
);
const LOGIN_UNREADABLE: Told = told(
    "a login can be read in two ways, or in none: a key twice, in another case or as a list (`email[]`), another account in the query, an account that is no text, a compressed body, a charset that is not UTF-8, Basic credentials that nobody can read, or text that is neither JSON nor a form",
    "a program of yours must send the fields that the app file's [login] names, each once, as JSON or a form in UTF-8, and none of them in the query. The application has not heard of it, and nothing was counted",
);
const LOGIN_SLOW: Told = told(
    "the body of a login did not come within ten seconds",
    "the client's line is slow, or it is an attack that holds connections; a person tries again",
);
const LOGINS_FULL: Told = told(
    "too many bodies of logins are being read at once, of this client or of all",
    "a second later there is room. If it lasts, somebody sends many logins slowly: `portcullis denials` shows who, `portcullis block address` stops him",
);
const DEFAULT_PASSWORD: Told = told(
    "the password is the one that the application's own documents name, and it was tried from outside",
    "CHANGE IT if it is still good: log in from this machine, or from where `portcullis allow setup --from ADDRESS --for 15m` allows it, and set another",
);
const SETUP_BUSY: Told = told(
    "somebody else sets the application up just now: one at a time, so that there is one administrator",
    "if that was not you, look at the application's accounts; else try again in a few seconds",
);

/// Of a refusal by a guard.
#[expect(clippy::too_many_lines, reason = "a table: an entry for each reason")]
pub const fn denied(reason: Reason) -> Told {
    match reason {
        Reason::Misdirected => told(
            "the host is in no site's `hosts`, or it is of another site than the name in the TLS handshake (SNI), or there was no such name; or the handshake was made under other rules for client certificates than the site's",
            "add the host to the site's `hosts` if it is yours. Behind a proxy that speaks TLS to the gateway: let it send SNI, and the same name as Host",
        ),
        Reason::UntrustedPeer => told(
            "a `plain` listener serves trusted proxies only, and the peer is none",
            "add the proxy's address to listen.trusted_proxies, or let the client come by https",
        ),
        Reason::CertificateMissing => told(
            "the site asks for a client certificate, and none was shown: over TLS the handshake fails, and on a `plain` listener nobody can show one",
            "let these clients come to listen.https, or write mode = \"optional\" in [site.client_certificates]",
        ),
        Reason::CertificateNotAllowed => told(
            "the client's certificate is good, and has none of the names in `allowed` of [site.client_certificates]",
            "add its common name or one of its alternative names to `allowed`; the access log names it as `certificate`",
        ),
        Reason::ClientFull => told(
            "the client, behind a trusted proxy, has as many requests in flight as limits.connections_per_client",
            "a program of yours that asks so much at once can ask less; many people behind one address want a higher limits.connections_per_client",
        ),
        Reason::NotAllowlisted => told(
            "the client is in none of the networks that this class is open to; classes health, metrics, docs and setup are open to this machine only",
            "add its network to [site.only_from]; for a first run `portcullis allow setup --from ADDRESS --for 15m`. A client `unknown` is in no network: see listen.trusted_proxies",
        ),
        Reason::TokenBlocked => told(
            "a credential of the request is blocked, by itself, by its subject, or with everyone's",
            "`portcullis blocks` lists the blocks, `portcullis unblock NUMBER` lifts one",
        ),
        Reason::SessionEnded => told(
            "the session was ended by its owner's logout, or because an administrator disabled the person or a password was changed",
            "its owner logs in again. If that was not so, `portcullis blocks` shows what was learned, `unblock NUMBER` lifts it, and `learn = \"off\"` in the [[site]] ends the learning",
        ),
        Reason::AnswerBlocked => told(
            "the application answered a login or refresh with a token of a blocked session; the answer was withheld",
            "`portcullis blocks` lists the blocks. With `--and-logins` that person cannot log in either; without it a login anew works, and only what comes of an old session is refused",
        ),
        Reason::AnswerUnreadable => told(
            "the application answered a login or refresh in a way that cannot be read (over 64 KiB, an unknown Content-Encoding, a token that is malformed), while a person or everyone is blocked on the site",
            "let the application answer logins uncompressed; or lift the block (`portcullis blocks`, `unblock NUMBER`): without one such answers pass",
        ),
        Reason::TokenInvalid => told(
            "a token is signed by another key, changed, of another algorithm, not yet good, or its claims are not what [site.tokens] asks for",
            "if it is the application's own, compare verify, issuer, audience and claims of [site.tokens] with the application's settings",
        ),
        Reason::TokenExpired => told(
            "a token has ended",
            "nothing: its owner logs in again. If all tokens are refused compare the clocks of both machines",
        ),
        Reason::KeysUnavailable => told(
            "the keys that tokens are verified with could not be had yet",
            "`portcullis status` says why; is the address in [site.tokens] verify right, and does it answer?",
        ),
        Reason::NotMember => told(
            "previews are for members (previews = \"members\"), and the request has neither a companion cookie nor a verified token",
            "whoever is logged in gets the cookie with the next login; for programs add `verify` to [site.tokens]",
        ),
        Reason::NoTicket => told(
            "the download host serves only what the site has sent a browser for: there was no ticket, it is older than 60 s, or it is for something else",
            "open the download again on the site itself; links to the download host cannot be kept or passed on",
        ),
        Reason::TicketTooLarge => told(
            "the browser's cookies and its Authorization are more than a ticket holds (8 KiB)",
            "cookies have piled up in that browser: delete the site's cookies",
        ),
        Reason::LogoutRefused => told(
            "an order to log somebody out was no valid logout token of this site's identity provider, or a replayed one",
            "the line `failure` says what was wrong with it. If it is your provider's, compare backchannel_logout of [site.tokens] with the provider's settings, and the clocks of both machines",
        ),
        Reason::ProbeUnknown => told(
            "the request carries the field of the gateway's own probes (`block --verify`) and is none of them",
            "nothing; if it came of a `block --verify`, that took too long, and may be said again",
        ),
        Reason::AddressBlocked => told(
            "the client's network is blocked",
            "`portcullis blocks` lists the blocks, `portcullis unblock NUMBER` lifts one",
        ),
        Reason::ShareBlocked => told(
            "the share link is blocked",
            "`portcullis blocks` lists the blocks, `portcullis unblock NUMBER` lifts one",
        ),
        Reason::CrossOrigin => told(
            "a page of another site wants to open a WebSocket, to run an upload as a script, style or plug-in, or posts, shows or fetches a login, a refresh, the form of a first run or the like in its visitor's name",
            "that is what the guard is for; nothing was counted. If the page is your own, serve it from the site's host: Sec-Fetch-Site must be same-origin, or the Origin the site's",
        ),
        Reason::BodyTooLarge => told(
            "the announced body is over the limit of the class",
            "raise [site.limits] body or upload_body, or let a [[site.route]] give the path the class `upload`",
        ),
        Reason::RateLimited => told(
            "the client has used up its budget for the class; many people behind one address share one",
            "it refills by itself. [site.rate.CLASS] sets refill and burst; `observe = [\"rate\"]` on a route only counts",
        ),
        Reason::LockedOut => LOCKED_OUT,
        Reason::LoginUnreadable => LOGIN_UNREADABLE,
        Reason::LoginSlow => LOGIN_SLOW,
        Reason::LoginsFull => LOGINS_FULL,
        Reason::DefaultPassword => DEFAULT_PASSWORD,
        Reason::SetupBusy => SETUP_BUSY,
        Reason::ValueNotAllowed => told(
            "a value in path or query, such as the size of a picture, is none of those that the app file lets pass: each may cost the application seconds of work and a file",
            "if your pages need it, copy the app file (`portcullis apps NAME`), add the value to its [[limit]] and name your copy in `app`",
        ),
        Reason::LinksLocked => told(
            "the client, or its network, has asked for too many share links that are none, and is locked out for a while, but for links that have answered lately; or too many passwords of this link were wrong, or are being tried at once",
            "it ends by itself, the audit log has its length. Where many people behind one address try old links raise misses or network_misses in [site.share_guard]",
        ),
        Reason::LinkEmbedded => told(
            "a page of another site has a share link as an image, a frame or the like, and nobody has opened that link lately",
            "who opens the link itself is let in, and for an hour from then pages may embed it; `observe = [\"share\"]` on a route only counts",
        ),
        Reason::LinkBusy => told(
            "downloads of this link go to the application one at a time, so that it counts them right, and too many wait or one took longer than 10 s; or the client asks for a part of a file that it is downloading",
            "nothing: who comes again in a few seconds has a turn. The app file says in [share] which links these are",
        ),
    }
}

/// Of an answer that is ours because the application gave none: by its status.
pub const fn failed(status: u16) -> Told {
    match status {
        502 => told(
            "the application could not be reached, or broke the rules of HTTP",
            "is it running, and does it listen where `upstream` says? `portcullis status` and the application's own log tell more",
        ),
        504 => told(
            "the application took the request and did not answer in time",
            "look at the application: a database that hangs, a disk that is full",
        ),
        413 => told(
            "the body passed the limit of the class on its way",
            "raise [site.limits] body or upload_body, or let a [[site.route]] give the path the class `upload`",
        ),
        503 => told("the gateway is stopping, or short of something", "`portcullis status` says which"),
        _ => told("the client left, or broke its body off", "nothing on this side"),
    }
}
