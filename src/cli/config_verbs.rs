//! The arguments of the verbs that look at configs only: `check` and `init`.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use super::access::User;
use super::check::{self, Options};
use super::init::{self, Behind};
use super::{DEFAULT_CONFIG, complain, exit};
use crate::clock::Clock;
use crate::config;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The config file.
    #[arg(env = "PORTCULLIS_CONFIG", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    file: PathBuf,
    /// Ask nothing of the network: resolve no name, try no upstream.
    #[arg(long)]
    offline: bool,
    /// Say whether this user may read and write what the gateway must: a name, a number, or UID:GID.
    #[arg(long, value_name = "USER")]
    as_user: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// The application: a name that `portcullis apps` lists, or the path of an app file.
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
        let as_user = match self.as_user.as_deref().map(User::of_this_machine).transpose() {
            Ok(user) => user,
            Err(error) => {
                complain(format_args!("--as-user: {error}"));
                return exit::USAGE;
            }
        };
        let coloured = io::stdout().is_terminal();
        let options = Options { offline: self.offline, as_user, json: self.json, coloured, machine: true };
        check::check_with(&self.file, &options, out)
    }
}

impl Init {
    pub(super) fn run(&self, out: &mut dyn Write) -> u8 {
        let behind = self.behind.map(|word| match word {
            BehindWord::Cloudflare => Behind::Cloudflare,
            BehindWord::Proxy => Behind::Proxy,
            BehindWord::Docker => Behind::Docker,
        });
        let mut text = Vec::new();
        let written = init::init(&self.app, &self.host, &self.upstream, behind, &mut text);
        let text = String::from_utf8_lossy(&text);
        // A config that `check` refuses is of no use to anybody: an app file is looked for from here.
        if let Err(problems) = config::parse(Path::new("portcullis.toml"), &text, Clock::system().now()) {
            complain(format_args!("these arguments make no config that holds:\n{problems}"));
            return exit::USAGE;
        }
        match written.and_then(|()| out.write_all(text.as_bytes())) {
            Ok(()) => exit::OK,
            Err(error) => {
                complain(format_args!("the config cannot be written: {error}"));
                exit::ERROR
            }
        }
    }
}
