//! The client TCP: a state machine for connections that we open, and the table that holds millions of them.
//!
//! Pure: time is an argument, segments come in by [`Batch`] and go out by [`Clients::transmit`], and what is done with
//! the data is the business of an [`Upper`]. The SYN phase keeps no state: a connection begins here with the SYN-ACK that
//! answers a probe, and costs 128 bytes and its place in an index from then on. Each worker has one [`Clients`] of its own.
//!
//! What it does and does not of each RFC, rule by rule: `docs/tcp.md`.
#![deny(unsafe_code)]

mod assembly;
mod clients;
mod config;
mod connection;
mod index;
mod prefetch;
mod ranges;
mod segment;
mod sent;
mod seq;
mod slab;
mod timers;
mod upper;

pub use clients::{Clients, Counters};
pub use config::Config;
pub use segment::{Batch, Flow, IcmpError, OptionBytes, Options, Outgoing, Sacks, Segment};
pub use upper::{Call, Close, Ended, Upper, Why};
