//! Target lists as they come from Python: read piece by piece, and Ctrl-C is heard meanwhile.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use irl_targets::{TargetList, TargetsError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{Error, Result};

/// How much is read at a time. A piece is parsed in milliseconds, so Ctrl-C is heard at once.
const PIECE: usize = 1 << 20;

/// Where a list comes from: its lines, a file of them, or an object with `read(size)`.
#[derive(FromPyObject)]
pub(crate) enum ListLike {
    Lines(Vec<u8>),
    Path(PathBuf),
    Stream(Py<PyAny>),
}

impl ListLike {
    /// The list, and whether it can be read only once.
    pub(crate) fn read(self, py: Python<'_>) -> Result<(TargetList, bool)> {
        match self {
            Self::Lines(lines) => Ok((py.detach(|| TargetList::from_reader("-", lines.as_slice()))?, true)),
            Self::Path(path) => {
                let file = File::open(&path).map_err(|source| TargetsError::Io {
                    what: "read",
                    path: path.clone(),
                    source,
                })?;
                Ok((read(py, &path, file)?, false))
            }
            Self::Stream(stream) if !stream.bind(py).hasattr("read")? => {
                Err(Error::config("list_of_ips_file is a path, bytes, or a file that is open for reading bytes."))
            }
            Self::Stream(stream) => Ok((read(py, Path::new("-"), Stream { stream, piece: None, at: 0 })?, true)),
        }
    }
}

fn read(py: Python<'_>, path: &Path, source: impl Read + Send) -> Result<TargetList> {
    let mut heard = Heard { source, error: None };
    let list = py.detach(|| TargetList::from_reader(path, BufReader::with_capacity(PIECE, &mut heard)));
    match heard.error {
        Some(error) => Err(Error::Python(error)),
        None => Ok(list?),
    }
}

/// A reader that looks for Ctrl-C, and keeps what Python raised.
struct Heard<R> {
    source: R,
    error: Option<PyErr>,
}

impl<R: Read> Read for Heard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let signals = Python::attach(|py| py.check_signals());
        let read = signals.map_err(io::Error::other).and_then(|()| self.source.read(buffer));
        read.map_err(|error| match error.downcast::<PyErr>() {
            Ok(raised) => {
                self.error = Some(raised);
                io::Error::other("Python raised an exception")
            }
            Err(error) => error,
        })
    }
}

/// An object with `read(size)`, which returns bytes, none at the end.
struct Stream {
    stream: Py<PyAny>,
    piece: Option<Py<PyBytes>>,
    /// How much of the piece was handed on.
    at: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Python::attach(|py| {
            if self.piece.as_ref().is_none_or(|piece| piece.as_bytes(py).len() == self.at) {
                // A buffered `read` asks again and again until it has all, deaf to a signal in between.
                let stream = self.stream.bind(py);
                let method = if stream.hasattr("read1")? { "read1" } else { "read" };
                let piece = stream.call_method1(method, (PIECE,))?;
                self.piece = Some(piece.cast_into::<PyBytes>()?.unbind());
                self.at = 0;
            }
            let rest = self.piece.as_ref().map_or(&[][..], |piece| &piece.as_bytes(py)[self.at..]);
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.at += count;
            Ok(count)
        })
        .map_err(|error: PyErr| io::Error::other(error))
    }
}
