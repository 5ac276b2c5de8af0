//! The demo's config, and what it says one can try.

use std::net::SocketAddr;
use std::path::PathBuf;

/// One demo.
#[derive(Debug, Clone)]
pub(super) struct Demo {
    /// Where the sample application listens.
    pub(super) upstream: SocketAddr,
    /// The public port on localhost.
    pub(super) port: u16,
    /// Where the gateway's own metrics are.
    pub(super) metrics: SocketAddr,
    /// Whether this machine has IPv6.
    pub(super) ipv6: bool,
    /// This binary.
    pub(super) program: PathBuf,
    /// State directory.
    pub(super) dir: PathBuf,
}

impl Demo {
    /// The config file.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("portcullis.toml")
    }
}

/// The config of the demo; `{:?}` of printable text is a TOML basic string.
pub(super) fn config_text(demo: &Demo) -> String {
    let Demo { upstream, port, metrics, ipv6, dir, .. } = demo;
    let ipv6 = if *ipv6 { format!(", \"[::1]:{port}\"") } else { String::new() };
    format!(
        r#"# Written anew by each `portcullis demo`. Change it while the demo runs: it is taken over when you save.

[listen]
https = ["127.0.0.1:{port}"{ipv6}]
http = []
public_port = {port}

[tls]
self_signed = true                # a CA of its own, in ca.pem beside this file

[admin]
socket = {socket:?}
metrics = "{metrics}"

[state]
dir = {dir:?}

[[site]]
hosts = ["localhost"]
app = "keepstack"
upstream = "http://{upstream}"

[site.only_from]
metrics = ["192.0.2.0/24"]        # a network that nobody is in; add "127.0.0.0/8" and "::1/128" to let yourself in

[site.rate.login]
refill = "10/min"
burst = 5

[[site.route]]
match = "/ws"
class = "live"

[[site.route]]
match = "/events"
class = "live"
"#,
        socket = dir.join("admin.sock"),
    )
}

/// What to try, as lines for a shell.
pub(super) fn what_to_try(demo: &Demo) -> String {
    let Demo { port, metrics, program, dir, .. } = demo;
    let (program, config, ca) = (quoted(program), quoted(&demo.config()), quoted(&dir.join("ca.pem")));
    format!(
        r##"
Portcullis stands before a sample application: https://localhost:{port}
In a browser (it will warn of the throw-away certificate) log in as demo, password demo.

In another terminal, paste these first:

  export PORTCULLIS_CONFIG={config}
  portcullis() {{ {program} "$@"; }}
  ask() {{ curl -sS --cacert {ca} "$@"; }}
  U=https://localhost:{port}

Log in, and use the token:

  TOKEN=$(ask $U/api/auth/login -H 'Content-Type: application/json' -d '{{"username":"demo","password":"demo"}}' | sed 's/.*"token":"\([^"]*\)".*/\1/')
  ask $U/api/auth/me -H "Authorization: Bearer $TOKEN"; echo

Rate limit: guesses of a password get 401 at first, then 429:

  for i in 1 2 3 4 5 6 7; do ask -o /dev/null -w '%{{http_code}}\n' $U/api/auth/login -H 'Content-Type: application/json' -d '{{"username":"demo","password":"'$i'"}}'; done

Allowlist: the application's metrics are not there for strangers, however the path is spelled: 404 three times

  for P in /metrics /%6detrics //METRICS/x; do ask --path-as-is -o /dev/null -w '%{{http_code}}\n' "$U$P"; done

What was refused, and why; with an id from there `portcullis explain --id ID` says what it means and what to do

  portcullis denials

Security headers: the page's Content-Security-Policy and friends, which the application does not send

  ask -o /dev/null -D - $U/

A share link, and the policy of what it serves:

  ASSET=$(ask $U/api/assets -H "Authorization: Bearer $TOKEN" | sed 's/.*"uuid":"\([^"]*\)".*/\1/')
  SHARE=$(ask $U/api/shares -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{"asset":"'$ASSET'"}}' | sed 's/.*"url":"\([^"]*\)".*/\1/')
  ask -D - $U$SHARE/file

A WebSocket for five seconds (curl shows its frames as they are):

  ask --http1.1 -N --max-time 5 --output - $U/ws -H "Authorization: Bearer $TOKEN" -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: c2FtcGxlIGFwcGxpY2F0aW8='; echo

Emergency block: a download runs; block its token, and it is cut, and the token is refused from then on,
which --verify sees by trying it at the gateway's own door

  ask -o /dev/null -w 'cut after %{{size_download}} bytes\n' "$U/api/assets/any/file?size=100000000&rate=200000" -H "Authorization: Bearer $TOKEN" & sleep 2
  printf %s "$TOKEN" | portcullis block token - --reason 'trying it out' --verify; wait
  ask -w '%{{http_code}}\n' $U/api/auth/me -H "Authorization: Bearer $TOKEN"
  portcullis blocks

Hot reload: let yourself read the metrics, without a restart (every open connection stays)

  sed -i 's#"192.0.2.0/24"#"127.0.0.0/8", "::1/128"#' "$PORTCULLIS_CONFIG"; sleep 2; ask $U/metrics

What the gateway counts: http://{metrics}/metrics
The config: {config}
Ctrl-C ends it all.

"##
    )
}

/// A path as one word of a shell.
fn quoted(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn demo() -> Demo {
        Demo {
            upstream: "127.0.0.1:4000".parse().unwrap(),
            port: 8443,
            metrics: "127.0.0.1:9180".parse().unwrap(),
            ipv6: true,
            program: "/opt/it's here/portcullis".into(),
            dir: "/home/some body/demo".into(),
        }
    }

    #[test]
    fn the_demos_config_holds() {
        let dir = tempfile::tempdir().unwrap();
        let demo = Demo { dir: dir.path().to_owned(), ..demo() };
        std::fs::write(demo.config(), config_text(&demo)).unwrap();
        let loaded = crate::config::load(&demo.config()).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.settings.listen.https.len(), 2);
        assert_eq!(loaded.settings.state_dir, dir.path());
    }

    #[test]
    fn what_to_try_are_lines_that_a_shell_understands() {
        let text = what_to_try(&demo());
        let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        assert!(lines.len() > 15);
        let mut shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success(), "{text}");
    }
}
