//! Sending and receiving whole frames, for `irlstack.Stack`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use irl_link::Network;
use irl_measure::stream::{Completion, FrameBatch, Layer, Sent, Stream};
use irl_wire::PortRange;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use pyo3_arrow::input::AnyArray;

use crate::arrow::PyBatch;
use crate::errors::{EngineError, Error, PolicyError, Result};
use crate::policy::PolicyLike;
use crate::run::SIGNAL_INTERVAL;

/// Frames in both directions. Use `irlstack.Stack`.
#[pyclass(frozen, module = "irlstack._core", name = "RawStream")]
pub(crate) struct PyStream {
    stream: Stream,
    /// Whether the device is without Ethernet.
    ip_layer: bool,
}

impl PyStream {
    pub(crate) fn start(
        network: Arc<dyn Network>,
        policy: &PolicyLike,
        ports: PortRange,
        frame_len: usize,
    ) -> Result<Self> {
        let policy = Arc::new(policy.for_frames(network.policy_settings())?);
        let ip_layer = network.info().ip_layer;
        Ok(Self { stream: Stream::start(network, policy, ports, frame_len)?, ip_layer })
    }
}

#[pymethods]
impl PyStream {
    /// Copies frames and queues them.
    #[pyo3(signature = (frames, lengths=None, layer=2, fill_checksums=false))]
    fn send(
        &self,
        py: Python<'_>,
        frames: &Bound<'_, PyAny>,
        lengths: Option<&Bound<'_, PyAny>>,
        layer: u8,
        fill_checksums: bool,
    ) -> Result<PyCompletion> {
        let layer = match layer {
            2 if self.ip_layer => {
                return Err(Error::config(
                    "This device has no Ethernet: give frames from the IP header on, with layer = 3.".to_owned(),
                ));
            }
            2 => Layer::Ethernet,
            3 => Layer::Ip,
            _ => return Err(Error::config(format!("layer = {layer} cannot be: frames begin at layer 2 or 3."))),
        };
        let mut frames = frames_of(frames, lengths)?;
        loop {
            py.check_signals()?;
            match py.detach(|| self.stream.send(frames, layer, fill_checksums, SIGNAL_INTERVAL)) {
                Ok(completion) => return Ok(PyCompletion(completion)),
                Err(back) => frames = back,
            }
        }
    }

    /// Begins to keep what is received.
    fn listen(&self) {
        self.stream.listen();
    }

    /// The next frames within `timeout` seconds, or None.
    fn receive(&self, py: Python<'_>, timeout: f64) -> Result<Option<PyBatch>> {
        let end = Instant::now() + Duration::try_from_secs_f64(timeout).unwrap_or_default();
        loop {
            py.check_signals()?;
            let left = end.saturating_duration_since(Instant::now());
            match py.detach(|| self.stream.receive(left.min(SIGNAL_INTERVAL))) {
                Some(batch) => return Ok(Some(PyBatch(batch))),
                None if left.is_zero() => return Ok(None),
                None => {}
            }
        }
    }

    /// Frames received, and of them those lost because nobody read them in time.
    fn counts(&self) -> (u64, u64) {
        self.stream.counts()
    }

    /// Stops; no frame leaves once this returns.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.stream.stop());
    }
}

impl Drop for PyStream {
    fn drop(&mut self) {
        // The thread may be waiting for the interpreter to log something.
        Python::attach(|py| py.detach(|| self.stream.stop()));
    }
}

/// What became of the frames of one send. Use `irlstack.Completion`.
#[pyclass(frozen, module = "irlstack._core", name = "RawCompletion")]
pub(crate) struct PyCompletion(Completion);

#[pymethods]
impl PyCompletion {
    /// Waits until the frames have left, at most for `timeout` seconds, and says whether they have.
    ///
    /// Raises:
    ///     PolicyError: some were refused.
    ///     EngineError: some could not be sent.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> Result<bool> {
        let end = timeout.map(|timeout| Instant::now() + Duration::try_from_secs_f64(timeout).unwrap_or_default());
        loop {
            py.check_signals()?;
            let left = end.map_or(SIGNAL_INTERVAL, |end| end.saturating_duration_since(Instant::now()));
            let sent = py.detach(|| self.0.wait(left.min(SIGNAL_INTERVAL)));
            if sent.done {
                return complain(&sent).map_or(Ok(true), Err);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// (sent, refused by the policy, without next hop, failed, whether nothing more will come).
    fn state(&self) -> (u64, u64, u64, u64, bool) {
        let sent = self.0.state();
        (sent.sent, sent.refused, sent.unresolved, sent.failed, sent.done)
    }
}

fn complain(sent: &Sent) -> Option<Error> {
    let total = sent.sent + sent.refused + sent.unresolved + sent.failed;
    if sent.refused > 0 {
        let why = sent.refusal.as_deref().unwrap_or("the policy says so");
        let text = format!("Refused {} of {total} frames: {why}.", sent.refused);
        return Some(Error::Python(PolicyError::new_err(text)));
    }
    if sent.failed > 0 || sent.unresolved > 0 {
        let why = sent.error.as_deref().unwrap_or("their next hop does not answer");
        let lost = sent.failed + sent.unresolved;
        let text = format!("Could not send {lost} of {total} frames: {why}.");
        return Some(Error::Python(EngineError::new_err(text)));
    }
    None
}

/// Copies frames out of whatever holds them: from here on nobody else can change them.
fn frames_of(frames: &Bound<'_, PyAny>, lengths: Option<&Bound<'_, PyAny>>) -> Result<FrameBatch> {
    let mut batch = FrameBatch::default();
    if let Ok(list) = frames.cast::<PyList>() {
        for item in list {
            match item.cast::<PyBytes>() {
                Ok(bytes) => batch.push(bytes.as_bytes()),
                Err(_) => batch.push(&item.extract::<Vec<u8>>()?),
            }
        }
    } else if frames.hasattr("__arrow_c_array__")? || frames.hasattr("__arrow_c_stream__")? {
        let reader = frames.extract::<AnyArray>()?.into_reader().map_err(Error::Python)?;
        for array in reader {
            push_array(&mut batch, &array.map_err(|error| Error::config(error.to_string()))?)?;
        }
    } else {
        push_buffer(&mut batch, frames, lengths)?;
        return Ok(batch);
    }
    if lengths.is_some() {
        return Err(Error::config("Lengths go with a two-dimensional buffer; these frames have their own."));
    }
    Ok(batch)
}

fn push_array(batch: &mut FrameBatch, array: &ArrayRef) -> Result<()> {
    let array = match array.data_type() {
        // A batch of `Stack.receive`, or any table that has such a column.
        DataType::Struct(_) => array
            .as_struct()
            .column_by_name("frame")
            .ok_or_else(|| Error::config("This table has no column 'frame'."))?,
        _ => array,
    };
    if array.null_count() > 0 {
        return Err(Error::config("There are nulls among the frames."));
    }
    macro_rules! push {
        ($values:expr) => {
            $values.iter().flatten().for_each(|frame| batch.push(frame))
        };
    }
    match array.data_type() {
        DataType::Binary => push!(array.as_binary::<i32>()),
        DataType::LargeBinary => push!(array.as_binary::<i64>()),
        DataType::BinaryView => push!(array.as_binary_view()),
        DataType::FixedSizeBinary(_) => push!(array.as_fixed_size_binary()),
        other => return Err(Error::config(format!("Frames are binary, not {other}."))),
    }
    Ok(())
}

fn push_buffer(batch: &mut FrameBatch, frames: &Bound<'_, PyAny>, lengths: Option<&Bound<'_, PyAny>>) -> Result<()> {
    let wanted = "Frames are a list of bytes, an Arrow binary array, or a buffer of unsigned bytes of two dimensions, \
                  (frames, width), with their lengths.";
    let buffer = PyBuffer::<u8>::get(frames).map_err(|_| Error::config(wanted))?;
    let &[count, width] = buffer.shape() else { return Err(Error::config(wanted)) };
    let bytes = buffer.to_vec(frames.py())?;
    let lengths = match lengths {
        Some(lengths) => numbers(lengths)?,
        None => vec![width; count],
    };
    if lengths.len() != count {
        return Err(Error::config(format!("There are {count} frames and {} lengths.", lengths.len())));
    }
    if let Some(length) = lengths.iter().find(|&&length| length > width) {
        return Err(Error::config(format!("A frame of {length} bytes does not fit the width of {width}.")));
    }
    for (row, &length) in bytes.chunks_exact(width.max(1)).zip(&lengths) {
        batch.push(&row[..length]);
    }
    Ok(())
}

/// Whole numbers from a buffer or a sequence.
fn numbers(object: &Bound<'_, PyAny>) -> Result<Vec<usize>> {
    macro_rules! buffer {
        ($($type:ty),*) => {$(
            if let Ok(buffer) = PyBuffer::<$type>::get(object) {
                let values = buffer.to_vec(object.py())?;
                return values.into_iter().map(|value| usize::try_from(value).map_err(|_| negative())).collect();
            }
        )*};
    }
    buffer!(u16, u32, u64, i32, i64);
    Ok(object.extract::<Vec<usize>>()?)
}

fn negative() -> Error {
    Error::config("A length cannot be negative.")
}
