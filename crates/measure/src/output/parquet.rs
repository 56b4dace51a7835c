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

use super::{PartLimits, Sink};
use crate::error::MeasureError;

/// Columns of numbers that vary within a range: the differences take fewer bytes than the compressor finds, in a third of
/// its time. Dictionaries, which are on by default, cost more than they save in every column.
const VARYING: [&str; 5] = ["saddr", "dport", "ipid", "timestamp", "rtt"];
/// Columns by which readers leave out whole row groups. Statistics of the others would be work for nothing.
const SOUGHT: [&str; 4] = ["saddr", "daddr", "sport", "timestamp"];

/// A Parquet output in the making.
pub(super) struct Parts {
    path: PathBuf,
    folder: PathBuf,
    schema: SchemaRef,
    open: Option<Part>,
    closed: Vec<PathBuf>,
    limits: PartLimits,
    lost: u64,
}

struct Part {
    writer: ArrowWriter<File>,
    since: Instant,
    rows: u64,
}

impl Parts {
    pub(super) fn open(path: PathBuf, schema: &SchemaRef, limits: PartLimits) -> Result<Self, MeasureError> {
        let mut folder = path.clone().into_os_string();
        folder.push(".parts");
        let folder = PathBuf::from(folder);
        let failed = |at: &Path, error| MeasureError::output(at, error);
        if folder.exists() {
            return Err(MeasureError::Config(format!(
                "{} holds the rows of a run that did not end: move it away first",
                folder.display()
            )));
        }
        // The file itself must be writable too: better to know now than after the last row.
        File::options().append(true).create(true).open(&path).map_err(|error| failed(&path, error))?;
        fs::create_dir(&folder).map_err(|error| failed(&folder, error))?;
        let mut parts =
            Self { path, folder, schema: Arc::clone(schema), open: None, closed: Vec::new(), limits, lost: 0 };
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
        let name = self.folder.join(format!("part-{:06}.parquet", self.closed.len()));
        fs::rename(self.unfinished(), &name).map_err(|error| MeasureError::output(&name, error))?;
        self.lost -= part.rows;
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

fn joined_writer(
    path: &Path,
    first: &FileMetaData,
    metadata: &str,
) -> Result<SerializedFileWriter<File>, ParquetError> {
    // The schema and its version are there already.
    let mut pairs = first.key_value_metadata().cloned().unwrap_or_default();
    pairs.push(KeyValue::new("irlstack.metadata".to_owned(), metadata.to_owned()));
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
