//! `download_host` of a site.

use super::Table;
use super::hosts::Hosts;
use crate::config::values::{HostPattern, ValueError};

/// Reads it. It is a host like any other: its own certificate, and nobody else's name.
pub(super) fn download_host(table: &mut Table<'_>, seen: &mut Hosts) -> Option<HostPattern> {
    let _text = table.text("download_host");
    let value = table.get("download_host")?;
    let host: HostPattern = value.parse(str::parse)?;
    let address = host.name().parse::<std::net::IpAddr>().is_ok();
    if host.is_wildcard() || address {
        let message = format!("`{host}` is no single name");
        let help = "downloads are sent to one host: write e.g. \"dl.example.com\"";
        value.wrong(ValueError { message, help: help.into() });
        return None;
    }
    seen.add(value.doc, &host, value.span.clone());
    Some(host)
}
