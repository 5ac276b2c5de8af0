//! Where the keys are that tokens are verified with: a file, or an address and how its server is believed.

use std::path::Path;

use super::certificates::permissions;
use super::upstream_tls::of_server;
use super::{Table, Value, read_file};
use crate::config::keys;
use crate::config::values::ValueError;
use crate::config::verification::{Address, KeySource};

/// Whether a table must name its keys.
pub(super) enum Asks<'a> {
    /// It must.
    OfItself,
    /// These count where it does not.
    Others(Option<&'a KeySource>),
}

/// Reads `key_file`, or `jwks` and `ca_file`. All that can be wrong with a file is told here, not when it is needed.
pub(super) fn read(table: &mut Table<'_>, asks: Asks<'_>) -> Option<KeySource> {
    // Both are asked what they are, so that each is told its own mistake.
    let _texts = (table.text("key_file"), table.text("jwks"), table.text("ca_file"));
    let (file, address) = (table.get("key_file"), table.get("jwks"));
    let ca_file = table.get("ca_file");
    let useless = |ca_file: Option<Value<'_>>| {
        if let Some(value) = ca_file {
            value.wrong(ValueError {
                message: "nothing is fetched over TLS that it could be for".into(),
                help: "remove `ca_file`; it belongs beside jwks = \"https://…\"".into(),
            });
        }
    };
    match (file, address, asks) {
        (Some(file), None, _) => {
            useless(ca_file);
            from_file(&file)
        }
        (None, Some(address), _) => {
            let uri = address.parse(checked_url)?;
            let url = address.text()?.into();
            if uri.scheme_str() != Some("https") {
                useless(ca_file);
                return Some(KeySource::Address(Address { url, tls: None }));
            }
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let tls = Some(of_server(&address, ca_file.as_ref(), host)?);
            Some(KeySource::Address(Address { url, tls }))
        }
        (None, None, Asks::Others(Some(known))) => {
            useless(ca_file);
            Some(known.clone())
        }
        _ => {
            let name = table.name.rsplit('.').next().unwrap_or_default();
            let help = "write { key_file = \"jwt-public.pem\" } or { jwks = \"https://…\" }";
            let message = format!("`{name}` wants one of `key_file` and `jwks`");
            table.doc.problem(table.span.clone(), message, help);
            None
        }
    }
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
        Ok(keys) => Some(KeySource::File(path, keys.into())),
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
fn checked_url(text: &str) -> Result<http::Uri, ValueError> {
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
        Some("https") => Ok(uri),
        Some("http") if here => Ok(uri),
        _ => Err(wrong("keys fetched without TLS could be anybody's", "write https://")),
    }
}
