//! The filter: which received frames are ours, decided before the host's network stack sees them.
//!
//! Two implementations take the same decisions: [`KernelFilter`], an XDP program, and [`TwinFilter`], safe Rust for the
//! `packet` engine where no program may be attached and for the simulated link. A test compares them frame by frame.

mod bodies;
mod config;
mod parse;
mod registry;
mod twin;

#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod lanes;
#[cfg(target_os = "linux")]
mod layout;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod sys;

#[cfg(target_os = "linux")]
pub use crate::ebpf::missing_capability;
pub use config::{
    Accept, AddressKind, DEFAULT_RING_BYTES, FilterConfig, FilterCounters, Frames, HEAD_LEN, MAX_ADDRESSES,
    MAX_CLASSES, MAX_OWNERS, MAX_RULES, OwnAddress, OwnerConfig, Reason,
};
#[cfg(target_os = "linux")]
pub use kernel::{FILTER_BUILT, KernelFilter, Rehearsal, XdpMode, attach_program};
#[cfg(target_os = "linux")]
pub use ring::RingReceiver;
pub use twin::{HostSocket, HostSockets, NoSockets, TwinFilter, Verdict};
