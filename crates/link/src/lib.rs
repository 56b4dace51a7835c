//! Everything that touches the OS: engines, filter, policy point, neighbours.
//!
//! Frames leave through a [`Gate`], which lets the [`Policy`] judge each one on the engine's own copy; answers arrive
//! as [`Record`]s that the [`filter`] diverted. A [`Network`] is an opened interface, or the simulated one of the lab,
//! and hands both out as [`Worker`]s.

pub mod capture;
pub mod clock;
pub mod cores;
#[cfg(target_os = "linux")]
mod ebpf;
pub mod engine;
pub mod error;
pub mod filter;
#[cfg(target_os = "linux")]
pub mod live;
pub mod memory;
#[cfg(target_os = "linux")]
mod neighbour;
#[cfg(target_os = "linux")]
pub mod netdev;
pub mod network;
pub mod null;
#[cfg(target_os = "linux")]
pub mod packet;
pub mod policy;
mod prefetch;
pub mod record;
#[cfg(target_os = "linux")]
pub mod stack;

pub use engine::{Batch, Kicked, Receiver, Sender, Worker};
pub use error::LinkError;
#[cfg(target_os = "linux")]
pub use neighbour::{Dad, Heard};
pub use network::{DeviceCounters, EngineInfo, Hop, LinkEndpoint, Network, NextHop, Replayed, WorkerRequest};
pub use null::NullSender;
pub use policy::{
    Arena, ClassCounters, DenyFile, Filled, Gate, GateCounters, Missing, OptOutFile, Policy, PolicyRefusal,
    PolicySettings, Rate, RefusedBecause, Targets, Verdict,
};
pub use prefetch::prefetch;
pub use record::Record;
#[cfg(target_os = "linux")]
pub use stack::{EngineChoice, Stack, StackConfig};
