//! What the gateway shows: metrics, access log, audit log; nothing here knows of requests or policies.

pub mod access_log;
pub mod audit;
mod lanes;
pub mod line;
mod looks;
pub mod mask;
pub mod metrics;
pub mod process;
pub mod process_log;
pub mod render;
mod target;
