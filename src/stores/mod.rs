//! What outlives a policy: blocks, limits, live streams.

pub mod accounts;
pub mod attempts;
pub mod blocks;
pub mod cached;
pub mod descriptors;
pub mod durable;
pub mod held;
pub mod holes;
pub mod kept;
pub mod keys;
pub mod limits;
pub mod lines;
pub mod lockouts;
pub mod logins;
pub mod logouts;
pub mod marks;
pub mod places;
pub mod probes;
pub mod recent;
pub mod seal;
pub mod sessions;
pub mod shares;
pub mod streams;
pub mod taught;
pub mod turns;
pub mod verified;
