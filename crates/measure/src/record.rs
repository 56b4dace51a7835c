//! Writes a run down: rows to every output, a status line a second, the metadata at the end.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::MeasureError;
use crate::metadata::{self, About};
use crate::output::Sink;
use crate::scan::{Next, Scan};
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
}

/// Reads a scan to its end and writes its rows to all outputs. An output that fails ends the run; the others, and what
/// it had written itself, are kept.
pub fn record(scan: &Scan, sinks: Vec<Box<dyn Sink>>, about: &About, watch: &mut dyn Watch) -> Outcome {
    let mut sinks: Vec<Option<Box<dyn Sink>>> = sinks.into_iter().map(Some).collect();
    let mut status = Status::new();
    let mut due = Instant::now() + SECOND;
    let mut error = None;
    let mut interrupted = false;
    let mut stopped = false;
    loop {
        match scan.next_batch(POLL) {
            Ok(Next::Batch(batch)) => {
                each(&mut sinks, &mut error, |sink| sink.write(&batch));
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
            scan.halt();
        }
        if Instant::now() >= due {
            due += SECOND;
            each(&mut sinks, &mut error, |sink| sink.tick());
            look(scan, &mut status, watch);
        }
    }
    look(scan, &mut status, watch);
    let stats = scan.stats();
    let lost = stats.overruns > 0 || error.is_some();
    let about = About {
        interrupted: about.interrupted || interrupted,
        error: error.as_ref().map(ToString::to_string).or_else(|| about.error.clone()),
        ..about.clone()
    };
    let metadata = metadata::document(scan, &about);
    let text = metadata.to_string();
    for sink in sinks.into_iter().flatten() {
        if let Err(failed) = sink.finish(&text) {
            error.get_or_insert(failed);
        }
    }
    let lost = lost || error.is_some();
    Outcome { metadata, error, interrupted, lost }
}

/// Does something with each output; the first error is kept, and an output that failed is let go of.
fn each(
    sinks: &mut [Option<Box<dyn Sink>>],
    error: &mut Option<MeasureError>,
    act: impl Fn(&mut dyn Sink) -> Result<(), MeasureError>,
) {
    for slot in sinks {
        if let Some(Err(failed)) = slot.as_mut().map(|sink| act(sink.as_mut())) {
            *slot = None;
            error.get_or_insert(failed);
        }
    }
}

fn look(scan: &Scan, status: &mut Status, watch: &mut dyn Watch) {
    let (line, row) = status.look(&scan.stats(), scan.config().workers);
    watch.second(&line, &row);
}
