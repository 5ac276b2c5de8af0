//! Promises about the app files: every route that an application is known to have gets its class, spelt as an attacker
//! may spell it too.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::gate::{Config, Gate};
use common::raw::LIMIT;
use common::upstream::{OK, Upstream};
use common::wait_until;
use http::Method;
use portcullis::clock::Now;
use portcullis::config::app::{App, Carrier, TokenFormat};
use portcullis::config::class::Class::{self, *};
use portcullis::config::settings::Site;
use portcullis::config::{self, problem::Problems};
use portcullis::policy::{Policy, compile};
use portcullis::stores::kept::Kept;

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

/// Method, path, class.
type Table = &'static [(&'static str, &'static str, Class)];

fn assert_classes(app: &App, table: Table) {
    for (method, path, expected) in table {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        assert_eq!(app.class_of(&method, path), *expected, "{method} {path} in {}", app.name);
    }
}

const KEEPSTACK: Table = &[
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
    ("GET", "/iiif/3/5f/info.json", Docs),
    ("GET", "/iiif/3/5f/full/max/0/default.jpg", Docs),
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
    ("GET", "/oai", Docs),
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
];

#[test]
fn keepstack_routes_have_their_class() {
    assert_classes(&app("keepstack"), KEEPSTACK);
}

const ARKEEP: Table = &[
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
    ("PATCH", "/api/v1/users/me", Api),
    ("GET", "/api/v1/users/7", Admin),
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
];

#[test]
fn arkeep_routes_have_their_class() {
    assert_classes(&app("arkeep"), ARKEEP);
}

const GENERIC: Table = &[
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
];

#[test]
fn a_generic_application_has_the_usual_doors_closed() {
    assert_classes(&app("generic"), GENERIC);
}

const ARCHIPY: Table = &[
    ("POST", "/login", Login),
    ("POST", "/api/v1/auth/login", Login),
    ("POST", "/auth/totp/verify", Login),
    ("POST", "/auth/refresh", Refresh),
    ("POST", "/auth/logout", Logout),
    ("GET", "/docs", Docs),
    ("GET", "/docs/oauth2-redirect", Docs),
    ("GET", "/redoc", Docs),
    ("GET", "/openapi.json", Docs),
    ("GET", "/metrics", Metrics),
    ("GET", "/healthz", Health),
    ("GET", "/", Api),
    ("GET", "/users/7", Api),
];

const COOLIFY: Table = &[
    ("GET", "/login", Login),
    ("POST", "/login", Login),
    ("POST", "/two-factor-challenge", Login),
    ("POST", "/forgot-password", Login),
    ("GET", "/reset-password/token", Login),
    ("GET", "/auth/github/redirect", Oidc),
    ("GET", "/auth/github/callback", Oidc),
    ("POST", "/logout", Logout),
    ("POST", "/register", Setup),
    ("GET", "/register/", Setup),
    ("POST", "/upload/backup/7", Upload),
    ("GET", "/download/backup/7", Download),
    ("GET", "/app/key", Live),
    ("GET", "/terminal/ws", Live),
    ("GET", "/terminal/ws/", Live),
    ("GET", "/terminal", Page),
    ("POST", "/webhooks/source/github/events", Api),
    ("GET", "/api/v1/servers", Api),
    ("POST", "/livewire/update", Api),
    ("GET", "/admin", Admin),
    ("GET", "/settings/email", Admin),
    ("GET", "/api/health", Health),
    ("GET", "/api/v1/health", Health),
    ("GET", "/metrics", Metrics),
    ("GET", "/telescope", Docs),
    ("GET", "/horizon/api/stats", Docs),
    ("GET", "/build/assets/app-1.js", Asset),
    ("GET", "/", Page),
    ("GET", "/project/7", Page),
];

const DOKPLOY: Table = &[
    ("POST", "/api/auth/sign-in/email", Login),
    ("POST", "/api/auth/two-factor/verify-totp", Login),
    ("GET", "/api/auth/callback/github", Oidc),
    ("POST", "/api/auth/sign-out", Logout),
    ("POST", "/api/auth/sign-up/email", Setup),
    ("GET", "/register", Setup),
    ("GET", "/terminal", Live),
    ("GET", "/docker-container-logs", Live),
    ("GET", "/drawer-logs", Live),
    ("GET", "/listen-deployment", Live),
    ("GET", "/api/trpc/project.all", Api),
    ("POST", "/api/deploy/github", Api),
    ("GET", "/api/health", Health),
    ("GET", "/swagger", Docs),
    ("GET", "/metrics", Metrics),
    ("GET", "/_next/static/chunks/main.js", Asset),
    ("GET", "/", Page),
    ("GET", "/dashboard/projects", Page),
];

#[test]
fn archipy_coolify_and_dokploy_routes_have_their_class() {
    for (name, table) in [("archipy", ARCHIPY), ("coolify", COOLIFY), ("dokploy", DOKPLOY)] {
        assert_classes(&app(name), table);
    }
}

#[test]
fn each_class_that_an_app_file_names_is_asked_for_here() {
    let tables = [ARCHIPY, ARKEEP, COOLIFY, DOKPLOY, GENERIC, KEEPSTACK];
    let names: Vec<&str> = config::builtin_apps().collect();
    assert_eq!(names, ["archipy", "arkeep", "coolify", "dokploy", "generic", "keepstack"]);
    for (name, table) in names.into_iter().zip(tables) {
        for route in &app(name).routes {
            assert!(table.iter().any(|(_, _, class)| *class == route.class), "{} of {name}", route.class);
        }
    }
}

#[test]
fn a_class_that_restricts_beats_even_a_more_specific_route() {
    let site =
        own_app(&format!("{MINE}[routes]\nmetrics = [\"/m/*\"]\napi = [\"/m/x\"]\nlive = [\"/m2/ws\"]\n"))
            .unwrap();
    assert_eq!(site.app.class_of(&Method::GET, "/m/x"), Class::Metrics);
    assert_eq!(site.app.class_of(&Method::GET, "/m2/ws"), Class::Live);
}

#[test]
fn every_route_that_an_app_file_names_is_reached_by_its_own_path() {
    for name in config::builtin_apps() {
        let app = app(name);
        for route in &app.routes {
            let segments = route.pattern.as_str().split('/').map(|segment| match segment.starts_with('{') {
                true => "1",
                false => segment,
            });
            let path = segments.collect::<Vec<_>>().join("/");
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
                assert_eq!(
                    app.class_of(&method, path.trim_end_matches('/')),
                    route.class,
                    "{path} in {name}"
                );
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
    for (name, pointer) in [("keepstack", "/detail"), ("arkeep", "/error/code"), ("archipy", "")] {
        let app = app(name);
        for status in [401, 404, 429] {
            let denial = app.denials.iter().find(|denial| denial.status == status).unwrap();
            let body: serde_json::Value = serde_json::from_str(&denial.body).unwrap();
            let sound = match name {
                "archipy" if status == 404 => body["detail"].is_string(),
                "archipy" => body["error"].is_string() && body["detail"]["http_status"] == status,
                _ => body.pointer(pointer).is_some_and(serde_json::Value::is_string),
            };
            assert!(sound, "{name} {status}: {body}");
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
    let own = site(
        "keepstack",
        "[[site.route]]\nmatch = \"/*\"\nclass = \"asset\"\n[[site.route]]\nmatch = \"/healthz\"\nclass = \"api\"\n",
    );
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
    let site =
        own_app(&format!("{MINE}[routes]\nlogin = [\"POST /in\"]\n[tokens]\nformat = \"opaque\"\n")).unwrap();
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
        (format!("{MINE}[csp]\npage = \"img-src {{orgin}}\"\n"), "only placeholders are", (5, 8)),
        (format!("{MINE}[denials.200]\nbody = \"\"\n"), "`200` is no status of a denial", (4, 10)),
        (
            format!("{MINE}[denials.401]\ntext = \"\"\nbody = \"\"\n"),
            "`text` is no key of `denials.401`",
            (5, 1),
        ),
        (
            format!("{MINE}[routes]\nlive = [{{ match = \"/w\", prot = 1 }}]\n"),
            "`prot` is no key of `routes.live`",
            (5, 25),
        ),
        (format!("{MINE}[routes]\nlive = [{{ match = \"/w\", port = 0 }}]\n"), "0 is out of range", (5, 32)),
        (
            format!("{MINE}[routes]\nlive = [{{ match = \"/w\", port = 70000 }}]\n"),
            "70000 is out of range",
            (5, 32),
        ),
        (format!("{MINE}[routes]\nlive = [{{ port = 6001 }}]\n"), "names no `match`", (5, 9)),
        (format!("{MINE}[routes]\ndocs = [{{ match = \"GET /d\" }}]\n"), "which restricts access", (5, 19)),
        (format!("{MINE}[routes]\nlive = [7]\n"), "an integer stands where a string", (5, 9)),
        (format!("{MINE}[csp_variants.Strict]\npage = \"img-src *\"\n"), "`Strict` is no name", (4, 15)),
        (format!("{MINE}[csp_variants.strict]\ndefault = \"img-src *\"\n"), "`default` is no class", (5, 1)),
        (format!("{MINE}[csp_variants.strict]\npage = \"img *\"\n"), "`img` is no directive", (5, 8)),
        (format!("{MINE}[replace]\nlogn = [422]\n"), "`logn` is no class", (5, 1)),
        (format!("{MINE}[replace]\nlogin = [200]\n"), "200 is no status of an error", (5, 10)),
        (format!("{MINE}[replace]\nlogin = 422\n"), "an integer stands where a list", (5, 9)),
        (format!("{MINE}[tokens]\nissuer = \"your-app-name\"\n"), "placeholder of ArchiPy", (5, 10)),
        (format!("{MINE}[tokens]\nissuer = \"your-app-audience\"\n"), "placeholder of ArchiPy", (5, 10)),
        (format!("{MINE}[tokens]\nlifetime = \"a week\"\n"), "is no length of time", (5, 12)),
        (format!("{MINE}[denials.401]\n"), "names no `body`", (4, 10)),
        (format!("{MINE}[rotes]\n"), "`rotes` is no key of the file", (4, 2)),
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

proptest::proptest! {
    #[test]
    fn no_broken_app_file_makes_it_panic(at in 0usize..5000, len in 0usize..40, with in "[\\[\\]{}=\"'\n#a0.,*/ -]{0,6}") {
        let mut text = include_str!("../config/apps/arkeep.toml").to_owned();
        let down = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let range = down(at)..down(at + len);
        text.replace_range(range, &with);
        let _ = own_app(&text).map_err(|problems| problems.to_string());
    }
}

#[test]
fn all_mistakes_of_an_app_file_are_told_at_once_together_with_those_of_the_config() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("x.toml"),
        "schema = 1\nnam = \"x\"\n[routes]\nlogn = [\"in\"]\n[tokens]\nformat = 1\n",
    )
    .unwrap();
    let text = "[listn]\n[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"http://127.0.0.1:8000\"\napp = \"./x.toml\"\n";
    let found = config::parse(&dir.path().join("portcullis.toml"), text, NOW).unwrap_err();
    let told = found.to_string().replace(dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!(told);
}

#[test]
fn what_is_no_app_file_at_all_is_told_at_the_place_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("folder.toml")).unwrap();
    std::fs::write(dir.path().join("binary.toml"), [0xff, 0xfe, 0]).unwrap();
    std::fs::write(dir.path().join("huge.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    std::fs::write(dir.path().join("empty.toml"), "").unwrap();
    std::fs::write(dir.path().join("syntax.toml"), "schema = = 1\n[routes\n").unwrap();
    for (app, part, file) in [
        ("./folder.toml", "it is no plain file", "portcullis.toml"),
        ("./binary.toml", "it is not UTF-8 text", "portcullis.toml"),
        ("./huge.toml", "it is larger than 1024 KiB", "portcullis.toml"),
        ("./none.toml", "No such file", "portcullis.toml"),
        ("", "`` is no built-in app file", "portcullis.toml"),
        ("./empty.toml", "names no `schema`", "empty.toml"),
        ("./syntax.toml", "", "syntax.toml"),
    ] {
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"http://127.0.0.1:8000\"\napp = \"{app}\"\n"
        );
        let found = config::parse(&dir.path().join("portcullis.toml"), &text, NOW).unwrap_err();
        assert!(found.0[0].message.contains(part), "{app}: {found}");
        assert!(
            found.0.iter().all(|problem| problem.file.ends_with(file) && !problem.help.is_empty()),
            "{app}: {found}"
        );
    }
}

#[test]
fn the_reference_of_app_files_holds_and_names_every_key() {
    let text = include_str!("../config/app.toml");
    let site = own_app(text).unwrap();
    for class in Class::ALL.into_iter().filter(|class| *class != Page) {
        assert!(site.app.routes.iter().any(|route| route.class == class), "{class}");
    }
    // Asked of the reader itself: a key that nobody knows gets the list of those that are known.
    for (place, section) in [
        ("\n# Class to paths", ""),
        ("\n# What a login", "tokens"),
        ("\n# What ends somebody", "logout"),
        ("\n# The Content", "learn"),
        ("content_type = ", "denials.401"),
    ] {
        let found = own_app(&text.replacen(place, &format!("\nqqqqqqqq = 1\n{place}"), 1)).unwrap_err();
        let keys = found.0[0].help.strip_prefix("known here: ").unwrap();
        for key in keys.split(", ") {
            let there =
                ["\n{} = ", "\n[{}", "\n[[{}"].iter().any(|form| text.contains(&form.replace("{}", key)));
            assert!(there, "{section} {key} is not in config/app.toml");
        }
    }
}

// === policies ===

fn policy(config: &str) -> Policy {
    let loaded = config::parse(Path::new("/etc/portcullis/portcullis.toml"), config, NOW);
    compile(&loaded.unwrap_or_else(|problems| panic!("{problems}")).settings, &Kept::new(16))
}

fn csp(policy: &Policy, host: usize, class: Class) -> String {
    let headers = policy.sites[0].hosts[host].headers.get(class).iter();
    let found =
        headers.filter(|(name, _)| name.as_str() == "content-security-policy").map(|(_, value)| value);
    found.map(|value| value.to_str().unwrap().to_owned()).collect()
}

#[test]
fn each_host_of_a_site_has_its_own_origin_in_its_policy() {
    let policy = policy(
        "[listen]\npublic_port = 8443\n[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\", \"b.example\"]\n\
         app = \"keepstack\"\nupstream = \"http://127.0.0.1:8000\"\n",
    );
    for (host, name) in ["a.example", "b.example"].into_iter().enumerate() {
        let page = csp(&policy, host, Page);
        assert!(page.contains(&format!("script-src https://{name}:8443/app.js;")), "{page}");
        assert!(page.contains(&format!("style-src https://{name}:8443/styles.css;")), "{page}");
        assert_eq!(page.matches("https://").count(), 2, "no other host: {page}");
    }
}

#[test]
fn a_variant_of_the_policies_is_chosen_by_config() {
    let with = |choice: &str| site("arkeep", &format!("[site.headers]\ncsp = \"{choice}\"\n"));
    let default = with("app");
    assert!(default.app_csp(Page).contains("style-src 'self' 'unsafe-inline' https://fonts.googleapis.com;"));
    let strict = with("app:strict");
    assert!(!strict.app_csp(Page).contains("unsafe"), "{}", strict.app_csp(Page));
    assert_eq!(strict.app_csp(Page).matches("'sha256-").count(), 5);
    let private = with("app:private");
    assert!(!private.app_csp(Page).contains("google") && !private.app_csp(Page).contains("gstatic"));
    for class in Class::ALL.into_iter().filter(|class| *class != Page) {
        assert_eq!(strict.app_csp(class), default.app_csp(class), "{class}");
        assert_eq!(private.app_csp(class), default.app_csp(class), "{class}");
    }
    let keepstack = site("keepstack", "[site.headers]\ncsp = \"app:strict\"\n");
    assert!(
        keepstack.app_csp(Share).contains("style-src 'sha256-")
            && !keepstack.app_csp(Share).contains("unsafe")
    );
    let compiled = policy(
        "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\napp = \"arkeep\"\nupstream = \"http://127.0.0.1:8000\"\n\
         [site.headers]\ncsp = \"app:strict\"\n",
    );
    assert_eq!(csp(&compiled, 0, Page), strict.app_csp(Page), "what is sent");
}

#[test]
fn a_variant_that_the_app_file_does_not_have_is_refused_with_the_nearest() {
    for (app, choice, message, help) in [
        ("arkeep", "app:strikt", "`strikt` is no variant of app file `arkeep`", "did you mean `strict`?"),
        ("arkeep", "app:", "`` is no variant", "known here: private, strict"),
        ("generic", "app:strict", "`strict` is no variant of app file `generic`", "has no variants"),
        ("generic", "ap", "`ap` is no directive", "write a policy"),
    ] {
        let text = format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"http://127.0.0.1:8000\"\n\
             app = \"{app}\"\n[site.headers]\ncsp = \"{choice}\"\n"
        );
        let found = config::parse(Path::new("/etc/portcullis.toml"), &text, NOW).unwrap_err();
        assert_eq!(found.0.len(), 1, "{found}");
        assert!(found.0[0].message.contains(message) && found.0[0].help.contains(help), "{found}");
        assert_eq!(found.0[0].position(), Some((8, 7)), "{found}");
    }
}

#[test]
fn frameworks_whose_scripts_are_not_known_get_no_policy_that_could_break_them() {
    for name in ["coolify", "dokploy"] {
        let policy = app(name).csp.get(Page).to_string();
        for directive in ["default-src", "script-src", "style-src", "connect-src"] {
            assert!(!policy.contains(directive), "{name}: {policy}");
        }
        for directive in ["object-src 'none'", "base-uri 'self'", "frame-ancestors 'self'"] {
            assert!(policy.contains(directive), "{name}: {policy}");
        }
    }
}

// === other ports, replaced answers: through the running gateway ===

#[test]
fn a_route_on_another_port_goes_to_the_host_of_the_sites_upstream_unless_the_site_says_otherwise() {
    let upstream_of = |site: &Site, path: &str| {
        let text = format!("{:?}", site.app.route_of(&Method::GET, path).unwrap().port);
        text
    };
    assert_eq!(upstream_of(&site("coolify", ""), "/app/key"), "Some(6001)");
    let explained = |more: &str, path: &str| {
        let policy = policy(&format!(
            "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\napp = \"coolify\"\n\
             upstream = \"http://10.0.0.7:8000\"\n{more}"
        ));
        let views = portcullis::request::path::PathViews::read(&path.parse().unwrap()).unwrap();
        policy.sites[0].route(&Method::GET, &views).unwrap().route.upstream.to_string()
    };
    assert_eq!(explained("", "/app/key"), "http://10.0.0.7:6001");
    assert_eq!(explained("", "/terminal/ws"), "http://10.0.0.7:6002");
    assert_eq!(explained("", "/"), "http://10.0.0.7:8000");
    let own =
        "[[site.route]]\nmatch = \"/app/{key}\"\nclass = \"live\"\nupstream = \"http://10.0.0.8:16001\"\n";
    assert_eq!(explained(own, "/app/key"), "http://10.0.0.8:16001");
    assert_eq!(explained(own, "/terminal/ws"), "http://10.0.0.7:6002");
}

#[test]
fn a_port_of_an_app_file_that_leads_back_to_the_gateway_is_refused() {
    let text = "[listen]\nhttps = [\"127.0.0.1:6001\"]\npublic_port = 6001\n[tls]\nself_signed = true\n[[site]]\n\
                hosts = [\"a.example\"]\napp = \"coolify\"\nupstream = \"http://127.0.0.1:8000\"\n";
    let found = config::parse(Path::new("/etc/portcullis.toml"), text, NOW).unwrap_err();
    assert!(found.to_string().contains("`http://127.0.0.1:6001` is the gateway itself"), "{found}");
}

#[tokio::test]
async fn a_route_on_another_port_is_served_from_there() {
    let main = Upstream::answering(OK);
    let other = Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother");
    let app =
        format!("{MINE}[routes]\nlive = [{{ match = \"/realtime/*\", port = {} }}]\n", other.address.port());
    let gate = Config { app: "./mine.toml".into(), files: vec![("mine.toml", app)], ..Config::default() }
        .start(main.address);
    assert_eq!(gate.ask("GET /realtime/x", "", b"").await.body, b"other");
    assert_eq!(gate.ask("GET /x", "", b"").await.body, b"ok");
}

/// As FastAPI does: what was sent is in the answer.
const ECHO: &[u8] =
    b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Type: application/json\r\nSet-Cookie: a=SECRET-pw\r\n\
    X-Input: SECRET-pw\r\nContent-Length: 43\r\n\r\n{\"value\":\"{'u': 1, 'password': 'SECRET-pw'}\"}";

async fn asked(gate: &Gate, line: &str) -> String {
    let answer = gate.ask(line, "Content-Type: application/json\r\n", b"{\"u\":1}").await;
    assert_eq!(answer.status, 422, "{line}");
    format!("{}\n{}", answer.head, String::from_utf8_lossy(&answer.body))
}

#[tokio::test]
async fn an_answer_that_repeats_the_password_is_replaced_in_the_applications_own_shape() {
    let upstream = Upstream::answering(ECHO);
    let gate = Config { app: "archipy".into(), ..Config::default() }.start(upstream.address);
    for line in ["POST /auth/login", "POST /auth/%6cogin", "POST /auth/refresh"] {
        let told = asked(&gate, line).await;
        assert!(!told.contains("SECRET-pw"), "{told}");
        assert!(
            told.contains("\"http_status\":422")
                && told.to_ascii_lowercase().contains("content-security-policy"),
            "{told}"
        );
    }
    assert!(asked(&gate, "POST /users").await.contains("SECRET-pw"), "other classes keep their answers");
    let told = wait_until(LIMIT, || gate.log().contains("withheld"));
    assert!(told, "the operator can see it: {}", gate.log());
}

#[tokio::test]
async fn a_replaced_answer_without_a_body_of_its_own_is_a_plain_one() {
    let upstream = Upstream::answering(ECHO);
    let app = format!("{MINE}[routes]\nlogin = [\"/in\"]\n[replace]\nlogin = [422]\n");
    let gate = Config { app: "./mine.toml".into(), files: vec![("mine.toml", app)], ..Config::default() }
        .start(upstream.address);
    let told = asked(&gate, "POST /in").await;
    assert!(!told.contains("SECRET-pw") && told.contains("\"status\":422"), "{told}");
}

#[tokio::test]
async fn foreign_origins_get_no_cors_from_an_archipy_service() {
    let wide = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://evil.test\r\nAccess-Control-Allow-Credentials: true\r\n\
        Content-Length: 2\r\n\r\nok";
    let upstream = Upstream::answering(wide);
    let gate = Config { app: "archipy".into(), ..Config::default() }.start(upstream.address);
    let answer = gate.ask("GET /users/me", "Origin: https://evil.test\r\n", b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[test]
fn access_and_refresh_tokens_of_archipy_are_both_looked_at() {
    let archipy = app("archipy");
    assert_eq!(archipy.tokens.format, TokenFormat::Jwt);
    assert_eq!(
        (archipy.tokens.lifetime.as_secs(), archipy.tokens.refresh_lifetime.as_secs()),
        (3600, 86_400)
    );
    assert_eq!(archipy.tokens.carriers, [Carrier::Bearer]);
}
