//! `portcullis block`: the emergency.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use zeroize::Zeroizing;

use super::client::{Failure, Gateway};
use super::leave::{leave, unanswered};
use super::token::{bare, look};
use super::{exit, prove};
use crate::admin::api::Blocked;
use crate::admin::recent::{Found, Hand, Meant};
use crate::clock::Clock;
use crate::config::values::{parse_duration, parse_network};
use crate::request::credential::Fingerprint;
use crate::stores::blocks::record::from_hex;
use crate::stores::blocks::{Order, What};
use crate::stores::durable::directory;
use crate::telemetry::audit::{plain, timestamp};

/// Block a token, a subject, everyone, a share link or an address, at once and over restarts.
#[derive(Debug, Args)]
pub struct BlockArgs {
    /// What to block.
    #[command(subcommand)]
    pub what: BlockWhat,
    /// Only on this site (a host name); needed for jti, subject and everyone where there are several.
    #[arg(long, global = true)]
    pub site: Option<String>,
    /// For how long, e.g. 15m or 8h, instead of until the token's own end.
    #[arg(long = "for", global = true, value_name = "DURATION")]
    pub lasting: Option<String>,
    /// Why; kept with the block and in the audit log.
    #[arg(long, global = true, default_value = "")]
    pub reason: String,
    /// Send a probe with what is blocked through the gateway's own listener, and say whether and how soon it is refused.
    #[arg(long, global = true)]
    pub verify: bool,
    /// A wide block is meant.
    #[arg(long, global = true)]
    pub yes: bool,
    /// Answer as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to block.
#[derive(Debug, Subcommand)]
pub enum BlockWhat {
    /// One token. Give `-`: it is asked for without echo, or read from standard input.
    Token {
        /// Always `-`: an argument would be seen in `ps` and in the shell's history.
        #[arg(allow_hyphen_values = true)]
        source: String,
    },
    /// One token by its fingerprint (64 hex digits, or `-` for standard input).
    Fingerprint {
        /// The fingerprint.
        #[arg(allow_hyphen_values = true)]
        fingerprint: String,
    },
    /// The token or share link of which the access log shows this hash (12 hex digits).
    Log {
        /// The hash.
        hash: String,
    },
    /// What one request carried: its credentials, or else its share link.
    Request {
        /// Its id, as in `X-Request-Id` and the access log.
        id: String,
    },
    /// One token by its `jti` claim.
    Jti {
        /// The claim.
        jti: String,
    },
    /// All sessions of one user, by the token's `sub` claim, begun until now.
    Subject {
        /// The claim.
        subject: String,
        /// Only tokens of this issuer.
        #[arg(long)]
        issuer: Option<String>,
        /// Refuse later logins of that user too.
        #[arg(long)]
        and_logins: bool,
    },
    /// All sessions of one account begun until now, by the name that is typed at the login.
    Account {
        /// The name.
        name: String,
        /// Refuse later logins of that user too.
        #[arg(long)]
        and_logins: bool,
    },
    /// All sessions of everyone begun until now. Wants --yes.
    Everyone {
        /// Refuse later logins too.
        #[arg(long)]
        and_logins: bool,
    },
    /// One share link. Give `-`: its token or URL is asked for without echo, or read from standard input.
    Share {
        /// Always `-`.
        #[arg(allow_hyphen_values = true)]
        source: String,
    },
    /// A client address or network. Wants --yes when wider than a /16 (IPv6: /32).
    Address {
        /// Address or CIDR.
        network: String,
    },
}

/// Blocks; the exit code says whether it is confirmed and durable.
pub fn run(args: &BlockArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match orders(args, gateway).and_then(|orders| give_all(&orders, args, gateway, (out, err))) {
        Ok(code) => code,
        Err(failure) => failure.tell(gateway, "block", args.json, err),
    }
}

/// An order, and what it means where that is not plain from the command.
struct Given {
    order: Order,
    said: Option<String>,
}

/// All that one command orders.
struct Orders {
    all: Vec<Given>,
    /// The token itself, where it was given.
    token: Option<Zeroizing<String>>,
}

/// What was named on the command line.
struct Named {
    whats: Vec<What>,
    expires: Option<u64>,
    token: Option<Zeroizing<String>>,
}

fn orders(args: &BlockArgs, gateway: &Gateway) -> Result<Orders, Failure> {
    let usage = |error: &dyn ToString| Failure::Usage(error.to_string());
    let lasting = args.lasting.as_deref().map(parse_duration).transpose().map_err(|error| usage(&error))?;
    let lasting = lasting.map(|lasting: Duration| u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX));
    let order = |meant: Meant| Order {
        what: meant.what,
        site: args.site.clone().or(meant.site),
        lasting,
        expires: meant.expires,
        reason: args.reason.clone(),
        yes: args.yes,
    };
    if let Some(hand) = hand(args) {
        let found: Found = gateway.ask(Method::POST, "/v1/find", Some(&hand))?;
        let given = |meant: Meant| Given { said: Some(meant.said.clone()), order: order(meant) };
        return Ok(Orders { all: found.meant.into_iter().map(given).collect(), token: None });
    }
    let Named { whats, expires, token } = whats(&args.what, gateway)?;
    let given = |what| {
        let meant = Meant { what, site: None, expires, said: String::new() };
        Given { order: order(meant), said: None }
    };
    Ok(Orders { all: whats.into_iter().map(given).collect(), token })
}

/// What only the running gateway can say the meaning of.
fn hand(args: &BlockArgs) -> Option<Hand> {
    match &args.what {
        BlockWhat::Log { hash } => Some(Hand::Log(hash.clone())),
        BlockWhat::Request { id } => Some(Hand::Request(id.trim().to_ascii_lowercase())),
        BlockWhat::Account { name, and_logins } => {
            Some(Hand::Account { name: name.clone(), site: args.site.clone(), and_logins: *and_logins })
        }
        _ => None,
    }
}

fn whats(what: &BlockWhat, gateway: &Gateway) -> Result<Named, Failure> {
    let one = |what| Ok(Named { whats: vec![what], expires: None, token: None });
    match what {
        // Asked of the gateway: see `hand`.
        BlockWhat::Log { .. } | BlockWhat::Request { .. } | BlockWhat::Account { .. } => {
            Ok(Named { whats: Vec::new(), expires: None, token: None })
        }
        BlockWhat::Token { source } => tokens(source, gateway),
        BlockWhat::Fingerprint { fingerprint } => {
            let text = if fingerprint == "-" { line("Fingerprint: ")? } else { fingerprint.clone() };
            let wrong =
                || Failure::Usage("a fingerprint is 64 hex digits; for a token say `block token -`".into());
            one(What::Fingerprint { fingerprint: from_hex(text.trim()).map(Fingerprint).ok_or_else(wrong)? })
        }
        BlockWhat::Jti { jti } => one(What::Jti { jti: jti.clone() }),
        BlockWhat::Subject { subject, issuer, and_logins } => one(What::Subject {
            subject: subject.clone(),
            issuer: issuer.clone(),
            before: 0,
            and_logins: *and_logins,
        }),
        BlockWhat::Everyone { and_logins } => one(What::Everyone { before: 0, and_logins: *and_logins }),
        BlockWhat::Share { source } => {
            let text = share_token(&secret(source, "share", "Share link or its token (not shown): ")?);
            if text.is_empty() {
                return Err(Failure::Usage("that is no share link: it is empty".into()));
            }
            let key =
                directory::share_key(&gateway.state_dir).map_err(|error| unreadable(gateway, &error))?;
            one(What::Share { share: key.key_of(text.as_bytes()) })
        }
        BlockWhat::Address { network } => {
            let network = parse_network(network).map_err(|error| Failure::Usage(error.to_string()))?;
            one(What::Address { network })
        }
    }
}

fn tokens(source: &str, gateway: &Gateway) -> Result<Named, Failure> {
    let text = Zeroizing::new(secret(source, "token", "Token (not shown): ")?);
    let wrong = || Failure::Usage("that is no token: it is empty or has blanks inside".into());
    let pasted = look(bare(&text), &gateway.formats).ok_or_else(wrong)?;
    let whats = pasted.fingerprints.into_iter().map(|fingerprint| What::Fingerprint { fingerprint });
    let token = Some(Zeroizing::new(bare(&text).to_owned()));
    Ok(Named { whats: whats.collect(), expires: pasted.expires, token })
}

/// A secret never comes as an argument.
fn secret(source: &str, verb: &str, prompt: &str) -> Result<String, Failure> {
    if source != "-" {
        return Err(Failure::Usage(format!(
            "the {verb} itself must not be an argument, where `ps` and the shell's history show it: \
             say `portcullis block {verb} -` and paste it when asked"
        )));
    }
    line(prompt)
}

fn line(prompt: &str) -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        return Ok(rpassword::prompt_password(prompt)?);
    }
    let mut text = String::new();
    io::stdin().lock().read_line(&mut text)?;
    Ok(text)
}

/// The part of a link behind the word that leads to shares; else the last that is none of the words behind a token.
fn share_token(text: &str) -> String {
    let path = text.trim().split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let leads = parts.iter().position(|part| matches!(*part, "s" | "share" | "shares" | "shared" | "dl"));
    let behind = leads.and_then(|place| parts.get(place + 1));
    let known = |part: &&&str| !matches!(**part, "file" | "preview" | "download");
    let token = behind.or_else(|| parts.iter().rev().find(known)).copied().unwrap_or_default();
    percent_encoding::percent_decode_str(token).decode_utf8_lossy().into_owned()
}

fn unreadable(gateway: &Gateway, error: &io::Error) -> Failure {
    let path = gateway.state_dir.join("share.key");
    Failure::Io(io::Error::new(error.kind(), format!("NOT DONE: cannot read {}: {error}", path.display())))
}

fn give_all(
    orders: &Orders,
    args: &BlockArgs,
    gateway: &Gateway,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> Result<u8, Failure> {
    let clock = Clock::system();
    let start = clock.now();
    let mut worst = exit::OK;
    let mut blocked: Vec<Blocked> = Vec::new();
    let mut failed = None;
    for Given { order, said } in &orders.all {
        let code = match gateway.ask::<Blocked>(Method::POST, "/v1/block", Some(order)) {
            Ok(one) => {
                if !args.json {
                    tell(&one, said.as_deref(), out)?;
                }
                blocked.push(one);
                blocked.last().map_or(exit::OK, code_of)
            }
            Err(failure) => match unanswered(failure) {
                Ok(why) => leave(order, args.json, gateway, &why, err)?,
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            },
        };
        worst = worst.max(code);
    }
    let proof = (args.verify && !blocked.is_empty()).then(|| {
        let since = || clock.now().mono.saturating_sub(start.mono) / 1_000_000;
        prove::prove(&blocked, orders.token.as_ref().map(|token| token.as_str()), gateway, &since)
    });
    if let Some(proof) = &proof {
        worst = worst.max(proof.code());
    }
    match (args.json, &proof) {
        (true, proof) => prove::print_all(&blocked, proof.as_ref(), out)?,
        (false, Some(proof)) => proof.tell(out)?,
        (false, None) => {}
    }
    failed.map_or(Ok(worst), Err)
}

fn code_of(blocked: &Blocked) -> u8 {
    if blocked.confirmed && blocked.durable { exit::OK } else { exit::ERROR }
}

fn tell(blocked: &Blocked, said: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
    let block = &blocked.block;
    let word = match (blocked.confirmed, blocked.durable) {
        (true, true) => "BLOCKED",
        (true, false) => "BLOCKED, BUT NOT DURABLE",
        (false, true) => "NOT CONFIRMED",
        (false, false) => "NOT CONFIRMED AND NOT DURABLE",
    };
    writeln!(out, "{word}: {} {}", block.what.kind().word(), plain(&block.what.phrase()))?;
    if let Some(said) = said {
        writeln!(out, "  what    {}", plain(said))?;
    }
    writeln!(out, "  number  {} (lift it with `portcullis unblock {}`)", block.id, block.id)?;
    writeln!(out, "  site    {}", plain(block.site.as_deref().unwrap_or("all sites")))?;
    writeln!(out, "  until   {}", timestamp(block.until))?;
    let streams = if blocked.cut == 1 { "stream" } else { "streams" };
    writeln!(out, "  cut     {} live {streams}", blocked.cut)?;
    if !blocked.confirmed {
        writeln!(
            out,
            "  ! not every worker has answered in time: new requests are refused, but a stream may still run; say it again or restart the gateway"
        )?;
    }
    if !blocked.durable {
        writeln!(
            out,
            "  ! it holds now, but could not be written to the disk and would not survive a restart; the gateway goes on trying (see `portcullis status`)"
        )?;
    }
    for warning in &blocked.warnings {
        writeln!(out, "  ! {}", plain(warning))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_link_is_taken_as_url_path_or_token() {
        for text in [
            "tok",
            "https://h/s/tok",
            "https://h/s/tok/file?x=1#y",
            "/s/tok/zip",
            "h/share/t%6Fk/",
            "https://h/public/tok/download",
            " tok\n",
        ] {
            assert_eq!(share_token(text), "tok", "{text:?}");
        }
    }
}
