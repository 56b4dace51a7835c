//! Where rows go: Parquet in parts, growing CSV and JSON lines, or plain addresses.

mod cells;
mod parquet;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use irl_targets::Family;
use serde::{Deserialize, Serialize};

use crate::error::MeasureError;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Columns, compressed with zstd.
    Parquet,
    /// Comma-separated values with a header line.
    Csv,
    /// A JSON object a line, bytes in hexadecimal.
    JsonLines,
    /// The first column alone, a value a line.
    Lines,
}

impl Format {
    /// The format of this name: csv, json (or jsonl: an object a line) or parquet.
    ///
    /// # Errors
    /// [`MeasureError::Config`] for any other name.
    pub fn by_name(name: &str) -> Result<Self, MeasureError> {
        match name {
            "csv" => Ok(Self::Csv),
            "json" | "jsonl" => Ok(Self::JsonLines),
            "parquet" => Ok(Self::Parquet),
            other => Err(MeasureError::Config(format!(
                "there is no output module {other:?}: there are csv, json (an object a line) and parquet"
            ))),
        }
    }

    /// The format that a file's suffix stands for: `.parquet`, `.csv`, `.jsonl` (or `.json`, `.ndjson`); none is CSV.
    ///
    /// # Errors
    /// [`MeasureError::Config`] for any other suffix.
    pub fn of(path: &Path) -> Result<Self, MeasureError> {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("parquet") => Ok(Self::Parquet),
            None | Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "json" | "ndjson") => Ok(Self::JsonLines),
            Some(other) => Err(MeasureError::Config(format!(
                "the format of {} is unknown: name it .parquet, .csv or .jsonl instead of .{other}",
                path.display()
            ))),
        }
    }
}

/// When a part of a Parquet output is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLimits {
    /// After so many rows.
    pub rows: u64,
    /// After so long.
    pub time: Duration,
}

impl Default for PartLimits {
    fn default() -> Self {
        Self { rows: 1 << 20, time: Duration::from_secs(60) }
    }
}

/// What is safe of an output, for a checkpoint: what it can be cut back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Bytes of a text.
    pub bytes: u64,
    /// Closed parts of a Parquet output.
    pub parts: u64,
    /// Rows in them.
    pub rows: u64,
}

/// A place for rows.
pub trait Sink: Send {
    /// Takes rows. Text grows at once; Parquet when its part is closed.
    ///
    /// # Errors
    /// [`MeasureError::Output`]; what was written before stays.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), MeasureError>;

    /// Called about once a second, also when no rows come.
    ///
    /// # Errors
    /// As [`Sink::write`].
    fn tick(&mut self) -> Result<(), MeasureError> {
        Ok(())
    }

    /// Makes everything written until now safe, so that a run can be gone on with from here.
    ///
    /// # Errors
    /// As [`Sink::write`], and [`MeasureError::Config`] where nothing can be cut back.
    fn commit(&mut self) -> Result<Committed, MeasureError>;

    /// Makes sure of everything written until now, before the metadata is.
    ///
    /// # Errors
    /// As [`Sink::write`].
    fn settle(&mut self) -> Result<(), MeasureError> {
        Ok(())
    }

    /// Rows it was given and could not keep.
    fn lost(&self) -> u64;

    /// Ends the output and makes it whole. `metadata` is the run's JSON document.
    ///
    /// # Errors
    /// [`MeasureError::Output`]; what was written before stays.
    fn finish(self: Box<Self>, metadata: &str) -> Result<(), MeasureError>;
}

/// Opens an output before the first frame is sent, so that one that cannot be written is found in time. `-` is
/// standard output.
///
/// # Errors
/// [`MeasureError::Output`], [`MeasureError::Config`].
pub fn open(
    path: &Path,
    format: Format,
    family: Family,
    schema: &SchemaRef,
    header: bool,
) -> Result<Box<dyn Sink>, MeasureError> {
    match format {
        Format::Parquet => open_parquet(path, schema, PartLimits::default()),
        text => Ok(Box::new(text::Text::open(PathBuf::from(path), text, family, schema, header)?)),
    }
}

/// Opens an output that was cut short, at what is safe of it; what was written beyond is taken away. Otherwise as [`open`].
///
/// # Errors
/// As [`open`], and [`MeasureError::Config`] when something of it is missing.
pub fn reopen(
    path: &Path,
    format: Format,
    family: Family,
    schema: &SchemaRef,
    header: bool,
    committed: &Committed,
) -> Result<Box<dyn Sink>, MeasureError> {
    match format {
        Format::Parquet => {
            Ok(Box::new(parquet::Parts::reopen(PathBuf::from(path), schema, PartLimits::default(), committed)?))
        }
        text => Ok(Box::new(text::Text::reopen(PathBuf::from(path), text, family, schema, header, committed)?)),
    }
}

/// Opens a Parquet output whose parts are closed within these limits; otherwise as [`open`].
///
/// # Errors
/// As [`open`].
pub fn open_parquet(path: &Path, schema: &SchemaRef, limits: PartLimits) -> Result<Box<dyn Sink>, MeasureError> {
    if path == Path::new("-") {
        return Err(MeasureError::Config(
            "Parquet cannot be written to standard output: name a file with --output-file".into(),
        ));
    }
    Ok(Box::new(parquet::Parts::open(PathBuf::from(path), schema, limits)?))
}
