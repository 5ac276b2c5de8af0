//! `site.headers.nonce_secret`: the word that an application's pages carry in place of a nonce.

use super::certificates::{bytes_of, permissions, told};
use super::{Table, Value};
use crate::config::app::App;
use crate::config::class::Class;
use crate::config::csp::NONCE;
use crate::config::settings::{CspChoice, Headers, NonceWord};
use crate::config::values::ValueError;

/// Long enough that nobody guesses it, and that a nonce of its length has its 128 bits.
const LENGTH: std::ops::RangeInclusive<usize> = 32..=128;

/// Reads the word, from the config or from a file.
pub(super) fn read(table: &mut Table<'_>) -> Option<NonceWord> {
    let plain = table.parse("nonce_secret", word);
    let _text = table.text("nonce_secret_file");
    let Some(file) = table.get("nonce_secret_file") else { return plain };
    if plain.is_some() {
        file.wrong(ValueError {
            message: "the word stands in `nonce_secret` too".into(),
            help: "remove one of them".into(),
        });
    }
    from_file(&file)
}

fn from_file(value: &Value<'_>) -> Option<NonceWord> {
    let path = value.doc.named_file(value.text()?);
    let bytes = told(value, bytes_of(&path))?;
    permissions(value, &path);
    let text = String::from_utf8_lossy(&bytes);
    told(value, word(text.trim()))
}

fn word(text: &str) -> Result<NonceWord, ValueError> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if LENGTH.contains(&text.len()) && text.bytes().all(sound) {
        return Ok(NonceWord(text.into()));
    }
    Err(ValueError {
        message: "it is no word of 32 to 128 letters, digits, `-` and `_`".into(),
        help: "let chance choose it: `openssl rand -hex 32`".into(),
    })
}

/// A word without a policy that names the nonce does nothing; a policy without a word lets no script run.
pub(super) fn check(mut table: Table<'_>, headers: &Headers, app: &App) {
    let names = |policy: &str| policy.contains(NONCE);
    let named = match &headers.csp {
        CspChoice::Own(policy) => names(policy),
        CspChoice::Off => false,
        CspChoice::App => Class::ALL.iter().any(|class| names(app.csp.get(*class))),
        CspChoice::Variant(name) => app
            .variant(name)
            .is_some_and(|policies| Class::ALL.iter().any(|class| names(policies.get(*class)))),
    };
    match (named, headers.nonce.is_some()) {
        (false, true) => {
            let value = table.get("nonce_secret_file").or_else(|| table.get("nonce_secret"));
            if let Some(value) = value {
                value.wrong(ValueError {
                    message: "no policy of the site names the nonce".into(),
                    help: "write it into `csp` or the app file's policy of class page: script-src 'nonce-{nonce}'".into(),
                });
            }
        }
        // A word that was refused has been told of.
        (true, false) if table.get("nonce_secret").is_none() && table.get("nonce_secret_file").is_none() => {
            let span = table.get("csp").map_or_else(|| table.span.clone(), |value| value.span);
            table.doc.problem(
                span,
                "the policy names a nonce, and nothing says where the application's pages have it",
                "add nonce_secret_file = \"…\", a word of 32 characters or more that the application writes as nonce=\"…\"",
            );
        }
        _ => {}
    }
}
