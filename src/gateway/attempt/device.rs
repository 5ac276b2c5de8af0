//! The device cookie (OWASP's "device cookies"): by it a browser on which somebody has logged in is known, so that nobody
//! locks its owner out by guessing at his account.
//!
//! It is no credential: it opens no door, it only says whose budget of wrong passwords a try is charged to. Sealed, for one
//! site; in it the exact accounts, of which a browser keeps the latest few, each with a random number and the subject of the
//! token that its login was answered with. A block of the subject, or of everyone, kills it as it kills tokens. Never seen by
//! the application or a log.

use std::cell::OnceCell;

use http::HeaderValue;
use http::header::HeaderMap;

use crate::request::carriers::{is_called, leave_out, pairs};
use crate::request::credential::{Claims, Credential, Fingerprint, Key};
use crate::request::facts::Facts;
use crate::stores::blocks::Index;
use crate::stores::durable::seal_keys::LIFE;
use crate::stores::seal::{Purpose, Seal};

/// Its name. With `__Host-` browsers take it from this host only, over TLS only, for all paths.
pub const NAME: &str = "__Host-portcullis-device";
/// Accounts that one browser is known for; the oldest goes first.
const ACCOUNTS: usize = 4;
/// Longest account's name, in bytes; a longer one gets no cookie.
const LONGEST: usize = 254;
/// The form of what is sealed.
const FORM: u8 = 1;

/// One account that the browser is known for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Unix seconds of its last login.
    pub issued: u64,
    /// Tells devices apart.
    pub id: [u8; 8],
    /// Of its token.
    pub subject: Option<Key>,
    /// Of its token.
    pub issuer: Option<Key>,
    /// The account as it was typed.
    pub account: String,
}

/// The cookie of a request, opened when it is asked for.
#[derive(Debug)]
pub struct Devices<'a> {
    seal: &'a Seal,
    site: &'a str,
    headers: &'a HeaderMap,
    opened: OnceCell<Vec<Known>>,
}

impl<'a> Devices<'a> {
    /// Of a request to this site.
    pub fn of(seal: &'a Seal, site: &'a str, headers: &'a HeaderMap) -> Self {
        Self { seal, site, headers, opened: OnceCell::new() }
    }

    /// What the browser is known for as this account, unless it is too old or its subject is blocked.
    pub fn find(&self, account: &str, index: &Index, facts: &Facts) -> Option<&Known> {
        self.known().iter().find(|known| known.account == account && known.is_good(index, facts))
    }

    /// All accounts in the cookie; a forged, foreign or changed one has none.
    pub fn known(&self) -> &[Known] {
        self.opened.get_or_init(|| {
            let opened = cookies(self.headers).filter_map(|text| {
                let text = std::str::from_utf8(text).ok()?;
                read(&self.seal.open(Purpose::Device, self.site.as_bytes(), text)?)
            });
            opened.flatten().take(ACCOUNTS).collect()
        })
    }

    /// The same, to be kept.
    pub fn into_known(self) -> Vec<Known> {
        self.opened.into_inner().unwrap_or_default()
    }
}

/// The cookie that a browser gets when this account has logged in on it; `None`: nothing can be sealed, or the name is too
/// long. `others`: for whom it is known already.
pub fn renewed(seal: &Seal, site: &str, known: &Known, others: &[Known]) -> Option<HeaderValue> {
    if known.account.len() > LONGEST {
        return None;
    }
    let others = others.iter().filter(|other| other.account != known.account);
    let plain = write(std::iter::once(known).chain(others).take(ACCOUNTS));
    let sealed = seal.seal(Purpose::Device, site.as_bytes(), &plain)?;
    let age = LIFE.as_secs();
    // Strict: only pages of this site post its logins, and nobody else has a use for it.
    let text = format!("{NAME}={sealed}; Max-Age={age}; Path=/; Secure; HttpOnly; SameSite=Strict");
    HeaderValue::try_from(text).ok()
}

/// The number of a device that is not known yet.
pub fn new_id() -> [u8; 8] {
    let mut id = [0; 8];
    // Without randomness there would be no TLS either.
    let _ = aws_lc_rs::rand::fill(&mut id);
    id
}

impl Known {
    fn is_good(&self, index: &Index, facts: &Facts) -> bool {
        let age = facts.now.unix().saturating_sub(self.issued);
        age < LIFE.as_secs() && !self.is_blocked(index, facts)
    }

    /// As a token would be that was issued with it.
    fn is_blocked(&self, index: &Index, facts: &Facts) -> bool {
        let claims = Claims {
            subject: self.subject,
            issuer: self.issuer,
            issued: Some(self.issued),
            ..Claims::default()
        };
        let credential = Credential {
            fingerprint: Fingerprint::of(&self.id),
            claims: Some(claims),
            in_cookie: true,
            guessed: false,
        };
        let facts = Facts { credentials: vec![credential], ..facts.clone() };
        index.matching_credential(&facts, 0).is_some()
    }
}

/// Leaves the cookie out of a request, in every spelling that some framework takes for it.
pub fn strip(headers: &mut HeaderMap) {
    leave_out(headers, |sent| is_called(sent, NAME));
}

/// As a browser spells it.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    pairs(headers).filter(|(name, _)| *name == NAME.as_bytes()).map(|(_, value)| value)
}

fn write<'k>(accounts: impl Iterator<Item = &'k Known>) -> Vec<u8> {
    let mut plain = vec![FORM];
    for known in accounts {
        plain.extend(known.issued.to_be_bytes());
        plain.extend(known.id);
        for key in [known.subject, known.issuer] {
            plain.push(u8::from(key.is_some()));
            plain.extend(key.map(|key| key.0).unwrap_or_default());
        }
        plain.push(u8::try_from(known.account.len()).unwrap_or(u8::MAX));
        plain.extend(known.account.bytes());
    }
    plain
}

fn read(plain: &[u8]) -> Option<Vec<Known>> {
    let mut rest = plain.strip_prefix(&[FORM])?;
    let mut accounts = Vec::new();
    while !rest.is_empty() {
        let issued = u64::from_be_bytes(take(&mut rest)?);
        let id = take(&mut rest)?;
        let (subject, issuer) = (key(&mut rest)?, key(&mut rest)?);
        let [length] = take(&mut rest)?;
        let (account, others) = rest.split_at_checked(usize::from(length))?;
        rest = others;
        let account = String::from_utf8(account.to_vec()).ok()?;
        accounts.push(Known { issued, id, subject, issuer, account });
    }
    Some(accounts)
}

fn key(rest: &mut &[u8]) -> Option<Option<Key>> {
    let [some] = take(rest)?;
    let bytes = take(rest)?;
    Some((some == 1).then_some(Key(bytes)))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk::<N>()?;
    *rest = others;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::clock::Now;
    use crate::stores::seal::KEY_LEN;

    const NOW: Now = Now { mono: 1_000_000_000_000, wall: 1_790_000_000_000 };

    fn known(account: &str) -> Known {
        let subject = Some(Key([7; 16]));
        Known { issued: NOW.unix(), id: new_id(), subject, issuer: None, account: account.to_owned() }
    }

    fn carrying(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::try_from(format!("a=b; {pair}; c=d")).unwrap())])
    }

    fn again(seal: &Seal, site: &str, headers: &HeaderMap, account: &str) -> Option<HeaderValue> {
        renewed(seal, site, &known(account), Devices::of(seal, site, headers).known())
    }

    fn seal(byte: u8) -> Seal {
        Seal::new(&[[byte; KEY_LEN]])
    }

    #[test]
    fn a_browser_is_known_for_its_latest_accounts_on_its_site_only() {
        let own = seal(1);
        let mut headers = HeaderMap::new();
        for account in ["one", "two", "three", "four", "five", "two"] {
            let cookie = again(&own, "a.test", &headers, account).unwrap();
            assert!(cookie.to_str().unwrap().contains("; Secure; HttpOnly; SameSite=Strict"));
            headers = carrying(&cookie);
        }
        let names = |seal: &Seal, site: &str, headers: &HeaderMap| -> Vec<String> {
            let devices = Devices::of(seal, site, headers);
            devices.known().iter().map(|known| known.account.clone()).collect()
        };
        assert_eq!(names(&own, "a.test", &headers), ["two", "five", "four", "three"]);
        assert_eq!(names(&own, "b.test", &headers), [""; 0], "another site's");
        assert_eq!(names(&seal(2), "a.test", &headers), [""; 0], "another gateway's");
        strip(&mut headers);
        assert_eq!(headers.get(header::COOKIE).unwrap(), "a=b; c=d");
        assert!(again(&own, "a.test", &headers, &"x".repeat(255)).is_none());
    }

    #[test]
    fn it_is_good_for_its_exact_account_and_its_time() {
        let own = seal(1);
        let cookie = again(&own, "a.test", &HeaderMap::new(), "Ann").unwrap();
        let headers = carrying(&cookie);
        let devices = Devices::of(&own, "a.test", &headers);
        let at = |seconds| {
            let now = Now { wall: NOW.wall + seconds * 1000, ..NOW };
            Facts { now, ..Facts::example() }
        };
        let good = |account, seconds| devices.find(account, &Index::default(), &at(seconds)).is_some();
        assert!(good("Ann", 0) && good("Ann", LIFE.as_secs() - 1));
        assert!(!good("ann", 0) && !good("Ann", LIFE.as_secs()));
    }

    #[test]
    fn what_is_no_cookie_of_ours_stays_as_it_is() {
        for (line, left) in [
            ("a=b", Some("a=b")),
            ("__Host-portcullis-device=x", None),
            ("__Host-portcullis-device2=x", Some("__Host-portcullis-device2=x")),
            (" __Host-portcullis-device =x;a=b", Some("a=b")),
            ("a=b; __HOST-Portcullis-Device=x;c=d", Some("a=b;c=d")),
            ("__Host%2Dportcullis-device=x; __Host-portcullis-device", None),
            ("\t[_Host-portcullis-device=x", None),
        ] {
            let mut headers = HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(line))]);
            strip(&mut headers);
            assert_eq!(headers.get(header::COOKIE).map(|line| line.to_str().unwrap()), left, "{line}");
        }
        assert_eq!(read(&[FORM, 1, 2]), None);
        assert_eq!(read(&[9]), None);
    }

    #[test]
    #[ignore = "a measurement: run with --release --run-ignored only --no-capture"]
    #[allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a measurement")]
    fn how_long_opening_takes() {
        let own = seal(1);
        let mut headers = HeaderMap::new();
        for account in ["ann@example.com", "bob@example.com", "admin", "viewer"] {
            headers = carrying(&again(&own, "files.example.com", &headers, account).unwrap());
        }
        let (index, facts) = (Index::default(), Facts { now: NOW, ..Facts::example() });
        let begun = std::time::Instant::now();
        for _ in 0..100_000 {
            let devices = Devices::of(&own, "files.example.com", &headers);
            assert!(std::hint::black_box(devices.find("ann@example.com", &index, &facts)).is_some());
        }
        println!("a cookie of four accounts opens in {:?}", begun.elapsed() / 100_000);
    }
}
