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
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
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

/// The machine's openssl is none of ours; and clients may choose among ciphers that are all strong, as Mozilla advises: a
/// phone without AES in its hardware is better off with ChaCha20.
const NOT_OURS: [&str; 2] = ["engine_problem", "cipher_order"];

/// Findings of testssl.sh that are worse than a note.
fn findings(gate: &Gate, dir: &Path, checks: &[&str]) -> (Vec<String>, usize) {
    let json = dir.join("testssl.json");
    let output = Command::new("timeout")
        .args(["80", "testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none"])
        .args(["--sneaky", "--ip", "127.0.0.1", "--jsonfile"])
        .arg(&json)
        .args(checks)
        .arg(format!("{HOST}:{}", gate.https.port()))
        .stdin(Stdio::null())
        .output()
        .expect("testssl (Debian package testssl.sh)");
    let text = std::fs::read_to_string(&json).unwrap_or_default();
    let all: Vec<Value> = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stdout)));
    let bad = |one: &&Value| {
        let ours = NOT_OURS.iter().all(|id| one["id"] != *id);
        ours && matches!(
            one["severity"].as_str(),
            Some("LOW" | "MEDIUM" | "HIGH" | "CRITICAL" | "FATAL" | "WARN")
        )
    };
    (all.iter().filter(bad).map(ToString::to_string).collect(), all.len())
}

#[test]
fn testssl_finds_nothing_to_complain_of() {
    let upstream = Upstream::answering(OK);
    let (gate, dir) = gate("1.2", &upstream);
    // By its own sockets, not by an old openssl; what it tries of ciphers that rustls does not have would take a minute.
    let checks =
        ["--protocols", "--fs", "--heartbleed", "--ccs-injection", "--ticketbleed", "--renegotiation"];
    let (bad, count) = findings(&gate, dir.path(), &checks);
    assert!(count > 20, "only {count} findings");
    assert!(bad.is_empty(), "{bad:#?}");
}
