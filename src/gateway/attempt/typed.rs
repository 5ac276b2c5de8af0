//! Who a login says he is: by its body, its query, and Basic credentials, each of which some application believes.

use http::header::{self, HeaderMap, HeaderValue};

use super::Means;
use super::basic::Basic;
use crate::gateway::account::{Field, Form, Unclear, fields_of, named_in_query};
use crate::gateway::lesson::{GRANT, Said};
use crate::guards::login::Passwords;
use crate::stores::logins::fold;

/// Longest account's name that is read, in bytes; a mail address has 254.
const NAME: usize = 512;

/// What somebody has typed.
pub struct Typed {
    /// As whom.
    pub account: Option<String>,
    /// The passwords, where they are looked at.
    pub passwords: Passwords,
}

impl Typed {
    /// By the app file's [login]; without one nobody is named. An empty body names whom the query names. `passwords`: they are
    /// looked at.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn read(body: &[u8], means: Means<'_>, passwords: bool) -> Result<Self, Unclear> {
        let nobody = Self { account: None, passwords: Passwords::default() };
        let Some(login) = means.reading.site.login.as_ref() else { return Ok(nobody) };
        let Some(key) = login.account.as_deref() else { return Ok(nobody) };
        let word = Some(&*login.password).filter(|_| passwords);
        let in_query = |key| means.reading.path.query().map_or(Ok(None), |query| named_in_query(query, key));
        let mut passwords = Passwords::default();
        let in_body = in_body(body, means, (key, word), &mut passwords)?;
        let account = match (in_body, in_query(key)?) {
            (Some(one), Some(other)) if one != other => return Err(Unclear),
            (one, other) => one.or(other),
        };
        if account.as_ref().is_some_and(|name| name.len() > NAME) {
            return Err(Unclear);
        }
        word.into_iter().for_each(|word| passwords.add(in_query(word)));
        Ok(Self { account, passwords })
    }

    /// With Basic credentials: they are what was typed, where the body names nobody; of another account they stand beside it,
    /// and who knows whom the application takes.
    pub fn and(mut self, basic: Basic) -> (Self, Option<Basic>) {
        if let (Some(one), Some(other)) = (&self.account, &basic.account)
            && fold(one) != fold(other)
        {
            return (self, Some(basic));
        }
        self.passwords.words.push(basic.password);
        (Self { account: self.account.or(basic.account), ..self }, None)
    }
}

/// The account that a body names; its password is added. What else it says is kept for who judges the answer.
fn in_body(
    body: &[u8],
    means: Means<'_>,
    (account, password): (&str, Option<&str>),
    passwords: &mut Passwords,
) -> Field {
    if body.is_empty() {
        return Ok(None);
    }
    let form = form_of(means.headers, body)?;
    let (account, grant, password): (Field, Field, Field) = match password {
        Some(password) => fields_of(body, form, [account, GRANT, password]).into(),
        None => {
            let [account, grant] = fields_of(body, form, [account, GRANT]);
            (account, grant, Ok(None))
        }
    };
    passwords.add(password);
    means.upload.was_read(|| Said { account: account.clone(), grant });
    account
}

/// As what a body is to be read. Many applications read JSON whatever its type says, so all but a form is JSON, and a form
/// must not look like JSON. PHP takes for a form whatever begins with its name; who honours a `charset` reads other letters.
fn form_of(headers: &HeaderMap, body: &[u8]) -> Result<Form, Unclear> {
    let plain = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"identity");
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = types.next().map(|kind| String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase());
    let kind = kind.unwrap_or_default();
    let codings = headers.get_all(header::CONTENT_ENCODING).iter().all(plain);
    if types.next().is_some() || !codings || !is_utf8(&kind) {
        return Err(Unclear);
    }
    let json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
    match Form::of(headers) {
        Some(Form::Urlencoded) if json => Err(Unclear),
        Some(Form::Urlencoded) => Ok(Form::Urlencoded),
        _ if ["multipart/", "urlencoded"].iter().any(|word| kind.contains(word)) => Err(Unclear),
        _ => Ok(Form::Json),
    }
}

/// By a Content-Type in small letters.
fn is_utf8(kind: &str) -> bool {
    kind.split("charset").skip(1).all(|rest| {
        let value = rest.trim_start_matches(['*', '=', ' ', '\t', '"', '\'']);
        let value = value.split([';', ',', ' ', '\t', '"', '\'']).next().unwrap_or_default();
        matches!(value, "" | "utf-8" | "utf8" | "us-ascii")
    })
}
