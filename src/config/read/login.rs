//! `[login]` of an app file: where a login names its account, and where its answer has the token.

use super::Table;
use crate::config::app::Login;
use crate::config::values::ValueError;

/// Reads the section. `claim`: the app file names a claim that says the account.
pub(super) fn read(root: &mut Table<'_>, claim: bool) -> Option<Login> {
    let mut table = root.table("login")?;
    let account = table.parse("account", field);
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
    Some(Login { account, token: token? })
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
