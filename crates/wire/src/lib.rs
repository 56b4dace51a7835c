//! Frames: build, parse, checksum, cookie; Probe values.
//!
//! Pure: no clock, no operating system, no allocation per frame. Addresses on hot paths are `u128` integers in host
//! order; an IPv4 address is its plain 32-bit value.
#![forbid(unsafe_code)]

pub mod builder;
pub mod checksum;
pub mod cookie;
pub mod mac;
pub mod packet;
pub mod probe;
pub mod segment;

pub use builder::{Endpoint, FrameBuilder};
pub use cookie::{Cookie, Key};
pub use mac::Mac;
pub use probe::{PortRange, Probe, ProbeError, Protocol};
pub use segment::{SegmentBuilder, SegmentHeader};
