//! `[site.tokens]`: lifetimes, and how tokens are verified.

use std::time::Duration;

use toml::de::DeValue;

use super::key_source::{self, Asks};
use super::{Keys, Table, Value};
use crate::config::app::{App, TokenFormat};
use crate::config::values::{ValueError, parse_duration};
use crate::config::verification::{Verification, Wanted};

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
    backchannel: Option<Verification>,
    /// Where `backchannel_logout` stands, likewise.
    ordered_at: Option<super::Span>,
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
    let source = table.table("verify").and_then(|mut table| {
        let source = key_source::read(&mut table, Asks::OfItself);
        table.finish();
        source
    });
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
    let verification = source.map(|source| Verification { source, wanted, cut_at_expiry });
    let ordered_at = table.get("backchannel_logout").map(|value| value.span);
    let backchannel =
        table.table("backchannel_logout").and_then(|table| backchannel(table, verification.as_ref()));
    table.finish();
    Tokens {
        lifetime,
        refresh_lifetime,
        verification,
        at,
        companion_cookie,
        members_only,
        companion_at,
        previews_at,
        backchannel,
        ordered_at,
    }
}

/// Whose orders to log out are obeyed. The keys are those of `verify`, unless others are named; an order without a named
/// issuer and audience could be for anybody.
fn backchannel(mut table: Table<'_>, verified: Option<&Verification>) -> Option<Verification> {
    let count = table.doc.count();
    let source = key_source::read(&mut table, Asks::Others(verified.map(|known| &known.source)));
    let mut issuers = words(&mut table, "issuer");
    if issuers.is_empty() {
        issuers.extend(verified.into_iter().flat_map(|known| known.wanted.issuers.clone()));
    }
    let audiences = words(&mut table, "audience");
    for (key, missing) in [("issuer", issuers.is_empty()), ("audience", audiences.is_empty())] {
        if missing && table.doc.count() == count {
            let help = "write backchannel_logout = { issuer = \"https://id.example.com\", audience = \"CLIENT_ID\", … }";
            table.doc.missing(table.span.clone(), format!("`backchannel_logout` names no `{key}`"), help);
        }
    }
    table.finish();
    let wanted = Wanted { issuers, audiences, claims: Vec::new() };
    Some(Verification { source: source?, wanted, cut_at_expiry: false })
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

    /// Whose orders to log out are obeyed.
    pub fn backchannel(&self, app: &App, doc: &super::Doc) -> Option<Verification> {
        let found = self.backchannel.clone()?;
        if app.tokens.format == TokenFormat::Opaque {
            let message = format!("tokens of `{}` are opaque: they do not say whose they are", app.name);
            doc.problem(self.ordered_at.clone().unwrap_or_default(), message, "remove `backchannel_logout`");
            return None;
        }
        Some(found)
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
