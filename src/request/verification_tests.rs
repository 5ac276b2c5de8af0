//! Every way in which a token can be another than it says, against keys of every kind.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use serde_json::json;

use super::*;
use crate::config::keys::{Origin, read_file, read_set};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(der: &[u8]) -> Vec<u8> {
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n").into_bytes()
}

fn claims() -> Value {
    json!({ "sub": "1", "exp": 2_000_000_000, "iss": "us", "aud": ["files", "other"], "type": "access" })
}

fn wanted() -> Wanted {
    Wanted {
        issuers: vec!["us".into()],
        audiences: vec!["files".into()],
        claims: vec![("type".into(), json!("access"))],
    }
}

/// A token with this header and these claims, signed by `sign`.
fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}

fn hs256(message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message).as_ref().to_vec()
}

fn checked(text: &str, keys: &[VerifyKey]) -> Result<Times, Invalid> {
    verify(text.as_bytes(), TokenFormat::Jwt, keys, &wanted())
}

fn shared() -> Vec<VerifyKey> {
    read_file(SECRET).unwrap()
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

struct Pair {
    name: &'static str,
    /// SubjectPublicKeyInfo.
    public: Vec<u8>,
    sign: Sign,
}

fn rsa_pair(name: &'static str, encoding: &'static dyn signature::RsaEncoding) -> Pair {
    let key = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let public = key.public_key().as_der().unwrap().as_ref().to_vec();
    let sign = move |message: &[u8]| {
        let mut signed = vec![0; key.public_modulus_len()];
        key.sign(encoding, &SystemRandom::new(), message, &mut signed).unwrap();
        signed
    };
    Pair { name, public, sign: Box::new(sign) }
}

fn ec_pair(name: &'static str, algorithm: &'static signature::EcdsaSigningAlgorithm) -> Pair {
    let key = EcdsaKeyPair::generate(algorithm).unwrap();
    let public = key.public_key().as_der().unwrap().as_ref().to_vec();
    let sign = move |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
    Pair { name, public, sign: Box::new(sign) }
}

fn ed_pair() -> Pair {
    let key = Ed25519KeyPair::generate().unwrap();
    let public = key.public_key().as_der().unwrap().as_ref().to_vec();
    Pair { name: "EdDSA", public, sign: Box::new(move |message| key.sign(message).as_ref().to_vec()) }
}

fn pairs() -> Vec<Pair> {
    vec![
        rsa_pair("RS256", &signature::RSA_PKCS1_SHA256),
        rsa_pair("RS512", &signature::RSA_PKCS1_SHA512),
        rsa_pair("PS256", &signature::RSA_PSS_SHA256),
        ec_pair("ES256", &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        ec_pair("ES384", &signature::ECDSA_P384_SHA384_FIXED_SIGNING),
        ed_pair(),
    ]
}

#[test]
fn a_true_token_of_every_kind_is_verified_and_a_changed_one_never() {
    for pair in pairs() {
        let keys = read_file(&pem(&pair.public)).unwrap();
        let true_one = token(&json!({ "alg": pair.name }), &claims(), &pair.sign);
        assert_eq!(checked(&true_one, &keys), Ok(Times { begins: 0, ends: 2_000_000_000 }), "{}", pair.name);
        let other_claims = b64(json!({ "sub": "2", "exp": 2_000_000_000 }).to_string());
        let parts: Vec<_> = true_one.split('.').collect();
        let forged = format!("{}.{other_claims}.{}", parts[0], parts[2]);
        assert_eq!(checked(&forged, &keys), Err(Invalid::Signature), "{}", pair.name);
        let unsigned = format!("{}.{}.", parts[0], parts[1]);
        assert_eq!(checked(&unsigned, &keys), Err(Invalid::Signature), "{}", pair.name);
    }
}

#[test]
fn the_key_says_which_algorithms_count_and_never_the_token() {
    let pairs = pairs();
    for pair in &pairs {
        let keys = read_file(&pem(&pair.public)).unwrap();
        for header in ["none", "None", "HS256", "HS512", ""] {
            // A public key taken for a shared secret, in both of its forms.
            for secret in [pair.public.clone(), pem(&pair.public)] {
                let forged = token(&json!({ "alg": header }), &claims(), |message| {
                    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message).as_ref().to_vec()
                });
                assert_eq!(checked(&forged, &keys), Err(Invalid::Algorithm), "{header} for {}", pair.name);
            }
        }
        for other in pairs.iter().filter(|other| other.name.get(..1) != pair.name.get(..1)) {
            let theirs = token(&json!({ "alg": other.name }), &claims(), &other.sign);
            assert!(checked(&theirs, &keys).is_err(), "{} for {}", other.name, pair.name);
        }
    }
    let forged = token(&json!({ "alg": "RS256" }), &claims(), hs256);
    assert_eq!(checked(&forged, &shared()), Err(Invalid::Algorithm));
}

#[test]
fn headers_that_ask_for_more_are_refused() {
    for more in [
        json!({ "alg": "HS256", "crit": ["exp"] }),
        json!({ "alg": "HS256", "crit": [] }),
        json!({ "alg": "HS256", "zip": "DEF" }),
        json!({ "alg": "HS256", "enc": "A256GCM" }),
        json!({ "alg": "HS256", "b64": false }),
    ] {
        assert_eq!(checked(&token(&more, &claims(), hs256), &shared()), Err(Invalid::Header), "{more}");
    }
    let own_key =
        json!({ "alg": "HS256", "jku": "https://evil.example/", "jwk": { "kty": "oct", "k": "AAAA" } });
    assert!(
        checked(&token(&own_key, &claims(), hs256), &shared()).is_ok(),
        "a key in the header is not looked at"
    );
    let twice = format!("{}.{}", b64(r#"{"alg":"HS256","alg":"none"}"#), b64(claims().to_string()));
    let twice = format!("{twice}.{}", b64(hs256(twice.as_bytes())));
    assert!(checked(&twice, &shared()).is_err());
}

#[test]
fn claims_must_say_what_the_site_asks_for() {
    let with = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut claims = claims();
        change(claims.as_object_mut().unwrap());
        checked(&token(&json!({ "alg": "HS256" }), &claims, hs256), &shared())
    };
    assert!(with(&|_| ()).is_ok());
    for (name, value) in [
        ("iss", json!("them")),
        ("iss", json!(["us"])),
        ("iss", Value::Null),
        ("aud", json!("other")),
        ("aud", json!([])),
        ("aud", json!({ "files": 1 })),
        ("type", json!("refresh")),
        ("type", json!(["access"])),
    ] {
        let result = with(&|claims| drop(claims.insert(name.into(), value.clone())));
        assert_eq!(result, Err(Invalid::Claim), "{name} = {value}");
        assert_eq!(with(&|claims| drop(claims.remove(name))), Err(Invalid::Claim), "no {name}");
    }
    for value in [json!("2000000000"), json!(null), json!(-1), json!(1e300), json!([1])] {
        let result = with(&|claims| drop(claims.insert("exp".into(), value.clone())));
        assert_eq!(result, Err(Invalid::Time), "exp = {value}");
    }
    assert_eq!(with(&|claims| drop(claims.remove("exp"))), Err(Invalid::Time));
    assert_eq!(with(&|claims| drop(claims.insert("nbf".into(), json!("soon")))), Err(Invalid::Time));
    let fractions = with(&|claims| drop(claims.insert("exp".into(), json!(1_900_000_000.9))));
    assert_eq!(fractions, Ok(Times { begins: 0, ends: 1_900_000_000 }));
}

#[test]
fn keepstacks_pairs_are_verified_over_their_body() {
    let body = b64(r#"{"sub":1,"role":"admin","exp":2000000000}"#);
    let good = format!("{body}.{}", b64(hs256(body.as_bytes())));
    let check = |text: &str| verify(text.as_bytes(), TokenFormat::HmacPair, &shared(), &Wanted::default());
    assert!(check(&good).is_ok());
    let other = b64(r#"{"sub":2,"role":"admin","exp":2000000000}"#);
    assert_eq!(check(&good.replace(&body, &other)), Err(Invalid::Signature));
    assert_eq!(check(&body), Err(Invalid::Form));
    assert_eq!(check(&format!("{good}.AAAA")), Err(Invalid::Form));
}

#[test]
fn a_key_is_chosen_by_its_name_and_a_name_nobody_knows_is_told() {
    let set = |kid: &str, secret: &[u8]| json!({ "kty": "oct", "kid": kid, "k": b64(secret) });
    let other = b"ffffffffffffffffffffffffffffffff";
    let json = json!({ "keys": [set("a", other), set("b", SECRET), set("b", other)] }).to_string();
    let keys = read_set(json.as_bytes(), Origin::File).unwrap();
    let named = |kid: &str| token(&json!({ "alg": "HS256", "kid": kid }), &claims(), hs256);
    assert_eq!(checked(&named("a"), &keys), Err(Invalid::Signature));
    assert!(checked(&named("b"), &keys).is_ok(), "the second of one name may be the one");
    assert_eq!(checked(&named("c"), &keys), Err(Invalid::UnknownKey));
    assert!(checked(&token(&json!({ "alg": "HS256" }), &claims(), hs256), &keys).is_ok());
}

#[test]
fn key_files_of_every_wrong_kind_are_refused() {
    let rsa = rsa_pair("RS256", &signature::RSA_PKCS1_SHA256).public;
    let small = pem(&base64::engine::general_purpose::STANDARD.decode(RSA_1024).unwrap());
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("a short secret", b"0123456789abcdef0123456789abcde\n".to_vec()),
        ("half a PEM", pem(&rsa)[..100].to_vec()),
        ("garbage in PEM", pem(b"garbage")),
        ("a small RSA key", small),
        ("a private key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
        ("no key set", b"{\"keys\": {}}".to_vec()),
        ("an empty key set", b"{\"keys\": []}".to_vec()),
        ("a key for encryption", br#"{"keys":[{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}]}"#.to_vec()),
        ("a point that is none", br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#.to_vec()),
        ("a private JWK", br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}"#.to_vec()),
        ("a small JWK", br#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#.to_vec()),
        ("a huge one", [b"{\"keys\":[".as_slice(), &vec![b' '; 300_000], b"]}"].concat()),
    ] {
        let error = read_file(&bytes).expect_err(what);
        assert!(!error.message.is_empty() && !error.help.is_empty(), "{what}");
    }
    let many: Vec<_> = (0..17).map(|_| json!({ "kty": "oct", "k": b64(SECRET) })).collect();
    assert!(read_file(json!({ "keys": many }).to_string().as_bytes()).is_err());
    let fetched = json!({ "keys": [{ "kty": "oct", "k": b64(SECRET) }] }).to_string();
    assert!(read_set(fetched.as_bytes(), Origin::Address).is_err(), "what anybody can fetch is no secret");
}

/// 1024 bits, made with openssl.
const RSA_1024: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC8Vi0FKwptk3koXEhaYm692WCLYY1+fSMIQpOotPVxWD7zHzeNsK0UdD2Zl7o6yTK1eMT/MEdcKidMPEyNZdiQPPZbMtCwplBcyURlXC3AzPM4t5DVqptJOFD6DbsxPoQwFeEWu7ymfgtwqCjX60yFMP8SzumqXiyoWoroOK4ZpQIDAQAB";

proptest::proptest! {
    #[test]
    fn no_bytes_panic_and_none_are_a_token(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        for format in [TokenFormat::Jwt, TokenFormat::HmacPair, TokenFormat::Opaque] {
            proptest::prop_assert!(verify(&bytes, format, &shared(), &Wanted::default()).is_err());
        }
        let _ = read_file(&bytes);
    }
}

#[test]
fn a_logout_token_is_no_token_to_come_in_with() {
    let logout = |typ: &str, events: Value| {
        let mut claims = claims();
        claims["events"] = events;
        checked(&token(&json!({ "alg": "HS256", "typ": typ }), &claims, hs256), &shared())
    };
    let event = json!({ LOGOUT_EVENT: {} });
    assert!(logout("JWT", json!({ "other": {} })).is_ok());
    for (typ, events) in
        [("JWT", event.clone()), ("LOGOUT+jwt", json!({})), ("application/logout+jwt", event)]
    {
        assert_eq!(logout(typ, events), Err(Invalid::Purpose), "{typ}");
    }
}
