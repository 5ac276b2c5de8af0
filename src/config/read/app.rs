//! App files: built in or by path.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use super::site::{class_of, class_of_key, rate, rate_entry};
use super::{
    Doc, Keys, Sketch, Table, Value, headers, learn, login, read_file, route, share, suggestion, upstreams,
};
use crate::clock::Now;
use crate::config::app::{App, AppRoute, Carrier, DenialBody, Harmless, TokenFormat, Tokens};
use crate::config::class::Class;
use crate::config::defaults;
use crate::config::settings::ClassMap;
use crate::config::values::{ByteSize, ValueError, parse_duration};

const BUILTIN: [(&str, &str); 6] = [
    ("archipy", include_str!("../../../config/apps/archipy.toml")),
    ("arkeep", include_str!("../../../config/apps/arkeep.toml")),
    ("coolify", include_str!("../../../config/apps/coolify.toml")),
    ("dokploy", include_str!("../../../config/apps/dokploy.toml")),
    ("generic", include_str!("../../../config/apps/generic.toml")),
    ("keepstack", include_str!("../../../config/apps/keepstack.toml")),
];

/// The format that this version reads.
const SCHEMA: u64 = 1;

/// App files that were read already: several sites of one application are told its problems once.
#[derive(Debug, Default)]
pub(super) struct Cache(Vec<(PathBuf, Option<Arc<App>>)>);

/// The names of the built-in app files.
pub(in crate::config) fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.into_iter().map(|(name, _)| name)
}

/// The text of a built-in app file.
pub(in crate::config) fn builtin_text(name: &str) -> Option<&'static str> {
    BUILTIN.into_iter().find(|(known, _)| *known == name).map(|(_, text)| text)
}

/// A built-in app file, read.
pub(in crate::config) fn builtin(name: &str, now: Now) -> Option<App> {
    let path = PathBuf::from(format!("<built-in>/{name}.toml"));
    Doc::walk(&path, builtin_text(name)?, now, |_, root| app(root)).0
}

/// What the reader asks of an app file, by a specimen.
pub(in crate::config) fn sketch(specimen: &str) -> Sketch {
    Doc::sketch(specimen, |_, root| app(root))
}

/// Reads `site.app` and the file that it names.
pub(super) fn of_site(table: &mut Table<'_>, cache: &mut Cache) -> Option<Arc<App>> {
    let Some(value) = table.get("app") else {
        return cache.builtin(table.doc, defaults::APP);
    };
    let word = value.text()?;
    if word.contains('/') || word.ends_with(".toml") {
        let path = value.doc.named_file(word);
        let text = read_file(&path)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".into()));
        return match text {
            Ok(text) => cache.text(&path, &text, value.doc),
            Err(why) => {
                let message = format!("{} cannot be read: {why}", path.display());
                let names: Vec<_> = builtin_names().collect();
                let help = format!("name an app file, or a built-in one: {}", names.join(", "));
                value.wrong(ValueError { message, help });
                None
            }
        };
    }
    if builtin_text(word).is_none() {
        let names: Vec<_> = builtin_names().collect();
        let help = format!("{} (a path has a `/` in it or ends in `.toml`)", suggestion(word, &names));
        value.wrong(ValueError { message: format!("`{word}` is no built-in app file"), help });
    }
    cache.builtin(value.doc, word)
}

impl Cache {
    fn builtin(&mut self, doc: &Doc, name: &str) -> Option<Arc<App>> {
        let text = builtin_text(name)?;
        self.text(&PathBuf::from(format!("<built-in>/{name}.toml")), text, doc)
    }

    fn text(&mut self, path: &Path, text: &str, doc: &Doc) -> Option<Arc<App>> {
        if let Some((_, app)) = self.0.iter().find(|(known, _)| known == path) {
            return app.clone();
        }
        let (app, found) = Doc::walk(path, text, doc.now, |_, root| app(root));
        doc.absorb(found);
        let app = app.map(Arc::new);
        self.0.push((path.into(), app.clone()));
        app
    }
}

fn app(mut root: Table<'_>) -> Option<App> {
    schema(&mut root);
    let name = required(&mut root, "name", "name = \"keepstack\"").and_then(|()| root.parse("name", name));
    let title = root.text("title").map(Box::from);
    let default_class = required(&mut root, "default_class", "default_class = \"page\"")
        .and_then(|()| class_of(&mut root, "default_class"));
    if let Some(class) = default_class.filter(|class| class.restricts()) {
        let message = format!("`{class}` restricts access: a default of it would close the application");
        root.doc.problem(root.span.clone(), message, "write default_class = \"page\" or \"api\"");
    }
    let csp = policies(root.section("csp"));
    let denials = root.section("denials");
    let denials: Vec<_> =
        denials.entries(Keys::Statuses).filter_map(|(key, value)| denial(key, &value)).collect();
    let rate = root.section("rate");
    let tokens = tokens(root.section("tokens"));
    let routes = routes(&root.section("routes"));
    let app = App {
        share: share::share(root.section("share"), &routes),
        bounds: share::bounds(&mut root),
        routes,
        health_path: root.parse("health_path", upstreams::parse_path).flatten(),
        login: login::read(&mut root, tokens.account_claim.is_some()),
        teaches: learn::read(&mut root, &tokens),
        tokens,
        csp_harmless: harmless(&root.section("csp_harmless")),
        csp_variants: variants(&root.section("csp_variants"), &csp),
        csp,
        denials,
        replace: replaced(&root.section("replace")),
        rate: rate.entries(Keys::Classes).filter_map(|(key, value)| rate_entry(key, &value)).collect(),
        body: bodies(&root.section("body")),
        title: title.or_else(|| name.clone()).unwrap_or_default(),
        name: name.unwrap_or_default(),
        default_class: default_class.unwrap_or(Class::Page),
    };
    root.finish();
    Some(app)
}

fn schema(root: &mut Table<'_>) {
    let Some(value) = root.needs("schema") else {
        root.doc.missing(0..0, "the app file names no `schema`", "write schema = 1 in its first line");
        return;
    };
    if let Some(other) = value.number::<u64>().filter(|schema| *schema != SCHEMA) {
        value.wrong(ValueError {
            message: format!("this version reads schema {SCHEMA}, not {other}"),
            help: "take a newer portcullis, or an older app file".into(),
        });
    }
}

fn required(root: &mut Table<'_>, key: &'static str, example: &str) -> Option<()> {
    if root.needs(key).is_none() {
        root.doc.missing(0..0, format!("the app file names no `{key}`"), format!("write e.g. {example}"));
        return None;
    }
    Some(())
}

fn name(text: &str) -> Result<Box<str>, ValueError> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&text.len()) && text.bytes().all(sound) {
        return Ok(text.into());
    }
    let help = "use up to 32 small letters, digits and `-`: it is a word of logs and metrics";
    Err(ValueError { message: format!("`{text}` is no name"), help: help.into() })
}

fn routes(table: &Table<'_>) -> Vec<AppRoute> {
    let mut routes = Vec::new();
    for (word, value) in table.entries(Keys::Classes) {
        let class = class_of_key(word, &value);
        for item in value.list().unwrap_or_default() {
            routes.extend(app_route(&item, class));
        }
    }
    routes
}

/// `"GET /path"`, or `{ match = "/path", port = 6001, rate = { … } }` for another port of the same application, or a rate of
/// its own.
fn app_route(item: &Value<'_>, class: Option<Class>) -> Option<AppRoute> {
    if !item.is_table() {
        let (method, pattern) = route::route_match(item, class)?;
        return Some(AppRoute { method, pattern, class: class?, port: None, rate: None });
    }
    let mut table = item.table()?;
    let matches = table.needs("match").and_then(|value| route::route_match(&value, class));
    if table.get("match").is_none() {
        let help = "write e.g. { match = \"/app/{key}\", port = 6001 }";
        table.doc.missing(table.span.clone(), "the route names no `match`", help);
    }
    let port = table.number("port");
    let rate = table.get("rate").and_then(|value| rate(&value));
    table.finish();
    let (method, pattern) = matches?;
    Some(AppRoute { method, pattern, class: class?, port, rate })
}

fn tokens(mut table: Table<'_>) -> Tokens {
    let formats =
        [("jwt", TokenFormat::Jwt), ("hmac-pair", TokenFormat::HmacPair), ("opaque", TokenFormat::Opaque)];
    let format = table.choice("format", &formats).unwrap_or(TokenFormat::Opaque);
    let mut carriers = table.list("carriers", carrier).unwrap_or_default();
    // Every application that we know of takes it, and one that does not ignores it.
    if !carriers.contains(&Carrier::Bearer) {
        carriers.insert(0, Carrier::Bearer);
    }
    let tokens = Tokens {
        format,
        carriers,
        refresh_cookie: table.parse("refresh_cookie", field_name),
        account_claim: table.parse("account_claim", login::field),
        issuer: table.parse("issuer", issuer),
        lifetime: table.parse("lifetime", parse_duration).unwrap_or(defaults::TOKEN_LIFETIME),
        refresh_lifetime: table.parse("refresh_lifetime", parse_duration).unwrap_or_default(),
    };
    table.finish();
    tokens
}

/// An issuer that everybody can read in the documentation says nothing of who issued.
pub(super) fn issuer(text: &str) -> Result<Box<str>, ValueError> {
    const PLACEHOLDERS: [&str; 2] = ["your-app-name", "your-app-audience"];
    if PLACEHOLDERS.contains(&text) {
        return Err(ValueError {
            message: format!("`{text}` is the placeholder of ArchiPy's settings"),
            help: "let the application name itself in its tokens (issuer and audience), and write that name"
                .into(),
        });
    }
    Ok(text.into())
}

pub(super) fn carrier(text: &str) -> Result<Carrier, ValueError> {
    match text.split_once(':') {
        None if text == "bearer" => Ok(Carrier::Bearer),
        None if text == "basic" => Ok(Carrier::Basic),
        None if text == "subprotocol" => Ok(Carrier::Subprotocol),
        Some(("cookie", name)) => field_name(name).map(Carrier::Cookie),
        Some(("query", name)) => field_name(name).map(Carrier::Query),
        _ => Err(ValueError {
            message: format!("`{text}` is no place of tokens"),
            help: "write \"bearer\", \"basic\", \"cookie:NAME\", \"query:NAME\" or \"subprotocol\"".into(),
        }),
    }
}

fn field_name(text: &str) -> Result<Box<str>, ValueError> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && text.bytes().all(sound) {
        return Ok(text.into());
    }
    let help = "use letters, digits, `-`, `_` and `.`";
    Err(ValueError { message: format!("`{text}` is no name of a cookie or parameter"), help: help.into() })
}

fn policies(mut table: Table<'_>) -> ClassMap<Box<str>> {
    let default = table.parse("default", headers::csp).unwrap_or_else(|| defaults::CSP.into());
    let mut policies = ClassMap::from_fn(|_| default.clone());
    by_class(table.entries(Keys::Classes).filter(|(word, _)| *word != "default"), &mut policies);
    policies
}

fn by_class<'d>(entries: impl Iterator<Item = (&'d str, Value<'d>)>, policies: &mut ClassMap<Box<str>>) {
    for (word, value) in entries {
        let policy = value.parse(headers::csp);
        if let Some((class, policy)) = class_of_key(word, &value).zip(policy) {
            *policies.get_mut(class) = policy;
        }
    }
}

/// `CLASS = ["DIRECTIVE WHAT", …]`.
fn harmless(table: &Table<'_>) -> Vec<(Class, Harmless)> {
    let mut all = Vec::new();
    for (word, value) in table.entries(Keys::Classes) {
        let class = class_of_key(word, &value);
        for item in value.list().unwrap_or_default() {
            all.extend(class.zip(item.parse(headers::harmless)));
        }
    }
    all
}

/// Each variant names the classes in which it differs from `[csp]`.
fn variants(table: &Table<'_>, csp: &ClassMap<Box<str>>) -> Vec<(Box<str>, ClassMap<Box<str>>)> {
    let mut variants = Vec::new();
    for (word, value) in table.entries(Keys::Any) {
        let named =
            name(word).map_err(|error| value.doc.problem(value.key_span.clone(), error.message, error.help));
        let mut policies = csp.clone();
        if let Some(table) = value.table() {
            by_class(table.entries(Keys::Classes), &mut policies);
        }
        variants.extend(named.map(|named| (named, policies)));
    }
    variants
}

/// `CLASS = [STATUS, …]`: answers of the application that say too much.
fn replaced(table: &Table<'_>) -> Vec<(Class, StatusCode)> {
    let mut replaced = Vec::new();
    for (word, value) in table.entries(Keys::Classes) {
        let class = class_of_key(word, &value);
        for item in value.list().unwrap_or_default() {
            let Some(number) = item.number::<u16>() else { continue };
            match (class, error_status(number)) {
                (Some(class), Some(status)) => replaced.push((class, status)),
                (_, None) => item.wrong(ValueError {
                    message: format!("{number} is no status of an error"),
                    help: "name statuses from 400 to 599, e.g. login = [422]".into(),
                }),
                (None, _) => {}
            }
        }
    }
    replaced
}

pub(super) fn error_status(code: u16) -> Option<StatusCode> {
    let status = StatusCode::from_u16(code).ok()?;
    (status.is_client_error() || status.is_server_error()).then_some(status)
}

fn denial(key: &str, value: &Value<'_>) -> Option<DenialBody> {
    let status = key.parse().ok().and_then(error_status);
    if status.is_none() {
        let help = "write the number of an error, e.g. [denials.401]";
        value.doc.problem(value.key_span.clone(), format!("`{key}` is no status of a denial"), help);
    }
    let mut table = value.table()?;
    let content_type = table.parse("content_type", |text| {
        HeaderValue::from_str(text).map_err(|_| ValueError {
            message: format!("`{text}` is no content type"),
            help: "write e.g. \"application/json\"".into(),
        })
    });
    let body = table.text("body");
    if table.needs("body").is_none() {
        let message = format!("`{}` names no `body`", value.name);
        table.doc.missing(value.key_span.clone(), message, "write what the application would answer");
    }
    table.finish();
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/json"));
    Some(DenialBody { status: status?, content_type, body: body?.into() })
}

fn bodies(table: &Table<'_>) -> Vec<(Class, ByteSize)> {
    let entries = table.entries(Keys::Classes);
    entries.filter_map(|(word, value)| class_of_key(word, &value).zip(value.parse(str::parse))).collect()
}
