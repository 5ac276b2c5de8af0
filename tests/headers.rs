//! Security headers are on every answer, by class, also on those that the application never saw.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::HOST;
use common::gate::Gate;
use common::raw::{self, Answer};
use common::upstream::{OK, Upstream};

const ID: &str = "0d9b4a52-6f3e-4b0e-9a55-0c2f1c1f7f10";

/// An application that sets its own headers, loosely.
const LOOSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\
    Content-Security-Policy: default-src *\r\nContent-Security-Policy: script-src 'unsafe-inline'\r\n\
    Content-Security-Policy-Report-Only: default-src *\r\nX-Frame-Options: ALLOWALL\r\nX-Content-Type-Options: no\r\n\
    Referrer-Policy: unsafe-url\r\nPermissions-Policy: camera=*\r\nCross-Origin-Opener-Policy: unsafe-none\r\n\
    Cross-Origin-Resource-Policy: cross-origin\r\nStrict-Transport-Security: max-age=0\r\n\
    Access-Control-Allow-Origin: https://evil.test\r\nAccess-Control-Allow-Credentials: true\r\n\
    Set-Cookie: session=a; Path=/\r\nSet-Cookie: theme=dark; secure; HttpOnly\r\n\r\nok";

/// The one value of a header.
fn one<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let named = |line: &&str| line.split_once(':').is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
    assert_eq!(answer.head.lines().filter(named).count(), 1, "{name} in {}", answer.head);
    answer.header(name).unwrap()
}

fn assert_dressed(what: &str, answer: &Answer) {
    assert_eq!(one(answer, "x-content-type-options"), "nosniff", "{what}");
    assert_eq!(one(answer, "x-frame-options"), "DENY", "{what}");
    assert!(["same-origin", "no-referrer"].contains(&one(answer, "referrer-policy")), "{what}");
    assert!(one(answer, "permissions-policy").contains("camera=()"), "{what}");
    assert_eq!(one(answer, "cross-origin-opener-policy"), "same-origin", "{what}");
    // A sandboxed share page is foreign to its own preview.
    let readers = if what.contains("/s/abc/file") { "cross-origin" } else { "same-origin" };
    assert_eq!(one(answer, "cross-origin-resource-policy"), readers, "{what}");
    assert!(one(answer, "content-security-policy").starts_with("default-src 'none'"), "{what}");
    assert_eq!(answer.header("content-security-policy-report-only"), None, "{what}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{what}");
    assert_eq!(one(answer, "x-request-id").len(), 16, "{what}");
}

#[tokio::test]
async fn each_class_has_the_policy_that_its_application_works_with() {
    let upstream = Upstream::answering(LOOSE);
    let gate = Gate::start("", upstream.address);
    let port = gate.https.port();
    let page = format!(
        "default-src 'none'; script-src https://{HOST}:{port}/app.js; style-src https://{HOST}:{port}/styles.css; \
         img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let sandbox = "default-src 'none'; frame-ancestors 'none'; sandbox";
    let share = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; \
                 frame-ancestors 'none'; sandbox allow-downloads";
    for (line, csp) in [
        ("GET /".to_owned(), &*page),
        ("GET /anything/else.html".to_owned(), &*page),
        ("GET /app.js".to_owned(), sandbox),
        ("GET /api/assets".to_owned(), sandbox),
        (format!("GET /api/assets/{ID}/file"), sandbox),
        (format!("GET /api/assets/{ID}/thumb"), sandbox),
        ("POST /api/auth/login".to_owned(), "default-src 'none'; frame-ancestors 'none'"),
        ("GET /s/abc".to_owned(), share),
        ("GET /s/abc/file".to_owned(), sandbox),
        ("GET /docs".to_owned(), sandbox),
    ] {
        let answer = gate.ask(&line, "", b"").await;
        assert_eq!(answer.status, 200, "{line}");
        assert_dressed(&line, &answer);
        assert_eq!(one(&answer, "content-security-policy"), csp, "{line}");
    }
    let login = gate.ask("POST /api/auth/login", "", b"").await;
    assert_eq!(one(&login, "cache-control"), "no-store");
    assert_eq!(one(&gate.ask("GET /s/abc", "", b"").await, "referrer-policy"), "no-referrer");
}

#[tokio::test]
async fn denials_malformed_requests_and_failures_wear_the_same_headers() {
    let upstream = Upstream::answering(OK);
    let site = "[site.rate.login]\nrefill = \"1/h\"\nburst = 1\n[[site.route]]\nmatch = \"/gone\"\nclass = \"api\"\n\
                upstream = \"http://127.0.0.1:1\"\n";
    let gate = Gate::start(site, upstream.address);
    let token = "eyJzdWIiOiI3In0.c2lnbmF0dXJl";
    assert!(gate.cli_with(["block", "token", "-"], token).status.success());
    let bearer = format!("Authorization: Bearer {token}\r\n");
    gate.ask("POST /api/auth/login", "", b"{}").await;
    for (line, headers, status) in [
        ("GET /metrics", "X-Forwarded-For: 192.0.2.1\r\n", 404),
        ("GET /api/assets", &*bearer, 401),
        ("POST /api/auth/login", "", 429),
        ("POST /api/assets/x", "Content-Length: 99999999999\r\n", 413),
        ("GET /gone", "", 502),
        ("GET /%00", "", 400),
        ("GET /", "Accept: text/html\r\nSec-Fetch-Dest: script\r\nUpgrade: x\r\nbad name: x\r\n", 400),
    ] {
        let answer = gate.ask(line, headers, b"").await;
        assert_eq!(answer.status, status, "{line}");
        assert_dressed(line, &answer);
    }
    let elsewhere = b"GET / HTTP/1.1\r\nHost: other.test\r\n\r\n";
    let answer = raw::ask(&mut gate.connect().await, elsewhere).await;
    assert_eq!(answer.status, 421);
    assert_dressed("another site's host", &answer);
}

#[tokio::test]
async fn cookies_are_secure_and_foreign_origins_get_no_cors() {
    let upstream = Upstream::answering(LOOSE);
    let gate = Gate::start("", upstream.address);
    let answer = gate.ask("GET /api/assets", "Origin: https://evil.test\r\n", b"").await;
    assert_dressed("a foreign origin", &answer);
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let cookies: Vec<&str> =
        answer.head.lines().filter(|line| line.to_ascii_lowercase().starts_with("set-cookie:")).collect();
    assert_eq!(cookies.len(), 2);
    for cookie in cookies {
        assert_eq!(cookie.to_ascii_lowercase().matches("secure").count(), 1, "{cookie}");
    }
}

#[tokio::test]
async fn an_upload_never_runs_as_a_script() {
    let upstream = Upstream::answering(OK);
    let gate = Gate::start("", upstream.address);
    for path in [format!("/api/assets/{ID}/file"), format!("/api/assets/{ID}/preview"), "/s/a/file".into()] {
        for dest in ["script", "style", "worker", "serviceworker", "object", "embed"] {
            let headers = format!("Sec-Fetch-Dest: {dest}\r\nSec-Fetch-Site: same-origin\r\n");
            assert_eq!(gate.ask(&format!("GET {path}"), &headers, b"").await.status, 403, "{path} as {dest}");
        }
        let read = gate.ask(&format!("GET {path}"), "Sec-Fetch-Dest: document\r\n", b"").await;
        assert_eq!(read.status, 200, "{path}");
    }
}

#[tokio::test]
async fn strict_transport_security_comes_with_a_real_certificate_and_never_with_a_throw_away_one() {
    let upstream = Upstream::answering(LOOSE);
    let gate = Gate::start("", upstream.address);
    assert_eq!(gate.ask("GET /", "", b"").await.header("strict-transport-security"), None);
    let dir = gate.config().parent().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("full.pem"), made.cert.pem()).unwrap();
    let text = fs::read_to_string(gate.config()).unwrap();
    let named = "certificates = [{ cert = \"full.pem\", key = \"key.pem\" }]";
    fs::write(gate.config(), text.replace("self_signed = true", named)).unwrap();
    let told = gate.cli(["reload"]);
    assert!(told.status.success(), "{told:?}");
    let config = raw::trusting(&dir.join("full.pem"), &["http/1.1"]);
    let mut stream = raw::tls(gate.https, HOST, config).await.expect("the real certificate");
    for (path, status) in [("/", 200), ("/%00", 400)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = raw::ask(&mut stream, request.as_bytes()).await;
        assert_eq!(answer.status, status);
        assert_eq!(one(&answer, "strict-transport-security"), "max-age=31536000");
    }
}

#[tokio::test]
async fn ones_own_headers_are_sent_and_an_observed_policy_leaves_the_applications_own_in_force() {
    let upstream = Upstream::answering(LOOSE);
    let site = "[site.headers]\ncsp = \"default-src 'self'\"\ncsp_mode = \"observe\"\ncsp_report = false\nset = { X-Robots-Tag = \"noindex\" }";
    let gate = Gate::start(site, upstream.address);
    for path in ["/", "/api/assets", "/s/abc"] {
        let answer = gate.ask(&format!("GET {path}"), "", b"").await;
        assert_eq!(one(&answer, "content-security-policy-report-only"), "default-src 'self'");
        assert_eq!(answer.header("content-security-policy"), Some("default-src *"));
        assert_eq!(one(&answer, "x-robots-tag"), "noindex");
    }
}
