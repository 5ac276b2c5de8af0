//! `portcullis init`: a small config to begin with.

use std::io::{self, Write};

/// What stands before the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Cloudflare's proxy, which ends TLS and connects by TLS again.
    Cloudflare,
    /// A reverse proxy on the same machine that ends TLS.
    Proxy,
    /// A container whose ports are mapped: the gateway listens on high ports inside.
    Docker,
}

/// Prints a config for the application; `portcullis check` accepts it as it is.
///
/// # Errors
/// When it cannot be written.
pub fn init(
    app: &str,
    host: &str,
    upstream: &str,
    behind: Option<Behind>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(
        out,
        "# Portcullis before {}. All keys with their defaults: config/portcullis.toml.",
        one_line(app)
    )?;
    writeln!(out, "# After each change: portcullis check\n")?;
    write!(out, "{}", listen(behind))?;
    match behind {
        Some(Behind::Proxy) => {}
        Some(Behind::Cloudflare) => write!(out, "{TLS_BEHIND_CLOUDFLARE}")?,
        None | Some(Behind::Docker) => write!(out, "{TLS}")?,
    }
    writeln!(out, "[[site]]")?;
    writeln!(out, "hosts = [{}]", quoted(host))?;
    writeln!(out, "app = {}", quoted(app))?;
    if behind == Some(Behind::Docker) {
        write!(out, "{UPSTREAM_IN_DOCKER}")?;
    }
    writeln!(out, "upstream = {}", quoted(upstream))?;
    write!(out, "{MORE}")
}

const TLS: &str = "\
[tls]
# A throw-away certificate, so that this starts: browsers warn. For real use put [acme] with email = \"you@example.com\" in
# the place of this section (docs/certificates.md), or name your own:
# certificates = [{ cert = \"/etc/portcullis/full.pem\", key = \"/etc/portcullis/key.pem\" }]
self_signed = true

";

const TLS_BEHIND_CLOUDFLARE: &str = "\
[tls]
# Good enough for Cloudflare's mode `Full`. For `Full (strict)` name its origin certificate, or your own, in its place:
# certificates = [{ cert = \"/etc/portcullis/origin.pem\", key = \"/etc/portcullis/origin.key\" }]
self_signed = true

";

const UPSTREAM_IN_DOCKER: &str = "\
# Inside a container 127.0.0.1 is the container itself: name the application's service, e.g. http://keepstack:8000, and
# publish no port of it, or strangers walk round the gateway.
";

const MORE: &str = "\
# What users have uploaded is shown on a host of its own, where it runs nothing and belongs to no session (docs/downloads.md):
# download_host = \"example-downloads.com\"

# Health, metrics, API documentation and first-run pages answer this machine only. Open them where needed:
# [site.only_from]
# metrics = [\"10.0.0.0/8\"]
# health = [\"10.0.0.0/8\"]

# Pictures and download links work where tokens travel in a header only, and previews are for those who are logged in; forged and
# ended tokens are refused here already, if you give the key that the application signs or verifies with:
# [site.tokens]
# companion_cookie = true
# previews = \"members\"
# verify = { key_file = \"/etc/portcullis/token.key\" }
";

fn listen(behind: Option<Behind>) -> String {
    match behind {
        None => String::new(),
        Some(Behind::Proxy) => "\
[listen]
# The proxy before this one ends TLS, so only plain HTTP is served, and only to it.
https = []
http = []
plain = [\"127.0.0.1:8080\"]
# Its address: only its X-Forwarded-For and X-Forwarded-Proto are believed.
trusted_proxies = [\"127.0.0.1/32\", \"::1/128\"]

"
        .into(),
        Some(Behind::Docker) => "\
[listen]
# Mapped to 443 and 80 outside, e.g. `docker run -p 443:8443 -p 80:8080`.
https = [\"[::]:8443\"]
http = [\"[::]:8080\"]
public_port = 443
# A trap: where Docker maps ports through its userland proxy (IPv6 to a network without it, rootless Docker, connections
# from the host itself) every client comes from the network's gateway, e.g. 172.17.0.1. Then all share one limit, and one
# allowlist entry admits all. Look at `client` in the access log. The way out is `network_mode: host`, or
# { \"userland-proxy\": false, \"ip6tables\": true } in Docker's daemon.json. Never name that address, or 172.16.0.0/12,
# in trusted_proxies or only_from.

# Mount a volume there, or each new container forgets the blocks.
[state]
dir = \"/var/lib/portcullis\"

"
        .into(),
        Some(Behind::Cloudflare) => {
            let networks: Vec<_> = CLOUDFLARE.iter().map(|net| format!("    {}", quoted(net))).collect();
            format!(
                "[listen]\n# Cloudflare's addresses, whose X-Forwarded-For is believed, by its list of {CLOUDFLARE_DATE}: \
                 compare them with\n# https://www.cloudflare.com/ips/ now and then. Let the firewall admit only them to \
                 port 443, or strangers walk\n# round Cloudflare and may claim any address.\n\
                 trusted_proxies = [\n{},\n]\n\n",
                networks.join(",\n")
            )
        }
    }
}

/// When Cloudflare last changed its list.
const CLOUDFLARE_DATE: &str = "2023-09-28";

/// Cloudflare's networks, which change rarely; the config that is printed says where to compare.
const CLOUDFLARE: [&str; 22] = [
    "173.245.48.0/20",
    "103.21.244.0/22",
    "103.22.200.0/22",
    "103.31.4.0/22",
    "141.101.64.0/18",
    "108.162.192.0/18",
    "190.93.240.0/20",
    "188.114.96.0/20",
    "197.234.240.0/22",
    "198.41.128.0/17",
    "162.158.0.0/15",
    "104.16.0.0/13",
    "104.24.0.0/14",
    "172.64.0.0/13",
    "131.0.72.0/22",
    "2400:cb00::/32",
    "2606:4700::/32",
    "2803:f800::/32",
    "2405:b500::/32",
    "2405:8100::/32",
    "2a06:98c0::/29",
    "2c0f:f248::/32",
];

/// A comment ends with its line, whatever comes from the command line.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

/// A basic string of TOML: what comes from the command line may hold anything.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
