//! Loss made visible: what a run's own answers tell of the probes that got none although somebody was there.
//!
//! Two sources. Targets that are probed more than once (`--probes`, `--reprobe`) tell by which probe they were found, as in
//! capture and recapture: [`estimate`]. A sample of targets that is probed once more when all is done (`--recheck`) tells
//! it directly, of those that were found and of those that were not: [`recheck`].

pub mod estimate;
pub mod recheck;
mod sample;

pub use estimate::Loss;
pub use recheck::Recheck;
pub(crate) use sample::Sample;
