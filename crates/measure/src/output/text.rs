//! CSV, JSON lines and plain lines: each batch is in the file when [`Sink::write`] returns.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use irl_targets::Family;

use super::cells::Cells;
use super::{Committed, Format, Sink};
use crate::error::MeasureError;

/// Bytes gathered before they are written.
const CHUNK: usize = 1 << 16;

/// A text output. It is written in whole lines, and a file that cannot grow any more is cut back to them.
pub(super) struct Text {
    path: PathBuf,
    out: Out,
    /// Lines on their way.
    lines: Vec<u8>,
    /// Bytes in the output, all of them whole lines.
    written: u64,
    /// Whole lines that still went of a chunk that failed.
    partial: usize,
    lost: u64,
    format: Format,
    family: Family,
    names: Vec<String>,
}

enum Out {
    Stdout(io::Stdout),
    File(File),
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

impl Text {
    pub(super) fn open(
        path: PathBuf,
        format: Format,
        family: Family,
        schema: &SchemaRef,
        header: bool,
    ) -> Result<Self, MeasureError> {
        let out = if path == Path::new("-") {
            Out::Stdout(io::stdout())
        } else {
            Out::File(File::create(&path).map_err(|error| MeasureError::output(&path, error))?)
        };
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let lines = Vec::with_capacity(CHUNK + 4096);
        let mut text = Self { path, out, lines, written: 0, partial: 0, lost: 0, format, family, names };
        if format == Format::Csv && header {
            text.lines.extend_from_slice(text.names.join(",").as_bytes());
            text.lines.push(b'\n');
            text.flush().map_err(|error| text.failed(error))?;
        }
        Ok(text)
    }

    /// Goes on with a file of which so much is safe.
    pub(super) fn reopen(
        path: PathBuf,
        format: Format,
        family: Family,
        schema: &SchemaRef,
        header: bool,
        committed: &Committed,
    ) -> Result<Self, MeasureError> {
        if committed.bytes == 0 {
            return Self::open(path, format, family, schema, header);
        }
        let failed = |error| MeasureError::output(&path, error);
        let mut file = File::options().write(true).open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < committed.bytes {
            return Err(MeasureError::Config(format!(
                "{} has {length} bytes, and the checkpoint knows of {}: rows that were safe are missing",
                path.display(),
                committed.bytes
            )));
        }
        file.set_len(committed.bytes).and_then(|()| file.seek(SeekFrom::End(0)).map(drop)).map_err(failed)?;
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        let (out, written, lines) = (Out::File(file), committed.bytes, Vec::with_capacity(CHUNK + 4096));
        Ok(Self { path, out, lines, written, partial: 0, lost: 0, format, family, names })
    }

    fn failed(&self, error: io::Error) -> MeasureError {
        MeasureError::output(&self.path, error)
    }

    /// Writes the lines that were gathered.
    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let result = loop {
            if sent == self.lines.len() {
                break self.out.flush();
            }
            match self.out.write(&self.lines[sent..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        // Half a line would be taken for a row. A pipe or device cannot be cut, which changes nothing.
        let whole = self.lines[..sent].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        self.written += whole as u64;
        if result.is_err() {
            self.partial = self.lines[..whole].iter().filter(|byte| **byte == b'\n').count();
        }
        if let Out::File(file) = &self.out
            && whole < sent
        {
            let _ = file.set_len(self.written);
        }
        self.lines.clear();
        result
    }

    /// Writes rows, and counts in `safe` those of which the output has the line.
    fn rows(&mut self, batch: &RecordBatch, safe: &mut usize) -> io::Result<()> {
        let mut columns: Vec<Cells<'_>> =
            batch.columns().iter().zip(&self.names).map(|(array, name)| Cells::new(array, name, self.family)).collect();
        // `"name":` of each JSON member.
        let keys: Vec<String> = self.names.iter().map(|name| format!("\"{name}\":")).collect();
        for row in 0..batch.num_rows() {
            let line = &mut self.lines;
            match self.format {
                Format::Lines => columns[0].write(line, row, false),
                Format::JsonLines => {
                    let mut before = b'{';
                    for (column, key) in columns.iter_mut().zip(&keys) {
                        line.push(before);
                        before = b',';
                        line.extend_from_slice(key.as_bytes());
                        column.write(line, row, true);
                    }
                    line.push(b'}');
                }
                _ => {
                    for (number, column) in columns.iter_mut().enumerate() {
                        if number > 0 {
                            line.push(b',');
                        }
                        column.write(line, row, false);
                    }
                }
            }
            line.push(b'\n');
            if self.lines.len() >= CHUNK {
                self.flush()?;
                *safe = row + 1;
            }
        }
        self.flush()?;
        *safe = batch.num_rows();
        Ok(())
    }
}

impl Sink for Text {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), MeasureError> {
        let mut safe = 0;
        let result = self.rows(batch, &mut safe);
        result.map_err(|error| {
            self.lost += (batch.num_rows() - safe - self.partial) as u64;
            self.failed(error)
        })
    }

    fn commit(&mut self) -> Result<Committed, MeasureError> {
        let Out::File(file) = &self.out else {
            return Err(MeasureError::Config("what went to standard output cannot be cut back to a checkpoint".into()));
        };
        // A pipe or a device has nothing to make safe.
        match file.sync_data() {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(self.failed(error)),
            _ => Ok(Committed { bytes: self.written, ..Committed::default() }),
        }
    }

    fn lost(&self) -> u64 {
        self.lost
    }

    fn finish(self: Box<Self>, _metadata: &str) -> Result<(), MeasureError> {
        // Each batch was written when it came.
        Ok(())
    }
}
