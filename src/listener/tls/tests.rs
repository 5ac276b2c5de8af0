use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustls::SignatureScheme;

use super::*;
use crate::clock::Now;

const NOW: Now = Now { mono: 0, wall: 1_800_000_000_000 };
const SCHEMES: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519];

fn wanted(dir: &Path, hosts: &[&str]) -> Wanted {
    let hosts: Vec<_> = hosts.iter().map(|host| host.parse().unwrap()).collect();
    Wanted {
        config: "portcullis.toml".into(),
        files: vec![],
        nameless: None,
        hosts,
        own: true,
        stranger: false,
        state_dir: dir.to_owned(),
        given: None,
    }
}

/// Writes a certificate for these names; answers its files.
fn files(
    dir: &Path,
    stem: &str,
    names: &[&str],
    algorithm: &'static rcgen::SignatureAlgorithm,
) -> crate::config::settings::CertificateFiles {
    let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    crate::config::settings::CertificateFiles { cert: cert_file, key: key_file }
}

#[test]
fn names_find_their_certificates_exact_before_wildcard() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = wanted(dir.path(), &["a.test", "*.w.test", "x.w.test"]);
    wanted.own = false;
    wanted.files = vec![
        files(dir.path(), "a", &["a.test", "other.test"], &rcgen::PKCS_ECDSA_P256_SHA256),
        files(dir.path(), "a2", &["a.test"], &rcgen::PKCS_ED25519),
        files(dir.path(), "w", &["*.w.test"], &rcgen::PKCS_ECDSA_P256_SHA256),
        files(dir.path(), "x", &["X.w.test"], &rcgen::PKCS_ED25519),
    ];
    let built = Certificates::build(&wanted, NOW, None).unwrap();
    let found = |name: &str, scheme: SignatureScheme| built.choose(Some(name), &[scheme]).is_some();
    let (ecdsa, ed) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519);
    // Two certificates for one name: the client's algorithms choose.
    assert!(
        found("a.test", ecdsa) && found("a.test", ed) && !found("a.test", SignatureScheme::RSA_PSS_SHA256)
    );
    assert!(found("y.w.test", ecdsa) && !found("y.w.test", ed));
    assert!(found("x.w.test", ecdsa) && found("x.w.test", ed));
    // No site of ours, more labels, none at all, the pattern itself.
    for name in ["other.test", "a.b.w.test", "w.test", "", "evil.test"] {
        assert!(built.choose(Some(name), SCHEMES).is_none(), "{name}");
    }
    assert!(built.choose(None, SCHEMES).is_none());
}

#[test]
fn strangers_get_a_throw_away_certificate_where_the_config_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = wanted(dir.path(), &["a.test", "b.test"]);
    wanted.stranger = true;
    let built = Certificates::build(&wanted, NOW, None).unwrap();
    let ours = built.choose(Some("a.test"), SCHEMES).unwrap();
    let strange = built.choose(Some("c.test"), SCHEMES).unwrap();
    assert_ne!(ours.cert, strange.cert);
    assert_eq!(built.choose(None, SCHEMES).unwrap().cert, strange.cert);
}

#[test]
fn every_problem_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut wanted = wanted(dir.path(), &["a.test", "b.test"]);
    wanted.own = false;
    let good = files(dir.path(), "a", &["a.test"], &rcgen::PKCS_ED25519);
    let other = files(dir.path(), "b", &["b.test"], &rcgen::PKCS_ED25519);
    std::fs::write(dir.path().join("empty.pem"), "").unwrap();
    let mut mismatch = good.clone();
    mismatch.key = other.key.clone();
    let mut empty = good.clone();
    empty.cert = dir.path().join("empty.pem");
    let mut missing = good.clone();
    missing.key = dir.path().join("missing.key");
    wanted.files = vec![good, mismatch, empty, missing];
    let problems = Certificates::build(&wanted, NOW, None).unwrap_err().0;
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(problems.len(), 4, "{messages:?}");
    assert!(messages[0].contains("do not go together"), "{messages:?}");
    assert!(messages[1].contains("no certificate in it"), "{messages:?}");
    assert!(messages[2].contains("no private key"), "{messages:?}");
    assert!(messages[3].contains("no certificate for `b.test`"), "{messages:?}");
    assert!(problems.iter().all(|problem| !problem.help.is_empty()));
}

#[test]
fn our_own_ca_is_made_once_and_its_leaves_outlive_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = wanted(&dir.path().join("state"), &["a.test"]);
    let first = Certificates::build(&wanted, NOW, None).unwrap();
    let ca = std::fs::read(wanted.state_dir.join("ca.pem")).unwrap();
    let mode =
        |name: &str| std::fs::metadata(wanted.state_dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.pem"), mode("ca-key.pem"), mode("")), (0o644, 0o600, 0o700));

    let leaf = |built: &Certificates| built.choose(Some("a.test"), SCHEMES).unwrap().cert.clone();
    let reloaded = Certificates::build(&wanted, NOW, Some(&first)).unwrap();
    assert_eq!(leaf(&reloaded), leaf(&first));
    let expiry = first.expiries().pop().unwrap();
    assert_eq!((expiry.host.as_str(), expiry.source), ("a.test", Source::OwnCa));

    let later = Now { mono: 0, wall: (expiry.not_after as u64 - 86_400) * 1000 };
    let renewed = Certificates::build(&wanted, later, Some(&first)).unwrap();
    assert_ne!(leaf(&renewed), leaf(&first));
    assert_eq!(std::fs::read(wanted.state_dir.join("ca.pem")).unwrap(), ca);
}

#[test]
fn post_quantum_key_exchange_comes_first_and_early_data_never() {
    let resolver = Resolver::new(Certificates::default(), Arc::default());
    let config = server_config(resolver, true).unwrap();
    let first = config.crypto_provider().kx_groups.first().map(|group| group.name());
    assert_eq!(first, Some(rustls::NamedGroup::X25519MLKEM768));
    assert_eq!(config.max_early_data_size, 0);
    assert!(config.ticketer.enabled());
}
