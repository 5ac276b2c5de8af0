//! Portcullis: a reverse-proxy security gateway for self-hosted file-sharing and backup services.
//!
//! The modules stand here from the bottom to the top; each may import only those above it in this list
//! (held by `tests/architecture.rs`). To learn the product read [`gateway`] first.

pub mod clock;
pub mod config;
pub mod telemetry;
pub mod request;
pub mod stores;
pub mod warnings;
pub mod guards;
pub mod policy;
pub mod gateway;
pub mod upstream;
pub mod admin;
pub mod listener;
pub mod worker;
pub mod control;
pub mod serve;
pub mod sample;
pub mod cli;
