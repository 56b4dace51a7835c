//! The parts that need no smoltcp: what fuzz targets use.

#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod dialogue;
pub mod machine;
pub mod pieces;
pub mod random;
pub mod segments;
pub mod watch;
pub mod wild;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
