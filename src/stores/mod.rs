//! What outlives a policy: blocks, limits, live streams.

pub mod accounts;
pub mod attempts;
pub mod blocks;
pub mod cached;
pub mod certificates;
pub mod challenges;
pub mod descriptors;
pub mod durable;
pub mod holes;
pub mod kept;
pub mod keys;
pub mod limits;
pub mod marks;
pub mod places;
pub mod recent;
pub mod seal;
pub mod streams;
pub mod verified;
