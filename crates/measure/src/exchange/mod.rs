//! Exchanges: connect, let a session drive the dialogue, close, a row.
//!
//! Targets are probed as in a scan, and there is no state for one until its SYN-ACK comes. From then on it has a connection
//! in its worker's TCP ([`irl_tcp`]), whose data a [`session::Session`] judges, and at its end a row.

mod answers;
mod caps;
mod collect;
mod config;
mod incoming;
pub mod request;
pub mod rows;
mod run;
pub mod schema;
pub mod session;
pub mod sessions;
pub mod status;
mod upper;

pub use config::{ExchangeConfig, ExchangeRows};
pub use run::Exchange;
