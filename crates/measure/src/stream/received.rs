//! Frames on their way to the reader, in columns.

use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, TimestampNanosecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// The version of the columns of received frames.
pub const VERSION: u32 = 1;

/// The columns of received frames: when (UTC, ns) and the frame from its Ethernet header on.
pub fn schema() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
    let metadata = [("irlstack.schema".to_owned(), format!("frames {VERSION}"))].into();
    let fields = vec![Field::new("timestamp", time, false), Field::new("frame", DataType::Binary, false)];
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Frames on their way to the reader.
#[derive(Default)]
pub(super) struct Received {
    times: Vec<i64>,
    frames: Vec<u8>,
    ends: Vec<usize>,
}

impl Received {
    /// How many frames wait.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// Keeps a frame that came at this time, UTC in ns.
    pub(super) fn push(&mut self, time: i64, frame: &[u8]) {
        self.times.push(time);
        self.frames.extend_from_slice(frame);
        self.ends.push(self.frames.len());
    }

    /// What was kept; nothing is left. `None` when nothing was.
    pub(super) fn take(&mut self) -> Option<RecordBatch> {
        if self.times.is_empty() {
            return None;
        }
        let mut start = 0;
        let frames = self.ends.drain(..).map(|end| {
            let frame = &self.frames[start..end];
            start = end;
            frame
        });
        let frames: ArrayRef = Arc::new(BinaryArray::from_iter_values(frames));
        let times = TimestampNanosecondArray::from(std::mem::take(&mut self.times)).with_timezone("UTC");
        self.frames.clear();
        RecordBatch::try_new(schema(), vec![Arc::new(times), frames]).ok()
    }
}
