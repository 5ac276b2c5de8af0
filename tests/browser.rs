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
use common::upstream::Upstream;
use common::{HOST, wait_until_async};
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
    let port = gate.https.port();
    for (host, app, _) in &sites {
        let tab = browser.tab().await;
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
        browser.close(tab).await;
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
    let all = ["alt", "description", "file", "title"];
    for (path, title, runs) in [
        ("/s/T1", "x", &all[..]),
        ("/s/T3/preview", "up", &["upload"]),
        ("/s/T4/preview", "", &["picture"]),
        ("/api/assets/0d9b4a52-6f3e-4b0e-9a55-0c2f1c1f7f10/preview", "up", &["upload"]),
    ] {
        for (origin, runs) in [(&straight, runs), (&behind, &[])] {
            let tab = browser.tab().await;
            assert_eq!(
                browser.open(&tab, &format!("{origin}{path}")).await,
                Opened::Loaded,
                "{origin}{path}"
            );
            if !title.is_empty() {
                assert_eq!(browser.run(&tab, "document.title").await, json!(title), "the page is there");
            }
            assert_eq!(ran(&browser, &tab), runs, "{origin}{path}");
            browser.close(tab).await;
        }
    }
    let tab = browser.tab().await;
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
