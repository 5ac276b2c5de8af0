//! How long something may be under way: for a time, and while the config is what it was.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;

use super::failure::Failure;

/// The bounds of an order.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    limit: Duration,
    closed: watch::Receiver<bool>,
}

impl Bounds {
    /// `closed` turns true when nobody wants it any more.
    pub fn new(limit: Duration, closed: watch::Receiver<bool>) -> Self {
        Self { limit, closed }
    }

    /// Goes on with it within the bounds. What it had begun is then for the caller to end.
    ///
    /// # Errors
    /// Its own, or which bound it has come to.
    pub async fn hold<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut closed = self.closed.clone();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Failure::host("given up: the config has changed")),
            done = tokio::time::timeout(self.limit, work) => {
                done.unwrap_or_else(|_| Err(Failure::host(format!("it had not ended after {:?}", self.limit))))
            }
        }
    }
}
