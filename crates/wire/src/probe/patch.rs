//! What differs from target to target at fixed places of a template.

use serde::{Deserialize, Serialize};

/// What is written into a probe's template for each target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatchSource {
    /// The cookie shifted right by so many bits.
    Cookie(u8),
    /// Our port.
    SourcePort,
    /// The target's port.
    TargetPort,
    /// The send time in microseconds, 32 bits, with the key's offset: a TSval.
    Microseconds,
    /// The send time in nanoseconds, 64 bits, with the key's offset.
    Nanoseconds,
    /// Which probe of the target this is.
    ProbeNumber,
}

/// A field of the template that differs from target to target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Patch {
    /// Offset in bytes from the transport header; even, so that checksums can be patched along.
    pub offset: u16,
    /// Width in bytes: 2, 4 or 8.
    pub width: u8,
    /// What is written.
    pub source: PatchSource,
}
