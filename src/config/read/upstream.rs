//! `upstream`, of a site and of a route.

use std::net::Ipv6Addr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use http::uri::Authority;

use super::hosts::Hosts;
use super::upstream_tls::Trust;
use super::{Table, Value};
use crate::config::cluster::{self, Cluster, Manner};
use crate::config::upstream::{Address, Speaks, Upstream};
use crate::config::values::ValueError;

/// What the kernel takes as the path of a socket.
const LONGEST_PATH: usize = 107;
const HELP: &str = "write scheme, host and port, e.g. \"http://127.0.0.1:8000\"; or \"unix:/run/app.sock\"";

/// Reads where a site's requests go.
pub(super) fn of_site(table: &mut Table<'_>, trust: &Trust<'_>, seen: &mut Hosts) -> Option<Cluster> {
    let Some(value) = table.needs("upstream") else {
        let help = "write e.g. upstream = \"http://127.0.0.1:8000\"";
        table.doc.missing(table.span.clone(), "the site names no `upstream`", help);
        return None;
    };
    cluster(&value, trust, Manner::default(), seen)
}

/// Reads where a route's requests go. Without `upstream_tls` of its own it has the site's: another port of one application.
pub(super) fn of_route(
    table: &mut Table<'_>,
    site: &Trust<'_>,
    manner: Manner,
    seen: &mut Hosts,
) -> Option<Cluster> {
    let own = Trust::read(table);
    let trust = if own.is_given() { &own } else { site };
    let upstream = table.get("upstream").and_then(|value| cluster(&value, trust, manner, seen));
    own.finish();
    upstream
}

/// One upstream, or a list of them that serve the same.
fn cluster(value: &Value<'_>, trust: &Trust<'_>, manner: Manner, seen: &mut Hosts) -> Option<Cluster> {
    if !value.is_list() {
        return Some(Cluster::new(vec![read(value, trust, seen)?], manner));
    }
    let items = value.list()?;
    if items.is_empty() || items.len() > cluster::MOST {
        value.wrong(ValueError {
            message: format!("{} upstreams", items.len()),
            help: format!("name from 1 to {}", cluster::MOST),
        });
        return None;
    }
    let mut members: Vec<Upstream> = Vec::new();
    // Each is read, so that each wrong one is told.
    for (item, upstream) in items.iter().map(|item| (item, read(item, trust, seen))).collect::<Vec<_>>() {
        let upstream = upstream?;
        if members.contains(&upstream) {
            let message = format!("`{upstream}` stands twice");
            item.wrong(ValueError { message, help: "name each upstream once".into() });
        }
        members.push(upstream);
    }
    Some(Cluster::new(members, manner))
}

fn read(value: &Value<'_>, trust: &Trust<'_>, seen: &mut Hosts) -> Option<Upstream> {
    let text = value.text()?;
    let upstream = match text.strip_prefix("unix:") {
        Some(path) => unix(value, path),
        None => tcp(value, text, trust),
    }?;
    seen.add_upstream(&upstream, value.span.clone());
    Some(upstream)
}

/// `host:port` or `unix:/path`, without a scheme: who takes bytes as they come.
pub(super) fn bare(value: &Value<'_>) -> Option<Address> {
    let text = value.text()?;
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(value, path).map(|upstream| upstream.address);
    }
    let help = "write host and port, e.g. \"127.0.0.1:9090\"; or \"unix:/run/app.sock\"";
    let wrong = |why: &str| {
        let message = format!("`{text}` is no upstream: {why}");
        value.wrong(ValueError { message, help: help.into() });
    };
    if text.contains("://") {
        wrong("its TLS is passed through, whatever is inside: no scheme");
        return None;
    }
    match parse(&format!("http://{text}")) {
        Ok((_, host, port)) if text.ends_with(&format!(":{port}")) => {
            Some(Address::Tcp { host: host.into(), port })
        }
        Ok(_) => {
            wrong("the port is missing");
            None
        }
        Err(_) => {
            wrong("host or port cannot be read");
            None
        }
    }
}

fn wrong(text: &str, why: &str) -> ValueError {
    ValueError { message: format!("`{text}` is no upstream: {why}"), help: HELP.into() }
}

fn unix(value: &Value<'_>, path: &str) -> Option<Upstream> {
    let why = if path.starts_with('@') {
        "abstract sockets have no owner and no mode; name the path of a socket file"
    } else if !path.starts_with('/') {
        "the path of a socket must be absolute: `unix:/run/app.sock`"
    } else if path.len() > LONGEST_PATH {
        "the path of a socket has 107 bytes at most"
    } else if path.contains('\0') {
        "a path has no NUL"
    } else {
        warn_of_no_socket(value, Path::new(path));
        let address = Address::Unix(Path::new(path).into());
        return Some(Upstream { address, speaks: Speaks::Http });
    };
    value.wrong(wrong(&format!("unix:{path}"), why));
    None
}

/// The application may start later: a socket that is not there is no mistake, something else in its place is.
fn warn_of_no_socket(value: &Value<'_>, path: &Path) {
    if std::fs::metadata(path).is_ok_and(|about| !about.file_type().is_socket()) {
        value.doc.warning(
            value.span.clone(),
            format!("{} is no socket", path.display()),
            "name the socket file that the application listens on",
        );
    }
}

fn tcp(value: &Value<'_>, text: &str, trust: &Trust<'_>) -> Option<Upstream> {
    let (scheme, host, port) = parse(text).map_err(|error| value.wrong(error)).ok()?;
    let speaks = match scheme {
        "https" => Speaks::Https(trust.of(value, &host)?),
        "h2c" => Speaks::H2c,
        _ => Speaks::Http,
    };
    Some(Upstream { address: Address::Tcp { host: host.into(), port }, speaks })
}

fn parse(text: &str) -> Result<(&str, String, u16), ValueError> {
    let wrong = |why| wrong(text, why);
    let schemes = [("http", 80), ("https", 443), ("h2c", 80)];
    let found = text.split_once("://").and_then(|(word, rest)| {
        schemes.into_iter().find(|(scheme, _)| *scheme == word).map(|(scheme, port)| (scheme, port, rest))
    });
    let (scheme, default_port, rest) =
        found.ok_or_else(|| wrong("it must begin with `http://`, `https://`, `h2c://` or `unix:`"))?;
    if rest.contains(['/', '?', '#']) {
        return Err(wrong("no path, not even `/`; requests keep theirs"));
    }
    if rest.contains('@') {
        return Err(wrong("no user name or password"));
    }
    let authority: Authority = rest.parse().map_err(|_| wrong("host or port cannot be read"))?;
    let bare = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_six = authority.host().starts_with('[');
    if bare.is_empty() || (is_six && bare.parse::<Ipv6Addr>().is_err()) {
        return Err(wrong("host or port cannot be read"));
    }
    let has_port = authority.as_str().len() > authority.host().len();
    if authority.port_u16() == Some(0) || (has_port && authority.port_u16().is_none()) {
        return Err(wrong("the port must be from 1 to 65535"));
    }
    Ok((scheme, bare.to_ascii_lowercase(), authority.port_u16().unwrap_or(default_port)))
}
