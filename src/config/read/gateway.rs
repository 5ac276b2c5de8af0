//! The file as a whole, and the sections of the gateway itself.

use std::path::PathBuf;
use std::time::Duration;

use super::listen::Public;
use super::{Doc, Table, acme, blocks_file, hosts, listen, networks, passthrough, site};
use crate::config::defaults;
use crate::config::settings::{Admin, FileBlock, Limits, Log, LogFormat, LogTarget, MinRate, Settings, Site};
use crate::config::values::{ByteSize, Networks, ValueError, parse_duration, parse_socket};

/// Reads a config file.
pub(super) fn read(doc: &Doc, mut root: Table<'_>) -> Option<Settings> {
    let before = doc.count();
    let public = listen::public(&mut root);
    let public_is_sound = doc.count() == before;
    let admin = admin(root.section("admin"));
    let state_dir = state(root.section("state"));
    let log = log(root.section("log"));
    let (limits, bodies) = limits(root.section("limits"));
    let blocks = blocks(root.section("blocks"));
    let mut hosts = hosts::Hosts::default();
    let sites = sites(doc, &mut root, &site::Around { public: &public, bodies }, &mut hosts);
    let passthroughs = passthrough::all(doc, &mut root, !public.listen.https.is_empty(), &mut hosts);
    hosts.refuse_ourselves(doc, &public.listen);
    if public_is_sound {
        hosts.want_certificates(doc, &public);
    }
    root.finish();
    let certificates_from = acme::sources(doc, &public, &sites);
    let Public { listen, tls, acme, .. } = public;
    Some(Settings {
        path: doc.file.clone(),
        files: vec![doc.file.clone()],
        listen,
        tls,
        acme,
        certificates_from,
        admin,
        state_dir,
        log,
        limits,
        blocks,
        sites,
        passthroughs,
    })
}

fn sites(doc: &Doc, root: &mut Table<'_>, around: &site::Around<'_>, hosts: &mut hosts::Hosts) -> Vec<Site> {
    let mut apps = super::app::Cache::default();
    root.needs("site");
    let tables = root.tables("site");
    if tables.is_empty() {
        let help = "add [[site]] with hosts, app and upstream; `portcullis init` prints one";
        doc.missing(0..0, "there is no site", help);
    }
    tables.into_iter().filter_map(|table| site::site(table, around, hosts, &mut apps)).collect()
}

/// Limits of bodies that `[limits]` names itself; they are weaker than a site's and stronger than an app file's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bodies {
    pub body: Option<ByteSize>,
    pub upload: Option<ByteSize>,
}

impl Bodies {
    /// Reads the two keys.
    pub fn read(table: &mut Table<'_>) -> Self {
        Self { body: table.parse("body", str::parse), upload: table.parse("upload_body", str::parse) }
    }
}

fn admin(mut table: Table<'_>) -> Admin {
    let socket = table.text("socket").unwrap_or(defaults::ADMIN_SOCKET);
    let socket = table.doc.resolve(socket);
    let metrics = table.parse("metrics", |text| match text {
        "off" => Ok(None),
        _ => parse_socket(text)
            .map(Some)
            .map_err(|error| value_error(error.message, "write e.g. \"127.0.0.1:9180\", or \"off\"")),
    });
    let metrics = metrics.unwrap_or_else(|| defaults::ADMIN_METRICS.parse().ok());
    let metrics_only_from = networks::of_key(&mut table, "metrics_only_from");
    let metrics_only_from = metrics_only_from.unwrap_or_else(|| {
        Networks::new(defaults::METRICS_ONLY_FROM.iter().filter_map(|net| net.parse().ok()))
    });
    table.finish();
    Admin { socket, metrics, metrics_only_from }
}

fn state(mut table: Table<'_>) -> PathBuf {
    let dir = table.text("dir").unwrap_or(defaults::STATE_DIR);
    let dir = table.doc.resolve(dir);
    table.finish();
    dir
}

fn log(mut table: Table<'_>) -> Log {
    let access = match table.text("access") {
        None | Some("stdout") => LogTarget::Stdout,
        Some("off") => LogTarget::Off,
        Some(path) => LogTarget::File(table.doc.resolve(path)),
    };
    let forms = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
    let format = table.choice("format", &forms).unwrap_or(LogFormat::Json);
    table.finish();
    Log { access, format }
}

fn limits(mut table: Table<'_>) -> (Limits, Bodies) {
    let bodies = Bodies::read(&mut table);
    let limits = Limits {
        connections: table.number("connections").unwrap_or(defaults::CONNECTIONS),
        connections_per_client: table
            .number("connections_per_client")
            .unwrap_or(defaults::CONNECTIONS_PER_CLIENT),
        request_head: table.parse("request_head", request_head).unwrap_or(defaults::REQUEST_HEAD),
        head_timeout: table.parse("head_timeout", some_time).unwrap_or(defaults::HEAD_TIMEOUT),
        idle_timeout: table.parse("idle_timeout", some_time).unwrap_or(defaults::IDLE_TIMEOUT),
        min_rate: min_rate(table.section("min_rate")),
        drain_timeout: table.parse("drain_timeout", parse_duration).unwrap_or(defaults::DRAIN_TIMEOUT),
        // Not so many that the table of places alone could not be had.
        limiter_keys: table
            .number::<u32>("limiter_keys")
            .and_then(|keys| usize::try_from(keys).ok())
            .unwrap_or(defaults::LIMITER_KEYS),
    };
    table.finish();
    (limits, bodies)
}

fn min_rate(mut table: Table<'_>) -> MinRate {
    let bytes = table.parse("bytes", str::parse).unwrap_or(defaults::MIN_RATE_BYTES);
    let per = table.parse("per", some_time).unwrap_or(defaults::MIN_RATE_PER);
    table.finish();
    MinRate { bytes, per }
}

/// A time that is not nothing: zero would cut every connection.
pub(super) fn some_time(text: &str) -> Result<Duration, ValueError> {
    let time = parse_duration(text)?;
    if time.is_zero() {
        return Err(value_error(format!("`{text}` leaves no time at all"), "write e.g. \"10s\""));
    }
    Ok(time)
}

/// Below 1 KiB not even a curl gets through; above 1 MiB strangers choose how much memory a connection takes.
fn request_head(text: &str) -> Result<ByteSize, ValueError> {
    let size: ByteSize = text.parse()?;
    if (1 << 10..=1 << 20).contains(&size.0) {
        return Ok(size);
    }
    Err(value_error(format!("`{text}` is out of range"), "write something between \"1KiB\" and \"1MiB\""))
}

fn blocks(mut table: Table<'_>) -> Option<Vec<FileBlock>> {
    let list = table.get("file").and_then(|file| blocks_file::read(&file));
    table.finish();
    list
}

fn value_error(message: String, help: &str) -> ValueError {
    ValueError { message, help: help.into() }
}
