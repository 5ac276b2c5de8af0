use std::rc::Rc;
use std::time::Duration;

use http::Method;
use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, Now};
use crate::config::class::Class;
use crate::request::client::Client;
use crate::request::credential::{Claims, Credential, Fingerprint, Key, issuer_key, jti_key, subject_key};
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
        websocket: false,
        now: Now { mono: 5_000_000_000, wall: WALL },
        rehearsal: false,
        origin: crate::request::facts::Origin::Absent,
        runs_as_code: false,
        embedded: false,
        odd_value: false,
        ends: None,
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
    assert_eq!(hit, Some(Hit { id: 1, kind: Kind::Fingerprint, credential: Some(2) }));
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

/// What the index must equal: every block looked at, one after the other.
fn naive(blocks: &[Held], lifted: &[u64], facts: &Facts) -> bool {
    blocks.iter().filter(|held| !lifted.contains(&held.block.id)).any(|held| naive_one(held, facts))
}

fn naive_one(held: &Held, facts: &Facts) -> bool {
    let block = &held.block;
    if held.is_over(facts.now) {
        return false;
    }
    if block.site.as_ref().is_some_and(|site| !facts.scopes.contains(&scope_of(site))) {
        return false;
    }
    let any = |meant: &dyn Fn(&Credential, &Claims) -> bool| {
        facts.credentials.iter().any(|c| meant(c, c.claims.as_ref().unwrap_or(&Claims::default())))
    };
    let old = |before: u64, claims: &Claims| {
        claims.issued.is_none_or(|issued| issued <= before || issued > facts.now.unix())
    };
    match &block.what {
        What::Fingerprint { fingerprint } => any(&|c, _| c.fingerprint == *fingerprint),
        What::Jti { jti } => any(&|_, claims| claims.jti == Some(jti_key(jti))),
        What::Subject { subject, issuer, before, and_logins } => any(&|_, claims| {
            claims.subject == Some(subject_key(subject))
                && (issuer.is_none()
                    || claims.issuer.is_none()
                    || claims.issuer == issuer.as_deref().map(issuer_key))
                && (*and_logins || old(*before, claims))
        }),
        What::Everyone { before, and_logins } => any(&|_, claims| *and_logins || old(*before, claims)),
        What::Share { share } => facts.share == Some(*share),
        What::Address { network } => match facts.client {
            Client::Address(address) => network.contains(&address),
            Client::Unknown => false,
        },
    }
}

fn whats() -> impl Strategy<Value = What> {
    let before = NOW - 3..NOW + 3;
    prop_oneof![
        (0..4u8).prop_map(|n| What::Fingerprint { fingerprint: Fingerprint::of(&[n]) }),
        (0..4u8).prop_map(|n| What::Jti { jti: n.to_string() }),
        (0..4u8, proptest::option::of(0..2u8), before.clone(), any::<bool>()).prop_map(
            |(subject, issuer, before, and_logins)| What::Subject {
                subject: subject.to_string(),
                issuer: issuer.map(|n| n.to_string()),
                before,
                and_logins
            }
        ),
        (before, proptest::bool::weighted(0.1))
            .prop_map(|(before, and_logins)| What::Everyone { before, and_logins }),
        (0..4u8).prop_map(|n| What::Share { share: Key([n; 16]) }),
        (any::<u8>(), 20..=32u8).prop_map(|(host, length)| address(&format!("192.0.2.{host}/{length}"))),
    ]
}

fn blocks() -> impl Strategy<Value = Vec<Held>> {
    let one = (whats(), proptest::option::of(0..3u8), WALL - 2..WALL + 2, any::<bool>());
    proptest::collection::vec(one, 0..6).prop_map(|all| {
        let sites = [SITE, "alias.example.com", "other.example.com"];
        let number = |(id, (what, site, until, mono_over)): (usize, (What, Option<u8>, u64, bool))| Held {
            block: Block {
                site: site.map(|n| sites[usize::from(n)].to_owned()),
                until,
                ..block(id as u64, what)
            },
            until_mono: if mono_over { 0 } else { u64::MAX },
        };
        all.into_iter().enumerate().map(number).collect()
    })
}

fn requests() -> impl Strategy<Value = Facts> {
    let claims = (
        proptest::option::of(0..5u8),
        proptest::option::of(0..5u8),
        proptest::option::of(0..3u8),
        proptest::option::of(NOW - 4..NOW + 4),
    )
        .prop_map(|(jti, subject, issuer, issued)| Claims {
            jti: jti.map(|n| jti_key(&n.to_string())),
            subject: subject.map(|n| subject_key(&n.to_string())),
            issuer: issuer.map(|n| issuer_key(&n.to_string())),
            issued,
            ..Claims::default()
        });
    let one = (0..6u8, proptest::option::of(claims), any::<bool>()).prop_map(|(n, claims, in_cookie)| {
        Credential { fingerprint: Fingerprint::of(&[n]), claims, in_cookie, guessed: false }
    });
    let share = proptest::option::of((0..5u8).prop_map(|n| Key([n; 16])));
    (proptest::collection::vec(one, 0..4), share, any::<u8>(), any::<bool>()).prop_map(
        |(credentials, share, host, known)| Facts {
            share,
            client: if known {
                Client::Address(format!("192.0.2.{host}").parse().unwrap())
            } else {
                Client::Unknown
            },
            ..facts(credentials)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_index_equals_a_look_at_every_block(
        base in blocks(), delta in blocks(), lift in proptest::collection::vec(0..12u64, 0..3), facts in requests(),
    ) {
        let delta: Vec<Held> = delta
            .into_iter()
            .map(|mut held| { held.block.id += base.len() as u64; held })
            .collect();
        let mut index = Index::new(&base).with(&delta);
        let all: Vec<Held> = base.into_iter().chain(delta).collect();
        for held in all.iter().filter(|held| lift.contains(&held.block.id)) {
            index = index.without(held);
        }
        let found = index.matching(&facts);
        prop_assert_eq!(found.is_some(), naive(&all, &lift, &facts));
        if let Some(hit) = found {
            let held = all.iter().find(|held| held.block.id == hit.id).unwrap();
            prop_assert!(naive_one(held, &facts) && !lift.contains(&hit.id));
            prop_assert_eq!(hit.kind, held.block.what.kind());
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are the point")]
fn a_hundred_thousand_blocks_are_searched_in_two_microseconds() {
    let many: Vec<Held> = (0..100_000u64)
        .map(|id| {
            let name = id.to_string();
            held(block(
                id,
                match id % 4 {
                    0 => What::Fingerprint { fingerprint: Fingerprint::of(name.as_bytes()) },
                    1 => What::Jti { jti: name },
                    2 => subject(&name, NOW - 1),
                    _ => address(&format!("10.{}.{}.{}/32", id >> 16 & 255, id >> 8 & 255, id & 255)),
                },
            ))
        })
        .collect();
    let clock = Clock::system();
    let start = clock.now().mono;
    let (base, delta) = many.split_at(99_000);
    let index = Index::new(base);
    let built = clock.now().mono;
    let index = index.with(delta);
    let extended = clock.now().mono;
    let three = (0..3)
        .map(|n| {
            let mut credential = session(&format!("nobody{n}"), Some(NOW));
            credential.claims.as_mut().unwrap().jti = Some(jti_key(&format!("none{n}")));
            credential
        })
        .collect();
    let request = facts(three);
    let rounds = 100_000;
    let mut fastest = u64::MAX;
    for _ in 0..5 {
        let begin = clock.now().mono;
        for _ in 0..rounds {
            assert_eq!(std::hint::black_box(&index).matching(std::hint::black_box(&request)), None);
        }
        fastest = fastest.min((clock.now().mono - begin) / rounds);
    }
    println!(
        "build {} ms, +1000: {} us, matching {fastest} ns",
        (built - start) / 1_000_000,
        (extended - built) / 1000
    );
    assert!(fastest < 2000, "{fastest} ns");
}
