use std::sync::Mutex;

use super::*;
use crate::clock::Clock;
use crate::config::acme::Acme;

const WALL: u64 = 1_800_000_000_000;

fn acme(url: &str) -> Acme {
    Acme {
        email: "me@a.test".into(),
        directory: url.into(),
        ca_file: None,
        profile: None,
        challenges: crate::config::acme::Challenge::ALL.to_vec(),
        dns_command: Vec::new(),
        dns_timeout: Duration::from_secs(1),
        external_account: None,
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_reached_holds_nothing_up_and_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let say: Say = Arc::new(move |line: &str| heard.lock().unwrap().push(line.to_owned()));
    let (clock, _hand) = Clock::test(WALL);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let acme = acme(&format!("https://localhost:{}/dir", closed.port()));
    let mut authority = Authority::new(Arc::default(), Arc::clone(&say));
    let store = CertificateStore::of(dir.path(), &acme);
    authority.desk = Some(Arc::new(Desk::new(acme, store, say)));
    let host: HostPattern = "a.test".parse().unwrap();
    authority.plan.follow(std::slice::from_ref(&host), |_| (None, Record::default()));
    authority.tend(clock.now());
    let done = tokio::time::timeout(Duration::from_secs(10), authority.done()).await.unwrap();
    struct Nobody;
    impl Reloader for Nobody {
        fn prepare(
            self: Arc<Self>,
            _: &std::path::Path,
        ) -> Result<crate::control::reload::Prepared, crate::config::problem::Problems> {
            Err(crate::config::problem::Problems::default())
        }
    }
    authority.take(done, &Nobody, clock.now());
    let said = said.lock().unwrap().join("\n");
    assert!(said.contains("no certificate for a.test: ") && said.contains("tried again"), "{said}");
    assert!(authority.plan.authority.failures == 1, "{said}");
}
