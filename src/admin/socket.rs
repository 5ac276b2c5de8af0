//! The admin socket: what the CLI talks to. Only its own user and root are answered.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::allow::AllowOrder;
use super::api::{Ask, Command, Refusal, RefusalKind, Reply, UnblockOrder};
use super::probe::{ProbeOrder, Prober};
use super::recent::{Hand, Wanted};
use super::serve;
use super::unlock::UnlockOrder;
use crate::stores::blocks::Order;
use crate::stores::durable::directory::private_directory;

/// Largest body of a request.
const BODY: usize = 64 << 10;

/// Answers `POST /v1/explain`: the question and the answer are the explainer's own JSON.
pub type Explain =
    Arc<dyn Fn(Value) -> Pin<Box<dyn Future<Output = Result<Value, Refusal>> + Send>> + Send + Sync>;

/// What a process that takes over begins with.
pub const TAKE_OVER: &[u8; 10] = b"take over\n";
/// How long it may take to say so.
const SAYS: Duration = Duration::from_secs(5);

/// The bound socket; the file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// What the routes need.
#[derive(Clone)]
struct Side {
    commands: mpsc::Sender<Command>,
    explain: Explain,
    prober: Prober,
}

/// The user at the other end.
#[derive(Debug, Clone)]
struct Peer(String);

impl Socket {
    /// Binds the socket with mode 0600. A file that a dead gateway has left is removed; a live one is not.
    ///
    /// # Errors
    /// When another gateway answers there, when something else is there, or the system's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            private_directory(parent)?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        // Between bind and chmod the directory's mode and the peer's credentials keep others out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers until dropped. Each connection is a task of the control thread's runtime.
    pub async fn serve(self, commands: mpsc::Sender<Command>, explain: Explain, prober: Prober) {
        let routes = routes(Side { commands, explain, prober });
        let slots = Arc::new(Semaphore::new(serve::CONNECTIONS));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(serve::PAUSE).await;
                continue;
            };
            let Some(peer) = admitted(&stream) else { continue };
            let routes = routes.clone().layer(Extension(peer));
            tasks.spawn(async move {
                serve::connection(stream, routes).await;
                drop(slot);
            });
        }
    }
}

impl Socket {
    /// Waits for processes that want to take over, until dropped.
    pub async fn hand_over(self, commands: mpsc::Sender<Command>) {
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(serve::PAUSE).await;
                continue;
            };
            let Some(peer) = admitted(&stream) else { continue };
            let mut said = [0; TAKE_OVER.len()];
            let heard = tokio::time::timeout(SAYS, stream.read_exact(&mut said)).await;
            if matches!(heard, Ok(Ok(_))) && said == *TAKE_OVER {
                let command = Command { by: peer.0, ask: Ask::HandOver(stream) };
                if commands.send(command).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let taken =
        |what: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {what}", path.display())));
    if !there.file_type().is_socket() {
        return taken("something that is no socket is in its place; move it away");
    }
    match StdStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => taken("another gateway answers there; stop it, or set another `admin.socket`"),
    }
}

/// Root and the gateway's own user are admitted, whatever the file's mode has become.
fn admitted(stream: &UnixStream) -> Option<Peer> {
    let uid = stream.peer_cred().ok()?.uid();
    let own = rustix::process::geteuid().as_raw();
    (uid == 0 || uid == own).then(|| Peer(format!("uid {uid}")))
}

fn routes(side: Side) -> Router {
    Router::new()
        .route("/v1/block", post(block))
        .route("/v1/blocks", get(blocks))
        .route("/v1/unblock", post(unblock))
        .route("/v1/status", get(status))
        .route("/v1/reload", post(reload))
        .route("/v1/explain", post(explain))
        .route("/v1/probe", post(probe))
        .route("/v1/denials", post(denials))
        .route("/v1/request", get(request))
        .route("/v1/find", post(find))
        .route("/v1/allow", post(allow))
        .route("/v1/unlock", post(unlock))
        .route("/v1/csp", get(csp))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(side)
}

/// A body, or why it is none.
type Read<T> = Result<Json<T>, axum::extract::rejection::JsonRejection>;

async fn block(State(side): State<Side>, Extension(peer): Extension<Peer>, order: Read<Order>) -> Response {
    side.ask_with(peer, order, Ask::Block).await
}

async fn unblock(
    State(side): State<Side>,
    Extension(peer): Extension<Peer>,
    order: Read<UnblockOrder>,
) -> Response {
    side.ask_with(peer, order, |order, reply| Ask::Unblock(order.id, reply)).await
}

async fn denials(
    State(side): State<Side>,
    Extension(peer): Extension<Peer>,
    wanted: Read<Wanted>,
) -> Response {
    side.ask_with(peer, wanted, Ask::Denials).await
}

async fn find(State(side): State<Side>, Extension(peer): Extension<Peer>, hand: Read<Hand>) -> Response {
    side.ask_with(peer, hand, Ask::Find).await
}

async fn allow(
    State(side): State<Side>,
    Extension(peer): Extension<Peer>,
    order: Read<AllowOrder>,
) -> Response {
    side.ask_with(peer, order, Ask::Allow).await
}

async fn unlock(
    State(side): State<Side>,
    Extension(peer): Extension<Peer>,
    order: Read<UnlockOrder>,
) -> Response {
    side.ask_with(peer, order, Ask::Unlock).await
}

#[derive(Debug, Deserialize)]
struct RequestQuery {
    id: String,
}

async fn request(
    State(side): State<Side>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<RequestQuery>,
) -> Response {
    side.ask(peer, |reply| Ask::Request(query.id, reply)).await
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    #[serde(default)]
    all: bool,
}

async fn blocks(
    State(side): State<Side>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<ListQuery>,
) -> Response {
    side.ask(peer, |reply| Ask::List(query.all, reply)).await
}

#[derive(Debug, Deserialize)]
struct CspQuery {
    site: Option<String>,
}

async fn csp(
    State(side): State<Side>,
    Extension(peer): Extension<Peer>,
    Query(query): Query<CspQuery>,
) -> Response {
    side.ask(peer, |reply| Ask::Csp(query.site, reply)).await
}

async fn status(State(side): State<Side>, Extension(peer): Extension<Peer>) -> Response {
    side.ask(peer, Ask::Status).await
}

async fn reload(State(side): State<Side>, Extension(peer): Extension<Peer>) -> Response {
    side.ask(peer, Ask::Reload).await
}

async fn explain(State(side): State<Side>, Json(question): Json<Value>) -> Response {
    answer((side.explain)(question).await)
}

async fn probe(State(side): State<Side>, order: Read<ProbeOrder>) -> Response {
    match order {
        Ok(Json(order)) => answer((side.prober)(order).await),
        Err(wrong) => misread(&wrong.body_text()),
    }
}

impl Side {
    async fn ask_with<A, T: Serialize>(
        &self,
        peer: Peer,
        body: Read<A>,
        ask: impl FnOnce(A, Reply<T>) -> Ask,
    ) -> Response {
        match body {
            Ok(Json(body)) => self.ask(peer, |reply| ask(body, reply)).await,
            Err(wrong) => misread(&wrong.body_text()),
        }
    }

    async fn ask<T: Serialize>(&self, peer: Peer, ask: impl FnOnce(Reply<T>) -> Ask) -> Response {
        let (reply, answered) = oneshot::channel();
        let command = Command { by: peer.0, ask: ask(reply) };
        let gone = || Refusal::new(RefusalKind::Unavailable, "the gateway is going down");
        if self.commands.send(command).await.is_err() {
            return answer::<T>(Err(gone()));
        }
        answer(answered.await.unwrap_or_else(|_| Err(gone())))
    }
}

fn answer<T: Serialize>(answer: Result<T, Refusal>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => (refusal.status(), Json(refusal)).into_response(),
    }
}

fn misread(wrong: &str) -> Response {
    answer::<Value>(Err(Refusal::new(RefusalKind::Usage, wrong)))
}
