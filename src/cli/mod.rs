//! What a person types: one file per verb or family; no logic of its own.
//!
//! A verb is a `clap::Args` of its own and a function that writes to a given place and answers an exit code of [`exit`].

mod access;
pub mod allow;
mod apps;
pub mod block;
pub mod blocks;
mod cases;
pub mod check;
mod check_certificates;
mod check_tokens;
pub mod client;
mod config_verbs;
mod csp;
mod demo;
mod demo_text;
pub mod denials;
pub mod exit;
mod explain;
mod healthcheck;
pub mod init;
mod leave;
mod links;
mod papers;
mod prove;
mod reach;
pub mod reload;
mod request;
mod run;
mod running;
pub mod status;
pub mod token;
pub mod unlock;
pub mod user_dir;
mod ways;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use client::Gateway;
use running::found;

/// Where the config lies when nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/portcullis/portcullis.toml";

/// The front door of self-hosted file-sharing and backup services.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version, about, arg_required_else_help = true, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway.
    Run(run::Args),
    /// Run a sample application behind the gateway and say what to try.
    Demo(demo::Args),
    /// Say every problem of a config, or what it means.
    Check(config_verbs::Check),
    /// Print a small config to begin with.
    Init(config_verbs::Init),
    /// Prove a config or an app file: requests in, expected verdicts out.
    Test(cases::Args),
    /// List the built-in app files, or print one.
    Apps(apps::Args),
    /// Print the JSON Schema of the config, of app files or of cases, for editors.
    Schema(papers::Schema),
    /// Print completions for a shell.
    Completions(papers::Completions),
    /// Print the manual page.
    Man,
    /// Say what would become of a request, and why.
    Explain(Asking<explain::Args>),
    /// Block a token, a user's sessions, a share link or an address, at once.
    Block(Asking<block::BlockArgs>),
    /// List the blocks.
    Blocks(Asking<blocks::BlocksArgs>),
    /// Lift a block.
    Unblock(Asking<blocks::UnblockArgs>),
    /// List what was refused lately, or would have been.
    Denials(Asking<denials::DenialsArgs>),
    /// End lockouts of the login guard and the share guard before their time.
    Unlock(Asking<unlock::UnlockArgs>),
    /// Show what browsers report of a site's Content-Security-Policy, and propose a policy.
    Csp(Asking<csp::CspArgs>),
    /// Let one network reach class `setup` for a while.
    Allow(Asking<allow::AllowArgs>),
    /// Show how the running gateway is.
    Status(Asking<status::StatusArgs>),
    /// Exit with 0 if the running gateway takes requests, else with 1; for containers and supervisors.
    Healthcheck(Asking<healthcheck::Args>),
    /// Let the running gateway read its config anew.
    Reload(Asking<reload::ReloadArgs>),
}

/// Which config a verb means.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// The config file.
    #[arg(long, global = true, env = "PORTCULLIS_CONFIG", value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// A verb that asks the running gateway, which it finds by its config.
#[derive(Debug, clap::Args)]
struct Asking<T: clap::Args> {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    verb: T,
}

impl<T: clap::Args> Asking<T> {
    fn ask(&self, verb: impl FnOnce(&T, &Gateway, &mut dyn Write, &mut dyn Write) -> u8) -> u8 {
        verb(&self.verb, &found(&self.config.config), &mut io::stdout(), &mut io::stderr())
    }
}

/// Runs the command line and answers its exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version come this way too; a reader that has gone away is no error.
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    let mut out = io::stdout();
    let code = match cli.verb {
        Verb::Run(args) => run::run(&args, &mut out),
        Verb::Demo(args) => demo::demo(&args, &mut out),
        Verb::Check(args) => args.run(&mut out),
        Verb::Init(args) => args.run(&mut out),
        Verb::Test(args) => args.run(&mut out),
        Verb::Apps(args) => args.run(&mut out),
        Verb::Schema(args) => args.run(&mut out),
        Verb::Completions(args) => args.run(Cli::command(), &mut out),
        Verb::Man => papers::man(Cli::command(), &mut out),
        Verb::Explain(asking) => {
            let config = &asking.config.config;
            asking.ask(|args, gateway, out, err| explain::run(args, config, gateway, (out, err)))
        }
        Verb::Block(asking) => asking.ask(block::run),
        Verb::Blocks(asking) => asking.ask(blocks::list),
        Verb::Unblock(asking) => asking.ask(blocks::unblock),
        Verb::Denials(asking) => asking.ask(denials::run),
        Verb::Unlock(asking) => asking.ask(unlock::run),
        Verb::Csp(asking) => asking.ask(csp::run),
        Verb::Allow(asking) => asking.ask(allow::run),
        Verb::Status(asking) => asking.ask(status::run),
        Verb::Healthcheck(asking) => asking.ask(healthcheck::run),
        Verb::Reload(asking) => asking.ask(reload::run),
    };
    let _ = out.flush();
    ExitCode::from(code)
}

/// Says on standard error what went wrong.
pub(crate) fn complain(what: impl std::fmt::Display) {
    // Unlike the macro, a closed standard error must not end the process.
    let _ = writeln!(io::stderr(), "portcullis: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn secrets_have_no_place_among_the_arguments() {
        let mut command = Cli::command();
        command.build();
        for verb in command.get_subcommands() {
            for argument in verb.get_arguments() {
                let name = argument.get_id().as_str();
                assert!(!["token", "password", "secret"].contains(&name), "{}: {name}", verb.get_name());
            }
        }
    }
}
