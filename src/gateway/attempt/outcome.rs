//! What an answer says of a try: whether the application let him in.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::config::app::Carrier;
use crate::gateway::held::hold;
use crate::guards::counters::Outcome;
use crate::guards::tries::Kind;
use crate::request::body::Body;
use crate::request::carriers::set_cookie;
use crate::request::tokens_in::{is_deleting, token_of};

/// What an answer has come to.
#[derive(Debug)]
pub struct Meant {
    /// Whether it let him in.
    pub outcome: Outcome,
    /// The token that it hands out, where the app file says where to look.
    pub token: Option<String>,
}

impl Meant {
    fn only(outcome: Outcome) -> Self {
        Self { outcome, token: None }
    }
}

/// Of an answer to a try at something else than a login.
pub fn of_status(kind: Kind, status: StatusCode) -> Outcome {
    match (kind, status.as_u16()) {
        (_, 401) => Outcome::Failure,
        (Kind::Refresh | Kind::Enroll, 403) => Outcome::Failure,
        // OAuth's `invalid_grant`, and what cannot be read.
        (Kind::Refresh | Kind::Enroll, 400 | 422) => Outcome::Failure,
        // Nobody knows this secret.
        (Kind::Enroll, 404 | 410) => Outcome::Failure,
        _ if status.is_success() => Outcome::Success,
        _ => Outcome::Neutral,
    }
}

/// Names under which applications hand out tokens that nobody has described.
const USUAL: [&str; 8] = [
    "token",
    "access_token",
    "accessToken",
    "jwt",
    "session_id",
    "sessionId",
    "data.token",
    "data.access_token",
];

/// What an answer to a login is read by.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// Where the app file says that the token is.
    pub token: Option<&'a str>,
    /// Where tokens travel.
    pub carriers: &'a [Carrier],
    /// Whether a path is one of class login.
    pub is_login: &'a dyn Fn(&str) -> bool,
    /// The site's authority, as the request names it.
    pub authority: &'a str,
    /// The request's path.
    pub path: &'a str,
    /// The path that it says it came from; `None`: it does not say so plainly.
    pub from: Option<&'a str>,
    /// It brings one of the application's cookies for tokens.
    pub brings: bool,
}

/// Of an answer to a login. It is read for its token, and goes on as it was.
///
/// # Errors
/// When it breaks off: nothing of it is left.
pub async fn of_login(answer: Response<Body>, asked: Asked<'_>) -> Result<(Response<Body>, Meant), Broken> {
    let (status, headers) = (answer.status(), answer.headers());
    let outcome = match status {
        _ if status.is_success() => return succeeded(answer, asked).await,
        _ if status.is_redirection() => redirected(status, headers, asked),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Outcome::Neutral,
        _ if status.is_client_error() => Outcome::Failure,
        _ => Outcome::Neutral,
    };
    Ok((answer, Meant::only(outcome)))
}

/// The answer broke off before all of it was there.
#[derive(Debug)]
pub struct Broken;

/// Where it is known what a login hands out, only that is a success. What cannot be read may be one.
async fn succeeded(answer: Response<Body>, asked: Asked<'_>) -> Result<(Response<Body>, Meant), Broken> {
    if let Some(outcome) = page(answer.headers()).filter(|_| asked.token.is_none()) {
        return Ok((answer, Meant::only(outcome)));
    }
    let (head, body) = answer.into_parts();
    let held = hold(body).await.ok_or(Broken)?;
    let meant = match asked.token {
        Some(path) => {
            let token = |text: &str| !text.trim().is_empty();
            let read = held.read(&head.headers);
            let read = read.map(|text| token_of(&text, path).filter(|text| token(text)));
            let outcome = match &read {
                None => Outcome::Unclear,
                Some(None) => Outcome::Failure,
                Some(Some(_)) => Outcome::Success,
            };
            Meant { outcome, token: read.flatten() }
        }
        None => {
            let read = held.read(&head.headers).unwrap_or_default();
            let named =
                || USUAL.iter().any(|name| token_of(&read, name).is_some_and(|text| !text.is_empty()));
            // Some give a cookie to whoever brings none.
            let sets = || asked.brings && sets_a_token(&head.headers, asked.carriers);
            let hands = sets() || named();
            Meant::only(if hands { Outcome::Success } else { Outcome::Unclear })
        }
    };
    Ok((Response::from_parts(head, held.into_body()), meant))
}

/// A page is the form again; if it sets a cookie, it may be the first one inside: most applications send on to that.
fn page(headers: &HeaderMap) -> Option<Outcome> {
    let kind = headers.get(header::CONTENT_TYPE)?.as_bytes();
    let may_be_inside = headers.contains_key(header::SET_COOKIE);
    let outcome = if may_be_inside { Outcome::Unclear } else { Outcome::Failure };
    kind.to_ascii_lowercase().starts_with(b"text/html").then_some(outcome)
}

/// One of the application's cookies for tokens. What else an answer says could be a stranger's word that it repeats.
fn sets_a_token(headers: &HeaderMap, carriers: &[Carrier]) -> bool {
    let names = carriers.iter().filter_map(|carrier| match carrier {
        Carrier::Cookie(name) => Some(name),
        _ => None,
    });
    let lines = || headers.get_all(header::SET_COOKIE).iter().map(HeaderValue::as_bytes);
    let gives = |line: &[u8], name| set_cookie(line, name).is_some_and(|value| !value.is_empty());
    names.into_iter().any(|name| lines().any(|line| gives(line, name) && !is_deleting(line)))
}

/// Back to a login it is a refusal. Where a token is handed out, only that lets him in for sure. Else some send who is refused back
/// to where he says that he comes from, or where he was last.
fn redirected(status: StatusCode, headers: &HeaderMap, asked: Asked<'_>) -> Outcome {
    let location = headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
    let (to, path) = (path_of(location), asked.path.trim_end_matches('/'));
    let repeated = matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let own = authority_of(location).is_none_or(|named| named.eq_ignore_ascii_case(asked.authority));
    // `/?error=1`: who is let in is seldom told something.
    let adds = location.contains(['?', '#']);
    match asked.from {
        // A slash too many: the same is sent once more, and nobody has looked at it yet.
        _ if asked.token.is_some() && repeated && to == path => Outcome::Neutral,
        _ if !path.is_empty() && to.ends_with(path) => Outcome::Failure,
        _ if own && (asked.is_login)(to) => Outcome::Failure,
        Some(from) if asked.token.is_none() && !adds && path_of(from) != to => Outcome::Success,
        _ => Outcome::Unclear,
    }
}

/// The path where a login says that it comes from: one `Referer`, of the request's own authority. `Referrer` means the same to some.
pub fn came_from(headers: &HeaderMap, authority: &str) -> Option<Box<str>> {
    let mut lines = headers.get_all(header::REFERER).iter();
    let (from, None, false) = (lines.next()?, lines.next(), headers.contains_key("referrer")) else {
        return None;
    };
    let from = from.to_str().ok().filter(|from| from.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let whole = ["https://", "http://"].iter().any(|scheme| from.starts_with(scheme));
    let named = authority_of(from).filter(|_| whole)?;
    named.eq_ignore_ascii_case(authority).then(|| path_of(from).into())
}

/// Of a whole URL.
fn authority_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("//")?;
    (scheme.is_empty() || scheme.ends_with(':'))
        .then(|| rest.split(['/', '?', '#']).next().unwrap_or_default())
}

/// Of a URL, whole or not; without slashes at its end.
fn path_of(url: &str) -> &str {
    let path = match url.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => {
            rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default()
        }
        _ => url,
    };
    path.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::gateway::lesson::ANSWER;

    async fn meant(status: u16, fields: &[(&'static str, &'static str)], body: &str, token: bool) -> Outcome {
        let mut answer = Response::builder().status(status);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        let answer = answer.body(Body::from(body.to_owned())).unwrap();
        let asked = Asked { token: token.then_some("data.token"), ..asked(Some("/login")) };
        let (answer, meant) = of_login(answer, asked).await.unwrap();
        let left = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(left, body.as_bytes(), "the answer goes on as it was");
        meant.outcome
    }

    fn asked(from: Option<&str>) -> Asked<'_> {
        static CARRIERS: std::sync::LazyLock<[Carrier; 2]> =
            std::sync::LazyLock::new(|| [Carrier::Bearer, Carrier::Cookie("sid".into())]);
        let is_login = &|path: &str| ["/login", "/signin"].contains(&path);
        Asked {
            token: None,
            carriers: &*CARRIERS,
            is_login,
            authority: "a.test",
            path: "/login",
            from,
            brings: true,
        }
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

    #[tokio::test]
    async fn only_what_hands_out_a_token_is_a_success_where_one_is_expected() {
        use Outcome::{Failure, Neutral, Success, Unclear};
        let token = r#"{"data":{"token":"x"}}"#;
        for (status, fields, body, outcome) in [
            (200, &[JSON][..], token, Success),
            (201, &[JSON], token, Success),
            (200, &[JSON], r#"{"error":"wrong"}"#, Failure),
            (200, &[JSON], r#"{"data":{"token":" "}}"#, Failure),
            (200, &[JSON, ("content-encoding", "gzip")], token, Unclear),
            (200, &[("content-type", "text/plain")], "ok", Failure),
            (200, &[("content-type", "application/vnd.api+json")], token, Success),
            (200, &[JSON, ("content-encoding", "br")], token, Unclear),
            (302, &[("location", "/login?error=1")], "", Failure),
            (302, &[("location", "https://a.test/signin?error=1")], "", Failure),
            (302, &[("location", "/elsewhere")], "", Unclear),
            (307, &[("location", "/login/")], "", Neutral),
            (307, &[("location", "/elsewhere")], "", Unclear),
            (401, &[JSON], token, Failure),
            (403, &[], "", Failure),
            (422, &[], "", Failure),
            (400, &[], "", Failure),
            (404, &[], "", Failure),
            (429, &[], "", Neutral),
            (500, &[], "", Neutral),
            (503, &[], "", Neutral),
        ] {
            assert_eq!(meant(status, fields, body, true).await, outcome, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_longer_than_is_read_says_nothing_and_goes_on_however_it_is_framed() {
        let token = r#"{"data":{"token":"x"}}"#;
        for (length, outcome) in [(ANSWER, Outcome::Success), (ANSWER + 1, Outcome::Unclear)] {
            let body = format!("{token}{}", " ".repeat(length - token.len()));
            let said = body.len().to_string().leak();
            assert_eq!(meant(200, &[JSON, ("content-length", said)], &body, true).await, outcome);
            assert_eq!(meant(200, &[JSON], &body, true).await, outcome);
        }
    }

    #[tokio::test]
    async fn an_application_that_nobody_has_described_is_read_by_what_forms_do() {
        use Outcome::{Failure, Success, Unclear};
        for (status, fields, outcome) in [
            (200, &[JSON][..], Unclear),
            (200, &[JSON, ("set-cookie", "csrf=1")], Unclear),
            (200, &[JSON, ("set-cookie", "sid=")], Unclear),
            (200, &[JSON, ("set-cookie", "sid=1")], Success),
            (204, &[], Unclear),
            (204, &[("set-cookie", "sid=1; Path=/")], Success),
            (204, &[("set-cookie", "sid=deleted; Max-Age=0")], Unclear),
            (200, &[HTML], Failure),
            (302, &[("location", "/signin?error")], Failure),
            (302, &[("location", "https://b.test/signin")], Success),
            (302, &[("location", "/?error")], Unclear),
            (200, &[HTML, ("set-cookie", "a=b")], Unclear),
            (302, &[("location", "https://a.test/login?error=1")], Failure),
            (302, &[("location", "/home")], Success),
            (303, &[("location", "/login/")], Failure),
            (401, &[], Failure),
        ] {
            assert_eq!(meant(status, fields, "x", false).await, outcome, "{status} {fields:?}");
        }
    }

    #[tokio::test]
    async fn what_nobody_has_described_is_a_success_when_it_hands_out_what_is_called_a_token() {
        for (body, outcome) in [
            (r#"{"ok":true,"token":"x"}"#, Outcome::Success),
            (r#"{"data":{"access_token":"x"}}"#, Outcome::Success),
            (r#"{"ok":false,"error":"wrong password"}"#, Outcome::Unclear),
            (r#"{"ok":false,"token":""}"#, Outcome::Unclear),
            (r#"{"ok":false,"token":null}"#, Outcome::Unclear),
            (r#"{"error":"no such user: {\"token\":\"x\"}"}"#, Outcome::Unclear),
        ] {
            assert_eq!(meant(200, &[JSON], body, false).await, outcome, "{body}");
        }
    }

    #[test]
    fn a_redirect_back_to_where_he_says_he_comes_from_is_no_success() {
        use Outcome::{Failure, Success, Unclear};
        let fields = |name, values: &[&'static str]| {
            let line = |value: &&'static str| (name, http::HeaderValue::from_static(value));
            HeaderMap::from_iter(
                values.iter().map(line).map(|(name, value)| (header::HeaderName::from_static(name), value)),
            )
        };
        for (from, to, outcome) in [
            (&["https://a.test/login"][..], "https://a.test/", Success),
            (&["https://A.test/login?next=/x"], "/home", Success),
            (&["https://a.test/login"], "https://a.test/login?error", Failure),
            (&["https://a.test/xyz"], "/?error=1", Unclear),
            (&["https://a.test/xyz"], "/#/login", Unclear),
            (&["https://a.test/x?y"], "https://a.test/x/?y", Unclear),
            (&["https://a.test"], "//a.test/", Unclear),
            // What it makes of these nobody knows.
            (&[], "/home", Unclear),
            (&["https://b.test/home"], "/home2", Unclear),
            (&["/x"], "https://a.test/home", Unclear),
            (&["https://a.test/x", "https://a.test/y"], "/home", Unclear),
            (&["https://a.test.b.test/x"], "/home", Unclear),
            (&["https://a.test/x y"], "/home", Unclear),
        ] {
            let from = came_from(&fields("referer", from), "a.test");
            let found = StatusCode::FOUND;
            let fields = fields("location", &[to]);
            assert_eq!(redirected(found, &fields, asked(from.as_deref())), outcome, "{from:?} {to}");
        }
        let mut both = fields("referer", &["https://a.test/login"]);
        both.insert("referrer", http::HeaderValue::from_static("https://a.test/home"));
        assert_eq!(came_from(&both, "a.test"), None);
    }

    #[test]
    fn other_secrets_are_refused_by_more_than_401() {
        let of = |kind, status| of_status(kind, StatusCode::from_u16(status).unwrap());
        assert_eq!(of(Kind::Refresh, 401), Outcome::Failure);
        for status in [400, 401, 403, 404, 410, 422] {
            assert_eq!(of(Kind::Enroll, status), Outcome::Failure, "{status}");
        }
        assert_eq!((of(Kind::Refresh, 400), of(Kind::Refresh, 422)), (Outcome::Failure, Outcome::Failure));
        assert_eq!((of(Kind::Refresh, 404), of(Kind::Enroll, 409)), (Outcome::Neutral, Outcome::Neutral));
        assert_eq!((of(Kind::Enroll, 429), of(Kind::Enroll, 500)), (Outcome::Neutral, Outcome::Neutral));
        assert_eq!(of(Kind::Basic, 403), Outcome::Neutral);
        assert_eq!((of(Kind::Refresh, 200), of(Kind::Refresh, 429)), (Outcome::Success, Outcome::Neutral));
    }
}
