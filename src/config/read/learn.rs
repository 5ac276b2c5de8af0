//! `[logout]` and `[[learn]]` of an app file: what the application's answers teach.

use http::Method;
use toml::de::DeValue;

use super::{Keys, Table, Value, app, route};
use crate::config::app::{Action, Carrier, Changed, Teaches, Tokens};
use crate::config::values::ValueError;

/// Reads both.
pub(super) fn read(root: &mut Table<'_>, tokens: &Tokens) -> Teaches {
    Teaches {
        logout: root.table("logout").and_then(|table| logout(table, tokens)),
        actions: root.tables("learn").into_iter().filter_map(action).collect(),
    }
}

fn logout(mut table: Table<'_>, tokens: &Tokens) -> Option<Carrier> {
    let ends = table.needs("ends");
    if ends.is_none() {
        let help = "write where the token is that it ends, e.g. ends = \"bearer\"";
        table.doc.missing(table.span.clone(), "`logout` names no `ends`", help);
    }
    let ends = ends.and_then(|value| {
        value.parse(|text| match app::carrier(text)? {
            carrier @ (Carrier::Bearer | Carrier::Cookie(_)) if tokens.carriers.contains(&carrier) => {
                Ok(carrier)
            }
            _ => Err(ValueError {
                message: format!("`{text}` is no place of a token that a logout could end"),
                help: "write \"bearer\", or \"cookie:NAME\" as it stands in `carriers` of [tokens]".into(),
            }),
        })
    });
    table.finish();
    ends
}

fn action(mut table: Table<'_>) -> Option<Action> {
    let matched = table.needs("match");
    if matched.is_none() {
        let help = "write e.g. match = \"DELETE /api/users/{id}\"";
        table.doc.missing(table.span.clone(), "the lesson names no `match`", help);
    }
    let place = matched.and_then(|value| changing(&value));
    let when = table.table("when").map(fields).unwrap_or_default();
    table.finish();
    let (method, pattern) = place?;
    Some(Action { method, pattern, when })
}

/// A method that changes something, and a path.
fn changing(value: &Value<'_>) -> Option<(Method, crate::config::path_pattern::PathPattern)> {
    let (method, pattern) = route::route_match(value, None)?;
    match method.filter(|method| !method.is_safe()) {
        Some(method) => Some((method, pattern)),
        None => {
            value.wrong(ValueError {
                message: "what only looks at something, or any method, ends no sessions".into(),
                help: "write the method that changes it, e.g. \"PATCH /api/users/{id}\"".into(),
            });
            None
        }
    }
}

fn fields(table: Table<'_>) -> Vec<(Box<str>, Changed)> {
    let read = |(name, value): (&str, Value<'_>)| {
        let changed = match value.inner {
            DeValue::Boolean(_) => Changed::Flag(value.flag()?),
            _ => value.parse(given)?,
        };
        Some((name.to_ascii_lowercase().into(), changed))
    };
    table.entries(Keys::Any).filter_map(read).collect()
}

fn given(text: &str) -> Result<Changed, ValueError> {
    if text == "*" {
        return Ok(Changed::Given);
    }
    let help = "write \"*\" for anything that is not empty, or true or false";
    Err(ValueError {
        message: format!("`{text}` is nothing that a field can be asked for"),
        help: help.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Now;
    use crate::config::read::Doc;

    fn sections(text: &str) -> (Teaches, Vec<String>) {
        let now = Now { mono: 1, wall: 1 };
        let tokens = app::builtin("arkeep", now).unwrap().tokens;
        let (teaches, found) =
            Doc::walk(Path::new("app.toml"), text, now, |_, mut root| read(&mut root, &tokens));
        (teaches, found.problems.0.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn an_app_file_says_what_its_answers_teach() {
        let (teaches, problems) = sections(
            "[logout]\nends = \"bearer\"\n[[learn]]\nmatch = \"PATCH /u/{id}\"\n\
             when = { is_active = false, password = \"*\" }\n[[learn]]\nmatch = \"DELETE /u/{id}\"\n",
        );
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(teaches.logout, Some(Carrier::Bearer));
        let when: Vec<(Box<str>, Changed)> =
            vec![("is_active".into(), Changed::Flag(false)), ("password".into(), Changed::Given)];
        assert_eq!((teaches.actions[0].when.clone(), teaches.actions[1].when.len()), (when, 0));
        assert_eq!(sections(""), (Teaches::default(), vec![]));
    }

    #[test]
    fn a_mistake_in_it_is_named() {
        for (text, part) in [
            ("[logout]\n", "names no `ends`"),
            ("[logout]\nends = \"basic\"\n", "no place of a token"),
            ("[logout]\nends = \"cookie:sid\"\n", "no place of a token"),
            ("[[learn]]\nwhen = {}\n", "names no `match`"),
            ("[[learn]]\nmatch = \"/u/{id}\"\n", "any method"),
            ("[[learn]]\nmatch = \"GET /u/{id}\"\n", "only looks"),
            ("[[learn]]\nmatch = \"PUT /u\"\nwhen = { a = \"x\" }\n", "nothing that a field"),
            ("[[learn]]\nmatch = \"PUT /u\"\nwhen = { a = 1 }\n", "a string in quotes"),
            ("[[learn]]\nmatch = \"PUT /u\"\nhow = 1\n", "`how` is no key"),
        ] {
            let (_, problems) = sections(text);
            assert!(problems.iter().any(|problem| problem.contains(part)), "{text}: {problems:?}");
        }
    }
}
