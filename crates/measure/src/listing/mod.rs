//! Lists of targets that are read while the run goes on: they need not be known ahead, nor fit into memory.
//!
//! A thread reads rows in batches. Each row's SYN is sent, sent again while nothing answers, and given up; from its answer
//! to the end of its connection the row is still there, and what the list says further about it goes into its row of
//! results. When rows under way take the memory that there is for them, nothing more is read until some are done.

mod batch;
mod entries;
mod index;
mod names;
mod pending;
mod ports;
mod records;
mod sieve;
mod table;
mod text;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow_array::RecordBatchReader;
use arrow_schema::Fields;
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use irl_link::clock;
use irl_targets::{CompiledPlan, Family, Target};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use self::batch::Batch;
use self::names::Names;
pub(crate) use self::pending::Due;
use self::pending::{Pace, Pending};
use self::sieve::{Counts, Sieve};
use crate::error::MeasureError;
use crate::exchange::request::Recipient;
use crate::exchange::rows::Source;

pub use self::pending::PER_ROW;
pub use self::sieve::ListCounts;

/// Batches that are read ahead.
const AHEAD: usize = 2;

/// Where a list comes from.
pub enum Input {
    /// A file: Parquet by its suffix, otherwise text; `-` is standard input.
    Path(PathBuf),
    /// Text, and what it is called.
    Text(String, Box<dyn Read + Send>),
    /// Record batches.
    Table(Box<dyn RecordBatchReader + Send>),
}

/// What becomes of a list's targets.
#[derive(Clone, Debug)]
pub struct ListConfig {
    /// Which addresses may be targets. Its ports are for rows that name none.
    pub plan: CompiledPlan,
    /// The family of its addresses.
    pub family: Family,
    /// The ports of rows that name none.
    pub ports: Vec<u16>,
    /// How many of our ports there are, so that a target that is there again goes from another.
    pub our_ports: u32,
    /// How often a SYN is sent to a target that does not answer; 16 times at most.
    pub attempts: u8,
    /// How long the first waits for its answer; each later one waits twice as long as the one before it.
    pub timeout: Duration,
    /// Bytes of memory that rows under way may take.
    pub max_memory: u64,
    /// The column of requests, where each target has its own.
    pub request: Option<String>,
}

/// A list of targets that is read while the run goes on.
pub struct Listing {
    columns: Fields,
    family: Family,
    /// The further columns of hosts and requests.
    host: Option<usize>,
    request: Option<usize>,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

/// What changes.
struct State {
    pending: Pending,
    input: Receiver<Result<Batch, MeasureError>>,
    ended: bool,
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Listing {
    /// Opens a list, and starts to read it once its first line or schema has told what it is like.
    ///
    /// # Errors
    /// [`MeasureError::Config`] where it has no targets that can be found, and [`MeasureError::Input`].
    pub fn open(input: Input, config: &ListConfig) -> Result<Self, MeasureError> {
        let counts = Arc::new(Counts::default());
        let request = config.request.as_deref();
        let sieve =
            |list: &str| Sieve::new(list.to_owned(), config.plan.clone(), config.family, &config.ports, &counts);
        match input {
            Input::Path(path) if path == Path::new("-") => {
                Self::of_text("standard input", Box::new(io::stdin()), sieve, request, config, &counts)
            }
            Input::Path(path) => {
                let name = path.display().to_string();
                let file = File::open(&path).map_err(|source| MeasureError::input(&name, source))?;
                if path.extension().is_none_or(|suffix| suffix != "parquet") {
                    return Self::of_text(&name, Box::new(file), sieve, request, config, &counts);
                }
                let reader = ParquetRecordBatchReaderBuilder::try_new(file)
                    .and_then(|builder| builder.with_batch_size(table::ROWS).build())
                    .map_err(|error| MeasureError::input(&name, io::Error::other(error)))?;
                Self::of_table(&name, Box::new(reader), sieve, request, config, &counts)
            }
            Input::Text(name, reader) => Self::of_text(&name, reader, sieve, request, config, &counts),
            Input::Table(reader) => Self::of_table("the table", reader, sieve, request, config, &counts),
        }
    }

    fn of_text(
        name: &str,
        reader: Box<dyn Read + Send>,
        sieve: impl Fn(&str) -> Sieve,
        request: Option<&str>,
        config: &ListConfig,
        counts: &Arc<Counts>,
    ) -> Result<Self, MeasureError> {
        let text = text::Text::open(reader, sieve(name), request)?;
        let (columns, names) = (text.columns().clone(), text.names().clone());
        Self::start(text, columns, &names, config, counts)
    }

    fn of_table(
        name: &str,
        reader: Box<dyn RecordBatchReader + Send>,
        sieve: impl Fn(&str) -> Sieve,
        request: Option<&str>,
        config: &ListConfig,
        counts: &Arc<Counts>,
    ) -> Result<Self, MeasureError> {
        let table = table::Table::open(reader, sieve(name), request)?;
        let (columns, names) = (table.columns().clone(), table.names().clone());
        Self::start(table, columns, &names, config, counts)
    }

    fn start(
        batches: impl Iterator<Item = Result<Batch, MeasureError>> + Send + 'static,
        columns: Fields,
        names: &Names,
        config: &ListConfig,
        counts: &Arc<Counts>,
    ) -> Result<Self, MeasureError> {
        let (sender, input) = bounded(AHEAD);
        // It ends with the list, or with the first batch that nobody takes any more. Nobody waits for it: it may be
        // waiting itself, for somebody to type.
        std::thread::Builder::new()
            .name("irl-list".to_owned())
            .spawn(move || {
                for batch in batches {
                    if sender.send(batch).is_err() {
                        break;
                    }
                }
            })
            .map_err(|source| irl_link::LinkError::os("starting the thread that reads a list", source))?;
        let pace = Pace {
            attempts: config.attempts,
            timeout_ms: u32::try_from(config.timeout.as_millis()).unwrap_or(u32::MAX).max(1),
            ports: config.our_ports,
            max_memory: usize::try_from(config.max_memory).unwrap_or(usize::MAX),
        };
        Ok(Self {
            columns,
            family: config.family,
            host: names.host.map(|column| names.place(column)),
            request: names.request.map(|column| names.place(column)),
            counts: Arc::clone(counts),
            state: Mutex::new(State { pending: Pending::new(pace, clock::now_ns()), input, ended: false }),
        })
    }

    /// The further columns, which pass through to the results.
    pub fn columns(&self) -> &Fields {
        &self.columns
    }

    /// What was counted so far.
    pub fn counts(&self) -> ListCounts {
        let state = self.state();
        let (port_waits, duplicates) = state.pending.waits();
        let left = state.pending.left();
        ListCounts { port_waits, duplicates, left, ..self.counts.read() }
    }

    /// Bytes of memory that rows under way take, and how many they are.
    pub fn memory(&self) -> (usize, usize) {
        let state = self.state();
        (state.pending.memory(), state.pending.len())
    }

    /// Tells up to so many SYNs that are due now.
    ///
    /// # Errors
    /// What was wrong with the list, once; it is at its end then.
    pub(crate) fn take(&self, now_ns: u64, want: usize, into: &mut Vec<Due>) -> Result<(), MeasureError> {
        let mut state = self.state();
        let full = into.len() + want;
        state.pending.take(now_ns, want, into);
        while into.len() < full && !state.ended && state.pending.wants_more() {
            match state.input.try_recv() {
                Ok(Ok(batch)) => state.pending.add(batch),
                Ok(Err(error)) => {
                    state.ended = true;
                    return Err(error);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => state.ended = true,
            }
            let room = full - into.len();
            state.pending.take(now_ns, room, into);
        }
        Ok(())
    }

    /// Whether no SYN will be due any more.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.state();
        state.ended && state.pending.is_idle()
    }

    /// The row that waits for the answer to this probe of a target.
    pub(crate) fn asked(&self, target: Target, number: u16) -> Option<u32> {
        self.state().pending.asked(target, number)
    }

    /// The same, which has a connection from now on.
    pub(crate) fn connect(&self, target: Target, number: u16) -> Option<u32> {
        let mut state = self.state();
        let row = state.pending.asked(target, number)?;
        state.pending.connect(row);
        Some(row)
    }

    /// A row is done: where its further columns are is told to `then`, and it is no more.
    pub(crate) fn finish<T>(&self, row: u32, then: impl FnOnce(Source<'_>) -> T) -> T {
        let mut state = self.state();
        let result = then(state.pending.source(row));
        state.pending.done(row);
        result
    }

    /// A row whose target stayed silent is done: its target, the number of its probe, and where its further columns are, are
    /// told to `then`, and it is no more. `None` when there is none.
    pub(crate) fn finish_silent<T>(&self, then: impl FnOnce(Target, u16, Source<'_>) -> T) -> Option<T> {
        let mut state = self.state();
        let row = state.pending.silent()?;
        let result = then(state.pending.target(row), state.pending.number(row), state.pending.source(row));
        state.pending.done(row);
        Some(result)
    }

    /// Hands out what the list says about the recipient of a request.
    pub(crate) fn recipient<T>(&self, row: u32, target: Target, then: impl FnOnce(&Recipient<'_>) -> T) -> T {
        let state = self.state();
        let Source { columns, row, .. } = state.pending.source(row);
        let row = row as usize;
        let host = self.host.and_then(|column| batch::text(&columns[column], row)).filter(|host| !host.is_empty());
        let request = self.request.and_then(|column| batch::bytes(&columns[column], row));
        then(&Recipient { family: self.family, target, host, request })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whoever panicked has ended the run.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
