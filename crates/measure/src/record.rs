//! Writes a run down: rows to every output, a status line a second, the metadata at the end.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::MeasureError;
use crate::metadata::{self, About};
use crate::output::{Committed, Sink};
use crate::run::{Next, Run};
use crate::scan::EndedBy;
use crate::status::Status;

/// How often the watcher is asked whether to go on.
const POLL: Duration = Duration::from_millis(50);
/// How often the run says where it is.
const SECOND: Duration = Duration::from_secs(1);

/// Looks on while a run is written down.
pub trait Watch {
    /// Asked about twenty times a second; `false` interrupts the run, whose rows are kept.
    fn go_on(&mut self) -> bool;

    /// Told once a second, and once at the end: ZMap's line for people, and the row of the status-updates file.
    fn second(&mut self, line: &str, row: &str);
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The metadata document.
    pub metadata: Value,
    /// What ended the run early: the network, or an output.
    pub error: Option<MeasureError>,
    /// Whether the watcher interrupted it.
    pub interrupted: bool,
    /// Whether something was lost: records, rows, or a device that went away.
    pub lost: bool,
    /// Whether the run can be gone on with by its checkpoint, because something of it is left.
    pub resumable: bool,
}

/// Reads a run to its end and writes its rows to all outputs. An output that fails ends the run; the others, and what
/// it had written itself, are kept.
///
/// With a checkpoint, outputs are made safe together with how far the run is, when that is due and at the end. It is
/// taken away when nothing is left to go on with. After an output has failed it stays as it was, and so do parts.
pub fn record(
    run: &Run,
    sinks: Vec<Box<dyn Sink>>,
    about: &About,
    watch: &mut dyn Watch,
    mut checkpoint: Option<Checkpoint>,
) -> Outcome {
    let mut outputs: Vec<Output> = sinks.into_iter().map(|sink| Output { sink: Some(sink), lost: 0 }).collect();
    let mut status = Status::new();
    let mut due = Instant::now() + SECOND;
    let mut error = None;
    let mut interrupted = false;
    let mut stopped = false;
    if let Some(checkpoint) = &mut checkpoint {
        committed(&mut outputs, &mut error, |outputs| checkpoint.begin(run, outputs));
    }
    loop {
        match run.next_batch(POLL) {
            Ok(Next::Batch(batch)) => {
                // What an output that failed before is not given any more, it lacks too.
                for output in outputs.iter_mut().filter(|output| output.sink.is_none()) {
                    output.lost += batch.num_rows() as u64;
                }
                each(&mut outputs, &mut error, |sink| sink.write(&batch));
            }
            Ok(Next::Nothing) => {}
            Ok(Next::End) => break,
            Err(failed) => {
                error.get_or_insert(failed);
                break;
            }
        }
        if !stopped && !watch.go_on() {
            interrupted = true;
        }
        if !stopped && (interrupted || error.is_some()) {
            stopped = true;
            run.halt();
        }
        if Instant::now() >= due {
            due += SECOND;
            each(&mut outputs, &mut error, |sink| sink.tick());
            look(run, &mut status, watch);
            if let Some(Err(failed)) = checkpoint.as_mut().map(|checkpoint| checkpoint.note(run)) {
                error.get_or_insert(failed);
            }
        }
        if let Some(checkpoint) = checkpoint.as_mut().filter(|checkpoint| checkpoint.is_due()) {
            committed(&mut outputs, &mut error, |outputs| checkpoint.commit(run, outputs, false));
        }
    }
    look(run, &mut status, watch);
    each(&mut outputs, &mut error, |sink| sink.settle());
    let whole = error.is_none() && !interrupted && run.ended_by() != Some(EndedBy::Stopped);
    if let Some(checkpoint) = &mut checkpoint {
        committed(&mut outputs, &mut error, |outputs| checkpoint.commit(run, outputs, whole));
    }
    let resumable = checkpoint.is_some();
    if resumable && outputs.iter().any(|output| output.sink.is_none()) {
        // What the others have beyond the last commit is of targets that will be probed again.
        outputs.iter_mut().for_each(|output| output.sink = None);
    }
    let stats = run.stats();
    let lost = stats.overruns > 0 || error.is_some();
    let about = About {
        interrupted: about.interrupted || interrupted,
        rows_lost: about.rows_lost + outputs.iter().map(|output| output.lost).sum::<u64>(),
        error: error.as_ref().map(ToString::to_string).or_else(|| about.error.clone()),
        ..about.clone()
    };
    let mut metadata = metadata::document(run, &about);
    for sink in outputs.into_iter().filter_map(|output| output.sink) {
        if let Err(failed) = sink.finish(&metadata.to_string()) {
            // Outputs that are ended from now on say so too.
            if about.error.is_none() && error.is_none() {
                metadata["error"] = failed.to_string().into();
            }
            error.get_or_insert(failed);
        }
    }
    let lost = lost || error.is_some();
    // Those who asked for no more rows than there are have them.
    let done = matches!(run.ended_by(), Some(EndedBy::Targets | EndedBy::MaxResults)) && whole && error.is_none();
    let mut resumable = resumable;
    if let Some(checkpoint) = checkpoint.filter(|_| done) {
        resumable = false;
        error = checkpoint.finish().err();
    }
    Outcome { metadata, error, interrupted, lost, resumable }
}

/// Makes all outputs safe and commits that, unless one of them has failed.
fn committed(
    outputs: &mut [Output],
    error: &mut Option<MeasureError>,
    commit: impl FnOnce(Vec<Committed>) -> Result<(), MeasureError>,
) {
    let mut safe = Vec::new();
    for output in outputs.iter_mut() {
        let Some(sink) = output.sink.as_mut() else { return };
        match sink.commit() {
            Ok(committed) => safe.push(committed),
            Err(failed) => {
                output.lost += sink.lost();
                output.sink = None;
                error.get_or_insert(failed);
                return;
            }
        }
    }
    if let Err(failed) = commit(safe) {
        error.get_or_insert(failed);
    }
}

/// An output, until it fails, and the rows it lacks.
struct Output {
    sink: Option<Box<dyn Sink>>,
    lost: u64,
}

/// Does something with each output; the first error is kept, and an output that failed is let go of.
fn each(
    outputs: &mut [Output],
    error: &mut Option<MeasureError>,
    act: impl Fn(&mut dyn Sink) -> Result<(), MeasureError>,
) {
    for output in outputs {
        let Some(sink) = output.sink.as_mut() else { continue };
        if let Err(failed) = act(sink.as_mut()) {
            output.lost += sink.lost();
            output.sink = None;
            error.get_or_insert(failed);
        }
    }
}

fn look(run: &Run, status: &mut Status, watch: &mut dyn Watch) {
    let (line, row) = status.look(&run.stats(), run.config().workers);
    watch.second(&line, &row);
}
