//! Portcullis: a reverse-proxy security gateway for self-hosted file-sharing and backup services.
//!
//! The modules stand here from the bottom to the top; each may import only those above it in this list
//! (held by `tests/architecture.rs`). To learn the product read [`gateway`] first.

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod gateway;
pub mod guards;
pub mod listener;
pub mod policy;
pub mod request;
pub mod sample;
pub mod serve;
pub mod stores;
pub mod telemetry;
pub mod upstream;
pub mod worker;
