//! The hand-over from a running gateway, from the side of the new process (`portcullis run --take-over`).

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Fault;
use crate::admin::socket::TAKE_OVER;
use crate::control::wire;
use crate::listener::accept::Listener;
use crate::listener::{Kind, Lent};

/// How long the running gateway may take to write what it holds and to answer.
const GIVES: Duration = Duration::from_secs(20);

/// What the running gateway has given; it takes all back if this is dropped before it has heard that we serve.
#[derive(Debug)]
pub(super) struct Handed {
    doors: Vec<Lent>,
    stream: UnixStream,
}

/// Where the running gateway waits to be asked.
pub(super) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("handover.sock")
}

/// Asks the gateway that runs with this state directory for its sockets; it has closed its store then. `None`: none runs.
///
/// # Errors
/// When one runs and does not give them.
pub(super) fn ask(state_dir: &Path) -> Result<Option<Handed>, Fault> {
    let path = socket(state_dir);
    let mut stream = match UnixStream::connect(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        other => other.map_err(|error| format!("cannot ask at {}: {error}", path.display()))?,
    };
    stream.set_read_timeout(Some(GIVES))?;
    stream.write_all(TAKE_OVER)?;
    let doors = wire::take(&stream).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => format!(
            "the running gateway gives nothing within {} s, and goes on: `portcullis status` may say what holds it up",
            GIVES.as_secs()
        ),
        _ => format!("the running gateway does not hand over, and goes on: {error}"),
    })?;
    Ok(Some(Handed { doors, stream }))
}

impl Handed {
    /// The sockets of an address that one of so many workers serves: each socket has one worker at least.
    pub(super) fn listeners(
        &self,
        (kind, address): (Kind, SocketAddr),
        worker: usize,
        workers: usize,
    ) -> std::io::Result<Vec<Listener>> {
        let own: Vec<&Lent> =
            self.doors.iter().filter(|door| (door.kind, door.address) == (kind, address)).collect();
        let mine = own.iter().enumerate().filter(|(place, _)| {
            // With fewer sockets than workers some are shared.
            if own.len() < workers { worker % own.len() == *place } else { place % workers == worker }
        });
        mine.map(|(_, door)| Ok(Listener::passed(door.socket.try_clone()?, kind, door.outlives))).collect()
    }

    /// By which the old process hears that we serve, and of every block from then on.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn into_stream(self) -> std::io::Result<UnixStream> {
        self.stream.set_nonblocking(true)?;
        Ok(self.stream)
    }
}
