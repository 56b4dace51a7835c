//! Everything that touches the OS: engines, filter, policy point, neighbours.
//!
//! Frames leave through a [`Gate`], which lets the [`Policy`] judge each one on the engine's own copy; answers arrive
//! as [`Record`]s that the filter diverted.

pub mod clock;
pub mod engine;
pub mod error;
pub mod null;
pub mod policy;
pub mod record;

pub use engine::{Batch, Kicked, Receiver, Sender, Worker};
pub use error::LinkError;
pub use null::NullSender;
pub use policy::{
    Arena, ClassCounters, DenyFile, Filled, Gate, GateCounters, Missing, Policy, PolicyRefusal, PolicySettings, Rate,
    RefusedBecause, Targets, Verdict,
};
pub use record::Record;
