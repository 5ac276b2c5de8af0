//! Policies in a real browser: what the applications' pages need runs, what somebody has planted does not, and what the
//! browser reports arrives.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;
#[path = "browser/pages.rs"]
mod pages;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::chromium::{Chromium, Opened, Tab};
use common::gate::{Config, Gate};
use common::strict::Request;
use common::upstream::{Session, Upstream};
use common::{HOST, wait_until_async};
use portcullis::request::report::{self, Form};
use serde_json::{Value, json};

/// A gateway before one upstream with a site for each of these: host, app file, lines of `[site.headers]`.
fn gate_of(sites: &[(&str, &str, &str)], upstream: &Upstream) -> Gate {
    let more: String = sites
        .iter()
        .map(|(host, app, headers)| {
            format!(
                "\n[[site]]\nhosts = [\"{host}\"]\napp = \"{app}\"\nupstream = \"http://{}\"\n[site.headers]\n{headers}\n",
                upstream.address
            )
        })
        .collect();
    Config { site: more, files: vec![("keepstrict.toml", keepstrict())], ..Config::default() }
        .start(upstream.address)
}

/// Keepstack's app file, whose strict variant names the style of the stand-in's share page.
fn keepstrict() -> String {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/apps/keepstack.toml")).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pages::SHARE_STYLE.as_bytes());
    let (before, rest) = text.split_once("'sha256-").expect("the strict variant's hash");
    let (_, after) = rest.split_once('\'').unwrap();
    format!("{before}'sha256-{}'{after}", STANDARD.encode(digest))
}

/// What `portcullis csp` says of a site.
fn reported(gate: &Gate, site: &str) -> Value {
    let told = gate.cli(["csp", site, "--json"]);
    assert!(told.status.success(), "{told:?}");
    serde_json::from_slice(&told.stdout).unwrap()
}

/// The violations of a site that are more than harmless, as `class directive blocked`.
fn grave(gate: &Gate, site: &str) -> Vec<String> {
    let answer = reported(gate, site);
    let classes = answer["csp"].as_array().unwrap();
    let of = |class: &Value| -> Vec<String> {
        let name = class["class"].as_str().unwrap().to_owned();
        let grave =
            class["violations"].as_array().unwrap().iter().filter(|one| one["judgement"] != "harmless");
        grave
            .map(|one| {
                format!("{name} {} {}", one["directive"].as_str().unwrap(), one["blocked"].as_str().unwrap())
            })
            .collect()
    };
    classes.iter().flat_map(of).collect()
}

/// What stored scripts have written to the console, each once.
fn ran(browser: &Chromium, tab: &Tab) -> Vec<String> {
    let mut ran: Vec<String> = browser
        .lines(tab)
        .into_iter()
        .filter_map(|line| Some(line.strip_prefix("RAN ")?.to_owned()))
        .collect();
    ran.sort();
    ran.dedup();
    ran
}

#[tokio::test]
async fn each_app_files_policy_lets_pages_like_its_applications_work_without_a_violation() {
    let upstream = Upstream::by_request(pages::answer);
    let report = "csp_report = true";
    let sites = [
        ("keepstack.test", "keepstack", report.to_owned()),
        ("keepstrict.test", "./keepstrict.toml", format!("{report}\ncsp = \"app:strict\"")),
        ("arkeep.test", "arkeep", report.to_owned()),
        ("arkeepstrict.test", "arkeep", format!("{report}\ncsp = \"app:strict\"")),
        ("arkeepprivate.test", "arkeep", format!("{report}\ncsp = \"app:private\"")),
        ("archipy.test", "archipy", report.to_owned()),
        ("coolify.test", "coolify", report.to_owned()),
        ("dokploy.test", "dokploy", report.to_owned()),
        ("generic.test", "generic", report.to_owned()),
    ];
    let gate =
        gate_of(&sites.each_ref().map(|(host, app, headers)| (*host, *app, headers.as_str())), &upstream);
    let mut browser = Chromium::start().await;
    let (port, tab) = (gate.https.port(), browser.tab().await);
    for (host, app, _) in &sites {
        browser.forget();
        assert_eq!(browser.open(&tab, &format!("https://{host}:{port}/")).await, Opened::Loaded, "{host}");
        if *app == "archipy" {
            assert_eq!(browser.run(&tab, "document.body.innerText.includes('Not Found')").await, json!(true));
        } else {
            // The page's scripts have run to their end, and its styles hold.
            browser.until(&tab, "window.ran === 'rgb(1, 2, 3)'").await;
        }
        let mut expected: Vec<&str> = match *host {
            "arkeep.test" | "arkeepstrict.test" => vec!["script-src: inline or eval"],
            "arkeepprivate.test" => vec![
                "font-src: https://fonts.gstatic.com",
                "script-src: inline or eval",
                "style-src-elem: https://fonts.googleapis.com",
            ],
            _ => vec![],
        };
        if app.contains("keepst") {
            assert_eq!(browser.open(&tab, &format!("https://{host}:{port}/s/abc")).await, Opened::Loaded);
            let shown = browser.run(&tab, "document.images[0].naturalWidth").await;
            assert_eq!(shown, json!(1), "the share page shows its picture");
            let styled =
                browser.run(&tab, "getComputedStyle(document.querySelector('main')).marginTop").await;
            assert_eq!(styled, json!("16px"), "the share page has its style");
        }
        let found = browser.issues(&tab);
        let mut found: Vec<&str> = found.iter().map(|one| one.split('?').next().unwrap()).collect();
        found.sort_unstable();
        found.dedup();
        expected.sort_unstable();
        let shown = found.iter().zip(&expected).all(|(found, expected)| found.starts_with(expected));
        assert!(shown && found.len() == expected.len(), "{host}: {found:#?}; {:#?}", browser.lines(&tab));
    }
    // What a service worker breaks only the collector hears of. zod's question has come by now, so the others have too.
    let heard = wait_until_async(Duration::from_secs(10), async || {
        reported(&gate, "arkeep.test")["csp"][0]["violations"][0]["blocked"] == "eval"
    });
    assert!(heard.await, "{}", reported(&gate, "arkeep.test"));
    for (host, _, _) in &sites {
        assert_eq!(grave(&gate, host), Vec::<String>::new(), "{host}");
    }
}

/// Keepstack's share page as it writes it, with what three users have stored; and their uploads.
fn planted(request: &Request) -> Vec<u8> {
    let path = request.target.as_str();
    let page = match path {
        "/s/T1" => pages::html(
            "<!doctype html><html lang=en><title>x</title><script>console.log('RAN title')</script></title>\
             <style>body{font:1rem sans-serif}</style><main><h1>A file</h1>\
             <img src=/s/T1/preview alt=\"a\" onload=\"console.log('RAN alt')\">\
             <p><img src=/s/T1/none onerror=\"console.log('RAN description')\"><script src=/s/T2/file></script>\
             <img src=https://evil.test/pixel></p></main>",
        ),
        "/s/T1/preview" => pages::Page {
            kind: "image/svg+xml",
            body: b"<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>".to_vec(),
            headers: "",
        },
        "/s/T2/file" => pages::Page {
            kind: "text/javascript",
            body: b"console.log('RAN file')".to_vec(),
            headers: "Content-Disposition: attachment; filename=\"x.js\"\r\n",
        },
        "/s/T3/preview" | "/api/assets/0d9b4a52-6f3e-4b0e-9a55-0c2f1c1f7f10/preview" => {
            pages::html("<!doctype html><title>up</title><script>console.log('RAN upload')</script>")
        }
        "/s/T4/preview" => pages::Page {
            kind: "image/svg+xml",
            body:
                b"<svg xmlns='http://www.w3.org/2000/svg'><script>console.log('RAN picture')</script></svg>"
                    .to_vec(),
            headers: "",
        },
        "/s/T5/file" => pages::Page {
            kind: "text/html",
            body: b"<script>console.log('RAN download')</script>".to_vec(),
            headers: "Content-Disposition: attachment; filename=\"x.html\"\r\n",
        },
        _ => return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    };
    page.bytes()
}

#[tokio::test]
async fn a_stored_script_of_a_share_page_or_an_upload_runs_without_the_gateway_and_never_behind_it() {
    let upstream = Upstream::by_request(planted);
    let gate = Gate::start("[site.headers]\ncsp_report = true\n", upstream.address);
    let straight = format!("http://127.0.0.1:{}", upstream.address.port());
    let behind = format!("https://{HOST}:{}", gate.https.port());
    let mut browser = Chromium::start().await;
    let tab = browser.tab().await;
    let all = ["alt", "description", "file", "title"];
    for (path, title, runs) in [
        ("/s/T1", "x", &all[..]),
        ("/s/T3/preview", "up", &["upload"]),
        ("/s/T4/preview", "", &["picture"]),
        ("/api/assets/0d9b4a52-6f3e-4b0e-9a55-0c2f1c1f7f10/preview", "up", &["upload"]),
    ] {
        for (origin, runs) in [(&straight, runs), (&behind, &[])] {
            browser.forget();
            assert_eq!(
                browser.open(&tab, &format!("{origin}{path}")).await,
                Opened::Loaded,
                "{origin}{path}"
            );
            if !title.is_empty() {
                assert_eq!(browser.run(&tab, "document.title").await, json!(title), "the page is there");
            }
            assert_eq!(ran(&browser, &tab), runs, "{origin}{path}");
        }
    }
    browser.forget();
    for path in ["/s/T5/file", "/s/T2/file"] {
        let opened = browser.open(&tab, &format!("{behind}{path}")).await;
        assert!(matches!(opened, Opened::Nothing(_)), "{path} is a download, not a page: {opened:?}");
    }
    assert_eq!(ran(&browser, &tab), Vec::<String>::new());
    // A sandboxed page is nobody's; its browser says all the same what it did not load, and no link is kept.
    let told = wait_until_async(Duration::from_secs(10), async || {
        grave(&gate, HOST) == ["share img-src https://evil.test"]
    });
    assert!(told.await, "{}", reported(&gate, HOST));
    let kept = reported(&gate, HOST).to_string();
    assert!(!kept.contains("T1") && !kept.contains("T2"), "{kept}");
}

/// A page that asks for what its policies do not allow; and an application that takes reports itself.
fn breaking(request: &Request) -> Vec<u8> {
    match request.target.as_str() {
        "/sniff" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        _ => pages::html(
            "<!doctype html><title>x</title><script>window.ran = 1</script><img src=https://evil.test/a?secret>\
             <a href=#><style>a{color:red}</style></a>",
        )
        .bytes(),
    }
}

/// Sites that only observe: two that report to the gateway, two to the application.
const OBSERVING: [(&str, &str, &str); 4] = [
    ("new.test", "keepstack", "csp_mode = \"observe\""),
    (
        "old.test",
        "keepstack",
        "csp_mode = \"observe\"\ncsp = \"default-src 'self'; report-uri /.well-known/portcullis/csp\"",
    ),
    ("sniffold.test", "generic", "csp_mode = \"observe\"\ncsp = \"default-src 'self'; report-uri /sniff\""),
    (
        "sniffnew.test",
        "generic",
        "csp_mode = \"observe\"\ncsp = \"default-src 'self'; report-to x\"\nset = { Reporting-Endpoints = 'x=\"/sniff\"' }",
    ),
];

#[tokio::test]
async fn what_the_browser_reports_arrives_in_both_forms_and_portcullis_csp_shows_it() {
    let upstream = Upstream::by_request(breaking);
    let gate = gate_of(&OBSERVING, &upstream);
    let mut browser = Chromium::start().await;
    let tab = browser.tab().await;
    for (host, ..) in &OBSERVING {
        let url = format!("https://{host}:{}/", gate.https.port());
        assert_eq!(browser.open(&tab, &url).await, Opened::Loaded, "{host}");
        assert_eq!(browser.run(&tab, "window.ran").await, json!(1), "{host} only observes");
    }
    let expected = ["img-src https://evil.test", "script-src-elem inline", "style-src-elem inline"];
    for host in ["new.test", "old.test"] {
        let told = wait_until_async(Duration::from_secs(10), async || {
            let mut grave = grave(&gate, host);
            grave.sort();
            grave == expected.map(|one| format!("page {one}"))
        });
        assert!(told.await, "{host}: {}", reported(&gate, host));
    }
    let series = "portcullis_csp_reports_total{class=\"page\",kind=\"violation\",site=\"new.test\"}";
    assert_eq!(gate.metric(series), Some(3.0));
    let text = gate.cli(["csp", "new.test"]);
    let text = String::from_utf8(text.stdout).unwrap();
    for part in [
        "observe: browsers report, and obey nothing",
        "reported, not proposed: look yourself (anybody can send reports)",
        "img-src https://evil.test  once by 1 client, only observed",
        "would stop working",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("secret") && !text.contains("proposed  "), "{text}");
    // What the browser really sends, byte for byte, is what the reader reads.
    let sniffed = || {
        let requests = upstream.requests();
        assert!(
            requests.iter().all(|request| !request.target.contains("portcullis")),
            "never the application's"
        );
        requests.into_iter().filter(|request| request.target == "/sniff").collect::<Vec<_>>()
    };
    for (host, kind, form) in [
        ("sniffold.test", "application/csp-report", Form::One),
        ("sniffnew.test", "application/reports+json", Form::List),
    ] {
        let of_host = |request: &Request| request.header("host").is_some_and(|known| known.starts_with(host));
        let sent = || -> usize {
            let reports = sniffed().into_iter().filter(of_host).map(|sent| {
                assert_eq!(sent.header("content-type"), Some(kind));
                assert_eq!(Form::of(kind.as_bytes()), Some(form));
                let read = report::read(form, &sent.body);
                assert_eq!(read.malformed, 0, "{}", String::from_utf8_lossy(&sent.body));
                read.reports.len()
            });
            reports.sum()
        };
        assert!(wait_until_async(Duration::from_secs(10), async || sent() == 3).await, "{host}: {}", sent());
    }
}

const WORD: &str = "f3b1c0d9e8a74655b2a1908f7e6d5c4b-a-a-a-a";

/// A page in pieces, cut inside the word that stands for a nonce.
fn marked(mut session: Session) {
    let page = format!(
        "<!doctype html><title>x</title><style nonce={WORD}>body{{color:rgb(1, 2, 3)}}</style><body>\
         <script nonce=\"{WORD}\">console.log('RAN own')</script><script>console.log('RAN planted')</script>\
         <script nonce=\"guess\">console.log('RAN guess')</script><p>{}",
        &WORD[..20]
    );
    while let Some(request) = session.request() {
        let sent = match request.target.as_str() {
            "/packed" => session.send(
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n{WORD}", WORD.len()).as_bytes(),
            ),
            "/api/x" => session.send(
                format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{WORD}", WORD.len()).as_bytes(),
            ),
            _ => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"1\"\r\nCache-Control: public\r\nContent-Length: {}\r\n\r\n",
                    page.len()
                );
                session.send(head.as_bytes())
                    && page.as_bytes().chunks(97).all(|piece| {
                        std::thread::sleep(Duration::from_millis(2));
                        session.send(piece)
                    })
            }
        };
        if !sent {
            return;
        }
    }
}

#[tokio::test]
async fn a_nonce_lets_the_applications_own_scripts_run_and_no_planted_one() {
    let upstream = Upstream::scripted(marked);
    let policy = "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'";
    let site = format!("[site.headers]\ncsp = \"{policy}\"\nnonce_secret_file = \"nonce-word\"\n");
    let files = vec![("nonce-word", format!("{WORD}\n"))];
    let gate = Config { site, files, ..Config::default() }.start(upstream.address);
    let mut nonces = Vec::new();
    // What a login answers is held and judged as a whole before it goes on.
    for path in ["/", "/", "/api/auth/login"] {
        let fields = "Accept-Encoding: gzip\r\nIf-None-Match: \"1\"\r\nRange: bytes=0-10\r\n";
        let answer = gate.ask(&format!("GET {path}"), fields, b"").await;
        let page = answer.text();
        let nonce = page.split("<script nonce=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        assert_eq!((answer.status, nonce.len()), (200, WORD.len()));
        assert!(
            !page.contains(WORD) && page.ends_with(&WORD[..20]) && page.contains("nonce=\"guess\""),
            "{page}"
        );
        let csp = answer.header("content-security-policy").unwrap();
        assert_eq!(csp, policy.replace("{nonce}", &nonce));
        assert_eq!((answer.header("etag"), answer.header("cache-control")), (None, Some("no-store")));
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
    for request in upstream.requests() {
        for name in ["accept-encoding", "if-none-match", "range"] {
            assert_eq!(request.header(name), None);
        }
    }
    for (path, csp) in [("/packed", "'nonce-"), ("/api/x", "script-src ;")] {
        let answer = gate.ask(&format!("GET {path}"), "", b"").await;
        assert_eq!(answer.text(), WORD, "{path} is no page, or not to be read");
        assert!(answer.header("content-security-policy").unwrap().contains(csp), "{path}: {}", answer.head);
    }
    let mut browser = Chromium::start().await;
    for (origin, runs) in [
        (format!("http://{}", upstream.address), &["guess", "own", "planted"][..]),
        (format!("https://{HOST}:{}", gate.https.port()), &["own"]),
    ] {
        let tab = browser.tab().await;
        for _ in 0..2 {
            assert_eq!(browser.open(&tab, &format!("{origin}/")).await, Opened::Loaded);
        }
        assert_eq!(ran(&browser, &tab), runs, "{origin}");
        let colour = browser.run(&tab, "getComputedStyle(document.body).color").await;
        assert_eq!(colour, json!("rgb(1, 2, 3)"), "{origin}");
    }
}

#[tokio::test]
async fn reports_of_garbage_are_all_answered_204_and_only_counted() {
    const PATH: &str = "/.well-known/portcullis/csp";
    let upstream = Upstream::answering(common::upstream::OK);
    let gate = Gate::start("[site.headers]\ncsp_report = true\n", upstream.address);
    let json = "Content-Type: application/csp-report\r\n";
    let of = |page: &str, blocked: &str| {
        json!({ "csp-report": { "document-uri": page, "effective-directive": "img-src", "blocked-uri": blocked } })
            .to_string()
    };
    let own = format!("https://{HOST}:{}/s/TOKEN?q=SECRET", gate.https.port());
    let foreign = format!("{json}Origin: https://evil.test\r\n");
    for (line, fields, body) in [
        (format!("POST {PATH}"), json, of(&own, "https://tracker.test/SECRET")),
        (format!("POST {PATH}"), json, "garbage".into()),
        (format!("POST {PATH}"), json, of(&own, "https://tracker.test/\u{1b}[2J")),
        (format!("POST {PATH}"), json, of("https://other.test/", "data")),
        (format!("POST {PATH}"), json, "x".repeat(70 << 10)),
        (format!("POST {PATH}"), "Content-Type: text/plain\r\n", of(&own, "https://evil.test")),
        (format!("POST {PATH}"), &foreign, of(&own, "https://evil.test")),
        (format!("GET {PATH}"), "", String::new()),
        ("DELETE /.well-known//portcullis/CSP/?x".into(), "", String::new()),
        (
            "POST /.well-known/portcullis/x/../csp".into(),
            "Content-Type: application/reports+json\r\n",
            "[{}]".into(),
        ),
    ] {
        let answer = gate.ask(&line, fields, body.as_bytes()).await;
        assert_eq!((answer.status, answer.text().as_str()), (204, ""), "{line} {fields}");
    }
    assert!(upstream.bytes().is_empty(), "the application hears nothing");
    let answer = reported(&gate, HOST);
    assert_eq!(grave(&gate, HOST), ["share img-src https://tracker.test"]);
    assert_eq!(answer["malformed"], 5, "{answer}");
    for _ in 0..200 {
        assert_eq!(gate.ask(&format!("POST {PATH}"), json, b"{}").await.status, 204);
    }
    let refused =
        "portcullis_denials_total{class=\"api\",guard=\"rate\",reason=\"rate_limited\",site=\"files.test\"}";
    assert!(gate.metric(refused).is_some_and(|refused| refused > 50.0), "a flood is not read");
    for secret in ["TOKEN", "SECRET"] {
        let shown = reported(&gate, HOST).to_string()
            + &gate.log()
            + &gate.errors()
            + &gate.admin("/metrics").unwrap();
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let told = gate.cli(["csp", "nowhere.test"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let quiet = Gate::start("", upstream.address);
    let own = own.replace(&gate.https.port().to_string(), &quiet.https.port().to_string());
    let answer = quiet.ask(&format!("POST {PATH}"), json, of(&own, "data").as_bytes()).await;
    assert_eq!((answer.status, &reported(&quiet, HOST)["csp"]), (204, &json!([])), "nobody asked");
}
