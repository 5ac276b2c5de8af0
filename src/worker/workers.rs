//! The workers as the control thread sees them: what it asks, and how it waits for the answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use crate::listener::accept::Listener;
use crate::listener::{Kind, Lent};
use crate::request::client::Client;
use crate::stores::recent::{Query, Record};

/// What the control thread asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// Read the block index anew, cut every live stream that it means, and say how many.
    Sweep(oneshot::Sender<usize>),
    /// Cut every live stream and connection, and say how many streams.
    Cut(oneshot::Sender<usize>),
    /// Say what is remembered of the latest requests.
    Recall(Query, oneshot::Sender<Vec<Record>>),
    /// Say whose the remembered requests are: some of their clients, each with its number of requests.
    Clients(oneshot::Sender<Vec<(Client, usize)>>),
    /// Give a second descriptor of every socket that it listens on.
    Sockets(oneshot::Sender<Vec<Lent>>),
    /// Who was given the sockets has failed.
    TakeBack,
    /// A new policy for connections too, and other sockets: open these, close those (their connections live on).
    Listen {
        /// To serve from now on, each with the address that the config names.
        open: Vec<(SocketAddr, Listener)>,
        /// To close.
        close: Vec<(Kind, SocketAddr)>,
    },
}

/// All workers, as the control thread sees them.
#[derive(Debug, Clone, Default)]
pub struct Workers {
    senders: Vec<mpsc::Sender<Command>>,
}

/// What a sweep came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Streams cut, over all workers.
    pub cut: usize,
    /// Every worker has answered in time; if not, the block is "not confirmed".
    pub confirmed: bool,
}

impl Workers {
    /// Handles for these workers.
    pub fn new(senders: Vec<mpsc::Sender<Command>>) -> Self {
        Self { senders }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Lets every worker sweep, at the same time, and waits for all answers, at most `limit`.
    pub async fn sweep(&self, limit: Duration) -> Swept {
        self.sweep_but(Command::Sweep, limit, false).await
    }

    /// The same in a drain: a worker that has ended has no streams left.
    pub async fn sweep_remaining(&self, limit: Duration) -> Swept {
        self.sweep_but(Command::Sweep, limit, true).await
    }

    /// Lets every worker that is left cut all that it has.
    pub async fn cut(&self, limit: Duration) -> Swept {
        self.sweep_but(Command::Cut, limit, true).await
    }

    async fn sweep_but(
        &self,
        ask: impl Fn(oneshot::Sender<usize>) -> Command,
        limit: Duration,
        may_have_ended: bool,
    ) -> Swept {
        let mut answers = Vec::with_capacity(self.senders.len());
        let mut confirmed = true;
        for sender in &self.senders {
            let (answer, done) = oneshot::channel();
            match sender.try_send(ask(answer)) {
                Ok(()) => answers.push(done),
                Err(TrySendError::Closed(_)) if may_have_ended => {}
                Err(_) => confirmed = false,
            }
        }
        let mut cut = 0;
        let all = async {
            for done in answers {
                match done.await {
                    Ok(streams) => cut += streams,
                    Err(_) => confirmed &= may_have_ended,
                }
            }
        };
        if tokio::time::timeout(limit, all).await.is_err() {
            confirmed = false;
        }
        Swept { cut, confirmed }
    }

    /// Asks every worker's memory, and waits for all answers, at most `limit`. `None`: not all have answered.
    pub async fn recall(&self, query: &Query, limit: Duration) -> Option<Vec<Record>> {
        self.gather(|answer| Command::Recall(query.clone(), answer), limit).await
    }

    /// Whose the requests are that are remembered: some clients of each worker. `None`: not all have answered.
    pub async fn clients(&self, limit: Duration) -> Option<Vec<(Client, usize)>> {
        self.gather(Command::Clients, limit).await
    }

    /// A second descriptor of every socket of every worker. `None`: not all have answered.
    pub async fn sockets(&self, limit: Duration) -> Option<Vec<Lent>> {
        self.gather(Command::Sockets, limit).await
    }

    async fn gather<T>(
        &self,
        ask: impl Fn(oneshot::Sender<Vec<T>>) -> Command,
        limit: Duration,
    ) -> Option<Vec<T>> {
        let mut answers = Vec::with_capacity(self.senders.len());
        for sender in &self.senders {
            let (answer, told) = oneshot::channel();
            sender.try_send(ask(answer)).ok()?;
            answers.push(told);
        }
        let all = async {
            let mut gathered = Vec::new();
            for told in answers {
                gathered.extend(told.await.ok()?);
            }
            Some(gathered)
        };
        tokio::time::timeout(limit, all).await.ok()?
    }

    /// Tells every worker that nobody else has its sockets any more. One that is too busy to hear it resets handshakes when it
    /// stops, as with sockets that others hold.
    pub fn take_back(&self) {
        self.senders.iter().for_each(|sender| drop(sender.try_send(Command::TakeBack)));
    }

    /// A place in every worker's queue. `None`: one has none.
    pub fn reserve(&self) -> Option<Reserved<'_>> {
        self.senders.iter().map(|sender| sender.try_reserve().ok()).collect::<Option<_>>().map(Reserved)
    }
}

/// A place for a command in the queue of every worker.
#[derive(Debug)]
pub struct Reserved<'a>(Vec<mpsc::Permit<'a, Command>>);

impl Reserved<'_> {
    /// Gives each worker its sockets to open, in their order, and tells all which to close.
    pub fn listen(self, open: Vec<Vec<(SocketAddr, Listener)>>, close: &[(Kind, SocketAddr)]) {
        let mut open = open.into_iter();
        for place in self.0 {
            place.send(Command::Listen { open: open.next().unwrap_or_default(), close: close.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_is_told_of_sockets_while_one_is_too_busy() {
        let (free, mut hears) = mpsc::channel(2);
        let (busy, mut late) = mpsc::channel(1);
        let workers = Workers::new(vec![free, busy]);
        workers.take_back();
        assert!(workers.reserve().is_none());
        assert!(matches!(hears.try_recv(), Ok(Command::TakeBack)) && hears.try_recv().is_err());
        assert!(matches!(late.try_recv(), Ok(Command::TakeBack)));
        workers.reserve().unwrap().listen(Vec::new(), &[]);
        for queue in [&mut hears, &mut late] {
            assert!(matches!(queue.try_recv(), Ok(Command::Listen { .. })));
        }
    }
}
