//! The operator's side of a running gateway: the admin socket, the listener of metrics, and the socket by which a new process
//! takes over. A hand-over shuts all three, so that the new process can open them.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::api::Command;
use crate::admin::metrics::{Shown, serve as serve_metrics};
use crate::admin::probe::Prober;
use crate::admin::socket::{Explain, Socket};
use crate::control::handover::Outside;

/// What is open, and what opens it.
pub(super) struct Doors {
    /// The admin socket.
    pub admin: PathBuf,
    /// The socket by which a new process takes over.
    pub handover: PathBuf,
    /// Metrics and health.
    pub metrics: Option<SocketAddr>,
    /// What is asked goes there.
    pub commands: mpsc::Sender<Command>,
    /// Answers `explain`.
    pub explain: Explain,
    /// Sends probes of blocks.
    pub prober: Prober,
    /// What the listener of metrics shows.
    pub shown: Shown,
    /// Begins the drain; the process with this number goes on in our place.
    pub drain: Box<dyn FnMut(Option<i32>) + Send>,
    /// What serves them; ends with the gateway.
    pub tasks: JoinSet<()>,
}

impl Outside for Doors {
    fn shut(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(self.tasks.shutdown())
    }

    fn open(&mut self) -> Result<(), String> {
        let admin =
            Socket::bind(&self.admin).map_err(|error| format!("cannot bind admin.socket: {error}"))?;
        let handover = Socket::bind(&self.handover).map_err(|error| format!("cannot bind {error}"))?;
        if let Some(address) = self.metrics {
            let failed = |error| format!("cannot bind admin.metrics {address}: {error}");
            let listener = std::net::TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            self.tasks.spawn(serve_metrics(listener, self.shown.clone()));
        }
        self.tasks.spawn(admin.serve(self.commands.clone(), self.explain.clone(), Arc::clone(&self.prober)));
        self.tasks.spawn(handover.hand_over(self.commands.clone()));
        Ok(())
    }

    fn drain(&mut self, successor: Option<i32>) {
        (self.drain)(successor);
    }
}
