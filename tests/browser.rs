//! A real browser before the gateway.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's own functions are test code")]
#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "tests wait for the real world")]

mod common;

use common::chromium::{Chromium, Opened};
use common::gate::Gate;
use common::upstream::Upstream;

#[tokio::test]
async fn driver() {
    let began = std::time::Instant::now();
    let upstream = Upstream::by_request(|request| {
        let body = match &*request.target {
            "/app.js" => "console.log('RAN app.js'); window.ran = 1; fetch('https://evil.test/x').catch(() => {})",
            _ => "<!doctype html><title>x</title><script src=/app.js></script><script>console.log('RAN inline')</script>",
        };
        let kind = if request.target == "/app.js" { "text/javascript" } else { "text/html" };
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    });
    let gate = Gate::start("", upstream.address);
    eprintln!("gate {:?}", began.elapsed());
    let mut browser = Chromium::start().await;
    eprintln!("browser {:?}", began.elapsed());
    let tab = browser.tab().await;
    eprintln!("tab {:?}", began.elapsed());
    let opened = browser.open(&tab, &format!("https://files.test:{}/", gate.https.port())).await;
    assert_eq!(opened, Opened::Loaded);
    eprintln!("open {:?}", began.elapsed());
    browser.until(&tab, "window.ran === 1").await;
    eprintln!("{:#?} {:#?}", browser.violations(&tab), browser.lines(&tab));
    let opened = browser.open(&tab, &format!("https://files.test:{}/s/abc", gate.https.port())).await;
    assert_eq!(opened, Opened::Loaded);
    eprintln!("{:?}", browser.run(&tab, "document.title").await);
    eprintln!("{:#?} {:#?}", browser.violations(&tab), browser.lines(&tab));
    eprintln!("all {:?}", began.elapsed());
}
