//! TLS as the scanners see it that operators and auditors use: sslyze (Mozilla's profiles) and testssl.sh.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::HOST;
use common::gate::{Config, Gate};
use common::upstream::{OK, Upstream};
use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

/// A gateway as one that a real authority has given a certificate to: 90 days, ECDSA on P-256.
fn gate(min_version: &str, upstream: &Upstream) -> (Gate, tempfile::TempDir) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "CA of the tests");
    let root = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut leaf = CertificateParams::new([HOST.to_owned()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, HOST);
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    leaf.not_after = leaf.not_before + Duration::days(89);
    // Nobody asks there.
    leaf.crl_distribution_points =
        vec![CrlDistributionPoint { uris: vec!["http://crl.example.com/1.crl".into()] }];
    let leaf = leaf.signed_by(&key, &issuer).unwrap().pem();
    let files = vec![("full.pem", format!("{leaf}{root}")), ("key.pem", key.serialize_pem())];
    let tls = format!(
        "certificates = [{{ cert = \"full.pem\", key = \"key.pem\" }}]\nmin_version = \"{min_version}\""
    );
    let gate = Config { tls, files, ..Config::default() }.start(upstream.address);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("root.pem"), root).unwrap();
    (gate, dir)
}

/// A tool of the virtual environment that `make test` makes.
fn tool(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/bin").join(name);
    assert!(path.exists(), "{name} is missing: `make test-deps` installs it");
    path.display().to_string()
}

fn sslyze(gate: &Gate, dir: &Path, profile: &str) -> String {
    let out = dir.join(format!("{profile}.json"));
    let output = Command::new("timeout")
        .args(["60", &tool("sslyze"), &format!("--mozilla_config={profile}"), "--sni", HOST])
        .arg(format!("--json_out={}", out.display()))
        .arg("--certinfo_ca_file")
        .arg(dir.join("root.pem"))
        .arg(gate.https.to_string())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn sslyze_finds_mozillas_intermediate_profile_out_of_the_box_and_modern_with_min_version_1_3() {
    let upstream = Upstream::answering(OK);
    for (version, profile) in [("1.2", "intermediate"), ("1.3", "modern")] {
        let (gate, dir) = gate(version, &upstream);
        let text = sslyze(&gate, dir.path(), profile);
        assert!(text.contains("OK - Compliant"), "{profile}: {text}");
    }
}

/// What testssl.sh finds worth a remark, and why it is none here.
const NOT_OURS: [(&str, &str); 2] = [
    ("engine_problem", "the machine's openssl"),
    // As Mozilla advises: a phone without AES in its hardware is better off with ChaCha20.
    ("cipher_order", "clients may choose among ciphers that are all strong"),
];
const ATTACKS: [&str; 18] = [
    "heartbleed",
    "CCS",
    "ticketbleed",
    "ROBOT",
    "secure_renego",
    "secure_client_renego",
    "CRIME_TLS",
    "BREACH",
    "POODLE_SSL",
    "fallback_SCSV",
    "SWEET32",
    "FREAK",
    "DROWN",
    "LOGJAM",
    "LOGJAM-common_primes",
    "BEAST",
    "LUCKY13",
    "RC4",
];
const CIPHERS: [&str; 6] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// What testssl.sh finds by these checks: its own names, each with severity and text.
fn findings(gate: &Gate, dir: &Path, checks: &[&str]) -> Vec<[String; 3]> {
    let json = dir.join(format!("testssl{}.json", checks.concat()));
    let _ = std::fs::remove_file(&json);
    let output = Command::new("timeout")
        .args(["170", "testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none"])
        .args(["--sneaky", "--ip", "127.0.0.1", "--add-ca"])
        .arg(dir.join("root.pem"))
        .arg("--jsonfile")
        .arg(&json)
        .args(checks)
        .arg(format!("{HOST}:{}", gate.https.port()))
        .stdin(Stdio::null())
        .output()
        .expect("testssl (Debian package testssl.sh)");
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let all: Vec<Value> = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stdout)));
    let part = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    all.iter().map(|one| ["id", "severity", "finding"].map(|key| part(one, key))).collect()
}

/// Those that are worse than a note.
fn remarks(found: &[[String; 3]]) -> Vec<String> {
    let harmless = |id: &str, severity: &str| {
        ["OK", "INFO"].contains(&severity) || NOT_OURS.iter().any(|(known, _)| *known == id)
    };
    found.iter().filter(|[id, severity, _]| !harmless(id, severity)).map(|[id, ..]| id.clone()).collect()
}

/// The same without what the tool stumbles over once: it waits a fixed time for each connection, and the machine may be busy.
fn settled(gate: &Gate, dir: &Path, checks: &[&str]) -> Vec<[String; 3]> {
    let first = findings(gate, dir, checks);
    if remarks(&first).is_empty() { first } else { findings(gate, dir, checks) }
}

#[test]
fn testssl_finds_nothing_to_complain_of() {
    let upstream = Upstream::answering(OK);
    let (gate, dir) = gate("1.2", &upstream);
    let usual = ["--protocols", "--fs", "--server-defaults", "--server-preference", "--cipher-per-proto"];
    // Each waits more than it works.
    let found = std::thread::scope(|scope| {
        let attacks = scope.spawn(|| settled(&gate, dir.path(), &["--vulnerable"]));
        let usual = scope.spawn(|| settled(&gate, dir.path(), &usual));
        [attacks.join().unwrap(), usual.join().unwrap()].concat()
    });
    assert!(remarks(&found).is_empty(), "{:?} of {found:#?}", remarks(&found));
    let of = |wanted: &str| {
        let one = found.iter().find(|[id, ..]| id == wanted);
        let [_, severity, text] = one.unwrap_or_else(|| panic!("nothing is said of {wanted}: {found:#?}"));
        (&**severity, &**text)
    };
    for attack in ATTACKS {
        assert_eq!(of(attack).0, "OK", "{attack}: {:?}", of(attack));
    }
    for (id, said) in [
        ("SSLv2", "not offered"),
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered with final"),
        ("ALPN_HTTP2", "h2"),
        ("PFS", "offered"),
        ("cert_chain_of_trust", "passed."),
        ("cert_trust", "Ok via SAN"),
        ("TLS_session_ticket", "(<daily)"),
        ("sessionresumption_ticket", "supported"),
    ] {
        assert!(of(id).1.contains(said), "{id}: {:?}", of(id));
    }
    let is_cipher = |id: &str| id.starts_with("cipher-tls");
    let mut ciphers: Vec<_> = found.iter().filter(|[id, ..]| is_cipher(id)).collect();
    let name = |[_, _, text]: &&[String; 3]| text.rsplit(' ').next().unwrap().to_owned();
    ciphers.sort_by_key(name);
    assert_eq!(ciphers.iter().map(name).collect::<Vec<_>>(), CIPHERS, "no other, by any protocol");
}
