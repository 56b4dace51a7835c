//! What the tests of conformance share: a machine in virtual time, a watch on all that it sends, and their parts.

#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod dialogue;
pub mod farm;
pub mod grammar;
pub mod machine;
pub mod packets;
pub mod pieces;
pub mod random;
pub mod script;
pub mod segments;
pub mod simulation;
pub mod smol;
pub mod watch;
pub mod wild;

/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// How much of something a test does, where the environment says.
pub fn asked(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
