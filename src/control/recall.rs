//! What the workers remember of their latest requests, and what a person means by a request, a hash or an account.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Control;
use super::blocking::SWEEP;
use crate::admin::api::{Refusal, RefusalKind, SCHEMA};
use crate::admin::recent::{DenialList, Found, Hand, Meant, RequestAnswer, Wanted};
use crate::config::settings::LogTarget;
use crate::stores::accounts::Account;
use crate::stores::blocks::What;
use crate::stores::recent::record::Who;
use crate::stores::recent::{Query, Record, Token};
use crate::telemetry::audit::timestamp;

/// Digits of a token's hash in the access log, and of a share link's whole hash.
const SHORT: usize = 12;
const WHOLE: usize = 32;

impl Control {
    /// What was refused lately, the oldest first.
    pub(super) async fn denials(&self, wanted: Wanted) -> Result<DenialList, Refusal> {
        let client = wanted.client.as_deref().map(who).transpose()?;
        let since = wanted.since.map_or(0, |since| self.clock.now().wall.saturating_sub(since));
        let subjects = wanted.account.as_deref().map(|name| self.subjects(name)).transpose()?;
        let mut denials = self.recall(&Query::Denied { client, since }).await?;
        if let Some(accounts) = subjects {
            denials.retain(|record| accounts.iter().any(|account| is_of(record, account)));
        }
        denials.sort_by(|one, other| (one.time, &one.id).cmp(&(other.time, &other.id)));
        Ok(DenialList { schema: SCHEMA, denials })
    }

    /// One request.
    pub(super) async fn request(&self, id: String) -> Result<RequestAnswer, Refusal> {
        let known = self.recall(&Query::Id(id.clone())).await?.pop();
        let request = known.ok_or_else(|| self.forgotten(&id))?;
        Ok(RequestAnswer { schema: SCHEMA, request })
    }

    /// What is meant by what a person has in hand.
    pub(super) async fn find(&self, hand: Hand) -> Result<Found, Refusal> {
        let meant = match hand {
            Hand::Request(id) => {
                let known = self.recall(&Query::Id(id.clone())).await?.pop();
                of_request(&known.ok_or_else(|| self.forgotten(&id))?)?
            }
            Hand::Log(hash) => self.of_hash(&hash).await?,
            Hand::Account { name, site, and_logins } => {
                let site =
                    site.map(|site| super::defaults::one_site(Some(&site), &self.sites)).transpose()?;
                super::defaults::able(&subject(String::new(), and_logins), site.as_deref(), &self.sites)?;
                vec![of_account(&name, self.kept.accounts.find(&name, site.as_deref()), and_logins)?]
            }
        };
        Ok(Found { schema: SCHEMA, meant })
    }

    async fn recall(&self, query: &Query) -> Result<Vec<Record>, Refusal> {
        let busy =
            || Refusal::new(RefusalKind::Unavailable, "not every worker has answered in time; say it again");
        self.workers.recall(query, SWEEP).await.ok_or_else(busy)
    }

    async fn of_hash(&self, hash: &str) -> Result<Vec<Meant>, Refusal> {
        let hash = hash.trim().to_ascii_lowercase();
        let hex = hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex || !(SHORT..=WHOLE).contains(&hash.len()) {
            let message = "that is no hash of the access log: those are 12 hex digits. For a `jti` say `portcullis block jti`, for a request's id `portcullis block request`";
            return Err(Refusal::new(RefusalKind::Usage, message));
        }
        let records = self.recall(&Query::Hash(hash.clone())).await?;
        let found = by_hash(&hash, &records);
        match found.len() {
            0 if records.is_empty() => Err(self.unseen(&hash)),
            0 => {
                let message = format!(
                    "{hash} is the hash of a word that is perhaps no token but the name of a subprotocol or the like, which others send too; is it a token after all, give it to `portcullis block token -`"
                );
                Err(Refusal::new(RefusalKind::Refused, message))
            }
            1 => Ok(found),
            several => {
                let message = format!(
                    "{hash} is the hash of {several} tokens or links seen lately; block the one by its request: `portcullis block request ID`"
                );
                Err(Refusal::new(RefusalKind::Refused, message))
            }
        }
    }

    fn subjects(&self, name: &str) -> Result<Vec<Account>, Refusal> {
        let accounts = self.kept.accounts.find(name, None);
        if accounts.is_empty() { Err(unlearned(name)) } else { Ok(accounts) }
    }

    fn unseen(&self, hash: &str) -> Refusal {
        let message = format!(
            "no request or live stream with the hash {hash} is remembered (since {}). Have you its id, try `portcullis block request ID`; the token itself goes to `portcullis block token -`; a `jti` that only looks like a hash to `portcullis block jti`",
            timestamp(self.started.wall)
        );
        Refusal::new(RefusalKind::Unknown, message)
    }

    fn forgotten(&self, id: &str) -> Refusal {
        let log = match &self.settings.log.access {
            LogTarget::Stdout => {
                format!(
                    "its line is in the access log, on standard output (`journalctl -u portcullis | grep {id}`, or `docker logs`)"
                )
            }
            LogTarget::File(path) => format!("its line is in the access log: `grep {id} {}`", path.display()),
            LogTarget::Off => "and the access log is off (log.access), so nothing more is known".to_owned(),
        };
        let message = format!(
            "the request {id} is no longer remembered: each worker keeps its last thousand refusals and as many others, all since {}; {log}",
            timestamp(self.started.wall)
        );
        Refusal::new(RefusalKind::Unknown, message)
    }
}

fn who(client: &str) -> Result<Who, Refusal> {
    let client = client.trim();
    if client == "unknown" {
        return Ok(Who::Unknown);
    }
    let address = client.parse().map(|address: std::net::IpAddr| IpNet::from(address.to_canonical()));
    let network = client.parse().or(address).map_err(|_| {
        let message = format!("`{client}` is no address, network, or `unknown`");
        Refusal::new(RefusalKind::Usage, message)
    })?;
    Ok(Who::Network(network))
}

/// What these requests carried that has this hash, each once.
fn by_hash(hash: &str, records: &[Record]) -> Vec<Meant> {
    let mut found: BTreeMap<String, Meant> = BTreeMap::new();
    for record in records {
        if let Some(share) = record.share.filter(|share| format!("{share:?}").starts_with(hash)) {
            found.insert(format!("{share:?}"), of_share(share));
        }
        for token in record.blockable().filter(|token| token.log == hash) {
            found.insert(token.fingerprint.to_string(), of_token(token));
        }
    }
    found.into_values().collect()
}

/// Its own credentials; else its share link.
fn of_request(record: &Record) -> Result<Vec<Meant>, Refusal> {
    let tokens: Vec<Meant> = record.blockable().map(of_token).collect();
    if !tokens.is_empty() {
        return Ok(tokens);
    }
    if let Some(share) = record.share {
        return Ok(vec![of_share(share)]);
    }
    let client = match &*record.client {
        "unknown" => "its client is not known either: see listen.trusted_proxies".to_owned(),
        client => format!("`portcullis block address {client}` blocks where it came from"),
    };
    let message = format!("the request {} carried no credential and no share link; {client}", record.id);
    Err(Refusal::new(RefusalKind::Refused, message))
}

fn of_token(token: &Token) -> Meant {
    let said = match (&token.subject, &token.jti) {
        (Some(subject), _) if token.verified => format!("a token of subject {subject}"),
        (Some(subject), _) => format!("a token that calls itself subject {subject}"),
        (None, Some(jti)) => format!("the token with the jti {jti}"),
        (None, None) => format!("the token {}", token.log),
    };
    let what = What::Fingerprint { fingerprint: token.fingerprint };
    Meant { what, site: None, expires: token.expires, said }
}

fn of_share(share: crate::request::credential::Key) -> Meant {
    Meant { what: What::Share { share }, site: None, expires: None, said: "a share link".to_owned() }
}

fn of_account(name: &str, mut accounts: Vec<Account>, and_logins: bool) -> Result<Meant, Refusal> {
    let Some(account) = accounts.pop() else { return Err(unlearned(name)) };
    if let Some(other) = accounts.pop() {
        let message = if other.site == account.site {
            format!(
                "`{name}` could be `{}` or `{}`: say it as it is typed at the login",
                other.name, account.name
            )
        } else {
            format!(
                "`{name}` is an account on several sites; say which with --site: {}, {}",
                other.site, account.site
            )
        };
        return Err(Refusal::new(RefusalKind::Refused, message));
    }
    let Account { site, name, subject, seen } = account;
    let said = format!("{name} is subject {subject} of {site}, by the login at {}", timestamp(seen));
    Ok(Meant { what: self::subject(subject, and_logins), site: Some(site), expires: None, said })
}

fn subject(subject: String, and_logins: bool) -> What {
    What::Subject { subject, issuer: None, before: 0, and_logins }
}

fn unlearned(name: &str) -> Refusal {
    let message = format!(
        "no login of `{name}` is known: an account is learned when its login succeeds, if the app file has a [login] section. Say its subject instead: `portcullis block subject SUBJECT` (the `sub` of its tokens, in Keepstack and Arkeep the user's id)"
    );
    Refusal::new(RefusalKind::Unknown, message)
}

fn is_of(record: &Record, account: &Account) -> bool {
    record.site.as_deref() == Some(&account.site)
        && record.tokens.iter().any(|token| token.subject.as_deref() == Some(&account.subject))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::credential::{Fingerprint, Key};

    const HASH: &str = "0101010101ab";

    fn with_token(byte: u8, guessed: bool) -> Record {
        let token = Token {
            fingerprint: Fingerprint([byte; 32]),
            log: HASH.into(),
            jti: None,
            subject: None,
            expires: Some(9),
            guessed,
            verified: false,
        };
        Record { id: "id".into(), client: "203.0.113.7".into(), tokens: vec![token], ..Record::default() }
    }

    #[test]
    fn a_hash_that_several_things_share_is_refused_and_one_seen_often_is_one() {
        let seen_twice = [with_token(1, false), with_token(1, false)];
        let meant = by_hash(HASH, &seen_twice);
        assert_eq!(meant.len(), 1);
        assert_eq!(meant[0].what, What::Fingerprint { fingerprint: Fingerprint([1; 32]) });
        assert_eq!(meant[0].expires, Some(9));
        assert_eq!(by_hash(HASH, &[with_token(1, false), with_token(2, false)]).len(), 2);
        let link = Record { share: Some(Key([1; 16])), ..Record::default() };
        assert_eq!(by_hash("010101010101", std::slice::from_ref(&link)).len(), 1);
        assert!(by_hash("010101010102", &[link]).is_empty());
        assert!(by_hash(HASH, &[with_token(1, true)]).is_empty(), "a subprotocol's name");
    }

    #[test]
    fn what_is_perhaps_no_token_is_not_blocked_by_itself() {
        let refusal = of_request(&with_token(1, true)).unwrap_err();
        assert_eq!(refusal.error, RefusalKind::Refused);
        assert!(refusal.message.contains("block address 203.0.113.7"), "{}", refusal.message);
        assert_eq!(of_request(&with_token(1, false)).unwrap().len(), 1);
    }

    #[test]
    fn an_account_that_is_not_clear_is_not_guessed() {
        let account = |site: &str, name: &str| Account {
            site: site.into(),
            name: name.into(),
            subject: "7".into(),
            seen: 0,
        };
        let one = of_account("a", vec![account("x", "a")], true).unwrap();
        assert_eq!((one.site.as_deref(), one.said.contains("subject 7")), (Some("x"), true));
        assert!(matches!(one.what, What::Subject { and_logins: true, .. }));
        for (accounts, kind, words) in [
            (vec![account("x", "a"), account("y", "a")], RefusalKind::Refused, "--site"),
            (vec![account("x", "A"), account("x", "a")], RefusalKind::Refused, "as it is typed"),
            (vec![], RefusalKind::Unknown, "block subject"),
        ] {
            let refusal = of_account("a", accounts, false).unwrap_err();
            assert!(refusal.error == kind && refusal.message.contains(words), "{refusal:?}");
        }
    }
}
