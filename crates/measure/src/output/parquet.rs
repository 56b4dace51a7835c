//! Parquet in parts: a part is closed by rename every minute or million rows, and all are joined at the end.
//!
//! While a run goes on, `NAME.parts/` holds whole, readable files; a crash loses the open part at most. At the end the
//! row groups are moved into `NAME` as they are, without decoding them again, and the folder goes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{FileMetaData, KeyValue};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::ColumnPath;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use super::{Committed, PartLimits, Sink};
use crate::checkpoint::sync_folder;
use crate::error::MeasureError;

/// Columns of numbers that vary within a range: the differences take fewer bytes than the compressor finds, in a third of
/// its time. Dictionaries, which are on by default, cost more than they save in every column.
const VARYING: [&str; 5] = ["saddr", "dport", "ipid", "timestamp", "rtt"];
/// Columns by which readers leave out whole row groups. Statistics of the others would be work for nothing.
const SOUGHT: [&str; 4] = ["saddr", "daddr", "sport", "timestamp"];

/// The key of the run's document.
const METADATA: &str = "irlstack.metadata";

/// A Parquet output in the making.
pub(super) struct Parts {
    path: PathBuf,
    folder: PathBuf,
    schema: SchemaRef,
    open: Option<Part>,
    closed: Vec<PathBuf>,
    limits: PartLimits,
    /// Rows in closed parts.
    safe: u64,
    /// Of the closed ones, those that a loss of power spares.
    synced: usize,
    lost: u64,
}

struct Part {
    writer: ArrowWriter<File>,
    since: Instant,
    rows: u64,
}

impl Parts {
    pub(super) fn open(path: PathBuf, schema: &SchemaRef, limits: PartLimits) -> Result<Self, MeasureError> {
        let folder = folder_of(&path);
        let failed = |at: &Path, error| MeasureError::output(at, error);
        if folder.exists() {
            return Err(MeasureError::Config(format!(
                "{} holds the rows of a run that did not end: go on with it (irlstack scan --resume), or move it away \
                 first",
                folder.display()
            )));
        }
        // The file itself must be writable too: better to know now than after the last row.
        File::options().append(true).create(true).open(&path).map_err(|error| failed(&path, error))?;
        fs::create_dir(&folder).map_err(|error| failed(&folder, error))?;
        let mut parts = Self {
            path,
            folder,
            schema: Arc::clone(schema),
            open: None,
            closed: Vec::new(),
            limits,
            safe: 0,
            synced: 0,
            lost: 0,
        };
        parts.open_part()?;
        Ok(parts)
    }

    /// Goes on after the parts that are safe, or after the file that they were joined to. Other parts go.
    pub(super) fn reopen(
        path: PathBuf,
        schema: &SchemaRef,
        limits: PartLimits,
        committed: &Committed,
    ) -> Result<Self, MeasureError> {
        let folder = folder_of(&path);
        let failed = |at: &Path, error| MeasureError::output(at, error);
        fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        let mut closed: Vec<PathBuf> = (0..committed.parts).map(|number| part(&folder, number)).collect();
        let has =
            |parts: &[PathBuf]| parts.iter().map(|part| rows_in(part)).sum::<Option<u64>>() == Some(committed.rows);
        if !has(&closed) {
            // An orderly end joined them, and perhaps somebody began to go on with that.
            closed = vec![part(&folder, 0)];
            if !has(&closed) && has(std::slice::from_ref(&path)) {
                fs::rename(&path, &closed[0]).map_err(|error| failed(&path, error))?;
            }
            if !has(&closed) {
                let _ = fs::remove_dir(&folder);
                return Err(MeasureError::Config(format!(
                    "of the {} rows that the checkpoint knows of, not all are in {} or {}: copy them there",
                    committed.rows,
                    folder.display(),
                    path.display()
                )));
            }
        }
        let entries = fs::read_dir(&folder).map_err(|error| failed(&folder, error))?;
        for entry in entries.flatten().map(|entry| entry.path()).filter(|entry| !closed.contains(entry)) {
            fs::remove_file(&entry).map_err(|error| failed(&entry, error))?;
        }
        File::options().append(true).create(true).open(&path).map_err(|error| failed(&path, error))?;
        let schema = Arc::clone(schema);
        let mut parts =
            Self { path, folder, schema, open: None, closed, limits, safe: committed.rows, synced: 0, lost: 0 };
        parts.open_part()?;
        Ok(parts)
    }

    /// The error names the place where the rows until then are.
    fn failed(&self, error: ParquetError) -> MeasureError {
        let source = match error {
            ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
                Ok(io) => *io,
                Err(other) => std::io::Error::other(other),
            },
            other => std::io::Error::other(other),
        };
        MeasureError::output(if self.closed.is_empty() { &self.path } else { &self.folder }, source)
    }

    fn unfinished(&self) -> PathBuf {
        self.folder.join("open.tmp")
    }

    fn open_part(&mut self) -> Result<(), MeasureError> {
        let path = self.unfinished();
        let file = File::create(&path).map_err(|error| MeasureError::output(&path, error))?;
        let writer = ArrowWriter::try_new(file, Arc::clone(&self.schema), Some(properties(&self.schema)))
            .map_err(|error| self.failed(error))?;
        self.open = Some(Part { writer, since: Instant::now(), rows: 0 });
        Ok(())
    }

    fn close_part(&mut self) -> Result<(), MeasureError> {
        let Some(part) = self.open.take() else { return Ok(()) };
        // Until it has its name, its rows are not safe.
        self.lost += part.rows;
        part.writer.close().map_err(|error| self.failed(error))?;
        let name = self::part(&self.folder, self.closed.len() as u64);
        fs::rename(self.unfinished(), &name).map_err(|error| MeasureError::output(&name, error))?;
        self.lost -= part.rows;
        self.safe += part.rows;
        self.closed.push(name);
        Ok(())
    }

    /// Moves the row groups of all parts into one file, which then takes the place of the folder.
    fn join(&self, metadata: &str) -> Result<(), ParquetError> {
        if self.closed.is_empty() {
            return Ok(());
        }
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        self.join_into(&temporary, metadata).and_then(|()| Ok(fs::rename(&temporary, &self.path)?)).inspect_err(
            |_| {
                // The parts have it all.
                let _ = fs::remove_file(&temporary);
            },
        )?;
        fs::remove_dir_all(&self.folder)?;
        Ok(())
    }

    fn join_into(&self, temporary: &Path, metadata: &str) -> Result<(), ParquetError> {
        // One part at a time: a run of days has more of them than a process may have files open.
        let mut joined = None;
        for path in &self.closed {
            let file = File::open(path)?;
            let reader = SerializedFileReader::new(file.try_clone()?)?;
            let writer = match &mut joined {
                Some(writer) => writer,
                none => none.insert(joined_writer(temporary, reader.metadata().file_metadata(), metadata)?),
            };
            for group in reader.metadata().row_groups() {
                let rows = u64::try_from(group.num_rows())?;
                let mut out = writer.next_row_group()?;
                for column in group.columns() {
                    let closed = ColumnCloseResult {
                        bytes_written: u64::try_from(column.compressed_size())?,
                        rows_written: rows,
                        metadata: column.clone(),
                        bloom_filter: None,
                        column_index: None,
                        offset_index: None,
                    };
                    out.append_column(&file, closed)?;
                }
                out.close()?;
            }
        }
        if let Some(writer) = joined {
            writer.close()?;
        }
        Ok(())
    }
}

fn folder_of(path: &Path) -> PathBuf {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".parts");
    PathBuf::from(folder)
}

fn part(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("part-{number:06}.parquet"))
}

/// How many rows a Parquet file has; `None` where it is not a whole one.
fn rows_in(path: &Path) -> Option<u64> {
    let reader = SerializedFileReader::new(File::open(path).ok()?).ok()?;
    u64::try_from(reader.metadata().file_metadata().num_rows()).ok()
}

fn joined_writer(
    path: &Path,
    first: &FileMetaData,
    metadata: &str,
) -> Result<SerializedFileWriter<File>, ParquetError> {
    // The schema and its version are there already.
    let mut pairs = first.key_value_metadata().cloned().unwrap_or_default();
    // The first part may be what an earlier session joined.
    pairs.retain(|pair| pair.key != METADATA);
    pairs.push(KeyValue::new(METADATA.to_owned(), metadata.to_owned()));
    let properties = WriterProperties::builder().set_key_value_metadata(Some(pairs)).build();
    SerializedFileWriter::new(File::create(path)?, first.schema_descr().root_schema_ptr(), Arc::new(properties))
}

fn properties(schema: &SchemaRef) -> WriterProperties {
    let level = ZstdLevel::try_new(1).unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None);
    for field in schema.fields() {
        let column = || ColumnPath::from(field.name().as_str());
        if VARYING.contains(&field.name().as_str()) && field.data_type().primitive_width().is_some() {
            builder = builder.set_column_encoding(column(), Encoding::DELTA_BINARY_PACKED);
        }
        if SOUGHT.contains(&field.name().as_str()) {
            builder = builder.set_column_statistics_enabled(column(), EnabledStatistics::Page);
        }
    }
    let version = schema.metadata().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    builder.set_key_value_metadata(Some(version)).build()
}

impl Sink for Parts {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), MeasureError> {
        if self.open.is_none() {
            self.open_part()?;
        }
        let Some(part) = self.open.as_mut() else { return Ok(()) };
        let written = part.writer.write(batch);
        part.rows += batch.num_rows() as u64;
        if let Err(error) = written {
            // What the open part holds cannot be read without its end, which there is no room for.
            self.lost += part.rows;
            self.open = None;
            return Err(self.failed(error));
        }
        self.tick()
    }

    fn tick(&mut self) -> Result<(), MeasureError> {
        let PartLimits { rows, time } = self.limits;
        let due = |part: &Part| part.rows >= rows || (part.rows > 0 && part.since.elapsed() >= time);
        if self.open.as_ref().is_some_and(due) { self.close_part() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<Committed, MeasureError> {
        if self.open.as_ref().is_some_and(|part| part.rows > 0) {
            self.close_part()?;
        }
        for part in &self.closed[self.synced..] {
            File::open(part).and_then(|file| file.sync_all()).map_err(|error| MeasureError::output(part, error))?;
        }
        if self.synced < self.closed.len() {
            sync_folder(&self.closed[self.synced]);
        }
        self.synced = self.closed.len();
        Ok(Committed { bytes: 0, parts: self.closed.len() as u64, rows: self.safe })
    }

    fn settle(&mut self) -> Result<(), MeasureError> {
        self.close_part()
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn finish(mut self: Box<Self>, metadata: &str) -> Result<(), MeasureError> {
        self.close_part()?;
        self.join(metadata).map_err(|error| self.failed(error))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // After an orderly end nothing of this is there any more. Otherwise: what is not a whole Parquet file goes, and
        // the closed parts stay.
        let _ = fs::remove_file(self.unfinished());
        if self.closed.is_empty() {
            let _ = fs::remove_dir(&self.folder);
        }
        if fs::metadata(&self.path).is_ok_and(|file| file.len() == 0) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
