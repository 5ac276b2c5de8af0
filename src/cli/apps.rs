//! `portcullis apps`: the built-in app files, and one of them byte for byte, to begin an own one with.

use std::io::{self, Write};

use serde_json::json;

use super::{complain, exit};
use crate::config;

/// Arguments of `apps`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print this one as it is; save it under a name of your own to change it.
    name: Option<String>,
    /// List as JSON.
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

impl Args {
    pub(super) fn run(&self, out: &mut dyn Write) -> u8 {
        let written = match &self.name {
            Some(name) => match config::builtin_app(name) {
                Some(text) => out.write_all(text.as_bytes()),
                None => {
                    let help = config::nearest_app(name);
                    complain(format_args!("`{name}` is no built-in app file: {help}"));
                    return exit::USAGE;
                }
            },
            None if self.json => json(out),
            None => list(out),
        };
        if written.is_ok() { exit::OK } else { exit::ERROR }
    }
}

fn list(out: &mut dyn Write) -> io::Result<()> {
    for app in config::described_apps() {
        let variants: Vec<_> = app.csp_variants.iter().map(|(name, _)| format!("app:{name}")).collect();
        let variants =
            if variants.is_empty() { String::new() } else { format!("   csp: {}", variants.join(", ")) };
        writeln!(out, "{:<12}{}{variants}", app.name, app.title)?;
    }
    writeln!(out, "\nportcullis apps NAME prints one. What each key says: docs/app-files.md.")
}

fn json(out: &mut dyn Write) -> io::Result<()> {
    let apps = config::described_apps().map(|app| {
        let variants: Vec<&str> = app.csp_variants.iter().map(|(name, _)| &**name).collect();
        json!({ "name": &*app.name, "title": &*app.title, "csp_variants": variants })
    });
    let answer = json!({ "schema": 1, "apps": apps.collect::<Vec<_>>() });
    writeln!(out, "{answer:#}")
}
