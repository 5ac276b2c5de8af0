//! What a decision is measured on: a policy with every guard, 100,000 blocks, and requests with three credentials that
//! pass or that one guard each refuses.

#![allow(dead_code, reason = "test and bench each use their part")]
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use portcullis::clock::Now;
use portcullis::config;
use portcullis::config::class::Class;
use portcullis::gateway::read::{self, Reading, Surroundings};
use portcullis::gateway::{Decision, Link, decide};
use portcullis::guards::Denial;
use portcullis::policy::{Snapshot, compile};
use portcullis::request::credential::Fingerprint;
use portcullis::request::facts::Malformed;
use portcullis::request::share_key::ShareKey;
use portcullis::stores::blocks::{Block, Held, Index, What};
use portcullis::stores::kept::Kept;
use portcullis::stores::seal::Seal;
use portcullis::stores::sessions::Sessions;

/// Blocks of all kinds.
pub const BLOCKS: u64 = 100_000;
const NOW: Now = Now { mono: 1_000_000_000_000, wall: 1_790_000_000_000 };
const CONFIG: &str = r#"
[tls]
self_signed = true
[[site]]
hosts = ["files.example.com", "www.example.com"]
app = "generic"
upstream = "http://127.0.0.1:8000"
[site.only_from]
api = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"]
[site.rate.api]
refill = "1000000/s"
burst = 1000000
[site.rate.login]
refill = "1/day"
burst = 1
"#;

/// A gateway's state, and no gateway.
pub struct Bench {
    pub snapshot: Snapshot,
    pub index: Index,
    pub share_key: ShareKey,
    pub seal: Seal,
    sessions: Sessions,
}

/// A request and who sends it.
pub struct Asked {
    pub name: &'static str,
    pub head: Parts,
    pub peer: Peer,
    pub length: u64,
    /// The guard that refuses it; `None`: it passes.
    pub refused_by: Option<&'static str>,
}

/// A TLS connection of this peer.
pub struct Peer(pub IpAddr);

impl Link for Peer {
    fn peer(&self) -> IpAddr {
        self.0
    }
    fn is_plain(&self) -> bool {
        false
    }
    fn sni(&self) -> Option<&str> {
        Some("files.example.com")
    }
    fn begin(&self) -> Option<Malformed> {
        None
    }
    fn malformed_body(&self) -> Option<Malformed> {
        None
    }
    fn of_class(&self, _: Class) {}
}

impl Bench {
    pub fn new() -> Self {
        let loaded = config::parse(Path::new("/etc/portcullis/portcullis.toml"), CONFIG, NOW);
        let settings = loaded.unwrap_or_else(|problems| panic!("{problems}")).settings;
        let policy = compile(&settings, &Kept::new(settings.limits.limiter_keys));
        let held: Vec<Held> = (0..BLOCKS).map(|number| block(number).held(NOW)).collect();
        Self {
            snapshot: Snapshot::new(Arc::new(policy)),
            index: Index::new(&held),
            share_key: ShareKey::new(&[7; 32]),
            seal: Seal::new(&[[7; 32]]),
            sessions: Sessions::default(),
        }
    }

    pub fn read(&self, asked: &Asked) -> Reading<'_> {
        let around = Surroundings {
            snapshot: &self.snapshot,
            share_key: &self.share_key,
            seal: &self.seal,
            sessions: &self.sessions,
            now: NOW,
            rehearsal: false,
        };
        let client = read::client(&asked.peer, self.snapshot.policy(), &asked.head);
        read::read(around, &asked.peer, client, &asked.head, Some(asked.length)).unwrap()
    }

    pub fn decide(&self, reading: &Reading<'_>) -> Result<Decision, Denial> {
        decide(reading.found.route, &self.index, &reading.facts, &reading.presented, &mut |_, _| {})
    }
}

/// The requests: one that passes, one for each guard that refuses.
pub fn asked() -> Vec<Asked> {
    let ask = |name, path: &str, peer: &str, third: &str, length, refused_by| {
        let head = http::Request::get(format!("{path}?token={}", token(third)))
            .header("host", "files.example.com")
            .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)")
            .header("accept", "application/json")
            .header("accept-encoding", "gzip, deflate, br")
            .header("sec-fetch-site", "same-origin")
            .header("sec-fetch-dest", "empty")
            .header("authorization", format!("Bearer {}", token("a")))
            .header("cookie", format!("theme=dark; access_token={}", token("b")))
            .body(())
            .unwrap();
        Asked { name, head: head.into_parts().0, peer: Peer(peer.parse().unwrap()), length, refused_by }
    };
    vec![
        ask("pass", "/api/items", "203.0.113.7", "c", 0, None),
        ask("allowlist", "/api/items", "100.70.0.1", "c", 0, Some("allowlist")),
        ask("blocked token", "/api/items", "203.0.113.7", "token-1000", 0, Some("blocks")),
        ask("blocked jti", "/api/items", "203.0.113.7", "jti-1007", 0, Some("blocks")),
        ask("blocked subject", "/api/items", "203.0.113.7", "subject-1013", 0, Some("blocks")),
        ask("blocked address", "/api/items", "198.51.100.66", "c", 0, Some("blocks")),
        ask("blocked share", "/s/share-1017", "203.0.113.7", "c", 0, Some("blocks")),
        ask("size", "/api/items", "203.0.113.7", "c", 1 << 40, Some("size")),
        ask("rate", "/api/auth/login", "203.0.113.7", "c", 0, Some("rate")),
    ]
}

/// A JWT that calls itself and its subject by this name. Nobody has signed it: blocks need no key.
fn token(name: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let (jti, sub) = match name.split_once('-') {
        Some(("subject", _)) => ("unblocked", name),
        _ => (name, "someone"),
    };
    let claims = format!(
        r#"{{"iss":"files","sub":"{sub}","jti":"{jti}","iat":1789990000,"exp":1790003600,"role":"user","name":"A. Person"}}"#
    );
    format!("{}.{}.{}", encode(r#"{"alg":"HS256","typ":"JWT"}"#), encode(&claims), encode(&"s".repeat(32)))
}

fn block(number: u64) -> Block {
    let what = match number % 20 {
        0..=6 => {
            let token = token(&format!("token-{number}"));
            let signed = token.rsplit_once('.').unwrap().0;
            What::Fingerprint { fingerprint: Fingerprint::of(signed.as_bytes()) }
        }
        7..=12 => What::Jti { jti: format!("jti-{number}") },
        13..=16 => What::Subject {
            subject: format!("subject-{number}"),
            issuer: None,
            before: NOW.unix(),
            and_logins: false,
        },
        17 => What::Share { share: ShareKey::new(&[7; 32]).key_of(format!("share-{number}").as_bytes()) },
        _ => What::Address { network: network(number) },
    };
    Block {
        id: number + 1,
        site: None,
        what,
        reason: String::new(),
        by: String::new(),
        created: NOW.wall,
        until: NOW.wall + 3_600_000,
        learned: false,
        spares: None,
        ended: None,
    }
}

/// One in every few is wider than a single client.
fn network(number: u64) -> ipnet::IpNet {
    let [.., a, b, c] = number.to_be_bytes();
    let text = match number % 100 {
        18 if number == 18 => "198.51.100.66/32".to_owned(),
        38 => format!("10.{a}.{b}.0/24"),
        58 => format!("2001:db8:{a:x}{b:02x}:{c:x}::/64"),
        78 => format!("2001:db9:{a:x}{b:02x}::/48"),
        _ => format!("10.{a}.{b}.{c}/32"),
    };
    text.parse().unwrap()
}
