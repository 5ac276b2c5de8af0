//! What ends a gateway: a signal, a new process, or a worker that dies.

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use super::Fault;

/// The signals that end the gateway.
pub(super) struct Stops {
    /// SIGTERM.
    pub terminate: Signal,
    /// SIGINT.
    pub interrupt: Signal,
}

/// Why the drain begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    /// A signal.
    Signal,
    /// A new process has taken over; its number, where the kernel tells.
    GivenWay(Option<i32>),
}

impl Stops {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for a signal, then for the workers to drain; a second signal ends at once. A worker that dies ends the process.
pub(super) async fn end(
    mut stops: Stops,
    given_way: &mut mpsc::Receiver<Option<i32>>,
    begin_drain: impl Fn(Why),
    (ends, workers): (&mut mpsc::Receiver<Result<(), String>>, usize),
) -> Result<(), Fault> {
    let mut left = workers;
    let mut draining = false;
    while left > 0 {
        tokio::select! {
            ended = ends.recv() => match ended {
                Some(Ok(())) if draining => left -= 1,
                Some(Ok(())) => return Err("a worker has ended by itself".into()),
                Some(Err(error)) => return Err(format!("a worker has died: {error}").into()),
                None => return Ok(()),
            },
            Some(successor) = given_way.recv(), if !draining => {
                draining = true;
                begin_drain(Why::GivenWay(successor));
            }
            () = stops.next() => {
                if draining {
                    return Ok(());
                }
                draining = true;
                begin_drain(Why::Signal);
            }
        }
    }
    Ok(())
}
