//! `[login]` of an app file: where a login names its account, and where its answer has the token.

use super::{Table, Value};
use crate::config::app::Login;
use crate::config::values::ValueError;

/// Reads the section. `claim`: the app file names a claim that says the account.
pub(super) fn read(root: &mut Table<'_>, claim: bool) -> Option<Login> {
    let mut table = root.table("login")?;
    let account = table.parse("account", field);
    let password = table.parse("password", field).unwrap_or_else(|| "password".into());
    let default_passwords = pairs(&mut table);
    let token = table.parse("token", path);
    let (has_account, has_token) = (table.get("account").is_some(), table.get("token").is_some());
    if !has_token {
        let message = "`login` names no `token`";
        table.doc.missing(
            table.span.clone(),
            message,
            "write where the answer has it, e.g. token = \"data.token\"",
        );
    }
    if !has_account && !claim {
        let message = "`login` names no `account`";
        let help = "write the name of the field, e.g. account = \"username\"; or account_claim in [tokens]";
        table.doc.missing(table.span.clone(), message, help);
    }
    table.finish();
    Some(Login { account, password, default_passwords, token: token? })
}

/// `[["admin", "admin"], …]`.
fn pairs(table: &mut Table<'_>) -> Vec<(Box<str>, Box<str>)> {
    let items = table.get("default_passwords").and_then(|value| value.list()).unwrap_or_default();
    let mut pairs = Vec::new();
    for item in &items {
        let texts: Vec<_> = item.list().unwrap_or_default().iter().filter_map(Value::text).collect();
        match texts[..] {
            [account, password] => pairs.push((account.into(), password.into())),
            _ => item.wrong(ValueError {
                message: "it is no pair of account and password".into(),
                help: "write e.g. [[\"admin\", \"admin\"]]".into(),
            }),
        }
    }
    pairs
}

/// The name of a field or claim.
pub(super) fn field(text: &str) -> Result<Box<str>, ValueError> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(sound) {
        return Ok(text.into());
    }
    let help = "use letters, digits, `-` and `_`, e.g. \"username\"";
    Err(ValueError { message: format!("`{text}` is no name of a field"), help: help.into() })
}

/// Names of fields with dots between them: the way to a field inside others.
fn path(text: &str) -> Result<Box<str>, ValueError> {
    text.split('.').try_for_each(|part| field(part).map(drop))?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Now;
    use crate::config::read::Doc;

    fn section(text: &str, claim: bool) -> (Option<Login>, Vec<String>) {
        let now = Now { mono: 1, wall: 1 };
        let (login, found) =
            Doc::walk(Path::new("app.toml"), text, now, |_, mut root| read(&mut root, claim));
        (login, found.problems.0.into_iter().map(|problem| problem.message).collect())
    }

    fn login_of(account: Option<&str>, token: &str) -> Login {
        let (password, default_passwords) = ("password".into(), Vec::new());
        Login { account: account.map(Into::into), password, default_passwords, token: token.into() }
    }

    #[test]
    fn passwords_that_everybody_knows_are_pairs() {
        let head = "[login]\naccount = \"a\"\ntoken = \"t\"\npassword = \"pw\"\n";
        let (login, problems) = section(&format!("{head}default_passwords = [[\"admin\", \"x\"]]\n"), false);
        let login = login.unwrap();
        assert_eq!(
            (&*login.password, &*login.default_passwords),
            ("pw", &[("admin".into(), "x".into())][..])
        );
        assert!(problems.is_empty(), "{problems:?}");
        for wrong in ["[[\"admin\"]]", "[\"admin\"]", "\"admin\"", "[[1, 2]]", "[[\"a\", \"b\", \"c\"]]"] {
            let (_, problems) = section(&format!("{head}default_passwords = {wrong}\n"), false);
            assert!(!problems.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn a_login_says_where_account_and_token_are() {
        let (login, problems) =
            section("[login]\naccount = \"email\"\ntoken = \"data.access_token\"\n", false);
        assert_eq!(login, Some(login_of(Some("email"), "data.access_token")));
        assert_eq!((problems, section("", false)), (vec![], (None, vec![])));
        let by_claim = section("[login]\ntoken = \"token\"\n", true);
        assert_eq!(by_claim, (Some(login_of(None, "token")), vec![]));
    }

    #[test]
    fn a_mistake_in_it_is_named() {
        for (text, part) in [
            ("[login]\naccount = \"a\"\n", "names no `token`"),
            ("[login]\ntoken = \"a\"\n", "names no `account`"),
            ("[login]\naccount = \"a b\"\ntoken = \"t\"\n", "no name of a field"),
            ("[login]\naccount = \"a\"\ntoken = \"t..u\"\n", "no name of a field"),
            ("[login]\naccount = \"a\"\ntoken = \"\"\n", "no name of a field"),
            ("[login]\naccount = 1\ntoken = \"t\"\n", "a string in quotes"),
            ("[login]\nacount = \"a\"\ntoken = \"t\"\n", "`acount` is no key"),
        ] {
            let (_, problems) = section(text, false);
            assert!(problems.iter().any(|problem| problem.contains(part)), "{text}: {problems:?}");
        }
    }
}
