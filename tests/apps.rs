//! Promises about the app files: every route that an application is known to have gets its class, spelt as an attacker
//! may spell it too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use http::Method;
use portcullis::clock::Now;
use portcullis::config::app::{App, Carrier, TokenFormat};
use portcullis::config::class::Class;
use portcullis::config::settings::Site;
use portcullis::config::{self, problem::Problems};

const NOW: Now = Now { mono: 1, wall: 1_782_000_000_000 };

fn site(app: &str, more: &str) -> Site {
    let text = format!(
        "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"http://127.0.0.1:8000\"\n\
         app = \"{app}\"\n{more}"
    );
    let loaded = config::parse(Path::new("/etc/portcullis/portcullis.toml"), &text, NOW);
    let sites = loaded.unwrap_or_else(|problems| panic!("{problems}")).settings.sites;
    sites.into_iter().next().unwrap()
}

fn app(name: &str) -> Arc<App> {
    site(name, "").app
}

fn assert_classes(app: &App, table: &[(&str, &str, Class)]) {
    for (method, path, expected) in table {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(app.class_of(&method, path), *expected, "{method} {path} in {}", app.name);
    }
}

#[test]
fn keepstack_routes_have_their_class() {
    use Class::*;
    assert_classes(&app("keepstack"), &[
        ("POST", "/api/auth/login", Login),
        ("GET", "/api/auth/login", Login),
        ("GET", "/api/auth/me", Api),
        ("POST", "/api/assets", Upload),
        ("GET", "/api/assets", Api),
        ("POST", "/api/assets/5f/versions", Upload),
        ("GET", "/api/assets/5f", Api),
        ("PATCH", "/api/assets/5f", Api),
        ("GET", "/api/assets/5f/file", Download),
        ("HEAD", "/api/assets/5f/file", Download),
        ("GET", "/api/assets/5f/thumb", Preview),
        ("GET", "/api/assets/5f/preview", Preview),
        ("GET", "/iiif/3/5f/info.json", Preview),
        ("GET", "/iiif/3/5f/full/max/0/default.jpg", Preview),
        ("GET", "/s/AAAAAAAAAAAAAAAAAAAAAA", Share),
        ("GET", "/s/AAAAAAAAAAAAAAAAAAAAAA/", Share),
        ("GET", "/s/AAAAAAAAAAAAAAAAAAAAAA/preview", ShareDownload),
        ("GET", "/s/AAAAAAAAAAAAAAAAAAAAAA/file", ShareDownload),
        ("GET", "/api/shares", Api),
        ("DELETE", "/api/shares/1", Api),
        ("GET", "/api/users", Admin),
        ("PATCH", "/api/users/2", Admin),
        ("GET", "/api/audit", Admin),
        ("GET", "/api/custom-fields", Api),
        ("POST", "/api/custom-fields", Admin),
        ("POST", "/api/admin/fixity", Admin),
        ("GET", "/oai", Api),
        ("GET", "/healthz", Health),
        ("GET", "/api/version", Health),
        ("GET", "/docs", Docs),
        ("GET", "/docs/", Docs),
        ("GET", "/docs/oauth2-redirect", Docs),
        ("GET", "/redoc", Docs),
        ("GET", "/openapi.json", Docs),
        ("POST", "/openapi.json", Docs),
        ("GET", "/metrics", Metrics),
        ("GET", "/", Page),
        ("GET", "/app.js", Asset),
        ("GET", "/styles.css", Asset),
        ("GET", "/anything/else", Page),
    ]);
}

#[test]
fn arkeep_routes_have_their_class() {
    use Class::*;
    assert_classes(&app("arkeep"), &[
        ("POST", "/api/v1/auth/login", Login),
        ("POST", "/api/v1/auth/refresh", Refresh),
        ("POST", "/api/v1/auth/logout", Logout),
        ("GET", "/api/v1/auth/oidc/providers", Oidc),
        ("GET", "/api/v1/auth/oidc/callback", Oidc),
        ("GET", "/api/v1/setup/status", Api),
        ("POST", "/api/v1/setup/complete", Setup),
        ("GET", "/api/v1/setup/complete/", Setup),
        ("POST", "/api/v1/agents/enroll", Enroll),
        ("GET", "/api/v1/agents", Api),
        ("DELETE", "/api/v1/agents/7", Admin),
        ("GET", "/api/v1/users", Admin),
        ("GET", "/api/v1/users/me", Api),
        ("PATCH", "/api/v1/users/7", Admin),
        ("DELETE", "/api/v1/users/7", Admin),
        ("PUT", "/api/v1/settings/smtp", Admin),
        ("GET", "/api/v1/audit", Admin),
        ("GET", "/api/v1/notifications/queue", Admin),
        ("POST", "/api/v1/policies/7/trigger", Admin),
        ("POST", "/api/v1/snapshots/7/restore", Admin),
        ("GET", "/api/v1/policies", Api),
        ("GET", "/api/v1/ws", Live),
        ("GET", "/metrics", Metrics),
        ("GET", "/metrics/", Metrics),
        ("GET", "/metrics/x/y", Metrics),
        ("DELETE", "/metrics", Metrics),
        ("GET", "/health/live", Health),
        ("GET", "/health/ready", Health),
        ("GET", "/health", Health),
        ("GET", "/docs", Docs),
        ("GET", "/openapi.json", Docs),
        ("GET", "/", Page),
        ("GET", "/dashboard", Page),
        ("GET", "/auth/callback", Page),
        ("GET", "/assets/index-a1.js", Asset),
        ("GET", "/sw.js", Asset),
    ]);
}

#[test]
fn a_generic_application_has_the_usual_doors_closed() {
    use Class::*;
    assert_classes(&app("generic"), &[
        ("POST", "/login", Login),
        ("POST", "/api/v1/auth/login", Login),
        ("POST", "/api/auth/refresh", Refresh),
        ("POST", "/logout", Logout),
        ("GET", "/setup", Setup),
        ("GET", "/metrics/x", Metrics),
        ("GET", "/healthz", Health),
        ("GET", "/docs/", Docs),
        ("GET", "/redoc", Docs),
        ("GET", "/openapi.json", Docs),
        ("GET", "/swagger/index.html", Docs),
        ("GET", "/s/abc", Share),
        ("GET", "/ws", Live),
        ("GET", "/admin/users", Admin),
        ("GET", "/api/things", Api),
        ("GET", "/static/app.js", Asset),
        ("GET", "/", Page),
    ]);
}

#[test]
fn every_route_that_an_app_file_names_is_reached_by_its_own_path() {
    for name in config::builtin_apps() {
        let app = app(name);
        for route in &app.routes {
            let path = route.pattern.as_str().replace("{uuid}", "1").replace("{token}", "1").replace("{id}", "1");
            let path = path.strip_suffix("/*").unwrap_or(&path);
            let method = route.method.clone().unwrap_or(Method::OPTIONS);
            assert_eq!(app.class_of(&method, path), route.class, "{method} {path} in {name}");
        }
    }
}

#[test]
fn closed_classes_hold_for_every_method_and_below() {
    for name in config::builtin_apps() {
        let app = app(name);
        for route in app.routes.iter().filter(|route| route.class.restricts()) {
            assert_eq!(route.method, None, "{} in {name}", route.pattern);
            let path = route.pattern.as_str().trim_end_matches('*');
            for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT] {
                assert_eq!(app.class_of(&method, path.trim_end_matches('/')), route.class, "{path} in {name}");
            }
        }
    }
}

#[test]
fn tokens_travel_where_the_applications_look() {
    let keepstack = app("keepstack");
    assert_eq!(keepstack.tokens.format, TokenFormat::HmacPair);
    assert_eq!(keepstack.tokens.carriers, [Carrier::Bearer]);
    assert_eq!(keepstack.tokens.lifetime.as_secs(), 168 * 3600);
    assert!(keepstack.tokens.refresh_lifetime.is_zero());
    let arkeep = app("arkeep");
    assert_eq!(arkeep.tokens.format, TokenFormat::Jwt);
    assert_eq!(arkeep.tokens.carriers, [Carrier::Bearer, Carrier::Query("token".into())]);
    assert_eq!(arkeep.tokens.refresh_cookie.as_deref(), Some("arkeep_refresh_token"));
    assert_eq!(arkeep.tokens.issuer.as_deref(), Some("arkeep-server"));
    assert_eq!(arkeep.tokens.lifetime.as_secs(), 15 * 60);
    assert_eq!(arkeep.tokens.refresh_lifetime.as_secs(), 168 * 3600);
    for name in config::builtin_apps() {
        assert!(app(name).tokens.carriers.contains(&Carrier::Bearer), "{name}");
    }
}

#[test]
fn denials_have_the_applications_own_shape() {
    for (name, pointer) in [("keepstack", "/detail"), ("arkeep", "/error/code")] {
        let app = app(name);
        for status in [401, 404, 429] {
            let denial = app.denials.iter().find(|denial| denial.status == status).unwrap();
            let body: serde_json::Value = serde_json::from_str(&denial.body).unwrap();
            assert!(body.pointer(pointer).is_some_and(serde_json::Value::is_string), "{name} {status}");
            assert_eq!(denial.content_type, "application/json");
        }
    }
}

#[test]
fn what_users_upload_never_runs_as_a_page_of_the_application() {
    let app = app("keepstack");
    for class in [Class::Download, Class::ShareDownload, Class::Preview, Class::Share, Class::Api] {
        let policy = app.csp.get(class);
        assert!(policy.starts_with("default-src 'none'") && policy.contains("sandbox"), "{class}: {policy}");
        assert!(!policy.contains("script"), "{class}: {policy}");
    }
    assert!(app.csp.get(Class::Page).contains("script-src {origin}/app.js;"));
}

#[test]
fn a_site_route_is_stronger_only_where_it_is_as_specific() {
    let own = site("keepstack", "[[site.route]]\nmatch = \"/*\"\nclass = \"asset\"\n[[site.route]]\nmatch = \"/healthz\"\nclass = \"api\"\n");
    assert_eq!(own.class_of(&Method::GET, "/healthz").0, Class::Api, "an exact one opens");
    assert_eq!(own.class_of(&Method::GET, "/docs").0, Class::Docs, "a wide one does not");
    assert_eq!(own.class_of(&Method::POST, "/api/auth/login").0, Class::Login);
    assert_eq!(own.class_of(&Method::GET, "/whatever").0, Class::Asset);
    let (class, route) = own.class_of(&Method::GET, "/healthz");
    assert_eq!((class, route.unwrap().pattern.as_str()), (Class::Api, "/healthz"));
}

fn own_app(text: &str) -> Result<Site, Problems> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mine.toml"), text).unwrap();
    let config = "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\n\
                  upstream = \"http://127.0.0.1:8000\"\napp = \"mine.toml\"\n";
    let loaded = config::parse(&dir.path().join("portcullis.toml"), config, NOW)?;
    assert!(loaded.settings.files.contains(&dir.path().join("mine.toml")), "it is watched");
    Ok(loaded.settings.sites.into_iter().next().unwrap())
}

const MINE: &str = "schema = 1\nname = \"mine\"\ndefault_class = \"api\"\n";

#[test]
fn an_app_file_of_ones_own_is_read() {
    let site = own_app(&format!("{MINE}[routes]\nlogin = [\"POST /in\"]\n[tokens]\nformat = \"opaque\"\n")).unwrap();
    assert_eq!(&*site.app.name, "mine");
    assert_eq!(site.app.class_of(&Method::POST, "/in"), Class::Login);
    assert_eq!(site.app.class_of(&Method::GET, "/in"), Class::Api);
    assert_eq!(&**site.app.csp.get(Class::Page), "default-src 'none'; frame-ancestors 'none'; sandbox");
}

#[test]
fn each_mistake_of_an_app_file_is_told_at_its_place_in_that_file() {
    for (text, part, place) in [
        (String::from("name = \"mine\"\ndefault_class = \"api\"\n"), "names no `schema`", (1, 1)),
        (MINE.replace("= 1", "= 2"), "reads schema 1, not 2", (1, 10)),
        (MINE.replace("mine", "Mine!"), "`Mine!` is no name", (2, 8)),
        (MINE.replace("api", "metrics"), "would close the application", (1, 1)),
        (format!("{MINE}[routes]\nlogn = [\"/in\"]\n"), "`logn` is no class", (5, 1)),
        (format!("{MINE}[routes]\nlogin = \"/in\"\n"), "a string stands where a list", (5, 9)),
        (format!("{MINE}[routes]\nhealth = [\"GET /health\"]\n"), "which restricts access", (5, 11)),
        (format!("{MINE}[routes]\nlogin = [\"in\"]\n"), "is no path pattern", (5, 10)),
        (format!("{MINE}[tokens]\nformat = \"jtw\"\n"), "`jtw` is not known", (5, 10)),
        (format!("{MINE}[tokens]\ncarriers = [\"cookie\"]\n"), "`cookie` is no place of tokens", (5, 13)),
        (format!("{MINE}[csp]\npage = \"script 'self'\"\n"), "`script` is no directive", (5, 8)),
        (format!("{MINE}[csp]\npage = \"img-src {{orgin}}\"\n"), "only placeholder is", (5, 8)),
        (format!("{MINE}[denials.200]\nbody = \"\"\n"), "`200` is no status of a denial", (4, 10)),
        (format!("{MINE}[denials.401]\ntext = \"\"\nbody = \"\"\n"), "`text` is no key of `denials.401`", (5, 1)),
        (format!("{MINE}[rate]\nlogin = {{ refill = \"1/s\" }}\n"), "names no `burst`", (5, 1)),
        (format!("{MINE}[body]\nlogin = 5\n"), "an integer stands where a string", (5, 9)),
    ] {
        let found = own_app(&text).unwrap_err();
        assert_eq!(found.0.len(), 1, "{found}");
        assert!(found.0[0].message.contains(part), "{part:?} is not in\n{found}");
        assert_eq!(found.0[0].position(), Some(place), "{found}");
        assert!(found.0[0].file.ends_with("mine.toml"), "{found}");
    }
}
