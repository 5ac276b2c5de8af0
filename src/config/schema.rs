//! JSON Schemas of the files that people write, for editors: made of what the reader asks (`read::sketch`) while it reads
//! the references in `config/`, whose comments become descriptions. There is no second list of keys that could drift.

use serde_json::{Map, Value, json};

use super::class::Class;
use super::read::{self, Asked, Keys, Kind, Sketch};

const CONFIG: &str = include_str!("../../config/portcullis.toml");
const APP: &str = include_str!("../../config/app.toml");
const CASES: &str = include_str!("../../config/cases.toml");

/// What the reference config shows empty, although something may stand there.
const FILLED: [(&str, &str); 12] = [
    ("plain = []", "plain = [\"127.0.0.1:8080\"]"),
    ("trusted_proxies = []", "trusted_proxies = [\"10.0.0.5\", { file = \"cdn.txt\" }]"),
    ("redirect_hosts = []", "redirect_hosts = [\"www.example.com\"]"),
    ("certificates = []", "certificates = [{ cert = \"full.pem\", key = \"key.pem\" }]"),
    (
        "upstream_tls = { ca_file = \"…\" }",
        "upstream_tls = { ca_file = \"ca.pem\", server_name = \"app.internal\", cert = \"c.pem\", key = \"k.pem\" }",
    ),
    (
        "verify = { jwks = \"https://id.example.com/jwks.json\" }",
        "verify = { jwks = \"https://id.example.com/\", ca_file = \"ca.pem\", key_file = \"jwt.pem\" }",
    ),
    ("never_lock = []", "never_lock = [\"robot\"]"),
    (
        "backchannel_logout = { issuer = \"https://id.example.com\", audience = \"CLIENT_ID\" }",
        "backchannel_logout = { issuer = [\"https://id.example.com\"], audience = [\"CLIENT_ID\"], jwks = \"https://id.example.com/\", ca_file = \"ca.pem\", key_file = \"jwt.pem\" }",
    ),
    ("issuer = []", "issuer = [\"us\"]"),
    ("audience = []", "audience = [\"files\"]"),
    ("claims = {}", "claims = { type = \"access\" }"),
    ("set = {}", "set = { X-Robots-Tag = \"noindex\" }"),
];

/// Of which files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// `portcullis.toml`.
    Config,
    /// App files.
    App,
    /// Cases of `portcullis test`.
    Cases,
}

/// The schema (JSON Schema, draft 7).
pub fn of(what: Of) -> Value {
    let (specimen, commented) = specimen(CONFIG);
    let [config, app, cases] = read::sketches(&specimen, APP, &CASES.replace("# config", "config"));
    let (title, sketch, defaults) = match what {
        Of::Config => ("Portcullis: config", config, true),
        Of::App => ("Portcullis: app file", app, false),
        Of::Cases => ("Portcullis: cases", cases, false),
    };
    let tree = Tree { sketch, defaults, commented };
    let mut schema = tree.table("");
    schema.insert("$schema".into(), "http://json-schema.org/draft-07/schema#".into());
    schema.insert("title".into(), title.into());
    Value::Object(schema)
}

/// The reference with every key in it, and the lines (from 1) that are comments there: no defaults, only examples.
fn specimen(reference: &str) -> (String, Vec<usize>) {
    let mut commented = Vec::new();
    let mut text = String::new();
    for (place, line) in reference.lines().enumerate() {
        let uncommented = line.strip_prefix("# ").filter(|line| is_key(line));
        commented.extend(uncommented.map(|_| place + 1));
        text.push_str(uncommented.unwrap_or(line));
        text.push('\n');
    }
    for (empty, filled) in FILLED {
        // It is left out by default: what is filled in is no default.
        let line = text.lines().position(|line| line.starts_with(empty));
        commented.extend(line.map(|line| line + 1));
        text = text.replace(empty, filled);
    }
    (text, commented)
}

fn is_key(line: &str) -> bool {
    let word = line.split([' ', '=']).next().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    line.starts_with('[') || (!word.is_empty() && word.bytes().all(plain) && line.contains(" = "))
}

struct Tree {
    sketch: Sketch,
    /// What the reference shows is what holds without it.
    defaults: bool,
    commented: Vec<usize>,
}

impl Tree {
    /// The schema of a table by its dotted name.
    fn table(&self, name: &str) -> Map<String, Value> {
        let below = if name.is_empty() { String::new() } else { format!("{name}.") };
        let mut properties = Map::new();
        let mut needed = Vec::new();
        for (place, asked) in &self.sketch {
            let Some(key) = place.strip_prefix(&below).filter(|key| is_one_key(key)) else { continue };
            if asked.needed {
                needed.push(key);
            }
            properties.insert(key.into(), self.value(place, asked));
        }
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        let mut others = Value::Bool(false);
        let free = format!("{below}*");
        if let Some(asked) = self.sketch.get(&free) {
            let value = self.value(&free, asked);
            match asked.keys {
                Keys::Any => others = value,
                Keys::Classes => {
                    for class in Class::ALL {
                        properties.entry(class.word()).or_insert_with(|| value.clone());
                    }
                }
                Keys::Statuses => {
                    schema.insert("patternProperties".into(), json!({ "^[45][0-9][0-9]$": value }));
                }
            }
        }
        if !needed.is_empty() {
            schema.insert("required".into(), json!(needed));
        }
        schema.insert("properties".into(), Value::Object(properties));
        schema.insert("additionalProperties".into(), others);
        schema
    }

    fn value(&self, place: &str, asked: &Asked) -> Value {
        let mut kinds = asked.kinds.iter().map(|kind| self.kind(place, *kind, asked)).collect::<Vec<_>>();
        let mut schema = match kinds.len() {
            1 => kinds.swap_remove(0),
            _ => Map::from_iter([("anyOf".to_owned(), json!(kinds))]),
        };
        if let Some(comment) = &asked.comment {
            schema.insert("description".into(), comment.as_str().into());
        }
        let shown = asked.shown.as_ref().filter(|_| !asked.kinds.contains(&Kind::Table));
        if let Some(shown) = shown {
            let is_default = self.defaults && !asked.needed && !self.commented.contains(&asked.line);
            if is_default && !place.contains('*') {
                schema.insert("default".into(), shown.clone());
            } else {
                schema.insert("examples".into(), json!([shown]));
            }
        }
        Value::Object(schema)
    }

    fn kind(&self, place: &str, kind: Kind, asked: &Asked) -> Map<String, Value> {
        let schema = match kind {
            Kind::Table => return self.table(place),
            Kind::Flag => json!({ "type": "boolean" }),
            Kind::Number => json!({ "type": "integer", "minimum": 1 }),
            Kind::Text if asked.words.is_empty() => json!({ "type": "string" }),
            Kind::Text => json!({ "type": "string", "enum": asked.words }),
            Kind::List => {
                let item = format!("{place}[]");
                let items = self.sketch.get(&item).map(|asked| self.value(&item, asked));
                // What is read by tables only was asked for by nothing but its keys.
                json!({ "type": "array", "items": items.unwrap_or_else(|| Value::Object(self.table(&item))) })
            }
        };
        match schema {
            Value::Object(schema) => schema,
            _ => Map::new(),
        }
    }
}

/// A key of the table itself, not of one below it.
fn is_one_key(key: &str) -> bool {
    !key.is_empty() && !key.contains(['.', '*']) && !key.ends_with("[]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untyped(name: &str, schema: &Value, found: &mut Vec<String>) {
        let kinds = schema["anyOf"].as_array();
        for kind in kinds.into_iter().flatten() {
            untyped(name, kind, found);
        }
        match schema["type"].as_str() {
            None if kinds.is_none_or(Vec::is_empty) => found.push(name.into()),
            Some("array") => untyped(&format!("{name}[]"), &schema["items"], found),
            Some("object") => {
                let properties = schema["properties"].as_object().unwrap();
                let others =
                    schema["additionalProperties"].is_object().then_some(&schema["additionalProperties"]);
                if properties.is_empty() && others.is_none() && schema["patternProperties"].is_null() {
                    found.push(format!("{name} (empty)"));
                }
                for (key, value) in properties {
                    untyped(&format!("{name}.{key}"), value, found);
                }
                if let Some(value) = others {
                    untyped(&format!("{name}.*"), value, found);
                }
            }
            _ => {}
        }
    }

    #[test]
    fn every_key_that_is_read_has_a_type_so_the_references_hold_every_table_and_list() {
        for what in [Of::Config, Of::App, Of::Cases] {
            let mut found = Vec::new();
            untyped("", &of(what), &mut found);
            assert!(
                found.is_empty(),
                "{what:?}: show these in the reference, or fill them in FILLED: {found:?}"
            );
        }
    }

    #[test]
    fn what_the_reference_config_shows_empty_is_there_to_be_filled() {
        for (empty, _) in FILLED {
            assert!(CONFIG.contains(empty), "{empty}");
        }
    }

    #[test]
    fn comments_and_defaults_of_the_reference_reach_the_editor() {
        let schema = of(Of::Config);
        let timeout = &schema["properties"]["limits"]["properties"]["head_timeout"];
        assert_eq!(timeout["default"], "10s");
        assert!(timeout["description"].as_str().unwrap().starts_with("from accept"), "{timeout}");
        let site = &schema["properties"]["site"]["items"];
        assert_eq!(site["required"], json!(["hosts", "upstream"]));
        assert_eq!(site["properties"]["mode"]["enum"], json!(["enforce", "observe"]));
        assert_eq!(site["properties"]["tokens"]["properties"]["lifetime"]["examples"], json!(["168h"]));
    }
}
