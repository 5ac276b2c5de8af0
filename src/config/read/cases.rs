//! Files of cases.

use std::net::IpAddr;

use super::{Doc, Keys, Sketch, Span, Table, Value};
use crate::config::cases::{Case, Cases, Expected, JudgedBy, What};
use crate::config::class::Class;
use crate::config::values::ValueError;

/// The format that this version reads.
const SCHEMA: u64 = 1;
/// Documentation's own network: nobody's neighbour.
const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
/// More tells nothing more, and each costs a decision.
const MOST_REPEATS: u32 = 100_000;

/// Reads the file.
pub(super) fn read(doc: &Doc, mut root: Table<'_>) -> Option<Cases> {
    schema(&mut root);
    let judged_by = judged_by(&mut root);
    if root.needs("case").is_none() {
        let help = "write [[case]] with name, request and expect";
        doc.missing(0..0, "there is no case", help);
    }
    let mut seen = Vec::new();
    let cases = root.tables("case").into_iter().filter_map(|table| case(table, &mut seen)).collect();
    root.finish();
    Some(Cases { file: doc.file.clone(), source: doc.source(), judged_by, cases })
}

/// What the reader asks of a file of cases, by a specimen.
pub(in crate::config) fn sketch(specimen: &str) -> Sketch {
    Doc::sketch(specimen, read)
}

fn schema(root: &mut Table<'_>) {
    let Some(value) = root.needs("schema") else {
        root.doc.missing(0..0, "the file names no `schema`", "write schema = 1 in its first line");
        return;
    };
    if let Some(other) = value.number::<u64>().filter(|schema| *schema != SCHEMA) {
        let message = format!("this version reads schema {SCHEMA}, not {other}");
        value.wrong(ValueError { message, help: "take a newer portcullis, or older cases".into() });
    }
}

fn judged_by(root: &mut Table<'_>) -> Option<JudgedBy> {
    let doc = root.doc;
    let app = root.text("app").map(|word| match word.contains('/') || word.ends_with(".toml") {
        true => JudgedBy::App(doc.resolve(word).display().to_string().into()),
        false => JudgedBy::App(word.into()),
    });
    let config = root.text("config").map(|path| JudgedBy::Config(doc.resolve(path)));
    if let (Some(_), Some(_), Some(value)) = (&app, &config, root.get("config")) {
        let help = "keep `config`, which names its own app files, or `app` for that file alone";
        doc.problem(value.key_span, "the cases are judged by `app` or by `config`, not by both", help);
    }
    config.or(app)
}

fn case(mut table: Table<'_>, seen: &mut Vec<(String, Span)>) -> Option<Case> {
    for (key, example) in [
        ("name", "name = \"strangers see no metrics\""),
        ("request", "request = \"GET https://files.example.com/metrics\""),
        ("expect", "expect = { verdict = \"deny\", status = 404 }"),
    ] {
        if table.needs(key).is_none() {
            let message = format!("the case names no `{key}`");
            table.doc.missing(table.span.clone(), message, format!("write e.g. {example}"));
        }
    }
    let name = name(&mut table, seen);
    let requests = table.get("request").map(|value| requests(&value)).unwrap_or_default();
    let from = table.parse("from", address).unwrap_or(FROM);
    let headers = table.list("headers", header).unwrap_or_default();
    let repeat = table.get("repeat").and_then(|value| repeat(&value)).unwrap_or(1);
    let expected = table.table("expect").map(expected).unwrap_or_default();
    let span = table.span.clone();
    table.finish();
    Some(Case { name: name?, requests, from, headers, repeat, expected, span })
}

fn name(table: &mut Table<'_>, seen: &mut Vec<(String, Span)>) -> Option<Box<str>> {
    let text = table.text("name")?;
    let span = table.get("name")?.span;
    if let Some((_, first)) = seen.iter().find(|(known, _)| known == text) {
        let help =
            format!("give each case a name of its own: this one stands in line {}", table.doc.line_of(first));
        table.doc.problem(span, format!("two cases are called `{text}`"), help);
        return None;
    }
    seen.push((text.to_owned(), span));
    Some(text.into())
}

fn requests(value: &Value<'_>) -> Vec<Box<str>> {
    if !value.is_list() {
        return value.parse(request).into_iter().collect();
    }
    let items = value.list().unwrap_or_default();
    if items.is_empty() {
        let help = "write at least one, e.g. \"GET https://files.example.com/\"";
        value.wrong(ValueError { message: "the list is empty".into(), help: help.into() });
    }
    items.iter().filter_map(|item| item.parse(request)).collect()
}

fn request(text: &str) -> Result<Box<str>, ValueError> {
    let (method, url) = text.trim().split_once(' ').unwrap_or(("GET", text.trim()));
    let sound = method.parse::<http::Method>().is_ok()
        && url.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.authority().is_some());
    if sound {
        return Ok(text.into());
    }
    Err(ValueError {
        message: format!("`{text}` is no request"),
        help: "write a method and a whole URL, e.g. \"POST https://files.example.com/api/auth/login\"".into(),
    })
}

fn address(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| ValueError {
        message: format!("`{text}` is no address"),
        help: "write e.g. \"203.0.113.7\" or \"2001:db8::7\"".into(),
    })
}

fn header(text: &str) -> Result<Box<str>, ValueError> {
    let sound = text.split_once(':').is_some_and(|(name, value)| {
        http::HeaderName::from_bytes(name.trim().as_bytes()).is_ok()
            && http::HeaderValue::from_str(value.trim()).is_ok()
    });
    if sound {
        return Ok(text.into());
    }
    let help = "write e.g. \"Accept: text/html\"";
    Err(ValueError { message: format!("`{text}` is no header"), help: help.into() })
}

fn repeat(value: &Value<'_>) -> Option<u32> {
    let count = value.number::<u32>()?;
    if count > MOST_REPEATS {
        let help = format!("write a number up to {MOST_REPEATS}");
        value.wrong(ValueError { message: format!("{count} is out of range"), help });
    }
    Some(count)
}

fn expected(mut table: Table<'_>) -> Vec<Expected> {
    let before = table.doc.count();
    let mut all = Vec::new();
    let one =
        |what, value: &Value<'_>, text: &str| Expected { what, value: text.into(), span: value.span.clone() };
    if let Some(value) = table.get("verdict") {
        let words = ["permit", "would_deny", "deny", "malformed", "redirect"].map(|word| (word, word));
        all.extend(value.choice(&words).map(|word| one(What::Verdict, &value, word)));
    }
    if let Some(value) = table.get("status") {
        all.extend(value.number::<u16>().map(|status| one(What::Status, &value, &status.to_string())));
    }
    if let Some(value) = table.get("class") {
        let words = Class::ALL.map(|class| (class.word(), class.word()));
        all.extend(value.choice(&words).map(|word| one(What::Class, &value, word)));
    }
    let texts = [
        ("route", What::Route),
        ("guard", What::Guard),
        ("reason", What::Reason),
        ("upstream", What::Upstream),
    ];
    for (key, what) in texts {
        if let Some(value) = table.get(key) {
            all.extend(value.text().map(|text| one(what, &value, text)));
        }
    }
    for value in table.get("csp").and_then(|value| value.list()).unwrap_or_default() {
        all.extend(value.text().map(|text| one(What::Csp, &value, text)));
    }
    for (name, value) in table.section("headers").entries(Keys::Any) {
        let what = What::Header(name.to_ascii_lowercase().into());
        all.extend(value.text().map(|text| one(what, &value, text)));
    }
    let (doc, span) = (table.doc, table.span.clone());
    table.finish();
    if all.is_empty() && doc.count() == before {
        doc.problem(
            span,
            "`expect` expects nothing",
            "write e.g. expect = { verdict = \"deny\", status = 404 }",
        );
    }
    all
}
