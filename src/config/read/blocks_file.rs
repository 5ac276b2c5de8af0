//! `blocks.toml`: a block list kept as a file, for those who keep it in git. Fingerprints, never tokens.
//!
//! Each `[[blocks]]` names one thing: `fingerprint`, `jti`, `subject`, `share` (the keyed hash that `portcullis blocks`
//! shows), `address`, or `everyone = true`. An entry that is removed is lifted; only `blocks = []` lifts all.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Doc, Found, Table, Value, read_file_up_to};
use crate::config::problem::{Problem, Problems};
use crate::config::settings::{FileBlock, FileWhat};
use crate::config::values::{ValueError, parse_network};

/// Some hundred thousand entries.
const LARGEST: u64 = 64 << 20;

/// Reads the file that a value names. `None`: it is missing or has no list, which lifts nothing.
pub(super) fn read(value: &Value<'_>) -> Option<Vec<FileBlock>> {
    let path = value.doc.named_file(value.text()?);
    if !path.exists() {
        let help = "blocks that came from it stay; write `blocks = []` into it to lift them all";
        value.doc.warning(value.span.clone(), format!("{} is missing", path.display()), help);
        return None;
    }
    let text = read_file_up_to(&path, LARGEST)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned()));
    match text {
        Ok(text) => {
            let (list, mut found) = Doc::walk(&path, &text, value.doc.now, list);
            found.block_file = std::mem::take(&mut found.problems);
            let sound = found.block_file.0.is_empty();
            value.doc.absorb(found);
            // Half a list would lift the other half.
            list.filter(|_| sound)
        }
        Err(why) => {
            let problem =
                Problem::of_file(&path, format!("the block file cannot be read: {why}"), "mend the file");
            value.doc.absorb(Found { block_file: Problems(vec![problem]), ..Found::default() });
            None
        }
    }
}

fn list(doc: &Doc, mut root: Table<'_>) -> Option<Vec<FileBlock>> {
    let list = root.get("blocks");
    if list.is_none() {
        let help = "blocks that came from it stay; write `blocks = []` to lift them all";
        doc.warning(0..0, "the file has no `blocks`", help);
    }
    let items = list.and_then(|list| list.list());
    root.finish();
    Some(items?.iter().filter_map(Value::table).filter_map(block).collect())
}

fn block(mut table: Table<'_>) -> Option<FileBlock> {
    let mut named: Vec<FileWhat> = Vec::new();
    let and_logins = table.flag("and_logins").unwrap_or(false);
    named.extend(table.parse("fingerprint", |text| hex(text).map(FileWhat::Fingerprint)));
    named.extend(table.text("jti").map(|jti| FileWhat::Jti(jti.into())));
    named.extend(
        table.text("subject").map(|subject| FileWhat::Subject { subject: subject.into(), and_logins }),
    );
    named.extend(table.parse("share", |text| hex(text).map(FileWhat::Share)));
    named.extend(table.parse("address", |text| parse_network(text).map(FileWhat::Address)));
    named.extend(table.flag("everyone").filter(|flag| *flag).map(|_| FileWhat::Everyone { and_logins }));
    let site = table.text("site").map(Into::into);
    let reason = table.text("reason").unwrap_or_default().into();
    let until = table.parse("until", instant);
    let (doc, span) = (table.doc, table.span.clone());
    let before = doc.count();
    table.finish();
    let mut named = named.into_iter();
    match (named.next(), named.next()) {
        (Some(what), None) => Some(FileBlock { what, site, reason, until }),
        _ => {
            if doc.count() == before {
                let help = "name just one: fingerprint, jti, subject, share, address, or everyone = true";
                doc.problem(span, "the entry does not name one thing to block", help);
            }
            None
        }
    }
}

fn hex<const N: usize>(text: &str) -> Result<[u8; N], ValueError> {
    let wrong = || ValueError {
        message: format!("this is not {} hex digits", N * 2),
        help: "copy it from `portcullis blocks`; a token itself has no place in a file".into(),
    };
    let mut bytes = [0; N];
    if text.len() != N * 2 || !text.is_ascii() {
        return Err(wrong());
    }
    for (place, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(place * 2..place * 2 + 2).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

/// Unix milliseconds.
fn instant(text: &str) -> Result<u64, ValueError> {
    let wrong = || ValueError {
        message: format!("`{text}` is no time"),
        help: "write e.g. \"2027-01-31T12:00:00Z\"".into(),
    };
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).map_err(|_| wrong())
}
