//! Lists of networks: addresses and CIDRs in the config itself, or `{ file = "cdn.txt" }` for lists that somebody else
//! keeps, one a line, `#` before a remark. The files are taken over when they change.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Kind, Table, Value, read_file};
use crate::config::problem::{Problem, Problems};
use crate::config::values::{Networks, ValueError, parse_network};

/// Reads the list under a key; `None` when the key is absent or is no list.
pub(super) fn of_key(table: &mut Table<'_>, key: &'static str) -> Option<Networks> {
    let value = table.get(key)?;
    of(&value).map(Networks::new)
}

/// Reads a list.
pub(super) fn of(value: &Value<'_>) -> Option<Vec<IpNet>> {
    let any = value.doc.name_below(&value.name, "", "[]");
    value
        .doc
        .asked(&any, |asked, _| [Kind::Text, Kind::Table].into_iter().for_each(|kind| asked.may_be(kind)));
    value.doc.asked(&format!("{any}.file"), |asked, _| {
        asked.needed = true;
        asked.may_be(Kind::Text);
    });
    let items = value.list()?;
    Some(items.iter().flat_map(item).collect())
}

fn item(item: &Value<'_>) -> Vec<IpNet> {
    if item.is_table() {
        return item.table().map(of_table).unwrap_or_default();
    }
    item.parse(parse_network).into_iter().collect()
}

fn of_table(mut table: Table<'_>) -> Vec<IpNet> {
    let file = table.needs("file");
    if file.is_none() {
        let help = "write { file = \"cdn.txt\" }, or an address in quotes";
        table.doc.missing(table.span.clone(), "the entry names no `file`", help);
    }
    table.finish();
    file.map(|file| of_file(&file)).unwrap_or_default()
}

/// One wrong line refuses the file: half a list of proxies would make clients of the other half.
fn of_file(value: &Value<'_>) -> Vec<IpNet> {
    let Some(path) = value.text().map(|path| value.doc.named_file(path)) else { return Vec::new() };
    let text = read_file(&path)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is no UTF-8 text".to_owned()));
    let text: Arc<str> = match text {
        Ok(text) => text.into(),
        Err(why) => {
            value.wrong(ValueError {
                message: format!("{} cannot be read: {why}", path.display()),
                help: "name a text file with one address or CIDR a line".into(),
            });
            return Vec::new();
        }
    };
    let mut problems = Problems::default();
    let networks = lines(&text, |span, error| {
        let file = path.clone();
        let (message, help) = (error.message, error.help);
        problems.0.push(Problem { file, source: Arc::clone(&text), span: Some(span), message, help });
    });
    if networks.is_empty() && problems.is_empty() {
        value.wrong(ValueError {
            message: format!("{} holds no address", path.display()),
            help: "write one address or CIDR a line; to allow nobody, write an empty list in its place"
                .into(),
        });
    }
    value.doc.absorb(super::Found { problems, ..super::Found::default() });
    networks
}

fn lines(text: &str, mut wrong: impl FnMut(super::Span, ValueError)) -> Vec<IpNet> {
    let mut networks = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let entry = line.split('#').next().unwrap_or_default();
        let bare = entry.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{feff}');
        if !bare.is_empty() {
            let at = start + entry.find(bare).unwrap_or(0);
            match parse_network(bare) {
                Ok(network) => networks.push(network),
                Err(error) => wrong(at..at + bare.len(), error),
            }
        }
        start += line.len();
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_network_a_line_and_each_mistake_has_its_place() {
        let mut places = Vec::new();
        let text = "\u{feff}# CDN, 2026\r\n10.0.0.0/8\r\n\n  2001:db8::/32 # six\n192.0.2.1";
        let found = lines(text, |span, error| panic!("{span:?} {error}"));
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]);
        let text = "10.0.0.0/8\n <html>\n10.0.0.1/8 # slip\n10.0.0.0/8, 11.0.0.0/8\n";
        lines(text, |span, _| places.push(text[span].to_owned()));
        assert_eq!(places, ["<html>", "10.0.0.1/8", "10.0.0.0/8, 11.0.0.0/8"]);
    }
}
