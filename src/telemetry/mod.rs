//! What the gateway shows: metrics, access log, audit log; nothing here knows of requests or policies.

pub mod audit;
