//! The operator's side: the CLI's Unix socket, and the listener of metrics and health.

pub mod api;
pub mod client;
pub mod metrics;
pub mod readiness;
mod serve;
pub mod socket;
