//! `schema`, `completions` and `man`: what the program says of itself to editors, shells and readers.

use std::io::{self, Write};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use super::exit;
use crate::config::schema::{self, Of};

/// Arguments of `schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Schema {
    /// Of which files.
    #[arg(value_enum, default_value_t = Word::Config)]
    of: Word,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Word {
    /// portcullis.toml.
    Config,
    /// App files.
    App,
    /// Files of `portcullis test`.
    Cases,
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Schema {
    pub(super) fn run(&self, out: &mut dyn Write) -> u8 {
        let of = match self.of {
            Word::Config => Of::Config,
            Word::App => Of::App,
            Word::Cases => Of::Cases,
        };
        code(writeln!(out, "{:#}", schema::of(of)))
    }
}

impl Completions {
    pub(super) fn run(&self, mut command: Command, out: &mut dyn Write) -> u8 {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, "portcullis", &mut text);
        code(out.write_all(&text))
    }
}

/// One page with all verbs.
pub(super) fn man(mut command: Command, out: &mut dyn Write) -> u8 {
    command.build();
    code(page(&command, out))
}

fn page(command: &Command, out: &mut dyn Write) -> io::Result<()> {
    let whole = Man::new(command.clone()).manual("Portcullis");
    whole.render_title(out)?;
    whole.render_name_section(out)?;
    whole.render_synopsis_section(out)?;
    whole.render_description_section(out)?;
    whole.render_options_section(out)?;
    let mut verbs = Vec::new();
    collect(command, &mut verbs);
    for verb in verbs {
        let name = verb.get_bin_name().unwrap_or(verb.get_name()).to_uppercase();
        writeln!(out, ".SH \"{name}\"")?;
        let has_options =
            verb.get_arguments().any(|arg| !["help", "version"].contains(&arg.get_id().as_str()));
        // Every verb has these two: the page says so once.
        let told_once = |arg: clap::Arg| {
            let common = ["help", "version"].contains(&arg.get_id().as_str());
            arg.hide(common)
        };
        let one = Man::new(verb.mut_args(told_once));
        let mut text = Vec::new();
        one.render_synopsis_section(&mut text)?;
        one.render_description_section(&mut text)?;
        if has_options {
            one.render_options_section(&mut text)?;
        }
        // Sections of a page become parts of the verb's section.
        out.write_all(String::from_utf8_lossy(&text).replace(".SH ", ".SS ").as_bytes())?;
    }
    write!(out, "{FURTHER}")?;
    whole.render_version_section(out)
}

/// Verbs that can be called, depth first.
fn collect(command: &Command, verbs: &mut Vec<Command>) {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        if verb.get_subcommands().next().is_some() {
            collect(verb, verbs);
        } else {
            verbs.push(verb.clone());
        }
    }
}

const FURTHER: &str = r#".SH EXIT STATUS
.TP
0
Done.
.TP
1
An error while running, a block that is not confirmed or not durable, or a case that failed.
.TP
2
The command line cannot be understood.
.TP
3
The config, app file or file of cases is invalid.
.TP
4
The running gateway cannot be reached.
.TP
5
The running gateway refuses.
.SH FILES
.TP
\fI/etc/portcullis/portcullis.toml\fR
The config, unless \fBPORTCULLIS_CONFIG\fR or \fB\-\-config\fR names another.
"#;

fn code(written: io::Result<()>) -> u8 {
    if written.is_ok() { exit::OK } else { exit::ERROR }
}
