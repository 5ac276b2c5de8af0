//! `[site.tokens]`: lifetimes, and how tokens are verified.

use std::path::Path;
use std::time::Duration;

use toml::de::DeValue;

use super::certificates::permissions;
use super::{Keys, Table, Value, read_file};
use crate::config::app::{App, TokenFormat};
use crate::config::keys;
use crate::config::values::{ValueError, parse_duration};
use crate::config::verification::{Address, KeySource, Verification, Wanted};

/// What `[site.tokens]` says.
pub(super) struct Tokens {
    pub lifetime: Option<Duration>,
    pub refresh_lifetime: Option<Duration>,
    verification: Option<Verification>,
    /// Where `verify` stands, for what only the app file can tell.
    at: Option<super::Span>,
    /// `companion_cookie`.
    pub companion_cookie: bool,
    /// `previews = "members"`.
    pub members_only: bool,
    companion_at: Option<super::Span>,
    previews_at: Option<super::Span>,
}

/// Reads the section.
pub(super) fn tokens(mut table: Table<'_>) -> Tokens {
    let lifetime = table.parse("lifetime", parse_duration);
    let refresh_lifetime = table.parse("refresh_lifetime", parse_duration);
    let wanted = Wanted {
        issuers: words(&mut table, "issuer"),
        audiences: words(&mut table, "audience"),
        claims: table.table("claims").map(claims).unwrap_or_default(),
    };
    let cut_at_expiry = table.flag("cut_at_expiry").unwrap_or(false);
    let companion_cookie = table.flag("companion_cookie").unwrap_or(false);
    let companion_at = table.get("companion_cookie").map(|value| value.span);
    let members_only = table.choice("previews", &[("open", false), ("members", true)]).unwrap_or(false);
    let previews_at = table.get("previews").map(|value| value.span);
    let at = table.get("verify").map(|value| value.span);
    let source = table.table("verify").and_then(source);
    if at.is_none() {
        for key in ["issuer", "audience", "claims", "cut_at_expiry"] {
            if let Some(value) = table.get(key) {
                value.wrong(ValueError {
                    message: "it says what verified tokens must say, and nothing verifies them".into(),
                    help: "add verify = { key_file = \"…\" } or { jwks = \"https://…\" }".into(),
                });
            }
        }
    }
    table.finish();
    let verification = source.map(|source| Verification { source, wanted, cut_at_expiry });
    Tokens {
        lifetime,
        refresh_lifetime,
        verification,
        at,
        companion_cookie,
        members_only,
        companion_at,
        previews_at,
    }
}

impl Tokens {
    /// The verification, completed by what the app file says of its tokens.
    pub fn verification(&self, app: &App, doc: &super::Doc) -> Option<Verification> {
        let mut found = self.verification.clone()?;
        if app.tokens.format == TokenFormat::Opaque {
            let message = format!("tokens of `{}` are opaque: nobody but it can verify them", app.name);
            doc.problem(self.at.clone().unwrap_or_default(), message, "remove `verify`");
            return None;
        }
        if found.wanted.issuers.is_empty() {
            found.wanted.issuers.extend(app.tokens.issuer.clone());
        }
        Some(found)
    }

    /// Nothing is accepted that could not work: a cookie of a token that nobody sees, previews for members that nobody
    /// can prove to be.
    pub fn check_companion(&self, app: &App, doc: &super::Doc) {
        if let (true, Some(at), None) = (self.companion_cookie, &self.companion_at, &app.login) {
            let message =
                format!("the app file `{}` does not say where a login hands out its token", app.name);
            doc.problem(
                at.clone(),
                message,
                "write [login] token = \"…\" in the app file, or remove the key",
            );
        }
        if let (true, Some(at)) =
            (self.members_only && !self.companion_cookie && self.at.is_none(), &self.previews_at)
        {
            let message = "nobody could prove to be a member: a token that is not verified may be anybody's";
            doc.problem(at.clone(), message, "add companion_cookie = true, or `verify`");
        }
    }
}

fn source(mut table: Table<'_>) -> Option<KeySource> {
    // Both are asked what they are, so that each is told its own mistake.
    let _texts = (table.text("key_file"), table.text("jwks"));
    let (file, address) = (table.get("key_file"), table.get("jwks"));
    let ca_file = table.text("ca_file").map(|path| table.doc.named_file(path));
    let source = match (file, address) {
        (Some(file), None) => from_file(&file),
        (None, Some(address)) => {
            address.parse(checked_url).map(|url| KeySource::Address(Address { url, ca_file }))
        }
        _ => {
            let help = "write { key_file = \"jwt-public.pem\" } or { jwks = \"https://…\" }";
            table.doc.problem(table.span.clone(), "`verify` wants one of `key_file` and `jwks`", help);
            None
        }
    };
    table.finish();
    source
}

fn from_file(value: &Value<'_>) -> Option<KeySource> {
    let path = value.doc.named_file(value.text()?);
    let unreadable = |why| ValueError {
        message: format!("{} cannot be read: {why}", path.display()),
        help: "name a file that exists and that this user may read".into(),
    };
    let bytes = read_file(&path).map_err(|why| value.wrong(unreadable(why))).ok()?;
    if is_secret(&bytes) {
        permissions(value, &path);
    }
    match keys::read_file(&bytes) {
        Ok(keys) => Some(KeySource::File(keys.into())),
        Err(error) => {
            value.wrong(ValueError { message: in_file(&path, &error.message), help: error.help.into() });
            None
        }
    }
}

fn in_file(path: &Path, message: &str) -> String {
    format!("{}: {message}", path.display())
}

/// All but public keys in PEM may hold a shared secret.
fn is_secret(bytes: &[u8]) -> bool {
    !bytes.trim_ascii_start().starts_with(b"-----BEGIN")
}

/// https, so that nobody on the way gives us keys of his own; http on this machine only.
fn checked_url(text: &str) -> Result<Box<str>, ValueError> {
    let wrong = |message: &str, help: &str| ValueError { message: message.into(), help: help.into() };
    let uri: http::Uri = text
        .parse()
        .map_err(|_| wrong("it is no address", "write e.g. \"https://id.example.com/jwks.json\""))?;
    let host = uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here =
        bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        _ if host.is_empty() || text.contains('@') => {
            Err(wrong("it names no host, or a user", "write e.g. \"https://id.example.com/jwks.json\""))
        }
        Some("https") => Ok(text.into()),
        Some("http") if here => Ok(text.into()),
        _ => Err(wrong("keys fetched without TLS could be anybody's", "write https://")),
    }
}

/// One word or a list of them.
fn words(table: &mut Table<'_>, key: &'static str) -> Vec<Box<str>> {
    let Some(value) = table.get(key) else { return Vec::new() };
    let items = if value.is_list() { value.list().unwrap_or_default() } else { vec![value] };
    items.iter().filter_map(|item| item.parse(super::app::issuer)).collect()
}

fn claims(table: Table<'_>) -> Vec<(Box<str>, serde_json::Value)> {
    let read = |(name, value): (&str, Value<'_>)| {
        let said = match value.inner {
            DeValue::Boolean(flag) => (*flag).into(),
            DeValue::Integer(_) => value.number::<u64>()?.into(),
            _ => value.text()?.into(),
        };
        Some((name.into(), said))
    };
    table.entries(Keys::Any).filter_map(read).collect()
}
