//! Exit codes (DESIGN 7).

/// Done.
pub const OK: u8 = 0;
/// An error while running, or a block that is not confirmed or not durable.
pub const ERROR: u8 = 1;
/// The command line cannot be understood.
pub const USAGE: u8 = 2;
/// The config is invalid.
pub const CONFIG: u8 = 3;
/// The running gateway cannot be reached.
pub const UNREACHED: u8 = 4;
/// The running gateway refuses.
pub const REFUSED: u8 = 5;
