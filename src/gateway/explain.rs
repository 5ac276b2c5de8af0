//! What would become of a request, told by the very code that decides: `portcullis explain`.

mod shown;

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use serde::{Deserialize, Serialize};

use super::causes::{self, Told};
use super::origin::Whose;
use super::read::{self, Reading, Refusal, Surroundings};
use super::{Decision, Link, Withheld, decide, download};
use crate::clock::Now;
use crate::config::class::Class;
use crate::guards::headers::HeaderSet;
use crate::guards::tries::Kind;
use crate::guards::{Denial, Verdict, login};
use crate::policy::Snapshot;
use crate::request::certificate::Certified;
use crate::request::facts::Malformed;
use crate::request::share_key::ShareKey;
use crate::stores::blocks::Index;
use crate::stores::seal::Seal;
use crate::stores::sessions::Sessions;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// `POST https://files.example.com/api/auth/login`; without a method it is GET.
    pub request: String,
    /// The peer's address.
    pub from: IpAddr,
    /// The client that its PROXY header names.
    #[serde(default)]
    pub proxy: Option<IpAddr>,
    /// `Name: value`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The client's certificate and what leads to its CA, DER in base64.
    #[serde(default)]
    pub certificates: Vec<String>,
}

/// The answer; `guards` in the order in which they were asked, up to the first denial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    /// Of this form.
    pub schema: u64,
    /// The client, after trusted proxies; `unknown` if it cannot be told.
    pub client: String,
    /// How it was found.
    #[serde(default)]
    pub found: String,
    /// Who its certificate says it is, where the site asks for one.
    #[serde(default)]
    pub certificate: Option<String>,
    /// The site's name.
    pub site: Option<String>,
    /// The route's class.
    pub class: Option<String>,
    /// The route's pattern.
    pub route: Option<String>,
    /// The path as sent, normal (forwarded) and folded.
    pub path: Option<[String; 3]>,
    /// Credentials found: `jti` or the beginning of the fingerprint.
    pub credentials: Vec<String>,
    /// What each guard said.
    pub guards: Vec<Said>,
    /// `forward` or `refuse`.
    pub outcome: String,
    /// As in the access log: `permit`, `would_deny`, `deny`, `malformed`; or `redirect`.
    #[serde(default)]
    pub verdict: String,
    /// Who refuses.
    #[serde(default)]
    pub guard: Option<String>,
    /// What the gateway puts on the answer.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The status of a refusal.
    pub status: Option<u16>,
    /// Why, in one word of the closed lists.
    pub reason: Option<String>,
    /// What the reason means.
    #[serde(default)]
    pub cause: Option<String>,
    /// What to do about it.
    #[serde(default)]
    pub remedy: Option<String>,
    /// Where it would go.
    pub upstream: Option<String>,
}

/// One guard's verdict.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    /// Its name.
    pub guard: String,
    /// `pass`, `would_deny` or `deny`.
    pub verdict: String,
    /// Why, unless it passed.
    pub reason: Option<String>,
}

/// What the explanation is made by.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// The policy.
    pub snapshot: &'a Snapshot,
    /// The blocks.
    pub index: &'a Index,
    /// Hashes share tokens.
    pub share_key: &'a ShareKey,
    /// Opens tickets and cookies.
    pub seal: &'a Seal,
    /// Whose refresh cookies are whose.
    pub sessions: &'a Sessions,
    /// The time.
    pub now: Now,
}

/// Explains. Nothing is charged and nothing is sent.
///
/// # Errors
/// When the question is no request, in words.
pub fn explain(question: &Question, means: Means<'_>) -> Result<Explanation, String> {
    ask(question, means, true)
}

/// The same of a request that is charged to the budgets of `means`, as if it had come.
///
/// # Errors
/// When the question is no request, in words.
pub fn charge(question: &Question, means: Means<'_>) -> Result<Explanation, String> {
    ask(question, means, false)
}

fn ask(question: &Question, means: Means<'_>, rehearsal: bool) -> Result<Explanation, String> {
    let mut head = head_of(question)?;
    let policy = means.snapshot.policy();
    let whose = Whose::of(question.from, question.proxy, policy)?;
    let link = Supposed {
        certified: shown::certified(question, &head, means)?,
        whose,
        sni: head.uri.host().map(str::to_owned),
    };
    let found = read::found(&link, policy, &head);
    let client = found.client;
    let mut told = Explanation::of(client.to_string());
    told.certificate = shown::told(link.certified.as_ref());
    told.found = whose.tell(found, &link, policy, &head);
    let Means { snapshot, share_key, seal, sessions, now, .. } = means;
    let around = Surroundings { snapshot, share_key, seal, sessions, now, rehearsal };
    download::enter(&mut head, &around, client);
    told.wear(&means.snapshot.policy().nowhere);
    match read::read(around, &link, client, &head, length(&head)) {
        Ok(reading) => {
            told.found(&reading);
            match reading.site.download.as_ref().filter(|_| download::leaves(&reading, &head.headers)) {
                Some(host) => told.sent_on(&host.origin),
                None => told.judged(&reading, means.index),
            }
        }
        Err(Refusal::Malformed(why)) => {
            told.verdict = "malformed".into();
            let answer = super::respond::malformed(why, super::respond::Shape::Problem);
            told.refused(answer.status().as_u16(), why.word());
            told.meaning(causes::malformed(why));
        }
        Err(Refusal::Denied(denial)) => told.denied(&denial),
        Err(Refusal::Redirect(location)) => {
            told.verdict = "redirect".into();
            told.refused(308, "redirect");
            told.upstream = Some(location);
        }
    }
    Ok(told)
}

impl Explanation {
    fn of(client: String) -> Self {
        Self {
            schema: 1,
            client,
            found: String::new(),
            certificate: None,
            site: None,
            class: None,
            route: None,
            path: None,
            credentials: Vec::new(),
            guards: Vec::new(),
            outcome: "forward".into(),
            verdict: "permit".into(),
            guard: None,
            headers: Vec::new(),
            status: None,
            reason: None,
            cause: None,
            remedy: None,
            upstream: None,
        }
    }

    fn found(&mut self, reading: &Reading<'_>) {
        let route = reading.found.route;
        self.site = Some(reading.site.name.to_string());
        self.class = Some(route.class.word().into());
        self.route = Some(route.pattern.to_string());
        self.path = Some([reading.path.raw(), reading.path.normal(), reading.path.folded()].map(Into::into));
        self.credentials = reading
            .facts
            .credentials
            .iter()
            .map(|one| {
                let jti = one.claims.as_ref().and_then(|claims| claims.jti_text.as_deref());
                jti.map_or_else(
                    || one.fingerprint.to_string().chars().take(16).collect(),
                    |jti| format!("jti {jti}"),
                )
            })
            .collect();
        self.wear(reading.host.headers.get(route.class));
    }

    fn judged(&mut self, reading: &Reading<'_>, index: &Index) {
        let route = reading.found.route;
        let decided = decide(route, index, &reading.facts, &reading.presented, &mut |guard, verdict| {
            if matches!(verdict, Verdict::WouldDeny(_)) {
                self.verdict = "would_deny".into();
            }
            self.guards.push(Said::of(guard, verdict));
        });
        match decided {
            Ok(Decision::Permit(permit)) => self.upstream = Some(permit.upstream().to_string()),
            Ok(Decision::Withheld(withheld)) => self.tried(&withheld, reading),
            Err(denial) => self.denied(&denial),
        }
    }

    /// What the guard of a try would say before it has seen a password: whether the client is locked out.
    fn tried(&mut self, withheld: &Withheld, reading: &Reading<'_>) {
        let (facts, route) = (&reading.facts, reading.found.route);
        let guard =
            route.guards.tries.as_ref().filter(|_| matches!(withheld.kind(), Kind::Login | Kind::Basic));
        let said = guard.map_or(Ok(()), |tries| tries.login().ask_of(facts));
        let verdict = match said {
            Ok(()) => Verdict::Pass,
            Err(denial) if withheld.observes() => Verdict::WouldDeny(denial),
            Err(denial) => Verdict::Deny(denial),
        };
        self.guards.push(Said::of(login::NAME, &verdict));
        match verdict {
            Verdict::Deny(denial) => return self.denied(&denial),
            Verdict::WouldDeny(_) => self.verdict = "would_deny".into(),
            Verdict::Pass => {}
        }
        self.upstream = Some(route.upstream.to_string());
    }

    /// The guards are asked there, with the ticket.
    fn sent_on(&mut self, origin: &str) {
        self.verdict = "redirect".into();
        self.refused(307, "redirect");
        self.upstream = Some(origin.into());
    }

    fn wear(&mut self, headers: &HeaderSet) {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        self.headers = headers.iter().map(|(name, value)| (name.to_string(), text(&value))).collect();
    }

    fn denied(&mut self, denial: &Denial) {
        self.verdict = "deny".into();
        self.guard = Some(denial.guard.into());
        self.refused(denial.reason.status().as_u16(), denial.reason.word());
        self.meaning(causes::denied(denial.reason));
    }

    fn meaning(&mut self, told: Told) {
        self.cause = Some(told.cause.into());
        self.remedy = Some(told.remedy.into());
    }

    fn refused(&mut self, status: u16, reason: &str) {
        self.outcome = "refuse".into();
        self.status = Some(status);
        self.reason = Some(reason.into());
    }
}

impl Said {
    fn of(guard: &'static str, verdict: &Verdict) -> Self {
        let (word, reason) = match verdict {
            Verdict::Pass => ("pass", None),
            Verdict::WouldDeny(denial) => ("would_deny", Some(denial.reason.word())),
            Verdict::Deny(denial) => ("deny", Some(denial.reason.word())),
        };
        Self { guard: guard.into(), verdict: word.into(), reason: reason.map(Into::into) }
    }
}

fn head_of(question: &Question) -> Result<Parts, String> {
    let (method, url) = question.request.trim().split_once(' ').unwrap_or(("GET", question.request.trim()));
    let method: Method = method.parse().map_err(|_| format!("`{method}` is no method"))?;
    let uri: Uri = url.trim().parse().map_err(|error| format!("`{url}` is no URL: {error}"))?;
    if uri.authority().is_none() || uri.scheme().is_none() {
        return Err(format!(
            "`{url}` has no host: write the whole URL, e.g. https://files.example.com/login"
        ));
    }
    let mut request = Request::builder().method(method).uri(uri);
    for line in &question.headers {
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("`{line}` is no header: write `Name: value`"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| format!("`{name}` is no header name"))?;
        let value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("the value of `{name}` has odd characters"))?;
        request = request.header(name, value);
    }
    request.body(()).map(|request| request.into_parts().0).map_err(|error| error.to_string())
}

fn length(head: &Parts) -> Option<u64> {
    head.headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A connection that nobody made.
struct Supposed {
    whose: Whose,
    sni: Option<String>,
    certified: Option<Certified>,
}

impl Link for Supposed {
    fn peer(&self) -> IpAddr {
        self.whose.peer
    }

    fn carrier(&self) -> IpAddr {
        self.whose.carrier
    }

    fn is_own(&self) -> bool {
        self.whose.own
    }

    fn certified(&self) -> Option<&Certified> {
        self.certified.as_ref()
    }

    fn is_plain(&self) -> bool {
        false
    }

    fn sni(&self) -> Option<&str> {
        self.sni.as_deref().filter(|name| name.parse::<IpAddr>().is_err() && !name.starts_with('['))
    }

    fn begin(&self) -> Option<Malformed> {
        None
    }

    fn malformed_body(&self) -> Option<Malformed> {
        None
    }

    fn of_class(&self, _: Class) {}
}
