//! `portcullis status`: one look at 3 a.m.

use std::io::{self, Write};

use clap::Args;
use http::Method;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::admin::api::{Status, StatusAnswer};
use crate::admin::certificates::CertificateShown;
use crate::telemetry::audit::{plain, timestamp};

/// Show how the gateway is.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Shows it.
pub fn run(args: &StatusArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let shown = gateway
        .ask::<StatusAnswer>(Method::GET, "/v1/status", None::<&()>)
        .and_then(|answer| if args.json { print_json(&answer, out) } else { print(&answer.status, out) });
    shown.map_or_else(|failure| failure.tell(gateway, "status", args.json, err), |()| exit::OK)
}

fn print(status: &Status, out: &mut dyn Write) -> Result<(), Failure> {
    let Status {
        version,
        pid,
        uptime_seconds,
        config,
        sites,
        workers,
        durable,
        unwritten,
        ready,
        draining,
        blocks,
        lockouts,
        holes,
        certificates,
        reload,
        warnings,
    } = status;
    writeln!(out, "portcullis {version}, process {pid}, up {}", duration(*uptime_seconds))?;
    writeln!(out, "  config   {} (loaded {})", plain(config), timestamp(reload.loaded))?;
    writeln!(out, "  sites    {}", plain(&sites.join(", ")))?;
    writeln!(out, "  workers  {workers}")?;
    let counts: Vec<_> = blocks.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    writeln!(out, "  blocks   {}", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") })?;
    if *lockouts > 0 {
        writeln!(
            out,
            "  locked   {lockouts} out of logins or share links (portcullis denials; portcullis unlock)"
        )?;
    }
    for hole in holes {
        let (class, site) = (plain(&hole.class), plain(&hole.site));
        writeln!(out, "  open     {class} of {site} for {} until {}", hole.network, timestamp(hole.until))?;
    }
    write_certificates(certificates, out)?;
    let state = if *durable { "on the disk".to_owned() } else { format!("{unwritten} NOT ON THE DISK") };
    writeln!(out, "  state    {state}")?;
    if *draining {
        writeln!(out, "  ! not ready: draining. It takes no new connections, finishes what runs, and ends")?;
    } else if !ready {
        writeln!(out, "  ! not ready: starting. It takes no requests yet")?;
    }
    if !reload.successful {
        writeln!(
            out,
            "  ! the config on the disk was refused {}; the old one is served on:",
            timestamp(reload.tried)
        )?;
        for problem in &reload.problems {
            writeln!(out, "      {}", plain(problem))?;
        }
    }
    for warning in warnings {
        writeln!(out, "  ! {}", plain(warning))?;
    }
    Ok(())
}

/// A few by name; of many those that want a look.
fn write_certificates(certificates: &[CertificateShown], out: &mut dyn Write) -> io::Result<()> {
    const SHOWN: usize = 20;
    let has_come = |one: &CertificateShown| !one.wanted || one.from == "acme";
    let quiet = |one: &&CertificateShown| !one.soon && one.problem.is_none() && has_come(one);
    let many = certificates.len() > SHOWN;
    for one in certificates.iter().filter(|one| !many || !quiet(one)).take(SHOWN) {
        writeln!(out, "  tls      {}", certificate(one))?;
    }
    if many {
        let well = certificates.iter().filter(quiet);
        let first = well.clone().map(|one| one.days_left).min().unwrap_or_default();
        writeln!(out, "  tls      {} hosts are well, the first ends in {first} days", well.count())?;
    }
    Ok(())
}

fn certificate(one: &CertificateShown) -> String {
    let CertificateShown { host, from, not_after, days_left, problem, next, wanted, .. } = one;
    let mut text = match from.as_str() {
        // Made anew in time, without anybody's help.
        "throw-away" => format!("{} by throw-away", plain(host)),
        _ => format!("{} by {from}, {days_left} days left (until {})", plain(host), timestamp(*not_after)),
    };
    if let Some(problem) = problem {
        text.push_str(&format!("; last try: {}", plain(problem)));
    }
    match next {
        Some(next) if problem.is_some() || from == "throw-away" => {
            text.push_str(&format!("; tried again {}", timestamp(*next)));
        }
        Some(next) => text.push_str(&format!("; renewed about {}", timestamp(*next))),
        None if *wanted => text.push_str("; asked for now"),
        None => {}
    }
    text
}

fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, _) => format!("{minutes} min"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_hosts_those_without_their_certificate_are_named_and_not_called_well() {
        let of = |host: String, from: &str| CertificateShown {
            host,
            from: from.into(),
            not_after: 0,
            days_left: 60,
            wanted: true,
            problem: None,
            next: None,
            soon: false,
        };
        let mut all: Vec<_> = (0..30).map(|number| of(format!("h{number}.test"), "acme")).collect();
        all.push(of("new.test".into(), "throw-away"));
        let mut out = Vec::new();
        write_certificates(&all, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("new.test by throw-away; asked for now"), "{text}");
        assert!(text.contains("30 hosts are well, the first ends in 60 days"), "{text}");
    }
}
