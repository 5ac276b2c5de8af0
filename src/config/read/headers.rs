//! `[site.headers]`, and policies wherever they stand.

use http::{HeaderName, HeaderValue, header};

use super::{Keys, Table, nearest, nonce, suggestion};
use crate::config::app::{App, Harmless};
use crate::config::csp::Csp;
use crate::config::defaults;
use crate::config::settings::{CspChoice, Headers};
use crate::config::values::ValueError;

/// Every directive of CSP that a browser of today knows.
const DIRECTIVES: [&str; 25] = [
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
    "sandbox",
    "report-uri",
    "report-to",
    "upgrade-insecure-requests",
    "require-trusted-types-for",
];

/// Reads the section.
pub(super) fn headers(mut table: Table<'_>, self_signed: bool) -> Headers {
    let csp = table.parse("csp", csp_choice).unwrap_or(CspChoice::App);
    let modes = [("enforce", false), ("observe", true)];
    let csp_observe = table.choice("csp_mode", &modes).unwrap_or(false);
    let elsewhere = matches!(&csp, CspChoice::Own(policy) if Csp::read(policy).reports_elsewhere());
    let csp_report = table.flag("csp_report").unwrap_or(csp_observe && !elsewhere);
    check_report(&mut table, &csp);
    let nonce = nonce::read(&mut table);
    let hsts = table.parse("hsts", hsts);
    let hsts = hsts.unwrap_or_else(|| Some(HeaderValue::from_static(defaults::HSTS)));
    let set = table
        .section("set")
        .entries(Keys::Any)
        .filter_map(|(name, value)| own_header(name, &value))
        .collect();
    table.finish();
    // A browser that remembers HSTS of a throw-away certificate would lock its owner out.
    Headers { csp, csp_observe, csp_report, nonce, hsts: hsts.filter(|_| !self_signed), set }
}

fn csp_choice(text: &str) -> Result<CspChoice, ValueError> {
    match text {
        "app" => Ok(CspChoice::App),
        "off" => Ok(CspChoice::Off),
        _ => match text.strip_prefix("app:") {
            Some(variant) => Ok(CspChoice::Variant(variant.into())),
            None => csp(text).map(CspChoice::Own),
        },
    }
}

/// To ask for reports of no policy, or of one that sends them elsewhere, would be asked in vain.
fn check_report(table: &mut Table<'_>, csp: &CspChoice) {
    let message = match csp {
        CspChoice::Off => "there is no policy that could be reported on: `csp` is \"off\"",
        CspChoice::Own(policy) if Csp::read(policy).reports_elsewhere() => {
            "the policy in `csp` says itself where reports go"
        }
        _ => return,
    };
    if let Some(value) = table.get("csp_report").filter(|value| value.flag() == Some(true)) {
        value.wrong(ValueError { message: message.into(), help: "remove one of them".into() });
    }
}

/// Which variant is meant only the app file knows.
pub(super) fn check_variant(mut table: Table<'_>, choice: &CspChoice, app: &App) {
    let CspChoice::Variant(name) = choice else { return };
    if app.variant(name).is_some() {
        return;
    }
    let names: Vec<_> = app.csp_variants.iter().map(|(name, _)| &**name).collect();
    let help = match names.is_empty() {
        true => "write \"app\", \"off\" or a policy of your own: this app file has no variants".into(),
        false => suggestion(name, &names),
    };
    if let Some(value) = table.get("csp") {
        value.wrong(ValueError {
            message: format!("`{name}` is no variant of app file `{}`", app.name),
            help,
        });
    }
}

/// Parses a policy: a misspelt directive is one that no browser obeys.
pub(super) fn csp(text: &str) -> Result<Box<str>, ValueError> {
    let wrong = |message: String, help: &str| ValueError { message, help: help.into() };
    let filled = text.replace("{origin}", "https://example.com").replace("'nonce-{nonce}'", "'nonce-x'");
    if filled.contains(['{', '}']) {
        let message = "the only placeholders are `{origin}` and `'nonce-{nonce}'`".into();
        return Err(wrong(message, "remove the other braces"));
    }
    if HeaderValue::from_str(&filled).is_err() || !filled.is_ascii() {
        return Err(wrong("a policy is one line of ASCII".into(), "remove line ends and other characters"));
    }
    for directive in filled.split(';').map(str::trim).filter(|directive| !directive.is_empty()) {
        let word = directive.split(' ').next().unwrap_or_default();
        if !DIRECTIVES.contains(&word) && word != "trusted-types" {
            let help = match nearest(word, DIRECTIVES) {
                Some(best) => format!("did you mean `{best}`?"),
                None => "write a policy such as \"default-src 'self'\", or \"app\" or \"off\"".into(),
            };
            return Err(ValueError { message: format!("`{word}` is no directive of a policy"), help });
        }
    }
    Ok(text.into())
}

/// Parses a report that means nothing: a directive, and what it did not allow.
pub(super) fn harmless(text: &str) -> Result<Harmless, ValueError> {
    const WORDS: [&str; 5] = ["inline", "eval", "wasm-eval", "data", "blob"];
    let wrong = |message: String| {
        let help = "write a directive and what is reported of it, e.g. \"script-src eval\" or \"font-src https://fonts.gstatic.com\"";
        ValueError { message, help: help.into() }
    };
    let Some((directive, what)) = text.split_once(' ') else {
        return Err(wrong(format!("`{text}` is not two words")));
    };
    if !DIRECTIVES.contains(&directive) {
        return Err(wrong(format!("`{directive}` is no directive of a policy")));
    }
    let of_host = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:".contains(&byte);
    let host =
        what.strip_prefix("https://").is_some_and(|host| !host.is_empty() && host.bytes().all(of_host));
    if !WORDS.contains(&what) && !host {
        return Err(wrong(format!("`{what}` is neither {} nor an origin", WORDS.join(", "))));
    }
    Ok(Harmless { directive: directive.into(), what: what.into() })
}

fn hsts(text: &str) -> Result<Option<HeaderValue>, ValueError> {
    if text == "off" {
        return Ok(None);
    }
    let seconds = text.split(';').next().and_then(|first| first.trim().strip_prefix("max-age="));
    let sound = seconds.is_some_and(|seconds| seconds.parse::<u32>().is_ok());
    HeaderValue::from_str(text).ok().filter(|_| sound).map(Some).ok_or_else(|| ValueError {
        message: format!("`{text}` is no HSTS policy"),
        help: "write e.g. \"max-age=31536000; includeSubDomains\", or \"off\"".into(),
    })
}

fn own_header(name: &str, value: &super::Value<'_>) -> Option<(HeaderName, HeaderValue)> {
    let at_key = |message: String, help: &str| value.doc.problem(value.key_span.clone(), message, help);
    let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
        at_key(format!("`{name}` is no header name"), "write e.g. X-Robots-Tag = \"noindex\"");
        return None;
    };
    if let Some(why) = reserved(&header) {
        at_key(format!("`{name}` cannot be set here: {why}"), "remove it");
        return None;
    }
    let parsed = value.parse(|text| {
        HeaderValue::from_str(text).map_err(|_| ValueError {
            message: format!("the value of `{name}` has characters that headers do not have"),
            help: "remove line ends and control characters".into(),
        })
    })?;
    Some((header, parsed))
}

/// What would break the framing of answers, or has a key of its own.
fn reserved(header: &HeaderName) -> Option<&'static str> {
    let hop = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TRAILER,
        header::TE,
        header::DATE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::LOCATION,
        header::SET_COOKIE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    match *header {
        _ if hop.contains(header) => Some("it belongs to the single answer"),
        header::CONTENT_SECURITY_POLICY => Some("the key is `site.headers.csp`"),
        header::STRICT_TRANSPORT_SECURITY => Some("the key is `site.headers.hsts`"),
        _ => None,
    }
}
