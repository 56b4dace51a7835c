//! What can end a measurement.

use std::io;
use std::path::PathBuf;

use irl_link::LinkError;
use irl_targets::TargetsError;
use irl_wire::ProbeError;

/// An error of a measurement. What was measured until then is kept.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The network failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// One of several interfaces went.
    #[error("{0}; what was left of the run went by the others")]
    OneGone(LinkError),
    /// The plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] TargetsError),
    /// The probe cannot be built.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// An output cannot be written.
    #[error("{path} cannot be written: {source}; the rows written before are kept", path = path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A list of targets cannot be read on.
    #[error("{list} cannot be read: {source}; what was read of it before is done")]
    Input {
        /// What the list is called.
        list: String,
        /// What the system, or the format's reader, said.
        source: io::Error,
    },
    /// The device takes no frames any more.
    #[error(
        "the device has taken no frame for {seconds} s while {waiting} wait: is its link up, and does its other end read?"
    )]
    Stuck {
        /// For how long.
        seconds: u64,
        /// Frames that wait.
        waiting: usize,
    },
    /// What a program was to make of the answers went wrong.
    #[error("the parse of the probe {probe} failed: {why}; the rows are kept, and from there on without its fields")]
    Parse {
        /// The probe's name.
        probe: String,
        /// What went wrong.
        why: String,
    },
    /// A worker panicked.
    #[error("a worker failed, which is a bug in irlstack: {0}")]
    Worker(String),
    /// What was asked for contradicts itself.
    #[error("{0}")]
    Config(String),
}

impl MeasureError {
    pub(crate) fn output(path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Output { path: path.into(), source: source.into() }
    }

    pub(crate) fn input(list: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Input { list: list.into(), source: source.into() }
    }
}
