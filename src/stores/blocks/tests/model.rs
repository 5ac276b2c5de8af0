//! The index against the plainest of models.

use proptest::prelude::*;

use super::*;

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
        What::Session { session, subject, issuer, before } => any(&|_, claims| {
            let issued_by = issuer.is_none()
                || claims.issuer.is_none()
                || claims.issuer == issuer.as_deref().map(issuer_key);
            let own = claims.session == Some(session_key(session));
            let perhaps = claims.session.is_none()
                && subject.as_deref().map(subject_key).is_some_and(|key| claims.subject == Some(key))
                && old(*before, claims);
            issued_by && (own || perhaps)
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
        (0..3u8, proptest::option::of(0..4u8), proptest::option::of(0..2u8), before.clone()).prop_map(
            |(session, subject, issuer, before)| What::Session {
                session: session.to_string(),
                subject: subject.map(|n| n.to_string()),
                issuer: issuer.map(|n| n.to_string()),
                before
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
        proptest::option::of(0..4u8),
        proptest::option::of(NOW - 4..NOW + 4),
    )
        .prop_map(|(jti, subject, issuer, session, issued)| Claims {
            jti: jti.map(|n| jti_key(&n.to_string())),
            subject: subject.map(|n| subject_key(&n.to_string())),
            issuer: issuer.map(|n| issuer_key(&n.to_string())),
            session: session.map(|n| session_key(&n.to_string())),
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
