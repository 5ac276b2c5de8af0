//! The arguments of the verbs that look at configs only: `check` and `init`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use super::check::{self, Options};
use super::init::{self, Behind};
use super::{DEFAULT_CONFIG, complain, exit};

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The config file.
    #[arg(env = "PORTCULLIS_CONFIG", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    file: PathBuf,
    /// Ask nothing of the network.
    #[arg(long)]
    offline: bool,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The application: keepstack, arkeep, generic, or the path of an app file.
    #[arg(long, value_name = "NAME")]
    app: String,
    /// The name that people type.
    #[arg(long)]
    host: String,
    /// Where the application listens, e.g. http://127.0.0.1:8000.
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// What stands before the gateway.
    #[arg(long, value_enum)]
    behind: Option<BehindWord>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum BehindWord {
    Cloudflare,
    Proxy,
    Docker,
}

impl Check {
    pub(super) fn run(&self, out: &mut dyn Write) -> u8 {
        let coloured = io::stdout().is_terminal();
        let options = Options { offline: self.offline, json: self.json, coloured, machine: true };
        check::check_with(&self.file, options, out)
    }
}

impl Init {
    pub(super) fn run(&self, out: &mut dyn Write) -> u8 {
        let behind = self.behind.map(|word| match word {
            BehindWord::Cloudflare => Behind::Cloudflare,
            BehindWord::Proxy => Behind::Proxy,
            BehindWord::Docker => Behind::Docker,
        });
        match init::init(&self.app, &self.host, &self.upstream, behind, out) {
            Ok(()) => exit::OK,
            Err(error) => {
                complain(format_args!("the config cannot be written: {error}"));
                exit::ERROR
            }
        }
    }
}
