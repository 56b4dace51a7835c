//! Checkpoints: what a run needs to be gone on with, after whatever ended it, by this program or on another machine.
//!
//! A commit holds together three things: rows that are safe in the outputs, what the answered map knows by them, and how
//! far the plan is done. The map's part travels with the rows, from the worker that marked it, so that no target is
//! known whose row is not there; positions count once the answers to their probes had their time and are among the
//! rows. What was probed beyond is probed again, and the map tells whose row is there already.

mod log;
mod marks;
mod progress;
mod saved;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::MeasureError;
use crate::output::Committed;
use crate::passes::Begun;
use crate::run::Run;
use crate::stats::Stats;
use log::{Kind, Log};

pub(crate) use log::sync_folder;
pub(crate) use marks::Marks;
pub(crate) use progress::{Delivered, Place, Progress, Tracker};
pub use saved::Saved;

/// A session of a run: from its beginning, or from where it was gone on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// When it began, UTC in ns.
    pub(crate) start_utc_ns: i64,
    /// The same, in seconds since the run began.
    pub(crate) start_s: f64,
    /// The place in the plan from which it went on.
    #[serde(flatten)]
    pub(crate) place: Place,
    /// What the run had counted until then.
    pub(crate) before: Stats,
}

/// Everything until here holds together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// All before it is done.
    #[serde(flatten)]
    pub(crate) place: Place,
    /// What is safe of each output.
    pub(crate) outputs: Vec<Committed>,
    /// The counts that go with these rows, over all sessions.
    pub(crate) stats: Stats,
    /// How the passes began.
    pub(crate) passes: Vec<Begun>,
    /// Time spent sending, over all sessions.
    pub(crate) send_s: f64,
    /// The first probe of all, UTC in ns; 0 before it.
    pub(crate) first_frame_utc_ns: i64,
}

/// Writes a run's checkpoints, beside its outputs.
#[derive(Debug)]
pub struct Checkpoint {
    log: Log,
    every: Duration,
    due: Instant,
    /// Seconds that were written down.
    seconds: usize,
}

impl Checkpoint {
    /// A checkpoint file for a run that is about to begin. `header` says what the run is: whoever goes on with it gets
    /// that back.
    ///
    /// # Errors
    /// [`MeasureError::Output`].
    pub fn create(path: &Path, header: &Value, every: Duration) -> Result<Self, MeasureError> {
        let log =
            Log::create(path, header.to_string().as_bytes()).map_err(|error| MeasureError::output(path, error))?;
        Ok(Self::of(log, every))
    }

    /// The file of a run that is gone on with.
    ///
    /// # Errors
    /// [`MeasureError::Output`].
    pub fn resume(saved: &Saved, every: Duration) -> Result<Self, MeasureError> {
        let log = Log::open(saved.path(), saved.whole()).map_err(|error| MeasureError::output(saved.path(), error))?;
        Ok(Self::of(log, every))
    }

    fn of(log: Log, every: Duration) -> Self {
        Self { log, every, due: Instant::now() + every, seconds: 0 }
    }

    fn failed(&self, error: io::Error) -> MeasureError {
        MeasureError::output(self.log.path(), error)
    }

    /// Writes down that a session begins, with what is safe of the outputs from before.
    pub(crate) fn begin(&mut self, run: &Run, outputs: Vec<Committed>) -> Result<(), MeasureError> {
        self.append(Kind::Session, &run.session())?;
        self.commit(run, outputs, false)
    }

    /// Whether a commit is due.
    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Writes down the seconds that are over.
    pub(crate) fn note(&mut self, run: &Run) -> Result<(), MeasureError> {
        let seconds = run.seconds_of_session(self.seconds);
        if !seconds.is_empty() {
            self.append(Kind::Seconds, &seconds)?;
            self.seconds += seconds.len();
        }
        Ok(())
    }

    /// Writes down what holds together with these outputs. After the `end` of a run that nobody cut short nothing more
    /// is waited for.
    pub(crate) fn commit(&mut self, run: &Run, outputs: Vec<Committed>, end: bool) -> Result<(), MeasureError> {
        self.note(run)?;
        let Some((commit, marks)) = run.commit(outputs, end) else { return Ok(()) };
        self.log.append(Kind::Marks, &marks.encode()).map_err(|error| self.failed(error))?;
        self.append(Kind::Commit, &commit)?;
        self.log.sync().map_err(|error| self.failed(error))?;
        self.due = Instant::now() + self.every;
        Ok(())
    }

    /// Writes down that nothing is left to go on with, and takes the file away.
    pub(crate) fn finish(mut self) -> Result<(), MeasureError> {
        self.log.append(Kind::Finished, &[]).map_err(|error| self.failed(error))?;
        std::fs::remove_file(self.log.path()).map_err(|error| self.failed(error))
    }

    fn append(&mut self, kind: Kind, content: &impl Serialize) -> Result<(), MeasureError> {
        let json = serde_json::to_vec(content).map_err(|error| self.failed(error.into()))?;
        self.log.append(kind, &json).map_err(|error| self.failed(error))
    }
}
