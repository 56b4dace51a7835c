//! What is probed, and in what order: prefix sets, port sets, target lists, the permutation, and plans that fix a run
//! on any machine. Pure: no sockets, no clock; the only system calls read and write the files a plan names.
//!
//! Addresses are `u128` integers in host order; an IPv4 address is its plain 32-bit value. A plan has one family.

#![forbid(unsafe_code)]

mod error;
mod family;
mod hex;
mod list;
pub mod permutation;
mod plan;
mod ports;
mod prefix;
mod private;
pub mod registry;
mod search;
pub mod spread;
mod target_set;
mod top_ports;

pub use error::{Origin, Result, TargetsError};
pub use family::{Family, address_bits};
pub use list::TargetList;
pub use permutation::Permutation;
pub use plan::{
    COOKIE_VERSION, CompiledPlan, FileRef, Order, PLAN_VERSION, Plan, PlanBuilder, ProbeSpec, SecretKey, SourcePorts,
    Versions, parse_target,
};
pub use ports::PortSet;
pub use prefix::PrefixSet;
pub use private::replace_private;
pub use search::PrefixIndex;
pub use spread::Spread;
pub use target_set::{ListTargets, Product, Target, TargetCounts, TargetSet};
pub use top_ports::Transport;
