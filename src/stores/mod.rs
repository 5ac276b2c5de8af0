//! What outlives a policy: blocks, limits, live streams.

pub mod blocks;
pub mod cached;
pub mod descriptors;
pub mod durable;
pub mod limits;
pub mod streams;
