//! What `portcullis check` shows of a site's tokens: who says which are true, and who may end sessions.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::config::settings::Site;
use crate::config::verification::{KeySource, Verification, Wanted};

/// For people; nothing where the application alone says which tokens are true.
pub(super) fn write(site: &Site, out: &mut dyn Write) -> io::Result<()> {
    if let Some(found) = &site.verification {
        writeln!(out, "  verified    {}", keys(&found.source))?;
        let mut asked = wanted(&found.wanted);
        if found.cut_at_expiry {
            asked.push("streams end with their token".into());
        }
        if !asked.is_empty() {
            writeln!(out, "              {}", asked.join("; "))?;
        }
    }
    if let Some(found) = &site.backchannel {
        writeln!(out, "  logouts     {}", keys(&found.source))?;
        writeln!(out, "              {}", wanted(&found.wanted).join("; "))?;
    }
    Ok(())
}

/// The same for `--json`.
pub(super) fn json(found: Option<&Verification>) -> Value {
    let Some(Verification { source, wanted, cut_at_expiry }) = found else { return Value::Null };
    let keys = match source {
        KeySource::File(path, keys) => json!({ "file": path, "count": keys.len() }),
        KeySource::Address(address) => json!({ "address": address.url }),
    };
    let claims: Map<_, _> =
        wanted.claims.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    json!({
        "keys": keys,
        "algorithms": algorithms(source),
        "issuer": wanted.issuers,
        "audience": wanted.audiences,
        "claims": claims,
        "cut_at_expiry": cut_at_expiry,
    })
}

fn keys(source: &KeySource) -> String {
    match source {
        KeySource::File(path, keys) => {
            let noun = if keys.len() == 1 { "key" } else { "keys" };
            let algorithms = algorithms(source).join(", ");
            format!("with {} {noun} of {} ({algorithms})", keys.len(), path.display())
        }
        KeySource::Address(address) => {
            format!("with the keys that {} publishes, which say the algorithms", address.url)
        }
    }
}

/// Each once; of keys that are fetched nothing is known before.
fn algorithms(source: &KeySource) -> Vec<String> {
    let KeySource::File(_, keys) = source else { return Vec::new() };
    let mut words = Vec::new();
    for algorithm in keys.iter().flat_map(|key| key.algorithms()) {
        let word = format!("{algorithm:?}");
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

fn wanted(wanted: &Wanted) -> Vec<String> {
    let one_of = |name: &str, words: &[Box<str>]| {
        (!words.is_empty()).then(|| format!("{name} {}", words.join(" or ")))
    };
    let claims = wanted.claims.iter().map(|(name, value)| format!("{name} = {value}"));
    one_of("issuer", &wanted.issuers)
        .into_iter()
        .chain(one_of("audience", &wanted.audiences))
        .chain(claims)
        .collect()
}
