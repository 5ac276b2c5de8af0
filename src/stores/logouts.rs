//! Orders of identity providers, from the worker that has verified them to the control thread, which alone blocks.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::blocks::What;
use crate::request::credential::Key;

/// Orders that wait; more are refused.
const QUEUE: usize = 256;
/// How long a provider waits for the outcome.
const PATIENCE: Duration = Duration::from_secs(5);

/// One verified order.
#[derive(Debug)]
pub struct Logout {
    /// The site's name.
    pub site: String,
    /// Whose sessions end, begun until when.
    pub what: What,
    /// Who orders it, for the audit log.
    pub by: String,
    /// By which it is known again: issuer and `jti`.
    pub once: (Key, Key),
    /// What became of it.
    pub reply: oneshot::Sender<Outcome>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every worker has cut what it means, and it is on the disk.
    Done,
    /// It was used before.
    Replayed,
    /// It may hold in memory only, or not at all: the provider shall try again.
    NotDone,
}

/// The lane between both.
#[derive(Debug)]
pub struct Logouts {
    orders: mpsc::Sender<Logout>,
    taken: Mutex<Option<mpsc::Receiver<Logout>>>,
}

impl Default for Logouts {
    fn default() -> Self {
        let (orders, taken) = mpsc::channel(QUEUE);
        Self { orders, taken: Mutex::new(Some(taken)) }
    }
}

impl Logouts {
    /// Hands an order over and waits for its outcome.
    pub async fn order(&self, site: &str, what: What, by: String, once: (Key, Key)) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let order = Logout { site: site.to_owned(), what, by, once, reply };
        if self.orders.try_send(order).is_err() {
            return Outcome::NotDone;
        }
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            // The control thread has other things to do, or another process owns the store now.
            _ => Outcome::NotDone,
        }
    }

    /// The other end; there is one.
    pub fn receiver(&self) -> Option<mpsc::Receiver<Logout>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
