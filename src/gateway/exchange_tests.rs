//! What an exchange measures, by a clock moved by hand.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::config;
use crate::gateway::view::Views;
use crate::policy::{PolicyCell, PolicyReader, compile};
use crate::request::share_key::ShareKey;
use crate::stores::kept::Kept;
use crate::telemetry::access_log::{AccessLog, Prepared};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::render::{Gauges, render};

const CONFIG: &str = "[tls]\nself_signed = true\n[log]\naccess = \"off\"\n[[site]]\nhosts = [\"files.example.com\"]\n\
    app = \"generic\"\nupstream = \"http://127.0.0.1:8000\"\n";

#[test]
fn the_time_of_the_upstream_begins_when_the_request_is_handed_to_it_and_that_of_the_request_with_its_head() {
    let (clock, hand) = Clock::test(1_790_000_000_000);
    let loaded = config::parse(Path::new("/etc/portcullis/portcullis.toml"), CONFIG, clock.now());
    let settings = loaded.unwrap_or_else(|problems| panic!("{problems}")).settings;
    let policy = PolicyReader::new(Arc::new(PolicyCell::new(compile(&settings, &Kept::new(10)))));
    let metrics = Metrics::new().unwrap();
    let views = Views::new(policy, Arc::clone(&metrics));
    let log = AccessLog::start(Prepared::open(&settings.log).unwrap(), Arc::new(|_| {})).unwrap();
    let (head, ()) = http::Request::get("/").body(()).unwrap().into_parts();
    let mut exchange = Exchange::begin(Beginning {
        lane: Rc::new(log.lane()),
        recent: Rc::new(Recents::new(ShareKey::new(&[7; 32]))),
        clock: clock.clone(),
        view: views.current(),
        start: clock.now(),
        id: "0123456789abcdef".into(),
        kill: Rc::default(),
        head: &head,
    });
    exchange.site = Some(0);
    hand.advance(Duration::from_secs(5));
    exchange.handed = clock.now();
    hand.advance(Duration::from_secs(2));
    exchange.upstream_answered();
    hand.advance(Duration::from_secs(1));
    exchange.answered(200, &HeaderMap::new());
    exchange.end();
    let text = render(&[metrics], &Gauges::default());
    let upstream = "portcullis_upstream_duration_seconds_sum{site=\"files.example.com\"} 2\n";
    let request = "portcullis_request_duration_seconds_sum{class=\"-\",site=\"files.example.com\"} 8\n";
    assert!(text.contains(upstream) && text.contains(request), "{text}");
}
