//! The operator's side: the CLI's Unix socket, and the listener of metrics and health.

pub mod allow;
pub mod api;
pub mod certificates;
pub mod client;
pub mod metrics;
pub mod readiness;
pub mod recent;
mod serve;
pub mod socket;
