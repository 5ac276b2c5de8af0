//! `portcullis blocks` and `portcullis unblock`.

use std::io::Write;

use clap::Args;
use http::Method;

use super::client::{Failure, Gateway, print_json};
use super::exit;
use crate::admin::api::{BlockList, UnblockOrder, Unblocked};
use crate::telemetry::audit::{plain, timestamp};

/// List the blocks that stand.
#[derive(Debug, Args)]
pub struct BlocksArgs {
    /// Those too that have ended in the last 30 days.
    #[arg(long)]
    pub all: bool,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lift a block.
#[derive(Debug, Args)]
pub struct UnblockArgs {
    /// Its number.
    pub id: u64,
    /// Answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Lists.
pub fn list(args: &BlocksArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let path = if args.all { "/v1/blocks?all=true" } else { "/v1/blocks" };
    let listed = gateway
        .ask::<BlockList>(Method::GET, path, None::<&()>)
        .and_then(|list| if args.json { print_json(&list, out) } else { print(&list, out) });
    listed.map_or_else(|failure| failure.tell(gateway, "blocks", args.json, err), |()| exit::OK)
}

/// Lifts.
pub fn unblock(args: &UnblockArgs, gateway: &Gateway, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let lifted =
        gateway.ask::<Unblocked>(Method::POST, "/v1/unblock", Some(&UnblockOrder { id: args.id })).and_then(
            |lifted| if args.json { print_json(&lifted, out).map(|()| lifted) } else { tell(lifted, out) },
        );
    match lifted {
        Ok(lifted) if lifted.durable => exit::OK,
        Ok(_) => exit::ERROR,
        Err(failure) => failure.tell(gateway, "unblock", args.json, err),
    }
}

fn tell(lifted: Unblocked, out: &mut dyn Write) -> Result<Unblocked, Failure> {
    let block = &lifted.block;
    writeln!(
        out,
        "LIFTED: block {}, {} {}",
        block.id,
        block.what.kind().word(),
        plain(&block.what.phrase())
    )?;
    if !lifted.still.is_empty() {
        let (noun, verb) = if lifted.still.len() == 1 { ("block", "covers") } else { ("blocks", "cover") };
        let numbers: Vec<_> = lifted.still.iter().map(ToString::to_string).collect();
        let numbers = numbers.join(", ");
        writeln!(out, "  ! {noun} {numbers} still {verb} it (`portcullis unblock NUMBER` lifts one)")?;
    }
    if !lifted.durable {
        writeln!(out, "  ! NOT DURABLE: the disk could not be written; the gateway goes on trying")?;
    }
    Ok(lifted)
}

fn print(list: &BlockList, out: &mut dyn Write) -> Result<(), Failure> {
    if list.blocks.is_empty() {
        writeln!(out, "No block stands.")?;
        return Ok(());
    }
    for block in &list.blocks {
        let ended = block.ended.map(|ended| format!(" · lifted {}", timestamp(ended))).unwrap_or_default();
        writeln!(out, "{:>5}  {:<11} {}", block.id, block.what.kind().word(), plain(&block.what.phrase()))?;
        writeln!(
            out,
            "       {} · until {} · by {}, {}{ended}",
            plain(block.site.as_deref().unwrap_or("all sites")),
            timestamp(block.until),
            plain(&block.by),
            timestamp(block.created),
        )?;
        if !block.reason.is_empty() {
            writeln!(out, "       {}", plain(&block.reason))?;
        }
    }
    Ok(())
}
