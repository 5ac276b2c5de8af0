//! `portcullis csp`: what browsers have reported of a site's policies, and the tightest policy that follows.

use std::io::{self, Write};

use clap::Args;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::{Gateway, print_json};
use super::exit;
use crate::admin::csp::CspAnswer;
use crate::policy::proposal::{ClassProposal, Judged, Judgement};
use crate::telemetry::audit::{plain, timestamp};

/// Show what browsers report of a site's Content-Security-Policy, and propose a policy.
#[derive(Debug, Args)]
pub struct CspArgs {
    /// A host of the site; may be left out where there is only one.
    #[arg(value_name = "SITE")]
    pub site: Option<String>,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Shows and proposes.
pub fn run(args: &CspArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let path = match &args.site {
        Some(site) => format!("/v1/csp?site={}", utf8_percent_encode(site, NON_ALPHANUMERIC)),
        None => "/v1/csp".to_owned(),
    };
    let shown = gateway
        .ask::<CspAnswer>(Method::GET, &path, None::<&()>)
        .and_then(|answer| if args.json { print_json(&answer, out) } else { Ok(print(&answer, out)?) });
    shown.map_or_else(|failure| failure.tell(gateway, "csp", args.json, err), |()| exit::OK)
}

fn print(answer: &CspAnswer, out: &mut dyn Write) -> io::Result<()> {
    let mode = match answer.mode.as_str() {
        "off" => "off: the gateway sets no policy",
        "observe" => "observe: browsers report, and obey nothing",
        _ => "enforce",
    };
    writeln!(out, "site {}", plain(&answer.site))?;
    writeln!(out, "  mode     {mode}")?;
    let asked = match (answer.asked, answer.mode.as_str()) {
        (true, _) => "asked for; counted since ",
        (false, "off") => "none; ",
        (false, _) => "NOT ASKED FOR: set csp_report = true in [site.headers]; counted since ",
    };
    writeln!(out, "  reports  {asked}{}", timestamp(answer.since))?;
    if answer.malformed > 0 {
        writeln!(out, "           {} more were no reports, or of no page of this site", answer.malformed)?;
    }
    if answer.pushed_out > 0 {
        writeln!(
            out,
            "           {} kinds were pushed out: somebody floods, or a page breaks in many ways",
            answer.pushed_out
        )?;
    }
    for class in &answer.csp {
        print_class(class, out)?;
    }
    writeln!(out)?;
    conclude(answer, out)
}

fn print_class(class: &ClassProposal, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nclass {}", plain(&class.class))?;
    if let Some(policy) = &class.policy {
        writeln!(out, "  in force  {}", plain(policy))?;
    }
    for (judgement, title) in [
        (Judgement::Proposed, "to be allowed: the gateway knows it too"),
        (Judgement::Unverified, "reported, not proposed: look yourself (anybody can send reports)"),
        (Judgement::Harmless, "harmless"),
    ] {
        let of: Vec<&Judged> = class.violations.iter().filter(|one| one.judgement == judgement).collect();
        if !of.is_empty() {
            writeln!(out, "  {title}")?;
            of.into_iter().try_for_each(|one| print_one(one, out))?;
        }
    }
    if let Some(proposed) = &class.proposed {
        writeln!(out, "  proposed  {}", plain(proposed))?;
    }
    Ok(())
}

fn print_one(one: &Judged, out: &mut dyn Write) -> io::Result<()> {
    let what = format!("{} {}", one.directive, one.blocked);
    let times = if one.count == 1 { "once".to_owned() } else { format!("{} times", one.count) };
    let clients = match one.clients {
        1 => "1 client".to_owned(),
        4 => "4 clients or more".to_owned(),
        few => format!("{few} clients"),
    };
    let effect = if one.enforced { "" } else { ", only observed" };
    writeln!(out, "    {}  {times} by {clients}{effect}, last {}", plain(&what), timestamp(one.last))?;
    writeln!(out, "      {}", plain(&one.why))
}

/// What to do now.
fn conclude(answer: &CspAnswer, out: &mut dyn Write) -> io::Result<()> {
    let has = |judgement| {
        answer.csp.iter().flat_map(|class| &class.violations).any(|one| one.judgement == judgement)
    };
    if answer.csp.is_empty() {
        let words =
            if answer.asked { "Nothing was reported." } else { "Nothing was reported; nobody was asked to." };
        writeln!(out, "{words}")?;
    }
    let proposed: Vec<_> =
        answer.csp.iter().filter_map(|class| Some((&class.class, class.proposed.as_ref()?))).collect();
    if !proposed.is_empty() && answer.own {
        writeln!(
            out,
            "To take a proposal over, put it into the config (it holds for every class):\n  [site.headers]"
        )?;
        for (_, policy) in &proposed {
            writeln!(out, "  csp = \"{}\"", plain(policy))?;
        }
    } else if !proposed.is_empty() {
        let app = plain(&answer.app);
        writeln!(
            out,
            "To take the proposals over: `portcullis apps {app} > {app}.toml`, app = \"./{app}.toml\" in the config, and in the copy:\n  [csp]"
        )?;
        for (class, policy) in &proposed {
            writeln!(out, "  {} = \"{}\"", plain(class), plain(policy))?;
        }
    }
    match answer.mode.as_str() {
        "observe" if has(Judgement::Unverified) || has(Judgement::Proposed) => {
            writeln!(
                out,
                "With csp_mode = \"enforce\" what is listed above, but for the harmless, would stop working."
            )
        }
        "observe" if answer.asked => {
            writeln!(
                out,
                "By what was reported csp_mode = \"enforce\" would break nothing. Have all pages been used?"
            )
        }
        _ => Ok(()),
    }
}
