//! The operator's side: the CLI's Unix socket, and the listener of metrics and health.

pub mod allow;
pub mod api;
pub mod certificates;
pub mod client;
pub mod csp;
pub mod metrics;
pub mod probe;
pub mod readiness;
pub mod recent;
mod serve;
pub mod socket;
pub mod unlock;
