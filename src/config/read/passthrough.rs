//! `[[passthrough]]`.

use super::hosts::Hosts;
use super::{Doc, Table, Value, gateway, networks, upstream};
use crate::config::defaults;
use crate::config::passthrough::Passthrough;
use crate::config::upstream::{Speaks, Upstream};
use crate::config::values::{HostPattern, Networks, ValueError};

/// Reads every `[[passthrough]]`; they hold on the https port only.
pub(super) fn all(doc: &Doc, root: &mut Table<'_>, serves_tls: bool, seen: &mut Hosts) -> Vec<Passthrough> {
    let tables = root.tables("passthrough");
    if let Some(first) = tables.first().filter(|_| !serves_tls) {
        let help = "name an address in listen.https, or remove the table";
        doc.missing(first.span.clone(), "nothing listens for TLS that could be passed through", help);
    }
    tables.into_iter().filter_map(|table| one(table, seen)).collect()
}

fn one(mut table: Table<'_>, seen: &mut Hosts) -> Option<Passthrough> {
    let hosts = hosts(&mut table, seen);
    let upstream = upstream_of(&mut table, seen);
    let words = [("off", false), ("v2", true)];
    let proxy_protocol = table.choice("proxy_protocol", &words).unwrap_or(false);
    let only_from = table.get("only_from").and_then(|value| networks::of(&value)).map(Networks::new);
    let idle = table.parse("idle_timeout", gateway::some_time);
    table.finish();
    Some(Passthrough {
        hosts,
        upstream: upstream?,
        proxy_protocol,
        only_from,
        idle_timeout: idle.unwrap_or(defaults::PASSTHROUGH_IDLE),
    })
}

fn hosts(table: &mut Table<'_>, seen: &mut Hosts) -> Vec<HostPattern> {
    let help = "write hosts = [\"agents.example.com\"]";
    let Some(value) = table.needs("hosts") else {
        table.doc.missing(table.span.clone(), "the passthrough names no `hosts`", help);
        return Vec::new();
    };
    let Some(items) = value.list() else { return Vec::new() };
    if items.is_empty() {
        value.wrong(ValueError { message: "the list is empty".into(), help: help.into() });
    }
    items.iter().filter_map(|item| host(item, seen)).collect()
}

fn host(item: &Value<'_>, seen: &mut Hosts) -> Option<HostPattern> {
    let host = item.parse(str::parse::<HostPattern>)?;
    if host.name().parse::<std::net::IpAddr>().is_ok() {
        item.wrong(ValueError {
            message: format!("`{host}` is an address, and no TLS client names an address"),
            help: "name the host by which the clients come".into(),
        });
        return None;
    }
    seen.add_passed(item.doc, &host, item.span.clone());
    Some(host)
}

fn upstream_of(table: &mut Table<'_>, seen: &mut Hosts) -> Option<crate::config::upstream::Address> {
    let help = "write host and port of who ends the TLS, e.g. upstream = \"127.0.0.1:9090\"";
    let Some(value) = table.needs("upstream") else {
        table.doc.missing(table.span.clone(), "the passthrough names no `upstream`", help);
        return None;
    };
    let address = upstream::bare(&value)?;
    seen.add_upstream(&Upstream { address: address.clone(), speaks: Speaks::Http }, value.span.clone());
    Some(address)
}
