//! `portcullis run`: by a config file, or for a first try without one.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use super::user_dir::user_dir;
use super::{ConfigArgs, complain, exit};
use crate::config::problem::Severity;
use crate::config::{self, Loaded};
use crate::stores::durable::directory::has_store;

/// How long the end waits for a standard error that nobody reads.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Take over from the gateway that runs with the same state directory: its sockets go over, and no connection is refused.
    #[arg(long, conflicts_with = "app")]
    take_over: bool,
    /// A first try without a config file: stand before this application, with a certificate of our own.
    #[arg(long, requires = "upstream", value_name = "NAME")]
    app: Option<String>,
    /// Where the application listens, e.g. http://127.0.0.1:8000.
    #[arg(long, requires = "app", value_name = "URL")]
    upstream: Option<String>,
    /// The name that people type.
    #[arg(long, requires = "app", value_name = "HOST", default_value = "localhost")]
    host: String,
    /// The address to listen on.
    #[arg(long, requires = "app", value_name = "ADDR", default_value = "127.0.0.1:8443")]
    https: SocketAddr,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> u8 {
    let path = match first_try(args, out) {
        Ok(path) => path.unwrap_or_else(|| args.config.config.clone()),
        Err(error) => {
            complain(error);
            return exit::ERROR;
        }
    };
    serve(&path, args.take_over)
}

/// Loads a config and serves it until a signal ends the process; `take_over`: from the gateway that runs.
pub(super) fn serve(path: &Path, take_over: bool) -> u8 {
    let Loaded { settings, warnings, unread } = match config::load_to_start(path, has_store) {
        Ok(loaded) => loaded,
        Err(problems) => {
            complain(&problems);
            return exit::CONFIG;
        }
    };
    if !warnings.0.is_empty() {
        complain(warnings.render(Severity::Warning, false));
    }
    if !unread.is_empty() {
        complain(format_args!(
            "THE BLOCK FILE IS NOT TAKEN, because it has mistakes; the blocks of its last good copy hold until it is mended:\n{unread}"
        ));
    }
    match crate::serve::run(&settings, take_over) {
        Ok(()) => exit::OK,
        Err(error) => {
            complain_in_time(error.to_string());
            exit::ERROR
        }
    }
}

/// Who starts the gateway anew must not wait until somebody reads why it ended.
fn complain_in_time(error: String) {
    let (told, wait) = sync_channel::<()>(0);
    std::thread::spawn(move || {
        complain(error);
        drop(told);
    });
    // Disconnected when it has been said.
    let _ = wait.recv_timeout(LAST_WORDS);
}

/// Writes the config of a first try; `None` when a config file is meant.
fn first_try(args: &Args, out: &mut dyn Write) -> std::io::Result<Option<PathBuf>> {
    let (Some(app), Some(upstream)) = (&args.app, &args.upstream) else { return Ok(None) };
    let dir = user_dir("run")?;
    let text = config_text(&FirstTry { app, upstream, host: &args.host, https: args.https, dir: &dir });
    let path = dir.join("portcullis.toml");
    std::fs::write(&path, text)?;
    let _ = writeln!(
        out,
        "https://{}:{} stands before {upstream}; its certificate is signed by {}\nThe config: {}",
        args.host,
        args.https.port(),
        dir.join("ca.pem").display(),
        path.display(),
    );
    Ok(Some(path))
}

struct FirstTry<'a> {
    app: &'a str,
    upstream: &'a str,
    host: &'a str,
    https: SocketAddr,
    dir: &'a Path,
}

fn config_text(first: &FirstTry<'_>) -> String {
    // `{:?}` of printable text is a TOML basic string; what else an argument may hold the loader refuses.
    let FirstTry { app, upstream, host, https, dir } = first;
    format!(
        "# Written anew by each `portcullis run --app`.\n\
         [listen]\nhttps = [{:?}]\nhttp = []\npublic_port = {}\n\n\
         [tls]\nself_signed = true\n\n\
         [admin]\nsocket = {:?}\nmetrics = \"off\"\n\n\
         [state]\ndir = {dir:?}\n\n\
         [[site]]\nhosts = [{host:?}]\napp = {app:?}\nupstream = {upstream:?}\n",
        https.to_string(),
        https.port(),
        dir.join("admin.sock"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_of_a_first_try_is_toml_whatever_the_arguments_hold() {
        let first = FirstTry {
            app: "keep\"stack",
            upstream: "http://127.0.0.1:8000",
            host: "files.example.com",
            https: "[::1]:8443".parse().unwrap(),
            dir: Path::new("/home/somebody/a b"),
        };
        let config: toml::Table = config_text(&first).parse().unwrap();
        assert_eq!(config["site"][0]["app"].as_str(), Some("keep\"stack"));
        assert_eq!(config["listen"]["https"][0].as_str(), Some("[::1]:8443"));
        assert_eq!(config["state"]["dir"].as_str(), Some("/home/somebody/a b"));
    }

    #[test]
    fn the_config_of_a_first_try_holds() {
        let dir = tempfile::tempdir().unwrap();
        let first = FirstTry {
            app: "keepstack",
            upstream: "http://127.0.0.1:8000",
            host: "localhost",
            https: "127.0.0.1:8443".parse().unwrap(),
            dir: dir.path(),
        };
        let path = dir.path().join("portcullis.toml");
        std::fs::write(&path, config_text(&first)).unwrap();
        config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    }
}
