//! Providers of every wrong kind, on real sockets.

use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// P-256, from RFC 7517, A.1.
fn good() -> String {
    let key = json!({
        "kty": "EC", "crv": "P-256", "use": "sig", "kid": "1",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
    });
    json!({ "keys": [key] }).to_string()
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Answers each connection with the answer of the moment; an empty one: never; one that begins with a blank: a byte now and then.
struct Provider {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<Mutex<u32>>,
}

impl Provider {
    async fn start(answer: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::new(Mutex::new(answer.to_owned())), Arc::<Mutex<u32>>::default());
        let (says, count) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let answer = says.lock().unwrap().clone();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                if answer.is_empty() {
                    silent.push(stream);
                } else if answer.starts_with(' ') {
                    tokio::spawn(async move {
                        for byte in answer.trim_start().bytes() {
                            if stream.write_all(&[byte]).await.is_err() {
                                break;
                            }
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    });
                } else {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        });
        Self { address, answer, asked }
    }

    fn says(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.to_owned();
    }

    fn asked(&self) -> u32 {
        *self.asked.lock().unwrap()
    }
}

struct Bench {
    sets: KeySets,
    ring: Arc<KeyRing>,
    heard: Arc<Mutex<Vec<String>>>,
    now: Now,
    dir: TempDir,
}

impl Bench {
    fn new(provider: &Provider) -> Self {
        Self::within(provider, tempfile::tempdir().unwrap())
    }

    fn within(provider: &Provider, dir: TempDir) -> Self {
        let rings = Arc::<KeyRings>::default();
        let ring = rings.of(&Address { url: format!("http://{}/jwks", provider.address).into(), tls: None });
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hears = Arc::clone(&heard);
        let say: Say = Arc::new(move |line: &str| hears.lock().unwrap().push(line.to_owned()));
        let sets = KeySets::new(rings, StateDir::open(&dir.path().join("state")).unwrap(), say);
        Self { sets, ring, heard, now: Now { mono: 1_000_000_000, wall: 1_790_000_000_000 }, dir }
    }

    /// So many seconds later.
    async fn after(&mut self, seconds: u64) {
        self.now.mono += seconds * 1_000_000_000;
        self.sets.tend(self.now);
        while !self.sets.fetches.is_empty() {
            let (address, fetched) = self.sets.fetched().await;
            self.sets.take(&address, fetched, self.now);
        }
    }

    fn keys(&self) -> Option<usize> {
        self.ring.current().as_ref().map(|keys| keys.list.len())
    }

    fn last_word(&self) -> String {
        self.heard.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

#[tokio::test]
async fn keys_are_fetched_kept_while_the_provider_is_down_and_there_again_after_a_restart() {
    let provider = Provider::start(&ok(&good())).await;
    let mut bench = Bench::new(&provider);
    bench.after(0).await;
    assert_eq!(bench.keys(), Some(1));
    let generation = bench.ring.current().as_ref().unwrap().generation;
    provider.says("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n");
    bench.after(600).await;
    assert_eq!(bench.keys(), Some(1));
    assert!(bench.last_word().contains("500") && bench.last_word().contains("last good ones count on"));
    bench.after(4000).await;
    assert_eq!(bench.sets.warnings(bench.now).len(), 1);
    provider.says(&ok(&good()));
    bench.after(600).await;
    assert!(bench.sets.warnings(bench.now).is_empty());
    assert_eq!(
        bench.ring.current().as_ref().unwrap().generation,
        generation,
        "the same keys are no new ones"
    );
    provider.says("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n");
    let mut again = Bench::within(&provider, bench.dir);
    again.sets.follow();
    assert_eq!(again.keys(), Some(1), "before anything is fetched");
}

#[tokio::test]
async fn what_is_no_key_set_changes_nothing_and_says_why() {
    let long = format!("{{\"keys\":[{}", " ".repeat(10 << 20));
    let secret = json!({ "keys": [{ "kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY" }] });
    for (what, answer, word) in [
        ("garbage", ok("garbage"), "no key set"),
        ("a page", ok("<html>"), "no key set"),
        ("empty", ok("{\"keys\":[]}"), "no key"),
        ("10 MiB", ok(&long), "larger than 256 KiB"),
        (
            "10 MiB, chunked",
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na00000\r\n{long}"),
            "larger",
        ),
        ("a shared secret", ok(&secret.to_string()), "no key"),
        ("a redirect", "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n".into(), "redirects"),
        ("half", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"keys\":".into(), "broken"),
        ("no HTTP", "hello\r\n\r\n".into(), "broken answer"),
    ] {
        let provider = Provider::start(&ok(&good())).await;
        let mut bench = Bench::new(&provider);
        bench.after(0).await;
        provider.says(&answer);
        bench.after(600).await;
        assert_eq!(bench.keys(), Some(1), "{what}");
        assert!(bench.last_word().contains(word), "{what}: {}", bench.last_word());
    }
}

#[tokio::test]
async fn a_provider_that_never_answers_or_dribbles_is_given_up() {
    for answer in [String::new(), format!(" {}", ok(&good()))] {
        let provider = Provider::start(&answer).await;
        let mut bench = Bench::new(&provider);
        bench.sets.deadline = Duration::from_millis(200);
        bench.after(0).await;
        assert_eq!(bench.keys(), None);
        assert!(bench.last_word().contains("within 200ms") && bench.last_word().contains("503"));
        assert_eq!(bench.sets.warnings(bench.now).len(), 1);
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_said_and_its_last_keys_count_on() {
    let provider = Provider::start(&ok(&good())).await;
    let mut bench = Bench::new(&provider);
    bench.after(0).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let address = Address { url: format!("http://{nobody}/jwks").into(), tls: None };
    let fetched = super::fetch::get(&address.url, None, MAX_SET, Duration::from_secs(5)).await;
    assert!(fetched.as_ref().is_err_and(|why| why.contains("no connection")), "{fetched:?}");
    let known = Address { url: format!("http://{}/jwks", provider.address).into(), tls: None };
    bench.sets.take(&known, fetched, bench.now);
    assert_eq!(bench.keys(), Some(1));
    assert!(
        bench.last_word().contains("no connection") && bench.last_word().contains("last good ones count on")
    );
}

#[tokio::test]
async fn nobody_makes_us_hammer_the_provider() {
    let provider = Provider::start(&ok(&good())).await;
    let mut bench = Bench::new(&provider);
    bench.after(0).await;
    for _ in 0..29 {
        bench.ring.ask();
        bench.after(1).await;
    }
    assert_eq!(provider.asked(), 1);
    bench.after(1).await;
    assert_eq!(provider.asked(), 2, "an unknown key is looked for, once in 30 s");
    provider.says("HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n");
    bench.after(600).await;
    let before = provider.asked();
    for _ in 0..1200 {
        bench.after(1).await;
    }
    assert_eq!(provider.asked() - before, 5, "30 s, 1, 2, 4 and 8 minutes");
}

#[tokio::test]
async fn keys_that_no_site_asks_for_any_more_are_fetched_no_more() {
    let provider = Provider::start(&ok(&good())).await;
    let mut bench = Bench::new(&provider);
    bench.after(0).await;
    let asked = provider.asked();
    bench.ring = Arc::default();
    bench.after(3600).await;
    assert_eq!((provider.asked(), bench.sets.sets.len()), (asked, 0));
}
