//! What goes over the admin socket: one form for the gateway, the CLI and whoever scripts against it.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::allow::{AllowOrder, Allowed, HoleShown};
use super::certificates::CertificateShown;
use super::csp::CspAnswer;
use super::recent::{DenialList, Found, Hand, RequestAnswer, Wanted};
use super::unlock::{UnlockOrder, Unlocked};
use crate::stores::blocks::{Block, Order};

/// The number in every answer's `schema`.
pub const SCHEMA: u64 = 1;

/// What the socket asks of the control thread.
#[derive(Debug)]
pub struct Command {
    /// Who: the peer's user, as the kernel says.
    pub by: String,
    /// What.
    pub ask: Ask,
}

/// What is asked, and where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// `POST /v1/block`.
    Block(Order, Reply<Blocked>),
    /// `POST /v1/unblock`.
    Unblock(u64, Reply<Unblocked>),
    /// `GET /v1/blocks`; `true`: ended and expired ones too.
    List(bool, Reply<BlockList>),
    /// `GET /v1/status`.
    Status(Reply<StatusAnswer>),
    /// `POST /v1/reload`.
    Reload(Reply<Reloaded>),
    /// `POST /v1/denials`.
    Denials(Wanted, Reply<DenialList>),
    /// `GET /v1/request?id=`.
    Request(String, Reply<RequestAnswer>),
    /// `POST /v1/find`.
    Find(Hand, Reply<Found>),
    /// `POST /v1/allow`.
    Allow(AllowOrder, Reply<Allowed>),
    /// A new process asks for all that this one holds.
    HandOver(UnixStream),
    /// `POST /v1/unlock`.
    Unlock(UnlockOrder, Reply<Unlocked>),
    /// `GET /v1/csp?site=`.
    Csp(Option<String>, Reply<CspAnswer>),
}

/// Where one answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// The answer to `POST /v1/block`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blocked {
    /// Of this form.
    pub schema: u64,
    /// The block as it stands now.
    pub block: Block,
    /// Every worker has it and has cut what it means.
    pub confirmed: bool,
    /// It is on the disk.
    pub durable: bool,
    /// Live streams cut; orders that came together are counted together.
    pub cut: usize,
    /// What the person should know.
    pub warnings: Vec<String>,
}

/// The answer to `POST /v1/unblock`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Unblocked {
    /// Of this form.
    pub schema: u64,
    /// The block that is lifted.
    pub block: Block,
    /// That is on the disk; if not, it could come back with a restart.
    pub durable: bool,
    /// Other standing blocks that block all of the same, by number.
    #[serde(default)]
    pub still: Vec<u64>,
}

/// The body of `POST /v1/unblock`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnblockOrder {
    /// The block's number.
    pub id: u64,
}

/// The answer to `GET /v1/blocks`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlockList {
    /// Of this form.
    pub schema: u64,
    /// By number.
    pub blocks: Vec<Block>,
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// Of this form.
    pub schema: u64,
    /// The status.
    pub status: Status,
}

/// How the gateway is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// The config file.
    pub config: String,
    /// The sites' names.
    pub sites: Vec<String>,
    /// How many workers there are.
    pub workers: usize,
    /// Every block is on the disk.
    pub durable: bool,
    /// Blocks that hold in memory and are not on the disk yet.
    pub unwritten: usize,
    /// Requests are taken; `false` while it starts or drains.
    pub ready: bool,
    /// It takes no new connections and finishes what runs.
    #[serde(default)]
    pub draining: bool,
    /// Standing blocks by kind.
    pub blocks: BTreeMap<String, usize>,
    /// Lockouts of logins and other secrets that last.
    #[serde(default)]
    pub lockouts: u64,
    /// Holes in allowlists that are open now.
    #[serde(default)]
    pub holes: Vec<HoleShown>,
    /// Each host's certificate, where TLS is served.
    #[serde(default)]
    pub certificates: Vec<CertificateShown>,
    /// The last reload.
    pub reload: LastReload,
    /// What is wrong now, and what to do.
    pub warnings: Vec<String>,
}

/// How the last reload, or the start, went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LastReload {
    /// The config on the disk is the one that is served.
    pub successful: bool,
    /// Unix milliseconds of the last successful one.
    pub loaded: u64,
    /// Unix milliseconds of the last try.
    pub tried: u64,
    /// Why the last one was refused.
    pub problems: Vec<String>,
}

/// The answer to `POST /v1/reload`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reloaded {
    /// Of this form.
    pub schema: u64,
    /// What is served now.
    pub reload: Summary,
}

/// What a reload came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Summary {
    /// The sites' names.
    pub sites: Vec<String>,
    /// Not wrong, yet worth a word.
    pub warnings: Vec<String>,
    /// Milliseconds from the order to the new policy.
    pub took_ms: u64,
}

/// An answer that is none: what was wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Of this form.
    pub schema: u64,
    /// Which kind; also fixes status and exit code.
    pub error: RefusalKind,
    /// For people.
    pub message: String,
    /// Of a config, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// The kinds of refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Not without `--yes`, or not at all.
    Refused,
    /// What was asked makes no sense.
    Usage,
    /// There is no such thing.
    Unknown,
    /// It could not be written down, so it was not done.
    NotWritten,
    /// The config has problems; the old one is served on.
    ConfigInvalid,
    /// The gateway is going down or does not answer inside.
    Unavailable,
}

impl Refusal {
    /// A refusal without problems of a config.
    pub fn new(error: RefusalKind, message: impl Into<String>) -> Self {
        Self { schema: SCHEMA, error, message: message.into(), problems: Vec::new() }
    }

    /// The status on the socket.
    pub const fn status(&self) -> StatusCode {
        match self.error {
            RefusalKind::Refused => StatusCode::CONFLICT,
            RefusalKind::Usage => StatusCode::BAD_REQUEST,
            RefusalKind::Unknown => StatusCode::NOT_FOUND,
            RefusalKind::NotWritten => StatusCode::INSUFFICIENT_STORAGE,
            RefusalKind::ConfigInvalid => StatusCode::UNPROCESSABLE_ENTITY,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
