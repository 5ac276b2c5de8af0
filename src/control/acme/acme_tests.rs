use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::clock::Clock;

const WALL: u64 = 1_800_000_000_000;

fn acme(url: &str) -> Acme {
    Acme {
        email: "me@a.test".into(),
        directory: url.into(),
        ca_file: None,
        ca: None,
        profile: None,
        challenges: crate::config::acme::Challenge::ALL.to_vec(),
        dns_command: Vec::new(),
        dns_timeout: Duration::from_secs(1),
        external_account: None,
    }
}

struct Nobody;

impl Reloader for Nobody {
    fn prepare(
        self: Arc<Self>,
        _: &std::path::Path,
    ) -> Result<crate::control::reload::Prepared, crate::config::problem::Problems> {
        Err(crate::config::problem::Problems::default())
    }
}

/// What was said.
type Said = Arc<Mutex<Vec<String>>>;

fn say() -> (Say, Said) {
    let said = Said::default();
    let heard = Arc::clone(&said);
    (Arc::new(move |line: &str| heard.lock().unwrap().push(line.to_owned())), said)
}

/// An authority where nobody listens, asked for one host; a desk of its own says what it says elsewhere.
fn at_a_closed_port(dir: &std::path::Path, say: Say, at_the_desk: Say) -> (Authority, HostPattern) {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let acme = acme(&format!("https://localhost:{}/dir", closed.port()));
    let mut authority = Authority::new(Arc::default(), say);
    let store = CertificateStore::of(dir, &acme);
    authority.desk = Some(Arc::new(Desk::new(acme, store, at_the_desk)));
    let host: HostPattern = "a.test".parse().unwrap();
    authority.plan.follow(std::slice::from_ref(&host), |_| Known::default());
    (authority, host)
}

/// Takes over what has come to an end, if something was under way.
async fn one_round(authority: &mut Authority, now: Now) -> bool {
    authority.tend(now);
    if authority.tasks.is_empty() {
        return false;
    }
    let done = tokio::time::timeout(Duration::from_secs(10), authority.done()).await.unwrap();
    authority.take(done, &Nobody, now);
    true
}

#[tokio::test]
async fn an_authority_that_is_down_for_an_hour_holds_nothing_up_and_is_left_alone_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let (say, said) = say();
    let (clock, hand) = Clock::test(WALL);
    let (mut authority, host) = at_a_closed_port(dir.path(), Arc::clone(&say), Arc::clone(&say));
    let mut tries = 0;
    for second in 0..3600 {
        tries += usize::from(one_round(&mut authority, clock.now()).await);
        hand.advance(Duration::from_secs(1));
        if second % 600 == 0 {
            // Another process, which knows nothing but what is on the disk.
            let (kept, wanted) = (authority.plan.authority.clone(), authority.desk.take().unwrap());
            assert_eq!(noted::<Trouble>(wanted.store.trouble(), &|why| panic!("{why}")), kept);
            authority = Authority::new(Arc::default(), Arc::clone(&say));
            authority.plan.authority = kept;
            authority
                .plan
                .follow(std::slice::from_ref(&host), |host| known(&wanted, &say, host, clock.now()));
            authority.desk = Some(wanted);
        }
    }
    let said = said.lock().unwrap().join("\n");
    assert!((5..=8).contains(&tries), "asked {tries} times: {said}");
    assert_eq!(said.matches("no certificate for a.test: ").count(), tries, "{said}");
    assert!(said.contains("no connection") && said.contains("tried again"), "{said}");
    assert_eq!(authority.plan.host(&host).unwrap().record.trouble.failures, 0, "the host is not to blame");
}

#[tokio::test]
async fn a_task_that_panics_is_a_failure_and_the_host_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (say, said) = say();
    let (clock, hand) = Clock::test(WALL);
    let (mut authority, host) = at_a_closed_port(dir.path(), say, Arc::new(|line: &str| panic!("{line}")));
    // The desk says so of the account, which is this test's way to make it panic.
    authority.desk.as_ref().unwrap().store.keep_account("garbage").unwrap();
    for failures in 1..=2 {
        assert!(one_round(&mut authority, clock.now()).await, "it is under way for ever");
        assert_eq!(authority.plan.host(&host).unwrap().record.trouble.failures, failures);
        hand.advance(Duration::from_secs(7200));
    }
    assert!(said.lock().unwrap()[0].contains("a fault of the gateway's own"), "{said:?}");
}

#[tokio::test]
async fn that_the_authority_does_not_say_when_to_renew_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let (say, said) = say();
    let (clock, hand) = Clock::test(WALL);
    let (mut authority, host) = at_a_closed_port(dir.path(), Arc::clone(&say), say);
    let desk = authority.desk.clone().unwrap();
    let begin = WALL / 1000;
    authority.plan.succeeded(&host, clock.now(), (begin, begin + 90 * 86_400));
    for _ in 0..5 {
        authority.plan.begin(clock.now());
        let failure = Failure { wait: Some(7200), ..Failure::host("404 Not Found") };
        let (desk, host) = (Arc::clone(&desk), host.clone());
        authority.take(Done { host, desk, outcome: Outcome::Asked(Err(failure)) }, &Nobody, clock.now());
        assert_eq!(
            authority.plan.host(&"a.test".parse().unwrap()).unwrap().record.ask,
            clock.now().unix() + 7200
        );
        hand.advance(Duration::from_secs(7200));
    }
    let said = said.lock().unwrap();
    assert!(said.len() == 1 && said[0].contains("does not say when to renew a.test: 404"), "{said:?}");
}

#[test]
fn a_config_that_asks_another_way_tries_at_once_and_gives_up_what_was_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let acme = acme("https://ca.test/dir");
    let store = CertificateStore::of(dir.path(), &acme);
    let trouble = "{\"failures\":3,\"problem\":\"down\",\"next\":1800007200}";
    store.keep_trouble(trouble).unwrap();
    let mut settings = crate::control::tests::settings(dir.path());
    settings.state_dir = dir.path().to_owned();
    settings.acme = Some(acme.clone());
    let now = Now { mono: 0, wall: WALL };
    let mut authority = Authority::new(Arc::default(), say().0);
    authority.follow(&settings, now);
    assert_eq!((authority.plan.authority.failures, authority.plan.authority.next), (3, 1_800_007_200));
    let before = authority.desk.clone().unwrap();
    // The same words with another CA behind them.
    settings.acme = Some(Acme { ca: Some(Vec::new()), ..acme });
    authority.follow(&settings, now);
    assert_eq!((authority.plan.authority.failures, authority.plan.authority.next), (3, 0));
    assert!(before.is_closed() && !authority.desk.unwrap().is_closed());
}

#[tokio::test]
async fn what_an_order_has_come_to_before_a_hand_over_is_kept_for_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let (say, said) = say();
    // What rcgen signs holds from 1975 on for more than a thousand years.
    let (mut authority, host) = at_a_closed_port(dir.path(), Arc::clone(&say), say);
    let desk = authority.desk.clone().unwrap();
    let issued = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
    let pem = format!("{}{}", issued.signing_key.serialize_pem(), issued.cert.pem());
    let outcome = Outcome::Ordered(Ok(pem.clone()));
    let done = Done { host: host.clone(), desk: Arc::clone(&desk), outcome };
    authority.tasks.spawn(std::future::ready(done));
    // One that is under way is not waited for.
    authority.tasks.spawn(std::future::pending());
    tokio::task::yield_now().await;
    authority.take_ended(&Nobody, Now { mono: 0, wall: WALL });
    assert_eq!(desk.store.certificate(&host).unwrap().as_deref(), Some(&pem), "{said:?}");
    assert_eq!(authority.tasks.len(), 1);
}
