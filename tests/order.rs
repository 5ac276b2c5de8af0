//! Which guard answers first: the order is a security property.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests and their tables"
)]

mod common;

use std::path::Path;
use std::rc::Rc;

use common::gate::Config;
use common::upstream::{OK, Upstream};
use http::Method;
use portcullis::clock::Now;
use portcullis::gateway::{Decision, decide};
use portcullis::guards::{Reason, Verdict};
use portcullis::policy::{Policy, compile};
use portcullis::request::client::Client;
use portcullis::request::credential::{Key, Presented, TokenText};
use portcullis::request::facts::{Companion, Facts, Origin, scope_of};
use portcullis::request::path::PathViews;
use portcullis::stores::blocks::{Block, Index, What};
use portcullis::stores::kept::Kept;

const NOW: Now = Now { mono: 1_000_000_000_000, wall: 1_790_000_000_000 };
const ORDER: [&str; 7] = ["allowlist", "blocks", "browser", "verify", "size", "values", "rate"];
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn policy(more: &str) -> Policy {
    policy_of(more, "login")
}

/// With a list of networks and a budget of one for this class.
fn policy_of(more: &str, class: &str) -> Policy {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), SECRET).unwrap();
    let text = format!(
        "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"http://127.0.0.1:8000\"\n\
         app = \"keepstack\"\n{more}[site.rate.{class}]\nrefill = \"1/min\"\nburst = 1\n\
         [site.only_from]\n{class} = [\"203.0.113.0/24\"]\n\
         [site.tokens]\npreviews = \"members\"\nverify = {{ key_file = \"{}\" }}\n",
        key.path().display()
    );
    let loaded = portcullis::config::parse(Path::new("/etc/portcullis/portcullis.toml"), &text, NOW);
    compile(&loaded.unwrap_or_else(|problems| panic!("{problems}")).settings, &Kept::new(100))
}

/// Every address is blocked.
fn blocked() -> Index {
    let block = Block {
        id: 1,
        site: None,
        what: What::Address { network: "0.0.0.0/0".parse().unwrap() },
        reason: String::new(),
        by: String::new(),
        created: NOW.wall,
        until: NOW.wall + 3_600_000,
        learned: false,
        spares: None,
        ended: None,
    };
    Index::new([&block.held(NOW)])
}

/// What each guard said of a login, and whether it was permitted.
fn said(policy: &Policy, login: &Login) -> (Vec<(&'static str, Verdict)>, bool) {
    let site = policy.site(0).unwrap();
    let views = PathViews::read(&"/api/auth/login".parse().unwrap()).unwrap();
    let route = site.route(&Method::POST, &views).unwrap().route;
    let mut heard = Vec::new();
    let on = &mut |guard, verdict: &Verdict| heard.push((guard, verdict.clone()));
    let decided = decide(route, &login.index, &login.facts, &login.presented, on);
    // Only the login guard, which wants the body, makes a permit of it.
    assert!(!matches!(decided, Ok(Decision::Permit(_))), "a login needs more than facts");
    (heard, decided.is_ok())
}

struct Login {
    facts: Facts,
    presented: Vec<Presented>,
    index: Index,
}

/// A login that every guard would refuse, but for the first `healed` of them.
fn bad_login(healed: usize) -> Login {
    let forged = Presented { text: TokenText::new(b"e30.AAAA"), cookie: None, expires: None };
    let address = if healed > 0 { [203, 0, 113, 7] } else { [198, 51, 100, 7] };
    let facts = Facts {
        client: Client::Address(address.into()),
        scopes: Rc::new([scope_of("a.example")]),
        class: portcullis::config::class::Class::Login,
        method: Method::POST,
        origin: if healed > 2 { Origin::Own } else { Origin::Foreign },
        body_length: Some(if healed > 4 { 10 } else { 1 << 30 }),
        odd_value: healed <= 5,
        now: NOW,
        ..Facts::example()
    };
    Login {
        facts,
        presented: if healed > 3 { Vec::new() } else { vec![forged] },
        index: if healed > 1 { Index::default() } else { blocked() },
    }
}

#[test]
fn the_guards_answer_in_their_order_and_the_first_refusal_ends_it() {
    let policy = policy("");
    let (heard, permitted) = said(&policy, &bad_login(7));
    assert!(permitted, "the budget of one is free");
    assert_eq!(heard.iter().map(|(guard, _)| *guard).collect::<Vec<_>>(), ORDER);
    for healed in 0..ORDER.len() {
        let (heard, permitted) = said(&policy, &bad_login(healed));
        assert!(!permitted, "{} must refuse", ORDER[healed]);
        assert_eq!(heard.iter().map(|(guard, _)| *guard).collect::<Vec<_>>(), ORDER[..=healed]);
        assert!(matches!(&heard[healed].1, Verdict::Deny(denial) if denial.guard == ORDER[healed]));
        assert!(heard[..healed].iter().all(|(_, verdict)| *verdict == Verdict::Pass));
    }
}

#[test]
fn previews_for_members_are_asked_about_behind_the_verification() {
    let policy = policy("[site.rate.preview]\nrefill = \"1/min\"\nburst = 1\n");
    let order = ["allowlist", "blocks", "browser", "verify", "members", "size", "values", "rate"];
    let site = policy.site(0).unwrap();
    let views = PathViews::read(&"/api/assets/x/thumb".parse().unwrap()).unwrap();
    let route = site.route(&Method::GET, &views).unwrap().route;
    let own = Facts { class: route.class, companion: Companion::Own, now: NOW, ..Facts::example() };
    let bad = Facts { companion: Companion::Absent, runs_as_code: true, ..own.clone() };
    for (facts, count) in [(bad.clone(), 3), (Facts { runs_as_code: false, ..bad }, 5), (own, 8)] {
        let mut heard = Vec::new();
        let permitted =
            decide(route, &Index::default(), &facts, &[], &mut |guard, _| heard.push(guard)).is_ok();
        assert_eq!((&heard[..], permitted), (&order[..count], count == order.len()));
    }
}

#[test]
fn observing_softens_all_but_blocks() {
    let policy = policy("mode = \"observe\"\n");
    for (healed, asked) in ORDER.iter().enumerate() {
        let (heard, permitted) = said(&policy, &bad_login(healed));
        assert_eq!(permitted, healed >= 2, "{asked}");
        let first = heard.iter().find(|(_, verdict)| *verdict != Verdict::Pass);
        if let Some((guard, verdict)) = first {
            assert_eq!(guard, asked);
            assert_eq!(matches!(verdict, Verdict::WouldDeny(_)), *guard != "blocks");
        } else {
            assert_eq!(healed, 6, "nobody has spent the budget yet");
        }
    }
}

/// A link that every guard but its own would refuse, but for the first `healed` of them.
fn bad_link(healed: usize) -> Login {
    let mut link = bad_login(healed);
    link.facts.class = portcullis::config::class::Class::ShareDownload;
    link.facts.method = Method::GET;
    link.facts.runs_as_code = healed <= 2;
    link.facts.share = Some(Key([u8::try_from(healed).unwrap(); 16]));
    link
}

#[test]
fn the_share_guard_is_asked_last_and_charges_for_nothing_that_another_refuses() {
    let policy = policy_of("[site.share_guard]\nmisses = 1\n", "share_download");
    let site = policy.site(0).unwrap();
    let views = PathViews::read(&"/s/AAAAAAAAAAAAAAAAAAAAAA/file".parse().unwrap()).unwrap();
    let route = site.route(&Method::GET, &views).unwrap().route;
    let asked = |link: &Login| {
        let mut heard = Vec::new();
        let on = &mut |guard, verdict: &Verdict| heard.push((guard, verdict.clone()));
        let permit = decide(route, &link.index, &link.facts, &link.presented, on);
        (heard, permit.is_ok())
    };
    let names = |heard: &[(&'static str, Verdict)]| heard.iter().map(|(guard, _)| *guard).collect::<Vec<_>>();
    let order = [&ORDER[..], &["share"]].concat();
    let refused = |healed: usize| {
        let (heard, permitted) = asked(&bad_link(healed));
        assert!(!permitted, "{} must refuse", order[healed]);
        assert_eq!(names(&heard), order[..=healed]);
    };
    (0..6).for_each(refused);
    // Before all that counts: it spends neither the rate of one nor the one miss.
    let mut embedded = bad_link(3);
    embedded.facts.embedded = true;
    let (heard, permitted) = asked(&embedded);
    assert!(!permitted, "a page of another site embeds it");
    assert_eq!(names(&heard), ["allowlist", "blocks", "browser", "share"]);
    let Verdict::Deny(denial) = &heard[3].1 else { panic!("{heard:?}") };
    assert_eq!((denial.guard, denial.reason), ("share", Reason::LinkEmbedded));
    let (heard, permitted) = asked(&bad_link(7));
    assert!(permitted, "nothing was charged so far: {heard:?}");
    assert_eq!(names(&heard), order);
    refused(6);
}

/// Every guard denies when it is asked to, and what it denies never reaches the application.
#[tokio::test]
async fn each_guard_answers_in_its_turn_in_the_running_gateway() {
    let upstream = Upstream::answering(OK);
    let site = "[site.rate.login]\nrefill = \"1/min\"\nburst = 1\n[site.only_from]\nlogin = [\"203.0.113.0/24\"]\n\
                [site.tokens]\nverify = { key_file = \"key\" }\n";
    let gate = Config {
        listen: "trusted_proxies = [\"127.0.0.1\"]\n".into(),
        site: site.into(),
        files: vec![("key", SECRET.into())],
        ..Config::default()
    }
    .start(upstream.address);
    let good = "X-Forwarded-For: 203.0.113.7\r\n";
    assert_eq!(gate.ask("POST /api/auth/login", good, b"{}").await.status, 200);
    let done = gate.cli(["block", "address", "203.0.113.8/32", "--for", "1h"]);
    assert!(done.status.success(), "{done:?}");
    let large = vec![b'x'; 40_000];
    let bearer = "Authorization: Bearer e30.AAAA\r\n";
    let forged = "Origin: https://evil.test\r\nAuthorization: Bearer e30.AAAA\r\n";
    for (client, origin, body, status) in [
        ("198.51.100.8", forged, &large[..], 404),
        ("203.0.113.8", forged, &large, 403),
        ("203.0.113.7", forged, &large, 403),
        ("203.0.113.7", bearer, &large, 401),
        ("203.0.113.7", "", &large, 413),
        ("203.0.113.7", "", b"{}", 429),
        ("203.0.113.9", "", b"[1]", 400),
    ] {
        let lines = format!("X-Forwarded-For: {client}\r\n{origin}");
        assert_eq!(
            gate.ask("POST /api/auth/login", &lines, body).await.status,
            status,
            "{client} {origin:?}"
        );
    }
    // No value of a login is bounded.
    for (guard, reason) in ORDER.iter().filter(|guard| **guard != "values").chain(&["login"]).zip([
        "not_allowlisted",
        "address_blocked",
        "cross_origin",
        "token_invalid",
        "body_too_large",
        "rate_limited",
        "login_unreadable",
    ]) {
        let series = format!(
            "portcullis_denials_total{{class=\"login\",guard=\"{guard}\",reason=\"{reason}\",site=\"files.test\"}}"
        );
        assert_eq!(gate.metric(&series), Some(1.0), "{series}");
    }
    assert_eq!(upstream.requests().len(), 1, "only the good one");
}
