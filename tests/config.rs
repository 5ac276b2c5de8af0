//! Promises about the config: what is wrong is told, all at once and at its place; what we ship loads.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::clock::Now;
use portcullis::config::class::Class;
use portcullis::config::problem::Problems;
use portcullis::config::{self, Loaded};
use proptest::prelude::*;

/// The middle of 2026.
const NOW: Now = Now { mono: 1, wall: 1_782_000_000_000 };

/// A site and a listener that want nothing more.
const SITE: &str =
    "[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = \"http://127.0.0.1:8000\"\n";

fn parse(text: &str) -> Result<Loaded, Problems> {
    config::parse(Path::new("/etc/portcullis/portcullis.toml"), text, NOW)
}

fn sound(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

fn problems(text: &str) -> Problems {
    match parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => problems,
    }
}

/// Exactly one problem, with this part in its message and at this place.
fn assert_wrong(text: &str, part: &str, place: (usize, usize)) {
    let found = problems(text);
    assert_eq!(found.0.len(), 1, "{text}\n{found}");
    let problem = &found.0[0];
    assert!(problem.message.contains(part), "{part:?} is not in\n{found}");
    assert_eq!(problem.position(), Some(place), "{found}");
    assert!(!problem.help.is_empty(), "{found}");
}

#[test]
fn each_mistake_of_the_gateway_is_told_at_its_place() {
    // The mistake stands in front of a site that is sound, so that line 1 is the section and line 2 the key.
    for (mistake, part, place) in [
        ("[listn]", "`listn` is no key of the file", (1, 2)),
        ("[listen]\nhtps = []", "`htps` is no key of `listen`", (2, 1)),
        ("[listen]\nhttps = \"[::]:443\"", "a string stands where a list", (2, 9)),
        ("[listen]\nhttps = [\"[::]:443\", \":80\"]", "`:80` is no address with a port", (2, 22)),
        ("[listen]\nhttps = [\"[::]:443\"]\nhttp = [\"[::]:443\"]", "listened on twice", (3, 9)),
        ("[listen]\nplain = [\"127.0.0.1:81\"]", "serves only `listen.trusted_proxies`", (2, 9)),
        ("[listen]\npublic_port = 70000", "70000 is out of range", (2, 15)),
        ("[listen]\npublic_port = 0", "0 is out of range", (2, 15)),
        ("[listen]\npublic_port = \"443\"", "a string stands where a whole number", (2, 15)),
        ("[listen]\ntrusted_proxies = [\"10.0.0.0/33\"]", "`10.0.0.0/33` is no network", (2, 20)),
        ("[listen]\ntrusted_proxies = [\"10.0.0.1/8\"]", "bits set behind its prefix", (2, 20)),
        (
            "[listen]\nproxy_protocol = \"require-from-trusted\"",
            "from `listen.trusted_proxies` only",
            (2, 18),
        ),
        ("[listen]\ntrusted_proxies = [{}]", "names no `file`", (2, 20)),
        ("[listen]\ntrusted_proxies = [{ file = \"no-such-file\" }]", "no-such-file cannot be read", (2, 29)),
        ("[listen]\nproxy_protocol = \"on\"", "`on` is not known", (2, 18)),
        ("[listen]\nunknown_sni = \"accept\"", "`accept` is not known", (2, 15)),
        ("[admin]\nmetrics = \"9180\"", "`9180` is no address with a port", (2, 11)),
        ("[admin]\nmetrics_only_from = [\"all\"]", "`all` is no network", (2, 22)),
        ("[state]\ndir = 7", "an integer stands where a string", (2, 7)),
        ("[log]\nformat = \"jsn\"", "`jsn` is not known", (2, 10)),
        ("[limits]\nbody = \"1 megabyte\"", "`1 megabyte` is no size", (2, 8)),
        ("[limits]\nrequest_head = \"1GiB\"", "out of range", (2, 16)),
        ("[limits]\nconnections = -1", "-1 is out of range", (2, 15)),
        ("[limits]\nconnections = 1.5", "a float stands where a whole number", (2, 15)),
        ("[limits]\nhead_timeout = \"10\"", "`10` is no length of time", (2, 16)),
        ("[limits]\nidle_timeout = \"0s\"", "leaves no time at all", (2, 16)),
        ("[limits]\nmin_rate = { byte = \"1KiB\" }", "`byte` is no key of `limits.min_rate`", (2, 14)),
        ("[blocks]\nfiles = \"b.toml\"", "`files` is no key of `blocks`", (2, 1)),
        ("[acme]\nemail = \"me\"", "`me` is no mail address", (2, 9)),
        ("[acme]\nemail = \"me@b.example\"\ndirectory = \"letsencrpyt\"", "no ACME directory", (3, 13)),
        ("[acme]\nemail = \"me@b.example\"\nca_file = \"no.pem\"", "no.pem cannot be read", (3, 11)),
    ] {
        assert_wrong(&format!("{mistake}\n{SITE}"), part, place);
    }
}

#[test]
fn each_mistake_of_a_site_is_told_at_its_place() {
    // The mistake stands behind a site that is sound: line 6.
    for (mistake, part, place) in [
        ("app = \"keepstak\"", "`keepstak` is no built-in app file", (6, 7)),
        ("app = \"./mine.toml\"", "mine.toml cannot be read", (6, 7)),
        ("mod = \"observe\"", "`mod` is no key of `site`", (6, 1)),
        ("mode = \"obsrve\"", "`obsrve` is not known", (6, 8)),
        ("redirect_hosts = [\"a.example\"]", "`a.example` is named twice", (6, 19)),
        ("redirect_hosts = [\"http://a\"]", "is no host name", (6, 19)),
        ("login_guard = { failures = 0 }", "0 is out of range", (6, 28)),
        ("login_guard = { per = \"2d\" }", "too short or too long", (6, 23)),
        ("login_guard = { lockout_first = \"2h\" }", "the longest lockout is shorter", (6, 33)),
        ("download_host = \"a.example\"", "`a.example` is named twice", (6, 17)),
        ("download_host = \"*.dl.example\"", "is no single name", (6, 17)),
        ("download_host = \"192.0.2.1\"", "is no single name", (6, 17)),
        ("[site.tokens]\ncompanion_cookie = true", "does not say where a login hands out its token", (7, 20)),
        ("[site.tokens]\npreviews = \"members\"", "nobody could prove to be a member", (7, 12)),
        ("[site.tokens]\npreviews = \"closed\"", "`closed` is not known", (7, 12)),
        ("[site.share_guard]\nmisses = 0", "0 is out of range", (7, 10)),
        ("[site.share_guard]\nmiss = 1", "`miss` is no key", (7, 1)),
        ("[site.share_guard]\nper = \"0s\"", "no time at all", (7, 7)),
        (
            "[site.share_guard]\nlockout_first = \"2h\"\nlockout_most = \"1h\"",
            "is shorter than `lockout_first`",
            (8, 16),
        ),
        ("[site.tokens]\nverify = { key_file = \"k\" }", "/etc/portcullis/k cannot be read", (7, 23)),
        ("[site.tokens]\nverify = {}", "`verify` wants one of `key_file` and `jwks`", (7, 10)),
        ("[site.tokens]\nverify = { jwks = \"http://id.example/\" }", "could be anybody's", (7, 19)),
        ("[site.tokens]\nverify = { jwks = \"https://\" }", "is no address", (7, 19)),
        ("[site.tokens]\naudience = [\"files\"]", "nothing verifies them", (7, 12)),
        ("[site.tokens]\nverify = { jwks = \"https://id.example/\", kid = 1 }", "`kid` is no key", (7, 42)),
        ("[site.tokens]\nlifetime = \"a week\"", "`a week` is no length of time", (7, 12)),
        ("[site.only_from]\nmetric = [\"10.0.0.0/8\"]", "`metric` is no class", (7, 1)),
        ("[site.only_from]\nmetrics = [\"10.0.0.0/8\", \"x\"]", "`x` is no network", (7, 26)),
        ("[site.rate.logn]\nrefill = \"1/s\"\nburst = 1", "`logn` is no class", (6, 12)),
        ("[site.rate.login]\nrefill = \"5 per minute\"\nburst = 1", "is no rate", (7, 10)),
        ("[site.rate.login]\nrefill = \"1/s\"", "names no `burst`", (6, 12)),
        ("[site.rate.login]\nrefill = \"1/s\"\nburst = 0", "0 is out of range", (8, 9)),
        ("[site.headers]\ncsp = \"defualt-src 'self'\"", "`defualt-src` is no directive", (7, 7)),
        ("[site.headers]\nhsts = \"1 year\"", "is no HSTS policy", (7, 8)),
        ("[site.headers.set]\nContent-Length = \"1\"", "cannot be set here", (7, 1)),
        ("[site.headers.set]\nX-A = \"a\\nb\"", "characters that headers do not have", (7, 7)),
        ("[[site.route]]\nmatch = \"internal\"\nclass = \"admin\"", "is no path pattern", (7, 9)),
        ("[[site.route]]\nmatch = \"/a\"\nclass = \"adnim\"", "`adnim` is no class", (8, 9)),
        ("[[site.route]]\nmatch = \"get /a\"\nclass = \"admin\"", "`get` is no method", (7, 9)),
        ("[[site.route]]\nmatch = \"GET /m\"\nclass = \"metrics\"", "which restricts access", (7, 9)),
        (
            "[[site.route]]\nmatch = \"/m\"\nclass = \"docs\"\nencoded_slash = \"keep\"",
            "cannot be kept",
            (9, 17),
        ),
        (
            "[[site.route]]\nmatch = \"/m\"\nclass = \"api\"\nobserve = [\"blocks\"]",
            "`blocks` always enforces",
            (9, 12),
        ),
        (
            "[[site.route]]\nmatch = \"/m\"\nclass = \"api\"\nupstream = \"unix:x\"",
            "must be absolute",
            (9, 12),
        ),
        ("[site.limits]\nbody = \"\"", "`` is no size", (7, 8)),
    ] {
        assert_wrong(&format!("{SITE}{mistake}\n"), part, place);
    }
}

#[test]
fn an_upstream_must_be_one_that_can_be_reached_and_is_not_ourselves() {
    for (upstream, part) in [
        ("\"127.0.0.1:8000\"", "it must begin with `http://`"),
        ("\"ftp://127.0.0.1\"", "it must begin with `http://`, `https://`, `h2c://` or `unix:`"),
        ("\"https://127.0.0.1:8443/app\"", "no path"),
        ("\"h2c://user@127.0.0.1\"", "no user name"),
        ("\"h2c://127.0.0.1:443\"", "is the gateway itself"),
        ("\"unix:run/app.sock\"", "must be absolute"),
        ("\"unix:@app\"", "abstract sockets"),
        ("\"unix:\"", "must be absolute"),
        ("\"http://127.0.0.1:8000/\"", "no path"),
        ("\"http://user@127.0.0.1\"", "no user name"),
        ("\"http://:8000\"", "cannot be read"),
        ("\"http://[::1\"", "cannot be read"),
        ("\"http://a:0\"", "port must be from 1"),
        ("\"http://a:99999\"", "port must be from 1"),
        ("[\"http://a\", \"http://a:80\"]", "stands twice"),
        ("[]", "0 upstreams"),
        ("\"http://127.0.0.1:443\"", "is the gateway itself"),
        ("\"http://localhost:80\"", "is the gateway itself"),
        ("\"http://a.example:443\"", "is the gateway itself"),
    ] {
        let text =
            format!("[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\nupstream = {upstream}\n");
        let found = problems(&text);
        assert_eq!(found.0.len(), 1, "{found}");
        assert!(found.0[0].message.contains(part), "{part:?} is not in\n{found}");
        assert_eq!(found.0[0].position().unwrap().0, 5);
    }
    let one = SITE.replace("\"http://127.0.0.1:8000\"", "[\"http://[::1]:8000\"]");
    let upstream = &sound(&one).settings.sites[0].upstream;
    assert_eq!(upstream.to_string(), "http://[::1]:8000");
    for (text, shown) in [
        ("http://APP", "http://app:80"),
        ("https://app", "https://app:443"),
        ("h2c://app:9090", "h2c://app:9090"),
        ("unix:/run/No such place.sock", "unix:/run/No such place.sock"),
    ] {
        let text = SITE.replace("http://127.0.0.1:8000", text);
        assert_eq!(sound(&text).settings.sites[0].upstream.to_string(), shown);
    }
}

#[test]
fn a_site_without_what_it_needs_is_refused() {
    assert_wrong("", "there is no site", (1, 1));
    assert_wrong("[tls]\nself_signed = true\n[[site]]\nhosts = [\"a.example\"]\n", "no `upstream`", (3, 1));
    assert_wrong(&SITE.replace("[\"a.example\"]", "[]"), "the list is empty", (4, 9));
    assert_wrong(&SITE.replace("hosts = [\"a.example\"]", ""), "no `hosts`", (3, 1));
    let twice = format!("{SITE}[[site]]\nhosts = [\"A.example.\"]\nupstream = \"http://127.0.0.1:8001\"\n");
    assert_wrong(&twice, "`a.example` is named twice", (7, 10));
    for host in ["*", "*.com", "*.10.0.0.1", "a:80", "a..b", ""] {
        assert_wrong(&SITE.replace("a.example", host), "is no host name", (4, 10));
    }
    let wild = SITE.replace("a.example", "*.a.example");
    assert_wrong(&format!("{wild}redirect_hosts = [\"b.example\"]\n"), "is a wildcard", (6, 18));
}

#[test]
fn a_host_behind_tls_needs_a_certificate() {
    let bare = SITE.replace("[tls]\nself_signed = true\n", "");
    assert_wrong(&bare, "`a.example` has no certificate", (2, 10));
    sound(&format!("[listen]\nhttps = []\n{bare}"));
    let acme = sound(&format!("[acme]\nemail = \"me@a.example\"\n{bare}"));
    assert_eq!(format!("{:?}", acme.settings.certificates_from[0].1), "Acme");
    assert!(acme.warnings.0.is_empty(), "{:?}", acme.warnings);
}

#[test]
fn what_acme_cannot_do_is_said_at_its_place() {
    let acme = |lines: &str| {
        format!("[acme]\nemail = \"me@a.example\"\n{lines}\n{}", SITE.replace("self_signed = true", ""))
    };
    for (lines, message) in [
        ("challenges = []", "no way is left"),
        ("challenges = [\"dns-01\"]", "nothing puts records into the DNS"),
        ("challenges = [\"tls-sni-01\"]", "tls-sni-01"),
        ("dns_command = [\"certbot\"]", "no program by its whole path"),
        ("dns_command = []", "no program by its whole path"),
        ("dns_timeout = \"0s\"", "out of range"),
        ("eab_kid = \"k\"", "wants `eab_kid` and one key"),
        ("eab_key = \"AAAA\"", "wants `eab_kid` and one key"),
        ("eab_kid = \"k\"\neab_key = \"no key at all\"", "no HMAC key"),
        ("eab_kid = \"k\"\neab_key_file = \"/nonexistent\"", "cannot be read"),
        ("directory = \"http://ca.example/\"", "no ACME directory"),
    ] {
        let found = problems(&acme(lines));
        assert!(found.0.iter().any(|one| one.message.contains(message)), "{lines}: {found}");
        assert!(!found.to_string().contains("no key at all"), "a key is shown: {found}");
    }
    let wild = acme("").replace("a.example\"]", "*.a.example\"]");
    assert!(problems(&wild).to_string().contains("name acme.dns_command"), "{}", problems(&wild));
    sound(&wild.replace("[acme]", "[acme]\ndns_command = [\"/bin/true\"]"));
    // No authority certifies an address: said, and served with a throw-away one.
    let address = sound(&acme("").replace("[\"a.example\"]", "[\"192.0.2.1\"]"));
    assert!(address.warnings.to_string().contains("throw-away"), "{:?}", address.warnings);
}

#[test]
fn every_problem_is_told_at_once() {
    let text = r#"
[listen]
https = ["[::]:443", "nonsense"]
trusted_proxy = ["10.0.0.0/8"]

[limits]
body = 5
connections = 0

[[site]]
hosts = ["files.example.com", "https://files.example.com"]
app = "arkep"
upstream = "127.0.0.1:8000"
secret_key = "hunter2"

[site.only_from]
metrics = "10.0.0.0/8"

[site.rate.login]
refil = "20/min"
burst = 10

[[site.route]]
match = "POST /health"
class = "health"
"#;
    insta::assert_snapshot!(problems(text).to_string());
}

#[test]
fn syntax_errors_are_told_together_with_the_rest() {
    let found = problems("[listen]\nhttps = [\npublic_port = \"x\"\n[limits]\nbody = 5\nx = = 1\n");
    assert!(found.0.len() >= 2, "{found}");
    assert!(!found.to_string().contains("there is no site"), "what is missing may only be unread:\n{found}");
}

#[test]
fn a_problem_is_the_same_in_json() {
    let found = problems(&format!("{SITE}mod = 1\n")).to_json();
    assert_eq!(found[0]["line"], 6);
    assert_eq!(found[0]["column"], 1);
    assert_eq!(found[0]["file"], "/etc/portcullis/portcullis.toml");
    assert_eq!(found[0]["help"], "did you mean `mode`?");
}

#[test]
fn values_of_secret_keys_are_never_shown() {
    for key in ["password", "api_token", "SECRET_KEY"] {
        let found = problems(&format!("{SITE}{key} = \"hunter2\"\n"));
        assert!(!found.to_string().contains("hunter2"), "{found}");
        assert!(found.to_string().contains(key), "{found}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let absent = config::load(&dir.path().join("none.toml")).unwrap_err();
    assert!(absent.0[0].message.contains("cannot be read"), "{absent}");
    let folder = config::load(dir.path()).unwrap_err();
    assert!(folder.0[0].message.contains("no plain file"), "{folder}");
    let binary = dir.path().join("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(config::load(&binary).unwrap_err().0[0].message.contains("UTF-8"));
}

#[test]
fn what_a_site_says_is_stronger_than_the_gateway_and_the_app_file() {
    let text = format!(
        "[limits]\nbody = \"2MiB\"\nupload_body = \"3GiB\"\n{SITE}app = \"keepstack\"\n\
         [site.limits]\nbody = \"4MiB\"\n[site.rate.login]\nrefill = \"7/min\"\nburst = 3\n"
    );
    let site = &sound(&text).settings.sites[0];
    assert_eq!(site.body.get(Class::Api).0, 4 << 20);
    assert_eq!(site.body.get(Class::Upload).0, 3 << 30);
    assert_eq!(site.body.get(Class::Login).0, 16 << 10);
    let login = site.rate.iter().find(|(class, _)| *class == Class::Login).unwrap().1;
    assert_eq!((login.burst.get(), login.refill), (3, Duration::from_secs(60) / 7));
    let preview = site.rate.iter().find(|(class, _)| *class == Class::Preview).unwrap().1;
    assert_eq!(preview.burst.get(), 200, "the app file's");
    let refresh = site.rate.iter().find(|(class, _)| *class == Class::Refresh).unwrap().1;
    assert_eq!(refresh.burst.get(), 10, "the default");
    assert_eq!(site.token_lifetime, Duration::from_secs(168 * 3600));
}

#[test]
fn closed_classes_answer_loopback_only_unless_named() {
    let site = &sound(SITE).settings.sites[0];
    for class in Class::ALL {
        let allowed = site.allowed(class);
        assert_eq!(allowed.is_some(), class.restricts(), "{class}");
        if let Some(networks) = allowed {
            assert!(networks.contains("127.0.0.1".parse().unwrap()));
            assert!(!networks.contains("10.0.0.1".parse().unwrap()));
        }
    }
    let named = sound(&format!("{SITE}[site.only_from]\nmetrics = [\"10.0.0.0/8\"]\nhealth = []\n"));
    let site = &named.settings.sites[0];
    assert!(site.allowed(Class::Metrics).unwrap().contains("10.0.0.1".parse().unwrap()));
    assert!(!site.allowed(Class::Metrics).unwrap().contains("127.0.0.1".parse().unwrap()));
    assert!(site.allowed(Class::Health).unwrap().is_empty());
}

#[test]
fn opening_a_closed_class_to_everybody_is_warned_of() {
    let loaded = sound(&format!("{SITE}[site.only_from]\nmetrics = [\"0.0.0.0/0\"]\n"));
    assert!(loaded.warnings.0.iter().any(|warning| warning.message.contains("open to everybody")));
}

fn with_block_file(list: &str) -> Result<Loaded, Problems> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("blocks.toml"), list).unwrap();
    config::parse(&dir.path().join("c.toml"), &format!("[blocks]\nfile = \"blocks.toml\"\n{SITE}"), NOW)
}

#[test]
fn a_block_file_lists_what_is_blocked() {
    let list = "[[blocks]]\naddress = \"192.0.2.0/24\"\nreason = \"scans\"\n[[blocks]]\nsubject = \"7\"\n\
                and_logins = true\nuntil = \"2031-01-02T03:04:05Z\"\nsite = \"files.example.com\"\n";
    let blocks = with_block_file(list).unwrap().settings.blocks.unwrap();
    assert_eq!(blocks.len(), 2);
    assert_eq!(blocks[0].until, None);
    assert_eq!(blocks[1].until, Some(1_925_089_445_000));
    assert_eq!(with_block_file("blocks = []").unwrap().settings.blocks, Some(Vec::new()), "lifts all");
}

#[test]
fn a_block_file_that_says_nothing_lifts_nothing() {
    for list in ["", "# nothing\n"] {
        let loaded = with_block_file(list).unwrap();
        assert_eq!(loaded.settings.blocks, None);
        assert!(loaded.warnings.0.iter().any(|warning| warning.message.contains("no `blocks`")));
    }
    let missing = sound(&format!("[blocks]\nfile = \"nowhere.toml\"\n{SITE}"));
    assert_eq!(missing.settings.blocks, None);
    assert!(missing.warnings.0.iter().any(|warning| warning.message.contains("is missing")));
}

#[test]
fn a_block_file_with_a_mistake_is_refused_with_the_place() {
    for (list, part) in [
        ("[[blocks]]\n", "does not name one thing"),
        ("[[blocks]]\njti = \"a\"\nsubject = \"b\"\n", "does not name one thing"),
        ("[[blocks]]\nfingerprint = \"abc\"\n", "64 hex digits"),
        ("[[blocks]]\naddress = \"10.0.0.1/8\"\n", "bits set"),
        ("[[blocks]]\njti = \"a\"\nuntil = \"tomorrow\"\n", "is no time"),
        ("[[blocks]]\ntoken = \"a\"\n", "`token` is no key"),
        ("[[block]]\njti = \"a\"\n", "did you mean `blocks`"),
        ("blocks = 1", "list"),
        ("[[blocks]\n", ""),
    ] {
        let problems = with_block_file(list).unwrap_err().to_string();
        assert!(problems.contains(part) && problems.contains("blocks.toml:"), "{list}\n{problems}");
    }
}

#[test]
fn paths_are_relative_to_the_config_file() {
    let settings =
        sound(&format!("[blocks]\nfile = \"blocks.toml\"\n[state]\ndir = \"state\"\n{SITE}")).settings;
    assert_eq!(settings.state_dir, PathBuf::from("/etc/portcullis/state"));
    assert!(settings.files.contains(&PathBuf::from("/etc/portcullis/blocks.toml")), "it is watched");
    assert!(settings.files.contains(&settings.path), "it is watched");
}

#[test]
fn hsts_is_not_sent_with_a_throw_away_certificate() {
    assert!(sound(SITE).settings.sites[0].headers.hsts.is_none());
    let real = SITE.replace("[tls]\nself_signed = true", "[acme]\nemail = \"me@a.example\"");
    assert!(sound(&real).settings.sites[0].headers.hsts.is_some());
}

#[test]
fn every_key_of_the_design_is_known() {
    let text = r#"
[listen]
https = ["[::]:443"]
http = ["[::]:80"]
plain = []
public_port = 443
trusted_proxies = []
proxy_protocol = "off"
unknown_sni = "refuse"
[tls]
min_version = "1.2"
certificates = []
self_signed = false
[acme]
email = "me@example.com"
directory = "letsencrypt-staging"
ca_file = "ca.pem"
profile = "shortlived"
challenges = ["dns-01", "http-01"]
dns_command = ["/usr/local/bin/dns-record", "present"]
dns_timeout = "1m"
eab_kid = "k"
eab_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
[admin]
socket = "/run/portcullis/admin.sock"
metrics = "127.0.0.1:9180"
metrics_only_from = ["127.0.0.1/32", "::1/128"]
[state]
dir = "/var/lib/portcullis"
[log]
access = "stdout"
format = "combined"
[limits]
connections = 20000
connections_per_client = 200
request_head = "32KiB"
body = "1MiB"
upload_body = "10GiB"
head_timeout = "10s"
idle_timeout = "75s"
min_rate = { bytes = "16KiB", per = "10s" }
[blocks]
file = "blocks.toml"
[[site]]
hosts = ["files.example.com"]
redirect_hosts = ["www.example.com"]
app = "keepstack"
upstream = "http://127.0.0.1:8000"
mode = "enforce"
[site.only_from]
metrics = ["10.0.0.0/8"]
health = ["10.0.0.0/8"]
[site.rate.login]
refill = "20/min"
burst = 10
[site.rate.share]
refill = "300/min"
burst = 100
[site.headers]
csp = "app"
csp_mode = "enforce"
hsts = "max-age=31536000"
set = { }
[site.tokens]
lifetime = "168h"
refresh_lifetime = "168h"
[[site.route]]
match = "/internal/*"
class = "admin"
upstream = "http://127.0.0.1:8200"
observe = ["rate"]
encoded_slash = "keep"
"#;
    let ca = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::default().self_signed(&ca).unwrap().pem();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca).unwrap();
    let text = text.replace("\"ca.pem\"", &format!("\"{}\"", file.path().display()));
    let settings = sound(&text).settings;
    let route = &settings.sites[0].routes[0];
    assert!(route.observe.rate && !route.observe.size && route.keep_encoded_slash);
    assert_eq!(route.upstream.as_ref().unwrap().to_string(), "http://127.0.0.1:8200");
}

// === what we ship ===

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reference_config_loads() {
    config::load(&repository().join("config/portcullis.toml"))
        .unwrap_or_else(|problems| panic!("{problems}"));
}

#[test]
fn the_reference_config_shows_the_defaults() {
    let path = repository().join("config/portcullis.toml");
    let shown = config::load(&path).unwrap().settings;
    let least = "[acme]\nemail = \"me@example.com\"\n\
                 [[site]]\nhosts = [\"files.example.com\"]\nupstream = \"http://127.0.0.1:8000\"\n";
    let defaults = config::parse(&path, least, NOW).unwrap().settings;
    assert_eq!(format!("{shown:#?}"), format!("{defaults:#?}"));
}

#[test]
fn the_reference_config_names_every_key() {
    // Asked of the reader itself: a key that nobody knows gets the list of those that are known.
    let text = std::fs::read_to_string(repository().join("config/portcullis.toml")).unwrap();
    for (section, body) in [
        ("listen", "[listen]\nqqqqqqqq = 1\n"),
        ("tls", "[tls]\nqqqqqqqq = 1\n"),
        ("acme", "[acme]\nemail = \"a@b\"\nqqqqqqqq = 1\n"),
        ("admin", "[admin]\nqqqqqqqq = 1\n"),
        ("state", "[state]\nqqqqqqqq = 1\n"),
        ("log", "[log]\nqqqqqqqq = 1\n"),
        ("limits", "[limits]\nqqqqqqqq = 1\n"),
        ("blocks", "[blocks]\nqqqqqqqq = 1\n"),
        ("site", "[[site]]\nqqqqqqqq = 1\n"),
        ("site.headers", "[[site]]\n[site.headers]\nqqqqqqqq = 1\n"),
        ("site.tokens", "[[site]]\n[site.tokens]\nqqqqqqqq = 1\n"),
        ("site.route", "[[site]]\n[[site.route]]\nqqqqqqqq = 1\n"),
    ] {
        let found = problems(body);
        let unknown = found.0.iter().find(|problem| problem.message.contains("qqqqqqqq")).unwrap();
        let keys = unknown.help.strip_prefix("known here: ").unwrap();
        for key in keys.split(", ") {
            let there = text.contains(&format!("{key} = ")) || text.contains(&format!("{section}.{key}"));
            assert!(there, "{section}.{key} is not in config/portcullis.toml");
        }
    }
}

#[test]
fn commented_lines_of_the_reference_config_are_true() {
    let text = std::fs::read_to_string(repository().join("config/portcullis.toml")).unwrap();
    let keys = text.lines().filter_map(|line| line.strip_prefix("# ").or(Some(line))).filter(|line| {
        let word = line.split([' ', '=']).next().unwrap_or_default();
        let key = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        line.starts_with('[') || (key && line.contains(" = ")) || word.starts_with("X-")
    });
    let mut active: Vec<_> = keys.collect();
    // What wants files, or an upstream of another kind, is in `tests/upstreams.rs`, `tests/several.rs`,
    // `tests/client_certificates.rs` and `tests/browser.rs`.
    let elsewhere = [
        "maintenance",
        "ca_file",
        "[site.upstream_tls]",
        "server_name",
        "cert ",
        "key ",
        "upstream_tls",
        "nonce_",
        "[site.client_certificates]",
        "mode = \"required\"",
        "allowed",
        "crl_file",
    ];
    active.retain(|line| !elsewhere.iter().any(|word| line.starts_with(word)));
    sound(&active.join("\n"));
}

#[test]
fn every_toml_block_of_the_documents_loads() {
    // The README's are in `tests/documents.rs`.
    let mut documents = Vec::new();
    if let Ok(entries) = std::fs::read_dir(repository().join("docs")) {
        documents.extend(entries.flatten().map(|entry| entry.path()));
    }
    for document in documents.iter().filter(|path| path.extension().is_some_and(|ext| ext == "md")) {
        let Ok(text) = std::fs::read_to_string(document) else { continue };
        for block in text.split("```toml").skip(1) {
            let (kind, block) = block.split("```").next().unwrap().split_once('\n').unwrap();
            let dir = tempfile::tempdir().unwrap();
            let told = match kind.trim() {
                // Held in `tests/documents.rs`.
                "" => continue,
                "app" => {
                    std::fs::write(dir.path().join("x.toml"), block).unwrap();
                    config::parse(&dir.path().join("c.toml"), &format!("{SITE}app = \"./x.toml\"\n"), NOW)
                        .map(|_| ())
                }
                "cases" => config::cases::parse(document, block).map(|_| ()),
                other => panic!("{}: ```toml {other}", document.display()),
            };
            told.unwrap_or_else(|problems| panic!("{}:\n{block}\n{problems}", document.display()));
        }
    }
}

#[test]
fn what_init_prints_is_sound() {
    use portcullis::cli::init::{Behind, init};
    for app in config::builtin_apps() {
        for behind in [None, Some(Behind::Cloudflare), Some(Behind::Proxy), Some(Behind::Docker)] {
            let mut text = Vec::new();
            init(app, "files.example.com", "http://127.0.0.1:8000", behind, &mut text).unwrap();
            let loaded = sound(&String::from_utf8(text).unwrap());
            assert_eq!(&*loaded.settings.sites[0].app.name, app);
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        }
    }
    let mut text = Vec::new();
    init("generic", "\"]\nx = [\"", "http://a", None, &mut text).unwrap();
    let found = problems(&String::from_utf8(text).unwrap());
    assert!(found.0[0].message.contains("is no host name"), "quoted, not let through:\n{found}");
}

// === schemas ===

mod schemas {
    use std::collections::BTreeSet;
    use std::process::Command;

    use portcullis::config::cases;
    use portcullis::config::schema::{self, Of};
    use serde_json::Value;

    use super::*;

    /// Each table of a schema: the headers that lead to it, and its keys.
    fn tables(schema: &Value, name: &str, headers: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
        for one in schema["anyOf"].as_array().into_iter().flatten() {
            tables(one, name, headers, found);
        }
        if let Some(properties) = schema["properties"].as_object() {
            found.push((headers.into(), properties.keys().cloned().collect()));
            for (key, value) in properties {
                let below = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let is_list = value["type"] == "array";
                let header = if is_list { format!("[[{below}]]") } else { format!("[{below}]") };
                let next = if is_list { &value["items"] } else { value };
                tables(next, &below, &format!("{headers}{header}\n"), found);
            }
        }
    }

    /// What the reader says of a text.
    fn told(of: Of, text: &str) -> Problems {
        match of {
            Of::Config => parse(text).err().unwrap_or_default(),
            Of::Cases => cases::parse(Path::new("/etc/cases.toml"), text).err().unwrap_or_default(),
            Of::App => {
                let dir = tempfile::tempdir().unwrap();
                std::fs::write(dir.path().join("x.toml"), text).unwrap();
                let config = format!("{SITE}app = \"./x.toml\"\n");
                config::parse(&dir.path().join("c.toml"), &config, NOW).err().unwrap_or_default()
            }
        }
    }

    #[test]
    fn a_schema_has_just_the_keys_that_the_reader_knows() {
        for of in [Of::Config, Of::App, Of::Cases] {
            let mut found = Vec::new();
            tables(&schema::of(of), "", "", &mut found);
            let mut compared = 0;
            for (headers, keys) in found {
                // A token's claims are called as its issuer likes, and any value may be asked for.
                if headers.contains("[site.tokens.claims]") {
                    continue;
                }
                let text = format!("{headers}qqqqqqqq = 1\n");
                let problems = told(of, &text);
                let unknown = problems.0.iter().find(|problem| problem.message.contains("qqqqqqqq"));
                let unknown = unknown.unwrap_or_else(|| panic!("accepted in {of:?}:\n{text}{problems}"));
                // Tables by class or status name their keys in other words.
                let Some(known) = unknown.help.strip_prefix("known here: ") else { continue };
                if !unknown.message.contains("is no key of") {
                    continue;
                }
                let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
                assert_eq!(keys, known, "{of:?}:\n{text}");
                compared += 1;
            }
            assert!(compared >= 3, "{of:?}: only {compared} tables");
        }
    }

    fn tombi() -> PathBuf {
        let path = repository().join("target/test-tools/bin/tombi");
        assert!(path.exists(), "tombi is missing: `make test-deps` installs it below target/test-tools");
        path
    }

    /// A folder with the three schemas, as `portcullis schema` prints them.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (of, name) in [(Of::Config, "config"), (Of::App, "app"), (Of::Cases, "cases")] {
            let text = format!("{:#}", schema::of(of));
            std::fs::write(dir.path().join(format!("portcullis-{name}.schema.json")), text).unwrap();
        }
        dir
    }

    /// What the tool says of a file whose first line names its schema, or nothing.
    fn linted(dir: &Path, schema: &str, text: &str) -> Option<String> {
        let path = dir.join("file.toml");
        std::fs::write(&path, format!("#:schema ./portcullis-{schema}.schema.json\n{text}")).unwrap();
        let told = Command::new(tombi())
            .args(["lint", "--offline", "--error-on-warnings", "file.toml"])
            .current_dir(dir)
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
        (!told.status.success()).then_some(said)
    }

    #[test]
    fn a_toml_tool_finds_what_we_ship_valid_by_the_schemas() {
        let dir = folder();
        let mut files = vec![("config", repository().join("config/portcullis.toml"))];
        for (schema, names) in [("app", ["apps", "app.toml"]), ("cases", ["cases", "cases.toml"])] {
            files.push((schema, repository().join("config").join(names[1])));
            let all = std::fs::read_dir(repository().join("config").join(names[0])).unwrap();
            files.extend(all.map(|entry| (schema, entry.unwrap().path())));
        }
        assert!(files.len() > 12, "{files:?}");
        for (schema, file) in files {
            let text = std::fs::read_to_string(&file).unwrap();
            assert_eq!(linted(dir.path(), schema, &text), None, "{}", file.display());
        }
    }

    #[test]
    fn a_toml_tool_finds_the_same_mistakes_as_the_reader() {
        let dir = folder();
        let app = "schema = 1\nname = \"x\"\ndefault_class = \"page\"\n";
        let case = "schema = 1\n[[case]]\nname = \"a\"\nrequest = \"https://a/\"\n";
        for (of, name, text) in [
            (Of::Config, "config", format!("[listn]\n{SITE}")),
            (Of::Config, "config", format!("[limits]\nconections = 5\n{SITE}")),
            (Of::Config, "config", format!("[limits]\nconnections = \"5\"\n{SITE}")),
            (Of::Config, "config", format!("[limits]\nconnections = 0\n{SITE}")),
            (Of::Config, "config", format!("[limits]\nmin_rate = {{ byte = \"1KiB\" }}\n{SITE}")),
            (Of::Config, "config", SITE.replace("true", "\"true\"")),
            (Of::Config, "config", SITE.replace("hosts = [\"a.example\"]", "")),
            (Of::Config, "config", SITE.replace("[\"a.example\"]", "\"a.example\"")),
            (Of::Config, "config", format!("{SITE}mode = \"obsrve\"\n")),
            (Of::Config, "config", format!("{SITE}[site.rate.logn]\nrefill = \"1/s\"\nburst = 1\n")),
            (Of::Config, "config", format!("{SITE}[site.rate.login]\nrefill = \"1/s\"\n")),
            (Of::Config, "config", format!("{SITE}[site.only_from]\nmetrics = \"10.0.0.0/8\"\n")),
            (Of::Config, "config", format!("{SITE}[[site.route]]\nmatch = \"/a\"\nclass = \"adnim\"\n")),
            (Of::Config, "config", format!("{SITE}[[site.route]]\nclass = \"admin\"\n")),
            (Of::Config, "config", format!("{SITE}download_host = [\"dl.example\"]\n")),
            (Of::App, "app", app.replace("schema = 1\n", "")),
            (Of::App, "app", app.replace("\"page\"", "\"pgae\"")),
            (Of::App, "app", format!("{app}[routes]\nlogn = [\"/in\"]\n")),
            (Of::App, "app", format!("{app}[routes]\nlogin = \"/in\"\n")),
            (Of::App, "app", format!("{app}[routes]\nlive = [{{ match = \"/w\", prot = 1 }}]\n")),
            (Of::App, "app", format!("{app}[denials.200]\nbody = \"\"\n")),
            (Of::App, "app", format!("{app}[denials.401]\n")),
            (Of::App, "app", format!("{app}[csp]\npgae = \"img-src *\"\n")),
            (Of::App, "app", format!("{app}[csp_variants.strict]\npgae = \"img-src *\"\n")),
            (Of::App, "app", format!("{app}[replace]\nlogin = 422\n")),
            (Of::App, "app", format!("{app}[tokens]\nformat = \"jtw\"\n")),
            (Of::Cases, "cases", case.to_owned()),
            (Of::Cases, "cases", format!("{case}expect.verdict = \"denied\"\n")),
            (Of::Cases, "cases", format!("{case}expect.statsu = 404\n")),
            (Of::Cases, "cases", format!("{case}repaet = 2\nexpect.status = 404\n")),
            (Of::Cases, "cases", format!("{case}expect.csp = \"sandbox\"\n")),
        ] {
            assert!(!told(of, &text).is_empty(), "the reader accepts\n{text}");
            assert!(linted(dir.path(), name, &text).is_some(), "the tool accepts\n{text}");
        }
        assert_eq!(linted(dir.path(), "config", SITE), None);
        assert_eq!(linted(dir.path(), "app", app), None);
        assert_eq!(linted(dir.path(), "cases", &format!("{case}expect.status = 404\n")), None);
    }
}

// === check ===

fn check(text: &str, json: bool) -> (u8, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    std::fs::write(&path, text).unwrap();
    let mut out = Vec::new();
    let code = portcullis::cli::check::check(&path, true, json, &mut out);
    (code, String::from_utf8(out).unwrap().replace(dir.path().to_str().unwrap(), "DIR"))
}

#[test]
fn check_shows_the_effective_policy() {
    let (code, shown) = check(&format!("{SITE}app = \"keepstack\"\n"), false);
    assert_eq!(code, 0);
    insta::assert_snapshot!(shown);
}

#[test]
fn the_six_line_config_is_enough() {
    let (code, shown) = check(
        "[acme]\nemail = \"me@example.com\"\n\n[[site]]\nhosts = [\"files.example.com\"]\napp = \"arkeep\"\n\
         upstream = \"http://127.0.0.1:8080\"\n",
        false,
    );
    assert_eq!(code, 0);
    insta::assert_snapshot!(shown);
}

#[test]
fn check_shows_problems_and_exits_with_3() {
    let (code, shown) = check(&format!("{SITE}mod = 1\n"), false);
    assert_eq!(code, 3);
    insta::assert_snapshot!(shown);
}

#[test]
fn check_in_json_is_one_object_with_a_schema() {
    let (code, shown) = check(SITE, true);
    let answer: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &answer["schema"]), (0, &1.into()));
    assert_eq!(answer["problems"], serde_json::json!([]));
    assert_eq!(answer["sites"][0]["site"], "a.example");
    let (code, shown) = check("[[site]]\n", true);
    let answer: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(code, 3);
    assert_eq!(answer["problems"].as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(answer["sites"], serde_json::json!([]));
}

// === certificates ===

mod certificates {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A folder with `cert.pem` and `key.pem` for `a.example`, good from 2020 to `until`.
    fn folder(until: i32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".into()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        write(dir.path(), "cert.pem", &params.self_signed(&key).unwrap().pem());
        write(dir.path(), "key.pem", &key.serialize_pem());
        dir
    }

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).unwrap();
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(dir: &Path) -> Result<Loaded, Problems> {
        let text = format!(
            "[tls]\ncertificates = [{{ cert = \"cert.pem\", key = \"key.pem\" }}]\n{}",
            SITE.trim_start_matches("[tls]\nself_signed = true\n")
        );
        config::parse(&dir.join("portcullis.toml"), &text, NOW)
    }

    fn assert_refused(dir: &Path, part: &str, line: usize) {
        let found = load(dir).unwrap_err();
        assert!(found.0.iter().any(|problem| problem.message.contains(part)), "{part:?} not in\n{found}");
        assert_eq!(found.0[0].position().unwrap().0, line, "{found}");
        assert!(!found.to_string().contains("PRIVATE KEY"), "a key is shown");
    }

    #[test]
    fn a_sound_pair_is_taken() {
        let dir = folder(2030);
        let settings = load(dir.path()).unwrap_or_else(|problems| panic!("{problems}")).settings;
        assert_eq!(settings.tls.certificates[0].cert, dir.path().join("cert.pem"));
        assert!(settings.files.contains(&dir.path().join("key.pem")), "it is watched");
    }

    #[test]
    fn what_is_damaged_absent_or_mismatched_is_told_by_name() {
        type Damage = fn(&Path);
        let table: [(Damage, &str); 10] = [
            (|dir| std::fs::remove_file(dir.join("cert.pem")).unwrap(), "cert.pem cannot be read"),
            (|dir| std::fs::remove_file(dir.join("key.pem")).unwrap(), "key.pem cannot be read"),
            (|dir| write(dir, "cert.pem", ""), "cert.pem holds no certificate"),
            (|dir| write(dir, "key.pem", ""), "key.pem holds no private key"),
            (|dir| write(dir, "cert.pem", "garbage"), "cert.pem holds no certificate"),
            (|dir| half(dir, "cert.pem"), "cert.pem is damaged or cut short"),
            (|dir| half(dir, "key.pem"), "key.pem is damaged or cut short"),
            (
                |dir| {
                    write(dir, "cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
                },
                "is no X.509 certificate",
            ),
            (
                |dir| write(dir, "key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                "key.pem holds a key that cannot be used",
            ),
            (
                |dir| write(dir, "key.pem", &KeyPair::generate().unwrap().serialize_pem()),
                "does not belong to the certificate",
            ),
        ];
        for (damage, part) in table {
            let dir = folder(2030);
            damage(dir.path());
            assert_refused(dir.path(), part, 2);
        }
    }

    fn half(dir: &Path, name: &str) {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        write(dir, name, &text[..text.len() / 2]);
    }

    #[test]
    fn an_expired_certificate_is_refused() {
        assert_refused(folder(2021).path(), "has expired on", 2);
    }

    #[test]
    fn a_host_that_no_certificate_names_is_told() {
        let dir = folder(2030);
        let text = "[tls]\ncertificates = [{ cert = \"cert.pem\", key = \"key.pem\" }]\n\
                    [[site]]\nhosts = [\"b.example\"]\nupstream = \"http://127.0.0.1:8000\"\n";
        let found = config::parse(&dir.path().join("portcullis.toml"), text, NOW).unwrap_err();
        assert!(found.0[0].message.contains("`b.example` has no certificate"), "{found}");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_chmod() {
        let dir = folder(2030);
        let key = dir.path().join("key.pem");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let found = load(dir.path()).unwrap_err();
        assert!(found.0[0].message.contains("mode 0640"), "{found}");
        assert_eq!(found.0[0].help, format!("chmod 600 {}", key.display()));
        // A projected volume of Kubernetes has this link.
        std::fs::create_dir(dir.path().join("..data")).unwrap();
        let loaded = load(dir.path()).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(loaded.warnings.0[0].message.contains("mode 0640"));
    }
}

// === total ===

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text).map_err(|problems| problems.to_string());
    }

    #[test]
    fn no_broken_config_makes_it_panic(at in 0usize..6000, len in 0usize..40, with in "[\\[\\]{}=\"'\\\\\n#a0.,*-]{0,6}") {
        let mut text = include_str!("../config/portcullis.toml").to_owned();
        let down = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let range = down(at)..down(at + len);
        text.replace_range(range, &with);
        if let Err(problems) = parse(&text) {
            prop_assert!(!problems.is_empty());
            let _ = (problems.to_string(), problems.to_json());
        }
    }
}
