//! `portcullis check`: every problem of a config, else what it means.

mod logins;
mod upstreams;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::access::{self, User};
use super::{check_tokens, exit, links, reach, ways};
use crate::config::class::Class;
use crate::config::problem::{Problem, Problems, Severity};
use crate::config::settings::{CspChoice, Settings, Site};
use crate::config::values::Networks;
use crate::config::{self, Loaded};
use crate::warnings::{self, Machine};

/// How `check` answers.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Ask nothing of the network: resolve no name, connect to no upstream.
    pub offline: bool,
    /// Whether this user may read and write what the gateway must.
    pub as_user: Option<User>,
    /// One JSON object in place of text.
    pub json: bool,
    /// Colours, for a terminal.
    pub coloured: bool,
    /// Look at this machine too: who listens where, what the state directory is on.
    pub machine: bool,
}

/// Checks a config file, writes the outcome without colours, answers the exit code: 0 or 3 (1 when it cannot be
/// written).
pub fn check(path: &Path, offline: bool, json: bool, out: &mut dyn Write) -> u8 {
    check_with(path, &Options { offline, json, ..Options::default() }, out)
}

/// As [`check`], with every choice.
pub fn check_with(path: &Path, options: &Options, out: &mut dyn Write) -> u8 {
    let (problems, loaded) = match config::load(path) {
        Ok(mut loaded) => (look_around(&mut loaded, options), Some(loaded)),
        Err(problems) => (problems, None),
    };
    let written = if options.json {
        write_json(&problems, loaded.as_ref(), out)
    } else {
        write_text(&problems, loaded.as_ref(), options, out)
    };
    match (written, problems.is_empty()) {
        (Err(_), _) => exit::ERROR,
        (Ok(()), true) => exit::OK,
        (Ok(()), false) => exit::CONFIG,
    }
}

/// What the file alone does not say: what a user may do here, and whether somebody answers.
fn look_around(loaded: &mut Loaded, options: &Options) -> Problems {
    let file = loaded.settings.path.clone();
    let problem = |found: access::Found| Problem::of_file(&file, found.message, found.help);
    let mut problems = Problems::default();
    let machine = if options.machine { Machine::look(&loaded.settings) } else { Machine::default() };
    let advice = warnings::all(&loaded.settings, &machine, None).into_iter();
    loaded.warnings.0.extend(advice.map(|one| Problem::of_file(&file, one.what, one.remedy)));
    if let Some(user) = &options.as_user {
        let (forbidden, warnings) = access::look(user, &loaded.settings);
        problems.0.extend(forbidden.into_iter().map(problem));
        loaded.warnings.0.extend(warnings.into_iter().map(problem));
    }
    if !options.offline {
        loaded.warnings.0.extend(reach::unreached(&loaded.settings).into_iter().map(problem));
    }
    problems
}

fn write_text(
    problems: &Problems,
    loaded: Option<&Loaded>,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    if let Some(loaded) = loaded {
        write_policy(loaded, problems.is_empty(), options.coloured, out)?;
    }
    if problems.is_empty() {
        return Ok(());
    }
    let consequence = match &options.as_user {
        Some(user) if loaded.is_some() => format!("it would not run as `{}`", user.name()),
        _ => "nothing of this config would be taken over".into(),
    };
    let gap = if loaded.is_some() { "\n" } else { "" };
    writeln!(out, "{gap}{}\n", problems.render(Severity::Error, options.coloured))?;
    match problems.0.len() {
        1 => writeln!(out, "1 problem; {consequence}"),
        many => writeln!(out, "{many} problems; {consequence}"),
    }
}

fn write_policy(loaded: &Loaded, ok: bool, coloured: bool, out: &mut dyn Write) -> io::Result<()> {
    let settings = &loaded.settings;
    if !loaded.warnings.is_empty() {
        writeln!(out, "{}\n", loaded.warnings.render(Severity::Warning, coloured))?;
    }
    let word = if ok { "ok" } else { "well written, but it would not run" };
    writeln!(out, "{word}: {}", settings.path.display())?;
    for site in &settings.sites {
        writeln!(out)?;
        write_site(site, settings, out)?;
    }
    settings.passthroughs.iter().try_for_each(|to| ways::write_passthrough(to, out))
}

fn write_site(site: &Site, settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let hosts: Vec<_> = site.hosts.iter().map(ToString::to_string).collect();
    writeln!(out, "site {}", hosts.join(", "))?;
    let redirects: Vec<_> = site.redirect_hosts.iter().map(ToString::to_string).collect();
    if !redirects.is_empty() {
        writeln!(out, "  redirected  {}", redirects.join(", "))?;
    }
    if let Some(host) = &site.download_host {
        writeln!(out, "  downloads   shown on {host}, with tickets of 60 s")?;
    }
    writeln!(out, "  app         {} (unlisted paths are `{}`)", site.app.title, site.app.default_class)?;
    writeln!(out, "  upstream    {}", site.upstream)?;
    upstreams::write(site, out)?;
    super::check_certificates::write(site, settings, out)?;
    let mode = if site.observe {
        "observe: guards count and let pass; blocks, malformed requests and closed classes are refused"
    } else {
        "enforce"
    };
    writeln!(out, "  mode        {mode}")?;
    ways::write_client_certificates(site, out)?;
    let refresh = match site.refresh_lifetime {
        Duration::ZERO => "none".into(),
        lifetime => span(lifetime),
    };
    writeln!(out, "  tokens      live {}, refresh tokens {refresh}", span(site.token_lifetime))?;
    check_tokens::write(site, out)?;
    let learns = learns(site);
    if let Some(learns) = &learns {
        writeln!(out, "  learns      {learns}")?;
    }
    if site.companion_cookie {
        writeln!(
            out,
            "  companion   a login's token, in its JSON answer or the Location of its redirect, gives a cookie that stands for it in downloads and previews"
        )?;
    }
    if site.members_only {
        writeln!(out, "  previews    members only")?;
    }
    links::write(site, out)?;
    logins::write(site, out)?;
    let mut rows = vec![["class", "reachable from", "rate (burst)", "body", "paths"].map(String::from)];
    rows.extend(classes(site).map(|class| row(site, class)));
    write_table(&rows, out)?;
    write_policies(site, settings.listen.public_port, out)
}

/// What answers teach; `None`: the app file says nothing of it.
fn learns(site: &Site) -> Option<String> {
    let logout = site.app.teaches.logout.as_ref().map(|_| "logouts".to_owned());
    let from: Vec<String> = logout.into_iter().chain(actions(site)).collect();
    let how = match (site.learn, site.observe) {
        (false, _) => "nothing (learn = \"off\"); it could from ",
        (true, true) => "nothing (mode = \"observe\" only counts); it could from ",
        (true, false) => "from ",
    };
    (!from.is_empty()).then(|| format!("{how}{}", short(&from)))
}

fn actions(site: &Site) -> impl Iterator<Item = String> + '_ {
    site.app.teaches.actions.iter().map(|one| format!("{} {}", one.method, one.pattern.as_str()))
}

/// Classes that some route of the site has, or that are its default.
fn classes(site: &Site) -> impl Iterator<Item = Class> + '_ {
    Class::ALL.into_iter().filter(|class| *class == site.app.default_class || !paths(site, *class).is_empty())
}

fn row(site: &Site, class: Class) -> [String; 5] {
    let mut paths = paths(site, class);
    if class == site.app.default_class {
        paths.push("(all others)".into());
    }
    [
        class.to_string(),
        reach(site, class),
        rate(site, class),
        site.body.get(class).to_string(),
        short(&paths),
    ]
}

fn reach(site: &Site, class: Class) -> String {
    match site.allowed(class) {
        None => "everybody".into(),
        Some(networks) if networks == Networks::loopback() => "this machine only".into(),
        Some(networks) if networks.is_empty() => "nobody".into(),
        Some(networks) => networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn rate(site: &Site, class: Class) -> String {
    let found = site.rate.iter().find(|(named, _)| *named == class);
    found.map_or("unlimited".into(), |(_, rate)| format!("{} ({})", per(rate.refill), rate.burst))
}

/// As a person would write it: by the minute, unless the number is long or none.
fn per(refill: Duration) -> String {
    const MOST: u128 = 999;
    let units = [(60, "min"), (1, "s"), (3600, "h"), (86_400, "day")];
    let each = refill.as_nanos().max(1);
    for (seconds, word) in units {
        let nanos = Duration::from_secs(seconds).as_nanos();
        let count = (nanos + each / 2) / each;
        // A refill is rounded to nanoseconds: compare as loosely.
        let short = count <= MOST || word == "s";
        if count > 0 && short && nanos.abs_diff(count * each) <= count {
            return format!("{count}/{word}");
        }
    }
    format!("1 in {}", span(refill))
}

fn paths(site: &Site, class: Class) -> Vec<String> {
    let named = |method: &Option<http::Method>, pattern: &dyn ToString, to: Option<String>| {
        let method = method.as_ref().map(|method| format!("{method} ")).unwrap_or_default();
        let to = to.map(|to| format!(" to {to}")).unwrap_or_default();
        format!("{method}{}{to}", pattern.to_string())
    };
    let own = site.routes.iter().filter(|route| route.class == class);
    let own = own
        .map(|route| named(&route.method, &route.pattern, route.upstream.as_ref().map(ToString::to_string)));
    let app = site.app.routes.iter().filter(|route| route.class == class);
    let app = app.map(|route| {
        named(&route.method, &route.pattern, route.port.map(|port| site.upstream.at_port(port).to_string()))
    });
    own.chain(app).collect()
}

fn short(paths: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = paths.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = paths.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn write_table(rows: &[[String; 5]], out: &mut dyn Write) -> io::Result<()> {
    let mut widths = [0; 5];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "  {}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn write_policies(site: &Site, port: u16, out: &mut dyn Write) -> io::Result<()> {
    let origin = match port {
        443 => format!("https://{}", site.name()),
        _ => format!("https://{}:{port}", site.name()),
    };
    let observed = if site.headers.csp_observe { ", report only" } else { "" };
    let reported = if site.takes_reports() { ", reported to the gateway (`portcullis csp`)" } else { "" };
    let nonce = if site.headers.nonce.is_some() { ", a nonce for each page" } else { "" };
    writeln!(out, "\n  Content-Security-Policy{observed}{reported}{nonce}")?;
    if let Some(host) = &site.download_host {
        writeln!(out, "    all of {host}, always enforced:\n      {}", config::defaults::DOWNLOAD_CSP)?;
    }
    match &site.headers.csp {
        CspChoice::Off => return writeln!(out, "    off: the application's own stays"),
        CspChoice::Own(policy) => return writeln!(out, "    all classes: {policy}"),
        CspChoice::Variant(name) => writeln!(out, "    variant {name}")?,
        CspChoice::App => {}
    }
    let mut shown: Vec<(&str, Vec<&str>)> = Vec::new();
    for class in classes(site) {
        let policy = site.app_csp(class);
        match shown.iter_mut().find(|(known, _)| *known == policy) {
            Some((_, classes)) => classes.push(class.word()),
            None => shown.push((policy, vec![class.word()])),
        }
    }
    for (policy, classes) in shown {
        let policy = policy.replace("{origin}", &origin);
        writeln!(out, "    {}:\n      {policy}", classes.join(", "))?;
    }
    Ok(())
}

pub(super) fn span(time: Duration) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let millis = time.as_millis();
    let unit = units.into_iter().find(|(size, _)| millis >= *size && millis.is_multiple_of(*size));
    unit.map_or(format!("{millis}ms"), |(size, word)| format!("{}{word}", millis / size))
}

fn write_json(problems: &Problems, loaded: Option<&Loaded>, out: &mut dyn Write) -> io::Result<()> {
    let warnings = loaded.map(|loaded| loaded.warnings.to_json()).unwrap_or_default();
    let sites: Vec<_> = loaded.iter().flat_map(|loaded| &loaded.settings.sites).map(site_json).collect();
    let certificates = loaded.map(|loaded| super::check_certificates::json(&loaded.settings));
    let passed = loaded.iter().flat_map(|loaded| &loaded.settings.passthroughs).map(ways::passthrough_json);
    let answer = json!({
        "schema": 1, "problems": problems.to_json(), "warnings": warnings, "sites": sites,
        "certificates": certificates.unwrap_or_else(|| json!([])),
        "passthroughs": passed.collect::<Vec<_>>(),
    });
    writeln!(out, "{answer:#}")
}

fn site_json(site: &Site) -> Value {
    let words = |hosts: &[config::values::HostPattern]| -> Vec<String> {
        hosts.iter().map(ToString::to_string).collect()
    };
    json!({
        "site": site.name(),
        "hosts": words(&site.hosts),
        "redirect_hosts": words(&site.redirect_hosts),
        "download_host": site.download_host.as_ref().map(ToString::to_string),
        "companion_cookie": site.companion_cookie,
        "previews": if site.members_only { "members" } else { "open" },
        "app": &*site.app.name,
        "upstream": site.upstream.to_string(),
        "upstreams": upstreams::json(&site.upstream),
        "mode": if site.observe { "observe" } else { "enforce" },
        "login_guard": logins::json(site),
        "csp_mode": if site.headers.csp_observe { "observe" } else { "enforce" },
        "csp_report": site.takes_reports(),
        "csp_nonce": site.headers.nonce.is_some(),
        "token_lifetime_seconds": site.token_lifetime.as_secs(),
        "refresh_lifetime_seconds": site.refresh_lifetime.as_secs(),
        "learn": site.learn && !site.observe,
        "learns_from": { "logout": site.app.teaches.logout.is_some(), "requests": actions(site).collect::<Vec<_>>() },
        "share_guard": links::json(site),
        "limits": links::bounds_json(site),
        "verify": check_tokens::json(site.verification.as_ref()),
        "backchannel_logout": check_tokens::json(site.backchannel.as_ref()),
        "client_certificates": ways::client_certificates_json(site),
        "classes": classes(site).map(|class| class_json(site, class)).collect::<Vec<_>>(),
    })
}

fn class_json(site: &Site, class: Class) -> Value {
    let rate = site.rate.iter().find(|(named, _)| *named == class);
    let networks = |networks: Networks| networks.iter().map(ToString::to_string).collect::<Vec<_>>();
    let csp = match &site.headers.csp {
        CspChoice::App | CspChoice::Variant(_) => Some(site.app_csp(class)),
        CspChoice::Own(policy) => Some(&**policy),
        CspChoice::Off => None,
    };
    json!({
        "class": class.word(),
        "only_from": site.allowed(class).map(networks),
        "rate": rate.map(|(_, rate)| json!({
            "refill_seconds": rate.refill.as_secs_f64(), "burst": rate.burst.get()
        })),
        "body_bytes": site.body.get(class).0,
        "csp": csp,
        "routes": paths(site, class),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::parse_refill;

    #[test]
    fn rates_are_shown_as_people_write_them() {
        for text in ["20/min", "300/min", "7/min", "1/s", "3/h", "50/s", "2/day"] {
            let shown = per(parse_refill(text).unwrap());
            assert_eq!(parse_refill(&shown).unwrap(), parse_refill(text).unwrap(), "{text} became {shown}");
        }
        assert_eq!(per(parse_refill("20/min").unwrap()), "20/min");
    }
}
