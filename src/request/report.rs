//! Reports of violations of a Content-Security-Policy, in both forms in which browsers send them.
//!
//! Anybody can send them, so nothing in them is true by itself, and nothing is kept as it came: of a report only the page's
//! address (for its route), the directive by a closed list, and what was blocked are read. Samples of scripts, line
//! numbers, referrers and the policy that the sender claims are not looked at.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;
use serde::Deserialize;

use super::target::Host;

/// Most reports that are read of one body; a browser sends one, or a handful together.
const MOST: usize = 64;
/// Longest address that is read.
const LONGEST: usize = 4096;

/// The form of a body, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/csp-report`: one, by `report-uri`.
    One,
    /// `application/reports+json`: a list of the Reporting API, by `report-to`.
    List,
}

/// One violation, as somebody says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where it happened.
    pub page: Address,
    /// Which directive was broken, of a closed list.
    pub directive: &'static str,
    /// What it did not allow.
    pub blocked: Blocked,
    /// It was only reported, and let be.
    pub observed: bool,
}

/// What a policy did not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// `inline`, `eval` and the like.
    Word(&'static str),
    /// `data` or `blob`.
    Scheme(&'static str),
    /// Something that a browser's extension put into the page.
    Extension,
    /// An address.
    Address(Address),
}

/// An address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `https`, `http`, `wss` or `ws`.
    pub scheme: &'static str,
    /// Lower case.
    pub host: Host,
    /// As named, or the scheme's.
    pub port: u16,
    /// Path and query, for finding its route; never to be kept.
    pub target: PathAndQuery,
}

/// What a body has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// The violations.
    pub reports: Vec<Report>,
    /// How many others could not be read, or were none.
    pub malformed: usize,
}

impl Form {
    /// The form that a media type names.
    pub fn of(content_type: &[u8]) -> Option<Self> {
        let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match () {
            () if is("application/csp-report") => Some(Self::One),
            () if is("application/reports+json") => Some(Self::List),
            () => None,
        }
    }
}

/// Reads a body.
pub fn read(form: Form, body: &[u8]) -> Read {
    let said: Option<Vec<Option<Said<'_>>>> = match form {
        Form::One => serde_json::from_slice::<One<'_>>(body).ok().map(|one| vec![Some(one.report)]),
        Form::List => serde_json::from_slice::<Vec<Listed<'_>>>(body)
            .ok()
            .map(|list| list.into_iter().map(Listed::violation).collect()),
    };
    let Some(said) = said else { return Read { malformed: 1, ..Read::default() } };
    let all = said.len();
    let reports: Vec<Report> = said.into_iter().take(MOST).flatten().filter_map(Said::report).collect();
    Read { malformed: all - reports.len(), reports }
}

#[derive(Deserialize)]
struct One<'a> {
    #[serde(rename = "csp-report", borrow)]
    report: Said<'a>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    body: Option<Said<'a>>,
}

/// The fields that are looked at, by both names that they have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    #[serde(alias = "documentURL", rename = "document-uri", borrow)]
    page: Cow<'a, str>,
    #[serde(alias = "effectiveDirective", rename = "effective-directive", borrow)]
    effective: Cow<'a, str>,
    #[serde(alias = "violatedDirective", rename = "violated-directive", borrow)]
    violated: Cow<'a, str>,
    #[serde(alias = "blockedURL", rename = "blocked-uri", borrow)]
    blocked: Cow<'a, str>,
    #[serde(alias = "sourceFile", rename = "source-file", borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    disposition: Cow<'a, str>,
}

impl<'a> Listed<'a> {
    fn violation(self) -> Option<Said<'a>> {
        self.body.filter(|_| self.kind == "csp-violation")
    }
}

impl Said<'_> {
    fn report(self) -> Option<Report> {
        let named = if self.effective.is_empty() { &self.violated } else { &self.effective };
        let word = named.split(' ').next().unwrap_or_default();
        let directive = DIRECTIVES.into_iter().find(|known| *known == word)?;
        let source = self.source.as_deref().unwrap_or_default();
        let blocked =
            if is_extension(source) { Blocked::Extension } else { Blocked::read(&self.blocked, directive)? };
        let page = Address::read(&self.page).filter(|page| page.scheme == "https")?;
        Some(Report { page, directive, blocked, observed: self.disposition == "report" })
    }
}

impl Blocked {
    fn read(text: &str, directive: &str) -> Option<Self> {
        const WORDS: [&str; 5] =
            ["inline", "eval", "wasm-eval", "trusted-types-policy", "trusted-types-sink"];
        let scheme = text.split(':').next().unwrap_or_default();
        if let Some(word) = WORDS.into_iter().find(|word| *word == text) {
            return Some(Self::Word(word));
        }
        if let Some(scheme) = ["data", "blob"].into_iter().find(|known| *known == scheme) {
            return Some(Self::Scheme(scheme));
        }
        if is_extension(text) {
            return Some(Self::Extension);
        }
        // As browsers wrote it before there was a word for it.
        if text.is_empty() || text == "self" {
            let runs = directive.starts_with("script-src") || directive.starts_with("style-src");
            return runs.then_some(Self::Word("inline"));
        }
        Address::read(text).map(Self::Address)
    }
}

impl Address {
    fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let uri: Uri = text.parse().ok()?;
        let (scheme, usual) = match uri.scheme_str()? {
            "https" => ("https", 443),
            "http" => ("http", 80),
            "wss" => ("wss", 443),
            "ws" => ("ws", 80),
            _ => return None,
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = Host::parse(authority.as_str()).ok()?;
        let port = uri.port_u16().unwrap_or(usual);
        let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        Some(Self { scheme, host, port, target })
    }

    /// Scheme, host and, where it is not the usual one, port: what is kept of an address.
    pub fn origin(&self) -> String {
        let host = self.host.as_str();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match (self.scheme, self.port) {
            ("https" | "wss", 443) | ("http" | "ws", 80) => format!("{}://{host}", self.scheme),
            (scheme, port) => format!("{scheme}://{host}:{port}"),
        }
    }
}

fn is_extension(text: &str) -> bool {
    const SCHEMES: [&str; 10] = [
        "chrome-extension",
        "moz-extension",
        "safari-extension",
        "safari-web-extension",
        "ms-browser-extension",
        "webkit-masked-url",
        "chrome",
        "resource",
        "about",
        "user-script",
    ];
    SCHEMES.contains(&text.split(':').next().unwrap_or_default())
}

/// The directives that can be broken.
const DIRECTIVES: [&str; 22] = [
    "default-src",
    "script-src",
    "script-src-elem",
    "script-src-attr",
    "style-src",
    "style-src-elem",
    "style-src-attr",
    "img-src",
    "font-src",
    "connect-src",
    "media-src",
    "object-src",
    "frame-src",
    "child-src",
    "worker-src",
    "manifest-src",
    "fenced-frame-src",
    "base-uri",
    "form-action",
    "frame-ancestors",
    "require-trusted-types-for",
    "trusted-types",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = r#"{"csp-report":{"document-uri":"https://a.test:8443/s/SECRET?token=SECRET#SECRET",
        "referrer":"https://a.test/SECRET","violated-directive":"script-src-elem","effective-directive":"script-src-elem",
        "original-policy":"SECRET","disposition":"enforce","blocked-uri":"inline","status-code":200,
        "script-sample":"SECRET","line-number":1}}"#;
    const LIST: &str = r#"[{"age":1,"body":{"blockedURL":"https://Evil.test/SECRET?x","columnNumber":3,"disposition":"report",
        "documentURL":"https://a.test/","effectiveDirective":"img-src","lineNumber":1,"originalPolicy":"x","referrer":"",
        "sample":"SECRET","sourceFile":"https://a.test/app.js","statusCode":200},"type":"csp-violation",
        "url":"https://a.test/","user_agent":"x"},{"type":"deprecation","body":{"id":"x"},"url":"https://a.test/"}]"#;

    fn blocked(directive: &str, blocked: &str, source: &str) -> Option<Blocked> {
        let body = serde_json::json!({ "csp-report": { "document-uri": "https://a.test/", "blocked-uri": blocked,
            "effective-directive": directive, "source-file": source } });
        read(Form::One, body.to_string().as_bytes()).reports.pop().map(|report| report.blocked)
    }

    #[test]
    fn both_forms_are_read_and_secrets_end_here() {
        let one = read(Form::One, ONE.as_bytes());
        let report = one.reports.first().unwrap();
        assert_eq!((report.directive, &report.blocked), ("script-src-elem", &Blocked::Word("inline")));
        assert_eq!((report.page.origin().as_str(), report.observed), ("https://a.test:8443", false));
        let list = read(Form::List, LIST.as_bytes());
        assert_eq!(list.malformed, 1, "what is no violation of a policy");
        let report = list.reports.first().unwrap();
        let Blocked::Address(address) = &report.blocked else { panic!("{report:?}") };
        assert_eq!((address.origin().as_str(), report.observed), ("https://evil.test", true));
    }

    #[test]
    fn what_was_blocked_is_a_word_a_scheme_an_extension_or_an_address() {
        for (directive, text, source, wanted) in [
            ("script-src", "eval", "", Some(Blocked::Word("eval"))),
            ("script-src-elem", "", "", Some(Blocked::Word("inline"))),
            ("img-src", "", "", None),
            ("img-src", "data", "", Some(Blocked::Scheme("data"))),
            ("img-src", "data:image/png;base64,SECRET", "", Some(Blocked::Scheme("data"))),
            ("img-src", "blob:https://a.test/x", "", Some(Blocked::Scheme("blob"))),
            ("script-src", "chrome-extension", "", Some(Blocked::Extension)),
            ("script-src", "moz-extension://abc/x.js", "", Some(Blocked::Extension)),
            ("script-src", "inline", "chrome-extension://abc/x.js", Some(Blocked::Extension)),
            ("frame-src", "about", "", Some(Blocked::Extension)),
            ("no-such-src", "inline", "", None),
            ("script-src", "javascript:alert(1)", "", None),
            ("img-src", "https://user:pass@evil.test/", "", None),
            ("img-src", "https://evil.test/\u{1b}[2J", "", None),
            ("img-src", "https://\u{202e}evil.test/", "", None),
        ] {
            assert_eq!(blocked(directive, text, source), wanted, "{directive} {text}");
        }
    }

    #[test]
    fn what_is_no_report_is_counted_and_nothing_else() {
        for (form, body) in [
            (Form::One, "x"),
            (Form::One, "[]"),
            (Form::One, r#"{"csp-report":{}}"#),
            (Form::One, r#"{"csp-report":{"document-uri":1}}"#),
            (Form::One, r#"{"csp-report":{"blocked-uri":"eval","blocked-uri":"inline"}}"#),
            (Form::List, r#"{"csp-report":{}}"#),
            (Form::List, r#"[{"type":"csp-violation"}]"#),
            (Form::List, r#"[{"type":"csp-violation","body":{"documentURL":"ftp://a.test/"}}]"#),
        ] {
            assert_eq!(read(form, body.as_bytes()), Read { reports: vec![], malformed: 1 }, "{body}");
        }
        let many = format!("[{}]", [&LIST[1..LIST.len() - 1]; 100].join(","));
        let read = read(Form::List, many.as_bytes());
        assert_eq!((read.reports.len(), read.malformed), (MOST / 2, 200 - MOST / 2));
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,40}") {
            let _ = (read(Form::One, &bytes), read(Form::List, &bytes), Address::read(&text));
            let _ = (blocked("img-src", &text, ""), blocked("script-src", "inline", &text));
        }

        #[test]
        fn what_is_kept_of_an_address_is_short_and_plain(text in "(https|wss|http)://[a-zA-Z0-9.:\\[\\]@-]{0,30}/[ -~]{0,30}") {
            if let Some(address) = Address::read(&text) {
                let origin = address.origin();
                prop_assert!(origin.len() < 300 && origin.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(Address::read(&origin).is_some_and(|again| again.origin() == origin), "{}", origin);
            }
        }
    }
}
