//! What an answer says of a try: whether the application let him in.

use http::header::{self, HeaderMap};
use http::{Response, StatusCode};

use crate::gateway::account::Form;
use crate::gateway::held::hold;
use crate::guards::counters::Outcome;
use crate::guards::tries::Kind;
use crate::request::body::Body;
use crate::request::tokens_in::token_of;

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

/// What an answer to a login is read by.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Where the app file says that the token is.
    pub token: Option<&'a str>,
    /// The request's path.
    pub path: &'a str,
    /// The path that it says it came from; `None`: it does not say so plainly.
    pub from: Option<&'a str>,
}

/// Of an answer to a login. It is read for its token, and goes on as it was.
///
/// # Errors
/// When it breaks off: nothing of it is left.
pub async fn of_login(answer: Response<Body>, asked: Asked<'_>) -> Result<(Response<Body>, Meant), Broken> {
    let (status, headers) = (answer.status(), answer.headers());
    let outcome = match status {
        _ if status.is_success() => return succeeded(answer, asked.token).await,
        _ if status.is_redirection() => redirected(headers, asked),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Outcome::Neutral,
        _ if status.is_client_error() => Outcome::Failure,
        _ => Outcome::Neutral,
    };
    Ok((answer, Meant::only(outcome)))
}

/// The answer broke off before all of it was there.
#[derive(Debug)]
pub struct Broken;

/// Where it is known what a login hands out, only that is a success. What cannot be read is neither.
async fn succeeded(answer: Response<Body>, token: Option<&str>) -> Result<(Response<Body>, Meant), Broken> {
    let headers = answer.headers();
    let Some(path) = token else {
        let outcome = undescribed(headers);
        return Ok((answer, Meant::only(outcome)));
    };
    if Form::of(headers) != Some(Form::Json) {
        return Ok((answer, Meant::only(Outcome::Neutral)));
    }
    let (head, body) = answer.into_parts();
    let held = hold(body).await.ok_or(Broken)?;
    let read = held.read(&head.headers).map(|text| token_of(&text, path));
    let outcome = match &read {
        None => Outcome::Neutral,
        Some(None) => Outcome::Failure,
        Some(Some(_)) => Outcome::Success,
    };
    let meant = Meant { outcome, token: read.flatten() };
    Ok((Response::from_parts(head, held.into_body()), meant))
}

/// A page is the form again; if it sets a cookie, it may be the first one inside: most applications send on to that.
fn undescribed(headers: &HeaderMap) -> Outcome {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    match (kind.starts_with(b"text/html"), headers.contains_key(header::SET_COOKIE)) {
        (false, _) => Outcome::Success,
        (true, true) => Outcome::Unclear,
        (true, false) => Outcome::Failure,
    }
}

/// Back to the login it is a refusal. Where a token is handed out, only that lets him in: a slash too many is sent elsewhere by any
/// framework. Else some send who is refused back to where he says that he comes from, or where he was last.
fn redirected(headers: &HeaderMap, asked: Asked<'_>) -> Outcome {
    let to = headers.get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
    let (to, path) = (path_of(to), asked.path.trim_end_matches('/'));
    match asked.from {
        _ if !path.is_empty() && to.ends_with(path) => Outcome::Failure,
        _ if asked.token.is_some() => Outcome::Neutral,
        Some(from) if path_of(from) != to => Outcome::Success,
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
    let rest = from.strip_prefix("https://").or_else(|| from.strip_prefix("http://"))?;
    let named = rest.split(['/', '?', '#']).next()?;
    named.eq_ignore_ascii_case(authority).then(|| path_of(from).into())
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
        let asked = Asked { token: token.then_some("data.token"), path: "/login", from: Some("/login") };
        let (answer, meant) = of_login(answer, asked).await.unwrap();
        let left = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(left, body.as_bytes(), "the answer goes on as it was");
        meant.outcome
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

    #[tokio::test]
    async fn only_what_hands_out_a_token_is_a_success_where_one_is_expected() {
        use Outcome::{Failure, Neutral, Success};
        let token = r#"{"data":{"token":"x"}}"#;
        for (status, fields, body, outcome) in [
            (200, &[JSON][..], token, Success),
            (201, &[JSON], token, Success),
            (200, &[JSON], r#"{"error":"wrong"}"#, Failure),
            (200, &[JSON, ("content-encoding", "gzip")], token, Neutral),
            (200, &[("content-type", "text/plain")], "ok", Neutral),
            (401, &[JSON], token, Failure),
            (403, &[], "", Failure),
            (422, &[], "", Failure),
            (400, &[], "", Failure),
            (404, &[], "", Failure),
            (429, &[], "", Neutral),
            (500, &[], "", Neutral),
            (503, &[], "", Neutral),
            (307, &[("location", "https://a.test/elsewhere")], "", Neutral),
            (302, &[("location", "/login?error=1")], "", Failure),
        ] {
            assert_eq!(meant(status, fields, body, true).await, outcome, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_longer_than_is_read_says_nothing_and_goes_on_however_it_is_framed() {
        let token = r#"{"data":{"token":"x"}}"#;
        for (length, outcome) in [(ANSWER, Outcome::Success), (ANSWER + 1, Outcome::Neutral)] {
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
            (200, &[JSON][..], Success),
            (204, &[], Success),
            (200, &[HTML], Failure),
            (200, &[HTML, ("set-cookie", "a=b")], Unclear),
            (302, &[("location", "https://a.test/login?error=1")], Failure),
            (302, &[("location", "/home")], Success),
            (303, &[("location", "/login/")], Failure),
            (401, &[], Failure),
        ] {
            assert_eq!(meant(status, fields, "x", false).await, outcome, "{status} {fields:?}");
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
            let asked = Asked { token: None, path: "/login", from: from.as_deref() };
            assert_eq!(redirected(&fields("location", &[to]), asked), outcome, "{from:?} {to}");
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
