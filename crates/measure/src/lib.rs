//! The measurement loops: what is sent when, what an answer means, and where rows go.
//!
//! A [`Run`] has one worker thread per owner on any [`Network`](irl_link::Network): targets in the plan's order, frames
//! straight into the engine's memory, answers to Arrow batches. Nothing is allocated per frame, and rows that nobody reads
//! pause the senders. What is done with answers makes it a [`Scan`], whose rows are answers, or an [`Exchange`], which
//! connects to whoever answers and whose rows are dialogues.
#![deny(unsafe_code)]

mod answers;
mod attachment;
mod bounds;
mod budget;
pub mod capture;
pub mod checkpoint;
mod columns;
mod device;
pub mod error;
pub mod exchange;
mod fields;
pub mod filter;
pub mod further;
mod judge;
pub mod listing;
pub mod loss;
pub mod map;
pub mod metadata;
mod outbox;
pub mod output;
pub mod pacer;
pub mod passes;
pub mod probe_fields;
mod probed;
pub mod ready;
pub mod record;
pub mod rows;
pub mod run;
pub mod scan;
pub mod schema;
mod search;
mod shared;
pub mod stats;
pub mod status;
pub mod stream;
mod supply;
mod whole;
mod worker;

pub use capture::CaptureSample;
pub use error::MeasureError;
pub use exchange::{Exchange, ExchangeConfig};
pub use map::{AnsweredMap, Dedup};
pub use run::Run;
pub use scan::{RowSelection, Scan, ScanConfig, ScanRate};
pub use stats::Stats;
