mod model;
mod speed;

use std::rc::Rc;
use std::time::Duration;

use http::Method;

use super::*;
use crate::clock::{Clock, Now};
use crate::config::class::Class;
use crate::request::client::Client;
use crate::request::credential::{
    Claims, Credential, Fingerprint, Key, issuer_key, jti_key, session_key, subject_key,
};
use crate::request::facts::{Facts, scope_of};

const WALL: u64 = 1_700_000_000_000;
const NOW: u64 = WALL / 1000;
const SITE: &str = "files.example.com";

fn facts(credentials: Vec<Credential>) -> Facts {
    Facts {
        client: Client::Address("192.0.2.7".parse().unwrap()),
        scopes: Rc::new([scope_of(SITE), scope_of("alias.example.com")]),
        class: Class::Api,
        method: Method::GET,
        credentials,
        share: None,
        body_length: None,
        basic: false,
        websocket: false,
        now: Now { mono: 5_000_000_000, wall: WALL },
        rehearsal: false,
        ..Facts::example()
    }
}

fn credential(name: &str) -> Credential {
    Credential {
        fingerprint: Fingerprint::of(name.as_bytes()),
        claims: None,
        in_cookie: false,
        guessed: false,
    }
}

fn session(subject: &str, issued: Option<u64>) -> Credential {
    let claims = Claims { subject: Some(subject_key(subject)), issued, ..Claims::default() };
    Credential { claims: Some(claims), ..credential(subject) }
}

fn block(id: u64, what: What) -> Block {
    Block {
        id,
        site: None,
        what,
        reason: String::new(),
        by: String::new(),
        created: WALL,
        until: WALL + 3_600_000,
        learned: false,
        spares: None,
        ended: None,
    }
}

fn held(block: Block) -> Held {
    block.held(Now { mono: 5_000_000_000, wall: WALL })
}

fn index(what: What) -> Index {
    Index::new([&held(block(1, what))])
}

fn subject(subject: &str, before: u64) -> What {
    What::Subject { subject: subject.into(), issuer: None, before, and_logins: false }
}

fn address(network: &str) -> What {
    What::Address { network: network.parse().unwrap() }
}

fn from(address: &str) -> Facts {
    Facts { client: Client::Address(address.parse().unwrap()), ..facts(Vec::new()) }
}

#[test]
fn every_credential_of_a_request_is_examined() {
    let blocked = index(What::Fingerprint { fingerprint: Fingerprint::of(b"bad") });
    let hit = blocked.matching(&facts(vec![credential("good"), credential("fine"), credential("bad")]));
    assert_eq!(hit, Some(Hit { id: 1, kind: Kind::Fingerprint, credential: Some(2), learned: false }));
    assert_eq!(blocked.matching(&facts(vec![credential("good")])), None);
}

#[test]
fn a_blocked_cookie_never_hides_a_blocked_bearer() {
    let blocked = index(What::Fingerprint { fingerprint: Fingerprint::of(b"bad") });
    let cookie = Credential { in_cookie: true, ..credential("bad") };
    let hit = blocked.matching(&facts(vec![cookie.clone(), credential("bad")])).unwrap();
    assert_eq!(hit.credential, Some(1));
    assert_eq!(blocked.matching(&facts(vec![cookie])).unwrap().credential, Some(0));
}

#[test]
fn a_session_is_ended_when_begun_at_or_before_the_time_or_when_that_cannot_be_told() {
    let blocked = index(subject("7", NOW - 10));
    let hits = |issued| blocked.matching(&facts(vec![session("7", issued)])).is_some();
    assert!(hits(Some(NOW - 11)));
    assert!(hits(Some(NOW - 10)));
    assert!(!hits(Some(NOW - 9)));
    assert!(!hits(Some(NOW)));
    assert!(hits(Some(NOW + 1)), "from the future");
    assert!(hits(None));
    assert_eq!(blocked.matching(&facts(vec![session("8", None)])), None);
}

#[test]
fn and_logins_refuses_later_sessions_too() {
    let what = What::Subject { subject: "7".into(), issuer: None, before: NOW - 10, and_logins: true };
    assert!(index(what).matching(&facts(vec![session("7", Some(NOW))])).is_some());
}

#[test]
fn another_issuers_subject_is_another_person_but_an_unnamed_issuer_may_be_any() {
    let what =
        What::Subject { subject: "7".into(), issuer: Some("a".into()), before: NOW, and_logins: false };
    let blocked = index(what);
    let of = |issuer: Option<&str>| {
        let mut credential = session("7", None);
        credential.claims.as_mut().unwrap().issuer = issuer.map(issuer_key);
        facts(vec![credential])
    };
    assert!(blocked.matching(&of(Some("a"))).is_some());
    assert!(blocked.matching(&of(Some("b"))).is_none());
    assert!(blocked.matching(&of(None)).is_some());
}

#[test]
fn everyone_means_those_who_bring_a_credential() {
    let blocked = index(What::Everyone { before: NOW, and_logins: false });
    assert_eq!(blocked.matching(&facts(Vec::new())), None);
    assert_eq!(blocked.matching(&facts(vec![credential("opaque")])).unwrap().kind, Kind::Everyone);
}

#[test]
fn a_site_is_met_by_any_of_its_names_and_no_other() {
    let mut scoped = block(1, subject("7", NOW));
    for (site, expected) in [(SITE, true), ("ALIAS.example.com", true), ("other.example.com", false)] {
        scoped.site = Some(site.into());
        let found = Index::new([&held(scoped.clone())]).matching(&facts(vec![session("7", None)]));
        assert_eq!(found.is_some(), expected, "{site}");
    }
}

#[test]
fn addresses_match_by_network_and_mapped_ones_as_ipv4() {
    let table = [
        ("192.0.2.0/24", "192.0.2.255", true),
        ("192.0.2.0/24", "192.0.3.0", false),
        ("192.0.2.7/32", "::ffff:192.0.2.7", true),
        ("::ffff:192.0.2.0/120", "192.0.2.9", true),
        ("0.0.0.0/0", "203.0.113.1", true),
        ("0.0.0.0/0", "2001:db8::1", false),
        ("2001:db8::/32", "2001:db8:ffff::1", true),
        ("2001:db8::/64", "2001:db8:0:1::1", false),
        ("::/0", "2001:db8::1", true),
    ];
    for (network, client, expected) in table {
        let found = index(address(network)).matching(&from(client));
        assert_eq!(found.is_some(), expected, "{network} {client}");
    }
    let unknown = Facts { client: Client::Unknown, ..facts(Vec::new()) };
    assert_eq!(index(address("0.0.0.0/0")).matching(&unknown), None);
}

#[test]
fn a_block_ends_only_when_both_clocks_agree() {
    let (clock, hand) = Clock::test(WALL);
    let standing = block(1, address("192.0.2.7/32")).held(clock.now());
    let blocked = Index::new([&standing]);
    let hits = || blocked.matching(&Facts { now: clock.now(), ..facts(Vec::new()) }).is_some();
    let day = 86_400_000;
    for wall in [WALL + day, WALL - day, WALL + 3650 * day, 0] {
        hand.jump_wall(wall);
        assert!(hits() && !standing.is_over(clock.now()), "wall clock at {wall}");
    }
    hand.jump_wall(WALL);
    hand.advance(Duration::from_secs(3599));
    assert!(hits());
    hand.advance(Duration::from_secs(1));
    assert!(!hits() && standing.is_over(clock.now()));
    hand.jump_wall(WALL);
    assert!(hits(), "the wall clock went back: not agreed");
}

#[test]
fn a_clock_without_battery_does_not_lengthen_a_block_beyond_its_length() {
    let (clock, hand) = Clock::test(0);
    let standing = block(1, address("192.0.2.7/32")).held(clock.now());
    hand.advance(Duration::from_secs(3600));
    hand.jump_wall(WALL + 3_600_000);
    assert!(standing.is_over(clock.now()));
}

#[test]
fn a_lifted_block_no_longer_matches_and_another_of_the_same_key_still_does() {
    let one = held(block(1, subject("7", NOW)));
    let two = held(block(2, subject("7", NOW)));
    let both = Index::new([&one]).with([&two]);
    let request = facts(vec![session("7", None)]);
    assert_eq!(both.without(&one).matching(&request).unwrap().id, 2);
    assert_eq!(both.without(&two).matching(&request).unwrap().id, 1);
    let none = both.without(&one).without(&two).without(&two);
    assert_eq!(none.matching(&request), None);
    assert_eq!(none.counts().map(|(_, count)| count).sum::<usize>(), 0);
}

#[test]
fn a_block_reads_back_as_it_was_written() {
    let all = [
        What::Fingerprint { fingerprint: Fingerprint::of(b"x") },
        What::Jti { jti: "1".into() },
        What::Subject { subject: "7".into(), issuer: Some("i".into()), before: 1, and_logins: true },
        What::Session { session: "s".into(), subject: Some("7".into()), issuer: Some("i".into()), before: 1 },
        What::Everyone { before: 1, and_logins: false },
        What::Share { share: Key([7; 16]) },
        address("192.0.2.0/24"),
    ];
    for what in all {
        let block = block(1, what);
        let json = serde_json::to_string(&block).unwrap();
        assert!(json.contains(&format!("\"kind\":\"{}\"", block.what.kind().word())), "{json}");
        assert_eq!(serde_json::from_str::<Block>(&json).unwrap(), block);
    }
}

#[test]
fn a_session_of_a_provider_ends_and_others_of_the_same_person_go_on() {
    let of = |subject: &str, sid: Option<&str>, issued| {
        let mut token = session(subject, Some(issued));
        token.claims.as_mut().unwrap().session = sid.map(session_key);
        facts(vec![token])
    };
    let what = |subject: Option<&str>| What::Session {
        session: "s".into(),
        subject: subject.map(Into::into),
        issuer: None,
        before: NOW - 10,
    };
    let blocked = index(what(Some("7")));
    assert!(blocked.matching(&of("7", Some("s"), NOW)).is_some(), "a later token of the same session");
    assert!(blocked.matching(&of("7", Some("other"), NOW - 60)).is_none(), "another session");
    assert!(blocked.matching(&of("7", None, NOW - 10)).is_some(), "one that cannot be told apart");
    assert!(blocked.matching(&of("7", None, NOW - 9)).is_none(), "and begun later");
    assert!(blocked.matching(&of("8", None, NOW - 60)).is_none(), "somebody else's");
    let nobodys = index(what(None));
    assert!(nobodys.matching(&of("7", None, NOW - 60)).is_none());
    assert_eq!(nobodys.matching(&of("7", Some("s"), NOW)).unwrap().kind, Kind::Session);
}
